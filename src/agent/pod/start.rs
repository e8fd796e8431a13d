//! Effects: carries out a plan: sandbox, volumes and images at the same time, then container after container.

mod configure;
mod handler;
mod resize;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use super::admit::Refusal;
use super::observed::Observed;
use super::plan::Action;
use super::resize::Update;
use super::{container, describe, field_path, hooks, spec, stop, uid};
use crate::agent::cgroups::PodResources;
use crate::agent::context::NodeContext;
use crate::agent::events::Kind as EventKind;
use crate::agent::images::Wanted;
use crate::agent::probes::Kind;
use crate::agent::volumes::{self, Mounted};
use crate::agent::{topology, users};
use crate::cri::{self, v1};
use crate::supervisor::chain;

/// What became of a step; the worker keeps the record.
#[derive(Debug)]
pub enum Progress {
    Sandbox(cri::Sandbox),
    SandboxFailed(String),
    SandboxStopped(String),
    Volumes(Mounted),
    /// Nothing can start until they are there.
    VolumesFailed(String),
    /// The node does not have what it would take.
    Refused(Refusal),
    /// The container's image is on the node.
    Image(String),
    Container(Box<cri::Container>),
    /// The container of this name is not running to others until its hook is through, or it failed.
    Hooking(String),
    Hooked(String),
    Removed(String),
    Failed(Failed),
    ContainerResized(Update),
    PodResized(PodResources),
    ResizeFailed(String),
}

/// A container that could not be started, as `state.waiting` shows it.
#[derive(Debug)]
pub struct Failed {
    pub name: String,
    pub reason: String,
    pub message: String,
}

pub struct Operation {
    pub cx: Arc<NodeContext>,
    pub pod: Arc<Pod>,
    pub observed: Observed,
    pub actions: Vec<Action>,
    /// Volumes that are there already.
    pub mounted: Option<Mounted>,
    pub progress: mpsc::Sender<Progress>,
}

struct Start {
    name: String,
    attempt: u32,
}

impl Operation {
    pub async fn run(mut self) {
        let mut starts = Vec::new();
        let mut new_sandbox = None;
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::StopSandbox { id } => self.stop_sandbox(&id).await,
                Action::Stop { id, message, probe, .. } => self.stop(&id, message, probe).await,
                Action::RemoveSandbox { id } => self.remove_sandbox(id).await,
                Action::Remove { id } => self.remove(id).await,
                Action::End { id, .. } => self.end(&id).await,
                Action::Resize { updates } => self.resize(updates).await,
                Action::CreateSandbox { attempt } => new_sandbox = Some(attempt),
                Action::Start { name, attempt, .. } => starts.push(Start { name, attempt }),
            }
        }
        if starts.is_empty() && new_sandbox.is_none() {
            return;
        }
        self.start(new_sandbox, starts).await;
    }

    async fn report(&self, progress: Progress) {
        // The worker is gone only when the agent stops.
        let _ = self.progress.send(progress).await;
    }

    async fn stop_sandbox(&self, id: &str) {
        stop::sandbox(&self.cx, &self.pod, &self.observed, id, stop::grace(&self.pod), &self.progress).await;
    }

    /// Its network may be what could not be taken down: whatever fails here is tried again with the next sandbox.
    async fn remove_sandbox(&self, id: String) {
        let removed = match self.cx.runtime.stop_sandbox(&id).await {
            Ok(()) => self.cx.runtime.remove_sandbox(&id).await,
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => self.report(Progress::Removed(id)).await,
            Err(error) => tracing::debug!(%error, id, pod = describe(&self.pod), "empty sandbox not removed"),
        }
    }

    async fn stop(&self, id: &str, message: String, probe: Option<Kind>) {
        let Some(record) = self.observed.containers.iter().find(|container| container.id == id) else { return };
        let grace = self.probe_grace(&record.name, probe).unwrap_or_else(|| stop::grace(&self.pod));
        stop::container(&self.cx, &self.pod, &self.observed, record, grace, message, &self.progress).await;
    }

    async fn end(&self, id: &str) {
        let Some(record) = self.observed.containers.iter().find(|container| container.id == id) else { return };
        stop::without_hook(&self.cx, &self.pod, record, &self.progress).await;
    }

    /// A liveness or startup probe that failed may bring its own grace period.
    fn probe_grace(&self, name: &str, failed: Option<Kind>) -> Option<Duration> {
        let (_, container) = container(&self.pod, name)?;
        let own = failed?.of(&container)?.termination_grace_period_seconds?;
        Some(Duration::from_secs(u64::try_from(own).unwrap_or(0)))
    }

    async fn remove(&self, id: String) {
        match self.cx.runtime.remove_container(&id).await {
            Ok(()) | Err(cri::Error::NotFound(_)) => self.report(Progress::Removed(id)).await,
            Err(error) => tracing::warn!(%error, id, "container not removed"),
        }
    }

    async fn start(&self, new_sandbox: Option<u32>, starts: Vec<Start>) {
        if let Err(why) = topology::admit(&self.cx, &self.pod, self.observed.ready_sandbox().is_some()).await {
            return self.report(Progress::Refused(why)).await;
        }
        if new_sandbox.is_some()
            && let Err(error) = self.cx.drivers.prepare(&self.pod).await
        {
            let message = format!("Failed to prepare dynamic resources: prepare dynamic resources: {error}");
            self.cx.events.pod(&self.pod, EventKind::Warning, "FailedPrepareDynamicResources", message.clone());
            return self.report(Progress::SandboxFailed(message)).await;
        }
        let resolv = tokio::fs::read_to_string(&self.cx.config.resolv_conf).await.unwrap_or_default();
        let current = self.observed.ready_sandbox();
        let attempt = new_sandbox.unwrap_or_else(|| current.map_or(0, |sandbox| sandbox.attempt));
        let mut config = spec::sandbox(&self.cx, &self.pod, attempt, &resolv);
        match self.users().await {
            Ok(own) => users::give(&mut config, own),
            Err(error) => return self.without_users(error, &starts).await,
        }
        let images = join_all(starts.iter().map(|start| self.image(start, &config)));
        let sandbox = async {
            match new_sandbox {
                Some(attempt) => self.create_sandbox(&config, attempt).await,
                None => current.cloned(),
            }
        };
        let (sandbox, mounted, images) = tokio::join!(sandbox, self.volumes(), images);
        let (Some(sandbox), Some(mounted)) = (sandbox, mounted) else { return };
        for (start, image) in starts.into_iter().zip(images) {
            let Some(image) = image else { continue };
            if let Err(failed) = self.start_container(&start, &image, &sandbox, &config, &mounted).await {
                self.report(Progress::Failed(failed)).await;
            }
        }
    }

    async fn without_users(&self, error: String, starts: &[Start]) {
        let message = format!("Failed to create pod sandbox: {error}");
        self.cx.events.pod(&self.pod, EventKind::Warning, "FailedCreatePodSandBox", message.clone());
        self.report(Progress::SandboxFailed(message)).await;
        for Start { name, .. } in starts {
            let (name, reason) = (name.clone(), "CreateContainerConfigError".to_owned());
            self.report(Progress::Failed(Failed { name, reason, message: error.clone() })).await;
        }
    }

    async fn create_sandbox(&self, config: &v1::PodSandboxConfig, attempt: u32) -> Option<cri::Sandbox> {
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.cx.events.pod(&self.pod, EventKind::Normal, "SandboxChanged", message);
        }
        let result = async {
            // Its folder first: by that an agent that starts anew knows of what comes after it.
            for folder in [&self.cx.paths.pod(uid(&self.pod)), Path::new(&config.log_directory)] {
                let made = tokio::fs::create_dir_all(folder).await;
                made.map_err(|error| format!("{}: {error}", folder.display()))?;
            }
            self.cx.cgroups.apply(&self.pod);
            let handler = self.handler().await?;
            let id = self.cx.runtime.run_sandbox(config, &handler).await.map_err(|error| error.to_string())?;
            self.cx.pods.register(&id, uid(&self.pod));
            self.cx.runtime.sandbox_status(&id).await.map_err(|error| error.to_string())
        };
        match result.await {
            Ok(sandbox) => {
                self.report(Progress::Sandbox(sandbox.clone())).await;
                Some(sandbox)
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                self.cx.events.pod(&self.pod, EventKind::Warning, "FailedCreatePodSandBox", message.clone());
                self.report(Progress::SandboxFailed(message)).await;
                None
            }
        }
    }

    async fn volumes(&self) -> Option<Mounted> {
        if let Some(mounted) = self.mounted.as_ref().filter(|mounted| mounted.is_complete(&self.pod)) {
            return Some(mounted.clone());
        }
        let prepared = async {
            let mut mounted = volumes::prepare(&self.cx, &self.pod, self.cx.allocatable).await?;
            volumes::image::complete(&self.cx, &self.pod, &mut mounted).await?;
            Ok::<_, volumes::Error>(mounted)
        };
        match prepared.await {
            Ok(mounted) => {
                self.report(Progress::Volumes(mounted.clone())).await;
                Some(mounted)
            }
            Err(error) => {
                let message = chain(&error);
                self.cx.events.pod(&self.pod, EventKind::Warning, error.reason(), message.clone());
                self.report(Progress::VolumesFailed(message)).await;
                None
            }
        }
    }

    async fn image(&self, start: &Start, sandbox: &v1::PodSandboxConfig) -> Option<cri::Image> {
        let (role, container) = container(&self.pod, &start.name)?;
        let wanted = Wanted { pod: &self.pod, role, container: &container, sandbox };
        match self.cx.images.ensure(&wanted, &self.cx.objects, &self.cx.events).await {
            Ok(image) => {
                self.report(Progress::Image(start.name.clone())).await;
                Some(image)
            }
            Err(error) => {
                let (name, reason) = (start.name.clone(), error.reason().to_owned());
                self.report(Progress::Failed(Failed { name, reason, message: error.to_string() })).await;
                None
            }
        }
    }

    async fn start_container(
        &self,
        start: &Start,
        image: &cri::Image,
        sandbox: &cri::Sandbox,
        sandbox_config: &v1::PodSandboxConfig,
        mounted: &Mounted,
    ) -> Result<(), Failed> {
        let Some((role, container)) = container(&self.pod, &start.name) else { return Ok(()) };
        let event = |kind, reason, message: String| {
            let field = field_path(role, &container.name);
            self.cx.events.container(&self.pod, field, kind, reason, message);
        };
        let failed = |reason: &str, message: String| {
            event(EventKind::Warning, "Failed", format!("Error: {message}"));
            Failed { name: start.name.clone(), reason: reason.to_owned(), message }
        };
        let config = self.configure(start, &container, image, sandbox, mounted).await;
        let mut config = config.map_err(|message| failed("CreateContainerConfigError", message))?;
        users::share(&mut config, sandbox_config);
        let id = match self.cx.runtime.create_container(&sandbox.id, &config, sandbox_config).await {
            Ok(id) => id,
            Err(error) => {
                // It calls it ready, and what held it is gone: nothing would ever start in it.
                if is_of_a_lost_sandbox(&error) {
                    self.stop_sandbox(&sandbox.id).await;
                }
                return Err(failed("CreateContainerError", error.to_string()));
            }
        };
        self.cx.pods.register(&id, uid(&self.pod));
        event(EventKind::Normal, "Created", "Container created".into());
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        if hook.is_some() {
            self.report(Progress::Hooking(start.name.clone())).await;
        }
        let started = self.cx.runtime.start_container(&id).await;
        // Not before: the runtime does not move one that is about to start.
        self.cx.exclusive.made(&id, &self.pod, &start.name, &config);
        self.look(&id, &sandbox.id).await;
        started.map_err(|error| failed("RunContainerError", error.to_string()))?;
        event(EventKind::Normal, "Started", "Container started".into());
        let Some(hook) = hook else { return Ok(()) };
        let ip = self.pod_ips(sandbox).first().cloned().unwrap_or_default();
        let ran = hooks::run(&self.cx, &container, &id, &ip, hook, hooks::POST_START_LIMIT).await;
        if let Err(error) = ran {
            // Not in the event: what a command prints may be secret.
            event(EventKind::Warning, "FailedPostStartHook", "PostStartHook failed".into());
            if let Ok(record) = self.cx.runtime.container_status(&id).await {
                let message = "FailedPostStartHook".to_owned();
                let grace = stop::grace(&self.pod);
                stop::container(&self.cx, &self.pod, &self.observed, &record, grace, message, &self.progress).await;
            }
            return Err(Failed { name: start.name.clone(), reason: "PostStartHookError".into(), message: error });
        }
        self.report(Progress::Hooked(start.name.clone())).await;
        Ok(())
    }

    async fn look(&self, id: &str, sandbox_id: &str) {
        match self.cx.runtime.container_status(id).await {
            Ok(mut record) => {
                record.sandbox_id = sandbox_id.to_owned();
                self.report(Progress::Container(Box::new(record))).await;
            }
            Err(error) => tracing::warn!(%error, id, "status of a new container not known"),
        }
    }
}

/// Whether the runtime looked for the sandbox and did not find it, or its process. Killed with everything else, it leaves
/// containerd with a record that it was ready.
fn is_of_a_lost_sandbox(error: &cri::Error) -> bool {
    matches!(error, cri::Error::NotFound(said) if said.contains("sandbox"))
}

/// When a failed step is tried again: half a second at first, doubling up to two minutes.
#[must_use]
pub fn retry_after(failures: u32, now: Timestamp) -> Timestamp {
    let millis = 500_i64 << failures.min(8);
    now.checked_add(jiff::SignedDuration::from_millis(millis.min(120_000))).unwrap_or(now)
}
