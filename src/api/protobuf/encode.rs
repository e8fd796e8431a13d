//! Decides: the JSON of an object becomes its protobuf message, byte for byte as Go's writers make it: fields in the order
//! of their numbers, the zeros of everything that is no pointer, entries of maps in the order of their keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::PREFIX;
use crate::api::schema::{self, Field, Item, Other, Type, Wrap};

static NULL: Value = Value::Null;

/// An object in its envelope, by its own `apiVersion` and `kind`. `None` for a kind that has no protobuf form.
#[must_use]
pub fn object(value: &Value) -> Option<Vec<u8>> {
    let (api_version, kind) = (value["apiVersion"].as_str()?, value["kind"].as_str()?);
    let raw = match (api_version, kind) {
        ("meta.k8s.io/v1" | "meta.k8s.io/v1beta1", "PartialObjectMetadata") => metadata(&value["metadata"])?,
        ("meta.k8s.io/v1" | "meta.k8s.io/v1beta1", "PartialObjectMetadataList") => {
            let mut out = Vec::new();
            sized(&mut out, 1, &message(&value["metadata"], named("ListMeta")?, &[]));
            for item in value["items"].as_array()? {
                sized(&mut out, 2, &metadata(&item["metadata"])?);
            }
            out
        }
        _ => {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            message(value, schema::find(group, version, kind)?, &[])
        }
    };
    let mut meta = Vec::new();
    sized(&mut meta, 1, api_version.as_bytes());
    sized(&mut meta, 2, kind.as_bytes());
    let mut out = PREFIX.to_vec();
    sized(&mut out, 1, &meta);
    sized(&mut out, 2, &raw);
    // contentEncoding and contentType.
    sized(&mut out, 3, b"");
    sized(&mut out, 4, b"");
    Some(out)
}

/// An event of a watch, with the length that frames it. `object` is in its envelope.
#[must_use]
pub fn watch_event(kind: &str, object: &[u8]) -> Vec<u8> {
    let (mut raw, mut event) = (Vec::new(), Vec::new());
    sized(&mut raw, 1, object);
    sized(&mut event, 1, kind.as_bytes());
    sized(&mut event, 2, &raw);
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &event].concat()
}

fn named(name: &str) -> Option<&'static Type> {
    schema::named(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"))
}

/// A message that is nothing but metadata.
fn metadata(value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    sized(&mut out, 1, &message(value, named("ObjectMeta")?, &[]));
    Some(out)
}

/// The message of a value, or of one of the embedded structs of its type.
fn message(value: &Value, schema: &'static Type, inside: &[u16]) -> Vec<u8> {
    let mut fields: Vec<(u16, Option<&Field>)> = Vec::with_capacity(schema.fields.len());
    for field in schema.fields.iter().filter(|f| f.number != 0 && f.inside.starts_with(inside)) {
        match field.inside.get(inside.len()) {
            None => fields.push((field.number, Some(field))),
            Some(embedded) if fields.iter().any(|(number, _)| number == embedded) => {}
            Some(embedded) => fields.push((*embedded, None)),
        }
    }
    fields.sort_unstable_by_key(|(number, _)| *number);
    let mut out = Vec::new();
    for (number, field) in fields {
        match field {
            Some(field) => write(&mut out, field, value.get(field.name).unwrap_or(&NULL)),
            None => sized(&mut out, number, &message(value, schema, &[inside, &[number]].concat())),
        }
    }
    out
}

fn write(out: &mut Vec<u8>, field: &Field, value: &Value) {
    match field.shape.wrap {
        Wrap::One if value.is_null() && (field.pointer || matches!(field.shape.item, Item::Bytes)) => {}
        Wrap::One => item(out, field.number, field.shape.item, value),
        Wrap::List => {
            for value in value.as_array().into_iter().flatten() {
                item(out, field.number, field.shape.item, value);
            }
        }
        Wrap::Map | Wrap::MapOfLists => {
            for (key, value) in value.as_object().into_iter().flatten() {
                let mut entry = Vec::new();
                sized(&mut entry, 1, key.as_bytes());
                if field.shape.wrap == Wrap::Map {
                    item(&mut entry, 2, field.shape.item, value);
                } else {
                    let mut list = Vec::new();
                    value.as_array().into_iter().flatten().for_each(|v| item(&mut list, 1, field.shape.item, v));
                    sized(&mut entry, 2, &list);
                }
                sized(out, field.number, &entry);
            }
        }
    }
}

/// One value; of null the zero.
fn item(out: &mut Vec<u8>, number: u16, item: Item, value: &Value) {
    let text = || value.as_str().unwrap_or_default();
    match item {
        Item::String => sized(out, number, text().as_bytes()),
        Item::Bool => varint_field(out, number, u64::from(value.as_bool().unwrap_or_default())),
        Item::Int32 | Item::Int64 => varint_field(out, number, value.as_i64().unwrap_or_default().cast_unsigned()),
        Item::Double => {
            key(out, number, 1);
            out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
        }
        Item::Bytes => sized(out, number, &BASE64.decode(text()).unwrap_or_default()),
        Item::Time => sized(out, number, &time(text(), false)),
        Item::MicroTime => sized(out, number, &time(text(), true)),
        Item::Quantity => {
            let mut quantity = Vec::new();
            let shown = value.as_number().map(ToString::to_string);
            let shown = shown.as_deref().unwrap_or_else(|| if value.is_null() { "0" } else { text() });
            sized(&mut quantity, 1, shown.as_bytes());
            sized(out, number, &quantity);
        }
        Item::IntOrString => {
            let mut either = Vec::new();
            varint_field(&mut either, 1, u64::from(value.is_string()));
            varint_field(&mut either, 2, value.as_i64().unwrap_or_default().cast_unsigned());
            sized(&mut either, 3, text().as_bytes());
            sized(out, number, &either);
        }
        Item::Any | Item::Json => {
            let mut raw = Vec::new();
            if !value.is_null() {
                sized(&mut raw, 1, value.to_string().as_bytes());
            }
            sized(out, number, &raw);
        }
        Item::Either(schema, other) => sized(out, number, &either(value, schema, other)),
        Item::Object(schema) => sized(out, number, &message(value, schema, &[])),
    }
}

/// A schema, or what stands in its place. A schema where a boolean may be is allowed.
fn either(value: &Value, schema: &'static Type, other: Other) -> Vec<u8> {
    let mut out = Vec::new();
    let (number, in_its_place) = other.numbers();
    if other == Other::Bool {
        let allows = value.is_object() || value.as_bool().unwrap_or_default();
        varint_field(&mut out, in_its_place, u64::from(allows));
    }
    if value.is_object() {
        sized(&mut out, number, &message(value, schema, &[]));
    }
    let element = if other == Other::Strings { Item::String } else { Item::Object(schema) };
    for value in value.as_array().into_iter().flatten() {
        item(&mut out, in_its_place, element, value);
    }
    out
}

/// Seconds and nanoseconds since 1970; nothing for the zero time.
fn time(text: &str, micro: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        // Whole seconds before the time, and what is left: both as Go splits them.
        let nanos = time.as_nanosecond();
        let second = nanos.div_euclid(1_000_000_000);
        let rest = if micro { nanos.rem_euclid(1_000_000_000) / 1000 * 1000 } else { 0 };
        varint_field(&mut out, 1, i64::try_from(second).unwrap_or_default().cast_unsigned());
        varint_field(&mut out, 2, u64::try_from(rest).unwrap_or_default());
    }
    out
}

fn key(out: &mut Vec<u8>, number: u16, wire: u64) {
    varint(out, u64::from(number) << 3 | wire);
}

fn varint_field(out: &mut Vec<u8>, number: u16, value: u64) {
    key(out, number, 0);
    varint(out, value);
}

fn sized(out: &mut Vec<u8>, number: u16, content: &[u8]) {
    key(out, number, 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[allow(clippy::cast_possible_truncation, reason = "the low seven bits")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[allow(clippy::cast_possible_truncation, reason = "less than 0x80")]
    out.push(value as u8);
}
