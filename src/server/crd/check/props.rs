//! Types: a schema as it is written, with what upstream's decoder makes of what is not there.

use serde_json::{Map, Value};

/// `JSONSchemaProps`.
#[derive(Clone, Copy)]
pub(super) struct Props<'a>(&'a Map<String, Value>);

impl<'a> Props<'a> {
    pub fn of(value: &'a Value) -> Option<Self> {
        value.as_object().map(Self)
    }

    /// Anything but null.
    pub fn given(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    pub fn text(self, key: &str) -> &'a str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn truth(self, key: &str) -> bool {
        self.0.get(key) == Some(&Value::Bool(true))
    }

    pub fn kind(self) -> &'a str {
        self.text("type")
    }

    /// A keyword that is one schema.
    pub fn one(self, key: &str) -> Option<Props<'a>> {
        Props::of(self.0.get(key)?)
    }

    /// A keyword that is a list of schemas.
    pub fn many(self, key: &str) -> impl Iterator<Item = Props<'a>> {
        self.list(key).iter().filter_map(Props::of)
    }

    pub fn list(self, key: &str) -> &'a [Value] {
        self.0.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    pub fn texts(self, key: &str) -> impl Iterator<Item = &'a str> {
        self.list(key).iter().filter_map(Value::as_str)
    }

    /// A keyword that is a map of schemas.
    pub fn named(self, key: &str) -> impl Iterator<Item = (&'a str, Props<'a>)> {
        let map = self.0.get(key).and_then(Value::as_object);
        map.into_iter().flatten().filter_map(|(name, schema)| Some((name.as_str(), Props::of(schema)?)))
    }

    pub fn properties(self) -> impl Iterator<Item = (&'a str, Props<'a>)> {
        self.named("properties")
    }

    pub fn property(self, name: &str) -> Option<Props<'a>> {
        Props::of(self.0.get("properties")?.get(name)?)
    }

    pub fn has_properties(self) -> bool {
        self.properties().next().is_some()
    }

    pub fn keys(self) -> impl Iterator<Item = &'a str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether a keyword is more than its type's zero value.
    pub fn is_set(self, key: &str) -> bool {
        const POINTERS: &[&str] = &["additionalProperties", "externalDocs", "items", "not"];
        match self.0.get(key) {
            None | Some(Value::Null) => false,
            Some(_) if POINTERS.contains(&key) => true,
            Some(Value::Bool(b)) => *b,
            Some(Value::String(s)) => !s.is_empty(),
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            Some(Value::Number(_)) => true,
        }
    }

    /// Whether this says `type` and nothing else.
    pub fn is_only_type(self, kind: &str) -> bool {
        self.kind() == kind && self.keys().all(|key| key == "type" || !self.is_set(key))
    }
}
