//! Decides: makes a value conform to a schema: drops and notes unknown fields, drops nulls and what Go leaves out when it
//! is empty, checks types, brings quantities and times into their canonical form. Type errors read like those of Go's
//! JSON package.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value};

use crate::api::quantity::Quantity;
use crate::api::schema::{Item, Other, Shape, Type, Wrap};
use crate::api::trail::{Step, Trail};

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
    let mut walk = Walk { owner: schema, unknown: Vec::new() };
    let map = match value {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let value = walk.fields(&Trail::ROOT, map, schema)?;
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
    /// The Go struct that holds the field.
    owner: &'static Type,
    unknown: Vec<String>,
}

impl Walk {
    /// In place: most of what comes conforms.
    fn fields(&mut self, at: &Trail<'_>, mut map: Map<String, Value>, schema: &'static Type) -> Result<Value, String> {
        let owner = std::mem::replace(&mut self.owner, schema);
        let mut mismatch = None;
        map.retain(|key, value| {
            if mismatch.is_none() {
                match self.field(&at.field(key), key, value, schema) {
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
    fn field(&mut self, at: &Trail<'_>, name: &str, value: &mut Value, schema: &'static Type) -> Result<bool, String> {
        let Some(field) = schema.field(name) else {
            if self.unknown.len() < MAX_STRICT_ERRORS {
                self.unknown.push(at.plain());
            }
            return Ok(false);
        };
        if value.is_null() {
            return Ok(false);
        }
        *value = self.shape(at, value.take(), field.shape)?;
        Ok(!field.omits(value))
    }

    fn shape(&mut self, at: &Trail<'_>, value: Value, shape: Shape) -> Result<Value, String> {
        match (shape.wrap, value) {
            (Wrap::One, value) => self.item(at, value, shape),
            (Wrap::List, Value::Array(mut list)) => {
                for (i, value) in list.iter_mut().enumerate() {
                    *value = self.element(&at.index(i), value.take(), shape.element())?;
                }
                Ok(Value::Array(list))
            }
            (Wrap::Map | Wrap::MapOfLists, Value::Object(mut map)) => {
                for (key, value) in &mut map {
                    *value = self.element(&at.then(Step::Key(key)), value.take(), shape.element())?;
                }
                Ok(Value::Object(map))
            }
            (_, other) => Err(self.mismatch(at, json_kind(&other), shape)),
        }
    }

    /// In lists and maps a null is the type's zero value.
    fn element(&mut self, at: &Trail<'_>, value: Value, shape: Shape) -> Result<Value, String> {
        if !value.is_null() {
            return self.shape(at, value, shape);
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

    fn item(&mut self, at: &Trail<'_>, value: Value, shape: Shape) -> Result<Value, String> {
        match (shape.item, value) {
            (Item::Object(schema), Value::Object(map)) => self.fields(at, map, schema),
            (Item::Any | Item::Json, value) => Ok(value),
            (Item::Either(schema, other), value) => either(value, schema, other),
            (Item::String, value @ Value::String(_)) | (Item::Bool, value @ Value::Bool(_)) => Ok(value),
            (Item::Double, Value::Number(n)) => Ok(double(n)),
            (Item::Int32 | Item::Int64, Value::Number(n)) => {
                let fits = n.as_i64().is_some_and(|n| !matches!(shape.item, Item::Int32) || i32::try_from(n).is_ok());
                if fits { Ok(n.into()) } else { Err(self.mismatch(at, &format!("number {n}"), shape)) }
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
            (_, other) => Err(self.mismatch(at, json_kind(&other), shape)),
        }
    }

    fn mismatch(&self, at: &Trail<'_>, given: &str, wanted: Shape) -> String {
        let (owner, path, wanted) = (self.owner.short_name(), at.fields(), wanted.go_name());
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
