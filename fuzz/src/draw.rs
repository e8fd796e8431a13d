//! Decides: bytes become choices, so that whoever makes the bytes, a fuzzer or a seeded generator, makes structured
//! values. When there are no more bytes, every choice is the first one, which is the smallest.

use serde_json::{Map, Value, json};

/// Deepest nesting of what is drawn.
const MAX_DEPTH: usize = 8;

const WORDS: &[&str] = &[
    "a",
    "b",
    "name",
    "default",
    "app",
    "x-1",
    "a.b/c",
    "",
    "v1",
    "true",
    "null",
    "1",
    "$patch",
    "delete",
    "replace",
    "-",
    "é",
    "A",
    "~1",
    "$setElementOrder/ports",
    "$deleteFromPrimitiveList/finalizers",
    "kubernetes.io/hostname",
    "\u{0}",
];

/// Bytes that choices are made of.
#[derive(Clone, Debug)]
pub struct Draw<'a>(&'a [u8]);

impl<'a> Draw<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number less than `count`, which is at most 65536; 0 for none.
    pub fn below(&mut self, count: usize) -> usize {
        let wide = if count > 256 { usize::from(self.byte()) << 8 } else { 0 };
        (wide | usize::from(self.byte())) % count.max(1)
    }

    /// True about once in so many times, at most 256.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub fn word(&mut self) -> String {
        if self.one_in(12) {
            let count = self.below(12);
            let bytes: Vec<u8> = (0..count).map(|_| self.byte()).collect();
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        self.pick(WORDS).to_owned()
    }

    pub fn integer(&mut self) -> i64 {
        const NUMBERS: &[i64] =
            &[0, 1, 2, -1, 80, 443, 65_535, 65_536, i32::MAX as i64, i32::MIN as i64, i64::MAX, i64::MIN];
        if self.one_in(4) { i64::from(self.byte()) << self.below(56) } else { self.pick(NUMBERS) }
    }

    pub fn quantity(&mut self) -> Value {
        const SUFFIXES: &[&str] = &["", "m", "k", "Mi", "Gi", "e3", "E", "n", "u", "x", "Ei", "e-9", "e999"];
        if self.one_in(8) {
            return self.integer().into();
        }
        let number = self.integer();
        let fraction = if self.one_in(4) { format!(".{}", self.byte()) } else { String::new() };
        format!("{number}{fraction}{}", self.pick(SUFFIXES)).into()
    }

    /// Any JSON.
    pub fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth < MAX_DEPTH { 8 } else { 6 }) {
            0 => Value::Null,
            1 => self.one_in(2).into(),
            2 => self.integer().into(),
            3 => json!(self.integer() as f64 / 1024.0),
            4 | 5 => self.word().into(),
            6 => (0..self.below(5)).map(|_| self.json(depth + 1)).collect(),
            _ => (0..self.below(5)).map(|_| (self.word(), self.json(depth + 1))).collect::<Map<_, _>>().into(),
        }
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// The text that is left; what is no UTF-8 is replaced.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.rest()).into_owned()
    }
}
