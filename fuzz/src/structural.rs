//! Decides: draws schemas of custom resources, most of which can be accepted, and values that are nearly what they say.

use serde_json::{Map, Value, json};

use crate::{Draw, cel};

const NAMES: &[&str] = &["a", "b", "c", "name", "spec", "namespace", "x-y", "a.b"];
const PATTERNS: &[&str] = &["^a", "a*$", "[a-z]+", "(a|b)+", "^$", "a{2,5}", "("];
const FORMATS: &[&str] = &["date-time", "ipv4", "uuid", "byte", "duration", "int32", "email", "nothing"];
const RULES: &[&str] = &[
    "self == oldSelf",
    "true",
    "self.a == 'x'",
    "has(self.a)",
    "self.size() > 1",
    "self.all(x, x > 1)",
    "self.exists(k, k == 'a')",
    "self >= 0",
    "self.matches('^a+$')",
    "oldSelf.hasValue()",
    "1",
    "self.",
];

/// A root schema.
pub fn root(draw: &mut Draw) -> Value {
    let mut schema = node(draw, 0, Some("object"));
    if draw.one_in(4) {
        schema["x-kubernetes-preserve-unknown-fields"] = true.into();
    }
    schema
}

fn node(draw: &mut Draw, depth: usize, kind: Option<&str>) -> Value {
    const KINDS: &[&str] =
        &["string", "integer", "boolean", "number", "object", "array", "map", "int-or-string", "any"];
    let kind = kind.unwrap_or_else(|| draw.pick(&KINDS[..if depth > 4 { 4 } else { KINDS.len() }]));
    let mut schema = match kind {
        "object" => {
            let count = draw.below(5);
            let fields: Map<_, _> =
                (0..count).map(|_| (draw.pick(NAMES).to_owned(), node(draw, depth + 1, None))).collect();
            json!({"type": "object", "properties": fields})
        }
        "map" => json!({"type": "object", "additionalProperties": node(draw, depth + 1, None)}),
        "array" => array(draw, depth),
        "int-or-string" => json!({"x-kubernetes-int-or-string": true}),
        "any" => json!({"x-kubernetes-preserve-unknown-fields": true}),
        scalar => json!({"type": scalar}),
    };
    while draw.one_in(3) {
        let (key, value) = keyword(draw, &schema, depth);
        schema[key] = value;
    }
    schema
}

fn array(draw: &mut Draw, depth: usize) -> Value {
    match draw.below(4) {
        0 => json!({"type": "array", "items": node(draw, depth + 1, None)}),
        1 => {
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": draw.pick(&["string", "integer"])}})
        }
        2 => json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"},
                "a": node(draw, depth + 2, None)}}}),
        _ => json!({"type": "array", "maxItems": draw.below(5), "items": node(draw, depth + 1, None)}),
    }
}

fn keyword(draw: &mut Draw, schema: &Value, depth: usize) -> (&'static str, Value) {
    match draw.below(20) {
        0 => ("nullable", true.into()),
        1 => ("default", near(draw, schema, depth)),
        2 => ("pattern", draw.pick(PATTERNS).into()),
        3 => ("format", draw.pick(FORMATS).into()),
        4 => ("maxLength", draw.below(20).into()),
        5 => ("minimum", draw.integer().into()),
        6 => ("maximum", draw.integer().into()),
        7 => ("multipleOf", json!(draw.integer() as f64 / 4.0)),
        8 => ("required", json!([draw.pick(NAMES)])),
        9 => ("enum", json!([near(draw, schema, depth), near(draw, schema, depth)])),
        10 => ("maxProperties", draw.below(4).into()),
        11 => ("minItems", draw.below(4).into()),
        12 => ("x-kubernetes-embedded-resource", true.into()),
        13 => ("x-kubernetes-map-type", draw.pick(&["atomic", "granular"]).into()),
        14 => ("x-kubernetes-validations", json!([{"rule": draw.pick(RULES)}])),
        15 => ("x-kubernetes-validations", json!([{"rule": cel::expression(draw), "message": "no"}])),
        16 => ("not", json!({"enum": [near(draw, schema, depth)]})),
        17 => (
            draw.pick(&["anyOf", "allOf", "oneOf"]),
            json!([{"minimum": draw.integer()}, {"pattern": draw.pick(PATTERNS)}]),
        ),
        18 => ("x-kubernetes-preserve-unknown-fields", true.into()),
        _ => ("uniqueItems", draw.one_in(2).into()),
    }
}

/// Something like what a schema says.
pub fn near(draw: &mut Draw, schema: &Value, depth: usize) -> Value {
    if draw.one_in(16) || depth > 10 {
        return draw.json(depth);
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return if draw.one_in(2) { draw.word().into() } else { draw.integer().into() };
    }
    match schema["type"].as_str() {
        Some("object") => {
            let mut map = Map::new();
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if !draw.one_in(3) {
                    map.insert(name.clone(), near(draw, property, depth + 1));
                }
            }
            if schema["additionalProperties"].is_object() {
                for _ in 0..draw.below(4) {
                    map.insert(draw.word(), near(draw, &schema["additionalProperties"], depth + 1));
                }
            }
            if draw.one_in(8) {
                map.insert(draw.word(), draw.json(depth + 1));
            }
            map.into()
        }
        Some("array") => (0..draw.below(4)).map(|_| near(draw, &schema["items"], depth + 1)).collect(),
        Some("string") => draw.word().into(),
        Some("integer") => draw.integer().into(),
        Some("number") => json!(draw.integer() as f64 / 4.0),
        Some("boolean") => draw.one_in(2).into(),
        _ => draw.json(depth + 1),
    }
}
