//! Golden: the reference objects, which have every field set, keep every field; and tables of the small kinds.

use serde_json::{Value, json};

use super::*;
use crate::api::reference;
use crate::api::user::User;
use crate::server::registry::request::{Context, DeleteOptions};
use crate::server::registry::strategy::{Part, Prepared, Removal};

/// Everything in `before` is in `after`: defaults may add, nothing may be lost.
fn lost(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                let path = format!("{path}.{key}");
                match after.get(key) {
                    Some(kept) => lost(&path, value, kept, found),
                    None if value.is_null() => {}
                    None => found.push(format!("{path}: lost")),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                lost(&format!("{path}[{i}]"), before, after, found);
            }
        }
        _ if before == after => {}
        _ => found.push(format!("{path}: {before} became {after}")),
    }
}

/// Fields that are written in another form on purpose: what a Secret was given as text, the pod CIDR of a node that
/// contradicts its list, the older name of the service account.
fn on_purpose(difference: &str) -> bool {
    ["stringData", ".podCIDRs", ".serviceAccount:", ".selfLink"].iter().any(|field| difference.contains(field))
}

/// Groups whose kinds are not in `k8s.io/api`, and so may not be in the reference.
const ELSEWHERE: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

#[test]
fn reference_objects_keep_every_field() {
    let Some(folder) = reference::folder().map(|f| f.join("roundtrip")) else { return };
    let cache = Cache::new();
    let config = config::Cluster {
        cluster_cidr: config::Cidr { address: [10, 42, 0, 0].into(), prefix: 16 },
        service_cidr: config::Cidr { address: [10, 43, 0, 0].into(), prefix: 16 },
        cluster_dns: [10, 43, 0, 10].into(),
        cluster_domain: "cluster.local".into(),
        node_ports: (30000, 32767),
    };
    for strategy in strategies(&config, &cache) {
        let row = strategy.resource();
        let group = if row.group.is_empty() { "core" } else { row.group };
        let file = folder.join(format!("{group}.{}.{}.json", row.version, row.kind));
        let text = match std::fs::read(&file) {
            Err(_) if ELSEWHERE.contains(&row.group) => continue,
            text => text.unwrap_or_else(|e| panic!("{}: {e}", file.display())),
        };
        let object: Value = serde_json::from_slice(&text).unwrap();
        let mut kept = strategy.storage_form(object.clone());
        strategy.defaults(&mut kept).unwrap_or_else(|e| panic!("{}: {e}", row.kind));
        let kept = strategy.wire_form(kept);
        let mut found = Vec::new();
        lost("", &object, &kept, &mut found);
        found.retain(|difference| !on_purpose(difference));
        assert!(found.is_empty(), "{} {}: {found:#?}", row.group, row.kind);
    }
}

#[test]
fn one_strategy_for_each_stored_row() {
    let cache = Cache::new();
    let config = config::Cluster {
        cluster_cidr: config::Cidr { address: [10, 42, 0, 0].into(), prefix: 16 },
        service_cidr: config::Cidr { address: [10, 43, 0, 0].into(), prefix: 16 },
        cluster_dns: [10, 43, 0, 10].into(),
        cluster_domain: "cluster.local".into(),
        node_ports: (30000, 32767),
    };
    let strategies = strategies(&config, &cache);
    let mut missing: Vec<&str> = Vec::new();
    for row in resource::RESOURCES.iter().filter(|r| !r.storage.is_empty()) {
        if !strategies.iter().any(|s| std::ptr::eq(s.resource(), row)) {
            missing.push(row.kind);
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

fn check(kind: impl Kind, mut object: Value, expect: &[&str]) -> Value {
    let (strategy, cx) = (Typed(kind), Context::new(User::default()));
    let row = strategy.resource();
    object["apiVersion"] = row.api_version().into();
    object["kind"] = row.kind.into();
    if object["metadata"].is_null() {
        object["metadata"] = if row.namespaced { json!({"name": "a", "namespace": "b"}) } else { json!({"name": "a"}) };
    }
    strategy.defaults(&mut object).unwrap();
    let Prepared { errors, .. } = strategy.prepare_create(&cx, &mut object).unwrap();
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    object
}

fn check_update(kind: impl Kind, old: &Value, new: &Value, expect: &[&str]) {
    let (strategy, cx) = (Typed(kind), Context::new(User::default()));
    let mut new = new.clone();
    let Prepared { errors, .. } = strategy.prepare_update(&cx, Part::Spec, &mut new, old).unwrap();
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
}

#[test]
fn namespaces() {
    let made = check(NamespaceKind, json!({}), &[]);
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
    let mut going = made.clone();
    let strategy = Typed(NamespaceKind);
    assert_eq!(strategy.removal(&mut going, &DeleteOptions::default()), Removal::Finalize);
    assert_eq!(going["status"]["phase"], "Terminating");
    going["spec"] = json!({});
    assert_eq!(strategy.removal(&mut going, &DeleteOptions::default()), Removal::Now);

    let cx = Context::new(User::default());
    let mut new = made.clone();
    new["spec"] = json!({});
    strategy.prepare_update(&cx, Part::Spec, &mut new, &made).unwrap();
    assert_eq!(new["spec"]["finalizers"], json!(["kubernetes"]));
    new["spec"] = json!({});
    strategy.prepare_update(&cx, Part::Finalize, &mut new, &made).unwrap();
    assert_eq!(new["spec"], json!({}));
}

#[test]
fn config_maps_and_secrets() {
    let old = check(ConfigMapKind, json!({"data": {"a.b": "c"}, "immutable": true}), &[]);
    check(ConfigMapKind, json!({"data": {"..": "c"}}), &["data[..]: Invalid value: \"..\": must not be '..'"]);
    check(
        ConfigMapKind,
        json!({"data": {"a": "x".repeat(1024 * 1024 + 1)}}),
        &["[]: Too long: may not be more than 1048576 bytes"],
    );
    let mut new = old.clone();
    new["data"]["a.b"] = "d".into();
    check_update(ConfigMapKind, &old, &new, &["data: Forbidden: field is immutable when `immutable` is set"]);

    let made = check(SecretKind, json!({"stringData": {"a": "b"}}), &[]);
    assert_eq!(
        (&made["data"], &made["type"], &made["stringData"]),
        (&json!({"a": "Yg=="}), &json!("Opaque"), &Value::Null)
    );
    check(
        SecretKind,
        json!({"type": "kubernetes.io/tls"}),
        &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
    );
    check(
        SecretKind,
        json!({"type": "kubernetes.io/service-account-token"}),
        &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
    );
    let mut new = made.clone();
    new["type"] = "x".into();
    check_update(SecretKind, &made, &new, &["type: Invalid value: \"x\": field is immutable"]);
}

#[test]
fn nodes() {
    let old = check(NodeKind, json!({"spec": {"podCIDR": "10.42.0.0/24"}}), &[]);
    assert_eq!(old["spec"]["podCIDRs"], json!(["10.42.0.0/24"]));
    let mut new = old.clone();
    new["spec"]["podCIDR"] = "10.42.1.0/24".into();
    new["spec"]["podCIDRs"] = json!(["10.42.1.0/24"]);
    let message = "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid";
    check_update(NodeKind, &old, &new, &[message]);
    check(
        NodeKind,
        json!({"spec": {"taints": [{"key": "a", "effect": "No"}]}}),
        &["metadata.taints[0].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \
           \"PreferNoSchedule\", \"NoExecute\""],
    );
}

#[test]
fn roles_and_bindings() {
    check(
        RoleKind,
        json!({"rules": [{"verbs": [], "resources": ["pods"]}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
        &[
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[1].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
        ],
    );
    let made = check(
        RoleBindingKind,
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"},
            {"kind": "ServiceAccount", "name": "s"}]}),
        &[],
    );
    assert_eq!(made["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(made["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(made["subjects"][1]["apiGroup"], Value::Null);
    let mut new = made.clone();
    new["roleRef"]["name"] = "other".into();
    let message = "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\
        \"name\":\"other\"}: cannot change roleRef";
    check_update(RoleBindingKind, &made, &new, &[message]);
    check(
        ClusterRoleBindingKind,
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}]}),
        &[
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            "subjects[0].namespace: Required value",
        ],
    );
}

#[test]
fn endpoints_slices_leases_priorities() {
    check(EndpointsKind, json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}), &[]);
    check(
        EndpointsKind,
        json!({"subsets": [{}, {"addresses": [{"ip": "169.254.1.1"}]}]}),
        &[
            "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
            "subsets[1].addresses[0].ip: Invalid value: \"169.254.1.1\": may not be in the link-local range \
             (169.254.0.0/16, fe80::/10)",
        ],
    );
    check(
        EndpointSliceKind,
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}, {"addresses": []}], "ports": []}),
        &[
            "endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address",
            "endpoints[1].addresses: Required value: must contain at least 1 address",
        ],
    );
    check(
        LeaseKind,
        json!({"spec": {"leaseDurationSeconds": 0}}),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    );
    let made = check(PriorityClassKind, json!({"value": 1000}), &[]);
    assert_eq!(made["preemptionPolicy"], "PreemptLowerPriority");
    check(
        PriorityClassKind,
        json!({"value": 1_000_000_001}),
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
    let mut new = made.clone();
    new["value"] = json!(1);
    check_update(PriorityClassKind, &made, &new, &["value: Forbidden: may not be changed in an update."]);
}
