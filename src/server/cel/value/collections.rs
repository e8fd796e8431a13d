//! Types: lists, maps and keys of CEL, which borrow from JSON or were built by the expression.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value as Json;

use super::{Constant, Error, Text, Value};
use crate::server::cel::types::{Decl, ListType, ObjectType};

#[derive(Clone, Debug)]
pub enum List<'a> {
    /// Of an object; without a type, dynamic.
    Json(&'a [Json], Option<&'a ListType>),
    /// Of the expression.
    Constant(&'a [Constant]),
    Built(Rc<Vec<Value<'a>>>),
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// An object with declared fields.
    Object(&'a serde_json::Map<String, Json>, &'a Arc<ObjectType>),
    /// A map, whose values are dynamic if not declared.
    Json(&'a serde_json::Map<String, Json>, Option<&'a Decl>),
    Built(Rc<BTreeMap<Key<'a>, Value<'a>>>),
    /// The same, where a key that is not there has an empty map: the domains of a device's attributes.
    Total(Rc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// The key of a map. Numbers of different kinds that are equal are the same key.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Text<'a>),
}

impl<'a> List<'a> {
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Constant(items) => items.len(),
            Self::Built(items) => items.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item. The index must be below the length.
    ///
    /// # Errors
    /// When the object is not as its schema says.
    pub fn get(&self, index: usize) -> Result<Value<'a>, Error> {
        match self {
            Self::Json(items, Some(ty)) => Value::of(&items[index], &ty.element),
            Self::Json(items, None) => Ok(Value::dynamic(&items[index])),
            Self::Constant(items) => Ok(items[index].value()),
            Self::Built(items) => Ok(items[index].clone()),
        }
    }

    /// All items.
    pub fn items(&self) -> impl Iterator<Item = Result<Value<'a>, Error>> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Object(object, _) | Self::Json(object, _) => object.len(),
            Self::Built(entries) | Self::Total(entries) => entries.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a string key. A field that is null is not there (upstream's `unstructuredMap.Find`).
    ///
    /// # Errors
    /// When the object is not as its schema says.
    pub fn find(&self, key: &str) -> Result<Option<Value<'a>>, Error> {
        match self {
            Self::Object(object, ty) => match ty.field(key) {
                Some(field) => match object.get(&*field.json) {
                    None | Some(Json::Null) => Ok(None),
                    Some(json) => Value::of(json, &field.decl).map(Some),
                },
                None if ty.open => Ok(object.get(key).map(Value::dynamic)),
                None => Ok(None),
            },
            Self::Json(object, Some(decl)) => object.get(key).map(|json| Value::of(json, decl)).transpose(),
            Self::Json(object, None) => Ok(object.get(key).map(Value::dynamic)),
            Self::Built(entries) => Ok(entries.get(&Key::String(Text::Borrowed(key))).cloned()),
            Self::Total(entries) => {
                let found = entries.get(&Key::String(Text::Borrowed(key))).cloned();
                Ok(Some(found.unwrap_or_else(|| Value::Map(Self::Built(Rc::default())))))
            }
        }
    }

    /// The value of any key.
    ///
    /// # Errors
    /// When the key is of a type that no key can be of.
    pub fn lookup(&self, key: &Value<'a>) -> Result<Option<Value<'a>>, Error> {
        match (self, key) {
            (_, Value::String(text)) => self.find(text),
            (Self::Built(entries), key) => match Key::of(key.clone()) {
                Some(key) => Ok(entries.get(&key).cloned()),
                None => Ok(None),
            },
            _ => Err(Error::no_overload()),
        }
    }

    /// Whether there is such a key.
    ///
    /// # Errors
    /// As [`Map::lookup`].
    pub fn has(&self, key: &Value<'a>) -> Result<bool, Error> {
        match self {
            Self::Total(entries) => Ok(Key::of(key.clone()).is_some_and(|key| entries.contains_key(&key))),
            other => Ok(other.lookup(key)?.is_some()),
        }
    }

    /// The keys as expressions say them.
    #[must_use]
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Object(object, ty) if !ty.open => {
                let known = object.keys().filter_map(|name| ty.by_json(name));
                known.map(|field| Value::String(Text::Borrowed(&field.name))).collect()
            }
            Self::Object(object, _) | Self::Json(object, _) => {
                object.keys().map(|name| Value::String(Text::Borrowed(name))).collect()
            }
            Self::Built(entries) | Self::Total(entries) => entries.keys().map(|key| key.clone().into_value()).collect(),
        }
    }
}

impl<'a> Key<'a> {
    /// The key that a value is, if it can be one.
    #[must_use]
    pub fn of(value: Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(value),
            Value::Int(value) => Self::Int(value),
            Value::Uint(value) => Self::Uint(value),
            Value::String(text) => Self::String(text),
            // Equal to the integer: `{1: 'a'}[1.0]`.
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 9.0e18 => Self::Int(value as i64),
            _ => return None,
        })
    }

    #[must_use]
    pub fn into_value(self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Uint(value) => Value::Uint(value),
            Self::String(text) => Value::String(text),
        }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::String(text) => f.write_str(text),
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |key: &Self| match key {
            Self::Bool(_) => 0,
            Self::Int(_) | Self::Uint(_) => 1,
            Self::String(_) => 2,
        };
        let number = |key: &Self| match key {
            Self::Int(value) => i128::from(*value),
            Self::Uint(value) => i128::from(*value),
            Self::Bool(value) => i128::from(*value),
            Self::String(_) => 0,
        };
        match (self, other) {
            (Self::String(a), Self::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (a, b) => rank(a).cmp(&rank(b)).then_with(|| number(a).cmp(&number(b))),
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key<'_> {}
