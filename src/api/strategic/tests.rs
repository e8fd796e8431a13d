//! Tables of strategic merges.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::schema;

fn apply(kind: (&str, &str), original: &Value, patch: &Value) -> Result<Value, Status> {
    merge(original, patch, schema::find(kind.0, "v1", kind.1).unwrap())
}

fn check(kind: (&str, &str), original: Value, patch: Value, expect: Value) {
    let merged = apply(kind, &original, &patch).unwrap_or_else(|e| panic!("{patch}: {e}"));
    assert_eq!(merged, expect, "{patch}");
}

const DEPLOYMENT: (&str, &str) = ("apps", "Deployment");
const POD: (&str, &str) = ("", "Pod");
const NODE: (&str, &str) = ("", "Node");
const SERVICE: (&str, &str) = ("", "Service");

fn deployment(containers: Value) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "template": {"spec": {"containers": containers}}}})
}

#[test]
fn what_kubectl_sends() {
    // kubectl scale (a merge of a number) and kubectl label (add, change, remove)
    check(
        DEPLOYMENT,
        json!({"spec": {"replicas": 2}}),
        json!({"spec": {"replicas": 5}}),
        json!({"spec": {"replicas": 5}}),
    );
    check(
        POD,
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"a": null, "b": "3", "c": "4"}}}),
        json!({"metadata": {"labels": {"b": "3", "c": "4"}}}),
    );
    // kubectl set image
    check(
        DEPLOYMENT,
        deployment(
            json!([{"name": "a", "image": "x:1", "env": [{"name": "E", "value": "1"}]}, {"name": "b", "image": "y:1"}]),
        ),
        json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "a", "image": "x:2"}]}}}}),
        deployment(
            json!([{"name": "a", "image": "x:2", "env": [{"name": "E", "value": "1"}]}, {"name": "b", "image": "y:1"}]),
        ),
    );
    // kubectl taint sends the whole list: taints do not merge
    check(
        NODE,
        json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"}]}}),
        json!({"spec": {"taints": [{"key": "c", "value": "v", "effect": "NoSchedule"}]}}),
        json!({"spec": {"taints": [{"key": "c", "value": "v", "effect": "NoSchedule"}]}}),
    );
    // kubectl rollout undo
    check(
        DEPLOYMENT,
        deployment(json!([{"name": "a", "image": "x:2"}, {"name": "b", "image": "y"}])),
        json!({"spec": {"template": {"$patch": "replace", "spec": {"containers": [{"name": "a", "image": "x:1"}]}}}}),
        deployment(json!([{"name": "a", "image": "x:1"}])),
    );
    // kubectl replace of a whole merged list
    check(
        DEPLOYMENT,
        deployment(json!([{"name": "a"}, {"name": "b"}])),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}, {"$patch": "replace"}]}}}}),
        deployment(json!([{"name": "c"}])),
    );
    // kubectl cordon, uncordon
    check(
        NODE,
        json!({"spec": {"podCIDR": "x"}}),
        json!({"spec": {"unschedulable": true}}),
        json!({"spec": {"podCIDR": "x", "unschedulable": true}}),
    );
    check(
        NODE,
        json!({"spec": {"podCIDR": "x", "unschedulable": true}}),
        json!({"spec": {"unschedulable": null}}),
        json!({"spec": {"podCIDR": "x"}}),
    );
    // kubectl rollout restart
    check(
        DEPLOYMENT,
        json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}),
        json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "t"}}}}}),
        json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}, "annotations": {"kubectl.kubernetes.io/restartedAt": "t"}}}}}),
    );
    // kubectl apply of a Deployment without its second container
    check(
        DEPLOYMENT,
        deployment(
            json!([{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "y"}]),
        ),
        json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"image": "x:2", "name": "a"}, {"$patch": "delete", "name": "b"}]}}}}),
        deployment(json!([{"name": "a", "image": "x:2", "ports": [{"containerPort": 80}]}])),
    );
    // kubectl apply: a port added, one removed
    check(
        SERVICE,
        json!({"spec": {"ports": [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "old", "port": 81}]}}),
        json!({"spec": {
            "$setElementOrder/ports": [{"port": 443}, {"port": 80}],
            "ports": [{"name": "https", "port": 443}, {"$patch": "delete", "port": 81}]}}),
        json!({"spec": {"ports": [{"name": "https", "port": 443}, {"name": "http", "port": 80, "nodePort": 30080}]}}),
    );
    // the kubelet's status patch: conditions merge by type
    check(
        POD,
        json!({"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]}}),
        json!({"status": {"phase": "Running", "$setElementOrder/conditions": [{"type": "Ready"}, {"type": "PodScheduled"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": null}]}}),
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]}}),
    );
}

#[test]
fn directives() {
    let strategy = |s: Value| json!({"spec": {"strategy": s}});
    check(
        DEPLOYMENT,
        strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})),
        strategy(json!({"$retainKeys": ["type"], "type": "Recreate"})),
        strategy(json!({"type": "Recreate"})),
    );
    check(
        DEPLOYMENT,
        strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})),
        strategy(json!({"$patch": "replace", "type": "Recreate"})),
        strategy(json!({"type": "Recreate"})),
    );
    check(
        DEPLOYMENT,
        strategy(json!({"type": "Recreate"})),
        strategy(json!({"$patch": "delete"})),
        strategy(json!({})),
    );
    let finalizers = |f: Value| json!({"metadata": {"finalizers": f}});
    check(POD, finalizers(json!(["a", "b"])), finalizers(json!(["c", "a"])), finalizers(json!(["c", "a", "b"])));
    check(
        POD,
        finalizers(json!(["a", "b", "c"])),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b", "z"]}}),
        finalizers(json!(["a", "c"])),
    );
    check(
        POD,
        finalizers(json!(["a", "b"])),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"],
        "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}}),
        finalizers(json!(["c", "b"])),
    );
    check(
        POD,
        json!({"metadata": {}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
        json!({"metadata": {}}),
    );
    // atomic lists are replaced
    check(
        POD,
        json!({"spec": {"containers": [{"name": "a", "command": ["x", "y"]}]}}),
        json!({"spec": {"containers": [{"name": "a", "command": ["z"]}]}}),
        json!({"spec": {"containers": [{"name": "a", "command": ["z"]}]}}),
    );
    // something new comes in without its nulls and directives
    check(
        POD,
        json!({}),
        json!({"spec": {"nodeName": null, "containers": [{"name": "a", "image": null}, {"$patch": "delete", "name": "b"}]}}),
        json!({"spec": {"containers": [{"name": "a"}]}}),
    );
    // the server's own elements keep their places
    check(
        POD,
        json!({"spec": {"volumes": [{"name": "s0"}, {"name": "a"}, {"name": "s1"}, {"name": "b"}]}}),
        json!({"spec": {"$setElementOrder/volumes": [{"name": "b"}, {"name": "c"}, {"name": "a"}], "volumes": [{"name": "c"}]}}),
        json!({"spec": {"volumes": [{"name": "s0"}, {"name": "s1"}, {"name": "b"}, {"name": "c"}, {"name": "a"}]}}),
    );
    // a volume whose source changes keeps only the new one
    check(
        POD,
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        json!({"spec": {"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
    );
}

#[test]
fn refusals_are_upstreams() {
    let refuse = |original: Value, patch: Value, code: u16, message: &str| {
        let status = apply(POD, &original, &patch).unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message), "{patch}");
    };
    let pod =
        json!({"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v"}]}, "metadata": {"finalizers": ["x"]}});
    refuse(
        pod.clone(),
        json!({"spec": {"containers": [{"image": "x"}]}}),
        500,
        "map: map[image:x] does not contain declared merge key: name",
    );
    refuse(pod.clone(), json!({"spec": {"$patch": "nope"}}), 500, "unknown patch type: nope in map: map[$patch:nope]");
    refuse(
        pod.clone(),
        json!({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}),
        500,
        "merging lists cannot yet be specified in the patch",
    );
    refuse(
        pod.clone(),
        json!({"spec": {"$retainKeys": ["volumes"], "nodeName": "x"}}),
        400,
        "invalid patch format of retainKeys",
    );
    refuse(pod.clone(), json!({"metadata": {"finalizers": [["x"]]}}), 400, "invalid patch format of primitive list");
    refuse(
        pod,
        json!([]),
        400,
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
    );
    refuse(
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "b"}, {"name": "a"}]}}),
        500,
        "The order in patch list:\n[map[name:b] map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:a] map[name:b]]\n",
    );
}

fn containers() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-e]", prop::option::of("[x-z]"), 0..5).prop_map(|m| {
        m.into_iter().map(|(n, i)| i.map_or_else(|| json!({"name": n}), |i| json!({"name": n, "image": i}))).collect()
    })
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing_more(a in containers(), b in containers()) {
        let (pod, patch) = (json!({"spec": {"containers": a}}), json!({"spec": {"containers": b}}));
        let once = apply(POD, &pod, &patch).unwrap();
        prop_assert_eq!(apply(POD, &once, &patch).unwrap(), once);
    }

    #[test]
    fn an_empty_patch_changes_nothing_and_nothing_is_lost(a in containers(), b in containers()) {
        let pod = json!({"spec": {"containers": a}});
        prop_assert_eq!(&apply(POD, &pod, &json!({})).unwrap(), &pod);
        let merged = apply(POD, &pod, &json!({"spec": {"containers": b}})).unwrap();
        let names = |v: &Value| v["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect::<Vec<_>>();
        for c in a.as_array().unwrap().iter().chain(b.as_array().unwrap()) {
            prop_assert_eq!(names(&merged).iter().filter(|n| **n == c["name"]).count(), 1);
        }
    }
}
