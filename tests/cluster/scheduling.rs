//! What the conformance profile asks of the scheduler, in the steps of its tests, with pods that run on two nodes; and what
//! it says of constraints between pods. `tests/CONFORMANCE.md` says which requirement is shown where.

use serde_json::{Value, json};

use crate::conformance::{feed, running};
use crate::lab::{IMAGE, Lab, condition, variable, wait_for};
use crate::support::skip;

/// What each node is given two of, to be fought for.
const SCARCE: &str = "example.com/scarce";

/// The default one as it is, and one that fills one node before it begins with the next.
const PROFILES: &str = r"
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: packs
  plugins:
    score: {disabled: [{name: NodeResourcesBalancedAllocation}]}
  pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}
";

#[test]
fn pods_go_where_the_profile_says() {
    if !nix::unistd::geteuid().is_root() || variable("SKIFF_TEST_KUBECTL").is_none() {
        return skip("needs root and SKIFF_TEST_KUBECTL");
    }
    let mut lab = Lab::with_image(2);
    let config = lab.dir.join("scheduler.yaml");
    std::fs::write(&config, PROFILES).unwrap();
    lab.server(&[&format!("--kube-scheduler-arg=config={}", config.display())]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());
    lab.join(2);
    another_profile_fills_nodes(&lab);
    more_than_there_is_waits(&lab);
    selectors_choose_nodes(&lab);
    a_port_of_a_node_is_given_once(&lab);
    pods_keep_apart_and_together(&lab);
    for node in ["m1", "m2"] {
        let capacity = json!({"status": {"capacity": {SCARCE: "2"}, "allocatable": {SCARCE: "2"}}}).to_string();
        lab.kubectl(&["patch", "node", node, "--subresource=status", "--type=merge", "-p", &capacity]);
    }
    // Below them, and the two of the system above, which are there.
    for (name, value) in [("low", 1), ("middle", 100), ("high", 1000)] {
        lab.kubectl(&["create", "priorityclass", name, &format!("--value={value}")]);
    }
    the_least_important_make_room(&lab);
    a_critical_pod_has_room(&lab);
    a_victim_is_told(&lab);
    sets_of_pods_are_as_large_as_there_is_room(&lab);
}

fn make(lab: &Lab, name: &str, spec: &Value) {
    let container = json!({"name": "c", "image": IMAGE});
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}});
    crate::lab::merge(&mut pod["spec"], spec);
    feed(lab, &["create", "-f", "-"], &pod);
}

/// A container that asks for so much of a resource.
fn asks(resource: &str, amount: &str) -> Value {
    json!([{"name": "c", "image": IMAGE, "resources": {"requests": {resource: amount}, "limits": {resource: amount}}}])
}

fn node(lab: &Lab, pod: &str) -> Value {
    running(lab, pod)["spec"]["nodeName"].clone()
}

/// Waits until a pod is told why it fits nowhere, in its condition and in an event.
fn told(lab: &Lab, name: &str, why: &[&str]) {
    let message = wait_for(&format!("why {name} waits"), || {
        let pod = lab.json(&["get", "pod", name]).ok()?;
        let conditions = pod["status"]["conditions"].as_array()?;
        let scheduled = conditions.iter().find(|c| c["type"] == "PodScheduled" && c["reason"] == "Unschedulable")?;
        scheduled["message"].as_str().map(str::to_owned)
    });
    for part in why {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    wait_for("the event", || {
        let events = lab.kubectl(&["events", "--for", &format!("pod/{name}")]);
        (events.contains("FailedScheduling") && events.contains(why[0])).then_some(())
    });
}

fn remove(lab: &Lab, pods: &[&str]) {
    lab.kubectl(&[&["delete", "pod"], pods].concat());
}

/// A pod is scheduled by the profile that it names, and by nobody when there is none of that name.
fn another_profile_fills_nodes(lab: &Lab) {
    let of = |scheduler: &str, more: &Value| {
        let mut spec = json!({"schedulerName": scheduler, "containers": asks("cpu", "100m")});
        crate::lab::merge(&mut spec, more);
        spec
    };
    make(lab, "heavy", &json!({"nodeSelector": {"kubernetes.io/hostname": "m2"}, "containers": asks("cpu", "500m")}));
    running(lab, "heavy");
    make(lab, "packed", &of("packs", &json!({})));
    make(lab, "nobodys", &of("nobody", &json!({})));
    assert_eq!(node(lab, "packed"), "m2");
    make(lab, "spread", &of("default-scheduler", &json!({})));
    assert_eq!(node(lab, "spread"), "m1");
    for (pod, scheduler) in [("packed", "packs"), ("spread", "default-scheduler")] {
        wait_for("the event", || {
            let selector = format!("--field-selector=reason=Scheduled,involvedObject.name={pod}");
            let events = lab.json(&["get", "events", &selector]).ok()?;
            (events["items"][0]["reportingComponent"] == scheduler).then_some(())
        });
    }
    let pod = lab.json(&["get", "pod", "nobodys"]).unwrap();
    assert!(pod["spec"]["nodeName"].is_null() && pod["status"]["conditions"].is_null(), "{pod}");
    remove(lab, &["heavy", "packed", "nobodys", "spread"]);
}

fn more_than_there_is_waits(lab: &Lab) {
    make(lab, "too-large", &json!({"containers": asks("cpu", "10k")}));
    told(lab, "too-large", &["0/2 nodes are available: 2 Insufficient cpu."]);
    remove(lab, &["too-large"]);
}

fn selectors_choose_nodes(lab: &Lab) {
    make(lab, "chosen", &json!({"nodeSelector": {"disk": "fast"}}));
    told(lab, "chosen", &["0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."]);
    // It waits for nothing but the label.
    lab.kubectl(&["label", "node", "m2", "disk=fast"]);
    assert_eq!(node(lab, "chosen"), "m2");
    lab.kubectl(&["label", "node", "m2", "disk-"]);
    remove(lab, &["chosen"]);
}

fn a_port_of_a_node_is_given_once(lab: &Lab) {
    let at = |ip: &str| {
        let port = json!({"containerPort": 80, "hostPort": 54322, "hostIP": ip});
        json!({"nodeSelector": {"kubernetes.io/hostname": "m2"},
            "containers": [{"name": "c", "image": IMAGE, "ports": [port]}]})
    };
    make(lab, "everywhere", &at(""));
    running(lab, "everywhere");
    make(lab, "somewhere", &at("10.88.0.2"));
    told(lab, "somewhere", &["node(s) didn't have free ports for the requested pod ports"]);
    remove(lab, &["everywhere"]);
    running(lab, "somewhere");
    remove(lab, &["somewhere"]);
}

/// Two pods that keep apart, one that goes with the first, and one more than there are places.
fn pods_keep_apart_and_together(lab: &Lab) {
    let term =
        |app: &str| json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}}]);
    let apart = |other: &str| json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term(other)}}});
    make(lab, "one", &json!({}));
    let first = node(lab, "one");
    make(lab, "two", &apart("one"));
    assert_ne!(node(lab, "two"), first);
    let with = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term("one")}}});
    make(lab, "with", &with);
    assert_eq!(node(lab, "with"), first);
    // The anti-affinity of a pod that runs counts for those that come.
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "with"}}}],
        "nodeName": null, "nodeSelector": {"kubernetes.io/hostname": first}});
    let mut labelled = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "uneven", "labels": {"app": "with"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": IMAGE}]}});
    crate::lab::merge(&mut labelled["spec"], &spread);
    labelled["spec"]["topologySpreadConstraints"][0]["nodeAffinityPolicy"] = "Ignore".into();
    feed(lab, &["create", "-f", "-"], &labelled);
    told(lab, "uneven", &["node(s) didn't match pod topology spread constraints"]);
    remove(lab, &["one", "two", "with", "uneven"]);
}

fn scarce(class: &str, amount: &str) -> Value {
    json!({"priorityClassName": class, "containers": asks(SCARCE, amount)})
}

/// All that there is is taken; a more important pod takes the place of the least important.
fn the_least_important_make_room(lab: &Lab) {
    for (name, class) in [("low", "low"), ("middle", "middle")] {
        make(lab, name, &scarce(class, "2"));
        running(lab, name);
    }
    let place = node(lab, "low");
    make(lab, "high", &scarce("high", "2"));
    assert_eq!(node(lab, "high"), place);
    wait_for("the victim to be gone", || lab.json(&["get", "pod", "low"]).is_err().then_some(()));
    running(lab, "middle");
    remove(lab, &["high"]);
}

/// One of the system's, in the other namespace.
fn a_critical_pod_has_room(lab: &Lab) {
    make(lab, "low", &scarce("low", "2"));
    running(lab, "low");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "critical", "namespace": "kube-system"},
        "spec": {"terminationGracePeriodSeconds": 0, "priorityClassName": "system-cluster-critical",
            "containers": asks(SCARCE, "2")}});
    feed(lab, &["create", "-f", "-"], &pod);
    wait_for("the critical pod", || {
        let pod = lab.json(&["get", "pod", "critical", "-n", "kube-system"]).ok()?;
        (condition(&pod, "Ready").as_deref() == Some("True")).then_some(())
    });
    assert!(lab.json(&["get", "pod", "low"]).is_err());
    running(lab, "middle");
    lab.kubectl(&["delete", "pod", "critical", "-n", "kube-system"]);
    remove(lab, &["middle"]);
}

/// A finalizer keeps the victim to be looked at.
fn a_victim_is_told(lab: &Lab) {
    let on = |class: &str| {
        let mut spec = scarce(class, "2");
        spec["nodeSelector"] = json!({"kubernetes.io/hostname": "m2"});
        spec
    };
    make(lab, "victim", &on("low"));
    running(lab, "victim");
    lab.kubectl(&[
        "patch",
        "pod",
        "victim",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":["example.com/kept"]}}"#,
    ]);
    make(lab, "preemptor", &on("high"));
    let victim = wait_for("the victim to be told", || {
        let pod = lab.json(&["get", "pod", "victim"]).ok()?;
        (condition(&pod, "DisruptionTarget").as_deref() == Some("True")).then_some(pod)
    });
    let conditions = victim["status"]["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!(
        (&target["reason"], &target["message"]),
        (&json!("PreemptionByScheduler"), &json!("default-scheduler: preempting to accommodate a higher priority pod"))
    );
    wait_for("its end", || {
        lab.json(&["get", "pod", "victim"]).ok()?["metadata"]["deletionTimestamp"].as_str().map(drop)
    });
    let events = lab.kubectl(&["events", "--for", "pod/victim"]);
    assert!(events.contains("Preempted by pod"), "{events}");
    lab.kubectl(&["patch", "pod", "victim", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    running(lab, "preemptor");
    remove(lab, &["preemptor"]);
}

/// Sets of three importances on one node that has room for two: the most important have it, whoever came first.
fn sets_of_pods_are_as_large_as_there_is_room(lab: &Lab) {
    let set = |class: &str, replicas: u64| {
        let mut spec = scarce(class, "1");
        crate::lab::merge(
            &mut spec,
            &json!({"terminationGracePeriodSeconds": 0,
            "nodeSelector": {"kubernetes.io/hostname": "m2"}}),
        );
        let labels = json!({"set": class});
        let object = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": class}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}});
        feed(lab, &["create", "-f", "-"], &object);
    };
    let ready = |class: &str, count: u64| {
        wait_for(&format!("{count} of {class}"), || {
            let set = lab.json(&["get", "replicaset", class]).ok()?;
            (set["status"]["readyReplicas"].as_u64().unwrap_or_default() == count).then_some(())
        });
    };
    set("low", 2);
    ready("low", 2);
    set("middle", 1);
    ready("middle", 1);
    ready("low", 1);
    set("high", 2);
    ready("high", 2);
    ready("middle", 0);
    ready("low", 0);
    // With the others gone the rest have their turn.
    lab.kubectl(&["delete", "replicaset", "high"]);
    ready("middle", 1);
    ready("low", 1);
    lab.kubectl(&["delete", "replicaset", "middle", "low"]);
}
