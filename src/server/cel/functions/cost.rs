//! Decides: what a call costs, as it is estimated for all possible arguments and as it is counted for the actual ones
//! (`checker/cost.go` and `interpreter/runtimecost.go` of cel-go, `library/cost.go` of `k8s.io/apiserver/pkg/cel`). The two
//! do not always agree upstream, so they do not here.

use super::super::compare::visit;
use super::super::value::{List, Map, Value};
use super::super::{types::Type, value::Constant};

/// Characters of a string or bytes that one unit of cost goes through.
const TRAVERSAL: f64 = 0.1;
/// Of a regular expression, whose states can only be guessed from its length.
const REGEX: f64 = 0.25;
/// Items of a list that one unit of cost copies. Upstream joins lists without copying.
const COPIED: u64 = 100;
/// Bytes of a string that a function of cost 1 may go through.
const UNCOUNTED: u64 = 10_000;

/// How the cost of a function depends on its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    One,
    /// Goes through the first argument; the result is as long (`lowerAscii`).
    Same,
    /// Goes through the first argument, and the estimate knows it (`url`).
    First,
    /// Goes through the first argument, but the estimate is 1 (`ip`).
    Parse,
    /// Estimated by the second argument, counted by the first (`startsWith`).
    Affix,
    /// Goes through both as far as the shorter goes.
    Compare,
    /// `+` of strings and bytes.
    Concat,
    /// `+` of lists.
    Append,
    /// `in` of a list.
    Member,
    Contains,
    /// `matches`, `find` and `findAll`
    Regex,
    ToBytes,
    FromBytes,
    Quote,
    Format,
    /// Through every item of a list (`sum`), or a string (`indexOf`).
    Traverse,
    Replace,
    Split,
    Join,
    /// Every item with every other (`sets.contains`, `distinct`).
    Product,
    /// One for each item (`reverse`).
    Items,
    /// `lists.range`
    Range,
    ContainsIp,
    ContainsCidr,
    /// `validate` of a named format.
    Validate,
    /// `check` of the authorizer: two are allowed in an expression.
    Check,
}

/// The least and the most that something may be long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub min: u64,
    pub max: u64,
}

impl Size {
    pub const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    #[must_use]
    pub fn exactly(size: u64) -> Self {
        Self { min: size, max: size }
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }
}

/// What is known of an argument before it is there.
pub(in super::super) struct Known<'a> {
    pub size: Option<Size>,
    pub ty: &'a Type,
    /// The size of the items of a list that a schema declares.
    pub item: Option<Size>,
    pub literal: Option<&'a Constant>,
}

impl Known<'_> {
    fn size(&self) -> Size {
        self.size.unwrap_or(Size::UNKNOWN)
    }
}

fn scaled(size: u64, factor: f64) -> u64 {
    // Beyond 2^64 the conversion saturates, as upstream's does by hand.
    (size as f64 * factor).ceil() as u64
}

fn by(size: Size, factor: f64) -> u64 {
    scaled(size.max, factor)
}

/// The most that a call may cost, and the size of its result if that is known.
pub(in super::super) fn estimate(cost: Cost, known: &[Known<'_>]) -> (u64, Option<Size>) {
    let size = |index: usize| known.get(index).map_or(Size::UNKNOWN, Known::size);
    let item = |index: usize| match known.get(index).map(|k| (k.ty, k)) {
        Some((Type::List(_), known)) => known.item.unwrap_or(Size::UNKNOWN),
        _ => Size::UNKNOWN,
    };
    match cost {
        Cost::One | Cost::Parse => (1, None),
        Cost::Same => (by(size(0), TRAVERSAL), Some(size(0))),
        Cost::First => (by(size(0), TRAVERSAL), None),
        Cost::Affix => (by(size(1), TRAVERSAL), None),
        Cost::Compare => (scaled(size(0).max.min(size(1).max), TRAVERSAL), None),
        Cost::Concat => (by(size(0).plus(size(1)), TRAVERSAL), Some(size(0).plus(size(1)))),
        Cost::Append => (1, Some(size(0).plus(size(1)))),
        Cost::Member => (size(1).max, None),
        Cost::Contains => (by(size(0), TRAVERSAL).saturating_mul(by(size(1), TRAVERSAL)), None),
        Cost::Regex => {
            let text = by(size(0).plus(Size::exactly(1)), TRAVERSAL);
            let found = Size { min: 0, max: size(0).max };
            (text.saturating_mul(by(size(1), REGEX)), Some(found))
        }
        Cost::ToBytes => {
            let size = size(0);
            (by(size, TRAVERSAL), Some(Size { min: size.min, max: size.max.saturating_mul(4) }))
        }
        Cost::FromBytes => (by(size(0), TRAVERSAL), Some(Size { min: size(0).min / 4, max: size(0).max })),
        Cost::Quote => {
            let size = size(0);
            let max = size.max.saturating_mul(2).saturating_add(2);
            (by(size, TRAVERSAL), Some(Size { min: size.min.saturating_add(2), max }))
        }
        Cost::Format => (by(size(0), TRAVERSAL), Some(size(0).plus(size(1)))),
        Cost::Traverse => match known.first().map(|k| k.ty) {
            Some(Type::List(list)) => {
                let strings = matches!(list.element.ty, Type::String | Type::Bytes);
                let each = if strings { 1_u64.saturating_add(by(item(0), TRAVERSAL)) } else { 1 };
                (size(0).max.saturating_mul(each), None)
            }
            _ => (by(size(0), TRAVERSAL), None),
        },
        Cost::Replace => (by(size(0), 2.0 * TRAVERSAL), Some(replaced(size(0), size(1), size(2)))),
        Cost::Split => {
            let limit = match known.get(2).and_then(|k| k.literal) {
                Some(Constant::Int(limit)) => u64::try_from(*limit).ok(),
                _ => None,
            };
            (by(size(0), 2.0 * TRAVERSAL), Some(Size { min: 0, max: limit.unwrap_or(size(0).max) }))
        }
        Cost::Join => {
            let mut result = match known.first().map(|k| k.ty) {
                Some(Type::List(_)) => size(0).times(item(0)),
                _ => Size::exactly(0),
            };
            if known.len() > 1 {
                let between = Size { min: size(0).min.saturating_sub(1), max: size(0).max.saturating_sub(1) };
                result = result.plus(size(1).times(between));
            }
            (by(result, TRAVERSAL), Some(result))
        }
        Cost::Product => {
            let other = if known.len() > 1 { size(1) } else { size(0) };
            (size(0).max.saturating_mul(other.max).saturating_add(1), Some(size(0)))
        }
        Cost::Items => (size(0).max.saturating_add(1), Some(Size { min: 0, max: size(0).max })),
        Cost::Range => {
            let items = match known.first().and_then(|k| k.literal) {
                Some(Constant::Int(items)) => Size::exactly(u64::try_from(*items).unwrap_or(0)),
                _ => Size::UNKNOWN,
            };
            (items.max.saturating_add(1), Some(items))
        }
        Cost::ContainsIp => (4 + text_of(known), None),
        Cost::ContainsCidr => (7 + text_of(known), None),
        Cost::Validate => (by(size(1), TRAVERSAL).saturating_mul(by(Size::exactly(64), REGEX)), None),
        Cost::Check => (350_000, None),
    }
}

/// What parsing the second argument costs, if it is a string.
fn text_of(known: &[Known<'_>]) -> u64 {
    match known.get(1) {
        Some(known) if matches!(known.ty, Type::String) => by(known.size(), TRAVERSAL),
        _ => 0,
    }
}

/// How long a string is in which one text has become another.
fn replaced(size: Size, from: Size, to: Size) -> Size {
    let (mut count, mut kept) = (Size::exactly(0), Size::exactly(0));
    if from.min == 0 {
        (count.max, kept.max) = (size.max.saturating_add(1), size.max);
    } else if to.max <= from.min {
        kept.max = size.max;
    } else {
        count.max = (size.max as f64 / from.min as f64).ceil() as u64;
    }
    if from.max == 0 {
        (count.min, kept.min) = (size.min.saturating_add(1), size.min);
    } else if from.max <= to.min {
        kept.min = size.min;
    } else {
        count.min = (size.min as f64 / from.max as f64).ceil() as u64;
    }
    count.times(to).plus(kept)
}

/// What a call costs for its arguments. What depends on the result is in [`actual_of_result`].
pub(in super::super) fn actual(cost: Cost, arguments: &[Value<'_>]) -> u64 {
    let size = |index: usize| arguments.get(index).map_or(1, Value::size);
    match cost {
        Cost::One => 1 + arguments.iter().map(scanned).sum::<u64>(),
        Cost::Same | Cost::First | Cost::Parse | Cost::Affix | Cost::ToBytes | Cost::FromBytes => {
            scaled(size(0), TRAVERSAL)
        }
        Cost::Quote | Cost::Format => scaled(size(0), TRAVERSAL),
        Cost::Compare => scaled(shorter(arguments), TRAVERSAL),
        Cost::Concat => scaled(size(0) + size(1), TRAVERSAL),
        Cost::Append => 1 + (size(0) + size(1)) / COPIED,
        Cost::Member => size(1),
        // What is looked for comes first: nothing of nothing is not worth measuring the text.
        Cost::Contains => match scaled(size(1), TRAVERSAL) {
            0 => arguments.first().map_or(0, scanned),
            sought => scaled(size(0), TRAVERSAL) * sought,
        },
        Cost::Regex => match scaled(size(1), REGEX) {
            0 => arguments.first().map_or(0, scanned),
            pattern => scaled(size(0) + 1, TRAVERSAL) * pattern,
        },
        Cost::Traverse => arguments.first().map_or(0, traversal),
        Cost::Replace | Cost::Split => scaled(size(0), 2.0 * TRAVERSAL),
        Cost::Join => 0,
        Cost::Product => 1 + if arguments.len() > 1 { size(0).saturating_mul(size(1)) } else { size(0) * size(0) },
        Cost::Items => 1 + size(0),
        Cost::Range => match arguments.first() {
            Some(Value::Int(items)) => 1 + u64::try_from(*items).unwrap_or(0),
            _ => 1,
        },
        Cost::ContainsIp => scaled(size(0) * 2, TRAVERSAL) + text_size(arguments),
        Cost::ContainsCidr => scaled(size(0) * 2, TRAVERSAL) + scaled(size(0), TRAVERSAL) + 1 + text_size(arguments),
        Cost::Validate => scaled(size(1), TRAVERSAL) * scaled(64, REGEX),
        Cost::Check => 350_000,
    }
}

/// The size of the shorter of two. The longer is not measured if its bytes say that it is longer.
fn shorter(arguments: &[Value<'_>]) -> u64 {
    match arguments {
        [Value::String(a), Value::String(b)] => {
            let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
            let size = short.chars().count() as u64;
            // A character has at most four bytes.
            if size <= long.len() as u64 / 4 { size } else { size.min(long.chars().count() as u64) }
        }
        [a, b] => a.size().min(b.size()),
        _ => 1,
    }
}

/// What upstream does not count: going through a text that is longer than any that is meant well, for one unit.
fn scanned(value: &Value<'_>) -> u64 {
    if let Value::String(text) = value { text.len() as u64 / UNCOUNTED } else { 0 }
}

fn text_size(arguments: &[Value<'_>]) -> u64 {
    match arguments.get(1) {
        Some(text @ Value::String(_)) => scaled(text.size(), TRAVERSAL),
        _ => 0,
    }
}

/// What is added when the result is there.
pub(in super::super) fn actual_of_result(cost: Cost, result: &Value<'_>) -> u64 {
    if cost == Cost::Join { scaled(result.size(), 2.0 * TRAVERSAL) } else { 0 }
}

/// Through a value as through a tree, as far as one evaluation may go.
fn traversal(value: &Value<'_>) -> u64 {
    if visit().is_err() {
        return u64::from(u32::MAX);
    }
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(List::Json(items, None)) => items.iter().map(|item| traversal(&Value::dynamic(item))).sum(),
        Value::List(list) => list.items().map(|item| item.map_or(1, |item| traversal(&item))).sum(),
        Value::Map(Map::Built(entries) | Map::Total(entries)) => {
            entries.iter().map(|(key, value)| traversal(&key.clone().into_value()) + traversal(value)).sum()
        }
        Value::Map(Map::Object(object, _) | Map::Json(object, _)) => {
            object.iter().map(|(key, value)| key.len() as u64 / 10 + traversal(&Value::dynamic(value))).sum()
        }
        _ => 1,
    }
}
