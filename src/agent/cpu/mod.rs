//! Effects: CPUs that containers have for themselves, and what is left for all others (`--kubelet-arg=cpu-manager-policy=static`).
//!
//! ```text
//! pod starts ─▶ policy ─▶ record ─▶ others are moved off its CPUs ─▶ its containers start ─▶ pod over: everybody's again
//! ```
//!
//! - [`policy`]: who gets which; [`take`] and [`spread`]: how they are chosen
//! - [`record`]: what is remembered; [`share`]: containers that run are told of what they share

pub mod policy;
pub mod record;
pub mod share;
pub mod spread;
pub mod take;

#[cfg(test)]
mod policy_tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::Notify;

use self::policy::{State, Static};
use self::record::Record;
use self::share::Made;
use super::pod::admit::Refusal;
use super::pod::{Role, uid};
use super::topology::hint::{Hints, Mask};
use super::topology::machine::Topology;
use crate::config::cpu_set::CpuSet;
use crate::config::kubelet::Kubelet;
use crate::cri::v1;

/// As upstream's `CpuQuota` of containers with CPUs of their own.
const NO_QUOTA: i64 = -1;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--kubelet-arg=cpu-manager-policy=static cannot be followed: {0}")]
    Machine(String),
    #[error(transparent)]
    Unfit(#[from] record::Unfit),
}

/// Clones share it. Without the policy there is nothing in it, and nothing is done.
#[derive(Clone, Default)]
pub struct Exclusive(Option<Arc<Inner>>);

struct Inner {
    policy: Static,
    record: Record,
    kept: Mutex<Kept>,
    /// A pod gave its CPUs back.
    freed: Notify,
    /// Some containers run on other CPUs than they should.
    stale: Notify,
    /// One at a time tells the runtime.
    telling: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    state: State,
    /// Containers that were made, and what they run on.
    made: Vec<Made>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    pub errors: u64,
    /// Containers that have whole cores because they must, and those that could not.
    pub whole_cores: u64,
    pub no_whole_cores: u64,
    /// Containers all of whose CPUs share a cache.
    pub one_cache: u64,
    pub shared_milli: usize,
    pub exclusive: usize,
}

impl Exclusive {
    /// Goes on with what an earlier agent left. `topology` is read only when it is needed.
    ///
    /// # Errors
    /// The machine, or what was left, does not suit the settings.
    pub fn new(
        settings: &Kubelet,
        topology: impl FnOnce() -> Result<Topology, String>,
        kubelet_dir: &Path,
    ) -> Result<Exclusive, Error> {
        let record = Record::new(kubelet_dir);
        let placement = &settings.placement;
        if !placement.static_cpus {
            // Containers that run on CPUs of their own are not to be shared with.
            record.read("none")?;
            return Ok(Exclusive(None));
        }
        let reserved = [&settings.system_reserved, &settings.kube_reserved].map(|list| list.get("cpu").copied());
        let milli: i64 = reserved.into_iter().flatten().map(|amount| amount.milli()).sum();
        let topology = topology().map_err(Error::Machine)?;
        let policy = Static::new(topology, milli, &placement.reserved, placement.cpu_options);
        let policy = policy.map_err(Error::Machine)?;
        let state = match record.read("static")? {
            Some(state) => {
                policy.check(&state).map_err(|why| record.unfit(why))?;
                state
            }
            None => policy.initial(),
        };
        tracing::info!(reserved = %policy.reserved(), shared = %state.shared, "CPUs are given to pods that ask for whole ones");
        Ok(Exclusive(Some(Arc::new(Inner {
            policy,
            record,
            kept: Mutex::new(Kept { state, ..Kept::default() }),
            freed: Notify::new(),
            stale: Notify::new(),
            telling: tokio::sync::Mutex::new(()),
        }))))
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Gives a container its CPUs, unless it has them, or shares.
    ///
    /// # Errors
    /// Why the pod cannot have them.
    pub fn allocate(
        &self,
        pod: &Pod,
        (role, container): (Role, &Container),
        affinity: Option<Mask>,
        reusable: &mut CpuSet,
    ) -> Result<(), Refusal> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let wanted = policy::wants(pod, container);
        if wanted == 0 {
            return Ok(());
        }
        let mut kept = inner.lock();
        let mut next = kept.state.clone();
        kept.counts.requests += 1;
        let asks = (role, container.name.as_str(), wanted);
        let given = inner.policy.allocate(&mut next, uid(pod), asks, affinity, reusable);
        let given = given.and_then(|()| {
            let written = if next == kept.state { Ok(()) } else { inner.record.write("static", &next) };
            written.map_err(|error| policy::unexpected(&error))
        });
        let whole_cores = u64::from(inner.policy.gives_whole_cores());
        match &given {
            Ok(()) => {
                let had = kept.state.of(uid(pod), &container.name).is_some();
                let new = next.of(uid(pod), &container.name).filter(|_| !had);
                kept.counts.one_cache += u64::from(new.is_some_and(|cpus| inner.policy.share_a_cache(cpus)));
                kept.counts.whole_cores += whole_cores;
                kept.state = next;
            }
            Err(_) => {
                kept.counts.errors += 1;
                kept.counts.no_whole_cores += whole_cores;
            }
        }
        given
    }

    /// Which NUMA nodes a container's CPUs could come from.
    #[must_use]
    pub fn hints(&self, pod: &Pod, container: &Container, reusable: &CpuSet) -> Hints {
        let inner = self.0.as_ref()?;
        let asks = (container.name.as_str(), policy::wants(pod, container));
        inner.policy.hints(&inner.lock().state, uid(pod), asks, reusable)
    }

    #[must_use]
    pub fn pod_hints(&self, pod: &Pod) -> Hints {
        let inner = self.0.as_ref()?;
        inner.policy.pod_hints(&inner.lock().state, uid(pod), pod)
    }

    /// What the container is to run on, added to its other resources.
    #[must_use]
    pub fn complete(
        &self,
        pod: &Pod,
        container: &Container,
        mut resources: v1::LinuxContainerResources,
    ) -> v1::LinuxContainerResources {
        let Some(inner) = &self.0 else { return resources };
        let kept = inner.lock();
        match kept.state.of(uid(pod), &container.name) {
            Some(own) => {
                resources.cpuset_cpus = own.to_string();
                resources.cpu_quota = NO_QUOTA;
            }
            None => resources.cpuset_cpus = kept.state.shared.to_string(),
        }
        resources
    }

    /// The CPUs that a container has for itself.
    #[must_use]
    pub fn of(&self, pod_uid: &str, container: &str) -> CpuSet {
        let found = self.0.as_ref().and_then(|inner| inner.lock().state.of(pod_uid, container).cloned());
        found.unwrap_or_default()
    }

    /// The CPUs that containers can have for themselves.
    #[must_use]
    pub fn allocatable(&self) -> CpuSet {
        self.0.as_ref().map(|inner| inner.policy.allocatable()).unwrap_or_default()
    }

    /// Pods that have some.
    #[must_use]
    pub fn holders(&self) -> BTreeSet<String> {
        self.0.as_ref().map(|inner| inner.lock().state.pods.keys().cloned().collect()).unwrap_or_default()
    }

    /// When a pod has given its CPUs back.
    pub async fn freed(&self) {
        match &self.0 {
            Some(inner) => inner.freed.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The pod is over: its CPUs are everybody's.
    pub fn release(&self, pod_uid: &str) {
        self.retain(|uid| uid != pod_uid);
    }

    /// Pods that are gone need no CPUs.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        if let Some(inner) = &self.0
            && inner.take_back(is_there)
        {
            inner.freed.notify_waiters();
        }
    }

    /// The pod was refused: whoever waits for others to give something back need not hear of that.
    pub fn undo(&self, pod_uid: &str) {
        if let Some(inner) = &self.0 {
            inner.take_back(|uid| uid != pod_uid);
        }
    }

    /// `None` where the policy is another one.
    #[must_use]
    pub fn counts(&self) -> Option<Counts> {
        let inner = self.0.as_ref()?;
        let kept = inner.lock();
        let exclusive = kept.state.pods.values().flat_map(|containers| containers.values()).map(CpuSet::len).sum();
        let shared_milli = inner.policy.available(&kept.state).len() * 1000;
        Some(Counts { shared_milli, exclusive, ..kept.counts })
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when none of those that are gone had any.
    fn take_back(&self, is_there: impl Fn(&str) -> bool) -> bool {
        let mut kept = self.lock();
        kept.made.retain(|made| is_there(&made.pod_uid));
        let gone: Vec<String> = kept.state.pods.keys().filter(|uid| !is_there(uid)).cloned().collect();
        for pod_uid in &gone {
            self.policy.release(&mut kept.state, pod_uid);
        }
        if gone.is_empty() {
            return false;
        }
        if let Err(error) = self.record.write("static", &kept.state) {
            tracing::warn!(error, "CPUs of pods that are over are not forgotten on disk");
        }
        drop(kept);
        self.stale.notify_one();
        true
    }
}
