//! Tests: ephemeral containers, resizes, and pods that the node has no room for.

use super::*;

fn with_cpu(name: &str, cpu: i64, memory: &str) -> Value {
    let mut pod = one("Always");
    (pod["metadata"]["name"], pod["metadata"]["uid"]) = (json!(name), json!(name));
    let both = json!({"cpu": format!("{cpu}m"), "memory": memory});
    pod["spec"]["containers"][0]["resources"] = json!({"requests": both, "limits": both});
    pod
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/ns/pods/{name}")
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

impl Node {
    async fn pod_when(&self, name: &str, what: &str, when: impl Fn(&Value) -> bool) -> Value {
        let pod = self.until(what, || self.api.get(&path(name)).filter(|pod| when(&pod["status"]))).await;
        pod["status"].clone()
    }

    /// As a write of `pods/resize` does.
    fn resize(&self, name: &str, cpu: i64, memory: &str) {
        let mut pod = self.api.get(&path(name)).expect("there");
        let both = json!({"cpu": format!("{cpu}m"), "memory": memory});
        pod["spec"]["containers"][0]["resources"] = json!({"requests": both, "limits": both});
        pod["metadata"]["generation"] = json!(pod["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
        self.api.put(&path(name), pod);
    }

    async fn event(&self, start: &str) -> String {
        let found = || self.api.events().into_iter().find(|event| event.starts_with(start));
        self.until(start, found).await
    }

    /// All of the node's CPUs in thousandths.
    fn cpus(&self) -> i64 {
        self.context().allocatable.cpu_milli
    }
}

fn cpu_told(status: &Value) -> Value {
    status["containerStatuses"][0]["resources"]["limits"]["cpu"].clone()
}

#[tokio::test]
async fn a_sandbox_that_is_lost_is_made_anew() {
    let mut node = Node::new();
    node.start();
    node.api.put(POD, one("Always"));
    let before = node.status_when("ready", is_ready).await;
    // As containerd says it, which keeps calling the sandbox ready.
    let lost = "failed to get sandbox container task: no running task found: task s not found";
    node.runtime.fail_next("CreateContainer", crate::cri::Error::NotFound(lost.into()));
    node.runtime.exit("u1", "web", 137);
    let restarted = |status: &Value| is_ready(status) && status["containerStatuses"][0]["restartCount"] == 1;
    let after = node.status_when("ready again", restarted).await;
    assert_eq!((node.calls_of("RunPodSandbox"), node.calls_of("StopPodSandbox")), (2, 1));
    assert_eq!(before["startTime"], after["startTime"]);
}

#[tokio::test]
async fn an_ephemeral_container_comes_into_a_running_pod() {
    let mut node = Node::new();
    node.start();
    node.api.put(POD, one("Always"));
    node.status_when("ready", is_ready).await;
    let mut pod = node.api.get(POD).expect("there");
    pod["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "busybox:1",
        "imagePullPolicy": "IfNotPresent", "targetContainerName": "web"}]);
    node.api.put(POD, pod);
    let running = |status: &Value| status["ephemeralContainerStatuses"][0]["state"]["running"].is_object();
    let status = node.status_when("it runs", running).await;
    let told = &status["ephemeralContainerStatuses"][0];
    assert_eq!((&told["name"], &told["ready"], &told["started"]), (&json!("debug"), &json!(false), &Value::Null));
    assert!(is_ready(&status), "it has no part in that");
    node.runtime.exit("u1", "debug", 7);
    let ended = |status: &Value| status["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 7;
    node.status_when("it ends", ended).await;
    node.runtime.exit("u1", "web", 1);
    let again = |status: &Value| status["containerStatuses"][0]["restartCount"] == 1 && is_ready(status);
    node.status_when("the other is started again", again).await;
    assert_eq!(node.calls_of("StartContainer"), 3, "and the ephemeral one is not");
    node.halt().await;
}

#[tokio::test]
async fn a_pod_takes_other_resources_while_it_runs() {
    let mut node = Node::new();
    node.start();
    node.api.put(&path("p"), with_cpu("p", 100, "64Mi"));
    let status = node.pod_when("p", "ready", is_ready).await;
    assert_eq!(cpu_told(&status), "100m");
    node.resize("p", 200, "64Mi");
    let status = node.pod_when("p", "resized", |status| cpu_told(status) == "200m").await;
    assert_eq!(status["containerStatuses"][0]["allocatedResources"]["cpu"], "200m");
    let updates: Vec<String> = node.runtime.calls().into_iter().filter(|c| c.starts_with("UpdateContainer")).collect();
    assert_eq!(updates.len(), 1, "{updates:?}");
    assert!(updates[0].ends_with(" quota 20000 memory 67108864"), "{updates:?}");
    node.event("ResizeStarted: Pod resize started: {\"containers\":[{\"name\":\"web\"").await;
    node.event("ResizeCompleted: Pod resize completed: {").await;
    let over = |status: &Value| condition(status, "PodResizeInProgress").is_none();
    let status = node.pod_when("p", "over", over).await;
    assert_eq!((&status["containerStatuses"][0]["restartCount"], node.calls_of("StartContainer")), (&json!(0), 1));

    // A restart of the agent does none of it again.
    node.halt().await;
    node.start();
    let calls = node.calls_of("ListContainers");
    node.until("looked", || (node.calls_of("ListContainers") > calls).then_some(())).await;
    node.resize("p", 300, "64Mi");
    node.pod_when("p", "resized again", |status| cpu_told(status) == "300m").await;
    assert_eq!((node.calls_of("UpdateContainer"), node.calls_of("StartContainer")), (2, 1));
    node.halt().await;
}

#[tokio::test]
async fn a_container_is_started_again_where_its_policy_says_so() {
    let mut node = Node::new();
    node.start();
    let mut pod = with_cpu("p", 100, "64Mi");
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    pod["spec"]["containers"][0]["resizePolicy"] = policy;
    node.api.put(&path("p"), pod);
    node.pod_when("p", "ready", is_ready).await;
    node.resize("p", 100, "128Mi");
    let again = |status: &Value| status["containerStatuses"][0]["restartCount"] == 1 && is_ready(status);
    let status = node.pod_when("p", "started again", again).await;
    assert_eq!(status["containerStatuses"][0]["resources"]["limits"]["memory"], "128Mi");
    node.event("Killing: Container web resize requires restart").await;
    node.event("ResizeCompleted").await;
    assert_eq!(node.calls_of("UpdateContainer"), 0);
    node.halt().await;
}

#[tokio::test]
async fn a_resize_waits_for_room_and_is_refused_where_there_never_is_any() {
    let mut node = Node::new();
    node.start();
    let (all, half) = (node.cpus(), node.cpus() / 2);
    node.api.put(&path("a"), with_cpu("a", half, "1Mi"));
    node.pod_when("a", "ready", is_ready).await;
    node.api.put(&path("b"), with_cpu("b", half, "1Mi"));
    node.pod_when("b", "ready", is_ready).await;

    node.resize("a", half + 100, "1Mi");
    let reason = |status: &Value| condition(status, "PodResizePending").map(|pending| pending["reason"].clone());
    let status = node.pod_when("a", "deferred", |status| reason(status) == Some(json!("Deferred"))).await;
    let message =
        format!("Node didn't have enough resource: cpu, requested: {}, used: {half}, capacity: {all}", half + 100);
    let pending = condition(&status, "PodResizePending").expect("there");
    assert_eq!((&pending["message"], &pending["observedGeneration"]), (&json!(message), &json!(2)));
    assert_eq!(cpu_told(&status), format!("{half}m"), "it keeps what it has");
    node.event("ResizeDeferred: Pod resize Deferred: {").await;

    // Also over a restart of the agent.
    node.halt().await;
    node.start();
    let mut gone = node.api.get(&path("b")).expect("there");
    gone["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    gone["metadata"]["deletionGracePeriodSeconds"] = json!(1);
    node.api.put(&path("b"), gone);
    let status = node.pod_when("a", "granted", |status| cpu_told(status) == format!("{}m", half + 100)).await;
    assert_eq!(reason(&status), None);
    let back = format!("\"cpu\":\"{half}m\"");
    let events = node.api.events();
    assert!(!events.iter().any(|e| e.starts_with("ResizeStarted") && e.contains(&back)), "{events:#?}");

    node.resize("a", all + 1, "1Mi");
    let status = node.pod_when("a", "infeasible", |status| reason(status) == Some(json!("Infeasible"))).await;
    let message = format!("Node didn't have enough capacity: cpu, requested: {}, capacity: {all}", all + 1);
    assert_eq!(condition(&status, "PodResizePending").expect("there")["message"], message);
    node.event("ResizeInfeasible").await;
    node.resize("a", half + 100, "1Mi");
    node.pod_when("a", "taken back", |status| reason(status).is_none()).await;
    assert_eq!(node.calls_of("UpdateContainer"), 1);
    node.halt().await;
}

#[tokio::test]
async fn a_resize_that_the_runtime_refuses_is_told_and_tried_again() {
    let mut node = Node::new();
    node.start();
    node.api.put(&path("p"), with_cpu("p", 100, "64Mi"));
    node.pod_when("p", "ready", is_ready).await;
    let error = cri::Error::Failed { call: "UpdateContainerResources", message: "device or resource busy".into() };
    node.runtime.fail_next("UpdateContainerResources", error);
    node.resize("p", 200, "64Mi");
    let event = node.event("ResizeError: Pod resize error: {").await;
    assert!(
        event.ends_with("failed to update resources for container \\\"web\\\": device or resource busy\"}"),
        "{event}"
    );
    node.pod_when("p", "resized", |status| cpu_told(status) == "200m").await;
    node.event("ResizeCompleted").await;
    assert_eq!(node.calls_of("UpdateContainer"), 2);
    node.halt().await;
}

#[tokio::test]
async fn a_pod_that_there_is_no_room_for_is_refused() {
    let mut node = Node::new();
    node.start();
    let all = node.cpus();
    node.api.put(&path("a"), with_cpu("a", all, "1Mi"));
    node.pod_when("a", "ready", is_ready).await;
    node.api.put(&path("b"), with_cpu("b", 1, "1Mi"));
    let status = node.pod_when("b", "refused", |status| status["phase"] == "Failed").await;
    let message = format!("Node didn't have enough resource: cpu, requested: 1, used: {all}, capacity: {all}");
    assert_eq!(
        (&status["reason"], &status["message"]),
        (&json!("OutOfcpu"), &json!(format!("Pod was rejected: {message}")))
    );
    node.event(&format!("OutOfcpu: {message}")).await;
    let mut picky = with_cpu("c", 0, "1Mi");
    picky["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    node.api.put(&path("c"), picky);
    let status = node.pod_when("c", "refused", |status| status["phase"] == "Failed").await;
    assert_eq!(status["reason"], "NodeAffinity");
    // What one had is for others once the API has it no more.
    node.api.remove(&path("a"));
    node.api.put(&path("d"), with_cpu("d", all, "1Mi"));
    node.pod_when("d", "ready", is_ready).await;
    node.halt().await;
}

#[tokio::test]
async fn a_container_runs_when_its_first_hook_is_through() {
    let mut node = Node::new();
    node.start();
    let mut pod = one("Always");
    pod["spec"]["containers"][0]["lifecycle"] = json!({"postStart": {"sleep": {"seconds": 1}}});
    node.api.put(POD, pod);
    node.until("started", || (node.calls_of("StartContainer") == 1).then_some(())).await;
    let waits = |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating";
    assert!(waits(&node.status_when("told", waits).await));
    assert!(node.runtime.calls().iter().all(|call| !call.starts_with("StopContainer")));
    let status = node.status_when("ready", is_ready).await;
    assert!(status["containerStatuses"][0]["state"]["running"].is_object());
    node.halt().await;
}

#[tokio::test]
async fn sidecars_end_after_the_others_and_the_last_one_first() {
    let mut node = Node::new();
    node.start();
    let mut pod = one("Always");
    let container = |name: &str| {
        json!({"name": name, "image": "busybox:1", "imagePullPolicy": "IfNotPresent", "restartPolicy": "Always",
        "lifecycle": {"preStop": {"exec": {"command": ["bye", name]}}}})
    };
    pod["spec"]["initContainers"] = json!([container("first"), container("second")]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    node.api.put(POD, pod);
    let status = node.status_when("ready", is_ready).await;
    let ids: Vec<(String, String)> = ["initContainerStatuses", "containerStatuses"]
        .iter()
        .flat_map(|list| status[list].as_array().expect("a list").clone())
        .map(|status| {
            let id = status["containerID"].as_str().expect("an id").trim_start_matches("containerd://").to_owned();
            (id, status["name"].as_str().expect("a name").to_owned())
        })
        .collect();
    let mut deleted = node.api.get(POD).expect("there");
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    deleted["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    node.api.put(POD, deleted);
    node.until("deleted", || node.api.get(POD).is_none().then_some(())).await;
    let calls = node.runtime.calls();
    let of = |call: &str| -> Vec<&str> {
        let made = calls.iter().filter_map(|made| made.strip_prefix(call)?.strip_prefix(' '));
        made.filter_map(|id| ids.iter().find(|(known, _)| known == id)).map(|(_, name)| name.as_str()).collect()
    };
    assert_eq!(of("StopContainer"), ["web", "second", "first"]);
    let hooks = calls.iter().rposition(|made| made.starts_with("ExecSync"));
    let stops = calls.iter().position(|made| made.starts_with("StopContainer") && made.ends_with(&ids[1].0));
    assert!(of("ExecSync").len() == 2 && hooks < stops, "all hooks run at once: {calls:#?}");
    node.halt().await;
}

#[tokio::test]
async fn a_container_with_rules_of_its_own_runs_again_and_keeps_the_pod_running() {
    let mut node = Node::new();
    node.start();
    let mut pod = one("Never");
    let container = &mut pod["spec"]["containers"][0];
    container["restartPolicy"] = json!("Never");
    let rule = json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}});
    container["restartPolicyRules"] = json!([rule]);
    node.api.put(POD, pod);
    node.status_when("ready", is_ready).await;
    node.runtime.exit("u1", "web", 42);
    let again = |status: &Value| {
        assert_eq!(status["phase"], "Running", "never anything else: {status}");
        status["containerStatuses"][0]["restartCount"] == 1 && is_ready(status)
    };
    node.status_when("it runs again", again).await;
    node.runtime.exit("u1", "web", 1);
    node.status_when("it failed", |status| status["phase"] == "Failed").await;
    node.halt().await;
}

#[tokio::test]
async fn a_runtime_class_names_the_handler_of_the_sandbox() {
    let mut node = Node::new();
    node.start();
    let mut pod = one("Always");
    pod["spec"]["runtimeClassName"] = json!("strange");
    node.api.put(POD, pod.clone());
    let event = node.event("FailedCreatePodSandBox").await;
    assert!(event.contains("failed to get RuntimeClass \"strange\""), "{event}");
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "strange"}, "handler": "runsc"});
    node.api.put("/apis/node.k8s.io/v1/runtimeclasses/strange", class);
    node.status_when("ready", is_ready).await;
    assert!(node.runtime.calls().contains(&"RunPodSandbox p runsc".to_owned()));
    node.halt().await;
}

#[tokio::test]
async fn a_pod_with_users_of_its_own_does_not_run_among_the_nodes() {
    let mut node = Node::new();
    node.start();
    let mut pod = one("Always");
    pod["spec"]["hostUsers"] = json!(false);
    node.api.put(POD, pod);
    let event = node.event("FailedCreatePodSandBox").await;
    assert!(event.ends_with("runtime does not support user namespaces: runtime handlers are not set"), "{event}");
    assert_eq!(node.calls_of("RunPodSandbox"), 0);
    node.halt().await;
}

#[tokio::test]
async fn one_exit_restarts_all_containers_in_the_same_sandbox() {
    let mut node = Node::new();
    node.start();
    let mut pod = one("Never");
    let container = |name: &str| json!({"name": name, "image": "busybox:1", "imagePullPolicy": "IfNotPresent"});
    pod["spec"]["initContainers"] = json!([container("prepare")]);
    let rule = json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}});
    let mut trigger = container("trigger");
    (trigger["restartPolicy"], trigger["restartPolicyRules"]) = (json!("Never"), json!([rule]));
    pod["spec"]["containers"].as_array_mut().expect("a list").push(trigger);
    node.api.put(POD, pod);
    let running = |name: &str, count: i64| {
        let name = name.to_owned();
        move |status: &Value| {
            let all = ["initContainerStatuses", "containerStatuses"].iter().filter_map(|list| status[list].as_array());
            let mut all = all.flatten();
            all.any(|c| c["name"] == name && c["restartCount"] == count && c["state"]["running"].is_object())
        }
    };
    node.status_when("it is prepared", running("prepare", 0)).await;
    node.runtime.exit("u1", "prepare", 0);
    node.status_when("ready", is_ready).await;
    node.runtime.exit("u1", "trigger", 42);
    let status = node.status_when("it is prepared again", running("prepare", 1)).await;
    assert_eq!(status["phase"], "Running");
    node.runtime.exit("u1", "prepare", 0);
    let again = |status: &Value| running("web", 1)(status) && running("trigger", 1)(status) && is_ready(status);
    let status = node.status_when("all run again", again).await;
    assert_eq!(condition(&status, "AllContainersRestarting").expect("there")["status"], "False");
    assert_eq!((node.calls_of("RunPodSandbox"), node.calls_of("StartContainer")), (1, 6));
    node.halt().await;
}
