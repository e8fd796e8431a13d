//! Figures, printed: `sh tests/bench.sh`. Nothing here fails because a machine is slow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use skiff::cri::containerd::Layout;
use skiff::cri::{Runtime as _, v1};
use tokio::task::JoinSet;

use crate::lab::{IMAGE, Lab, now};
use crate::load::{Ask, Target};
use crate::watches::Watches;

/// Of readers, who each keep a core busy.
const READERS: usize = 16;
/// Of writers, who wait for the disk together.
const WRITERS: usize = 64;
/// More than a small machine has, and as many as a large one.
const WATCHERS: [usize; 2] = [100, 1000];
/// As of a client that follows so many things: those of Go share one connection for all.
const WATCHES_PER_CONNECTION: usize = 50;
/// Events that each watch sees.
const EVENTS: usize = 50;
const MANY_OBJECTS: u64 = 100_000;
const IDLE: Duration = Duration::from_secs(60);
/// What a start leaves to do, such as the import of images and the batch of events, is neither idling nor serving.
const SETTLE: Duration = Duration::from_secs(10);
const RATE_TIME: Duration = Duration::from_secs(5);

pub async fn client(kubeconfig: &Path) -> Option<Client> {
    let text = fs::read_to_string(kubeconfig).ok()?;
    let config = Kubeconfig::from_yaml(&text).ok()?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.ok()?;
    Client::try_from(config).ok()
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"bench": "pod"}},
        "spec": {
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": true,
            "containers": [{"name": "c", "image": IMAGE, "command": ["/bin/sleep", "100000"]}],
        },
    }))
    .unwrap()
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn percentile(sorted: &[f64], p: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
    let index = ((sorted.len() as f64 - 1.0) * p).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

fn summary(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("median {:.1} ms, p99 {:.1} ms", percentile(&values, 0.5), percentile(&values, 0.99))
}

/// Watches pods until all names are as wanted.
async fn until(pods: &Api<Pod>, from: &str, mut left: usize, wanted: impl Fn(&WatchEvent<Pod>) -> bool) {
    let params = WatchParams::default().labels("bench=pod");
    let mut stream = pods.watch(&params, from).await.unwrap().boxed();
    let mut done = std::collections::BTreeSet::new();
    while left > 0 {
        let event = stream.try_next().await.unwrap().expect("the watch stays open");
        if wanted(&event)
            && let WatchEvent::Added(p) | WatchEvent::Modified(p) | WatchEvent::Deleted(p) = event
            && done.insert(p.name_any())
        {
            left -= 1;
        }
    }
}

fn started(event: &WatchEvent<Pod>) -> bool {
    matches!(event, WatchEvent::Added(p) | WatchEvent::Modified(p) if is_running(p))
}

pub struct Usage {
    pub pss_kib: u64,
    pub cpu_ticks: u64,
    pub written: u64,
}

pub fn usage(pid: u32) -> Usage {
    let field = |file: &str, name: &str| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|v| v.parse().ok()).unwrap_or_default()
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or_default();
    Usage {
        pss_kib: field("smaps_rollup", "Pss:"),
        cpu_ticks: ticks(11) + ticks(12),
        written: field("io", "write_bytes:"),
    }
}

/// A server that was started a moment ago.
struct Server {
    /// Right before its process was.
    begin: Instant,
    kubeconfig: PathBuf,
    data_dir: PathBuf,
    pid: u32,
}

/// Runs `work` beside a server of its own.
fn beside<F: Future<Output = ()>>(work: impl FnOnce(Server) -> F + Send + 'static) {
    let mut lab = Lab::with_image(1);
    let begin = now();
    lab.launch_server();
    let machine = &lab.machines[0];
    let server = Server {
        begin,
        kubeconfig: lab.kubeconfig(),
        data_dir: machine.data_dir.clone(),
        pid: machine.skiff.as_ref().unwrap().id(),
    };
    let thread = machine.in_network(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(server));
    });
    thread.join().unwrap();
}

#[test]
#[ignore = "prints figures; run by tests/bench.sh"]
fn pods() {
    beside(|server| async move {
        let client = cold_start(&server).await;
        latency(&client, &server.data_dir).await;
        idle(&client, server.pid).await;
    });
}

#[test]
#[ignore = "prints figures; run by tests/bench.sh"]
fn requests() {
    beside(|server| async move {
        ready(&served(&server.kubeconfig).await).await;
        tokio::time::sleep(SETTLE).await;
        let before = usage(server.pid).pss_kib;
        rates(&server.kubeconfig, server.pid);
        for count in WATCHERS {
            watchers((&server.kubeconfig, server.pid), count).await;
        }
        fill(&server.kubeconfig).await;
        let after = usage(server.pid).pss_kib;
        println!("memory of skiff with {MANY_OBJECTS} ConfigMaps of 1 KiB: {after} KiB PSS, {before} KiB without");
    });
}

/// A client, once the server is ready for it.
async fn served(kubeconfig: &Path) -> Client {
    loop {
        if let Some(client) = client(kubeconfig).await
            && client.request_text(http::Request::get("/readyz").body(Vec::new()).unwrap()).await.is_ok()
        {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn ready(client: &Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut stream = nodes.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    loop {
        match stream.try_next().await.unwrap() {
            Some(WatchEvent::Added(node) | WatchEvent::Modified(node)) if is_ready(&node) => return,
            _ => {}
        }
    }
}

async fn cold_start(server: &Server) -> Client {
    let start = server.begin;
    let client = served(&server.kubeconfig).await;
    println!("cold start: /readyz after {:.0} ms", milliseconds(start.elapsed()));
    ready(&client).await;
    println!("cold start: node Ready after {:.0} ms", milliseconds(start.elapsed()));
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    loop {
        // The default ServiceAccount appears a moment after the namespace.
        if pods.create(&PostParams::default(), &pod("first")).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until(&pods, "0", 1, started).await;
    println!("cold start: first pod Running after {:.0} ms", milliseconds(start.elapsed()));
    pods.delete("first", &DeleteParams::default()).await.unwrap();
    client
}

async fn latency(client: &Client, data_dir: &Path) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let mut floor: [Vec<f64>; 4] = Default::default();
    let runtime = skiff::cri::client::Client::new(&Layout::new(data_dir).socket());
    let files = &data_dir.join("bare");
    for n in 0..20 {
        let (sandbox, times) = bare_pod(&runtime, files, n).await;
        floor.iter_mut().zip(times).for_each(|(values, time)| values.push(time));
        runtime.stop_sandbox(&sandbox).await.unwrap();
        runtime.remove_sandbox(&sandbox).await.unwrap();
    }
    for (what, values) in ["RunPodSandbox", "CreateContainer", "StartContainer", "bare CRI calls"].iter().zip(floor) {
        println!("20 pods one after another, {what}: {}", summary(values));
    }
    let begin = now();
    let mut tasks = JoinSet::new();
    for n in 100..150 {
        let (runtime, files) = (runtime.clone(), files.clone());
        tasks.spawn(async move { bare_pod(&runtime, &files, n).await });
    }
    let mut sandboxes = Vec::new();
    while let Some(sandbox) = tasks.join_next().await {
        sandboxes.push(sandbox.unwrap().0);
    }
    println!("50 pods at once, bare CRI calls: {:.0} ms", milliseconds(begin.elapsed()));
    for sandbox in sandboxes {
        runtime.stop_sandbox(&sandbox).await.unwrap();
        runtime.remove_sandbox(&sandbox).await.unwrap();
    }

    let mut values = Vec::new();
    for n in 0..20 {
        let begin = now();
        let created = pods.create(&PostParams::default(), &pod(&format!("one-{n}"))).await.unwrap();
        until(&pods, &created.resource_version().unwrap(), 1, started).await;
        values.push(milliseconds(begin.elapsed()));
    }
    println!("20 pods one after another, create to Running: {}", summary(values));
    remove_all(&pods).await;

    let begin = now();
    let from = pods.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let creates = (0..50).map(|n| {
        let pods = pods.clone();
        async move { pods.create(&PostParams::default(), &pod(&format!("many-{n}"))).await.unwrap() }
    });
    futures::future::join_all(creates).await;
    until(&pods, &from, 50, started).await;
    println!("50 pods at once, create to Running: {:.0} ms", milliseconds(begin.elapsed()));
    let begin = now();
    remove_all(&pods).await;
    println!("50 pods at once, delete to gone: {:.0} ms", milliseconds(begin.elapsed()));
}

/// The sandbox, and the milliseconds that its making, its container's, the start and all of it took. What the calls ask
/// for is what they ask for of [`pod`]: its control group, log, resolvers, files and directory of the token.
async fn bare_pod(runtime: &skiff::cri::client::Client, files: &Path, n: u32) -> (String, [f64; 4]) {
    let name = format!("bare-{n}");
    let files = files.join(&name);
    fs::create_dir_all(files.join("token")).unwrap();
    fs::create_dir_all(files.join("logs/c")).unwrap();
    for file in ["hosts", "end"] {
        fs::write(files.join(file), "").unwrap();
    }
    let mount = |from: &str, to: &str, readonly| v1::Mount {
        host_path: files.join(from).to_str().unwrap().to_owned(),
        container_path: to.to_owned(),
        readonly,
        ..Default::default()
    };
    let config = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.clone(),
            uid: name.clone(),
            namespace: "bench".into(),
            attempt: 0,
        }),
        hostname: name.clone(),
        log_directory: files.join("logs").to_str().unwrap().to_owned(),
        dns_config: Some(v1::DnsConfig {
            servers: vec!["10.43.0.10".into()],
            searches: ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"].map(str::to_owned).to_vec(),
            options: vec!["ndots:5".into()],
        }),
        linux: Some(v1::LinuxPodSandboxConfig { cgroup_parent: "/kubepods/besteffort".into(), ..Default::default() }),
        ..Default::default()
    };
    let container = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: vec!["/bin/sleep".into(), "100000".into()],
        log_path: "c/0.log".into(),
        mounts: vec![
            mount("token", "/var/run/secrets/kubernetes.io/serviceaccount", true),
            mount("hosts", "/etc/hosts", false),
            mount("end", "/dev/termination-log", false),
        ],
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(v1::LinuxContainerResources { cpu_shares: 2, oom_score_adj: 1000, ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let begin = now();
    let sandbox = runtime.run_sandbox(&config, "").await.unwrap();
    let sandboxed = milliseconds(begin.elapsed());
    let id = runtime.create_container(&sandbox, &container, &config).await.unwrap();
    let created = milliseconds(begin.elapsed());
    runtime.start_container(&id).await.unwrap();
    let started = milliseconds(begin.elapsed());
    (sandbox, [sandboxed, created - sandboxed, started - created, started])
}

async fn remove_all(pods: &Api<Pod>) {
    let list = pods.list(&ListParams::default()).await.unwrap();
    let (from, count) = (list.metadata.resource_version.unwrap(), list.items.len());
    pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    until(pods, &from, count, |e| matches!(e, WatchEvent::Deleted(_))).await;
}

async fn idle(client: &Client, pid: u32) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let from = pods.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    for n in 0..20 {
        pods.create(&PostParams::default(), &pod(&format!("idle-{n}"))).await.unwrap();
    }
    until(&pods, &from, 20, started).await;
    tokio::time::sleep(SETTLE).await;
    let before = usage(pid);
    tokio::time::sleep(IDLE).await;
    let after = usage(pid);
    let seconds = IDLE.as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let (cpu, written) = ((after.cpu_ticks - before.cpu_ticks) as f64 / 100.0, (after.written - before.written) as f64);
    println!("idle with 20 pods: {} KiB PSS", after.pss_kib);
    println!("idle with 20 pods: {:.2} % of a core ({cpu:.2} s in {seconds:.0} s)", cpu / seconds * 100.0);
    println!("idle with 20 pods: {:.0} bytes/s written to disk", written / seconds);
    remove_all(&pods).await;
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "x".repeat(900)},
    }))
    .unwrap()
}

/// Runs one operation over and over on each connection; prints how often it was done in a second.
fn rate(what: &str, (target, pid): (&Target, u32), connections: usize, operation: impl Fn(u64) -> Ask + Sync) {
    let count = AtomicU64::new(0);
    let all: Vec<_> = (0..connections).map(|_| target.connect()).collect();
    let cpu = || [usage(pid).cpu_ticks, usage(std::process::id()).cpu_ticks];
    let (before, begin) = (cpu(), now());
    std::thread::scope(|scope| {
        for connection in all {
            scope.spawn(|| {
                let mut connection = connection;
                while begin.elapsed() < RATE_TIME {
                    let ask = operation(count.fetch_add(1, Ordering::Relaxed));
                    let (status, _) = connection.ask(&ask);
                    assert!((200..300).contains(&status), "{}: {status}", ask.path);
                }
            });
        }
    });
    let after = cpu();
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let (count, seconds) = (count.load(Ordering::Relaxed) as f64, begin.elapsed().as_secs_f64());
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let each = |n: usize| (after[n] - before[n]) as f64 * 10_000.0 / count;
    println!(
        "{what}, {connections} connections: {:.0}/s ({:.0} µs of CPU each, and {:.0} µs of who asks)",
        count / seconds,
        each(0),
        each(1)
    );
}

fn rates(kubeconfig: &Path, pid: u32) {
    const PATH: &str = "/api/v1/namespaces/default/configmaps";
    let target = &Target::new(kubeconfig);
    let server = (target, pid);
    let template = serde_json::to_string(&config_map("#")).unwrap();
    let (start, end) = template.split_once('#').unwrap();
    let named = |n: u64| format!("{start}c{n}{end}");
    rate("ConfigMap creates of 1 KiB, durable", server, WRITERS, |n| Ask::new("POST", PATH, named(n)));
    rate("ConfigMap updates of 1 KiB, durable", server, WRITERS, |n| {
        // Each is another one: an update that changes nothing is not written.
        let body = named(n % 1000).replace("xxxxxxxx", &format!("{n:08}"));
        Ask::new("PUT", format!("{PATH}/c{}", n % 1000), body)
    });
    rate("ConfigMap gets", server, READERS, |n| Ask::new("GET", format!("{PATH}/c{}", n % 1000), ""));
    rate("lists of 1000 ConfigMaps", server, READERS, |_| Ask::new("GET", format!("{PATH}?limit=1000"), ""));
    // Dry, so that no controller comes in between: everything is done but the commit.
    let apply = |n: u64, query: &str| Ask {
        method: "PATCH",
        path: format!("/apis/apps/v1/namespaces/default/deployments/applied?fieldManager=bench{query}"),
        content_type: "application/apply-patch+yaml",
        body: deployment(n),
    };
    target.connect().ask(&apply(0, ""));
    rate("server-side applies of a Deployment that change it, dry", server, READERS, |n| apply(n + 1, "&dryRun=All"));
    rate("server-side applies of a Deployment that change nothing", server, READERS, |_| apply(0, ""));
}

fn deployment(n: u64) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "applied", "labels": {"app": "applied"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "applied"}}, "template": {
            "metadata": {"labels": {"app": "applied"}, "annotations": {"n": n.to_string()}},
            "spec": {"containers": [{
                "name": "c", "image": IMAGE, "ports": [{"containerPort": 80}, {"containerPort": 443, "name": "https"}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }], "volumes": [{"name": "v", "configMap": {"name": "settings"}}]},
        }},
    })
    .to_string()
}

/// Creates ConfigMaps until there are [`MANY_OBJECTS`].
async fn fill(kubeconfig: &Path) {
    let api: Api<ConfigMap> = Api::default_namespaced(client(kubeconfig).await.unwrap());
    let first = api.list_metadata(&ListParams::default().limit(1)).await.unwrap();
    let there = first.items.len() as i64 + first.metadata.remaining_item_count.unwrap_or_default();
    let target = Target::new(kubeconfig);
    let next = AtomicU64::new(u64::try_from(there).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut connection = target.connect();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= MANY_OBJECTS {
                        return;
                    }
                    let body = serde_json::to_string(&config_map(&format!("fill{n}"))).unwrap();
                    connection.ask(&Ask::new("POST", "/api/v1/namespaces/default/configmaps", body));
                }
            });
        }
    });
}

/// How long an event takes to reach each of so many watches, a thread for each connection of them.
async fn watchers((kubeconfig, pid): (&Path, u32), count: usize) {
    let api: Api<ConfigMap> = Api::default_namespaced(client(kubeconfig).await.unwrap());
    let from = api.list(&ListParams::default().limit(1)).await.unwrap().metadata.resource_version.unwrap();
    let target = Target::new(kubeconfig);
    let name = format!("watched-{count}");
    let path = &format!(
        "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={from}&fieldSelector=metadata.name%3D{name}"
    );
    let all: Vec<Watches> = (0..count)
        .collect::<Vec<_>>()
        .chunks(WATCHES_PER_CONNECTION)
        .map(|shared| Watches::open(&target, shared.iter().map(|_| path.as_str())))
        .collect();
    let (sender, receiver) = tokio::sync::watch::channel(None::<Instant>);
    let ready = Arc::new(tokio::sync::Barrier::new(all.len() + 1));
    let cpu = || [usage(pid).cpu_ticks, usage(std::process::id()).cpu_ticks];
    let before = cpu();
    let mut threads = JoinSet::new();
    for (n, mut watches) in all.into_iter().enumerate() {
        let (ready, sent) = (ready.clone(), receiver.clone());
        let shared = WATCHES_PER_CONNECTION.min(count - n * WATCHES_PER_CONNECTION);
        threads.spawn_blocking(move || {
            let runtime = tokio::runtime::Handle::current();
            let mut delays = Vec::new();
            for _ in 0..EVENTS {
                for _ in 0..shared {
                    watches.next().expect("an open connection");
                    delays.push(milliseconds(sent.borrow().unwrap().elapsed()));
                }
                runtime.block_on(ready.wait());
            }
            delays
        });
    }
    for n in 0..EVENTS {
        let mut object = config_map(&name);
        object.metadata.labels = Some([("n".to_owned(), n.to_string())].into());
        sender.send_replace(Some(now()));
        if n == 0 {
            api.create(&PostParams::default(), &object).await.unwrap();
        } else {
            api.replace(&object.name_any(), &PostParams::default(), &object).await.unwrap();
        }
        ready.wait().await;
    }
    let mut delays = Vec::new();
    while let Some(result) = threads.join_next().await {
        delays.extend(result.unwrap());
    }
    let after = cpu();
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let each = |n: usize| (after[n] - before[n]) as f64 * 10_000.0 / (count * EVENTS) as f64;
    println!(
        "{count} watchers, {WATCHES_PER_CONNECTION} a connection, sent to seen: {} ({:.1} µs of CPU for each event, and \
         {:.1} µs of who watches)",
        summary(delays),
        each(0),
        each(1)
    );
}

/// What the machine is, so that figures can be compared.
#[test]
#[ignore = "prints figures; run by tests/bench.sh"]
fn a_machine() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
    let kernel = Command::new("uname").arg("-r").output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    println!(
        "machine{model}, {} cores, Linux {}",
        cpu.matches("processor\t").count(),
        kernel.unwrap_or_default().trim()
    );
}
