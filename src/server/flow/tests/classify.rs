//! Tables: which FlowSchema and priority level a request is for, with the objects that every cluster has and some more.

use serde_json::{Value, json};

use crate::api::flowcontrol;
use crate::api::user::User;
use crate::server::authz::{Attributes, ResourceAttributes};
use crate::server::flow::gate::{Asked, Fairness};
use crate::server::flow::metrics::Metrics;
use crate::server::objects::SharedObjects;
use crate::server::objects::fake::Fake;

pub fn bootstrapped() -> Vec<Value> {
    let levels = [flowcontrol::mandatory_priority_levels(), flowcontrol::suggested_priority_levels()].concat();
    let schemas = [flowcontrol::mandatory_flow_schemas(), flowcontrol::suggested_flow_schemas()].concat();
    let levels = levels.into_iter().map(|l| json!(l));
    let mut all: Vec<Value> = levels.chain(schemas.into_iter().map(|s| json!(s))).collect();
    for object in &mut all {
        object["metadata"]["uid"] = format!("uid-{}", object["metadata"]["name"].as_str().unwrap()).into();
    }
    all
}

pub fn schema(name: &str, precedence: i32, level: &str, rule: &Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
        "spec": {"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level},
            "distinguisherMethod": {"type": "ByUser"}, "rules": [rule]}})
}

pub fn fairness(objects: &[Value], seats: u32) -> Fairness {
    let objects: SharedObjects = Fake::new(objects.to_vec());
    Fairness::new(&objects, seats, Metrics::default())
}

/// `verb group/resource/subresource namespace`, the core group as `v1`; or `verb /path`.
pub fn asked<'a>(user: &'a User, text: &'a str) -> Asked<'a> {
    let (verb, rest) = text.split_once(' ').unwrap();
    let attributes = if rest.starts_with('/') {
        Attributes::Path { verb, path: rest }
    } else {
        let (what, namespace) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut parts = what.split('/');
        let mut part = || parts.next().unwrap_or_default();
        let (group, resource, subresource) = (part(), part(), part());
        let group = if group == "v1" { "" } else { group };
        Attributes::Resource(ResourceAttributes { verb, group, resource, subresource, namespace, ..Default::default() })
    };
    Asked { user, attributes, version: "v1", path: rest }
}

/// `schema level distinguisher`.
fn check(fairness: &Fairness, user: &str, groups: &[&str], text: &str, expect: &str) {
    let user = User::new(user, groups);
    let asked = asked(&user, text);
    let schema = fairness.classify(&asked);
    let flow = schema.distinguisher(&user, &asked.attributes);
    assert_eq!(format!("{} {} {flow:?}", schema.name, schema.level.name), expect, "{} {text}", user.name);
}

#[test]
fn as_a_cluster_begins() {
    let fairness = fairness(&bootstrapped(), 600);
    let all = "system:authenticated";
    let node = |text, expect| check(&fairness, "system:node:a", &["system:nodes", all], text, expect);
    node("patch v1/nodes/status", "system-node-high node-high \"system:node:a\"");
    node("update coordination.k8s.io/leases kube-node-lease", "system-node-high node-high \"system:node:a\"");
    node("patch v1/pods/status default", "system-nodes system \"system:node:a\"");
    node("get /healthz", "probes exempt \"\"");
    let account = |name: &str, text, expect| {
        check(&fairness, &format!("system:serviceaccount:{name}"), &["system:serviceaccounts", all], text, expect);
    };
    account("kube-system:dns", "list v1/pods", "kube-system-service-accounts workload-high \"\"");
    account("kube-system:dns", "list v1/pods a", "kube-system-service-accounts workload-high \"a\"");
    account(
        "kube-system:dns",
        "update coordination.k8s.io/leases a",
        "system-leader-election leader-election \"system:serviceaccount:kube-system:dns\"",
    );
    account(
        "kube-system:dns",
        "delete coordination.k8s.io/leases a",
        "kube-system-service-accounts workload-high \"a\"",
    );
    account(
        "kube-systems:dns",
        "list v1/pods a",
        "service-accounts workload-low \"system:serviceaccount:kube-systems:dns\"",
    );
    check(&fairness, "admin", &["system:masters", all], "delete v1/pods a", "exempt exempt \"\"");
    check(&fairness, "system:kube-scheduler", &[all], "list v1/pods", "kube-scheduler workload-high \"\"");
    check(&fairness, "ann", &[all], "list v1/pods a", "global-default global-default \"ann\"");
    check(&fairness, "ann", &[all], "get /readyz", "probes exempt \"\"");
    check(&fairness, "ann", &[all], "get /readyz/ping", "probes exempt \"\"");
    check(&fairness, "ann", &[all], "get /readyzzz", "global-default global-default \"ann\"");
    check(&fairness, "nobody", &[], "get v1/pods a", "catch-all catch-all \"\"");
}

/// Without objects there are still those that are mandatory, and their UIDs are empty.
#[test]
fn without_objects() {
    let fairness = fairness(&[], 600);
    check(&fairness, "admin", &["system:masters"], "get v1/pods a", "exempt exempt \"\"");
    check(&fairness, "ann", &["system:authenticated"], "get v1/pods a", "catch-all catch-all \"\"");
    let user = User::new("ann", &[]);
    let schema = fairness.classify(&asked(&user, "get /x"));
    assert_eq!((schema.uid.len(), schema.level_uid.len()), (0, 0));
}

#[test]
fn rules_of_ones_own() {
    let mut objects = bootstrapped();
    let user = json!([{"kind": "User", "user": {"name": "ann"}}]);
    let rule = |verbs: &str, group: &str, resource: &str, more: Value| {
        let mut rule = json!({"verbs": [verbs], "apiGroups": [group], "resources": [resource]});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"subjects": user, "resourceRules": [rule]})
    };
    // Of the same precedence the name decides; one without its level is passed over.
    objects.push(schema("b", 300, "system", &rule("*", "*", "*", json!({"namespaces": ["*"]}))));
    objects.push(schema(
        "a",
        300,
        "workload-low",
        &rule("get", "apps", "deployments/scale", json!({"namespaces": ["x"]})),
    ));
    objects.push(schema(
        "dangling",
        3,
        "none",
        &rule("*", "*", "*", json!({"namespaces": ["*"], "clusterScope": true})),
    ));
    let paths =
        json!({"subjects": user, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/logs/*", "/version"]}]});
    objects.push(schema("paths", 200, "system", &paths));
    let fairness = fairness(&objects, 600);
    let ann = |text, expect| check(&fairness, "ann", &["system:authenticated"], text, expect);
    ann("get apps/deployments/scale x", "a workload-low \"ann\"");
    ann("get apps/deployments x", "b system \"ann\"");
    ann("get apps/deployments/scale y", "b system \"ann\"");
    ann("get apps/deploymentsx/scale x", "b system \"ann\"");
    ann("list apps/deployments", "global-default global-default \"ann\"");
    ann("get /logs/x", "paths system \"ann\"");
    ann("get /logs", "global-default global-default \"ann\"");
    ann("get /version", "paths system \"ann\"");
    ann("post /version", "global-default global-default \"ann\"");
    check(
        &fairness,
        "bob",
        &["system:authenticated"],
        "get apps/deployments x",
        "global-default global-default \"bob\"",
    );
}
