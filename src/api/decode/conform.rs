//! Decides: makes a value conform to a schema: drops and notes unknown fields, drops nulls and what Go leaves out when it
//! is empty, checks types, brings quantities and times into their canonical form. Type errors read like those of Go's
//! JSON package.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value};

use crate::api::quantity::Quantity;
use crate::api::schema::{Item, Other, Shape, Type, Wrap};

use super::MAX_STRICT_ERRORS;

/// A conforming object, and the paths of the fields that were dropped.
#[derive(Debug)]
pub struct Outcome {
    pub value: Value,
    pub unknown: Vec<String>,
}

/// # Errors
/// The first field whose type is wrong.
pub fn object(value: Value, schema: &'static Type) -> Result<Outcome, String> {
    let mut walk = Walk { path: String::new(), go_path: Vec::new(), owner: schema.short_name(), unknown: Vec::new() };
    let map = match value {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let value = walk.fields(map, schema)?;
    Ok(Outcome { value, unknown: walk.unknown })
}

/// The kind of a JSON value as Go names it.
pub fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

struct Walk {
    /// Where we are, with list indexes: `.spec.containers[0].image`.
    path: String,
    /// The same without indexes and map keys, as Go's type errors show it.
    go_path: Vec<&'static str>,
    /// The Go struct that holds the field.
    owner: &'static str,
    unknown: Vec<String>,
}

impl Walk {
    /// In place: most of what comes conforms.
    fn fields(&mut self, mut map: Map<String, Value>, schema: &'static Type) -> Result<Value, String> {
        let owner = std::mem::replace(&mut self.owner, schema.short_name());
        let mut mismatch = None;
        map.retain(|key, value| {
            if mismatch.is_none() {
                match self.field(key, value, schema) {
                    Ok(stays) => return stays,
                    Err(why) => mismatch = Some(why),
                }
            }
            true
        });
        self.owner = owner;
        mismatch.map_or(Ok(Value::Object(map)), Err)
    }

    /// Whether the field stays.
    fn field(&mut self, key: &str, value: &mut Value, schema: &'static Type) -> Result<bool, String> {
        let Some(field) = schema.field(key) else {
            if self.unknown.len() < MAX_STRICT_ERRORS {
                self.unknown.push(format!("{}.{key}", self.path).trim_start_matches('.').to_owned());
            }
            return Ok(false);
        };
        if value.is_null() {
            return Ok(false);
        }
        let length = self.enter(key);
        self.go_path.push(field.name);
        *value = self.shape(value.take(), field.shape)?;
        self.go_path.pop();
        self.path.truncate(length);
        Ok(!field.omits(value))
    }

    /// Returns what the path is to be cut to afterwards.
    fn enter(&mut self, key: &str) -> usize {
        let length = self.path.len();
        self.path.push('.');
        self.path.push_str(key);
        length
    }

    fn shape(&mut self, value: Value, shape: Shape) -> Result<Value, String> {
        match (shape.wrap, value) {
            (Wrap::One, value) => self.item(value, shape),
            (Wrap::List, Value::Array(mut list)) => {
                for (i, value) in list.iter_mut().enumerate() {
                    let length = self.path.len();
                    let _ = write!(self.path, "[{i}]");
                    *value = self.element(value.take(), shape.element())?;
                    self.path.truncate(length);
                }
                Ok(Value::Array(list))
            }
            (Wrap::Map | Wrap::MapOfLists, Value::Object(mut map)) => {
                for (key, value) in &mut map {
                    let length = self.enter(key);
                    *value = self.element(value.take(), shape.element())?;
                    self.path.truncate(length);
                }
                Ok(Value::Object(map))
            }
            (_, other) => Err(self.mismatch(json_kind(&other), shape)),
        }
    }

    /// In lists and maps a null is the type's zero value.
    fn element(&mut self, value: Value, shape: Shape) -> Result<Value, String> {
        if !value.is_null() {
            return self.shape(value, shape);
        }
        Ok(match (shape.wrap, shape.item) {
            (Wrap::List, _) => Value::Array(Vec::new()),
            (Wrap::Map | Wrap::MapOfLists, _) | (_, Item::Object(_)) => Value::Object(Map::new()),
            (_, Item::Bool) => false.into(),
            (_, Item::Int32 | Item::Int64 | Item::Double | Item::IntOrString) => 0.into(),
            (_, Item::Quantity) => "0".into(),
            (_, Item::String | Item::Bytes) => "".into(),
            (_, Item::Time | Item::MicroTime | Item::Any | Item::Json | Item::Either(..)) => Value::Null,
        })
    }

    fn item(&mut self, value: Value, shape: Shape) -> Result<Value, String> {
        match (shape.item, value) {
            (Item::Object(schema), Value::Object(map)) => self.fields(map, schema),
            (Item::Any | Item::Json, value) => Ok(value),
            (Item::Either(schema, other), value) => either(value, schema, other),
            (Item::String, value @ Value::String(_)) | (Item::Bool, value @ Value::Bool(_)) => Ok(value),
            (Item::Double, Value::Number(n)) => Ok(double(n)),
            (Item::Int32 | Item::Int64, Value::Number(n)) => {
                let fits = n.as_i64().is_some_and(|n| !matches!(shape.item, Item::Int32) || i32::try_from(n).is_ok());
                if fits { Ok(n.into()) } else { Err(self.mismatch(&format!("number {n}"), shape)) }
            }
            (Item::IntOrString, value @ Value::String(_)) => Ok(value),
            (Item::IntOrString, Value::Number(n)) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
                Ok(n.into())
            }
            (Item::IntOrString, Value::Number(n)) => {
                Err(format!("json: cannot unmarshal number {n} into Go value of type int32"))
            }
            (Item::IntOrString, other) => {
                Err(format!("json: cannot unmarshal {} into Go value of type int32", json_kind(&other)))
            }
            (Item::Quantity, Value::String(s)) => quantity(s.trim()),
            (Item::Quantity, Value::Number(n)) => quantity(&n.to_string()),
            (Item::Quantity, _) => quantity("{"),
            (Item::Bytes, Value::String(s)) => bytes(&s),
            (Item::Time, Value::String(s)) => time(&s, "2006-01-02T15:04:05Z07:00", 0),
            (Item::MicroTime, Value::String(s)) => time(&s, "2006-01-02T15:04:05.000000Z07:00", 6),
            (Item::Time | Item::MicroTime, other) => {
                Err(format!("json: cannot unmarshal {} into Go value of type string", json_kind(&other)))
            }
            (_, other) => Err(self.mismatch(json_kind(&other), shape)),
        }
    }

    fn mismatch(&self, given: &str, wanted: Shape) -> String {
        let (owner, path, wanted) = (self.owner, self.go_path.join("."), wanted.go_name());
        format!("json: cannot unmarshal {given} into Go struct field {owner}.{path} of type {wanted}")
    }
}

/// What reads itself in Go: fields that it does not know vanish without a word, and so does what is neither of the two.
fn either(value: Value, schema: &'static Type, other: Other) -> Result<Value, String> {
    let plain = |value| object(value, schema).map(|outcome| outcome.value);
    match (other, value) {
        (_, value @ Value::Object(_)) => plain(value),
        (Other::Array, Value::Array(list)) => list.into_iter().map(plain).collect(),
        (Other::Strings, value @ Value::Array(_)) => {
            match value.as_array().into_iter().flatten().find(|v| !v.is_string()) {
                Some(v) => Err(format!("json: cannot unmarshal {} into Go value of type string", json_kind(v))),
                None => Ok(value),
            }
        }
        (Other::Bool, value @ Value::Bool(_)) => Ok(value),
        (Other::Bool, _) => Err("boolean or JSON schema expected".into()),
        (Other::Array | Other::Strings, _) => Ok(Value::Null),
    }
}

/// Go writes a whole number without a fraction, however it was given.
fn double(number: Number) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "only what is whole and exact as a double")]
    match number.as_f64() {
        Some(n) if number.is_f64() && n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0 => (n as i64).into(),
        _ => number.into(),
    }
}

fn quantity(text: &str) -> Result<Value, String> {
    Quantity::parse(text).map(|q| q.to_string().into()).map_err(|e| e.to_string())
}

/// Go ignores line breaks in base64.
fn bytes(text: &str) -> Result<Value, String> {
    let plain = text.replace(['\r', '\n'], "");
    match BASE64.decode(&plain) {
        Ok(_) => Ok(plain.into()),
        Err(e) => {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol { offset: at, .. } => {
                    at
                }
                _ => plain.len(),
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

fn time(text: &str, layout: &str, digits: u8) -> Result<Value, String> {
    let parsed: Option<jiff::Timestamp> = text.parse().ok().filter(|_| text.contains(['T', 't']));
    let time =
        parsed.ok_or_else(|| format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""))?;
    Ok(if digits == 0 { format!("{:.0}", time.strftime("%Y-%m-%dT%H:%M:%SZ")) } else { format!("{time:.6}") }.into())
}
