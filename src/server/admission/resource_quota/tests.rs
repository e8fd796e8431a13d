//! Tables: what objects use of quotas, and what of it is let through.

use jiff::Timestamp;
use serde_json::json;

use super::subject::Subject;
use super::*;
use crate::api::resource::find_kind;
use crate::api::user::User;
use crate::server::objects::fake::Fake;
use crate::server::registry::request::Context;

fn usage_at(storage: &str, object: &Value, now: &str) -> String {
    usage_among(&Fake::default(), storage, object, now)
}

fn usage_among(objects: &Fake, storage: &str, object: &Value, now: &str) -> String {
    let now: Timestamp = now.parse().unwrap();
    let (usage, _) = Subject::of_value(storage, object).usage(Place { objects, namespace: "x" }, now);
    usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
}

fn check(storage: &str, object: Value, expect: &str) {
    assert_eq!(usage_at(storage, &object, "2026-01-01T00:00:00Z"), expect, "{object}");
}

fn container(resources: Value) -> Value {
    json!({"name": "c", "resources": resources})
}

#[test]
fn pods_use_what_they_ask_for() {
    let asked = json!({"requests": {"cpu": "1", "memory": "1Gi", "hugepages-2Mi": "4Mi", "example.com/dongle": "2",
        "ephemeral-storage": "1Gi"}, "limits": {"cpu": "2", "example.com/dongle": "2"}});
    check(
        PODS,
        json!({"spec": {"containers": [container(asked)]}}),
        "count/pods=1 cpu=1 ephemeral-storage=1Gi hugepages-2Mi=4Mi limits.cpu=2 memory=1Gi pods=1 requests.cpu=1 \
         requests.ephemeral-storage=1Gi requests.example.com/dongle=2 requests.hugepages-2Mi=4Mi requests.memory=1Gi",
    );
    let cpu = |n: &str| container(json!({"requests": {"cpu": n}, "limits": {"cpu": n}}));
    check(
        PODS,
        json!({"spec": {"containers": [cpu("1")], "overhead": {"cpu": "100m", "memory": "8Mi"}}}),
        "count/pods=1 cpu=1100m limits.cpu=1100m memory=8Mi pods=1 requests.cpu=1100m requests.memory=8Mi",
    );
    check(PODS, json!({"spec": {"containers": []}, "status": {"phase": "Failed"}}), "count/pods=1");
    // What a node still gives a container that is to have less.
    let status = json!({"containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "", "imageID": "",
        "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "3"}}, "allocatedResources": {"cpu": "1"}}]});
    check(
        PODS,
        json!({"spec": {"containers": [cpu("1")]}, "status": status}),
        "count/pods=1 cpu=2 limits.cpu=3 pods=1 requests.cpu=2",
    );
}

#[test]
fn a_pod_that_does_not_go_is_not_charged_for_ever() {
    let pod = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30},
        "spec": {"containers": []}});
    assert_eq!(usage_at(PODS, &pod, "2026-01-01T00:01:00Z"), "count/pods=1 pods=1");
    assert_eq!(usage_at(PODS, &pod, "2026-01-01T00:01:01Z"), "count/pods=1");
}

#[test]
fn services_use_ports_and_balancers() {
    let service = |mut spec: Value| {
        spec["ports"] = json!([{"port": 1, "nodePort": 30001}, {"port": 2}]);
        json!({"spec": spec})
    };
    let used = |ports: u8, balancers: u8| {
        format!("count/services=1 services=1 services.loadbalancers={balancers} services.nodeports={ports}")
    };
    check(SERVICES, service(json!({"type": "ClusterIP"})), &used(0, 0));
    check(SERVICES, service(json!({"type": "NodePort"})), &used(2, 0));
    check(SERVICES, service(json!({"type": "LoadBalancer"})), &used(2, 1));
    check(SERVICES, service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false})), &used(1, 1));
}

#[test]
fn claims_use_storage_of_their_class() {
    let claim = |class: Value, given: Value| {
        json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": given}})
    };
    let count = "count/persistentvolumeclaims=1";
    check(
        CLAIMS,
        claim(json!("gold"), json!({})),
        &format!(
            "{count} gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
            gold.storageclass.storage.k8s.io/requests.storage=1Gi persistentvolumeclaims=1 requests.storage=1Gi"
        ),
    );
    check(
        CLAIMS,
        claim(json!(""), json!({"storage": "2Gi"})),
        &format!("{count} persistentvolumeclaims=1 requests.storage=2Gi"),
    );
    let half = json!({"spec": {"resources": {"requests": {"storage": "1500m"}}}});
    check(CLAIMS, half, &format!("{count} persistentvolumeclaims=1 requests.storage=2"));
}

#[test]
fn device_claims_use_the_most_that_they_may_get() {
    let exactly = |class: &str, more: Value| {
        let mut exactly = json!({"deviceClassName": class});
        exactly.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": "r", "exactly": exactly})
    };
    let first = json!({"name": "f", "firstAvailable": [
        {"name": "a", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3},
        {"name": "b", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 5},
        {"name": "c", "deviceClassName": "nic", "allocationMode": "All"}]});
    let requests = json!([exactly("gpu", json!({"allocationMode": "ExactCount", "count": 2})), first]);
    check(
        DEVICE_CLAIMS,
        json!({"spec": {"devices": {"requests": requests}}}),
        "count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=7 \
         nic.deviceclass.resource.k8s.io/devices=32 requests.deviceclass.resource.kubernetes.io/gpu=7 \
         requests.deviceclass.resource.kubernetes.io/nic=32",
    );
}

fn class(name: &str, resource: &str) -> Value {
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": name},
        "spec": {"extendedResourceName": resource}})
}

/// Asks for one device by the name of its resource.
fn asking(name: &str, resource: &str, status: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "x", "uid": name}, "status": status,
        "spec": {"containers": [container(json!({"requests": {resource: "1"}}))]}})
}

/// Made by the scheduler for such a pod.
fn made(name: &str, pod: &str, created: &str) -> Value {
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": pod, "controller": true});
    let request =
        json!({"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1}});
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "spec": {"devices": {"requests": [request]}},
        "metadata": {"name": name, "namespace": "x", "creationTimestamp": created, "ownerReferences": [owner],
            "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"}}})
}

#[test]
fn what_a_pod_is_charged_with_its_claim_is_not() {
    let (now, early, late) = ("2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z");
    let (named, own) = ("example.com/gpu", "deviceclass.resource.kubernetes.io/gpu");
    let [of_named, of_own] = [named, own].map(|name| format!(" requests.{name}=1"));
    let check = |objects: &[&Value], claim: &Value, expect: &str| {
        let all = Fake::default();
        objects.iter().for_each(|object| all.put((*object).clone()));
        let counted = "count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=1";
        assert_eq!(usage_among(&all, DEVICE_CLAIMS, claim, now), format!("{counted}{expect}"), "{objects:?}");
    };
    let (class, claim) = (class("gpu", named), made("c", "p", late));
    let both = format!("{of_own}{of_named}");
    check(&[&class], &claim, &both);
    check(&[&class, &asking("p", named, &json!({}))], &claim, &of_own);
    check(&[&class, &asking("p", own, &json!({}))], &claim, &of_named);
    check(&[&asking("p", own, &json!({}))], &claim, "");
    // Only for one claim, and that its own.
    let told =
        |claim: &str| json!({"extendedResourceClaimStatus": {"resourceClaimName": claim, "requestMappings": []}});
    check(&[&class, &asking("p", named, &told("c")), &made("b", "p", early)], &claim, &of_own);
    check(&[&class, &asking("p", named, &told("b"))], &claim, &both);
    check(&[&class, &asking("p", named, &json!({})), &made("b", "p", early)], &claim, &both);
    check(&[&class, &asking("p", named, &json!({})), &made("d", "p", late)], &claim, &of_own);
    let mut another = asking("p", named, &json!({}));
    another["metadata"]["uid"] = json!("q");
    check(&[&class, &another], &claim, &both);
    let pod = usage_at(PODS, &asking("p", own, &json!({})), now);
    assert_eq!(pod, format!("count/pods=1 pods=1{of_own}"));
}

#[test]
fn pods_and_claims_share_what_is_left_of_a_resource() {
    let room = Room::new(json!({"hard": {"requests.example.com/gpu": "2"}}));
    room.objects.put(class("gpu", "example.com/gpu"));
    room.objects.put(asking("p", "example.com/gpu", &json!({})));
    assert_eq!(room.used(), "requests.example.com/gpu=1");
    room.objects.put(made("c", "p", "2026-01-01T00:00:00Z"));
    assert_eq!(room.used(), "requests.example.com/gpu=1", "it is the pod's");
    let held = room.ask(&made("d", "nobody", "2026-01-01T00:00:00Z"), None, false).unwrap().expect("room");
    let refused = "pods \"q\" is forbidden: exceeded quota: q, requested: requests.example.com/gpu=1, used: \
                   requests.example.com/gpu=2, limited: requests.example.com/gpu=2";
    let pod = asking("q", "example.com/gpu", &json!({}));
    assert_eq!(room.ask(&pod, None, false).err().as_deref(), Some(refused));
    drop(held);
    assert!(room.ask(&pod, None, false).is_ok());
    // The devices of the class stand for something else by now.
    room.objects.put(made("d", "nobody", "2026-01-01T00:00:00Z"));
    assert_eq!(room.used(), "requests.example.com/gpu=2");
    room.objects.put(class("gpu", "example.com/other"));
    assert_eq!(room.used(), "requests.example.com/gpu=1");
}

#[test]
fn scopes_hold_of_some() {
    let holds = |storage: &str, object: Value, scope: Value| {
        Subject::of_value(storage, &object).is_in(&serde_json::from_value(scope).unwrap())
    };
    let exists = |scope: &str| json!({"scopeName": scope, "operator": "Exists"});
    let pod = |spec: Value| {
        let mut pod = json!({"spec": {"containers": [container(json!({}))]}});
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        pod
    };
    let term = |term: Value| {
        json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": term}]}}})
    };
    let class = |operator: &str| json!({"scopeName": "PriorityClass", "operator": operator, "values": ["high"]});
    let high = json!({"priorityClassName": "high"});
    for (spec, scope, expect) in [
        (json!({}), exists("BestEffort"), true),
        (json!({}), exists("NotBestEffort"), false),
        (json!({}), exists("Terminating"), false),
        (json!({"activeDeadlineSeconds": 0}), exists("Terminating"), true),
        (json!({"activeDeadlineSeconds": 0}), exists("NotTerminating"), false),
        (high.clone(), exists("PriorityClass"), true),
        (json!({}), exists("PriorityClass"), false),
        (high.clone(), class("In"), true),
        (json!({"priorityClassName": "low"}), class("In"), false),
        (high, class("NotIn"), false),
        (json!({}), class("NotIn"), true),
        (term(json!({"topologyKey": "k"})), exists("CrossNamespacePodAffinity"), false),
        (term(json!({"topologyKey": "k", "namespaces": ["y"]})), exists("CrossNamespacePodAffinity"), true),
        (term(json!({"topologyKey": "k", "namespaceSelector": {}})), exists("CrossNamespacePodAffinity"), true),
    ] {
        assert_eq!(holds(PODS, pod(spec.clone()), scope.clone()), expect, "{spec} {scope}");
    }
    let attributes = |values: Value| json!({"scopeName": "VolumeAttributesClass", "operator": "In", "values": values});
    let claim =
        json!({"spec": {"volumeAttributesClassName": "new"}, "status": {"currentVolumeAttributesClassName": "old"}});
    for (values, expect) in [(json!(["old"]), true), (json!(["new"]), true), (json!(["other"]), false)] {
        assert_eq!(holds(CLAIMS, claim.clone(), attributes(values)), expect);
    }
    assert!(!holds("configmaps", json!({}), exists("BestEffort")));
}

/// A namespace `x` with a quota `q`.
struct Room {
    objects: Arc<Fake>,
    ledger: Arc<Ledger>,
}

impl Room {
    fn new(spec: Value) -> Self {
        let objects = Fake::new([json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "q", "namespace": "x"}, "spec": spec})]);
        Self { ledger: Ledger::new(objects.clone()), objects }
    }

    fn ask(&self, object: &Value, old: Option<&Value>, dry_run: bool) -> Result<Option<Reservation>, String> {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let cx = Context::new(User::new("u", &[]));
        let name = text(&object["metadata"]["name"]);
        let attributes = Attributes {
            cx: &cx,
            operation: if old.is_some() { Operation::Update } else { Operation::Create },
            resource: find_kind(&text(&object["apiVersion"]), &text(&object["kind"])).unwrap(),
            subresource: "",
            namespace: "x",
            name: &name,
            old,
            dry_run,
        };
        self.ledger.reserve(&attributes, object).map_err(|status| status.message().to_owned())
    }

    fn used(&self) -> String {
        let used = self.ledger.measure("x", "q").unwrap().used;
        used.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    }
}

fn claim(name: &str, storage: &str, class: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "x"},
        "spec": {"volumeAttributesClassName": class, "resources": {"requests": {"storage": storage}}}})
}

#[test]
fn room_is_held_until_it_is_known_what_became_of_it() {
    let room = Room::new(json!({"hard": {"requests.storage": "3Gi", "persistentvolumeclaims": "9"}}));
    let held = room.ask(&claim("a", "2Gi", "c"), None, false).unwrap().expect("room");
    let refused = "persistentvolumeclaims \"b\" is forbidden: exceeded quota: q, requested: requests.storage=2Gi, used: \
                   requests.storage=2Gi, limited: requests.storage=3Gi";
    assert_eq!(room.ask(&claim("b", "2Gi", "c"), None, false).err().as_deref(), Some(refused));
    assert_eq!(room.used(), "persistentvolumeclaims=0 requests.storage=0");
    // Stored, and still held: counted once.
    room.objects.put(claim("a", "2Gi", "c"));
    assert_eq!(room.used(), "persistentvolumeclaims=1 requests.storage=2Gi");
    assert!(room.ask(&claim("b", "1Gi", "c"), None, true).unwrap().is_none());
    drop(room.ask(&claim("b", "1Gi", "c"), None, false).unwrap().expect("room"));
    drop(held);
    assert_eq!(room.ask(&claim("b", "2Gi", "c"), None, false).err().as_deref(), Some(refused));
    // More for one that is there: only what is new counts.
    let old = claim("a", "2Gi", "c");
    assert!(room.ask(&claim("a", "3Gi", "c"), Some(&old), false).unwrap().is_some());
    assert!(room.ask(&claim("a", "4Gi", "c"), Some(&old), false).is_err());
    assert!(room.ask(&claim("a", "1Gi", "c"), Some(&old), false).unwrap().is_none());
    room.objects.remove(CLAIMS, "x", "a");
    assert_eq!(room.used(), "persistentvolumeclaims=0 requests.storage=0");
}

#[test]
fn what_comes_into_a_scope_is_new_to_it() {
    let scope =
        json!({"matchExpressions": [{"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["fast"]}]});
    let room = Room::new(json!({"hard": {"requests.storage": "1Gi"}, "scopeSelector": scope}));
    room.objects.put(claim("a", "2Gi", "slow"));
    assert_eq!(room.used(), "requests.storage=0");
    let old = claim("a", "2Gi", "slow");
    let refused = "persistentvolumeclaims \"a\" is forbidden: exceeded quota: q, requested: requests.storage=2Gi, used: \
                   requests.storage=0, limited: requests.storage=1Gi";
    assert_eq!(room.ask(&claim("a", "2Gi", "fast"), Some(&old), false).err().as_deref(), Some(refused));
    assert!(room.ask(&claim("a", "3Gi", "slow"), Some(&old), false).unwrap().is_none());
}

#[test]
fn a_quota_that_changes_measures_again() {
    let room = Room::new(json!({"hard": {"persistentvolumeclaims": "1"}}));
    room.objects.put(claim("a", "2Gi", "c"));
    let held = room.ask(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}), None, false);
    assert!(held.unwrap().is_none());
    assert_eq!(room.used(), "persistentvolumeclaims=1");
    room.objects.put(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "x"},
        "spec": {"hard": {"requests.storage": "3Gi", "configmaps": "1", "count/nothing.example.com": "1", "bandwidth": "1"}}}));
    assert_eq!(room.used(), "configmaps=0 requests.storage=2Gi");
    assert_eq!(room.ledger.measure("x", "q").unwrap().hard.len(), 4);
    room.objects.remove(QUOTAS, "x", "q");
    assert!(room.ledger.measure("x", "q").is_none() && room.ledger.measure("y", "q").is_none());
}

#[test]
fn a_pod_says_what_a_quota_limits() {
    let room = Room::new(json!({"hard": {"cpu": "2", "limits.memory": "1Gi"}}));
    let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "x"}, "spec": spec});
    let limited = container(json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}));
    let silent = json!({"name": "s", "resources": {"requests": {"memory": "1"}}});
    let refused = "pods \"p\" is forbidden: failed quota: q: must specify cpu for: i,s; limits.memory for: i,s";
    let spec = json!({"containers": [limited, silent], "initContainers": [{"name": "i"}]});
    assert_eq!(room.ask(&pod(spec), None, false).err().as_deref(), Some(refused));
    assert!(room.ask(&pod(json!({"containers": [limited]})), None, false).is_ok());
    let whole = json!({"containers": [{"name": "s"}], "resources": {"requests": {"cpu": "1"}}});
    assert!(room.ask(&pod(whole), None, false).is_ok());
}
