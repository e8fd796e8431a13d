//! Decides: JSON or YAML text becomes a value, and its duplicate fields are noted by their paths.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};
use serde_saphyr::options::DuplicateKeyPolicy;

use super::{MAX_DEPTH, MAX_STRICT_ERRORS, syntax};
use crate::api::trail::Trail;

/// A body as it was read. The last of several fields of one name counts.
#[derive(Debug)]
pub struct Document {
    pub value: Value,
    /// Paths such as `spec.containers[0].image`.
    pub duplicates: Vec<String>,
}

/// # Errors
/// What is wrong, in the words of Go's JSON package.
pub fn json(bytes: &[u8]) -> Result<Document, String> {
    let duplicates = RefCell::default();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let root = Node { at: &Trail::ROOT, duplicates: &duplicates, yaml: false };
    let value = root.deserialize(&mut reader).and_then(|v| reader.end().map(|()| v));
    match value {
        Ok(value) => Ok(Document { value, duplicates: duplicates.into_inner() }),
        Err(error) => {
            let why = syntax::explain(bytes).unwrap_or_else(|| error.to_string());
            Err(format!("couldn't get version/kind; json parse error: {why}"))
        }
    }
}

/// # Errors
/// What is wrong, and where.
pub fn yaml(bytes: &[u8]) -> Result<Document, String> {
    let failed = |why: String| format!("error converting YAML to JSON: yaml: {}", why.replace('\n', " "));
    let text = std::str::from_utf8(bytes).map_err(|_| failed("invalid UTF-8".into()))?;
    read(text, DuplicateKeyPolicy::PassThrough).map_err(|e| failed(e.without_snippet().to_string()))
}

/// What is wrong with the first field that is there twice in YAML, in the words of Go's YAML package.
pub fn first_duplicate(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let paths = read(text, DuplicateKeyPolicy::PassThrough).ok()?.duplicates;
    let key = paths.first()?.rsplit('.').next()?;
    let line = read(text, DuplicateKeyPolicy::Error).err()?.location()?.line();
    Some(format!(
        "error converting YAML to JSON: yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map"
    ))
}

fn read(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Document, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_aliases: 1024,
            max_anchors: 1024,
            max_documents: 1,
        },
        duplicate_keys: duplicate_keys,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let duplicates = RefCell::default();
    let value = serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| {
        Node { at: &Trail::ROOT, duplicates: &duplicates, yaml: true }.deserialize(reader)
    });
    Ok(Document { value: value?, duplicates: duplicates.into_inner() })
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Node<'a> {
    at: &'a Trail<'a>,
    duplicates: &'a RefCell<Vec<String>>,
    yaml: bool,
}

impl Node<'_> {
    /// Notes that there was a field of this name before.
    fn repeats(&self) {
        let mut known = self.duplicates.borrow_mut();
        let path = self.at.plain();
        if known.len() < MAX_STRICT_ERRORS && !known.contains(&path) {
            known.push(path);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        // Going from YAML to JSON, Go writes a whole float without its fraction.
        #[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
        if self.yaml && v.fract() == 0.0 && v.abs() < 9e15 {
            return Ok((v as i64).into());
        }
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        self.deserialize(reader)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let at = self.at.index(list.len());
            match access.next_element_seed(Node { at: &at, ..self })? {
                Some(item) => list.push(item),
                None => return Ok(list.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let entry = map.entry(key);
            let at = self.at.field(entry.key());
            let inside = Node { at: &at, ..self };
            if matches!(entry, Entry::Occupied(_)) {
                inside.repeats();
            }
            let value = access.next_value_seed(inside)?;
            match entry {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => {
                    entry.insert(value);
                }
            }
        }
        Ok(map.into())
    }
}
