//! Decides: a request body in Kubernetes' protobuf form becomes the JSON of its kind, by the field numbers of the
//! schema table; [`encode`] goes the other way.
//!
//! A body is the four bytes `k8s\0` and a message that names the kind and holds the object. In the object Go's writers
//! always send the fields that are no pointers: their zero values vanish here wherever JSON would leave them out.
//! Messages of errors are those of upstream's decoder.

pub mod encode;
mod wire;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};
use thiserror::Error;

use self::wire::{Reader, Wire};
use super::decode::MAX_DEPTH;
use super::schema::{Field, Item, Other, Shape, Type, Wrap};

pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const PREFIX: &[u8] = b"k8s\0";

/// Why a body cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    #[error("empty data")]
    Empty,
    #[error("provided data does not appear to be a protobuf message, expected prefix {PREFIX:?}")]
    Prefix,
    #[error("empty body")]
    EmptyBody,
    #[error("unexpected EOF")]
    Eof,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal tag {0}")]
    Tag(u64),
    #[error("proto: illegal wireType {0}")]
    IllegalWire(u64),
    #[error("proto: unexpected end of group")]
    EndOfGroup,
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WrongWire { wire: u64, field: &'static str },
    #[error("proto: field {0} is not valid UTF-8")]
    Utf8(&'static str),
    #[error("proto: value of field {0} is out of range")]
    Range(&'static str),
    #[error("field {field} holds no JSON: {why}")]
    Json { field: &'static str, why: String },
    #[error("exceeded max depth")]
    Depth,
}

/// What surrounds an object.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    /// The object's message.
    pub object: &'a [u8],
}

/// Reads the envelope of a body.
///
/// # Errors
/// When it is none.
pub fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, Error> {
    let message = match bytes.strip_prefix(PREFIX) {
        None if bytes.is_empty() => return Err(Error::Empty),
        None => return Err(Error::Prefix),
        Some([]) => return Err(Error::EmptyBody),
        Some(message) => message,
    };
    let mut out = Envelope::default();
    let mut reader = Reader::new(message);
    while let Some((number, wire)) = reader.key()? {
        match number {
            1 => {
                let mut meta = Reader::new(reader.bytes(wire, "TypeMeta")?);
                while let Some((number, wire)) = meta.key()? {
                    match number {
                        1 => out.api_version = meta.text(wire, "APIVersion")?.into(),
                        2 => out.kind = meta.text(wire, "Kind")?.into(),
                        _ => meta.skip(wire)?,
                    }
                }
            }
            2 => out.object = reader.bytes(wire, "Raw")?,
            // contentEncoding and contentType, which writers leave empty and upstream does not look at.
            _ => reader.skip(wire)?,
        }
    }
    Ok(out)
}

/// Reads a message of the type. Fields that the type does not have are skipped.
///
/// # Errors
/// When it is malformed.
pub fn decode(bytes: &[u8], schema: &'static Type) -> Result<Value, Error> {
    let mut out = Map::new();
    message(bytes, schema, &[], 0, &mut out)?;
    Ok(Value::Object(out))
}

/// Adds the fields of a message to `out`. `inside` names the embedded struct that the message is, nothing the type
/// itself: JSON has its fields among those of the type.
fn message(
    bytes: &[u8],
    schema: &'static Type,
    inside: &[u16],
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Depth);
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.key()? {
        if let Some(field) = schema.numbered(inside, number) {
            assign(&mut reader, wire, field, depth, out)?;
        } else if let Some(embedded) = schema.embedded(inside, number) {
            message(reader.bytes(wire, schema.short_name())?, schema, embedded, depth + 1, out)?;
        } else {
            reader.skip(wire)?;
        }
    }
    Ok(())
}

/// Sets one field, or adds to one that holds several values.
fn assign(
    reader: &mut Reader<'_>,
    wire: Wire,
    field: &'static Field,
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), Error> {
    match field.shape.wrap {
        Wrap::One => {
            let value = item(reader, wire, field, depth)?;
            if value.is_null() || field.omits(&value) {
                out.remove(field.name);
            } else {
                out.insert(field.name.into(), value);
            }
        }
        Wrap::List => {
            let list = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                elements(reader, wire, field, depth, list)?;
            }
        }
        Wrap::Map | Wrap::MapOfLists => {
            let (key, value) = entry(reader.bytes(wire, field.name)?, field, depth + 1)?;
            let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        }
    }
    Ok(())
}

/// One element of a list, or several packed numbers.
fn elements(
    reader: &mut Reader<'_>,
    wire: Wire,
    field: &'static Field,
    depth: usize,
    list: &mut Vec<Value>,
) -> Result<(), Error> {
    let single = match field.shape.item {
        Item::Bool | Item::Int32 | Item::Int64 => Wire::Varint,
        Item::Double => Wire::Fixed64,
        _ => Wire::Bytes,
    };
    if wire == Wire::Bytes && single != Wire::Bytes {
        let mut packed = Reader::new(reader.bytes(wire, field.name)?);
        while !packed.is_empty() {
            list.push(item(&mut packed, single, field, depth)?);
        }
    } else {
        list.push(item(reader, wire, field, depth)?);
    }
    Ok(())
}

/// A map's entry: a message of a key and a value.
fn entry(bytes: &[u8], field: &'static Field, depth: usize) -> Result<(String, Value), Error> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.key()? {
        match number {
            1 => key = reader.text(wire, field.name)?.into(),
            2 if field.shape.wrap == Wrap::MapOfLists => {
                value = Some(wrapped_list(reader.bytes(wire, field.name)?, field, depth)?);
            }
            2 => value = Some(item(&mut reader, wire, field, depth)?),
            _ => reader.skip(wire)?,
        }
    }
    Ok((key, value.unwrap_or_else(|| zero(field.shape))))
}

/// A list that is the value in a map: protobuf wraps it in a message of its own.
fn wrapped_list(bytes: &[u8], field: &'static Field, depth: usize) -> Result<Value, Error> {
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.key()? {
        match number {
            1 => elements(&mut reader, wire, field, depth, &mut list)?,
            _ => reader.skip(wire)?,
        }
    }
    Ok(list.into())
}

/// One value; null for what JSON has no zero value of.
fn item(reader: &mut Reader<'_>, wire: Wire, field: &'static Field, depth: usize) -> Result<Value, Error> {
    let name = field.name;
    Ok(match field.shape.item {
        Item::String => reader.text(wire, name)?.into(),
        Item::Bool => (reader.varint_of(wire, name)? != 0).into(),
        Item::Int32 => reader.int32(wire, name)?.into(),
        Item::Int64 => reader.int64(wire, name)?.into(),
        Item::Double => reader.double(wire, name)?.into(),
        Item::Bytes => BASE64.encode(reader.bytes(wire, name)?).into(),
        Item::Time => time(reader.bytes(wire, name)?, name, false)?,
        Item::MicroTime => time(reader.bytes(wire, name)?, name, true)?,
        Item::Quantity => first(reader.bytes(wire, name)?, |r, wire| r.text(wire, name))?.unwrap_or("0").into(),
        Item::IntOrString => int_or_string(reader.bytes(wire, name)?, name)?,
        Item::Any | Item::Json => match first(reader.bytes(wire, name)?, |r, wire| r.bytes(wire, name))? {
            Some(json) if !json.is_empty() => {
                serde_json::from_slice(json).map_err(|e| Error::Json { field: name, why: e.to_string() })?
            }
            _ => Value::Null,
        },
        Item::Either(schema, other) => either(reader.bytes(wire, name)?, schema, other, name, depth + 1)?,
        Item::Object(schema) => object(reader.bytes(wire, name)?, schema, depth + 1)?,
    })
}

fn object(bytes: &[u8], schema: &'static Type, depth: usize) -> Result<Value, Error> {
    let mut out = Map::new();
    message(bytes, schema, &[], depth, &mut out)?;
    Ok(Value::Object(out))
}

/// A schema, or what stands in its place: several go before one, which goes before a boolean.
fn either(bytes: &[u8], schema: &'static Type, other: Other, name: &'static str, depth: usize) -> Result<Value, Error> {
    let (mut one, mut allows, mut several) = (None, false, Vec::new());
    let (schema_number, other_number) = other.numbers();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.key()? {
        match other {
            _ if number == schema_number => one = Some(object(reader.bytes(wire, name)?, schema, depth)?),
            _ if number != other_number => reader.skip(wire)?,
            Other::Array => several.push(object(reader.bytes(wire, name)?, schema, depth)?),
            Other::Strings => several.push(reader.text(wire, name)?.into()),
            Other::Bool => allows = reader.varint_of(wire, name)? != 0,
        }
    }
    Ok(match (one, other) {
        _ if !several.is_empty() => several.into(),
        (Some(one), _) => one,
        (None, Other::Bool) => allows.into(),
        (None, _) => Value::Null,
    })
}

/// The field number 1 of a message, the last one if there are several.
fn first<'a, T>(bytes: &'a [u8], read: impl Fn(&mut Reader<'a>, Wire) -> Result<T, Error>) -> Result<Option<T>, Error> {
    let mut reader = Reader::new(bytes);
    let mut found = None;
    while let Some((number, wire)) = reader.key()? {
        match number {
            1 => found = Some(read(&mut reader, wire)?),
            _ => reader.skip(wire)?,
        }
    }
    Ok(found)
}

/// Seconds and nanoseconds since 1970. The zero time is an empty message, and null in JSON.
fn time(bytes: &[u8], name: &'static str, micro: bool) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.key()? {
        match number {
            1 => seconds = reader.int64(wire, name)?,
            2 => nanos = reader.int32(wire, name)?,
            _ => reader.skip(wire)?,
        }
    }
    let nanos = if micro { nanos / 1000 * 1000 } else { 0 };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| Error::Range(name))?;
    Ok(if micro { format!("{time:.6}") } else { time.to_string() }.into())
}

fn int_or_string(bytes: &[u8], name: &'static str) -> Result<Value, Error> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((key, wire)) = reader.key()? {
        match key {
            1 => is_text = reader.int64(wire, name)? != 0,
            2 => number = reader.int32(wire, name)?,
            3 => text = reader.text(wire, name)?.into(),
            _ => reader.skip(wire)?,
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// What a map's entry holds when it is not sent.
fn zero(shape: Shape) -> Value {
    match (shape.wrap, shape.item) {
        (Wrap::MapOfLists, _) => Value::Array(Vec::new()),
        (_, Item::Object(_)) => Value::Object(Map::new()),
        (_, Item::Bool) => false.into(),
        (_, Item::Int32 | Item::Int64 | Item::Double | Item::IntOrString) => 0.into(),
        (_, Item::Quantity) => "0".into(),
        (_, Item::String | Item::Bytes) => "".into(),
        (_, Item::Either(_, Other::Bool)) => false.into(),
        (_, Item::Time | Item::MicroTime | Item::Any | Item::Json | Item::Either(..)) => Value::Null,
    }
}

#[cfg(test)]
mod tests;
