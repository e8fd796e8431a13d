//! Stories of pods on a node, with a runtime and an API in memory.

mod away;
mod cpus;
mod host;
mod lifecycle;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::context::{NodeContext, Paths};
use super::cpu::Exclusive;
use super::eviction::signals::Gauges;
use super::eviction::tests::FakeGauges;
use super::fake_api::FakeApi;
use super::kubelet::{Kubelet, Parts};
use super::topology::Aligner;
use super::topology::machine::Topology;
use super::topology::machine::tests::machine;
use super::volumes::memory::InMemory;
use crate::config::kubelet::Kubelet as Settings;
use crate::config::{Agent, Cidr, Cluster};
use crate::cri::fake::Fake;
use crate::cri::{self, Runtime};
use crate::net::services::View;

const POD: &str = "/api/v1/namespaces/ns/pods/p";

pub(super) struct Node {
    pub(super) api: FakeApi,
    pub(super) runtime: Fake,
    pub(super) directory: tempfile::TempDir,
    /// Whatever this machine is short of is no part of a story.
    pub(super) gauges: Arc<dyn Gauges>,
    pub(super) settings: Settings,
    topology: Topology,
    address: watch::Sender<IpAddr>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Node {
    pub(super) fn new() -> Node {
        Node {
            api: FakeApi::default(),
            runtime: Fake::with_images(&["busybox:1"]),
            directory: tempfile::tempdir().expect("temporary directory"),
            gauges: Arc::new(FakeGauges::default()),
            settings: Settings::default(),
            topology: machine(1, 1, 2, 1, false, 2),
            address: watch::channel(Ipv4Addr::new(192, 0, 2, 1).into()).0,
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    fn kubelet(&self) -> Kubelet {
        let parts = Parts {
            config: Agent { kubelet: self.settings.clone(), ..config(self.directory.path()) },
            cluster: cluster(),
            client: self.api.client(),
            runtime: Arc::new(self.runtime.clone()),
            images: Arc::new(self.runtime.clone()),
            services: tokio::sync::watch::channel(Arc::new(View { complete: true, ..View::default() })).1,
            imports: tokio::sync::watch::channel(1).1,
            exclusive: self.exclusive(),
            aligner: Aligner::new(&self.settings.placement, || Ok(self.topology.clone())).expect("it suits"),
            address: self.address.subscribe(),
            // What is mounted would outlive a story that fails.
            in_memory: InMemory::No,
        };
        // No control groups there: pods run without.
        Kubelet::with_cgroups(parts, self.directory.path()).with_gauges(self.gauges.clone())
    }

    fn exclusive(&self) -> Exclusive {
        let paths = Paths::new(self.directory.path(), None);
        std::fs::create_dir_all(&paths.kubelet).expect("made");
        Exclusive::new(&self.settings, || Ok(self.topology.clone()), &paths.kubelet).expect("it suits")
    }

    /// What workers share, with nothing running.
    pub(super) fn context(&self) -> Arc<NodeContext> {
        self.kubelet().context()
    }

    pub(super) fn start(&mut self) -> Arc<NodeContext> {
        self.stop = CancellationToken::new();
        let kubelet = self.kubelet();
        let cx = kubelet.context();
        self.tasks.spawn(kubelet.run(self.stop.clone()));
        cx
    }

    pub(super) async fn halt(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    async fn status_when(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let pod = self.until(what, || self.api.get(POD).filter(|pod| condition(&pod["status"]))).await;
        pod["status"].clone()
    }

    pub(super) async fn until<T>(&self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        for _ in 0..2000 {
            if let Some(found) = found() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (events, calls) = (self.api.events(), self.runtime.calls());
        panic!("{what} did not happen; pod {:?}; events {events:#?}; calls {calls:#?}", self.api.get(POD));
    }

    pub(super) fn calls_of(&self, call: &str) -> usize {
        self.runtime.calls().iter().filter(|made| made.starts_with(call)).count()
    }
}

fn cluster() -> Cluster {
    let network = |address: [u8; 4], prefix| Cidr { address: Ipv4Addr::from(address), prefix };
    Cluster {
        cluster_cidr: network([10, 42, 0, 0], 16),
        service_cidr: network([10, 43, 0, 0], 16),
        cluster_dns: Ipv4Addr::new(10, 43, 0, 10),
        cluster_domain: "cluster.local".into(),
        node_ports: (30000, 32767),
    }
}

fn config(directory: &Path) -> Agent {
    Agent {
        data_dir: directory.to_owned(),
        search_path: "/usr/sbin:/usr/bin:/sbin:/bin".into(),
        cluster: None,
        server: "https://192.0.2.1:6443".into(),
        token: String::new(),
        node_name: "n1".into(),
        node_ip: Ipv4Addr::new(192, 0, 2, 1).into(),
        node_labels: Vec::new(),
        node_taints: Vec::new(),
        runtime_endpoint: None,
        resolv_conf: "/etc/resolv.conf".into(),
        follow_address: false,
        kubelet_port: 10250,
        max_pods: 110,
        local_storage: "/nonexistent".into(),
        images: crate::config::ImageSettings::default(),
        pod_manifests: directory.join("pod-manifests"),
        kubelet: Settings::default(),
        kubelet_dir: None,
        notify_socket: None,
    }
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    spec["nodeName"] = json!("n1");
    json!({"apiVersion": "v1", "kind": "Pod", "spec": spec, "status": {"phase": "Pending"},
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "generation": 1}})
}

fn one(policy: &str) -> Value {
    pod(json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "web", "image": "busybox:1", "imagePullPolicy": "IfNotPresent"}]}))
}

pub(super) fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

#[tokio::test]
async fn a_pod_starts_and_goes() {
    let mut node = Node::new();
    node.start();
    node.api.put(POD, one("Always"));
    let status = node.status_when("ready", is_ready).await;
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["hostIP"], "192.0.2.1");
    assert!(status["podIP"].as_str().is_some_and(|ip| ip.starts_with("10.42.0.")));
    let expect = [
        "Pulled: Container image \"busybox:1\" already present on machine and can be accessed by the pod",
        "Created: Container created",
        "Started: Container started",
    ];
    node.until("events", || expect.iter().all(|e| node.api.events().iter().any(|f| f == e)).then_some(())).await;

    let mut deleted = node.api.get(POD).expect("there");
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    deleted["metadata"]["deletionGracePeriodSeconds"] = json!(1);
    node.api.put(POD, deleted);
    node.until("deleted", || node.api.get(POD).is_none().then_some(())).await;
    assert!(node.runtime.sandboxes(None).await.expect("listed").is_empty(), "the sandbox is gone");
    node.until("directory removed", || (!node.directory.path().join("agent/pods/u1").exists()).then_some(())).await;
    assert!(node.api.events().contains(&"Killing: Stopping container web".to_owned()));
    node.halt().await;
}

#[tokio::test]
async fn the_node_registers_and_is_ready() {
    let mut node = Node::new();
    node.start();
    let ready = |object: &Value| is_ready(&object["status"]);
    let object = node.until("ready", || node.api.get("/api/v1/nodes/n1").filter(ready)).await;
    let role = "node-role.kubernetes.io/control-plane";
    assert_eq!(object["metadata"]["labels"][role], Value::Null, "nodes may not label themselves so");
    assert_eq!(object["status"]["addresses"][0], json!({"type": "InternalIP", "address": "192.0.2.1"}));
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let lease = node.until("lease", || node.api.get(lease)).await;
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    node.halt().await;
}

#[tokio::test]
async fn a_crash_restarts_at_once_then_waits() {
    let mut node = Node::new();
    node.start();
    node.api.put(POD, one("Always"));
    node.status_when("ready", is_ready).await;
    node.runtime.exit("u1", "web", 1);
    let restarted = |status: &Value| is_ready(status) && status["containerStatuses"][0]["restartCount"] == 1;
    let status = node.status_when("restarted", restarted).await;
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    node.runtime.exit("u1", "web", 1);
    let reason = |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    let status = node.status_when("held back", |status| reason(status) == "CrashLoopBackOff").await;
    assert_eq!(status["phase"], "Running");
    let message = status["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap_or_default();
    assert_eq!(message, "back-off 10s restarting failed container=web pod=p_ns(u1)");
    node.halt().await;
}

#[tokio::test]
async fn a_job_like_pod_succeeds_and_stays() {
    let mut node = Node::new();
    node.start();
    node.api.put(POD, one("Never"));
    node.status_when("ready", is_ready).await;
    node.runtime.exit("u1", "web", 0);
    let status = node.status_when("done", |status| status["phase"] == "Succeeded").await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    node.until("sandbox stopped", || (node.calls_of("StopPodSandbox") > 0).then_some(())).await;
    assert_eq!(node.calls_of("RemovePodSandbox"), 0, "kept for its logs");
    assert_eq!(node.calls_of("StartContainer"), 1);
    node.halt().await;
}

#[tokio::test]
async fn a_node_that_was_silent_says_again_that_its_pods_are_ready() {
    let mut node = Node::new();
    node.start();
    node.api.put(POD, one("Always"));
    node.status_when("ready", is_ready).await;
    let mut pod = node.api.get(POD).expect("there");
    let conditions = pod["status"]["conditions"].as_array_mut().expect("conditions");
    conditions.iter_mut().find(|c| c["type"] == "Ready").expect("Ready")["status"] = json!("False");
    // As the server does when it has heard nothing of the node for too long.
    node.api.put(POD, pod);
    node.status_when("ready again", is_ready).await;
    node.halt().await;
}

#[tokio::test]
async fn restarting_the_agent_restarts_no_container() {
    let mut node = Node::new();
    node.start();
    node.api.put(POD, one("Always"));
    node.status_when("ready", is_ready).await;
    node.halt().await;
    // The server is away when the agent comes back: the pod is left alone.
    node.api.set_down(true);
    node.start();
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.api.set_down(false);
    node.halt().await;
    node.start();
    let before = node.runtime.calls().len();
    node.until("looked at", || {
        node.runtime.calls()[before..].iter().any(|call| call.starts_with("ContainerStatus")).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((node.calls_of("RunPodSandbox"), node.calls_of("StartContainer")), (1, 1));
    assert_eq!((node.calls_of("StopContainer"), node.calls_of("StopPodSandbox")), (0, 0));
    assert!(is_ready(&node.api.get(POD).expect("there")["status"]));
    node.halt().await;
}

#[tokio::test]
async fn a_pod_deleted_while_the_agent_was_down_is_removed() {
    let mut node = Node::new();
    node.start();
    node.api.put(POD, one("Always"));
    node.status_when("ready", is_ready).await;
    node.halt().await;
    node.api.remove(POD);
    node.start();
    node.until("removed", || (node.calls_of("RemovePodSandbox") > 0).then_some(())).await;
    node.until("directory removed", || (!node.directory.path().join("agent/pods/u1").exists()).then_some(())).await;
    node.halt().await;
}

#[tokio::test]
async fn a_missing_config_map_is_named_and_waited_for() {
    let mut node = Node::new();
    node.start();
    node.api.put(
        POD,
        pod(json!({"restartPolicy": "Always",
            "volumes": [{"name": "v", "configMap": {"name": "settings"}},
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            "containers": [{"name": "web", "image": "busybox:1", "imagePullPolicy": "Never",
                "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "t", "mountPath": "/t"}]}]})),
    );
    let failed = "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"settings\" not found";
    node.until("event", || node.api.events().contains(&failed.to_owned()).then_some(())).await;
    let object = |value: &str| json!({"metadata": {"name": "settings", "namespace": "ns"}, "data": {"k": value}});
    node.api.put("/api/v1/namespaces/ns/configmaps/settings", object("1"));
    node.status_when("ready", is_ready).await;
    let volumes = node.directory.path().join("agent/pods/u1/volumes");
    let file = volumes.join("kubernetes.io~configmap/v/k");
    assert_eq!(std::fs::read_to_string(&file).ok().as_deref(), Some("1"));
    let token = std::fs::read_to_string(volumes.join("kubernetes.io~projected/t/token"));
    assert_eq!(token.ok().as_deref(), Some("t0ken"));
    node.api.put("/api/v1/namespaces/ns/configmaps/settings", object("2"));
    node.until("updated", || (std::fs::read_to_string(&file).ok()? == "2").then_some(())).await;
    assert_eq!(node.calls_of("StartContainer"), 1, "nothing restarted");
    node.halt().await;
}

#[tokio::test]
async fn no_container_runs_without_the_devices_that_it_claims() {
    let mut node = Node::new();
    node.start();
    let mut claims = one("Always");
    claims["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimTemplateName": "t"}]);
    claims["status"]["resourceClaimStatuses"] = json!([{"name": "gpu", "resourceClaimName": "p-gpu"}]);
    node.api.put(POD, claims.clone());
    let why = "FailedPrepareDynamicResources: Failed to prepare dynamic resources: prepare dynamic resources: fetch \
               ResourceClaim p-gpu: ";
    node.until("event", || node.api.events().iter().any(|event| event.starts_with(why)).then_some(())).await;
    assert_eq!(node.calls_of("CreateContainer"), 0);
    node.halt().await;

    // The template of this one asks for nothing.
    let mut node = Node::new();
    node.start();
    claims["status"]["resourceClaimStatuses"] = json!([{"name": "gpu"}]);
    node.api.put(POD, claims);
    node.status_when("ready", is_ready).await;
    node.halt().await;
}

#[tokio::test]
async fn a_pod_whose_host_port_is_taken_is_refused() {
    let mut node = Node::new();
    node.start();
    let with_port = |uid: &str| {
        let mut pod = one("Always");
        pod["metadata"]["uid"] = uid.into();
        pod["metadata"]["name"] = uid.into();
        pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
        pod
    };
    let path = |name: &str| format!("/api/v1/namespaces/ns/pods/{name}");
    node.api.put(&path("first"), with_port("first"));
    let is = |path: &str, phase: &str| node.api.get(path).filter(|pod| pod["status"]["phase"] == phase);
    node.until("it runs", || is(&path("first"), "Running")).await;
    node.api.put(&path("second"), with_port("second"));
    let refused = node.until("it is refused", || is(&path("second"), "Failed")).await;
    let status = &refused["status"];
    assert_eq!((&status["reason"], &status["containerStatuses"]), (&json!("NodePorts"), &Value::Null), "{status}");
    assert_eq!(
        status["message"],
        "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
    );
    assert!(
        node.api
            .events()
            .iter()
            .any(|event| event.starts_with("NodePorts: Predicate NodePorts failed: node(s) didn't"))
    );
    node.halt().await;
}

#[tokio::test]
async fn images_that_cannot_be_had() {
    let mut node = Node::new();
    node.start();
    let mut wanted = one("Always");
    wanted["spec"]["containers"][0]["image"] = json!("nothing:1");
    wanted["spec"]["containers"][0]["imagePullPolicy"] = json!("Never");
    node.api.put(POD, wanted);
    let reason = |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    let status = node.status_when("refused", |status| reason(status) == "ErrImageNeverPull").await;
    assert_eq!(status["phase"], "Pending");
    node.halt().await;
}

#[tokio::test]
async fn a_sandbox_that_fails_is_tried_again() {
    let mut node = Node::new();
    let error = cri::Error::Failed { call: "RunPodSandbox", message: "no network".into() };
    node.runtime.fail_next("RunPodSandbox", error);
    node.start();
    node.api.put(POD, one("Always"));
    node.status_when("ready", is_ready).await;
    let failed = "FailedCreatePodSandBox: Failed to create pod sandbox: no network".to_owned();
    node.until("event", || node.api.events().contains(&failed).then_some(())).await;
    node.halt().await;
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_the_container() {
    let mut node = Node::new();
    let failing = cri::ExecResult { exit_code: 1, stdout: b"sick".to_vec(), stderr: Vec::new() };
    node.runtime.on_exec("check", failing);
    node.start();
    let mut wanted = one("Always");
    wanted["spec"]["containers"][0]["livenessProbe"] =
        json!({"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1});
    node.api.put(POD, wanted);
    node.status_when("restarted", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    for expect in
        ["Unhealthy: Liveness probe failed: sick", "Killing: Container web failed liveness probe, will be restarted"]
    {
        node.until(expect, || node.api.events().contains(&expect.to_owned()).then_some(())).await;
    }
    node.halt().await;
}
