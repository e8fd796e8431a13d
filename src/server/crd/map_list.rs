//! Decides: which item of an old list is the one that a new item replaces (`apiserver/pkg/cel/common/maplist.go`).

use std::collections::HashMap;

use serde_json::Value;

use super::structural::ListType;

/// The items of a list by what names them. Of a list that is no map there are none.
pub(super) struct MapList<'a> {
    keys: &'a [String],
    items: HashMap<String, &'a Value>,
}

impl<'a> MapList<'a> {
    pub fn of(list: Option<&'a Value>, kind: &'a ListType) -> Self {
        let mut out = Self { keys: &[], items: HashMap::new() };
        if let (Some(Value::Array(items)), ListType::Map(keys)) = (list, kind) {
            out.keys = keys;
            for item in items {
                if let Some(key) = key(item, keys) {
                    out.items.entry(key).or_insert(item);
                }
            }
        }
        out
    }

    /// The first item with the keys of this one.
    pub fn get(&self, item: &Value) -> Option<&'a Value> {
        if self.items.is_empty() {
            return None;
        }
        self.items.get(&key(item, self.keys)?).copied()
    }
}

/// Nothing for an item that lacks a key, or has one that is no scalar.
fn key(item: &Value, keys: &[String]) -> Option<String> {
    let item = item.as_object()?;
    let mut text = String::new();
    for key in keys {
        match item.get(key)? {
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
            scalar => {
                text.push_str(&scalar.to_string());
                text.push('\0');
            }
        }
    }
    Some(text)
}
