//! Types: what an expression computes with. Values borrow from JSON, from the program and from the schema: reading a
//! field copies a pointer, never an object.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value as Json;

use super::functions::opaque::Opaque;
use super::time::Time;
use super::types::{Decl, Type};

mod collections;

pub use collections::{Key, List, Map};

/// How large the JSON of a value may be, in bytes about: what would not fit into a request is not made.
const MAX_JSON: usize = super::MAX_REQUEST_BYTES as usize;

/// A value of CEL. It stays with who evaluates: what is built while an expression runs is counted without locks.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    Timestamp(Time),
    /// In nanoseconds, as Go has them.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Rc<Value<'a>>>),
    /// A type, by its name.
    Type(Arc<str>),
    Opaque(Arc<Opaque>),
    /// Fields that are computed when they are read.
    Lazy(&'a dyn Lazy),
    /// Something of the server with functions of its own.
    Host(Arc<dyn Host>),
}

/// An object whose fields are computed when they are read, such as `variables` of an admission policy. Who implements
/// it remembers what it has computed.
pub trait Lazy {
    /// The field, or `None` when there is none of that name.
    fn field(&self, name: &str) -> Option<Result<Value<'_>, Error>>;
}

impl fmt::Debug for dyn Lazy + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lazy")
    }
}

/// A value of the server whose functions are declared in the table and done by it, such as `authorizer`.
pub trait Host: fmt::Debug + Send + Sync {
    /// The name of its [`Type::Opaque`].
    fn type_name(&self) -> &'static str;

    /// # Errors
    /// When the function fails; [`Error::no_overload`] when it has no such function.
    fn call(&self, function: &str, arguments: &[Value<'_>]) -> Result<Value<'static>, Error>;
}

/// A string that may be borrowed.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Owned(Arc<str>),
}

/// A literal of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Box<str>),
    Bytes(Arc<[u8]>),
    List(Vec<Constant>),
}

/// Why there is no value, in cel-go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Failed(Box<str>),
    /// The evaluation cost more than [`CALL_LIMIT`](super::CALL_LIMIT).
    #[error("operation cancelled: actual cost limit exceeded")]
    CallLimit,
    /// The evaluation cost more than was left for the request.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    Budget,
}

impl Error {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::Failed(text.into())
    }

    /// An operator or function that there is not for values of these types.
    #[must_use]
    pub fn no_overload() -> Self {
        Self::new("no such overload")
    }

    #[must_use]
    pub fn no_key(key: &dyn fmt::Display) -> Self {
        Self::Failed(format!("no such key: {key}").into())
    }

    /// That ends the evaluation whatever `&&` and `||` would make of it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

impl<'a> Value<'a> {
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::String(Text::Owned(text.into()))
    }

    #[must_use]
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(List::Built(Rc::new(items)))
    }

    #[must_use]
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// The value that JSON has where a schema declares it.
    ///
    /// # Errors
    /// When the JSON is not of the declared type.
    pub fn of(json: &'a Json, decl: &'a Decl) -> Result<Self, Error> {
        let wrong = |text: &str| Err(Error::Failed(format!("invalid data, {text}").into()));
        Ok(match (&decl.ty, json) {
            (Type::Dyn, json) => return Ok(Self::dynamic(json)),
            (_, Json::Null) if decl.nullable => Self::Null,
            (_, Json::Null) => return wrong("got null for schema with nullable=false"),
            (Type::Object(ty), Json::Object(object)) => Self::Map(Map::Object(object, ty)),
            (Type::Map(ty), Json::Object(object)) => Self::Map(Map::Json(object, Some(&ty.value))),
            (Type::Object(_) | Type::Map(_), _) => {
                return wrong("expected a map for the provided schema with type=object");
            }
            (Type::List(ty), Json::Array(items)) => Self::List(List::Json(items, Some(ty))),
            (Type::List(_), _) => return wrong("expected an array for the provided schema with type=array"),
            (Type::String, Json::String(text)) => Self::String(Text::Borrowed(text)),
            (Type::Bool, Json::Bool(value)) => Self::Bool(*value),
            (Type::Int, Json::Number(number)) => match number.as_i64() {
                Some(value) => Self::Int(value),
                None => return wrong("expected int, got float64"),
            },
            (Type::Double, Json::Number(number)) => Self::Double(number.as_f64().unwrap_or_default()),
            (Type::Timestamp, Json::String(text)) => Self::Timestamp(super::time::of_format(text)?),
            (Type::Duration, Json::String(text)) => Self::Duration(super::time::duration_of_format(text)?),
            (Type::Bytes, Json::String(text)) => {
                use base64::Engine as _;
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                Self::Bytes(
                    bytes
                        .map_err(|e| Error::Failed(format!("Invalid byte formatted string {text}: {e}").into()))?
                        .into(),
                )
            }
            (ty, _) => return wrong(&format!("expected {}, got {}", ty.name(), Self::dynamic(json).type_name())),
        })
    }

    /// The value that JSON has where nothing is declared.
    #[must_use]
    pub fn dynamic(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => Self::Int(value),
                None => Self::Double(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => Self::String(Text::Borrowed(text)),
            Json::Array(items) => Self::List(List::Json(items, None)),
            Json::Object(object) => Self::Map(Map::Json(object, None)),
        }
    }

    /// What `type()` says, and what messages name.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(_) | Self::Lazy(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Opaque(opaque) => opaque.type_name(),
            Self::Host(host) => host.type_name(),
        }
    }

    /// How much there is to traverse; 1 for what has no size.
    #[must_use]
    pub fn size(&self) -> u64 {
        (match self {
            Self::String(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Opaque(opaque) => opaque.size(),
            _ => 1,
        }) as u64
    }

    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// JSON of the value, for what a policy writes into an object; `None` when it has none, or is too large.
    #[must_use]
    pub fn to_json(&self) -> Option<Json> {
        let mut left = MAX_JSON;
        self.json(&mut left)
    }

    fn json(&self, left: &mut usize) -> Option<Json> {
        // What is borrowed may be large and be there many times.
        *left = left.checked_sub(match self {
            Self::String(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(List::Json(items, _)) => items.iter().map(weight).sum(),
            Self::Map(Map::Object(object, _) | Map::Json(object, _)) => {
                object.iter().map(|(key, value)| key.len() + weight(value)).sum()
            }
            _ => 1,
        })?;
        Some(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => serde_json::Number::from_f64(*value)?.into(),
            Self::String(text) => Json::String(text.to_string()),
            Self::Bytes(bytes) => {
                use base64::Engine as _;
                Json::String(base64::engine::general_purpose::STANDARD.encode(bytes))
            }
            Self::Timestamp(time) => Json::String(time.to_string()),
            Self::Duration(nanos) => Json::String(super::time::render_duration(*nanos)),
            Self::List(List::Json(items, _)) => Json::Array(items.to_vec()),
            Self::List(list) => {
                list.items().map(|item| item.ok()?.json(left)).collect::<Option<_>>().map(Json::Array)?
            }
            Self::Map(Map::Object(object, _) | Map::Json(object, _)) => Json::Object((*object).clone()),
            Self::Map(Map::Built(entries) | Map::Total(entries)) => {
                let entries = entries.iter().map(|(key, value)| Some((key.to_string(), value.json(left)?)));
                Json::Object(entries.collect::<Option<_>>()?)
            }
            Self::Optional(Some(value)) => value.json(left)?,
            Self::Type(name) => Json::String(name.to_string()),
            Self::Optional(None) | Self::Opaque(_) | Self::Lazy(_) | Self::Host(_) => return None,
        })
    }
}

/// About how many bytes JSON is long.
fn weight(json: &Json) -> usize {
    1 + match json {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(weight).sum(),
        Json::Object(object) => object.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        _ => 0,
    }
}

impl Constant {
    /// The value, borrowed.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Uint(value) => Value::Uint(*value),
            Self::Double(value) => Value::Double(*value),
            Self::String(text) => Value::String(Text::Borrowed(text)),
            Self::Bytes(bytes) => Value::Bytes(Arc::clone(bytes)),
            Self::List(items) => Value::List(List::Constant(items)),
        }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}
