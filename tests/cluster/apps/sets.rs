//! Sets of pods: which pods are theirs, where they are, in which order they come, go and change.

use serde_json::{Value, json};

use super::{ABSENT, all_ready, get, idle, make, name, owner, patch, pods, ready, remove, stays, template, until};
use crate::lab::{IMAGE, Lab, wait_for};

/// A pod of nobody, whose labels a set selects.
fn pod(lab: &Lab, app: &str, spec: &Value) {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": app, "labels": {"app": app}},
        "spec": idle(app)["spec"]});
    crate::lab::merge(&mut pod["spec"], spec);
    crate::conformance::feed(lab, &["create", "-f", "-"], &pod);
}

pub fn pods_are_adopted_and_released(lab: &Lab) {
    for kind in ["ReplicaSet", "ReplicationController"] {
        let app = format!("adopts-{}", kind.to_lowercase());
        pod(lab, &app, &json!({}));
        make(lab, kind, &app, &idle(&app), &json!({"replicas": 1}));
        let set = get(lab, &format!("{kind}/{app}"));
        let adopted = until(lab, &format!("pod/{app}"), |p| owner(p) == &set["metadata"]["uid"]);
        assert_eq!(adopted["metadata"]["ownerReferences"][0]["controller"], true);
        lab.kubectl(&["label", "pod", &app, "app=released", "--overwrite"]);
        until(lab, &format!("pod/{app}"), |p| p["metadata"]["ownerReferences"].is_null());
        all_ready(lab, &app, 1);
        remove(lab, &format!("{kind}/{app}"), &app);
        lab.kubectl(&["delete", "pod", &app]);
    }
}

/// Each replica says its own name over HTTP.
pub fn pods_of_a_set_answer(lab: &Lab) {
    let script = "hostname > /tmp/index.html; exec httpd -f -p 9376 -h /tmp";
    for kind in ["ReplicaSet", "ReplicationController"] {
        let app = format!("answers-{}", kind.to_lowercase());
        make(lab, kind, &app, &template(&app, script), &json!({"replicas": 2}));
        for pod in all_ready(lab, &app, 2) {
            let url = format!("http://{}:9376/", pod["status"]["podIP"].as_str().unwrap());
            wait_for(&url, || {
                let output = lab.machines[0].command("curl".as_ref()).args(["-s", "-m", "2", &url]).output();
                (output.ok()?.stdout == format!("{}\n", name(&pod)).into_bytes()).then_some(())
            });
        }
        remove(lab, &format!("{kind}/{app}"), &app);
    }
}

pub fn a_replica_set_is_replaced_and_patched(lab: &Lab) {
    make(lab, "ReplicaSet", "replaced", &idle("replaced"), &json!({"replicas": 1}));
    all_ready(lab, "replaced", 1);
    let mut set = get(lab, "replicaset/replaced");
    set["spec"]["replicas"] = json!(2);
    set["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    crate::conformance::feed(lab, &["replace", "-f", "-"], &set);
    all_ready(lab, "replaced", 2);
    let other = json!({"metadata": {"labels": {"of": "patched"}}, "spec": {"replicas": 3, "template":
        {"spec": {"terminationGracePeriodSeconds": 1}}}});
    patch(lab, "replicaset/replaced", None, &other);
    all_ready(lab, "replaced", 3);
    let set = get(lab, "replicaset/replaced");
    assert_eq!((&set["metadata"]["labels"]["of"], &set["spec"]["replicas"]), (&json!("patched"), &json!(3)));
    patch(lab, "replicaset/replaced", Some("scale"), &json!({"spec": {"replicas": 1}}));
    until(lab, "replicaset/replaced", |s| s["status"]["replicas"] == 1 && s["spec"]["replicas"] == 1);
    remove(lab, "replicaset/replaced", "replaced");
}

fn nodes_of(lab: &Lab, app: &str) -> Vec<String> {
    let found = pods(lab, app);
    let mut nodes: Vec<String> =
        found.iter().filter(|p| ready(p)).map(|p| p["spec"]["nodeName"].as_str().unwrap_or_default().into()).collect();
    nodes.sort();
    if nodes.len() == found.len() { nodes } else { vec!["not all are ready".into()] }
}

pub fn a_daemon_set_is_where_its_selector_is(lab: &Lab) {
    let on = |expect: &[&str]| {
        wait_for(&format!("pods on {expect:?}"), || (nodes_of(lab, "chosen") == expect).then_some(()))
    };
    let mut chosen = idle("chosen");
    chosen["spec"]["nodeSelector"] = json!({"color": "blue"});
    make(lab, "DaemonSet", "chosen", &chosen, &json!({}));
    until(lab, "daemonset/chosen", |d| d["status"]["observedGeneration"] == 1);
    assert!(pods(lab, "chosen").is_empty());
    lab.kubectl(&["label", "node", "m2", "color=blue"]);
    on(&["m2"]);
    until(lab, "daemonset/chosen", |d| d["status"]["numberReady"] == 1 && d["status"]["desiredNumberScheduled"] == 1);
    lab.kubectl(&["label", "node", "m2", "color=green", "--overwrite"]);
    on(&[]);
    patch(
        lab,
        "daemonset/chosen",
        None,
        &json!({"spec": {"template": {"spec": {"nodeSelector": {"color": "green"}}}}}),
    );
    on(&["m2"]);
    let required = json!({"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["m1"]}]}]});
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
    let spec = json!({"nodeSelector": null, "affinity": affinity});
    patch(lab, "daemonset/chosen", None, &json!({"spec": {"template": {"spec": spec}}}));
    on(&["m1"]);
    lab.kubectl(&["label", "node", "m2", "color-"]);
    remove(lab, "daemonset/chosen", "chosen");
}

pub fn a_daemon_set_replaces_its_pods_and_is_rolled_back(lab: &Lab) {
    make(lab, "DaemonSet", "each", &idle("each"), &json!({}));
    let first = all_ready(lab, "each", 2);
    lab.kubectl(&["delete", "pod", &name(&first[0])]);
    let second = all_ready(lab, "each", 2);
    assert!(second.iter().all(|p| name(p) != name(&first[0])));
    // One that has failed goes, and another comes.
    patch(lab, &format!("pod/{}", name(&second[0])), Some("status"), &json!({"status": {"phase": "Failed"}}));
    wait_for("another pod", || {
        let found = pods(lab, "each");
        let replaced = found.iter().all(|p| name(p) != name(&second[0]));
        (replaced && found.len() == 2 && found.iter().all(ready)).then_some(())
    });
    lab.kubectl(&["set", "env", "daemonset/each", "EDITION=2"]);
    lab.kubectl(&["rollout", "status", "daemonset/each", "--timeout=60s"]);
    let before = all_ready(lab, "each", 2);

    lab.kubectl(&["set", "image", "daemonset/each", &format!("c={ABSENT}")]);
    wait_for("a pod that cannot run", || {
        pods(lab, "each").iter().any(|p| p["spec"]["containers"][0]["image"] == ABSENT).then_some(())
    });
    lab.kubectl(&["rollout", "undo", "daemonset/each"]);
    lab.kubectl(&["rollout", "status", "daemonset/each", "--timeout=60s"]);
    let after = all_ready(lab, "each", 2);
    assert!(after.iter().all(|p| p["spec"]["containers"][0]["image"] == IMAGE));
    let kept = before.iter().filter(|b| after.iter().any(|a| a["metadata"]["uid"] == b["metadata"]["uid"])).count();
    assert_eq!(kept, 1, "the pod that the update had not come to is the same");
    remove(lab, "daemonset/each", "each");
}

const HEALTHY: &str = "test ! -e /tmp/broken";

fn break_pod(lab: &Lab, pod: &str, broken: bool) {
    let command = if broken { "touch" } else { "rm" };
    lab.kubectl(&["exec", pod, "--", command, "/tmp/broken"]);
    wait_for(&format!("{pod} to be noticed"), || (ready(&get(lab, &format!("pod/{pod}"))) != broken).then_some(()));
}

/// A template whose pods are ready while nobody breaks them.
fn breakable(app: &str) -> Value {
    let mut breakable = idle(app);
    breakable["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["sh", "-c", HEALTHY]}, "periodSeconds": 1, "failureThreshold": 1});
    breakable
}

fn names(pods: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = pods.iter().map(name).collect();
    names.sort();
    names
}

pub fn a_stateful_set_waits_for_unhealthy_pods(lab: &Lab) {
    make(lab, "StatefulSet", "ss", &breakable("ss"), &json!({"replicas": 1, "serviceName": "ss"}));
    all_ready(lab, "ss", 1);
    break_pod(lab, "ss-0", true);
    lab.kubectl(&["scale", "statefulset/ss", "--replicas=3"]);
    stays(lab, |lab| names(&pods(lab, "ss")) == ["ss-0"]);
    break_pod(lab, "ss-0", false);
    let up = all_ready(lab, "ss", 3);
    let made =
        |n: usize| up.iter().find(|p| name(p) == format!("ss-{n}")).unwrap()["metadata"]["creationTimestamp"].clone();
    assert!(made(0).as_str() <= made(1).as_str() && made(1).as_str() <= made(2).as_str());

    // One that would go only waits for those that are to stay, and for unhealthy ones before it.
    for pod in ["ss-0", "ss-1", "ss-2"] {
        break_pod(lab, pod, true);
    }
    lab.kubectl(&["scale", "statefulset/ss", "--replicas=0"]);
    stays(lab, |lab| pods(lab, "ss").len() == 3);
    for pod in ["ss-2", "ss-1", "ss-0"] {
        lab.kubectl(&["exec", pod, "--", "rm", "/tmp/broken"]);
    }
    // From the highest on: those that are left are always the first.
    wait_for("no pods", || {
        let left = names(&pods(lab, "ss"));
        let first: Vec<String> = (0..left.len()).map(|n| format!("ss-{n}")).collect();
        assert_eq!(left, first);
        left.is_empty().then_some(())
    });
    remove(lab, "statefulset/ss", "ss");
}

pub fn a_parallel_set_bursts(lab: &Lab) {
    let more = json!({"replicas": 1, "serviceName": "burst", "podManagementPolicy": "Parallel"});
    make(lab, "StatefulSet", "burst", &breakable("burst"), &more);
    all_ready(lab, "burst", 1);
    break_pod(lab, "burst-0", true);
    lab.kubectl(&["scale", "statefulset/burst", "--replicas=3"]);
    wait_for("two more", || (pods(lab, "burst").iter().filter(|p| ready(p)).count() == 2).then_some(()));
    break_pod(lab, "burst-2", true);
    lab.kubectl(&["scale", "statefulset/burst", "--replicas=0"]);
    wait_for("no pods", || pods(lab, "burst").is_empty().then_some(()));
    remove(lab, "statefulset/burst", "burst");
}

pub fn a_stateful_set_rolls_in_parts(lab: &Lab) {
    let partition = |n: i64| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": n}});
    let more = json!({"replicas": 3, "serviceName": "parts", "updateStrategy": partition(3)});
    make(lab, "StatefulSet", "parts", &idle("parts"), &more);
    all_ready(lab, "parts", 3);
    let set = until(lab, "statefulset/parts", |s| s["status"]["currentReplicas"] == 3);
    let first = set["status"]["currentRevision"].clone();
    assert_eq!(set["status"]["updateRevision"], first);
    let revisions = || {
        let mut found = all_ready(lab, "parts", 3);
        found.sort_by_key(name);
        found.iter().map(|p| p["metadata"]["labels"]["controller-revision-hash"].clone()).collect::<Vec<_>>()
    };
    let become_ = |expect: [&Value; 3]| wait_for("the revisions", || revisions().iter().eq(expect).then_some(()));

    lab.kubectl(&["set", "env", "statefulset/parts", "EDITION=2"]);
    let set = until(lab, "statefulset/parts", |s| s["status"]["updateRevision"] != first);
    let second = set["status"]["updateRevision"].clone();
    assert_eq!(set["status"]["currentRevision"], first);
    stays(lab, |lab| pods(lab, "parts").iter().all(|p| p["metadata"]["labels"]["controller-revision-hash"] == first));
    patch(lab, "statefulset/parts", None, &json!({"spec": {"updateStrategy": partition(2)}}));
    become_([&first, &first, &second]);
    // What is deleted comes back in the revision of its part.
    lab.kubectl(&["delete", "pod", "parts-0", "parts-2"]);
    become_([&first, &first, &second]);
    patch(lab, "statefulset/parts", None, &json!({"spec": {"updateStrategy": partition(1)}}));
    become_([&first, &second, &second]);
    patch(lab, "statefulset/parts", None, &json!({"spec": {"updateStrategy": partition(0)}}));
    become_([&second, &second, &second]);
    until(lab, "statefulset/parts", |s| s["status"]["currentRevision"] == second);

    // A template of old is no new revision.
    lab.kubectl(&["set", "env", "statefulset/parts", "EDITION-"]);
    become_([&first, &first, &first]);
    until(lab, "statefulset/parts", |s| {
        s["status"]["currentRevision"] == first && s["status"]["updateRevision"] == first
    });
    let kept = lab.json(&["get", "controllerrevisions", "-l", "app=parts"]).unwrap();
    assert_eq!(kept["items"].as_array().unwrap().len(), 2, "{kept}");
    patch(lab, "statefulset/parts", Some("scale"), &json!({"spec": {"replicas": 1}}));
    all_ready(lab, "parts", 1);
    remove(lab, "statefulset/parts", "parts");
}

/// A port of the node is taken: the node refuses the pod that is put on it, and the set makes it again until it is free.
pub fn a_pod_that_the_node_refuses_is_made_again(lab: &Lab) {
    let ports = json!([{"containerPort": 21017, "hostPort": 21017}]);
    let mut holder = idle("holder")["spec"]["containers"][0].clone();
    holder["ports"] = ports.clone();
    pod(lab, "holder", &json!({"nodeName": "m2", "containers": [holder]}));
    all_ready(lab, "holder", 1);
    let mut refused = idle("refused");
    refused["spec"]["nodeName"] = "m2".into();
    refused["spec"]["containers"][0]["ports"] = ports;
    make(lab, "StatefulSet", "refused", &refused, &json!({"replicas": 1, "serviceName": "refused"}));
    let mut seen = std::collections::BTreeSet::new();
    wait_for("two pods that were refused", || {
        seen.extend(pods(lab, "refused").iter().map(|p| p["metadata"]["uid"].to_string()));
        (seen.len() > 1).then_some(())
    });
    lab.kubectl(&["delete", "pod", "holder"]);
    all_ready(lab, "refused", 1);
    remove(lab, "statefulset/refused", "refused");
}
