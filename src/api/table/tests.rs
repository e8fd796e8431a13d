//! Golden tables of rows and columns.

use super::*;
use crate::api::resource::{RESOURCES, find_kind};

const CREATED: &str = "2026-01-01T00:00:00Z";

fn now() -> Timestamp {
    "2026-01-01T00:05:10Z".parse().unwrap()
}

/// `expect` has the cells with bars between them.
fn check(kind: (&str, &str), mut object: Value, expect: &str) {
    object["metadata"]["name"] = "x".into();
    object["metadata"]["creationTimestamp"] = CREATED.into();
    let cells = row(find_kind(kind.0, kind.1).unwrap(), &object, now()).cells;
    let cells: Vec<String> = cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
    assert_eq!(cells.join("|"), expect, "{object}");
}

fn pod(spec: Value, status: Value, expect: &str) {
    check(
        ("v1", "Pod"),
        json!({"spec": spec, "status": status}),
        &format!("x|{expect}|5m10s|<none>|<none>|<none>|<none>"),
    );
}

#[test]
fn every_row_has_a_cell_for_every_column() {
    for r in RESOURCES {
        assert_eq!(row(r, &json!({}), now()).cells.len(), columns(r).len(), "{}", r.kind);
    }
}

#[test]
fn pods_say_what_they_are_doing() {
    let one = || json!({"containers": [{"name": "a"}]});
    let two = || json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let running = |ready: bool| json!({"name": "a", "ready": ready, "restartCount": 0, "state": {"running": {}}});
    pod(one(), json!({"phase": "Pending"}), "0/1|Pending|0");
    pod(
        one(),
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
        "0/1|SchedulingGated|0",
    );
    pod(
        one(),
        json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}),
        "0/1|ContainerCreating|0",
    );
    pod(one(), json!({"phase": "Running", "containerStatuses": [running(true)]}), "1/1|Running|0");
    pod(one(), json!({"phase": "Running", "containerStatuses": [running(false)]}), "0/1|Running|0");
    pod(
        one(),
        json!({"phase": "Running", "containerStatuses": [{"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:10Z"}}}]}),
        "0/1|CrashLoopBackOff|3 (5m ago)",
    );
    pod(
        one(),
        json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 2}}}]}),
        "0/1|ExitCode:2|0",
    );
    pod(
        one(),
        json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
        "0/1|Signal:9|0",
    );
    pod(one(), json!({"phase": "Failed", "reason": "Evicted"}), "0/1|Evicted|0");
    pod(
        one(),
        json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
        "0/1|Completed|0",
    );
    let half = json!([{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, running(true)]);
    pod(
        two(),
        json!({"phase": "Running", "containerStatuses": half, "conditions": [{"type": "Ready", "status": "True"}]}),
        "1/2|Running|0",
    );
    pod(two(), json!({"phase": "Running", "containerStatuses": half}), "1/2|NotReady|0");
    let condition = row(find_kind("v1", "Pod").unwrap(), &json!({"status": {"phase": "Failed"}}), now()).conditions;
    assert_eq!(
        condition,
        [json!({"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."})]
    );
}

#[test]
fn pods_that_initialize_or_end() {
    let spec = || json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
    let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
    let waits = json!({"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}});
    pod(
        spec(),
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}, waits]}),
        "0/1|Init:0/2|0",
    );
    pod(spec(), json!({"phase": "Pending", "initContainerStatuses": [done, waits]}), "0/1|Init:1/2|0");
    pod(
        spec(),
        json!({"phase": "Pending", "initContainerStatuses": [done, {"name": "j", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
        "0/1|Init:CrashLoopBackOff|2",
    );
    pod(
        spec(),
        json!({"phase": "Failed", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
        "0/1|Init:Error|0",
    );
    pod(
        json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]}),
        json!({"phase": "Running", "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [{"ready": true, "restartCount": 1, "state": {"running": {}}}]}),
        "2/2|Running|2",
    );
    let deleted = |status: Value, expect: &str| {
        let object = json!({"metadata": {"deletionTimestamp": CREATED}, "spec": {"containers": [{}], "nodeName": "n", "readinessGates": [{"conditionType": "g"}]}, "status": status});
        check(("v1", "Pod"), object, expect);
    };
    deleted(
        json!({"phase": "Running", "podIP": "10.42.0.5", "nominatedNodeName": "m"}),
        "x|0/1|Terminating|0|5m10s|10.42.0.5|n|m|0/1",
    );
    deleted(json!({"phase": "Running", "reason": "NodeLost"}), "x|0/1|Unknown|0|5m10s|<none>|n|<none>|0/1");
    deleted(
        json!({"phase": "Succeeded", "podIPs": [{"ip": "fd00::1"}]}),
        "x|0/1|Succeeded|0|5m10s|fd00::1|n|<none>|0/1",
    );
}

#[test]
fn nodes() {
    let node = |status: &str| {
        json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
        "status": {"conditions": [{"type": "Ready", "status": status}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "nodeInfo": {"kubeletVersion": "v1.36.0+skiff1", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "containerd://1.6"}}})
    };
    check(
        ("v1", "Node"),
        node("True"),
        "x|Ready|edge,worker|5m10s|v1.36.0+skiff1|10.0.0.1|<none>|Debian|6.1|containerd://1.6",
    );
    let mut cordoned = node("Unknown");
    cordoned["spec"]["unschedulable"] = true.into();
    check(
        ("v1", "Node"),
        cordoned,
        "x|NotReady,SchedulingDisabled|edge,worker|5m10s|v1.36.0+skiff1|10.0.0.1|<none>|Debian|6.1|containerd://1.6",
    );
    check(("v1", "Node"), json!({}), "x|Unknown|<none>|5m10s||<none>|<none>|<unknown>|<unknown>|<unknown>");
}

#[test]
fn services_and_their_endpoints() {
    let service = |spec: Value| json!({"spec": spec});
    check(
        ("v1", "Service"),
        service(json!({"type": "ClusterIP", "clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1"],
        "ports": [{"port": 443, "protocol": "TCP"}], "selector": {"b": "2", "a": "1"}})),
        "x|ClusterIP|10.43.0.1|<none>|443/TCP|5m10s|a=1,b=2",
    );
    check(
        ("v1", "Service"),
        service(json!({"type": "NodePort", "clusterIP": "None", "externalIPs": ["1.2.3.4"],
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]})),
        "x|NodePort|None|1.2.3.4|80:30080/TCP,53/UDP|5m10s|<none>",
    );
    check(
        ("v1", "Service"),
        service(json!({"type": "LoadBalancer"})),
        "x|LoadBalancer|<none>|<pending>|<none>|5m10s|<none>",
    );
    check(
        ("v1", "Service"),
        service(json!({"type": "ExternalName", "externalName": "a.example"})),
        "x|ExternalName|<none>|a.example|<none>|5m10s|<none>",
    );
    let address = |n: u8| json!({"ip": format!("10.42.0.{n}")});
    check(
        ("v1", "Endpoints"),
        json!({"subsets": [{"addresses": [address(1), address(2)], "ports": [{"port": 80}, {"port": 81}]}]}),
        "x|10.42.0.1:80,10.42.0.2:80,10.42.0.1:81 + 1 more...|5m10s",
    );
    check(
        ("v1", "Endpoints"),
        json!({"subsets": [{"addresses": [address(1), {"ip": "fd00::1"}]}]}),
        "x|10.42.0.1,fd00::1|5m10s",
    );
    check(("v1", "Endpoints"), json!({}), "x|<none>|5m10s");
    check(
        ("discovery.k8s.io/v1", "EndpointSlice"),
        json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "n"}, {}],
        "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]}, {"addresses": ["10.0.0.4"]}]}),
        "x|IPv4|80,n,*|10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...|5m10s",
    );
    check(("discovery.k8s.io/v1", "EndpointSlice"), json!({"addressType": "IPv4"}), "x|IPv4|<unset>|<unset>|5m10s");
}

#[test]
fn workloads() {
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"app": "w"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]},
        "template": {"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j"}]}}});
    check(
        ("apps/v1", "Deployment"),
        json!({"spec": spec, "status": {"readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2}}),
        "x|2/3|1|2|5m10s|c,d|i:1,j|a in (x,y),app=w",
    );
    check(
        ("apps/v1", "ReplicaSet"),
        json!({"spec": spec, "status": {"replicas": 3}}),
        "x|3|3|0|5m10s|c,d|i:1,j|a in (x,y),app=w",
    );
}

#[test]
fn the_rest() {
    check(("v1", "Namespace"), json!({"status": {"phase": "Active"}}), "x|Active|5m10s");
    check(("v1", "ConfigMap"), json!({"data": {"a": "", "b": ""}, "binaryData": {"c": ""}}), "x|3|5m10s");
    check(("v1", "Secret"), json!({"type": "Opaque", "data": {"a": ""}}), "x|Opaque|1|5m10s");
    check(("v1", "ServiceAccount"), json!({}), "x|0|5m10s");
    check(("coordination.k8s.io/v1", "Lease"), json!({"spec": {"holderIdentity": "me"}}), "x|me|5m10s");
    check(
        ("scheduling.k8s.io/v1", "PriorityClass"),
        json!({"value": 5, "preemptionPolicy": "Never"}),
        "x|5|false|5m10s|Never",
    );
    check(("rbac.authorization.k8s.io/v1", "ClusterRole"), json!({}), "x|2026-01-01T00:00:00Z");
    check(
        ("rbac.authorization.k8s.io/v1", "RoleBinding"),
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [
        {"kind": "User", "name": "u"}, {"kind": "User", "name": "v"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
        "x|Role/r|5m10s|u, v||n/s",
    );
    check(
        ("v1", "Event"),
        json!({"type": "Normal", "reason": "Pulled", "message": " done \n", "count": 4, "source": {"component": "kubelet", "host": "n"},
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"}, "firstTimestamp": CREATED, "lastTimestamp": "2026-01-01T00:05:00Z"}),
        "10s|Normal|Pulled|pod/p|spec.containers{c}|kubelet, n|done|5m10s|4|x",
    );
    check(
        ("events.k8s.io/v1", "Event"),
        json!({"type": "Warning", "reason": "R", "note": "n", "eventTime": "2026-01-01T00:05:00.000000Z",
        "regarding": {"kind": "Node"}, "reportingController": "c", "reportingInstance": "i"}),
        "10s|Warning|R|node||c, i|n|10s|1|x",
    );
}

#[test]
fn a_table_carries_what_was_asked_for() {
    let resource = find_kind("v1", "Namespace").unwrap();
    let object = json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}});
    let of = |include| {
        table(resource, [&object], &json!({"resourceVersion": "5"}), include, now())["rows"][0]["object"].clone()
    };
    assert_eq!(of(Include::None), Value::Null);
    assert_eq!(of(Include::Object), object);
    assert_eq!(
        of(Include::Metadata),
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}})
    );
    let columns = &table(resource, [], &json!({}), Include::None, now())["columnDefinitions"];
    assert_eq!(columns[0]["format"], "name");
    assert_eq!(columns[1]["name"], "Status");
}

#[test]
fn workloads_say_how_far_they_are() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeSelector": {"disk": "ssd"},
        "containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}});
    check(
        ("apps/v1", "StatefulSet"),
        json!({"spec": {"replicas": 3, "template": template}, "status": {"readyReplicas": 2}}),
        "x|2/3|5m10s|c,d|i,j",
    );
    check(
        ("apps/v1", "DaemonSet"),
        json!({"spec": {"template": template, "selector": {"matchLabels": {"a": "b"}}}, "status": {
            "desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3, "updatedNumberScheduled": 2,
            "numberAvailable": 1}}),
        "x|5|4|3|2|1|disk=ssd|5m10s|c,d|i,j|a=b",
    );
    check(
        ("v1", "ReplicationController"),
        json!({"spec": {"replicas": 3, "template": template, "selector": {"a": "b"}}, "status": {"replicas": 2}}),
        "x|3|2|0|5m10s|c,d|i,j|a=b",
    );
    check(
        ("apps/v1", "ControllerRevision"),
        json!({"revision": 7, "metadata": {"ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]}}),
        "x|statefulset.apps/web|7|5m10s",
    );
    check(("v1", "PodTemplate"), json!({"template": template}), "x|c,d|i,j|a=b");
}
