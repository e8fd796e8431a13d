//! Decides: the OpenAPI documents in the protobuf form of gnostic's models (`OpenAPIv2.proto`, `OpenAPIv3.proto`), for
//! which client-go's discovery asks. A document is translated from its JSON, by tables of what is where; no tree of it is
//! made on the way, so that it costs little more memory than its text. Words that the tables do not know are left out.
//!
//! What has no message of its own (extensions, defaults) is YAML in these models. We leave it as the JSON that it is,
//! which is YAML too.

mod v2;
mod v3;

use std::collections::BTreeMap;

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::value::RawValue;

use super::schemas::Dialect;

/// A message: the words of a JSON object, sorted by number, and the number of what begins with `x-`.
struct Message {
    fields: &'static [Field],
    extensions: u32,
}

type Field = (&'static str, u32, Kind);

/// What the JSON looks like, and the number and what it is then.
type Choice = (fn(&str) -> bool, u32, Kind);

/// What a field holds. A JSON array is a repeated field.
enum Kind {
    Text,
    Bool,
    Int,
    Double,
    /// Any JSON, as YAML.
    Any,
    /// An array of any JSON, each as YAML.
    Each,
    Message(&'static Message),
    /// Names and what they stand for: a message with, under the number, entries of a name (1) and a value (2).
    Map(u32, &'static Kind),
    /// A message that has, under 1, what is said once or several times.
    Wrapped(&'static Kind),
    /// A message with one of several fields: the first that the JSON looks like.
    OneOf(&'static [Choice]),
    /// The words of a message, but for these everything is an entry of a map.
    Rest(&'static Message, u32, &'static Kind),
}

/// A document in protobuf, from the same in JSON.
///
/// # Errors
/// When it is no JSON, or not of the shape that OpenAPI says.
pub fn encode(json: &[u8], dialect: Dialect) -> Result<Vec<u8>, serde_json::Error> {
    let document = match dialect {
        Dialect::V2 => &v2::DOCUMENT,
        Dialect::V3 => &v3::DOCUMENT,
    };
    let mut out = Vec::with_capacity(json.len());
    message(&mut out, document, serde_json::from_slice(json)?)?;
    Ok(out)
}

type Object<'a> = BTreeMap<String, &'a RawValue>;

fn message(out: &mut Vec<u8>, of: &Message, mut words: Object<'_>) -> Result<(), serde_json::Error> {
    for (name, number, kind) in of.fields {
        if let Some(value) = words.remove(*name) {
            field(out, *number, kind, value)?;
        }
    }
    for (name, value) in words.iter().filter(|(name, _)| name.starts_with("x-")) {
        entry(out, of.extensions, name, &Kind::Any, value)?;
    }
    Ok(())
}

/// A field of a message, or one for each element of an array. Zeros are left out, as proto3 has it.
fn field(out: &mut Vec<u8>, number: u32, kind: &Kind, json: &RawValue) -> Result<(), serde_json::Error> {
    let many = json.get().starts_with('[') && !matches!(kind, Kind::Any | Kind::Wrapped(_));
    if many {
        let kind = if matches!(kind, Kind::Each) { &Kind::Any } else { kind };
        let elements: Vec<&RawValue> = serde_json::from_str(json.get())?;
        return elements.into_iter().try_for_each(|element| value(out, number, kind, element));
    }
    let zero = match kind {
        Kind::Text => json.get() == "\"\"",
        Kind::Bool => json.get() == "false",
        Kind::Int | Kind::Double => serde_json::from_str::<f64>(json.get())? == 0.0,
        _ => json.get() == "null",
    };
    if zero { Ok(()) } else { value(out, number, kind, json) }
}

fn value(out: &mut Vec<u8>, number: u32, kind: &Kind, json: &RawValue) -> Result<(), serde_json::Error> {
    let json = json.get();
    match kind {
        Kind::Text => text(out, number, &serde_json::from_str::<String>(json)?),
        Kind::Bool => {
            encode_key(number, WireType::Varint, out);
            encode_varint(u64::from(serde_json::from_str::<bool>(json)?), out);
        }
        Kind::Int => {
            encode_key(number, WireType::Varint, out);
            encode_varint(serde_json::from_str::<i64>(json)?.cast_unsigned(), out);
        }
        Kind::Double => {
            encode_key(number, WireType::SixtyFourBit, out);
            out.extend(serde_json::from_str::<f64>(json)?.to_le_bytes());
        }
        Kind::Any | Kind::Each => {
            let mut inner = Vec::with_capacity(json.len() + 8);
            text(&mut inner, 2, &format!("{json}\n"));
            bytes(out, number, &inner);
        }
        Kind::Message(of) => {
            let mut inner = Vec::new();
            message(&mut inner, of, serde_json::from_str(json)?)?;
            bytes(out, number, &inner);
        }
        Kind::Map(entries, kind) => {
            let mut inner = Vec::new();
            for (name, value) in serde_json::from_str::<Object<'_>>(json)? {
                entry(&mut inner, *entries, &name, kind, value)?;
            }
            bytes(out, number, &inner);
        }
        Kind::Rest(of, entries, kind) => {
            let mut inner = Vec::new();
            let words: Object<'_> = serde_json::from_str(json)?;
            let is_word = |name: &str| name.starts_with("x-") || of.fields.iter().any(|(known, ..)| *known == name);
            let (words, names): (Object<'_>, Object<'_>) = words.into_iter().partition(|(name, _)| is_word(name));
            message(&mut inner, of, words)?;
            for (name, value) in names {
                entry(&mut inner, *entries, &name, kind, value)?;
            }
            bytes(out, number, &inner);
        }
        Kind::Wrapped(kind) => {
            let mut inner = Vec::new();
            field(&mut inner, 1, kind, serde_json::from_str(json)?)?;
            bytes(out, number, &inner);
        }
        Kind::OneOf(choices) => {
            let mut inner = Vec::new();
            if let Some((_, choice, kind)) = choices.iter().find(|(looks, ..)| looks(json)) {
                value(&mut inner, *choice, kind, serde_json::from_str(json)?)?;
            }
            bytes(out, number, &inner);
        }
    }
    Ok(())
}

fn entry(out: &mut Vec<u8>, number: u32, name: &str, kind: &Kind, json: &RawValue) -> Result<(), serde_json::Error> {
    let mut inner = Vec::new();
    text(&mut inner, 1, name);
    value(&mut inner, 2, kind, json)?;
    bytes(out, number, &inner);
    Ok(())
}

fn text(out: &mut Vec<u8>, number: u32, text: &str) {
    bytes(out, number, text.as_bytes());
}

fn bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

// What JSON looks like.

fn is_reference(json: &str) -> bool {
    has(json, "$ref", None)
}

fn is_bool(json: &str) -> bool {
    matches!(json, "true" | "false")
}

fn is_text(json: &str) -> bool {
    json.starts_with('"')
}

fn is_number(json: &str) -> bool {
    json.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

fn anything(_: &str) -> bool {
    true
}

/// An object that has the word, with this text.
fn has(json: &str, word: &str, text: Option<&str>) -> bool {
    let Ok(words) = serde_json::from_str::<Object<'_>>(json) else { return false };
    words.get(word).is_some_and(|value| text.is_none_or(|text| value.get().trim_matches('"') == text))
}

#[cfg(test)]
mod tests;
