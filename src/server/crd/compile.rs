//! Decides: a schema as it is written becomes the tree that is walked (`apiextensions-apiserver/pkg/apiserver/schema/convert.go`).

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::format;
use super::pattern::Pattern;
use super::structural::{Kind, Limits, ListType, Rule, Structural};
use crate::api::field::{FieldError, Path};

/// The tree of an `openAPIV3Schema` that was accepted.
///
/// # Errors
/// What an accepted schema does not have: references, lists of schemas for `items` and the like, and regular expressions
/// that are none.
pub fn compile(schema: &Value) -> Result<Structural, Vec<FieldError>> {
    let wrong = |why: String| vec![FieldError::invalid(&Path::new("openAPIV3Schema"), &"", &why)];
    if let Some(why) = unsupported(schema) {
        return Err(wrong(why));
    }
    let mut compiler = Compiler::default();
    let tree = compiler.schema(schema);
    match compiler.wrong {
        None => Ok(tree),
        Some(why) => Err(wrong(why)),
    }
}

/// The tree of whatever is there, for what checks it.
#[must_use]
pub fn lenient(schema: &Value) -> Structural {
    Compiler::default().schema(schema)
}

/// Why upstream cannot convert a schema, which it says only when nothing else is wrong.
#[must_use]
pub fn unsupported(schema: &Value) -> Option<String> {
    let map = schema.as_object()?;
    let given = |key: &str| match map.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(s)) => !s.is_empty(),
        Some(Value::Object(m)) => !m.is_empty(),
        Some(_) => true,
    };
    for key in ["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"] {
        if given(key) {
            let name = key.strip_prefix("$sch").map_or(key, |_| "schema");
            return Some(format!("OpenAPIV3Schema '{name}' is not supported"));
        }
    }
    if map.get("items").is_some_and(Value::is_array) {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".into());
    }
    if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        return Some("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".into());
    }
    let one = ["not", "items", "additionalProperties"].into_iter().filter_map(|k| map.get(k));
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|k| map.get(k)?.as_array()).flatten();
    let named = map.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::values);
    one.chain(lists).chain(named).find_map(unsupported)
}

#[derive(Default)]
struct Compiler {
    /// Many fields of a definition have the same pattern.
    patterns: HashMap<String, Pattern>,
    /// The first pattern that is none.
    wrong: Option<String>,
}

impl Compiler {
    fn schema(&mut self, schema: &Value) -> Structural {
        let Some(map) = schema.as_object() else { return Structural::anything() };
        let kind = kind(map);
        let additional = map.get("additionalProperties").filter(|a| !a.is_null());
        let truth = |key: &str| map.get(key) == Some(&Value::Bool(true));
        let properties = map.get("properties").and_then(Value::as_object).into_iter().flatten();
        Structural {
            kind,
            nullable: truth("nullable"),
            // A default of null is none.
            default: map.get("default").filter(|d| !d.is_null()).cloned(),
            properties: properties.map(|(name, s)| (name.clone(), self.schema(s))).collect::<BTreeMap<_, _>>(),
            additional: additional.map(|a| Box::new(self.schema(a))),
            items: map.get("items").filter(|i| i.is_object()).map(|i| Box::new(self.schema(i))),
            preserves_unknown: truth("x-kubernetes-preserve-unknown-fields"),
            embedded: truth("x-kubernetes-embedded-resource"),
            list: list_type(map),
            atomic: text(map, "x-kubernetes-map-type") == "atomic",
            rules: rules(map),
            limits: self.limits(map, kind).map(Box::new),
        }
    }

    fn limits(&mut self, map: &Map<String, Value>, kind: Kind) -> Option<Limits> {
        let format = text(map, "format");
        let pattern = text(map, "pattern");
        let number = |key: &str| map.get(key).and_then(Value::as_f64);
        let count = |key: &str| map.get(key).and_then(Value::as_u64);
        let truth = |key: &str| map.get(key) == Some(&Value::Bool(true));
        let list = |key: &str| map.get(key).and_then(Value::as_array).into_iter().flatten();
        let limits = Limits {
            checked: format::find(kind, format),
            format: format.to_owned(),
            maximum: number("maximum"),
            exclusive_maximum: truth("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: truth("exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            regex: self.pattern(pattern),
            pattern: pattern.to_owned(),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            unique_items: truth("uniqueItems"),
            closed: map.get("additionalProperties") == Some(&Value::Bool(false)),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: list("required").filter_map(Value::as_str).map(str::to_owned).collect(),
            enumeration: list("enum").cloned().collect(),
            all_of: list("allOf").map(|s| self.schema(s)).collect(),
            any_of: list("anyOf").map(|s| self.schema(s)).collect(),
            one_of: list("oneOf").map(|s| self.schema(s)).collect(),
            not: map.get("not").filter(|n| n.is_object()).map(|n| Box::new(self.schema(n))),
        };
        (limits != Limits::default()).then_some(limits)
    }

    fn pattern(&mut self, text: &str) -> Option<Pattern> {
        if text.is_empty() {
            return None;
        }
        if let Some(known) = self.patterns.get(text) {
            return Some(known.clone());
        }
        match Pattern::parse(text) {
            Ok(pattern) => {
                self.patterns.insert(text.to_owned(), pattern.clone());
                Some(pattern)
            }
            Err(why) => {
                self.wrong.get_or_insert(why);
                None
            }
        }
    }
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn kind(map: &Map<String, Value>) -> Kind {
    if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return Kind::IntOrString;
    }
    match text(map, "type") {
        "object" => Kind::Object,
        "array" => Kind::Array,
        "string" => Kind::String,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "boolean" => Kind::Boolean,
        _ => Kind::Any,
    }
}

fn list_type(map: &Map<String, Value>) -> ListType {
    match text(map, "x-kubernetes-list-type") {
        "set" => ListType::Set,
        "map" => {
            let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
            ListType::Map(keys.filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => ListType::Atomic,
    }
}

fn rules(map: &Map<String, Value>) -> Vec<Rule> {
    let rules = map.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
    let rule = |rule: &Value| {
        let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        Rule {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old_self: rule["optionalOldSelf"] == Value::Bool(true),
        }
    };
    rules.map(rule).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::crd::format::Format;

    #[test]
    fn keywords_become_the_tree() {
        let tree = compile(&json!({"type": "object", "properties": {
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "integer", "format": "int32", "minimum": 1}},
            "open": {"type": "object", "additionalProperties": true},
            "closed": {"type": "object", "additionalProperties": false},
            "port": {"x-kubernetes-int-or-string": true, "nullable": true, "default": null},
            "rest": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-map-type": "atomic",
                "x-kubernetes-validations": [{"rule": "true", "reason": "FieldValueInvalid", "optionalOldSelf": true}]},
        }}))
        .unwrap();
        let list = &tree.properties["list"];
        assert_eq!((list.kind, &list.list), (Kind::Array, &ListType::Map(vec!["a".into()])));
        assert_eq!(list.items.as_ref().unwrap().properties["a"].default, Some(json!("x")));
        let limits = tree.properties["map"].additional.as_ref().unwrap().limits.as_ref().unwrap();
        assert_eq!((limits.checked, limits.minimum), (Some(Format::Int32), Some(1.0)));
        assert!(tree.properties["open"].additional.as_ref().unwrap().is_anything());
        assert!(tree.properties["closed"].limits.as_ref().unwrap().closed);
        let port = &tree.properties["port"];
        assert_eq!((port.kind, port.nullable, &port.default, &port.limits), (Kind::IntOrString, true, &None, &None));
        let rest = &tree.properties["rest"];
        assert!(rest.preserves_unknown && rest.atomic && rest.rules[0].optional_old_self);
    }

    #[test]
    fn the_same_pattern_is_compiled_once() {
        let text = json!({"type": "string", "pattern": "^a$"});
        let tree = compile(&json!({"type": "object", "properties": {"a": text, "b": text}})).unwrap();
        let regex = |name: &str| tree.properties[name].limits.as_ref().unwrap().regex.clone().unwrap();
        assert_eq!(regex("a"), regex("b"));
        assert!(regex("a").matches("a") && !regex("b").matches("ab"));
    }

    #[test]
    fn what_cannot_be_compiled_says_why() {
        for (schema, expect) in [
            (json!({"properties": {"a": {"$ref": "x"}}}), "OpenAPIV3Schema '$ref' is not supported"),
            (json!({"$schema": "x"}), "OpenAPIV3Schema 'schema' is not supported"),
            (json!({"items": [{}]}), "OpenAPIV3Schema 'items' must be a schema, but is an array"),
            (json!({"allOf": [{"pattern": "("}]}), "error parsing regexp: missing closing ): `(`"),
        ] {
            let errors = compile(&schema).unwrap_err();
            assert_eq!(errors[0].to_string(), format!("openAPIV3Schema: Invalid value: \"\": {expect}"));
        }
    }
}
