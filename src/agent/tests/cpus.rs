//! Tests: pods that have CPUs for themselves, on a node with two of which one is reserved.

use super::*;
use crate::agent::devices::fake::FakePlugin;
use crate::agent::devices::registration;
use crate::agent::metrics;
use crate::agent::pod::admit::Refusal;
use crate::agent::topology::admit;
use crate::config::cpu_set::CpuSet;
use crate::config::placement::{Alignment, Placement};

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/ns/pods/{name}")
}

/// One that asks for no CPU time shares what others leave.
fn with(name: &str, cpu: Option<usize>) -> Value {
    let mut pod = one("Always");
    (pod["metadata"]["name"], pod["metadata"]["uid"]) = (json!(name), json!(name));
    let both = cpu.map(|cpu| json!({"cpu": cpu.to_string(), "memory": "1Mi"}));
    let both = both.unwrap_or_else(|| json!({"memory": "1Mi"}));
    pod["spec"]["containers"][0]["resources"] = json!({"requests": both, "limits": both});
    pod
}

fn node() -> Node {
    let mut node = Node::new();
    node.settings.placement = Placement { static_cpus: true, reserved: CpuSet::from_iter([0]), ..Placement::default() };
    node.settings.system_reserved = [("cpu".to_owned(), crate::api::quantity::Quantity::from_milli(1000))].into();
    node
}

impl Node {
    async fn run_pod(&self, pod: Value) -> Value {
        let path = path(pod["metadata"]["name"].as_str().expect("a name"));
        self.api.put(&path, pod);
        self.until("ready", || self.api.get(&path).filter(|pod| is_ready(&pod["status"]))).await
    }

    fn delete(&self, name: &str) {
        let mut deleted = self.api.get(&path(name)).expect("there");
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        deleted["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        self.api.put(&path(name), deleted);
    }

    async fn call(&self, call: &str) {
        self.until(call, || self.runtime.calls().iter().any(|made| made == call).then_some(())).await;
    }

    fn id_of(&self, name: &str) -> String {
        let pod = self.api.get(&path(name)).expect("there");
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("it runs");
        id.trim_start_matches("containerd://").to_owned()
    }

    fn state(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("agent/cpu_manager_state")).unwrap_or_default()
    }
}

#[tokio::test]
async fn others_are_moved_off_the_cpus_of_a_pod_and_come_back() {
    let mut node = node();
    node.start();
    node.run_pod(with("shares", None)).await;
    node.call("CreateContainer web cpus 0-1").await;
    assert_eq!(node.state(), "", "nothing is written while nobody has any");
    let shares = node.id_of("shares");
    node.run_pod(with("own", Some(1))).await;
    let calls = node.runtime.calls();
    let at = |call: &str| calls.iter().position(|made| made == call).unwrap_or_else(|| panic!("{call}: {calls:#?}"));
    let moved = at(&format!("UpdateContainerResources {shares} cpus 0"));
    assert!(moved < at("CreateContainer web cpus 1"), "before it starts");
    assert!(node.state().contains(r#""defaultCpuSet":"0","entries":{"own":{"web":"1"}}"#), "{}", node.state());

    // Whoever starts now runs on what is left.
    node.run_pod(with("late", None)).await;
    node.call("CreateContainer web cpus 0").await;
    let late = node.id_of("late");
    let told = node.calls_of("UpdateContainerResources");
    node.halt().await;
    node.start();
    // The machine has no control groups here that would tell: they are told once.
    node.call(&format!("UpdateContainerResources {late} cpus 0")).await;
    let own = node.id_of("own");
    node.call(&format!("UpdateContainerResources {own} cpus 1")).await;
    node.until("all are told", || (node.calls_of("UpdateContainerResources") == told + 3).then_some(())).await;

    node.delete("own");
    node.call(&format!("UpdateContainerResources {shares} cpus 0-1")).await;
    node.call(&format!("UpdateContainerResources {late} cpus 0-1")).await;
    node.until("forgotten", || node.state().contains(r#""defaultCpuSet":"0-1","checksum""#).then_some(())).await;
    assert_eq!(node.calls_of("UpdateContainerResources"), told + 5, "each once");
    node.halt().await;
}

#[tokio::test]
async fn a_pod_whose_record_is_gone_gets_cpus_again() {
    let mut node = node();
    node.start();
    node.run_pod(with("shares", None)).await;
    node.run_pod(with("own", Some(1))).await;
    node.halt().await;
    std::fs::remove_file(node.directory.path().join("agent/cpu_manager_state")).expect("there");
    node.start();
    for (name, cpus) in [("own", 1), ("shares", 0)] {
        node.call(&format!("UpdateContainerResources {} cpus {cpus}", node.id_of(name))).await;
    }
    assert!(node.state().contains(r#""entries":{"own":{"web":"1"}}"#), "{}", node.state());
    node.halt().await;
}

#[tokio::test]
async fn what_the_runtime_does_not_take_is_told_again() {
    let mut node = node();
    node.start();
    node.run_pod(with("shares", None)).await;
    let shares = node.id_of("shares");
    let away = || cri::Error::Failed { call: "UpdateContainerResources", message: "away".into() };
    node.runtime.fail_next("UpdateContainerResources", away());
    node.runtime.fail_next("UpdateContainerResources", away());
    node.run_pod(with("own", Some(1))).await;
    let update = format!("UpdateContainerResources {shares} cpus 0");
    tokio::time::pause();
    let told = || node.runtime.calls().iter().filter(|call| **call == update).count();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(told(), 3, "as often as it takes");
    tokio::time::resume();
    node.halt().await;
}

#[tokio::test]
async fn a_pod_waits_for_the_cpus_of_one_that_is_on_its_way_out() {
    let mut node = node();
    node.start();
    node.run_pod(with("first", Some(1))).await;
    // By force: the API has it no more while its containers still run.
    node.api.remove(&path("first"));
    node.run_pod(with("second", Some(1))).await;
    assert!(node.state().contains(r#""entries":{"second":{"web":"1"}}"#), "{}", node.state());
    node.halt().await;
}

const GPU: &str = "example.com/gpu";

/// A pod with whole CPUs and devices.
fn wide(uid: &str, cpus: usize, gpus: usize) -> k8s_openapi::api::core::v1::Pod {
    let mut pod = with(uid, Some(cpus));
    pod["spec"]["containers"][0]["resources"]["limits"][GPU] = json!(gpus.to_string());
    serde_json::from_value(pod).expect("a pod")
}

#[tokio::test]
async fn devices_and_cpus_come_from_the_same_node() {
    let mut node = node();
    node.topology = machine(2, 2, 8, 1, true, 8);
    node.settings.placement.alignment = Alignment::SingleNumaNode;
    let cx = node.context();
    let sockets = node.directory.path().join("plugins");
    std::fs::create_dir_all(&sockets).expect("made");
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(registration::run(cx.devices.clone(), sockets.clone(), stop.clone()));
    node.until("the socket", || sockets.join("kubelet.sock").exists().then_some(())).await;
    let plugin = FakePlugin::start(&sockets, GPU).expect("started");
    plugin.offer(&["a@0", "b@0", "c@1"]);
    plugin.register().await.expect("registered");
    let counts = cx.devices.counts();
    node.until("devices", || counts.borrow().get(GPU).filter(|count| count.allocatable == 3).map(drop)).await;

    let given = |uid: &str| {
        let devices: Vec<String> = cx.devices.granted(uid, "web").into_iter().map(|seen| seen.id).collect();
        (devices.join(","), cx.exclusive.of(uid, "web").to_string())
    };
    // Node 0 has three free CPUs, node 1 four; node 0 has two devices.
    admit(&cx, &wide("u1", 3, 1), false).await.expect("room");
    assert_eq!(given("u1"), ("b".into(), "2,4,6".into()));
    admit(&cx, &wide("u2", 2, 1), false).await.expect("room");
    assert_eq!(given("u2"), ("c".into(), "1,3".into()));
    // One device is left at node 0, two CPUs at node 1.
    let message = "Resources cannot be allocated with Topology locality".to_owned();
    let refused = Err(Refusal { reason: "TopologyAffinityError", message });
    cx.ledger.adopt(&wide("u1", 3, 1).into());
    cx.ledger.adopt(&wide("u2", 2, 1).into());
    assert_eq!(admit(&cx, &wide("u3", 1, 1), false).await, refused);
    assert_eq!(given("u3"), (String::new(), String::new()), "nothing is kept");
    assert_eq!(cx.aligner.counts(), Some((3, 1)));
    // Who got through is not questioned again.
    admit(&cx, &wide("u2", 2, 1), false).await.expect("it has them");
    assert_eq!(cx.aligner.counts(), Some((3, 1)));
    let counts = cx.exclusive.counts().expect("they are counted");
    assert_eq!((counts.shared_milli, counts.exclusive, counts.errors), (2000, 5, 0));
    assert_eq!(cx.aligner.aligned(), Some([("container", 2, 1), ("pod", 0, 0)]));
    stop.cancel();
    tasks.join_all().await;
}

#[tokio::test]
async fn all_containers_of_a_pod_come_from_the_same_node_where_asked_for() {
    for (whole_pods, first, wide) in [(true, "1,3 5,7", false), (false, "2,4 1,3", true)] {
        let mut node = node();
        node.topology = machine(2, 2, 8, 1, true, 8);
        node.settings.placement.alignment = Alignment::SingleNumaNode;
        node.settings.placement.whole_pods = whole_pods;
        let cx = node.context();
        let two = |uid: &str, each: usize| {
            let mut pod = with(uid, Some(each));
            let mut other = pod["spec"]["containers"][0].clone();
            other["name"] = json!("other");
            pod["spec"]["containers"].as_array_mut().expect("a list").push(other);
            let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).expect("a pod");
            cx.ledger.adopt(&pod.clone().into());
            pod
        };
        admit(&cx, &two("u1", 2), false).await.expect("room");
        let of = |container: &str| cx.exclusive.of("u1", container).to_string();
        assert_eq!(format!("{} {}", of("web"), of("other")), first);
        cx.exclusive.release("u1");
        let given = admit(&cx, &two("u2", 3), false).await;
        assert_eq!(given.is_ok(), wide, "each fits a node, both do not");
        let counted =
            if whole_pods { [("container", 0, 0), ("pod", 1, 1)] } else { [("container", 4, 0), ("pod", 0, 0)] };
        assert_eq!(cx.aligner.aligned(), Some(counted));
    }
}

#[tokio::test]
async fn what_lies_together_is_counted() {
    let mut node = node();
    // Two caches of four cores with two threads each; the first core is reserved.
    node.topology = machine(1, 1, 8, 2, false, 4);
    node.settings.placement.cpu_options.full_cores = true;
    let cx = node.context();
    let pod = |uid: &str, cpus: usize| {
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(with(uid, Some(cpus))).expect("a pod");
        cx.ledger.adopt(&pod.clone().into());
        pod
    };
    admit(&cx, &pod("u1", 4), false).await.expect("two cores");
    let refused = admit(&cx, &pod("u2", 1), false).await.expect_err("half of a core");
    assert_eq!(refused.reason, "SMTAlignmentError");
    admit(&cx, &pod("u3", 6), false).await.expect("more cores than a cache has left");
    let rows = |text: String| -> Vec<String> {
        let name = "kubelet_container_aligned_compute_resources_";
        let rows = text.lines().filter_map(|line| line.strip_prefix(name));
        rows.map(|row| row.replace("boundary=", "").replace("scope=", "").replace('"', "")).collect()
    };
    let expect = [
        "count{physical_cpu,container} 2",
        "count{uncore_cache,container} 1",
        "failure_count{physical_cpu,container} 1",
    ];
    assert_eq!(rows(metrics::node::render(&cx).await), expect);
    // One that is asked about again has what it has, and is counted as upstream counts it.
    admit(&cx, &pod("u1", 4), false).await.expect("it has them");
    assert_eq!(rows(metrics::node::render(&cx).await)[1], expect[1]);
    // Nothing is told where nothing is promised.
    let plain = Node::new();
    assert_eq!(rows(metrics::node::render(&plain.context()).await), [""; 0]);
}
