//! Decides: the text of an object at rest. Writes canonical JSON, splices revisions into it, and takes out the head.
//!
//! Canonical text begins with `apiVersion`, `kind` and `metadata`, so that the place of `metadata.resourceVersion`
//! is found by looking at the first hundred bytes, and no commit or deletion has to encode the object again.
//! The text that the store keeps holds no revision; [`splice`] puts it in as the first field of the metadata.

use bytes::Bytes;
use serde_json::Value;

use super::key::Key;
use super::object::{Head, Object};
use super::revision::Revision;

const METADATA: &[u8] = br#""metadata":{"#;
const REVISION: &[u8] = br#""resourceVersion":""#;

/// An object that has no revision yet: what the registry hands to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub key: Key,
    pub head: Head,
    /// Canonical JSON without `metadata.resourceVersion`.
    pub text: Bytes,
}

impl Draft {
    /// `selectable` is [`super::resource::Resource::selectable`] of the storage version.
    #[must_use]
    pub fn new(key: Key, value: &Value, selectable: &[&str]) -> Self {
        Self { key, head: head(value, selectable), text: canonical(value).into() }
    }

    /// The object once a commit has given it its revision.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Object {
        Object { key: self.key.clone(), revision, head: self.head.clone(), json: splice(&self.text, revision) }
    }
}

impl Object {
    /// The same object under another revision: what a watch shows of a deletion.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Self {
        let text = without_revision(&self.json);
        Self { key: self.key.clone(), revision, head: self.head.clone(), json: splice(&text, revision) }
    }
}

/// Canonical JSON of an object, without its revision.
#[must_use]
pub fn canonical(value: &Value) -> Vec<u8> {
    // Most objects fit.
    let mut out = Vec::with_capacity(2048);
    let empty = serde_json::Map::new();
    let object = value.as_object().unwrap_or(&empty);
    let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    out.extend_from_slice(br#"{"apiVersion":"#);
    push(&mut out, object.get("apiVersion").unwrap_or(&Value::Null));
    out.extend_from_slice(br#","kind":"#);
    push(&mut out, object.get("kind").unwrap_or(&Value::Null));
    out.push(b',');
    out.extend_from_slice(METADATA);
    let fields = metadata.iter().filter(|(k, _)| *k != "resourceVersion");
    for (i, (key, value)) in fields.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_field(&mut out, key, value);
    }
    out.push(b'}');
    let rest = object.iter().filter(|(k, _)| !matches!(k.as_str(), "apiVersion" | "kind" | "metadata"));
    for (key, value) in rest {
        out.push(b',');
        push_field(&mut out, key, value);
    }
    out.push(b'}');
    out
}

/// Reads canonical text of an object of this name.
///
/// # Errors
/// What is wrong with it: it is not as [`canonical`] writes it.
pub fn read(text: &[u8], name: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_slice(text).map_err(|e| format!("it is no JSON: {e}"))?;
    let start = &text[..fields_of_metadata(text).min(text.len())];
    let placed = start.starts_with(br#"{"apiVersion":""#) && start.ends_with(METADATA);
    if !(placed && value["kind"].is_string()) {
        return Err("it is no object: apiVersion, kind or metadata are not where they should be".into());
    }
    match &value["metadata"]["name"] {
        Value::String(found) if found == name => Ok(value),
        found => Err(format!("its name is {found}")),
    }
}

/// Puts a revision into canonical text.
#[must_use]
pub fn splice(text: &[u8], revision: Revision) -> Bytes {
    let at = fields_of_metadata(text);
    let mut out = Vec::with_capacity(text.len() + REVISION.len() + 24);
    out.extend_from_slice(&text[..at]);
    out.extend_from_slice(REVISION);
    out.extend_from_slice(revision.to_string().as_bytes());
    out.push(b'"');
    if text.get(at).is_some_and(|b| *b != b'}') {
        out.push(b',');
    }
    out.extend_from_slice(&text[at..]);
    // Exactly as long as it is: it stays in memory for the life of the object.
    out.into_boxed_slice().into()
}

/// The inverse of [`splice`].
#[must_use]
pub fn without_revision(json: &[u8]) -> Vec<u8> {
    let at = fields_of_metadata(json);
    if !json[at..].starts_with(REVISION) {
        return json.to_vec();
    }
    let digits = at + REVISION.len();
    let mut end = digits + json[digits..].iter().take_while(|b| b.is_ascii_digit()).count() + 1;
    if json.get(end) == Some(&b',') {
        end += 1;
    }
    [&json[..at], &json[end.min(json.len())..]].concat()
}

/// What the machinery looks at without parsing the object again.
#[must_use]
pub fn head(value: &Value, selectable: &[&str]) -> Head {
    let metadata = &value["metadata"];
    let mut labels: Vec<(Box<str>, Box<str>)> = metadata["labels"]
        .as_object()
        .map(|l| l.iter().filter_map(|(k, v)| Some((k.as_str().into(), v.as_str()?.into()))).collect())
        .unwrap_or_default();
    labels.sort();
    let owners = metadata["ownerReferences"]
        .as_array()
        .map(|o| o.iter().filter_map(|o| Some(o["uid"].as_str()?.into())).collect())
        .unwrap_or_default();
    Head {
        uid: metadata["uid"].as_str().unwrap_or_default().into(),
        generation: metadata["generation"].as_i64().unwrap_or_default(),
        labels: labels.into(),
        owners,
        deleting: metadata["deletionTimestamp"].is_string(),
        fields: selectable.iter().map(|path| field(value, path)).collect(),
    }
}

/// The value of a selectable field, as upstream's conversion functions of each kind give it.
fn field(value: &Value, path: &str) -> Box<str> {
    if path == "source" {
        // Events: the reporting controller takes the place of a source without component.
        let component = value["source"]["component"].as_str().unwrap_or_default();
        let reporter = value["reportingComponent"].as_str().unwrap_or_default();
        return if component.is_empty() { reporter } else { component }.into();
    }
    let found = path.split('.').fold(value, |v, name| &v[name]);
    match found {
        Value::String(text) => text.as_str().into(),
        Value::Bool(b) => b.to_string().into(),
        Value::Number(n) => n.to_string().into(),
        // Fields that are not strings are left out of the JSON when they are zero.
        _ => match path {
            "spec.unschedulable" | "spec.hostNetwork" => "false".into(),
            "status.replicas" => "0".into(),
            _ => "".into(),
        },
    }
}

/// Where the first field of the metadata starts. Nothing before it can hold the same bytes: the values of
/// `apiVersion` and `kind` are escaped, so a quote in them is never bare.
fn fields_of_metadata(text: &[u8]) -> usize {
    text.windows(METADATA.len()).position(|w| w == METADATA).map_or(1, |at| at + METADATA.len())
}

/// Writes one field of an object.
pub fn push_field(out: &mut Vec<u8>, key: &str, value: &Value) {
    push_text(out, key);
    out.push(b':');
    push(out, value);
}

fn push(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(text) => push_text(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                out.extend((i > 0).then_some(b','));
                push(out, item);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            out.push(b'{');
            for (i, (key, value)) in fields.iter().enumerate() {
                out.extend((i > 0).then_some(b','));
                push_field(out, key, value);
            }
            out.push(b'}');
        }
        // What was parsed can be written.
        Value::Null | Value::Bool(_) | Value::Number(_) => drop(serde_json::to_writer(out, value)),
    }
}

/// Hardly any text has something to escape. That is asked of many bytes at once, so no step may depend on the last.
fn push_text(out: &mut Vec<u8>, text: &str) {
    let is_plain = |b: u8| (b >= 0x20) & (b != b'"') & (b != b'\\');
    if text.bytes().fold(true, |plain, b| plain & is_plain(b)) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // A string cannot fail to encode.
        let _ = serde_json::to_writer(out, text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_canonical_and_takes_a_revision() {
        let value = json!({"spec": {"b": 1}, "kind": "Pod", "apiVersion": "v1", "data": {"metadata": {"a": 1}},
            "metadata": {"name": "x", "resourceVersion": "7", "labels": {"b": "2", "a": "1"}}});
        let text = canonical(&value);
        assert_eq!(
            String::from_utf8(text.clone()).unwrap(),
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":"1","b":"2"},"name":"x"},"data":{"metadata":{"a":1}},"spec":{"b":1}}"#
        );
        let spliced = splice(&text, Revision(42));
        let mut expect = value;
        expect["metadata"]["resourceVersion"] = json!("42");
        assert_eq!(serde_json::from_slice::<Value>(&spliced).unwrap(), expect);
        assert_eq!(without_revision(&spliced), text);
    }

    #[test]
    fn head_has_what_selectors_need() {
        let value = json!({"metadata": {"uid": "u", "generation": 3, "labels": {"b": "2", "a": "1"},
            "ownerReferences": [{"uid": "o"}], "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "hostNetwork": true}, "reportingComponent": "r", "source": {}});
        let head = head(&value, &["spec.nodeName", "spec.hostNetwork", "spec.unschedulable", "source", "type"]);
        assert_eq!(head.fields.iter().map(|f| &**f).collect::<Vec<_>>(), ["n", "true", "false", "r", ""]);
        assert_eq!((&*head.uid, head.generation, head.deleting), ("u", 3, true));
        assert_eq!(head.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!(&*head.owners[0], "o");
    }

    proptest! {
        #[test]
        fn splicing_survives_any_strings(kind in ".*", name in ".*", data in ".*", revision: u64) {
            let value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": data});
            let spliced = splice(&canonical(&value), Revision(revision));
            let mut expect = value.clone();
            expect["metadata"]["resourceVersion"] = json!(revision.to_string());
            prop_assert_eq!(serde_json::from_slice::<Value>(&spliced).unwrap(), expect);
            prop_assert_eq!(without_revision(&spliced), canonical(&value));
        }

        #[test]
        fn values_are_written_as_everywhere(text in ".*", number: i64, float: f64, control in 0_u8..128) {
            let control = char::from(control).to_string();
            let value = json!({(text.clone()): [text, number, float, control, null, true, {}, [], {"a": 1, "b": [{"c": 2}]}]});
            let mut out = Vec::new();
            push(&mut out, &value);
            prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }

        #[test]
        fn metadata_may_be_empty(revision: u64) {
            let value = json!({"apiVersion": "v1", "kind": "X"});
            let spliced = splice(&canonical(&value), Revision(revision));
            let parsed: Value = serde_json::from_slice(&spliced).unwrap();
            prop_assert_eq!(parsed["metadata"]["resourceVersion"].as_str().unwrap(), revision.to_string());
            prop_assert_eq!(without_revision(&spliced), canonical(&value));
        }
    }
}
