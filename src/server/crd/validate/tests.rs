//! What clients are told of objects that do not fit their schema: the words are upstream's.

use serde_json::json;

use super::*;
use crate::server::crd::compile::compile;

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Validates `{"f": value}` where `f` has the schema.
fn check(schema: Value, value: Value, expect: &[&str]) {
    let schema = compile(&json!({"type": "object", "properties": {"f": schema}})).unwrap();
    assert_eq!(texts(&validate(&json!({"f": value}), None, &schema)), expect);
}

fn update(schema: Value, old: Value, new: Value, expect: &[&str]) {
    let schema = compile(&schema).unwrap();
    assert_eq!(texts(&validate(&new, Some(&old), &schema)), expect, "{old} → {new}");
}

#[test]
fn types() {
    let int = json!({"type": "integer"});
    check(int.clone(), json!(1), &[]);
    check(int.clone(), json!(1.0), &[]);
    check(int.clone(), json!("1"), &["f: Invalid value: \"string\": f in body must be of type integer: \"string\""]);
    check(
        int.clone(),
        json!(1.5),
        &[
            "f: Invalid value: \"number\": f in body must be of type integer: \"number\"",
            "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in f",
        ],
    );
    check(int, json!(null), &["f: Invalid value: \"null\": f in body must be of type integer: \"null\""]);
    check(json!({"type": "integer", "nullable": true}), json!(null), &[]);
    check(json!({"type": "number"}), json!(1), &[]);
    check(
        json!({"type": "boolean"}),
        json!({}),
        &["f: Invalid value: \"object\": f in body must be of type boolean: \"object\""],
    );
    check(
        json!({"type": "string"}),
        json!([]),
        &["f: Invalid value: \"array\": f in body must be of type string: \"array\""],
    );
    let port = json!({"x-kubernetes-int-or-string": true});
    check(port.clone(), json!(1), &[]);
    check(port.clone(), json!("a"), &[]);
    check(port, json!(true), &["f: Invalid value: \"boolean\": f in body must be of type integer,string: \"boolean\""]);
    check(json!({"x-kubernetes-preserve-unknown-fields": true}), json!([1, {"a": null}]), &[]);
}

#[test]
fn int_or_string_by_alternatives() {
    let schema = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
    check(schema.clone(), json!(1), &[]);
    check(schema.clone(), json!("a"), &[]);
    check(
        schema,
        json!(true),
        &[
            "f: Invalid value: \"boolean\": f in body must be of type integer,string: \"boolean\"",
            "<nil>: Invalid value: \"\": \"f\" must validate at least one schema (anyOf)",
            "f: Invalid value: \"boolean\": f in body must be of type integer: \"boolean\"",
        ],
    );
}

#[test]
fn text() {
    let schema = json!({"type": "string", "maxLength": 3, "minLength": 2, "pattern": "^[a-z]+$"});
    check(schema.clone(), json!("abc"), &[]);
    check(schema.clone(), json!("abcd"), &["f: Too long: may not be more than 3 bytes"]);
    check(schema.clone(), json!("a"), &["f: Invalid value: \"a\": f in body should be at least 2 chars long"]);
    check(schema, json!("A1"), &["f: Invalid value: \"A1\": f in body should match '^[a-z]+$'"]);
    check(json!({"type": "string", "maxLength": 2}), json!("éé"), &[]);
    check(json!({"type": "string", "maxLength": 1}), json!("éé"), &["f: Too long: may not be more than 1 byte"]);
}

#[test]
fn formats() {
    let date = json!({"type": "string", "format": "date-time"});
    check(date.clone(), json!("2024-01-02T03:04:05Z"), &[]);
    check(date.clone(), json!("x"), &["f: Invalid value: \"x\": f in body must be of type date-time: \"x\""]);
    check(date, json!(1), &["f: Invalid value: \"int64\": f in body must be of type date-time: \"int64\""]);
    check(json!({"type": "string", "format": "no-such"}), json!("x"), &[]);
    let int32 = json!({"type": "integer", "format": "int32"});
    check(int32.clone(), json!(2_147_483_647), &[]);
    let too_large = "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in f";
    check(int32, json!(2_147_483_648_i64), &[too_large]);
    check(
        json!({"type": "integer", "format": "int64"}),
        json!(1e19),
        &[
            "f: Invalid value: \"float64\": f in body must be of type int64: \"float64\"",
            "<nil>: Invalid value: \"\": Checked value must be of type integer with format int64 in f",
        ],
    );
    check(
        json!({"type": "number", "format": "float"}),
        json!(1e39),
        &["<nil>: Invalid value: \"\": Checked value must be of type number with format float in f"],
    );
}

#[test]
fn numbers() {
    let schema = json!({"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 2});
    check(schema.clone(), json!(4), &[]);
    check(
        schema,
        json!(-1),
        &[
            "f: Invalid value: -1: f in body should be a multiple of 2",
            "f: Invalid value: -1: f in body should be greater than or equal to 1",
        ],
    );
    check(
        json!({"type": "integer", "maximum": 10, "exclusiveMaximum": true}),
        json!(10),
        &["f: Invalid value: 10: f in body should be less than 10"],
    );
    check(
        json!({"type": "number", "minimum": 0.5, "exclusiveMinimum": true, "maximum": 2.5}),
        json!(0.5),
        &["f: Invalid value: 0.5: f in body should be greater than 0.5"],
    );
    check(json!({"type": "number", "multipleOf": 0.1}), json!(0.3), &[]);
    check(
        json!({"type": "number", "multipleOf": 0.5}),
        json!(0.7),
        &["f: Invalid value: 0.7: f in body should be a multiple of 0.5"],
    );
}

#[test]
fn values_that_are_allowed() {
    let schema = json!({"type": "string", "enum": ["a", "b"], "nullable": true});
    check(schema.clone(), json!("a"), &[]);
    check(schema.clone(), json!("c"), &["f: Unsupported value: \"c\": supported values: \"a\", \"b\""]);
    check(schema, json!(null), &["f: Unsupported value: null: supported values: \"a\", \"b\""]);
    check(json!({"type": "number", "enum": [1, 2.5]}), json!(1.0), &[]);
    check(
        json!({"type": "integer", "enum": [1, 2]}),
        json!(3),
        &["f: Unsupported value: 3: supported values: \"1\", \"2\""],
    );
}

#[test]
fn lists_and_objects() {
    let schema = json!({"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string", "minLength": 1}});
    check(schema.clone(), json!([]), &["f: Invalid value: 0: f in body should have at least 1 items"]);
    check(
        schema,
        json!(["a", "", "c"]),
        &[
            "f[1]: Invalid value: \"\": f[1] in body should be at least 1 chars long",
            "f: Too many: 3: must have at most 2 items",
        ],
    );
    let map =
        json!({"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": "integer"}});
    check(map.clone(), json!({}), &["f: Invalid value: 0: f in body should have at least 1 properties"]);
    check(
        map,
        json!({"a": 1, "b": "x"}),
        &[
            "f: Too many: 2: must have at most 1 item",
            "f.b: Invalid value: \"string\": f.b in body must be of type integer: \"string\"",
        ],
    );
    let object = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["b", "a"]});
    check(object, json!({}), &["f.b: Required value", "f.a: Required value"]);
    check(
        json!({"type": "object", "additionalProperties": false}),
        json!({"x": 1}),
        &["f: Invalid value: \"x\": f.x in body is a forbidden property"],
    );
    check(json!({"type": "object", "additionalProperties": true}), json!({"x": {"y": 1}, "z": null}), &[]);
}

#[test]
fn alternatives() {
    let object = |more: Value| {
        let mut schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}});
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        schema
    };
    let one = object(json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}));
    check(one.clone(), json!({"a": 1}), &[]);
    check(
        one.clone(),
        json!({}),
        &[
            "<nil>: Invalid value: \"\": \"f\" must validate one and only one schema (oneOf). Found none valid",
            "f.a: Required value",
        ],
    );
    check(
        one,
        json!({"a": 1, "b": 2}),
        &[
            "<nil>: Invalid value: \"\": \"f\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ],
    );
    let all = object(json!({"allOf": [{"required": ["a"]}, {"properties": {"b": {"minimum": 5}}}]}));
    check(
        all.clone(),
        json!({"b": 1}),
        &[
            "f.a: Required value",
            "f.b: Invalid value: 1: f.b in body should be greater than or equal to 5",
            "<nil>: Invalid value: \"\": \"f\" must validate all the schemas (allOf). None validated",
        ],
    );
    check(
        all,
        json!({"b": 7}),
        &["f.a: Required value", "<nil>: Invalid value: \"\": \"f\" must validate all the schemas (allOf)"],
    );
    check(
        object(json!({"not": {"required": ["a"]}})),
        json!({"a": 1}),
        &["<nil>: Invalid value: \"\": \"f\" must not validate the schema (not)"],
    );
    // The alternative with the most checks that passed is the one that is shown.
    let any = object(json!({"anyOf": [
        {"properties": {"a": {"minimum": 5}, "b": {"minimum": 5}}},
        {"properties": {"a": {"maximum": 5}, "b": {"minimum": 6}}},
    ]}));
    check(
        any,
        json!({"a": 1, "b": 1}),
        &[
            "<nil>: Invalid value: \"\": \"f\" must validate at least one schema (anyOf)",
            "f.a: Invalid value: 1: f.a in body should be greater than or equal to 5",
            "f.b: Invalid value: 1: f.b in body should be greater than or equal to 5",
        ],
    );
}

#[test]
fn duplicates() {
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    check(set.clone(), json!(["a", "b"]), &[]);
    check(set, json!(["a", "b", "a", "a"]), &["f[2]: Duplicate value: \"a\""]);
    let map = |keys: Value| {
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys,
            "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}})
    };
    check(map(json!(["a"])), json!([{"a": "x"}, {"a": "y"}]), &[]);
    check(map(json!(["a"])), json!([{"a": "x"}, {"a": "x", "b": 1}]), &["f[1]: Duplicate value: {\"a\":\"x\"}"]);
    check(map(json!(["a"])), json!([{}, {"b": 1}]), &["f[1]: Duplicate value: {}"]);
    check(map(json!(["a", "b"])), json!([{"a": "x", "b": 1}, {"a": "x", "b": 2}]), &[]);
    check(
        map(json!(["a", "b"])),
        json!([{"a": "x", "b": 1}, {"b": 1, "a": "x"}]),
        &["f[1]: Duplicate value: {\"a\":\"x\",\"b\":1}"],
    );
    check(
        map(json!(["a"])),
        json!([1]),
        &[
            "f[0]: Invalid value: \"integer\": f[0] in body must be of type object: \"integer\"",
            "f[0]: Invalid value: 1: must be an object for an array of list-type map",
        ],
    );
}

#[test]
fn what_did_not_change_is_no_error() {
    let text = json!({"type": "string", "maxLength": 2});
    let schema = json!({"type": "object", "properties": {
        "a": text, "b": text,
        "o": {"type": "object", "required": ["x"], "properties": {"x": text, "y": text}},
        "atomic": {"type": "array", "items": text},
        "named": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": text}}},
        "map": {"type": "object", "additionalProperties": text},
    }});
    let long = |field: &str| format!("{field}: Too long: may not be more than 2 bytes");
    update(schema.clone(), json!({"a": "long"}), json!({"a": "long", "b": "ok"}), &[]);
    update(schema.clone(), json!({"a": "long"}), json!({"a": "longer"}), &[&long("a")]);
    update(schema.clone(), json!({"a": "long"}), json!({"a": "long", "b": "long"}), &[&long("b")]);
    // What is missing belongs to the object that changed.
    update(schema.clone(), json!({"o": {"y": "1"}}), json!({"o": {"y": "1"}, "a": "1"}), &[]);
    update(schema.clone(), json!({"o": {"y": "1"}}), json!({"o": {"y": "2"}}), &["o.x: Required value"]);
    // Lists that are not maps are compared as a whole.
    update(schema.clone(), json!({"atomic": ["long"]}), json!({"atomic": ["long"], "a": "1"}), &[]);
    update(schema.clone(), json!({"atomic": ["long"]}), json!({"atomic": ["long", "a"]}), &[&long("atomic[0]")]);
    // Items of lists that are maps are found by their key.
    let old = json!({"named": [{"k": "1", "v": "long"}, {"k": "2", "v": "a"}]});
    update(schema.clone(), old.clone(), json!({"named": [{"k": "2", "v": "b"}, {"k": "1", "v": "long"}]}), &[]);
    update(schema.clone(), old, json!({"named": [{"k": "3", "v": "long"}]}), &[&long("named[0].v")]);
    update(schema.clone(), json!({"map": {"x": "long"}}), json!({"map": {"x": "long", "y": "a"}}), &[]);
    update(schema, json!({"map": {"x": "long"}}), json!({"map": {"y": "long"}}), &[&long("map.y")]);
}

#[test]
fn the_version_and_kind_of_the_old_object_say_nothing() {
    let schema = json!({"type": "object", "properties": {
        "kind": {"type": "string", "enum": ["A"]}, "o": {"type": "object", "properties": {"kind": {"type": "string", "enum": ["A"]}}}}});
    let old = json!({"kind": "B", "o": {"kind": "B"}});
    let new = json!({"kind": "B", "o": {"kind": "B"}, "x": 1});
    update(schema, old, new, &["kind: Unsupported value: \"B\": supported values: \"A\""]);
}

#[test]
fn alternatives_are_about_the_new_object_only() {
    // What is inside of an alternative is not compared; the value that has the alternatives is.
    let schema = json!({"type": "object", "properties": {"o": {"type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "anyOf": [{"properties": {"a": {"maxLength": 1}}}]}}});
    update(schema.clone(), json!({"o": {"a": "long"}}), json!({"o": {"a": "long"}, "x": 1}), &[]);
    update(
        schema,
        json!({"o": {"a": "long"}}),
        json!({"o": {"a": "long", "b": ""}}),
        &[
            "<nil>: Invalid value: \"\": \"o\" must validate at least one schema (anyOf)",
            "o.a: Too long: may not be more than 1 byte",
        ],
    );
}

#[test]
fn duplicates_that_were_there_may_stay() {
    let schema = json!({"type": "object", "properties":
        {"s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}}}});
    update(schema.clone(), json!({"s": [1, 1]}), json!({"s": [2, 2]}), &[]);
    update(schema, json!({"s": [1, 2]}), json!({"s": [2, 2]}), &["s[1]: Duplicate value: 2"]);
}

#[test]
fn unknown_fields_count_as_changed() {
    let schema = json!({"type": "object", "properties": {"o": {"type": "object", "maxProperties": 1,
        "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}}});
    update(schema.clone(), json!({"o": {"a": "", "b": ""}}), json!({"o": {"a": "", "b": ""}}), &[]);
    let known = json!({"o": {"a": "", "x": ""}});
    update(schema, known.clone(), known, &["o: Too many: 2: must have at most 1 item"]);
}

#[test]
fn the_status_is_checked_from_its_own_root() {
    let schema =
        compile(&json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["m"]})).unwrap();
    let errors = keywords(Some(&Path::new("status")), &json!({"n": "x"}), None, &schema);
    assert_eq!(
        texts(&errors),
        [
            "status.n: Invalid value: \"string\": n in body must be of type integer: \"string\"",
            "status.m: Required value"
        ]
    );
    let errors = keywords(Some(&Path::new("status")), &json!([]), None, &schema);
    assert_eq!(texts(&errors), ["status: Invalid value: \"array\":  in body must be of type object: \"array\""]);
}

#[test]
fn the_same_is_said_once() {
    check(
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "allOf": [{"required": ["a"]}]}),
        json!({}),
        &[
            "f.a: Required value",
            "<nil>: Invalid value: \"\": \"f\" must validate all the schemas (allOf). None validated",
        ],
    );
}

#[test]
fn what_is_told_is_limited() {
    let list: Vec<u32> = (0..200_000).map(|i| i / 2).collect();
    let of = |schema: Value| {
        let schema = compile(&json!({"type": "object", "properties": {"f": schema}})).unwrap();
        validate(&json!({"f": list}), None, &schema).len()
    };
    let items = json!({"type": "integer"});
    assert_eq!(of(json!({"type": "array", "x-kubernetes-list-type": "set", "items": items})), MAX_ERRORS);
    assert_eq!(of(json!({"type": "array", "items": {"type": "string"}})), MAX_ERRORS);
}

/// A schema and an object of about 4 KiB that is valid, with what definitions commonly have.
fn common() -> (Structural, Value) {
    let name = json!({"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"});
    let port = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
    let rule = json!({"type": "object", "required": ["name"], "properties": {
        "name": name, "port": port, "weight": {"type": "integer", "minimum": 0, "maximum": 100, "default": 1},
        "protocol": {"type": "string", "enum": ["TCP", "UDP"], "default": "TCP"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "after": {"type": "string", "format": "date-time", "nullable": true},
    }});
    let schema = json!({"type": "object", "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
        "spec": {"type": "object", "properties": {"rules": {"type": "array", "maxItems": 64, "items": rule,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}}},
    }});
    let rule = |i: usize| {
        json!({"name": format!("rule-{i}"), "port": "http", "after": "2024-01-02T03:04:05Z",
            "labels": {"app.kubernetes.io/name": "something", "app.kubernetes.io/part-of": "else"}})
    };
    let object = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"},
        "spec": {"rules": (0..24).map(rule).collect::<Vec<_>>()}});
    (compile(&schema).unwrap(), object)
}

#[test]
fn a_common_object_is_valid() {
    let (schema, mut object) = common();
    assert_eq!(crate::server::crd::prune::prune(&mut object, &schema, true), [""; 0]);
    crate::server::crd::default::prune_nulls(&mut object, &schema);
    crate::server::crd::default::default(&mut object, &schema);
    assert_eq!(object["spec"]["rules"][3]["protocol"], "TCP");
    assert_eq!(validate(&object, Some(&object), &schema), []);
}

/// Prints a duration; nothing can fail. Run with `--ignored --nocapture`.
#[test]
#[ignore = "a benchmark that prints"]
fn bench_common_object() {
    const TIMES: u32 = 2000;
    let (schema, object) = common();
    println!("{} bytes", object.to_string().len());
    let mut objects: Vec<Value> = (0..TIMES).map(|_| object.clone()).collect();
    let mut began = crate::clock::instant();
    let mut lap = |what: &str| {
        println!("{what}: {:?}", began.elapsed() / TIMES);
        began = crate::clock::instant();
    };
    objects.iter_mut().for_each(|o| drop(crate::server::crd::prune::prune(o, &schema, true)));
    lap("prune");
    objects.iter_mut().for_each(|o| crate::server::crd::default::prune_nulls(o, &schema));
    lap("nulls");
    objects.iter_mut().for_each(|o| crate::server::crd::default::default(o, &schema));
    lap("default");
    objects.iter().for_each(|o| drop(keywords(None, o, None, &schema)));
    lap("keywords");
    objects.iter().for_each(|o| drop(lists(o, None, &schema)));
    lap("lists");
}
