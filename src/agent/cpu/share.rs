//! Loop: containers that run are told of their CPUs when these change: those that share are moved off what another one gets,
//! and get back what it leaves. Nothing is done while nothing changes.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::{Exclusive, Kept};
use crate::agent::context::NodeContext;
use crate::agent::pod::observed::Observed;
use crate::agent::pod::{containers, describe, uid};
use crate::config::cpu_set::CpuSet;
use crate::cri::{self, Runtime, v1};

/// When the runtime did not take it: as upstream's `cpu-manager-reconcile-period`.
const AGAIN: Duration = Duration::from_secs(10);

/// A container, and what it runs on as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub id: String,
    pub pod_uid: String,
    pub name: String,
    pub on: CpuSet,
}

/// Those that run on other CPUs than they should, with these.
fn stale(kept: &Kept) -> Vec<Made> {
    let should = |made: &Made| kept.state.of(&made.pod_uid, &made.name).unwrap_or(&kept.state.shared).clone();
    let wrong = kept.made.iter().filter(|made| made.on != should(made));
    wrong.map(|made| Made { on: should(made), ..made.clone() }).collect()
}

/// Follows the changes until `stop`. Only where there is something to follow.
pub async fn run(cx: &NodeContext, stop: CancellationToken) {
    let Some(inner) = cx.exclusive.0.clone() else { return };
    let follow = async {
        loop {
            inner.stale.notified().await;
            while !cx.exclusive.tell(&*cx.runtime).await {
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow => {}
    }
}

impl Exclusive {
    /// A container was made with these resources.
    pub fn made(&self, id: &str, pod: &Pod, name: &str, config: &v1::ContainerConfig) {
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
        let on = resources.and_then(|resources| resources.cpuset_cpus.parse().ok()).unwrap_or_default();
        self.put(Made { id: id.to_owned(), pod_uid: uid(pod).to_owned(), name: name.to_owned(), on });
    }

    /// Containers that ran before this agent did. The kernel knows on what.
    pub fn found(&self, cgroups: &crate::agent::cgroups::Cgroups, pod: &Pod, observed: &Observed) {
        if !self.is_on() {
            return;
        }
        if observed.running().next().is_some() {
            self.adopt(pod);
        }
        for container in observed.running() {
            let group = cgroups.parent(pod).map(|parent| format!("{parent}/{}", container.id));
            let files = group.and_then(|group| cgroups.files("cpuset", &group));
            let on = files.and_then(|directory| read(&directory)).unwrap_or_default();
            let (id, name) = (container.id.clone(), container.name.clone());
            self.put(Made { id, pod_uid: uid(pod).to_owned(), name, on });
        }
    }

    /// A pod that runs may have come before the policy, or its record may be gone: it gets what there is.
    fn adopt(&self, pod: &Pod) {
        let mut reusable = CpuSet::default();
        for each in containers(pod) {
            if let Err(why) = self.allocate(pod, each, None, &mut reusable) {
                tracing::warn!(why = why.message, pod = describe(pod), "a running pod goes on without CPUs of its own");
                return;
            }
        }
    }

    fn put(&self, made: Made) {
        let Some(inner) = &self.0 else { return };
        let mut kept = inner.lock();
        // Of a container that is started again only the last one matters.
        kept.made.retain(|known| known.pod_uid != made.pod_uid || known.name != made.name);
        kept.made.push(made);
        let any = !stale(&kept).is_empty();
        drop(kept);
        if any {
            inner.stale.notify_one();
        }
    }

    /// The container does not run any more.
    pub fn ended(&self, id: &str) {
        if let Some(inner) = &self.0 {
            inner.lock().made.retain(|made| made.id != id);
        }
    }

    /// As [`Exclusive::tell`]; what the runtime does not take is tried again later.
    pub async fn settle(&self, runtime: &dyn Runtime) {
        if !self.tell(runtime).await
            && let Some(inner) = &self.0
        {
            inner.stale.notify_one();
        }
    }

    /// Tells the runtime of whatever is not as it should be. False when something is still not.
    pub async fn tell(&self, runtime: &dyn Runtime) -> bool {
        let Some(inner) = &self.0 else { return true };
        let _turn = inner.telling.lock().await;
        let wrong = stale(&inner.lock());
        let mut all = true;
        for Made { id, pod_uid, name, on } in wrong {
            let resources =
                v1::LinuxContainerResources { cpuset_cpus: on.to_string(), ..v1::LinuxContainerResources::default() };
            match runtime.update_container(&id, resources).await {
                Ok(()) => {
                    tracing::debug!(pod = pod_uid, container = name, cpus = %on, "container moved to other CPUs");
                    let mut kept = inner.lock();
                    kept.made.iter_mut().filter(|made| made.id == id).for_each(|made| made.on = on.clone());
                }
                Err(cri::Error::NotFound(_)) => self.ended(&id),
                Err(error) => {
                    all = false;
                    tracing::warn!(%error, pod = pod_uid, container = name, cpus = %on, "container not moved to other CPUs");
                }
            }
        }
        all
    }
}

/// Version 1 and 2 name the file alike.
fn read(directory: &Path) -> Option<CpuSet> {
    std::fs::read_to_string(directory.join("cpuset.cpus")).ok()?.parse().ok()
}
