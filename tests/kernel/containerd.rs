//! The supervised containerd: pods of the built-in pause image, imported archives, exits, and what it survives.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;
use skiff::cri::client::Client;
use skiff::cri::containerd::{Containerd, Layout, Supervised};
use skiff::cri::image_import::Importer;
use skiff::cri::{Images as _, Runtime as _, State, v1};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{images, skip};

pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct Daemon {
    pub supervised: Supervised,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Daemon {
    pub fn start(data_dir: &Path) -> Self {
        let (containerd, supervised) = Containerd::new(Layout::new(data_dir), PATH.into());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(containerd.run(stop.clone()));
        Self { supervised, stop, tasks }
    }

    pub async fn ready(&mut self) -> Client {
        let ready = self.supervised.problem.wait_for(Option::is_none);
        tokio::time::timeout(DEADLINE, ready).await.expect("containerd is ready in time").unwrap();
        Client::supervised(&self.supervised)
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

pub fn sandbox_config(name: &str) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        }),
        labels: [("io.kubernetes.pod.uid".to_owned(), format!("uid-{name}"))].into(),
        log_directory: "/tmp".into(),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                // The host's network: the CNI plug-in has tests of its own.
                namespace_options: Some(v1::NamespaceOption {
                    network: v1::NamespaceMode::Node as i32,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn container_config(name: &str, image: &str, command: &[&str]) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: image.into(), ..Default::default() }),
        command: command.iter().map(|c| (*c).to_owned()).collect(),
        labels: [("io.kubernetes.pod.uid".to_owned(), "uid-a".to_owned())].into(),
        ..Default::default()
    }
}

/// The whole story in one test, as each containerd takes a second and the memory of a small program.
#[test]
fn containerd_is_started_supervised_and_survived() {
    if !nix::unistd::geteuid().is_root() || skiff::cri::containerd::find("containerd", PATH).is_none() {
        return skip("needs root and containerd");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(story());
}

async fn story() {
    let data = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(data.path());
    let client = daemon.ready().await;
    assert_eq!(client.version().await.unwrap().name, "containerd");
    assert!(client.health().await.unwrap().runtime_ready);

    // An archive becomes an image under its name.
    let archive = data.path().join("b.tar");
    std::fs::write(&archive, images::busybox("test.local/busybox:1", &json!({"Cmd": ["/bin/sh"]}), &[])).unwrap();
    let importer = Importer::new(&daemon.supervised.socket);
    assert_eq!(importer.archive(&archive).await.unwrap(), ["test.local/busybox:1"]);
    assert_eq!(importer.archive(&archive).await.unwrap(), ["test.local/busybox:1"], "a second import is harmless");
    wait_for(async || client.image("test.local/busybox:1").await.unwrap().is_some()).await;

    // A pod starts from the built-in pause image, and its container's exit is told without asking.
    let config = sandbox_config("a");
    let sandbox = client.run_sandbox(&config, "").await.unwrap();
    let mut events = client.events().await.unwrap();
    let container = container_config("quick", "test.local/busybox:1", &["/bin/sh", "-c", "exit 3"]);
    let quick = client.create_container(&sandbox, &container, &config).await.unwrap();
    client.start_container(&quick).await.unwrap();
    let event = tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap();
    assert_eq!(event.id, quick);
    let status = client.container_status(&quick).await.unwrap();
    assert_eq!((status.state, status.exit_code, status.reason.as_str()), (State::Exited, 3, "Error"));

    an_end_before_the_start_is_recorded_is_told_when_it_shows(&client, &sandbox, &config).await;

    let container = container_config("long", "test.local/busybox:1", &["/bin/sleep", "1000"]);
    let long = client.create_container(&sandbox, &container, &config).await.unwrap();
    client.start_container(&long).await.unwrap();
    let echo = client.exec(&long, &["/bin/echo".into(), "hello".into()], Duration::from_secs(5)).await.unwrap();
    assert_eq!((echo.exit_code, echo.stdout.as_slice()), (0, b"hello\n".as_slice()));

    // Killed: started again, and the container never noticed.
    let before = client.container_status(&long).await.unwrap().started_at;
    let pid = std::fs::read_to_string(Layout::new(data.path()).pid()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.trim().parse().unwrap()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let problem = daemon.supervised.problem.wait_for(Option::is_some);
    let text = tokio::time::timeout(DEADLINE, problem).await.unwrap().unwrap().clone().unwrap();
    assert!(text.contains("containerd ended (signal: 9"), "{text}");
    let client = daemon.ready().await;
    let after = client.container_status(&long).await.unwrap();
    assert_eq!((after.state, after.started_at), (State::Running, before));

    // A clean stop and a new supervisor find it running too.
    daemon.stop().await;
    let mut daemon = Daemon::start(data.path());
    let client = daemon.ready().await;
    assert_eq!(client.container_status(&long).await.unwrap().state, State::Running);

    client.stop_container(&long, Duration::from_secs(0)).await.unwrap();
    client.stop_sandbox(&sandbox).await.unwrap();
    client.remove_sandbox(&sandbox).await.unwrap();
    assert!(client.sandboxes(None).await.unwrap().is_empty());
    assert!(client.containers(None).await.unwrap().is_empty());
    client.remove_sandbox(&sandbox).await.unwrap();
    daemon.stop().await;
}

/// Containers that end at once: the runtime tells the end of some before it has recorded their start. Whoever is told
/// looks once, so the status must show the end by then.
async fn an_end_before_the_start_is_recorded_is_told_when_it_shows(
    client: &Client,
    sandbox: &str,
    config: &v1::PodSandboxConfig,
) {
    let mut events = client.events().await.unwrap();
    for n in 0..40 {
        let container = container_config(&format!("at-once-{n}"), "test.local/busybox:1", &["/bin/true"]);
        let id = client.create_container(sandbox, &container, config).await.unwrap();
        let start = client.start_container(&id);
        let end = async {
            let event = tokio::time::timeout(DEADLINE, events.next()).await.expect("the end is told").unwrap();
            (event.id, client.container_status(&id).await.unwrap().state)
        };
        let (started, ended) = futures::join!(start, end);
        started.unwrap();
        assert_eq!(ended, (id.clone(), State::Exited), "container {n}");
    }
}

#[test]
fn a_missing_containerd_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let data = tempfile::tempdir().unwrap();
        let (containerd, supervised) = Containerd::new(Layout::new(data.path()), data.path().display().to_string());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(containerd.run(stop.clone()));
        let client = Client::supervised(&supervised);
        wait_for(async || client.version().await.is_err_and(|e| e.to_string().contains("apt-get install containerd")))
            .await;
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    });
}

pub async fn wait_for(mut condition: impl AsyncFnMut() -> bool) {
    tokio::time::timeout(DEADLINE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the condition holds in time");
}
