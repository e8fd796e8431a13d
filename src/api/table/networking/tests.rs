//! Golden rows.

use serde_json::json;

use super::*;

/// `expect` has the cells with bars between them. Five minutes have passed.
fn check(row: &[Value], expect: &str) {
    let cells: Vec<&str> = row.iter().map(|cell| cell.as_str().unwrap_or_default()).collect();
    assert_eq!(cells.join("|"), expect);
}

fn named(mut object: Value) -> Value {
    object["metadata"]["name"] = "x".into();
    object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    object
}

fn now() -> Timestamp {
    "2026-01-01T00:05:00Z".parse().unwrap()
}

#[test]
fn ingresses() {
    let row = |object: Value, expect: &str| check(&ingress(&named(object), now()), expect);
    row(json!({"spec": {"defaultBackend": {}}}), "x|<none>|*||80|5m");
    row(
        json!({"spec": {"ingressClassName": "c", "rules": [{"host": "a"}, {}, {"host": "b"}, {"host": "c"}], "tls": [{}]},
            "status": {"loadBalancer": {"ingress": [{"hostname": "b"}, {"ip": "a"}, {"ip": "a"}]}}}),
        "x|c|a,b,c|a,b|80, 443|5m",
    );
    row(
        json!({"spec": {"rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}, {}]}}),
        "x|<none>|a,b,c + 2 more...||80|5m",
    );
    let row = |object: Value, expect: &str| check(&ingress_class(&named(object), now()), expect);
    row(json!({"spec": {"controller": "a/b"}}), "x|a/b|<none>|5m");
    row(
        json!({"metadata": {"annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
            "spec": {"controller": "a/b", "parameters": {"apiGroup": "g.h", "kind": "K", "name": "n"}}}),
        "x (default)|a/b|K.g.h/n|5m",
    );
    let core = json!({"spec": {"controller": "a/b", "parameters": {"kind": "K", "name": "n"}}});
    row(core, "x|a/b|K/n|5m");
}

#[test]
fn policies_ranges_and_addresses() {
    let row = |object: Value, expect: &str| check(&network_policy(&named(object), now()), expect);
    row(json!({"spec": {"podSelector": {}}}), "x|<none>|5m");
    row(json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}), "x|a=b|5m");
    let cidr = json!({"spec": {"cidrs": ["10.0.0.0/8", "fd00::/112"]}});
    check(&service_cidr(&named(cidr), now()), "x|10.0.0.0/8,fd00::/112|5m");
    let row = |parent: Value, expect: &str| check(&ip_address(&named(json!({"spec": {"parentRef": parent}}))), expect);
    row(Value::Null, "x|<none>");
    row(json!({"resource": "services", "namespace": "a", "name": "b"}), "x|services/a/b");
    row(json!({"group": "G.h", "resource": "gateways", "name": "b"}), "x|gateways.g.h/b");
    check(&runtime_class(&named(json!({"handler": "crun"})), now()), "x|crun|5m");
}

#[test]
fn signing_requests() {
    let row = |conditions: &[&str], certificate: &str, expect: &str| {
        let conditions: Vec<Value> = conditions.iter().map(|kind| json!({"type": kind})).collect();
        let object = json!({"spec": {"signerName": "a.b/c", "username": "u", "expirationSeconds": 3600},
            "status": {"conditions": conditions, "certificate": certificate}});
        check(&signing_request(&named(object), now()), &format!("x|5m|a.b/c|u|60m|{expect}"));
    };
    row(&[], "", "Pending");
    row(&["Approved"], "Yg==", "Approved,Issued");
    row(&["Approved", "Failed"], "", "Approved,Failed");
    row(&["Approved", "Denied"], "", "Denied");
    check(&signing_request(&named(json!({})), now()), "x|5m|<none>||<none>|Pending");
}
