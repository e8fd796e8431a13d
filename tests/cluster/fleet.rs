//! Figures of a large cluster, printed: `sh tests/bench.sh`. Its nodes are simulated: each has a Node, a Lease that is
//! renewed and a watch of its pods, as an agent has; but one thread says for all of them that pods run.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::bench::usage;
use crate::lab::{Lab, now};
use crate::load::{Ask, Connection, Target};
use crate::watches::Watches;

const WRITERS: usize = 8;
const CREATORS: usize = 8;
/// Of one connection.
const WATCHES: usize = 50;
const HEARTBEAT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(5);
const IDLE: Duration = Duration::from_secs(30);
const MERGE: &str = "application/strategic-merge-patch+json";

/// What is looked at in a pod.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Seen,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Seen {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    name: String,
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

/// What the nodes have seen.
#[derive(Default)]
struct Counts {
    bound: AtomicUsize,
    running: AtomicUsize,
    stop: AtomicBool,
}

struct Fleet {
    target: Target,
    counts: Arc<Counts>,
}

fn node(n: usize) -> Value {
    let (name, zone) = (format!("n{n}"), format!("z{}", n % 3));
    let room = json!({"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"});
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}},
        "status": {"capacity": room, "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

fn lease(n: usize, renewals: usize) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": format!("n{n}")},
        "spec": {"holderIdentity": format!("n{n}"), "leaseDurationSeconds": 40,
            "renewTime": format!("2026-01-01T00:00:00.{renewals:06}Z")}})
}

#[track_caller]
fn ask(connection: &mut Connection, ask: &Ask) {
    let (status, _) = connection.ask(ask);
    assert!((200..300).contains(&status), "{} {}: {status}", ask.method, ask.path);
}

impl Fleet {
    fn start(target: &Target, nodes: usize) -> Self {
        let (fleet, mut connection) = (Self { target: target.clone(), counts: Arc::default() }, target.connect());
        for n in 0..nodes {
            ask(&mut connection, &Ask::new("POST", "/api/v1/nodes", node(n).to_string()));
            ask(&mut connection, &Ask::new("POST", LEASES, lease(n, 0).to_string()));
        }
        let counts = fleet.counts.clone();
        std::thread::spawn(move || {
            for renewals in 1.. {
                std::thread::sleep(HEARTBEAT);
                if counts.stop.load(Ordering::Relaxed) {
                    return;
                }
                for n in 0..nodes {
                    let (path, spec) = (format!("{LEASES}/n{n}"), json!({"spec": lease(n, renewals)["spec"]}));
                    let patch = Ask { content_type: MERGE, ..Ask::new("PATCH", path, spec.to_string()) };
                    ask(&mut connection, &patch);
                }
            }
        });
        let all: Vec<usize> = (0..nodes).collect();
        for shared in all.chunks(WATCHES) {
            let path = |n: &usize| format!("/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn{n}");
            let paths: Vec<String> = shared.iter().map(path).collect();
            let mut watches = Watches::open(target, paths.iter().map(String::as_str));
            std::thread::spawn(move || while watches.next().is_some() {});
        }
        fleet.run_pods();
        fleet
    }

    /// Says of each pod that is bound that it runs, and takes away those that are deleted.
    fn run_pods(&self) {
        let (send, receive) = mpsc::channel::<Ask>();
        let receive = Arc::new(Mutex::new(receive));
        for _ in 0..WRITERS {
            let (receive, mut connection) = (receive.clone(), self.target.connect());
            let counts = self.counts.clone();
            std::thread::spawn(move || {
                loop {
                    let next = receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(ask) = next else { return };
                    let (status, _) = connection.ask(&ask);
                    if ask.method == "PATCH" && status == 200 {
                        counts.running.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut watch = Watches::open(&self.target, ["/api/v1/pods?watch=true"]);
        let counts = self.counts.clone();
        std::thread::spawn(move || {
            let mut bound = HashSet::new();
            while let Some(text) = watch.next() {
                for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                    let Event { kind, object } = serde_json::from_slice(line).unwrap();
                    if kind == "DELETED" || object.spec.node_name.is_empty() {
                        continue;
                    }
                    let path = format!("/api/v1/namespaces/default/pods/{}", object.metadata.name);
                    if object.metadata.deletion_timestamp.is_some() {
                        let _ = send.send(Ask::new("DELETE", path + "?gracePeriodSeconds=0", ""));
                    } else if object.status.phase != "Running" && bound.insert(object.metadata.name) {
                        counts.bound.fetch_add(1, Ordering::Relaxed);
                        let status = running();
                        let patch = Ask { content_type: MERGE, ..Ask::new("PATCH", path + "/status", status) };
                        let _ = send.send(patch);
                    }
                }
            }
        });
    }

    /// Makes so many pods, some connections at once.
    fn create(&self, count: usize, pod: impl Fn(usize) -> Value + Sync) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..CREATORS {
                scope.spawn(|| {
                    let mut connection = self.target.connect();
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= count {
                            return;
                        }
                        ask(&mut connection, &Ask::new("POST", "/api/v1/namespaces/default/pods", pod(n).to_string()));
                    }
                });
            }
        });
    }

    fn until(&self, count: &AtomicUsize, wanted: usize) {
        while count.load(Ordering::Relaxed) < wanted {
            std::thread::sleep(STEP);
        }
    }
}

fn running() -> String {
    json!({"status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.42.0.2", "podIPs": [{"ip": "10.42.0.2"}],
        "startTime": "2026-01-01T00:00:00Z",
        "conditions": (["Initialized", "Ready", "ContainersReady"].map(|kind| json!({"type": kind, "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}))),
        "containerStatuses": [{"name": "c", "image": "x", "imageID": "x", "containerID": "containerd://0", "ready": true,
            "started": true, "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}})
    .to_string()
}

fn pod(name: &str, app: &str, more: &Value) -> Value {
    let requests = json!({"cpu": "10m", "memory": "16Mi"});
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": requests}}]}});
    crate::lab::merge(&mut pod["spec"], more);
    pod
}

fn deployment(name: &str, replicas: usize) -> Value {
    let template = pod("", name, &json!({}));
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]}}})
}

/// Runs `work` beside a server without nodes of its own; gives it the way to the server and its process.
fn beside(work: impl FnOnce(&Target, u32) + Send + 'static) -> Lab {
    let mut lab = Lab::new(1);
    lab.launch_server_with(&["--disable-agent"]);
    let pid = lab.machines[0].skiff.as_ref().unwrap().id();
    let kubeconfig = lab.kubeconfig();
    lab.machines[0]
        .in_network(move || {
            let target = reached(&kubeconfig);
            work(&target, pid);
        })
        .join()
        .unwrap();
    lab
}

/// The way to the server, once it is ready for pods.
fn reached(kubeconfig: &Path) -> Target {
    while !kubeconfig.exists() {
        std::thread::sleep(STEP);
    }
    let target = Target::new(kubeconfig);
    let account = Ask::new("GET", "/api/v1/namespaces/default/serviceaccounts/default", "");
    while target.connect().ask(&account).0 != 200 {
        std::thread::sleep(STEP);
    }
    target
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn a_second(count: usize, begin: Instant) -> f64 {
    count as f64 / begin.elapsed().as_secs_f64()
}

#[test]
#[ignore = "prints figures; run by tests/bench.sh"]
fn scheduling() {
    beside(|target, pid| {
        const NODES: usize = 500;
        let fleet = Fleet::start(target, NODES);
        std::thread::sleep(Duration::from_secs(2));
        let case = |what: &str, count: usize, more: Value| {
            let (before, ticks, begin) = (fleet.counts.bound.load(Ordering::Relaxed), usage(pid).cpu_ticks, now());
            fleet.create(count, |n| pod(&format!("{what}-{n}"), what, &more));
            fleet.until(&fleet.counts.bound, before + count);
            let rate = a_second(count, begin);
            fleet.until(&fleet.counts.running, before + count);
            let cpu = usage(pid).cpu_ticks - ticks;
            let all = begin.elapsed().as_secs_f64();
            println!(
                "{count} pods ({what}) on {NODES} simulated nodes: {rate:.0} created and bound a second; all Running after \
                 {all:.1} s, {cpu}0 ms of the server's CPU"
            );
        };
        case("plain", 5000, json!({}));
        let selector = json!({"matchLabels": {"app": "apart"}});
        let spread = json!([{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]);
        let apart = json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}]);
        let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}});
        case("apart", NODES, json!({"topologySpreadConstraints": spread, "affinity": anti}));
        fleet.counts.stop.store(true, Ordering::Relaxed);
    });
}

#[test]
#[ignore = "prints figures; run by tests/bench.sh"]
fn many_pods() {
    let mut lab = beside(|target, pid| {
        const NODES: usize = 200;
        let empty = usage(pid).pss_kib;
        let fleet = Fleet::start(target, NODES);
        std::thread::sleep(Duration::from_secs(2));
        let mut connection = target.connect();
        for (n, count) in [2000, 2000, 2000, 2000, 2000].into_iter().enumerate() {
            let begin = now();
            let made = deployment(&format!("d{n}"), count).to_string();
            ask(&mut connection, &Ask::new("POST", "/apis/apps/v1/namespaces/default/deployments", made));
            fleet.until(&fleet.counts.running, (n + 1) * count);
            let (took, memory) = (begin.elapsed().as_secs_f64(), usage(pid).pss_kib);
            let total = (n + 1) * count;
            println!(
                "a Deployment of {count} on {NODES} simulated nodes: all Running after {took:.1} s ({total} pods, {memory} KiB PSS)"
            );
        }
        std::thread::sleep(Duration::from_secs(15));
        let before = usage(pid);
        println!("10,000 pods: {} KiB PSS, {empty} KiB without", before.pss_kib);
        std::thread::sleep(IDLE);
        let cpu = usage(pid).cpu_ticks - before.cpu_ticks;
        let seconds = IDLE.as_secs();
        println!("10,000 pods, {NODES} nodes that renew their leases: {cpu}0 ms of CPU in {seconds} s");
        fleet.counts.stop.store(true, Ordering::Relaxed);
    });
    lab.machines[0].kill();
    let begin = now();
    lab.machines[0].restart();
    let kubeconfig = lab.kubeconfig();
    let restarted = lab.machines[0].in_network(move || {
        let target = Target::new(&kubeconfig);
        let made = pod("after", "after", &json!({})).to_string();
        let create = Ask::new("POST", "/api/v1/namespaces/default/pods", made);
        while target.try_connect().is_none_or(|mut c| c.ask(&create).0 != 201) {
            std::thread::sleep(STEP);
        }
        println!(
            "restart with 10,000 pods: the first pod is taken after {:.0} ms",
            begin.elapsed().as_secs_f64() * 1e3
        );
        let mut watch =
            Watches::open(&target, ["/api/v1/namespaces/default/pods?watch=true&fieldSelector=metadata.name%3Dafter"]);
        while let Some(text) = watch.next() {
            let mut events = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(serde_json::from_slice::<Event>);
            if events.any(|e| !e.unwrap().object.spec.node_name.is_empty()) {
                break;
            }
        }
        println!("restart with 10,000 pods: that pod is bound after {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    });
    restarted.join().unwrap();
}
