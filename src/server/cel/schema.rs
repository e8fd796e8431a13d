//! Decides: what a structural schema declares to an expression (`SchemaDeclType` of `k8s.io/apiserver/pkg/cel/common`): types, and
//! the most that fits into a request where the schema has no limit.

use std::borrow::Cow;
use std::sync::Arc;

use super::MAX_REQUEST_BYTES;
use super::parse::RESERVED;
use super::types::{Decl, Field, ListKind, ListType, MapType, ObjectType, Type};
use crate::server::crd::structural::{Kind, ListType as SchemaList, Structural};

/// The least that values take as JSON (`k8s.io/apiserver/pkg/cel/limits.go`).
const MIN_STRING: u64 = 2;
const MIN_BOOL: u64 = 4;
const MIN_NUMBER: u64 = 1;
const MIN_CONTAINER: u64 = 2;
const MIN_DURATION: u64 = 3;
const MIN_DATE_TIME: u64 = 21;
const DATE: u64 = 12;
/// The most that a duration and a time take.
const MAX_TIME: u64 = 32;

/// The declaration of a schema, named for messages; `None` when expressions cannot see such values: those without a
/// type, and lists and maps of them. `root` is the root of a resource, whose `apiVersion`, `kind` and `metadata` are always
/// there.
#[must_use]
pub fn declare(schema: &Structural, root: bool, name: &str) -> Option<Decl> {
    let limits = schema.limits.as_deref();
    let limit = |most: fn(&crate::server::crd::structural::Limits) -> Option<u64>| limits.and_then(most);
    let decl = |ty: Type, max: u64| Some(Decl { ty, max, nullable: schema.nullable });
    match schema.kind {
        // Characters are up to four bytes long.
        Kind::IntOrString => {
            decl(Type::Dyn, limit(|l| l.max_length).map_or(MAX_REQUEST_BYTES - 2, |max| max.saturating_mul(4)))
        }
        Kind::Any => None,
        Kind::Array => {
            let items = schema.items.as_deref()?;
            let element = declare(items, items.embedded, &format!("{name}.@idx"))?;
            let max = limit(|l| l.max_items)
                .unwrap_or_else(|| (MAX_REQUEST_BYTES - 2) / (minimum(items, items.embedded) + 1));
            let kind = match &schema.list {
                SchemaList::Atomic => ListKind::Atomic,
                SchemaList::Set => ListKind::Set,
                SchemaList::Map(keys) => ListKind::Map(keys.clone()),
            };
            decl(Type::List(Arc::new(ListType { element, kind })), max)
        }
        Kind::Object => match schema.additional.as_deref() {
            Some(values) => {
                let value = declare(values, values.embedded, &format!("{name}.@elem"))?;
                let max = limit(|l| l.max_properties)
                    .unwrap_or_else(|| (MAX_REQUEST_BYTES - 2) / (minimum(values, values.embedded) + 6));
                decl(Type::Map(Arc::new(MapType { key: Type::String, value })), max)
            }
            None => {
                let schema = if root { with_meta(schema) } else { Cow::Borrowed(schema) };
                let fields = schema.properties.iter().filter_map(|(json, property)| {
                    let escaped = escape(json)?;
                    let decl = declare(property, property.embedded, &format!("{name}.{escaped}"))?;
                    Some(Field { name: escaped.into(), json: json.as_str().into(), decl })
                });
                let object = ObjectType::new(name, fields.collect());
                decl(Type::Object(Arc::new(object)), 0)
            }
        },
        Kind::Boolean => decl(Type::Bool, 0),
        Kind::Number => decl(Type::Double, 0),
        Kind::Integer => decl(Type::Int, 0),
        Kind::String => {
            let length = limit(|l| l.max_length);
            match limits.map_or("", |l| l.format.as_str()) {
                "byte" => decl(Type::Bytes, length.unwrap_or(MAX_REQUEST_BYTES - 2)),
                "duration" => decl(Type::Duration, MAX_TIME),
                "date" => decl(Type::Timestamp, DATE),
                "date-time" => decl(Type::Timestamp, MAX_TIME),
                _ => decl(Type::String, length.map_or_else(|| longest(schema), |max| max.saturating_mul(4))),
            }
        }
    }
}

/// The longest value of an enumeration, or what fits into a request.
fn longest(schema: &Structural) -> u64 {
    let values = schema.limits.iter().flat_map(|l| &l.enumeration);
    let lengths = values.map(|value| value.as_str().map_or(0, str::len) as u64);
    lengths.max().unwrap_or(MAX_REQUEST_BYTES - 2)
}

/// How often a value of this schema can be in an object at most, as far as the size of a request limits it.
#[must_use]
pub fn cardinality(schema: &Structural, root: bool) -> u64 {
    MAX_REQUEST_BYTES / (minimum(schema, root) + 1)
}

/// The least bytes of JSON that a value takes.
fn minimum(schema: &Structural, root: bool) -> u64 {
    match schema.kind {
        Kind::IntOrString | Kind::Integer | Kind::Number | Kind::Any => MIN_NUMBER,
        Kind::Boolean => MIN_BOOL,
        Kind::Array => MIN_CONTAINER,
        Kind::String => match schema.limits.as_deref().map_or("", |l| l.format.as_str()) {
            "duration" => MIN_DURATION,
            "date" => DATE,
            "date-time" => MIN_DATE_TIME,
            _ => MIN_STRING,
        },
        Kind::Object if schema.additional.is_some() => MIN_CONTAINER,
        Kind::Object => {
            let schema = if root { with_meta(schema) } else { Cow::Borrowed(schema) };
            let required = schema.limits.iter().flat_map(|l| &l.required);
            // What has a default need not be sent.
            let sent = required.filter_map(|name| Some((name, schema.properties.get(name)?)));
            let sent = sent.filter(|(_, property)| property.default.is_none() && property.kind != Kind::Any);
            MIN_CONTAINER
                + sent.map(|(name, property)| name.len() as u64 + minimum(property, property.embedded) + 4).sum::<u64>()
        }
    }
}

/// The schema with the fields that every resource has; of the metadata, only names are shown (`WithTypeAndObjectMeta`).
fn with_meta(schema: &Structural) -> Cow<'_, Structural> {
    let is = |of: &Structural, name: &str, kind: Kind| of.properties.get(name).is_some_and(|p| p.kind == kind);
    let named = schema
        .properties
        .get("metadata")
        .is_some_and(|meta| is(meta, "name", Kind::String) && is(meta, "generateName", Kind::String));
    if is(schema, "kind", Kind::String) && is(schema, "apiVersion", Kind::String) && named {
        return Cow::Borrowed(schema);
    }
    let text = || Structural { kind: Kind::String, ..Structural::default() };
    let mut metadata = Structural { kind: Kind::Object, ..Structural::default() };
    for name in ["name", "generateName"] {
        metadata.properties.insert(name.into(), text());
    }
    let mut schema = schema.clone();
    schema.properties.insert("kind".into(), text());
    schema.properties.insert("apiVersion".into(), text());
    schema.properties.insert("metadata".into(), metadata);
    Cow::Owned(schema)
}

/// The name of a field as an expression says it, if it can (`Escape` of `k8s.io/apiserver/pkg/cel`).
#[must_use]
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let width = match c {
            '_' if rest.starts_with("__") => {
                escaped.push_str("__underscores__");
                2
            }
            '-' => {
                escaped.push_str("__dash__");
                1
            }
            '.' => {
                escaped.push_str("__dot__");
                1
            }
            '/' => {
                escaped.push_str("__slash__");
                1
            }
            c if c.is_ascii_alphanumeric() || c == '_' => {
                escaped.push(c);
                1
            }
            _ => return None,
        };
        rest = &rest[width..];
    }
    Some(escaped)
}

/// A declaration of anything, for objects without a schema.
#[must_use]
pub fn anything() -> Decl {
    Decl { nullable: true, ..Decl::of(Type::Dyn) }
}
