//! What is said of schemas that cannot be accepted: the words are upstream's.

use serde_json::json;

use super::*;

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn root(schema: Value, expect: &[&str]) {
    assert_eq!(texts(&check(&schema, &Path::new("s"))), expect, "{schema}");
}

/// Checks a schema whose field `f` has this one. The `~` in what is expected stands for the path of that.
fn field(schema: Value, expect: &[&str]) {
    let expect: Vec<String> = expect.iter().map(|e| e.replace('~', "s.properties[f]")).collect();
    let schema = json!({"type": "object", "properties": {"f": schema}});
    assert_eq!(texts(&check(&schema, &Path::new("s"))), expect, "{schema}");
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn with(mut schema: Value, more: Value) -> Value {
    schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    schema
}

#[test]
fn what_is_fine_is_fine() {
    root(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), &[]);
    field(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}), &[]);
    field(
        json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"pattern": "a"}]}),
        &[],
    );
    root(
        object(json!({"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}}})),
        &[],
    );
    field(
        with(
            object(json!({"a": {"type": "string"}})),
            json!({"oneOf": [{"required": ["a"]}, {"properties": {"a": {"pattern": "b"}}}]}),
        ),
        &[],
    );
}

#[test]
fn everything_has_a_type() {
    root(json!({}), &["s.type: Required value: must not be empty at the root"]);
    root(
        json!({"type": "array", "items": {"type": "string"}}),
        &["s.type: Invalid value: \"array\": must be object at the root"],
    );
    field(json!({}), &["~.type: Required value: must not be empty for specified object fields"]);
    field(json!({"type": "array"}), &["~.items: Required value: must be specified"]);
    field(
        json!({"type": "array", "items": {}}),
        &["~.items.type: Required value: must not be empty for specified array items"],
    );
    field(
        json!({"type": "object", "additionalProperties": {}}),
        &["~.additionalProperties.type: Required value: must not be empty for specified object fields"],
    );
    field(
        json!({"type": "text"}),
        &[
            "~.type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \
           \"string\"",
        ],
    );
    field(
        json!({"type": "null"}),
        &[
            "~.type: Unsupported value: \"null\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \
             \"string\"",
            "~.type: Forbidden: type cannot be set to null, use nullable as an alternative",
        ],
    );
}

#[test]
fn alternatives_only_restrict() {
    let text = json!({"type": "string"});
    field(
        with(
            text.clone(),
            json!({"anyOf": [{"type": "string", "title": "t", "description": "d", "default": "x", "nullable": true}]}),
        ),
        &[
            "~.anyOf[0].default: Forbidden: must be undefined to be structural",
            "~.anyOf[0].description: Forbidden: must be empty to be structural",
            "~.anyOf[0].nullable: Forbidden: must be false to be structural",
            "~.anyOf[0].title: Forbidden: must be empty to be structural",
            "~.anyOf[0].type: Forbidden: must be empty to be structural",
        ],
    );
    field(
        with(
            object(json!({})),
            json!({"not": {"additionalProperties": true, "x-kubernetes-list-type": "atomic",
            "x-kubernetes-validations": [{"rule": "true"}]}}),
        ),
        &[
            "~.not.additionalProperties: Forbidden: must be undefined to be structural",
            "~.not.x-kubernetes-list-type: Forbidden: must be undefined to be structural",
            "~.not.x-kubernetes-validations: Forbidden: must be empty to be structural",
            "~.not.type: Required value: must be array if x-kubernetes-list-type is specified",
        ],
    );
    field(
        with(
            object(json!({"a": {"type": "string"}})),
            json!({"allOf": [
            {"properties": {"b": {"minLength": 1}, "metadata": {}}, "items": {"pattern": "x"}}]}),
        ),
        &["~.allOf[0].properties[metadata]: Forbidden: must not be specified in a nested context"],
    );
    // Only at the root it matters whether what is restricted is also specified.
    root(
        with(
            object(json!({"spec": object(json!({"a": {"type": "string"}}))})),
            json!({"allOf": [
            {"properties": {"spec": {"properties": {"a": {}, "b": {}}}, "x": {}}, "items": {"pattern": "y"}}]}),
        ),
        &[
            "s.items: Required value: because it is defined in s.allOf[0].items",
            "s.properties[spec].properties[b]: Required value: because it is defined in \
             s.allOf[0].properties[spec].properties[b]",
            "s.properties[x]: Required value: because it is defined in s.allOf[0].properties[x]",
        ],
    );
    field(
        with(text, json!({"oneOf": [{"pattern": "("}]})),
        &[
            "~.oneOf[0].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error parsing regexp: \
           missing closing ): `(`",
        ],
    );
}

#[test]
fn patterns_have_to_fit() {
    let large = r"\pL{1000}(\pL{10}){100}(\pL{10}){100}";
    let schema = json!({"type": "string", "pattern": large});
    let errors =
        check(&object(json!({"a": schema, "b": schema, "c": {"type": "string", "pattern": "a{2}"}})), &Path::new("s"));
    assert_eq!(errors.len(), 2);
    let text = errors[0].to_string();
    assert!(
        text.starts_with("s.properties[a].pattern: Invalid value: ") && text.contains("expression too large"),
        "{text}"
    );
}

#[test]
fn metadata_is_every_objects() {
    let only_names = "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but \
                      metadata is implicitly specified";
    root(object(json!({"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}})), &[only_names]);
    root(object(json!({"metadata": {"type": "object", "description": "x"}})), &[only_names]);
    root(
        object(json!({"metadata": {"type": "string"}, "kind": {"type": "integer"}, "apiVersion": {"type": "object"}})),
        &[
            "s.properties[apiVersion].type: Invalid value: \"object\": must be string",
            "s.properties[kind].type: Invalid value: \"integer\": must be string",
            "s.properties[metadata].type: Invalid value: \"string\": must be object",
        ],
    );
    root(
        json!({"type": "object", "additionalProperties": {"type": "string"}}),
        &["s.additionalProperties: Forbidden: must not be used at the root"],
    );
}

#[test]
fn embedded_objects_are_objects() {
    field(
        json!({"x-kubernetes-embedded-resource": true}),
        &[
            "~.properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without \
             x-kubernetes-preserve-unknown-fields",
            "~.type: Required value: must be object if x-kubernetes-embedded-resource is true",
        ],
    );
    field(
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
            "additionalProperties": {"type": "string"}}),
        &["~.additionalProperties: Forbidden: must not be used if x-kubernetes-embedded-resource is set"],
    );
    field(
        json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
        &[
            "~.x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
        ],
    );
    field(
        with(
            object(json!({"metadata": {"type": "object", "properties": {"x": {"type": "object",
                "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-embedded-resource": true}}}})),
            json!({"x-kubernetes-embedded-resource": true}),
        ),
        &[
            "~.properties[metadata].properties[x].x-kubernetes-embedded-resource: Forbidden: must not be used inside of \
           resource meta",
        ],
    );
}

#[test]
fn keywords_that_kubernetes_does_not_support() {
    field(
        json!({"type": "object", "id": "x", "$ref": "y", "definitions": {"a": {}}, "patternProperties": {"b": {}},
            "additionalItems": true, "dependencies": {}}),
        &[
            "~.id: Forbidden: id is not supported",
            "~.additionalItems: Forbidden: additionalItems is not supported",
            "~.patternProperties: Forbidden: patternProperties is not supported",
            "~.definitions: Forbidden: definitions is not supported",
            "~.dependencies: Forbidden: dependencies is not supported",
            "~.$ref: Forbidden: $ref is not supported",
        ],
    );
    field(
        json!({"type": "array", "items": [{"type": "string"}]}),
        &["~.items: Forbidden: items must be a schema object and not an array"],
    );
    field(
        json!({"type": "object", "$schema": "x"}),
        &["s: Invalid value: \"\": OpenAPIV3Schema 'schema' is not supported"],
    );
    field(
        json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
        &["~.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"],
    );
    field(
        with(object(json!({"a": {"type": "string"}})), json!({"additionalProperties": {"type": "string"}})),
        &["~.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
    );
    field(with(object(json!({"a": {"type": "string"}})), json!({"additionalProperties": true})), &[]);
    field(
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
        &["~.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"],
    );
    root(json!({"type": "object", "nullable": true}), &["s.nullable: Forbidden: nullable cannot be true at the root"]);
}

#[test]
fn kinds_of_lists_and_maps() {
    field(
        json!({"type": "string", "x-kubernetes-map-type": "atomic"}),
        &["~.type: Invalid value: \"string\": must be object if x-kubernetes-map-type is specified"],
    );
    field(
        json!({"type": "object", "x-kubernetes-map-type": "x"}),
        &["~.x-kubernetes-map-type: Unsupported value: \"x\": supported values: \"atomic\", \"granular\""],
    );
    field(
        json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "x"}),
        &["~.x-kubernetes-list-type: Unsupported value: \"x\": supported values: \"atomic\", \"set\", \"map\""],
    );
    field(
        json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}),
        &[
            "~.items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
        ],
    );
    field(
        json!({"type": "array", "items": {"type": "string", "nullable": true}, "x-kubernetes-list-type": "set"}),
        &["~.items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is set"],
    );
    let items = object(
        json!({"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "string"}}, "c": {"type": "string", "default": "x", "nullable": true}}),
    );
    let list = |more: Value| with(json!({"type": "array", "items": items}), more);
    field(
        list(json!({"x-kubernetes-list-map-keys": ["a"]})),
        &["~.x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty"],
    );
    field(
        list(json!({"x-kubernetes-list-type": "map"})),
        &["~.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"],
    );
    let must = "this property is in x-kubernetes-list-map-keys, so it";
    field(
        list(json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "c", "d", "a", "b"]})),
        &[
            "~.x-kubernetes-list-map-keys: Invalid value: [\"a\",\"c\",\"d\",\"a\",\"b\"]: entries must all be names of item properties",
            "~.x-kubernetes-list-map-keys: Invalid value: [\"a\",\"c\",\"d\",\"a\",\"b\"]: must not contain duplicate entries",
            "~.items.properties[b].type: Invalid value: \"object\": must be a scalar type if parent array's x-kubernetes-list-type is map",
            &format!(
                "~.items.properties[a].default: Required value: {must} must have a default or be a required property"
            ),
            &format!("~.items.properties[c].nullable: Forbidden: {must} cannot be nullable"),
            &format!(
                "~.items.properties[a].default: Required value: {must} must have a default or be a required property"
            ),
            &format!(
                "~.items.properties[b].default: Required value: {must} must have a default or be a required property"
            ),
        ],
    );
    field(
        json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"]}),
        &["~.items.type: Invalid value: \"string\": must be object if parent array's x-kubernetes-list-type is map"],
    );
}

#[test]
fn defaults_are_what_their_schema_says() {
    field(json!({"type": "string", "default": "a", "maxLength": 3}), &[]);
    field(json!({"type": "string", "default": null}), &[]);
    field(
        json!({"type": "string", "default": 1}),
        &["~.default: Invalid value: \"integer\":  in body must be of type string: \"integer\""],
    );
    field(
        json!({"type": "string", "default": "abc", "maxLength": 2}),
        &["~.default: Too long: may not be more than 2 bytes"],
    );
    field(
        with(object(json!({"a": {"type": "string"}})), json!({"default": {"a": 1, "b": 2}})),
        &[
            "~.default: Invalid value: {\"a\":1,\"b\":2}: must not have unknown fields",
            "~.default.a: Invalid value: \"integer\": a in body must be of type string: \"integer\"",
        ],
    );
    root(
        object(json!({"metadata": {"type": "object", "default": {}}, "kind": {"type": "string", "default": "x"}})),
        &[
            "s.properties[kind].default: Forbidden: must not be set in top-level kind",
            "s.properties[metadata].default: Forbidden: must not be set in top-level metadata",
        ],
    );
    let embedded = |name: Value| {
        with(
            object(json!({"metadata": {"type": "object", "properties": {"name": name}}})),
            json!({"x-kubernetes-embedded-resource": true}),
        )
    };
    field(embedded(json!({"type": "string", "default": "fine"})), &[]);
    field(
        embedded(json!({"type": "string", "default": "a/b"})),
        &["~.properties[metadata].properties[name].default: Invalid value: \"a/b\": must result in valid metadata: \
           metadata.name: Invalid value: \"a/b\": may not contain '/'"],
    );
    field(
        with(embedded(json!({"type": "string"})), json!({"default": {"kind": "A"}})),
        &["~.default.apiVersion: Required value"],
    );
    let labels = json!({"type": "object", "additionalProperties": {"type": "string", "default": "x"}});
    field(
        with(
            object(json!({"metadata": {"type": "object", "properties": {"labels": labels}}})),
            json!({"x-kubernetes-embedded-resource": true}),
        ),
        &["~.properties[metadata].properties[labels].additionalProperties.default: Forbidden: must not be set inside \
           additionalProperties applying to object metadata"],
    );
}

#[test]
fn rules_before_their_cel() {
    let rule =
        |rule: Value| with(object(json!({"a": {"type": "string"}})), json!({"x-kubernetes-validations": [rule]}));
    field(rule(json!({"rule": "true", "message": "m", "fieldPath": ".a", "reason": "FieldValueRequired"})), &[]);
    for (given, expect) in [
        (json!({"rule": " "}), "rule: Required value: rule is not specified"),
        (json!({"rule": "x", "message": " "}), "message: Invalid value: \" \": must be non-empty if specified"),
        (json!({"rule": "x", "message": "a\nb"}), "message: Invalid value: \"a\\nb\": must not contain line breaks"),
        (json!({"rule": "a\n&& b"}), "message: Required value: message must be specified if rule contains line breaks"),
        (
            json!({"rule": "x", "messageExpression": " "}),
            "messageExpression: Required value: messageExpression must be non-empty if specified",
        ),
        (
            json!({"rule": "x", "reason": "Nope"}),
            "reason: Unsupported value: \"Nope\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \
             \"FieldValueInvalid\", \"FieldValueRequired\"",
        ),
        (json!({"rule": "x", "fieldPath": ".b"}), "fieldPath: Invalid value: \".b\": must be a valid path"),
    ] {
        field(rule(given), &[&format!("~.x-kubernetes-validations[0].{expect}")]);
    }
}

#[test]
fn all_rules_are_visited() {
    let rules = json!([{"rule": "true"}]);
    let with_rules = |schema: Value| with(schema, json!({"x-kubernetes-validations": rules}));
    let text = with_rules(json!({"type": "string"}));
    let keyed = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": with_rules(object(json!({"k": text})))});
    let schema = with_rules(object(json!({
        "keyed": keyed,
        "list": with_rules(json!({"type": "array", "items": text})),
        "map": {"type": "object", "additionalProperties": text},
    })));
    let tree = compile::lenient(&schema);
    let mut found = Vec::new();
    visit_rules(&tree, &Path::new("s"), &mut |site| {
        assert_eq!(site.schema.rules.len(), 1);
        let path = site.path.to_string();
        let list = site.uncorrelatable.as_ref().map(ToString::to_string);
        found.push((path.trim_end_matches(".x-kubernetes-validations").to_owned(), list));
    });
    let list = Some("s.properties[list]".to_owned());
    assert_eq!(
        found,
        [
            ("s.properties[keyed].items.properties[k]".to_owned(), None),
            ("s.properties[keyed].items".to_owned(), None),
            ("s.properties[list].items".to_owned(), list),
            ("s.properties[list]".to_owned(), None),
            ("s.properties[map].additionalProperties".to_owned(), None),
            ("s".to_owned(), None),
        ]
    );
}

#[test]
fn the_root_beside_a_status() {
    let check = |schema: Value| check_status_root(&schema, &Path::new("s")).map(|e| e.to_string());
    assert_eq!(check(json!({"type": "object", "properties": {}, "required": ["a"], "nullable": false})), None);
    assert_eq!(
        check(json!({"type": "string"})).unwrap(),
        "s.type: Invalid value: \"string\": only \"object\" is allowed as the type at the root of the schema if the status \
         subresource is enabled"
    );
    let error = check(json!({"type": "object", "oneOf": [{"required": ["a"]}]})).unwrap();
    assert!(error.contains("only [Description Type Format Title Maximum"), "{error}");
}
