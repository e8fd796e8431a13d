//! Tables of what limits of a namespace add and refuse.

use super::*;
use crate::server::admission::limit_ranger::LimitRanger;

fn range(items: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r", "namespace": "x"}, "spec": {"limits": items}})
}

fn create_with(items: Value, object: &Value) -> Result<Value, String> {
    ask(&LimitRanger::new(Fake::new([range(items)])), &create(admin()), object)
}

fn asking(name: &str, requests: Value, limits: Value) -> Value {
    json!({"name": name, "resources": {"requests": requests, "limits": limits}})
}

/// What is said of a pod with these containers.
fn check(items: Value, containers: Value, why: &str) {
    let pod = pod("x", json!({"containers": containers}));
    let expect = if why.is_empty() { Ok(()) } else { Err(format!("pods \"web\" is forbidden: {why}")) };
    assert_eq!(create_with(items.clone(), &pod).map(drop), expect, "{items} {containers}");
}

#[test]
fn containers_that_say_nothing_get_the_defaults() {
    let items =
        json!([{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]);
    let spec = json!({"initContainers": [{"name": "i"}],
        "containers": [asking("a", json!({"cpu": "2"}), json!({"memory": "2Gi"}))]});
    let got = create_with(items, &pod("x", spec)).unwrap();
    assert_eq!(
        got["spec"],
        json!({
            "initContainers": [asking("i", json!({"cpu": "100m"}), json!({"cpu": "1", "memory": "1Gi"}))],
            "containers": [asking("a", json!({"cpu": "2"}), json!({"cpu": "1", "memory": "2Gi"}))],
        })
    );
    let told = "LimitRanger plugin set: cpu limit for container a; cpu request for init container i; cpu, memory limit for \
                init container i";
    assert_eq!(got["metadata"]["annotations"]["kubernetes.io/limit-ranger"], told);
}

#[test]
fn each_container_keeps_to_its_bounds() {
    let bounds = |field: &str, value: &str| {
        let mut item = json!({"type": "Container"});
        item[field]["cpu"] = json!(value);
        json!([item])
    };
    let one = |requests: Value, limits: Value| json!([asking("a", requests, limits)]);
    let cpu = |n: &str| json!({"cpu": n});
    check(bounds("min", "100m"), one(cpu("100m"), json!({})), "");
    check(
        bounds("min", "100m"),
        one(json!({}), json!({})),
        "minimum cpu usage per Container is 100m.  No request is specified",
    );
    check(
        bounds("min", "100m"),
        one(cpu("50m"), cpu("1")),
        "minimum cpu usage per Container is 100m, but request is 50m",
    );
    check(bounds("min", "1"), one(cpu("1"), cpu("500m")), "minimum cpu usage per Container is 1, but limit is 500m");
    check(bounds("max", "1"), one(cpu("1"), json!({})), "maximum cpu usage per Container is 1.  No limit is specified");
    check(bounds("max", "1"), one(cpu("1"), cpu("2")), "maximum cpu usage per Container is 1, but limit is 2");
    check(bounds("max", "1"), one(cpu("2"), cpu("1")), "maximum cpu usage per Container is 1, but request is 2");
    let ratio = || bounds("maxLimitRequestRatio", "2");
    check(ratio(), one(cpu("1"), cpu("2")), "");
    check(
        ratio(),
        one(cpu("1"), cpu("3")),
        "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
    );
    check(
        ratio(),
        one(json!({}), cpu("3")),
        "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
    );
    check(
        ratio(),
        one(cpu("1"), json!({})),
        "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
    );
    check(
        json!([{"type": "Container", "min": {"cpu": "1", "memory": "1Gi"}}]),
        one(cpu("500m"), json!({})),
        "[minimum cpu usage per Container is 1, but request is 500m, minimum memory usage per Container is 1Gi.  No \
         request is specified]",
    );
}

#[test]
fn a_pod_is_the_sum_of_its_containers() {
    let most = json!([{"type": "Pod", "max": {"cpu": "1"}}]);
    let half = |name: &str| asking(name, json!({}), json!({"cpu": "600m"}));
    check(most.clone(), json!([half("a")]), "");
    check(most, json!([half("a"), half("b")]), "maximum cpu usage per Pod is 1, but limit is 1200m");
}

#[test]
fn claims_keep_to_their_bounds() {
    let claim = |size: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "x"},
               "spec": {"resources": {"requests": {"storage": size}}}})
    };
    let items = json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]);
    assert!(create_with(items.clone(), &claim("1Gi")).is_ok());
    for (size, why) in [
        ("1Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"),
        ("3Gi", "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
    ] {
        let expect = Err(format!("persistentvolumeclaims \"c\" is forbidden: {why}"));
        assert_eq!(create_with(items.clone(), &claim(size)).map(drop), expect);
    }
}
