//! Fake: a runtime in memory, for tests of the agent. Containers run until they are told to exit; faults are
//! scripted. The same stories run on the real containerd in `tests/cluster`.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{broadcast, watch};

use super::{
    Container, Error, ExecResult, Handler, Health, Image, Images, Result, Runtime, RuntimeEvent, Sandbox, State,
    StreamOptions, Usage, Version, v1,
};

/// Events that a reader may lag behind before its stream ends, as a lost connection would end it.
const EVENT_BUFFER: usize = 256;

/// A runtime in memory. Clones share it.
#[derive(Clone)]
pub struct Fake {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<RuntimeEvent>,
    /// Containers do not end when they are asked to.
    stubborn: watch::Sender<bool>,
}

#[derive(Default)]
struct Inner {
    serial: u64,
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    images: BTreeMap<String, Image>,
    /// Answers of the next calls by name; an empty queue succeeds.
    faults: BTreeMap<&'static str, VecDeque<Error>>,
    execs: BTreeMap<String, ExecResult>,
    /// What containers use, by pod and name.
    usage: BTreeMap<(String, String), Usage>,
    on_image_removed: Option<Arc<dyn Fn() + Send + Sync>>,
    handlers: Vec<Handler>,
    /// The last sandbox and container that were asked for.
    asked: (Option<v1::PodSandboxConfig>, Option<v1::ContainerConfig>),
    /// Every call in order: `StartContainer web`.
    calls: Vec<String>,
}

impl Default for Fake {
    fn default() -> Self {
        Self { inner: Arc::default(), events: broadcast::channel(EVENT_BUFFER).0, stubborn: watch::channel(false).0 }
    }
}

impl Fake {
    /// A runtime that has these images.
    #[must_use]
    pub fn with_images(names: &[&str]) -> Self {
        let fake = Self::default();
        for name in names {
            let image = Image { id: format!("sha256:{name}"), tags: vec![(*name).to_owned()], ..Image::default() };
            fake.lock().images.insert((*name).to_owned(), image);
        }
        fake
    }

    /// One more image, of so many bytes.
    pub fn add_image(&self, name: &str, size_bytes: u64) {
        let image = Image { id: format!("sha256:{name}"), tags: vec![name.to_owned()], size_bytes, ..Image::default() };
        self.lock().images.insert(name.to_owned(), image);
    }

    /// Called when an image was removed.
    pub fn on_image_removed(&self, call: impl Fn() + Send + Sync + 'static) {
        self.lock().on_image_removed = Some(Arc::new(call));
    }

    /// What it says of its handlers from now on.
    pub fn set_handlers(&self, handlers: &[Handler]) {
        self.lock().handlers = handlers.to_vec();
    }

    /// The last sandbox and container that were asked for.
    #[must_use]
    pub fn asked(&self) -> (Option<v1::PodSandboxConfig>, Option<v1::ContainerConfig>) {
        self.lock().asked.clone()
    }

    /// What the running container of this name uses from now on.
    pub fn set_usage(&self, pod_uid: &str, name: &str, usage: Usage) {
        self.lock().usage.insert((pod_uid.to_owned(), name.to_owned()), usage);
    }

    /// The next call of this name (as in CRI: `RunPodSandbox`) fails.
    pub fn fail_next(&self, call: &'static str, error: Error) {
        self.lock().faults.entry(call).or_default().push_back(error);
    }

    /// What a command prints when it is exec'd; the words joined by spaces.
    pub fn on_exec(&self, command: &str, result: ExecResult) {
        self.lock().execs.insert(command.to_owned(), result);
    }

    /// Whether containers that are asked to stop go on until told otherwise.
    pub fn set_stubborn(&self, stubborn: bool) {
        self.stubborn.send_replace(stubborn);
    }

    /// Ends the running container of this name in the pod.
    pub fn exit(&self, pod_uid: &str, name: &str, exit_code: i32) {
        let running = |c: &&mut Container| c.pod_uid == pod_uid && c.name == name && c.state == State::Running;
        let id = self.lock().containers.values_mut().find(running).map(|c| {
            ended(c, exit_code);
            c.id.clone()
        });
        if let Some(id) = id {
            let _ = self.events.send(RuntimeEvent { id });
        }
    }

    /// The calls so far, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while held")
    }

    /// Records a call and returns its scripted fault.
    fn called(&self, call: &'static str, what: &str) -> Result<MutexGuard<'_, Inner>> {
        let mut inner = self.lock();
        inner.calls.push(format!("{call} {what}").trim_end().to_owned());
        match inner.faults.get_mut(call).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(inner),
        }
    }
}

fn ended(container: &mut Container, exit_code: i32) {
    container.state = State::Exited;
    container.exit_code = exit_code;
    container.finished_at = Some(crate::clock::now());
    container.reason = if exit_code == 0 { "Completed" } else { "Error" }.into();
}

fn missing(id: &str) -> Error {
    Error::NotFound(id.to_owned())
}

#[async_trait]
impl Runtime for Fake {
    async fn version(&self) -> Result<Version> {
        drop(self.called("Version", "")?);
        Ok(Version { name: "fake".into(), version: "1".into() })
    }

    async fn health(&self) -> Result<Health> {
        let handlers = self.called("Status", "")?.handlers.clone();
        let supplemental_groups_policy = (!handlers.is_empty()).then_some(true);
        Ok(Health {
            runtime_ready: true,
            network_ready: true,
            handlers,
            supplemental_groups_policy,
            ..Health::default()
        })
    }

    async fn run_sandbox(&self, config: &v1::PodSandboxConfig, handler: &str) -> Result<String> {
        let metadata = config.metadata.clone().unwrap_or_default();
        let mut inner = self.called("RunPodSandbox", format!("{} {handler}", metadata.name).trim_end())?;
        inner.asked.0 = Some(config.clone());
        inner.serial += 1;
        let serial = inner.serial;
        let id = format!("sandbox-{serial}");
        let sandbox = Sandbox {
            id: id.clone(),
            pod_uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            attempt: metadata.attempt,
            ready: true,
            created_at: crate::clock::now(),
            ips: vec![format!("10.42.0.{}", serial % 250 + 2)],
        };
        inner.sandboxes.insert(id.clone(), sandbox);
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let mut inner = self.called("StopPodSandbox", id)?;
        if let Some(sandbox) = inner.sandboxes.get_mut(id) {
            sandbox.ready = false;
        }
        let inside = |c: &&mut Container| c.sandbox_id == id && c.state == State::Running;
        inner.containers.values_mut().filter(inside).for_each(|c| ended(c, 137));
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let mut inner = self.called("RemovePodSandbox", id)?;
        inner.sandboxes.remove(id);
        inner.containers.retain(|_, c| c.sandbox_id != id);
        Ok(())
    }

    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<Sandbox>> {
        let inner = self.called("ListPodSandbox", "")?;
        Ok(inner.sandboxes.values().filter(|s| pod_uid.is_none_or(|uid| s.pod_uid == uid)).cloned().collect())
    }

    async fn sandbox_status(&self, id: &str) -> Result<Sandbox> {
        self.called("PodSandboxStatus", id)?.sandboxes.get(id).cloned().ok_or_else(|| missing(id))
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &v1::ContainerConfig,
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<String> {
        let metadata = config.metadata.clone().unwrap_or_default();
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
        let what = match resources.map_or("", |resources| resources.cpuset_cpus.as_str()) {
            "" => metadata.name.clone(),
            cpus => format!("{} cpus {cpus}", metadata.name),
        };
        let mut inner = self.called("CreateContainer", &what)?;
        inner.asked.1 = Some(config.clone());
        inner.serial += 1;
        let id = format!("container-{}", inner.serial);
        let image = config.image.clone().unwrap_or_default().image;
        let container = Container {
            id: id.clone(),
            sandbox_id: sandbox_id.into(),
            pod_uid: sandbox.metadata.clone().unwrap_or_default().uid,
            name: metadata.name,
            attempt: metadata.attempt,
            state: State::Created,
            image_ref: format!("sha256:{image}"),
            image,
            created_at: crate::clock::now(),
            annotations: config.annotations.clone().into_iter().collect(),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            log_path: format!("{}/{}", sandbox.log_directory, config.log_path),
            image_mounts: config.mounts.iter().filter_map(|mount| Some(mount.image.clone()?.image)).collect(),
        };
        inner.containers.insert(id.clone(), container);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let mut inner = self.called("StartContainer", id)?;
        let container = inner.containers.get_mut(id).ok_or_else(|| missing(id))?;
        container.state = State::Running;
        container.started_at = Some(crate::clock::now());
        Ok(())
    }

    async fn stop_container(&self, id: &str, _grace: Duration) -> Result<()> {
        drop(self.called("StopContainer", id)?);
        let _ = self.stubborn.subscribe().wait_for(|stubborn| !stubborn).await;
        let mut inner = self.lock();
        if let Some(c) = inner.containers.get_mut(id).filter(|c| c.state == State::Running) {
            ended(c, 143);
            let _ = self.events.send(RuntimeEvent { id: id.into() });
        }
        Ok(())
    }

    async fn update_container(&self, id: &str, resources: v1::LinuxContainerResources) -> Result<()> {
        let what = match resources.cpuset_cpus.as_str() {
            "" => format!("{id} quota {} memory {}", resources.cpu_quota, resources.memory_limit_in_bytes),
            cpus => format!("{id} cpus {cpus}"),
        };
        self.called("UpdateContainerResources", &what).map(drop)
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.called("RemoveContainer", id)?.containers.remove(id);
        Ok(())
    }

    async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>> {
        let inner = self.called("ListContainers", "")?;
        let found = inner.containers.values().filter(|c| pod_uid.is_none_or(|uid| c.pod_uid == uid)).cloned();
        // A list does not tell them.
        Ok(found.map(|container| Container { image_mounts: Vec::new(), ..container }).collect())
    }

    async fn container_status(&self, id: &str) -> Result<Container> {
        self.called("ContainerStatus", id)?.containers.get(id).cloned().ok_or_else(|| missing(id))
    }

    async fn reopen_log(&self, id: &str) -> Result<()> {
        self.called("ReopenContainerLog", id).map(drop)
    }

    async fn usage(&self) -> Result<Vec<Usage>> {
        let inner = self.called("ListContainerStats", "")?;
        let usage = |c: &Container| {
            let known = inner.usage.get(&(c.pod_uid.clone(), c.name.clone())).cloned();
            Usage { container_id: c.id.clone(), ..known.unwrap_or_default() }
        };
        Ok(inner.containers.values().map(usage).collect())
    }

    async fn exec(&self, id: &str, command: &[String], _timeout: Duration) -> Result<ExecResult> {
        let inner = self.called("ExecSync", id)?;
        Ok(inner.execs.get(&command.join(" ")).cloned().unwrap_or_default())
    }

    async fn exec_url(&self, id: &str, _command: &[String], _options: StreamOptions) -> Result<String> {
        drop(self.called("Exec", id)?);
        Err(Error::Failed { call: "Exec", message: "the fake runtime has no streaming server".into() })
    }

    async fn attach_url(&self, id: &str, _options: StreamOptions) -> Result<String> {
        drop(self.called("Attach", id)?);
        Err(Error::Failed { call: "Attach", message: "the fake runtime has no streaming server".into() })
    }

    async fn port_forward_url(&self, sandbox_id: &str, _ports: &[u16]) -> Result<String> {
        drop(self.called("PortForward", sandbox_id)?);
        Err(Error::Failed { call: "PortForward", message: "the fake runtime has no streaming server".into() })
    }

    async fn checkpoint(&self, id: &str, _file: &Path, _timeout: Duration) -> Result<()> {
        self.called("CheckpointContainer", id).map(drop)
    }

    async fn events(&self) -> Result<BoxStream<'static, RuntimeEvent>> {
        drop(self.called("GetContainerEvents", "")?);
        let receiver = self.events.subscribe();
        Ok(stream::unfold(receiver, |mut r| async move { r.recv().await.ok().map(|event| (event, r)) }).boxed())
    }
}

#[async_trait]
impl Images for Fake {
    async fn images(&self) -> Result<Vec<Image>> {
        Ok(self.called("ListImages", "")?.images.values().cloned().collect())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        let inner = self.called("ImageStatus", reference)?;
        let by_id = || inner.images.values().find(|image| image.id == reference);
        Ok(inner.images.get(reference).or_else(by_id).cloned())
    }

    async fn pull(
        &self,
        reference: &str,
        _auth: Option<v1::AuthConfig>,
        _sandbox: Option<&v1::PodSandboxConfig>,
    ) -> Result<String> {
        let mut inner = self.called("PullImage", reference)?;
        let id = format!("sha256:{reference}");
        let image = Image { id: id.clone(), tags: vec![reference.into()], ..Image::default() };
        inner.images.insert(reference.into(), image);
        Ok(id)
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        let mut inner = self.called("RemoveImage", reference)?;
        inner.images.retain(|name, image| name != reference && image.id != reference);
        let call = inner.on_image_removed.clone();
        drop(inner);
        if let Some(call) = call {
            call();
        }
        Ok(())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut inner = self.called("rename", to)?;
        let mut image = inner.images.remove(from).ok_or_else(|| Error::NotFound(from.to_owned()))?;
        image.tags = vec![to.to_owned()];
        inner.images.insert(to.to_owned(), image);
        Ok(())
    }

    async fn directory(&self) -> Result<PathBuf> {
        self.called("ImageFsInfo", "").map(|_| PathBuf::from("/"))
    }

    async fn image_bytes(&self) -> Result<u64> {
        self.called("ImageFsInfo", "").map(|_| 0)
    }
}
