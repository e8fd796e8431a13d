//! What clients see of rules: when a definition is written, and when an object is.

use serde_json::{Value as Json, json};

use super::super::structural::{Kind, Limits, ListType, Rule, Structural};
use super::{check, compile, evaluate};
use crate::api::field::Path;

/// A schema, from as much of `openAPIV3Schema` as these tests write.
fn schema(json: &Json) -> Structural {
    let text = |json: &Json, key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| json[key].as_u64();
    let parts = |key: &str| json[key].as_object().cloned().unwrap_or_default();
    let rules = json["x-kubernetes-validations"].as_array().cloned().unwrap_or_default();
    let names = |key: &str| -> Vec<String> {
        json[key].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    Structural {
        kind: match json["type"].as_str() {
            Some("object") => Kind::Object,
            Some("array") => Kind::Array,
            Some("string") => Kind::String,
            Some("integer") => Kind::Integer,
            Some("boolean") => Kind::Boolean,
            _ => Kind::Any,
        },
        nullable: json["nullable"] == true,
        properties: parts("properties").iter().map(|(name, json)| (name.clone(), schema(json))).collect(),
        additional: json.get("additionalProperties").map(|json| Box::new(schema(json))),
        items: json.get("items").map(|json| Box::new(schema(json))),
        list: match json["x-kubernetes-list-type"].as_str() {
            Some("map") => ListType::Map(names("x-kubernetes-list-map-keys")),
            Some("set") => ListType::Set,
            _ => ListType::Atomic,
        },
        rules: rules
            .iter()
            .map(|rule| Rule {
                rule: text(rule, "rule"),
                message: text(rule, "message"),
                message_expression: text(rule, "messageExpression"),
                reason: text(rule, "reason"),
                field_path: text(rule, "fieldPath"),
                optional_old_self: rule["optionalOldSelf"] == true,
            })
            .collect(),
        limits: Some(Box::new(Limits {
            max_length: number("maxLength"),
            max_items: number("maxItems"),
            max_properties: number("maxProperties"),
            all_of: json["allOf"].as_array().into_iter().flatten().map(schema).collect(),
            ..Limits::default()
        })),
        ..Structural::default()
    }
}

/// The errors of a definition with that schema below `spec`.
#[track_caller]
fn defined(json: Json, expected: &[&str]) {
    let root = schema(&json!({"type": "object", "properties": {"spec": json}}));
    let (_, errors) = compile(&root, &Path::new("schema"));
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, expected);
}

/// The errors of an object whose `spec` has that schema.
#[track_caller]
fn written(json: &Json, new: Json, old: Option<Json>, expected: &[&str]) {
    let root = schema(&json!({"type": "object", "properties": {"spec": json}}));
    let (rules, errors) = compile(&root, &Path::new("schema"));
    assert_eq!(errors, []);
    let old = old.map(|old| json!({"spec": old}));
    let errors = evaluate(&rules, &json!({"spec": new}), old.as_ref());
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, expected, "{new} after {old:?}");
}

fn rules(rules: Json) -> Json {
    json!({
        "type": "object",
        "properties": {"n": {"type": "integer"}, "max": {"type": "integer"}, "s": {"type": "string", "maxLength": 10}},
        "x-kubernetes-validations": rules
    })
}

#[test]
fn definitions_that_do_not_compile() {
    let at = "schema.properties[spec].x-kubernetes-validations[0]";
    let value = |rule: &str, message: &str| {
        format!(
            "Invalid value: {}",
            json!({"Rule": rule, "Message": "", "MessageExpression": message, "Reason": null, "FieldPath": "", "OptionalOldSelf": null})
        )
    };
    defined(rules(json!([{"rule": "self.n <= self.max"}])), &[]);
    defined(
        rules(json!([{"rule": "self.x > 1"}])),
        &[&format!(
            "{at}.rule: {}: compilation failed: ERROR: <input>:1:5: undefined field 'x'\n | self.x > 1\n | ....^",
            value("self.x > 1", "")
        )],
    );
    defined(
        rules(json!([{"rule": "self.n"}])),
        &[&format!("{at}.rule: {}: cel expression must evaluate to a bool", value("self.n", ""))],
    );
    defined(
        rules(json!([{"rule": "true", "messageExpression": "self.n"}])),
        &[&format!("{at}.messageExpression: {}: messageExpression must evaluate to a string", value("true", "self.n"))],
    );
    defined(
        rules(json!([{"rule": "true", "messageExpression": "'a"}])),
        &[&format!(
            "{at}.messageExpression: {}: messageExpression compilation failed: ERROR: <input>:1:1: Syntax error: token recognition error at: ''a'\n | 'a\n | ^\nERROR: <input>:1:3: Syntax error: mismatched input '<EOF>' expecting {{'[', '{{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}}\n | 'a\n | ..^",
            value("true", "'a")
        )],
    );
    defined(
        rules(json!([{"rule": "true", "optionalOldSelf": true}])),
        &[&format!("{at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule")],
    );
    let untyped = json!({"x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-validations": [{"rule": "true"}]});
    defined(
        untyped,
        &[
            "schema.properties[spec].x-kubernetes-validations: Internal error: internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations",
        ],
    );
}

#[test]
fn rules_that_are_not_well_formed() {
    let at = "schema.properties[spec].x-kubernetes-validations[0]";
    for (rule, error) in [
        (json!({"rule": " "}), "rule: Required value: rule is not specified"),
        (
            json!({"rule": "true", "message": " "}),
            "message: Invalid value: \" \": message must be non-empty if specified",
        ),
        (
            json!({"rule": "true", "message": "a\nb"}),
            "message: Invalid value: \"a\\nb\": message must not contain line breaks",
        ),
        (
            json!({"rule": "true &&\ntrue"}),
            "message: Required value: message must be specified if rule contains line breaks",
        ),
        (
            json!({"rule": "true", "messageExpression": " "}),
            "messageExpression: Required value: messageExpression must be non-empty if specified",
        ),
        (
            json!({"rule": "true", "reason": "Bad"}),
            "reason: Unsupported value: \"Bad\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
        ),
        (
            json!({"rule": "true", "fieldPath": ".x"}),
            "fieldPath: Invalid value: \".x\": fieldPath must be a valid path",
        ),
        (json!({"rule": "true", "fieldPath": "n"}), "fieldPath: Invalid value: \"n\": fieldPath must be a valid path"),
    ] {
        defined(rules(json!([rule])), &[&format!("{at}.{error}")]);
    }
}

#[test]
fn old_values_must_be_correlatable() {
    let list = |kind: &str| {
        json!({
            "type": "array", "maxItems": 10, "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string", "maxLength": 5}, "v": {"type": "integer",
                "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}
        })
    };
    defined(list("map"), &[]);
    let message = "schema.properties[spec].items.properties[v].x-kubernetes-validations[0].rule: Invalid value: \"self >= oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[spec]";
    defined(list("set"), &[message]);
    defined(list("atomic"), &[message]);
}

#[test]
fn rules_that_cost_too_much() {
    let list = |max: Json| {
        json!({
            "type": "array", "maxItems": max, "items": {"type": "string", "maxLength": 100},
            "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a == b || true))"}]
        })
    };
    let rule = "schema.properties[spec].x-kubernetes-validations[0].rule: Forbidden";
    let total = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
    let hint = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    defined(list(json!(100)), &[]);
    defined(list(json!(500)), &[&format!("{rule}: estimated rule cost exceeds budget by factor of 1.125250x {hint}")]);
    defined(
        list(json!(null)),
        &[
            &format!("{rule}: estimated rule cost exceeds budget by factor of more than 100x {hint}"),
            &format!("{rule}: {total}"),
            &format!(
                "schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x {hint}"
            ),
        ],
    );
    // A cheap rule on something that there can be too much of.
    let many = json!({
        "type": "array",
        "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self.contains('aaaaaaaaaaaaaaaaaaaa')"}]}
    });
    let (_, errors) = compile(&schema(&json!({"type": "object", "properties": {"spec": many}})), &Path::new("schema"));
    assert_eq!(errors.len(), 3);
}

#[test]
fn rules_hold_or_are_told() {
    let plain = rules(json!([{"rule": "self.n <= self.max"}]));
    written(&plain, json!({"n": 1, "max": 2}), None, &[]);
    written(
        &plain,
        json!({"n": 3, "max": 2}),
        None,
        &["spec: Invalid value: \"object\": failed rule: self.n <= self.max"],
    );
    written(
        &plain,
        json!({"n": 3}),
        None,
        &["spec: Invalid value: \"object\": no such key: max evaluating rule: self.n <= self.max"],
    );
    for (rule, error) in [
        (json!({"rule": "self.n < 1", "message": " too many "}), "spec: Invalid value: \"object\": too many"),
        (
            json!({"rule": "self.n < 1", "messageExpression": "'n is %d'.format([self.n])"}),
            "spec: Invalid value: \"object\": n is 3",
        ),
        (
            json!({"rule": "self.n < 1", "message": "m", "messageExpression": "self.s"}),
            "spec: Invalid value: \"object\": m",
        ),
        (
            json!({"rule": "self.n < 1", "messageExpression": "' '"}),
            "spec: Invalid value: \"object\": failed rule: self.n < 1",
        ),
        (
            json!({"rule": "self.n < 1", "messageExpression": "'a\\nb'"}),
            "spec: Invalid value: \"object\": failed rule: self.n < 1",
        ),
        (json!({"rule": "self.n < 1", "reason": "FieldValueForbidden"}), "spec: Forbidden: failed rule: self.n < 1"),
        (
            json!({"rule": "self.n < 1", "reason": "FieldValueRequired"}),
            "spec: Required value: failed rule: self.n < 1",
        ),
        (json!({"rule": "self.n < 1", "reason": "FieldValueDuplicate"}), "spec: Duplicate value: \"object\""),
        (
            json!({"rule": "self.n < 1", "fieldPath": ".n"}),
            "spec.n: Invalid value: \"object\": failed rule: self.n < 1",
        ),
        (
            json!({"rule": "dyn(self.n) + 'a' == 'b'"}),
            "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: dyn(self.n) + 'a' == 'b'",
        ),
        (
            json!({"rule": "self.n / (self.n - 3) == 1", "message": "m"}),
            "spec: Invalid value: \"object\": division by zero evaluating rule: m",
        ),
    ] {
        written(&rules(json!([rule])), json!({"n": 3}), None, &[error]);
    }
}

#[test]
fn the_root_has_no_path() {
    let json = json!({
        "type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        "x-kubernetes-validations": [
            {"rule": "self.metadata.name.startsWith('a')"}, {"rule": "false", "fieldPath": ".spec.n", "message": "never"}
        ]
    });
    let (rules, errors) = compile(&schema(&json), &Path::new("schema"));
    assert_eq!(errors, []);
    let errors = evaluate(&rules, &json!({"metadata": {"name": "b"}, "spec": {"n": 1}}), None);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "<nil>: Invalid value: \"object\": failed rule: self.metadata.name.startsWith('a')",
            "spec.n: Invalid value: \"object\": never",
        ]
    );
    assert!(compile(&schema(&json!({"type": "object"})), &Path::new("schema")).0.is_empty());
}

#[test]
fn every_part_of_an_object_is_walked() {
    let value = |rule: &str| json!({"type": "integer", "x-kubernetes-validations": [{"rule": rule}]});
    let json = json!({"type": "object", "properties": {
        "list": {"type": "array", "maxItems": 5, "items": value("self > 0")},
        "map": {"type": "object", "maxProperties": 5, "additionalProperties": value("self > 1")},
        "a b": value("self > 2"),
        "null": {"type": "integer", "nullable": true, "x-kubernetes-validations": [{"rule": "self > 3"}]},
        "nested": {"type": "object", "properties": {"x": {"type": "integer"}},
            "allOf": [{"x-kubernetes-validations": [{"rule": "self.x > 4"}], "properties": {"x": {"x-kubernetes-validations": [{"rule": "self > 5"}]}}}]}
    }});
    written(
        &json,
        json!({"list": [1, 0], "map": {"k": 1}, "a b": 2, "null": null, "nested": {"x": 4}}),
        None,
        &[
            "spec.a b: Invalid value: \"integer\": failed rule: self > 2",
            "spec.list[1]: Invalid value: \"integer\": failed rule: self > 0",
            "spec.map[k]: Invalid value: \"integer\": failed rule: self > 1",
            "spec.nested: Invalid value: \"object\": failed rule: self.x > 4",
            "spec.nested.x: Invalid value: \"integer\": failed rule: self > 5",
        ],
    );
}

#[test]
fn transitions_need_an_old_value() {
    let same = rules(json!([{"rule": "self.n >= oldSelf.n"}]));
    written(&same, json!({"n": 1}), None, &[]);
    written(&same, json!({"n": 2}), Some(json!({"n": 1})), &[]);
    written(
        &same,
        json!({"n": 1}),
        Some(json!({"n": 2})),
        &["spec: Invalid value: \"object\": failed rule: self.n >= oldSelf.n"],
    );
    written(&same, json!({"n": 1}), Some(Json::Null), &[]);
    let optional = rules(json!([{"rule": "oldSelf.hasValue() || self.n == 0", "optionalOldSelf": true}]));
    written(&optional, json!({"n": 0}), None, &[]);
    written(
        &optional,
        json!({"n": 1}),
        None,
        &["spec: Invalid value: \"object\": failed rule: oldSelf.hasValue() || self.n == 0"],
    );
    written(&optional, json!({"n": 1}), Some(json!({"n": 5})), &[]);
    // Items of a list of type map are found by their keys, wherever they are.
    let list = json!({
        "type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "string", "maxLength": 5}, "v": {"type": "integer",
            "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}
    });
    let old = json!([{"k": "a", "v": 5}, {"k": "b", "v": 1}]);
    written(
        &list,
        json!([{"k": "b", "v": 2}, {"k": "c", "v": 0}, {"k": "a", "v": 4}]),
        Some(old),
        &["spec[2].v: Invalid value: \"integer\": failed rule: self >= oldSelf"],
    );
}

#[test]
fn what_has_not_changed_is_only_a_warning() {
    let json = json!({"type": "object", "properties": {
        "a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]},
        "b": {"type": "integer"},
        "l": {"type": "array", "maxItems": 5, "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}}
    }, "x-kubernetes-validations": [{"rule": "self.b > 0"}]});
    let bad = json!({"a": 0, "b": 1, "l": [0]});
    written(&json, json!({"a": 0, "b": 2, "l": [0]}), Some(bad.clone()), &[]);
    written(
        &json,
        json!({"a": -1, "b": 1, "l": [0]}),
        Some(bad.clone()),
        &["spec.a: Invalid value: \"integer\": failed rule: self > 0"],
    );
    // Items that cannot be told apart have changed if their list has.
    written(
        &json,
        json!({"a": 0, "b": 1, "l": [0, 1]}),
        Some(bad.clone()),
        &["spec.l[0]: Invalid value: \"integer\": failed rule: self > 0"],
    );
    written(
        &json,
        json!({"a": 0, "b": 0, "l": [0]}),
        Some(bad.clone()),
        &["spec: Invalid value: \"object\": failed rule: self.b > 0"],
    );
    let root = schema(&json!({"type": "object", "properties": {"spec": json}}));
    let object = json!({"spec": bad});
    let verdict = check(&compile(&root, &Path::new("schema")).0, &object, Some(&object));
    assert_eq!(verdict.errors, []);
    let warnings: Vec<String> = verdict.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "spec.a: Invalid value: \"integer\": failed rule: self > 0",
            "spec.l[0]: Invalid value: \"integer\": failed rule: self > 0",
        ]
    );
}

#[test]
fn the_budget_ends_it() {
    // What is stored may be dearer than what may be written, so errors of the definition do not count here.
    let evaluated = |json: Json, new: Json| -> Vec<String> {
        let (rules, _) =
            compile(&schema(&json!({"type": "object", "properties": {"spec": json}})), &Path::new("schema"));
        evaluate(&rules, &json!({"spec": new}), None).iter().map(ToString::to_string).collect()
    };
    let list: Vec<i64> = (0..600).collect();
    let all = "self.all(a, self.all(b, a + b >= 0))";
    let dear = json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [{"rule": all}, {"rule": "false"}]});
    assert_eq!(
        evaluated(dear, json!(list)),
        [format!(
            "spec: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {all}"
        )]
    );
    let list: Vec<i64> = (0..300).collect();
    let rules: Vec<Json> = (0..30).map(|_| json!({"rule": all})).collect();
    let many = json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": rules});
    assert_eq!(
        evaluated(many, json!(list)),
        [
            "spec: Invalid value: \"array\": validation failed due to running out of cost budget, no further validation rules will be run"
        ]
    );
    let message = json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [
        {"rule": "false", "messageExpression": "self.all(a, self.all(b, self.all(c, true))) ? 'a' : 'b'"}
    ]});
    assert_eq!(
        evaluated(message, json!(list)),
        [
            "spec: Invalid value: \"array\": no further validation rules will be run due to call cost exceeds limit for messageExpression: \"self.all(a, self.all(b, self.all(c, true))) ? 'a' : 'b'\""
        ]
    );
}

/// Each item looks for its old one, and each that fails asks whether the list has changed.
#[test]
fn long_lists_take_no_time_for_each_pair_of_their_items() {
    let item = json!({"type": "object", "properties": {"k": {"type": "integer"}, "v": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.v <= oldSelf.v", "message": "may not grow"}]});
    let keyed = json!({"type": "array", "maxItems": 40_000, "items": item,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]});
    let list = |v: i64| (0..40_000).map(|k| json!({"k": k, "v": v})).collect::<Vec<_>>();
    let reversed: Vec<Json> = list(1).into_iter().rev().collect();
    written(&keyed, reversed.into(), Some(list(1).into()), &[]);
    let mut grown = list(1);
    grown[3]["v"] = 2.into();
    written(&keyed, grown.into(), Some(list(1).into()), &["spec[3]: Invalid value: \"object\": may not grow"]);

    let mut item = item;
    item["x-kubernetes-validations"] = json!([{"rule": "self.v < 1"}]);
    let plain = json!({"type": "array", "maxItems": 40_000, "items": item});
    written(&plain, list(1).into(), Some(list(1).into()), &[]);
    let root = schema(&plain);
    let (rules, _) = compile(&root, &Path::new("schema"));
    assert_eq!(evaluate(&rules, &list(1).into(), None).len(), super::super::validate::MAX_ERRORS);
}

#[test]
fn paths_of_fields() {
    let of = schema(&json!({"type": "object", "properties": {
        "a": {"type": "object", "properties": {"b.c": {"type": "integer"}, "it's": {"type": "integer"}}},
        "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "integer"}}}},
        "l": {"type": "array", "items": {"type": "integer"}}
    }}));
    for (path, shown) in [
        ("", Some("")),
        (".a", Some("a")),
        (".a['b.c']", Some("a.b.c")),
        ("['a']['it\\'s']", Some("a.it's")),
        (".m.k.x", Some("m[k].x")),
        (".m['k'].x", Some("m[k].x")),
        (".x", None),
        ("a", None),
        (".a.", None),
        (".a[0]", None),
        (".l[0]", None),
        (".a['b.c'", None),
        (".a['\\q']", None),
    ] {
        assert_eq!(super::field_path::resolve(path, &of).as_deref(), shown, "{path}");
    }
}
