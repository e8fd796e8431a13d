//! Decides: the columns and rows of what changes the API itself, of flow control and of devices.

use jiff::Timestamp;
use serde_json::Value;

use super::access::{age, at, count, list, name, or, text};
use super::columns::{AGE, Column, NAME, number, text as column};

pub const WEBHOOKS: &[Column] = &[NAME, number("Webhooks", "Number of webhooks in this configuration."), AGE];

pub const VALIDATING_POLICY: &[Column] =
    &[NAME, number("Validations", "Number of validations."), column("ParamKind", "Kind of its parameters."), AGE];

pub const MUTATING_POLICY: &[Column] =
    &[NAME, number("Mutations", "Number of mutations."), column("ParamKind", "Kind of its parameters."), AGE];

pub const POLICY_BINDING: &[Column] =
    &[NAME, column("PolicyName", "The policy that it binds."), column("ParamRef", "The policy's parameters."), AGE];

pub const API_SERVICE: &[Column] = &[
    NAME,
    column("Service", "The service that serves the group and version."),
    column("Available", "Whether it is there."),
    AGE,
];

pub const FLOW_SCHEMA: &[Column] = &[
    NAME,
    column("PriorityLevel", "The level that its requests get."),
    column("MatchingPrecedence", "The lower it is, the earlier it is asked."),
    column("DistinguisherMethod", "What tells the flows apart."),
    AGE,
    column("MissingPL", "Whether its level does not exist."),
];

pub const PRIORITY_LEVEL: &[Column] = &[
    NAME,
    column("Type", "Whether it is limited."),
    column("NominalConcurrencyShares", "Its part of what the server does at once."),
    column("Queues", "Number of queues."),
    column("HandSize", "Number of queues that a flow may use."),
    column("QueueLengthLimit", "Requests in one queue, at most."),
    AGE,
];

pub const NAMED: &[Column] = &[NAME, AGE];

pub const RESOURCE_CLAIM: &[Column] = &[NAME, column("State", "Whether it is allocated and used."), AGE];

pub const RESOURCE_SLICE: &[Column] = &[
    NAME,
    column("Node", "The node that has the devices."),
    column("Driver", "Who offers the devices."),
    column("Pool", "The pool that the devices are of."),
    AGE,
];

pub fn webhooks(configuration: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(configuration), count(configuration, "webhooks").into(), age(configuration, now)]
}

/// `rules` is what its columns count.
pub fn policy(policy: &Value, rules: &str, now: Timestamp) -> Vec<Value> {
    let params = at(policy, "spec.paramKind");
    let shown = if params.is_null() {
        "<unset>".into()
    } else {
        format!("{}/{}", text(params, "apiVersion"), text(params, "kind"))
    };
    vec![name(policy), count(policy, rules).into(), shown.into(), age(policy, now)]
}

pub fn policy_binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let params = at(binding, "spec.paramRef");
    let shown = match (text(params, "name"), &params["selector"]) {
        // Of parameters that may be of the cluster it is not known.
        (named, _) if !named.is_empty() => format!("{}/{named}", or(text(params, "namespace"), "*")),
        ("", selector) if selector.is_object() => go_selector(selector),
        _ => "<unset>".into(),
    };
    vec![name(binding), text(binding, "spec.policyName").into(), shown.into(), age(binding, now)]
}

/// A label selector as its Go type writes itself.
fn go_selector(selector: &Value) -> String {
    let mut out = String::from("&LabelSelector{MatchLabels:map[string]string{");
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        out += &format!("{key}: {},", value.as_str().unwrap_or_default());
    }
    out += "},MatchExpressions:[]LabelSelectorRequirement{";
    for term in list(selector, "matchExpressions") {
        let values: Vec<&str> = list(term, "values").iter().filter_map(Value::as_str).collect();
        let (key, operator) = (text(term, "key"), text(term, "operator"));
        out += &format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "));
    }
    out + "},}"
}

pub fn api_service(service: &Value, now: Timestamp) -> Vec<Value> {
    let by = at(service, "spec.service");
    let by = if by.is_null() { "Local".into() } else { format!("{}/{}", text(by, "namespace"), text(by, "name")) };
    let available = list(service, "status.conditions").iter().find(|c| c["type"] == "Available");
    let available = available.map_or_else(
        || "Unknown".into(),
        |condition| match (text(condition, "status"), text(condition, "reason")) {
            ("True", _) => "True".into(),
            (status, "") => status.to_owned(),
            (status, reason) => format!("{status} ({reason})"),
        },
    );
    vec![name(service), by.into(), available.into(), age(service, now)]
}

pub fn flow_schema(schema: &Value, now: Timestamp) -> Vec<Value> {
    let dangling = list(schema, "status.conditions").iter().find(|c| c["type"] == "Dangling");
    vec![
        name(schema),
        text(schema, "spec.priorityLevelConfiguration.name").into(),
        at(schema, "spec.matchingPrecedence").clone(),
        or(text(schema, "spec.distinguisherMethod.type"), "<none>").into(),
        age(schema, now),
        dangling.map_or("?", |c| text(c, "status")).into(),
    ]
}

pub fn priority_level(level: &Value, now: Timestamp) -> Vec<Value> {
    let shown = |path: &str| {
        let value = at(level, path);
        if value.is_null() { "<none>".into() } else { value.clone() }
    };
    vec![
        name(level),
        text(level, "spec.type").into(),
        shown("spec.limited.nominalConcurrencyShares"),
        shown("spec.limited.limitResponse.queuing.queues"),
        shown("spec.limited.limitResponse.queuing.handSize"),
        shown("spec.limited.limitResponse.queuing.queueLengthLimit"),
        age(level, now),
    ]
}

pub fn named(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

pub fn resource_claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let deleted = !at(claim, "metadata.deletionTimestamp").is_null();
    let allocated = !at(claim, "status.allocation").is_null();
    let states = [
        ("deleted", deleted),
        ("pending", !deleted && !allocated),
        ("allocated", allocated),
        ("reserved", allocated && count(claim, "status.reservedFor") > 0),
    ];
    let states: Vec<&str> = states.iter().filter(|(_, is)| *is).map(|(state, _)| *state).collect();
    vec![name(claim), states.join(",").into(), age(claim, now)]
}

pub fn resource_slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(slice),
        text(slice, "spec.nodeName").into(),
        text(slice, "spec.driver").into(),
        text(slice, "spec.pool.name").into(),
        age(slice, now),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::resource::RESOURCES;
    use crate::api::table::{columns, row};

    fn check(kind: &str, mut object: Value, expect: &str) {
        object["metadata"]["name"] = "x".into();
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        let resource = RESOURCES.iter().find(|r| r.kind == kind).unwrap();
        let cells = row(resource, &object, "2026-01-01T00:05:10Z".parse().unwrap()).cells;
        assert_eq!(cells.len(), columns(resource).len());
        let cells: Vec<String> =
            cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
        assert_eq!(cells.join("|"), expect);
    }

    #[test]
    fn admission() {
        check("MutatingWebhookConfiguration", json!({"webhooks": [{}, {}]}), "x|2|5m10s");
        check("ValidatingWebhookConfiguration", json!({}), "x|0|5m10s");
        check("ValidatingAdmissionPolicy", json!({"spec": {"validations": [{}]}}), "x|1|<unset>|5m10s");
        let params = json!({"apiVersion": "g/v1", "kind": "K"});
        check("MutatingAdmissionPolicy", json!({"spec": {"mutations": [{}], "paramKind": params}}), "x|1|g/v1/K|5m10s");
        let binding = |params: Value, expect: &str| {
            check("ValidatingAdmissionPolicyBinding", json!({"spec": {"policyName": "p", "paramRef": params}}), expect);
        };
        binding(Value::Null, "x|p|<unset>|5m10s");
        binding(json!({"name": "n"}), "x|p|*/n|5m10s");
        binding(json!({"name": "n", "namespace": "a"}), "x|p|a/n|5m10s");
        binding(
            json!({"selector": {"matchLabels": {"a": "b"}, "matchExpressions": [
                {"key": "k", "operator": "In", "values": ["v", "w"]}]}}),
            "x|p|&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{\
             LabelSelectorRequirement{Key:k,Operator:In,Values:[v w],},},}|5m10s",
        );
    }

    #[test]
    fn services_and_flows() {
        let service = |status: &str, reason: &str, expect: &str| {
            let conditions = json!([{"type": "Available", "status": status, "reason": reason}]);
            let object =
                json!({"spec": {"service": {"namespace": "n", "name": "s"}}, "status": {"conditions": conditions}});
            check("APIService", object, expect);
        };
        service("True", "Passed", "x|n/s|True|5m10s");
        service("False", "Missing", "x|n/s|False (Missing)|5m10s");
        service("False", "", "x|n/s|False|5m10s");
        check("APIService", json!({}), "x|Local|Unknown|5m10s");
        let spec = json!({"priorityLevelConfiguration": {"name": "p"}, "matchingPrecedence": 5});
        check("FlowSchema", json!({"spec": spec}), "x|p|5|<none>|5m10s|?");
        let conditions = json!([{"type": "Dangling", "status": "False"}]);
        check("FlowSchema", json!({"spec": spec, "status": {"conditions": conditions}}), "x|p|5|<none>|5m10s|False");
        let level = "PriorityLevelConfiguration";
        check(level, json!({"spec": {"type": "Exempt"}}), "x|Exempt|<none>|<none>|<none>|<none>|5m10s");
        let queuing = json!({"queues": 1, "handSize": 2, "queueLengthLimit": 3});
        let limited = json!({"nominalConcurrencyShares": 4, "limitResponse": {"queuing": queuing}});
        check(level, json!({"spec": {"type": "Limited", "limited": limited}}), "x|Limited|4|1|2|3|5m10s");
    }

    #[test]
    fn devices() {
        check("DeviceClass", json!({}), "x|5m10s");
        check("ResourceClaimTemplate", json!({}), "x|5m10s");
        check("ResourceClaim", json!({}), "x|pending|5m10s");
        let status = json!({"allocation": {}, "reservedFor": [{}]});
        check("ResourceClaim", json!({"status": status}), "x|allocated,reserved|5m10s");
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        check("ResourceClaim", json!({"metadata": deleted}), "x|deleted|5m10s");
        let spec = json!({"nodeName": "n", "driver": "d", "pool": {"name": "p"}});
        check("ResourceSlice", json!({"spec": spec}), "x|n|d|p|5m10s");
    }
}
