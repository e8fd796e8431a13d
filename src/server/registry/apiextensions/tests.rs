//! Tables: CustomResourceDefinition.

use serde_json::{Value, json};

use super::custom_resource_definition::{CLEANUP, CustomResourceDefinitionKind};
use crate::api::user::User;
use crate::server::registry::core::persistent_volume::tests::{made, updated};
use crate::server::registry::request::{Context, DeleteOptions};
use crate::server::registry::strategy::{Part, Removal, Strategy, Typed};

/// A definition that nothing is wrong with.
fn definition() -> Value {
    json!({"metadata": {"name": "crons.stable.example.com"}, "spec": {
        "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "crons", "kind": "Cron"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": {
                "host": {"type": "string"}, "count": {"type": "integer"}, "weight": {"type": "number"}}}}}}}]}})
}

/// Changes of a valid definition, and what is wrong with the result. Null removes a field.
fn check(changes: &[(&str, Value)], expect: &[&str]) -> Value {
    let mut object = definition();
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}"));
        if let Some(list) = parent.as_array_mut() {
            list.push(value.clone());
        } else if value.is_null() {
            parent.as_object_mut().unwrap().remove(field);
        } else {
            parent[field] = value.clone();
        }
    }
    made(CustomResourceDefinitionKind, object, expect)
}

fn version(name: &str, more: &Value) -> Value {
    let mut version = json!({"name": name, "served": true, "storage": false,
        "schema": {"openAPIV3Schema": {"type": "object"}}});
    version.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    version
}

const LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn a_new_one_has_defaults_and_a_status() {
    let made =
        check(&[("/status", json!({"storedVersions": ["v7"], "conditions": [{"type": "x", "status": "True"}]}))], &[]);
    assert_eq!(
        made["spec"]["names"],
        json!({"plural": "crons", "kind": "Cron", "singular": "cron", "listKind": "CronList"})
    );
    assert_eq!(made["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(
        made["status"],
        json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": null, "storedVersions": ["v1"]})
    );
    assert_eq!(made["metadata"]["generation"], 1);
}

#[test]
fn what_it_is_called() {
    let name = "metadata.name: Invalid value: \"crons.example.com\": must be spec.names.plural+\".\"+spec.group";
    check(&[("/metadata/name", json!("crons.example.com"))], &[name]);
    check(
        &[("/spec/group", Value::Null)],
        &[
            "metadata.name: Invalid value: \"crons.stable.example.com\": must be spec.names.plural+\".\"+spec.group",
            "spec.group: Required value",
        ],
    );
    check(
        &[("/spec/group", json!("a")), ("/metadata/name", json!("crons.a"))],
        &["spec.group: Invalid value: \"a\": should be a domain with at least one dot"],
    );
    check(&[("/spec/scope", Value::Null)], &["spec.scope: Required value"]);
    check(
        &[("/spec/scope", json!("All"))],
        &["spec.scope: Unsupported value: \"All\": supported values: \"Cluster\", \"Namespaced\""],
    );
    check(
        &[("/spec/names/kind", Value::Null)],
        &[
            "spec.names.singular: Required value",
            "spec.names.kind: Required value",
            "spec.names.listKind: Required value",
        ],
    );
    let mixed = "may have mixed case, but should otherwise match";
    check(
        &[
            ("/spec/names/kind", json!("Cr.on")),
            ("/spec/names/singular", json!("Cron")),
            ("/spec/names/listKind", json!("Cr.on")),
            ("/spec/names/shortNames", json!(["cr", "C"])),
            ("/spec/names/categories", json!(["1"])),
        ],
        &[
            &format!("spec.names.singular: Invalid value: \"Cron\": {LABEL}"),
            &format!("spec.names.kind: Invalid value: \"Cr.on\": {mixed}: {LABEL}"),
            &format!("spec.names.listKind: Invalid value: \"Cr.on\": {mixed}: {LABEL}"),
            &format!("spec.names.shortNames[1]: Invalid value: \"C\": {LABEL}"),
            "spec.names.listKind: Invalid value: \"Cr.on\": kind and listKind may not be the same",
            &format!("spec.names.categories[0]: Invalid value: \"1\": {LABEL}"),
        ],
    );
}

#[test]
fn groups_of_kubernetes_need_an_approval() {
    let approved = |annotation: Value, expect: &[&str]| {
        check(
            &[
                ("/spec/group", json!("x.k8s.io")),
                ("/metadata", json!({"name": "crons.x.k8s.io", "annotations": annotation})),
            ],
            expect,
        )
    };
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let annotation = "metadata.annotations[api-approved.kubernetes.io]";
    approved(json!({"api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/1"}), &[]);
    approved(json!({"api-approved.kubernetes.io": "unapproved, a test"}), &[]);
    let missing = format!("protected groups must have approval annotation \"api-approved.kubernetes.io\", {see}");
    approved(json!({}), &[&format!("{annotation}: Required value: {missing}")]);
    let wrong = "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a \
                 reason starting with \"unapproved\"";
    approved(
        json!({"api-approved.kubernetes.io": "yes"}),
        &[&format!("{annotation}: Invalid value: \"yes\": {wrong}, {see}")],
    );
}

#[test]
fn versions() {
    check(&[("/spec/versions/0/schema", Value::Null)], &["spec.versions[0].schema.openAPIV3Schema: Required value"]);
    let shown = |served: bool, storage: bool| {
        format!(
            "{{\"Name\":\"v1\",\"Served\":{served},\"Storage\":{storage},\"Deprecated\":false,\
             \"DeprecationWarning\":null,\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\
             \"SelectableFields\":null}}"
        )
    };
    let stored = "must have exactly one version marked as storage version";
    check(
        &[("/spec/versions", json!([]))],
        &[
            &format!("spec.versions: Invalid value: null: {stored}"),
            "status.storedVersions: Invalid value: null: must have at least one stored version",
        ],
    );
    let twice = definition()["spec"]["versions"][0].clone();
    let both = format!("[{},{}]", shown(true, true), shown(true, true));
    check(
        &[("/spec/versions/-", twice)],
        &[
            &format!("spec.versions: Invalid value: {both}: must contain unique version names"),
            &format!("spec.versions: Invalid value: {both}: {stored}"),
        ],
    );
    check(
        &[("/spec/versions/0/name", json!("1"))],
        &[
            &format!("spec.versions[0].name: Invalid value: \"1\": {LABEL}"),
            &format!("spec.version: Invalid value: \"1\": {LABEL}"),
        ],
    );
    check(
        &[("/spec/versions/-", version("v2", &json!({"deprecationWarning": "x"})))],
        &["spec.versions[1].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions"],
    );
    let old = |warning: &str| version("v2", &json!({"deprecated": true, "deprecationWarning": warning}));
    check(
        &[("/spec/versions/-", old("a\nb"))],
        &["spec.versions[1].deprecationWarning: Invalid value: \"a\\nb\": must only contain printable UTF-8 \
           characters; non-printable character found at index 1"],
    );
    check(
        &[("/spec/versions/-", old(&"x".repeat(257)))],
        &[&format!(
            "spec.versions[1].deprecationWarning: Invalid value: \"{}\": must be <= 256 characters long",
            "x".repeat(257)
        )],
    );
    check(
        &[("/spec/preserveUnknownFields", json!(true))],
        &["spec.preserveUnknownFields: Invalid value: true: cannot set to true, set \
           x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"],
    );
}

/// Where all versions have the same, errors are at the top.
#[test]
fn what_is_beside_the_schema() {
    let scale = |spec: &str, status: &str, selector: &str| json!({"scale": {"specReplicasPath": spec, "statusReplicasPath": status, "labelSelectorPath": selector}});
    check(&[("/spec/versions/0/subresources", scale(".spec.r", ".status.r", ".status.s"))], &[]);
    check(
        &[("/spec/versions/0/subresources", scale("", ".spec.r", "s"))],
        &[
            "spec.subresources.scale.specReplicasPath: Required value",
            "spec.subresources.scale.statusReplicasPath: Invalid value: \".spec.r\": should be a json path under \
             .status",
            "spec.subresources.scale.labelSelectorPath: Invalid value: \"s\": must be a simple json path starting \
             with .",
        ],
    );
    check(
        &[
            ("/spec/versions/0/subresources", json!({"status": {}})),
            ("/spec/versions/-", version("v2", &json!({"subresources": scale(".spec.r", ".status.r", ".x")}))),
        ],
        &["spec.versions[1].subresources.scale.labelSelectorPath: Invalid value: \".x\": should be a json path under \
           either .spec or .status"],
    );
    let types = "must be one of boolean,date,integer,number,string";
    check(
        &[(
            "/spec/versions/0/additionalPrinterColumns",
            json!([{"name": "", "type": ""}, {"name": "a", "type": "text", "format": "x", "jsonPath": "a"}]),
        )],
        &[
            "spec.additionalPrinterColumns[0].name: Required value",
            &format!("spec.additionalPrinterColumns[0].type: Required value: {types}"),
            "spec.additionalPrinterColumns[0].JSONPath: Required value",
            &format!("spec.additionalPrinterColumns[1].type: Invalid value: \"text\": {types}"),
            "spec.additionalPrinterColumns[1].format: Invalid value: \"x\": must be one of \
             byte,date,date-time,double,float,int32,int64,password",
            "spec.additionalPrinterColumns[1].JSONPath: Invalid value: \"a\": must be a simple json path starting with .",
        ],
    );
    check(
        &[("/spec/versions/0/schema/openAPIV3Schema/nullable", json!(true))],
        &["spec.validation.openAPIV3Schema.nullable: Forbidden: nullable cannot be true at the root"],
    );
    let with_status = ("/spec/versions/0/subresources", json!({"status": {}}));
    check(
        &[with_status.clone(), ("/spec/versions/0/schema/openAPIV3Schema", json!({"type": "array"}))],
        &[
            "spec.validation.openAPIV3Schema.type: Invalid value: \"array\": only \"object\" is allowed as the type at \
           the root of the schema if the status subresource is enabled",
            "spec.validation.openAPIV3Schema.items: Required value: must be specified",
            "spec.validation.openAPIV3Schema.type: Invalid value: \"array\": must be object at the root",
        ],
    );
    check(
        &[with_status, ("/spec/versions/0/schema/openAPIV3Schema", json!({"type": "object", "not": {}}))],
        &["spec.validation.openAPIV3Schema: Invalid value: {\"not\":{},\"type\":\"object\"}: only [Description Type \
           Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems \
           MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields \
           XValidations] fields are allowed at the root of the schema if the status subresource is enabled"],
    );
}

#[test]
fn selectable_fields() {
    let fields = |paths: &[&str]| paths.iter().map(|p| json!({"jsonPath": p})).collect::<Value>();
    let of = |paths: &[&str], expect: &[&str]| {
        check(&[("/spec/versions/0/selectableFields", fields(paths))], expect);
    };
    of(&[".spec.host", ".spec.count"], &[]);
    let invalid = |i: usize, path: &str, why: &str| {
        format!("spec.selectableFields[{i}].jsonPath: Invalid value: {path:?}: is an invalid path: {why}")
    };
    of(
        &["", "spec", ".spec.", ".spec.nope", ".spec['host']"],
        &[
            "spec.selectableFields[0].jsonPath: Required value",
            &invalid(1, "spec", "expected [ or . but got: spec"),
            &invalid(2, ".spec.", "unexpected end of JSON path"),
            &invalid(3, ".spec.nope", "does not refer to a valid field"),
            &invalid(4, ".spec['host']", "array notation is not allowed"),
        ],
    );
    of(
        &[".spec.host", ".spec.host", ".spec.weight"],
        &[
            "spec.selectableFields[1].jsonPath: Duplicate value: \".spec.host\"",
            "spec.selectableFields[2].jsonPath: Invalid value: \".spec.weight\": must point to a field of type \
             string, boolean or integer. Enum string fields and strings with formats are allowed.",
        ],
    );
    let many: Vec<String> = (0..9).map(|i| format!(".f{i}")).collect();
    let properties: serde_json::Map<String, Value> =
        (0..9).map(|i| (format!("f{i}"), json!({"type": "string"}))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    check(
        &[
            ("/spec/versions/0/schema/openAPIV3Schema/properties", properties.into()),
            ("/spec/versions/0/selectableFields", fields(&many)),
        ],
        &["spec.selectableFields: Too many: 9: must have at most 8 items"],
    );
    let metadata = json!({"metadata": {"type": "object", "properties": {"name": {"type": "string"}}}});
    check(
        &[
            ("/spec/versions/0/schema/openAPIV3Schema/properties", metadata),
            ("/spec/versions/0/selectableFields", fields(&[".metadata.name"])),
        ],
        &["spec.selectableFields[0].jsonPath: Invalid value: \".metadata.name\": must not point to fields in metadata"],
    );
}

#[test]
fn conversion() {
    let conversion = |conversion: Value, expect: &[&str]| check(&[("/spec/conversion", conversion)], expect);
    let reviews = json!(["v1"]);
    let service = json!({"namespace": "n", "name": "s"});
    let made = conversion(
        json!({"strategy": "Webhook", "webhook": {"clientConfig": {"service": service}, "conversionReviewVersions": reviews}}),
        &[],
    );
    assert_eq!(made["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"], 443);
    conversion(json!({"strategy": ""}), &["spec.conversion.strategy: Required value"]);
    conversion(
        json!({"strategy": "Some"}),
        &["spec.conversion.strategy: Unsupported value: \"Some\": supported values: \"None\", \"Webhook\""],
    );
    conversion(
        json!({"strategy": "Webhook"}),
        &[
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Required value",
        ],
    );
    conversion(
        json!({"strategy": "Webhook", "webhook": {"clientConfig": {}, "conversionReviewVersions": ["v2"]}}),
        &[
            "spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required",
            "spec.conversion.conversionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, \
             v1beta1",
        ],
    );
    conversion(
        json!({"strategy": "None", "webhook": {"clientConfig": {"url": "https://a"}, "conversionReviewVersions": ["v1"]}}),
        &[
            "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook",
            "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to \
             Webhook",
        ],
    );
}

#[test]
fn updates() {
    let kind = || CustomResourceDefinitionKind;
    let old = check(&[], &[]);
    let renamed = json!({"plural": "crons", "kind": "Job", "singular": "job", "listKind": "JobList"});
    let changes = [("/spec/scope", json!("Cluster")), ("/spec/names", renamed)];
    let new = updated(kind(), Part::Spec, &old, &changes, &[]);
    assert_eq!(new["metadata"]["generation"], 2);
    let immutable = |field: &str, value: &str| format!("spec.{field}: Invalid value: \"{value}\": field is immutable");
    updated(
        kind(),
        Part::Spec,
        &old,
        &[("/spec/group", json!("other.example.com"))],
        &[&immutable("group", "other.example.com")],
    );
    let conditions = json!([{"type": "Established", "status": "True"}]);
    let established = updated(kind(), Part::Status, &old, &[("/status/conditions", conditions)], &[]);
    assert_eq!(established["metadata"]["generation"], 1);
    updated(
        kind(),
        Part::Spec,
        &established,
        &changes,
        &[&immutable("scope", "Cluster"), &immutable("names.kind", "Job")],
    );
    // Nothing of the spec, and only names are checked.
    let names = json!({"plural": "C", "kind": ""});
    let expect = format!("status.acceptedNames.plural: Invalid value: \"C\": {LABEL}");
    let changes = [("/status/acceptedNames", names), ("/spec/scope", json!("Cluster"))];
    let status = updated(kind(), Part::Status, &old, &changes, &[&expect]);
    assert_eq!(status["spec"], old["spec"]);

    let mut versions = old["spec"]["versions"].clone();
    versions[0]["storage"] = false.into();
    versions.as_array_mut().unwrap().push(version("v2", &json!({"storage": true})));
    let two = updated(kind(), Part::Spec, &old, &[("/spec/versions", versions.clone())], &[]);
    assert_eq!(two["status"]["storedVersions"], json!(["v1", "v2"]));
    versions.as_array_mut().unwrap().remove(0);
    updated(
        kind(),
        Part::Spec,
        &two,
        &[("/spec/versions", versions)],
        &["status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage \
           version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 \
           and removes v1 from status.storedVersions"],
    );
}

#[test]
fn unknown_formats_are_warned_of_once() {
    let (strategy, cx) = (Typed(CustomResourceDefinitionKind), Context::new(User::default()));
    let mut old = check(
        &[(
            "/spec/versions/0/schema/openAPIV3Schema/properties",
            json!({"a": {"type": "string", "format": "date-time"},
            "b": {"type": "integer", "format": "int8"}, "c": {"type": "array", "items": {"type": "string", "format": "x"}}}),
        )],
        &[],
    );
    let mut warnings = strategy.prepare_create(&cx, &mut old).unwrap().warnings;
    warnings.sort_unstable();
    assert_eq!(warnings, ["unrecognized format \"int8\"", "unrecognized format \"x\""]);
    let mut new = old.clone();
    new["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["d"] =
        json!({"type": "string", "format": "y"});
    let warnings = strategy.prepare_update(&cx, Part::Spec, &mut new, &old).unwrap().warnings;
    assert_eq!(warnings, ["unrecognized format \"y\""]);
}

/// The finalizer is taken away by whoever deleted the objects.
#[test]
fn a_delete_waits_for_the_objects() {
    let mut going = check(&[], &[]);
    let strategy = Typed(CustomResourceDefinitionKind);
    assert_eq!(strategy.removal(&mut going, &DeleteOptions::default()), Removal::Finalize);
    assert_eq!(going["metadata"]["finalizers"], json!([CLEANUP]));
    let condition = going["status"]["conditions"][0].clone();
    assert!(condition["lastTransitionTime"].is_string());
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"], &condition["message"]),
        (
            &json!("Terminating"),
            &json!("True"),
            &json!("InstanceDeletionPending"),
            &json!("CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon")
        )
    );
    assert_eq!(strategy.removal(&mut going, &DeleteOptions::default()), Removal::Finalize);
    assert_eq!(going["status"]["conditions"], json!([condition]));
    assert_eq!(going["metadata"]["finalizers"], json!([CLEANUP]));
}
