//! Tests: users of pods' own, critical pods that need room, and a node whose address changes.

use super::*;
use crate::agent::metrics;
use crate::cri::Handler;

#[tokio::test]
async fn a_pod_has_users_of_its_own_where_the_runtime_can() {
    let mut node = Node::new();
    node.runtime.set_handlers(&[Handler { user_namespaces: true, ..Handler::default() }]);
    std::fs::create_dir_all(node.directory.path().join("agent/run/containerd")).unwrap();
    node.start();
    let mut pod = one("Always");
    pod["spec"]["hostUsers"] = json!(false);
    node.api.put(POD, pod);
    node.status_when("ready", is_ready).await;
    let (sandbox, container) = node.runtime.asked();
    let options = sandbox.unwrap().linux.unwrap().security_context.unwrap().namespace_options.unwrap();
    let users = options.userns_options.expect("its own");
    assert_eq!((users.uids[0].host_id, users.uids[0].container_id, users.uids[0].length), (65536, 0, 65536));
    let container = container.unwrap();
    let of_container = container.linux.unwrap().security_context.unwrap().namespace_options.unwrap().userns_options;
    assert_eq!(of_container, Some(users.clone()));
    assert!(!container.mounts.is_empty());
    assert!(container.mounts.iter().all(|mount| mount.uid_mappings == users.uids && mount.gid_mappings == users.gids));
    assert!(node.directory.path().join("agent/pods/u1/userns").exists());
    let told = |node: &Value| {
        let status = &node["status"];
        let features = json!({"recursiveReadOnlyMounts": false, "userNamespaces": true});
        status["runtimeHandlers"] == json!([{"name": "", "features": features}])
            && status["features"]["supplementalGroupsPolicy"] == true
    };
    node.until("the node says so", || node.api.get("/api/v1/nodes/n1").filter(told)).await;
    node.halt().await;
}

#[tokio::test]
async fn another_address_is_told_by_the_node_and_its_pods() {
    let mut node = Node::new();
    node.start();
    node.api.put(POD, one("Always"));
    node.status_when("ready", |status| is_ready(status) && status["hostIP"] == "192.0.2.1").await;
    node.address.send_replace(Ipv4Addr::new(192, 0, 2, 99).into());
    node.status_when("the pod tells it", |status| status["hostIP"] == "192.0.2.99").await;
    let told = |node: &Value| node["status"]["addresses"][0]["address"] == "192.0.2.99";
    node.until("the node tells it", || node.api.get("/api/v1/nodes/n1").filter(told)).await;
    node.halt().await;
}

#[tokio::test]
async fn others_leave_for_a_critical_pod() {
    let mut node = Node::new();
    let cx = node.start();
    let path = |name: &str| format!("/api/v1/namespaces/ns/pods/{name}");
    let asking = |name: &str, cpu: &str, priority: i32| {
        let mut pod = one("Always");
        (pod["metadata"]["name"], pod["metadata"]["uid"]) = (json!(name), json!(name));
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        pod["spec"]["priority"] = json!(priority);
        pod
    };
    let in_phase = |name: &str, phase: &str| node.api.get(&path(name)).filter(|pod| pod["status"]["phase"] == phase);
    let preempted = "kubelet_preemptions{preemption_signal=\"cpu\"} 1\n";
    let cpus = i64::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    for (name, cpu) in [("small", 100), ("large", cpus * 1000 - 200)] {
        node.api.put(&path(name), asking(name, &format!("{cpu}m"), 0));
        node.until(name, || in_phase(name, "Running")).await;
    }
    assert!(!metrics::node::render(&cx).await.contains(preempted));
    node.runtime.set_stubborn(true);
    node.api.put(&path("critical"), asking("critical", "500m", 2_000_001_000));
    node.until("large is to end", || (node.calls_of("StopContainer") == 1).then_some(())).await;
    // Nobody else waits for that. Another critical pod fits in what it leaves, so that no more have to go.
    node.api.put(&path("next"), asking("next", "300m", 2_000_001_000));
    node.api.put(&path("dropped"), asking("dropped", "1m", 2_000_001_000));
    node.api.put(&path("free"), asking("free", "0", 0));
    node.until("it runs", || in_phase("free", "Running")).await;
    // One that waits can be deleted.
    let mut dropped = node.until("dropped", || in_phase("dropped", "Pending")).await;
    dropped["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    node.api.put(&path("dropped"), dropped);
    node.until("it is gone", || node.api.get(&path("dropped")).is_none().then_some(())).await;
    for waiting in ["critical", "next"] {
        assert!(in_phase(waiting, "Pending").is_some(), "{waiting} waits");
    }
    assert_eq!((node.calls_of("RunPodSandbox"), node.calls_of("StopContainer")), (3, 1));
    node.runtime.set_stubborn(false);
    for waiting in ["critical", "next"] {
        node.until("it runs", || in_phase(waiting, "Running")).await;
    }
    assert!(metrics::node::render(&cx).await.contains(preempted));
    let status = node.until("it left", || in_phase("large", "Failed")).await["status"].clone();
    assert_eq!(
        (&status["reason"], &status["message"]),
        (&json!("Preempting"), &json!("Preempted in order to admit critical pod"))
    );
    let target = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&target["reason"], &target["message"]), (&json!("TerminationByKubelet"), &status["message"]));
    let event = "Preempting: Preempted in order to admit critical pod";
    node.until("the event", || node.api.events().iter().any(|found| found == event).then_some(())).await;
    assert!(in_phase("small", "Running").is_some(), "it stays");
    // What not even all others would make room for is refused.
    node.api.put(&path("huge"), asking("huge", "10000", 2_000_001_000));
    let status = node.until("it is refused", || in_phase("huge", "Failed")).await["status"].clone();
    assert_eq!(status["reason"], "UnexpectedAdmissionError");
    node.halt().await;
}
