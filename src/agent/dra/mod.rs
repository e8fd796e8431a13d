//! Loop: drivers of dynamic resource allocation: who is registered and reachable, and which claims they have prepared.
//!
//! ```text
//! pod starts ─▶ its claims, as the scheduler allocated them ─▶ NodePrepareResources ─▶ CDI names for its containers
//! last pod of a claim is over ─▶ NodeUnprepareResources ─▶ forgotten
//! driver away for 30 seconds ─▶ its ResourceSlices of this node are removed: nothing is scheduled to what is not there
//! ```
//!
//! - [`claims`]: what a pod may use, and what is kept of it; [`protocol`]: messages
//! - [`cdi`]: what the names stand for, where the runtime does not know

pub mod cdi;
pub mod claims;
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "only tests run it")]
pub mod fake;
pub mod protocol;
mod reach;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::api::Api;
use tokio::task::{AbortHandle, JoinSet};
use tonic::transport::Channel;

use self::claims::{Prepared, Record, batches, drivers, objects};
use self::protocol::{NodePrepareResourcesResponse, NodeUnprepareResourcesResponse, Request, VERSIONS, Version};
use super::devices::record::File;
use super::plugins::{Handler, Plugin, grpc};
use super::pod::table::PodTable;
use super::pod::{namespace, uid};

/// Upstream's.
const CALL_DEADLINE: Duration = Duration::from_secs(45);
const FIRST_UNDO_RETRY: Duration = Duration::from_secs(1);
const LONGEST_UNDO_RETRY: Duration = Duration::from_secs(60);

/// Clones share it.
#[derive(Clone)]
pub struct Drivers {
    client: kube::Client,
    node: String,
    pods: PodTable,
    inner: Arc<Mutex<Inner>>,
    file: Arc<File>,
}

#[derive(Default)]
struct Inner {
    /// By driver; the newest last.
    plugins: BTreeMap<String, Vec<Registered>>,
    /// Removals of ResourceSlices that are due, by driver.
    wipes: BTreeMap<String, AbortHandle>,
    record: Record,
    /// Pods that are gone, and whose claims are being undone.
    undoing: BTreeSet<String>,
    tasks: JoinSet<()>,
}

struct Registered {
    endpoint: PathBuf,
    version: Version,
    channel: Channel,
    connected: bool,
    task: AbortHandle,
}

impl Drivers {
    /// With what an earlier agent wrote.
    #[must_use]
    pub fn new(path: &Path, client: kube::Client, node: &str, pods: PodTable) -> Drivers {
        let file = File::new(path);
        let inner = Inner { record: file.read(), ..Inner::default() };
        Drivers { client, node: node.to_owned(), pods, inner: Arc::new(Mutex::new(inner)), file: Arc::new(file) }
    }

    /// Has the pod's claims prepared, unless they are.
    ///
    /// # Errors
    /// Why not, for an event.
    pub async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        let mut known = Vec::new();
        for (name, own) in objects(pod)? {
            let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), namespace(pod));
            let found = api
                .get(&name)
                .await
                .map_err(|error| format!("fetch ResourceClaim {name}: {}", crate::supervisor::chain(&error)))?;
            let drivers = drivers(pod, &found, own)?;
            for driver in &drivers {
                // Before anything is noted: a pod of a driver that never was here can be deleted at once.
                self.plugin(driver)?;
            }
            known.push((found, drivers));
        }
        if known.is_empty() {
            return Ok(());
        }
        let mut todo: BTreeMap<String, Prepared> = BTreeMap::new();
        self.change(|record| {
            for (claim, drivers) in &known {
                if record.reserve(pod, claim, drivers)? {
                    let id = claim.metadata.uid.clone().unwrap_or_default();
                    todo.extend(record.claims.get_key_value(&id).map(|(id, of)| (id.clone(), of.clone())));
                }
            }
            Ok(())
        })?;
        for (driver, claims) in batches(todo.iter().map(|(id, of)| (id.as_str(), of))) {
            let (channel, version) = self.plugin(&driver)?;
            let request = Request { claims: claims.clone() };
            let answer: NodePrepareResourcesResponse = grpc::call(&channel, version.prepare, request, CALL_DEADLINE)
                .await
                .map_err(|error| format!("NodePrepareResources: {error}"))?;
            for claim in &claims {
                let result = answer.claims.get(&claim.uid);
                let result = result.ok_or("NodePrepareResources skipped 1 ResourceClaims")?;
                if !result.error.is_empty() {
                    let (name, error) = (&claim.name, &result.error);
                    return Err(format!("NodePrepareResources failed for ResourceClaim {name}: {error}"));
                }
                if let Some(of) = todo.get_mut(&claim.uid) {
                    of.devices.insert(driver.clone(), result.devices.clone());
                }
            }
        }
        if todo.is_empty() {
            return Ok(());
        }
        self.change(|record| {
            for (id, of) in todo {
                // Gone when the pod was given up meanwhile.
                if let Some(entry) = record.claims.get_mut(&id) {
                    entry.devices = of.devices;
                    entry.complete = true;
                }
            }
            Ok(())
        })
    }

    /// The CDI names of a container's devices.
    ///
    /// # Errors
    /// When a claim is not prepared.
    pub fn cdi_devices(&self, pod: &Pod, container: &Container) -> Result<Vec<String>, String> {
        self.lock().record.cdi_devices(pod, container)
    }

    /// The claims that a container uses.
    #[must_use]
    pub fn granted(&self, pod: &Pod, container: &Container) -> Vec<Prepared> {
        self.lock().record.of_container(pod, container)
    }

    /// Whether claims of the pod are, or may be, prepared.
    #[must_use]
    pub fn serve(&self, pod_uid: &str) -> bool {
        self.lock().record.claims.values().any(|of| of.pods.contains(pod_uid))
    }

    /// The pod is over: what no other pod uses is undone.
    ///
    /// # Errors
    /// Why a driver did not; to be tried again, as the devices are not free before.
    pub async fn unprepare(&self, pod_uid: &str) -> Result<(), String> {
        if !self.serve(pod_uid) {
            return Ok(());
        }
        let last = self.lock().record.last_of(pod_uid);
        for (driver, claims) in batches(last.iter().map(|(id, of)| (id.as_str(), of))) {
            let (channel, version) = self.plugin(&driver)?;
            let request = Request { claims: claims.clone() };
            let answer: NodeUnprepareResourcesResponse =
                grpc::call(&channel, version.unprepare, request, CALL_DEADLINE)
                    .await
                    .map_err(|error| format!("NodeUnprepareResources: {error}"))?;
            for claim in &claims {
                let result = answer.claims.get(&claim.uid);
                let result = result.ok_or("NodeUnprepareResources skipped 1 ResourceClaims")?;
                if !result.error.is_empty() {
                    let (name, error) = (&claim.name, &result.error);
                    return Err(format!("NodeUnprepareResources failed for ResourceClaim {name}: {error}"));
                }
            }
        }
        self.change(|record| {
            for of in record.claims.values_mut() {
                of.pods.remove(pod_uid);
            }
            record.claims.retain(|_, of| !of.pods.is_empty());
            Ok(())
        })
    }

    /// Undoes what is left of pods that ended while no agent was there, as soon as their drivers can be reached.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut inner = self.lock();
        let users = inner.record.claims.values().flat_map(|of| of.pods.iter());
        let gone: Vec<String> = users.filter(|uid| !is_there(uid)).cloned().collect();
        for pod_uid in gone {
            if inner.undoing.insert(pod_uid.clone()) {
                inner.tasks.spawn(self.clone().undo(pod_uid));
            }
        }
    }

    async fn undo(self, pod_uid: String) {
        let mut delay = FIRST_UNDO_RETRY;
        while let Err(error) = self.unprepare(&pod_uid).await {
            tracing::info!(error, uid = pod_uid, "claims of a pod that is gone are not undone yet");
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_UNDO_RETRY);
        }
        self.lock().undoing.remove(&pod_uid);
    }

    /// How to reach a driver: the newest of its plugins that is connected, else the newest.
    fn plugin(&self, driver: &str) -> Result<(Channel, Version), String> {
        let inner = self.lock();
        let plugins = inner.plugins.get(driver).map(Vec::as_slice).unwrap_or_default();
        let best = plugins.iter().rev().find(|plugin| plugin.connected).or(plugins.last());
        best.map(|plugin| (plugin.channel.clone(), plugin.version))
            .ok_or_else(|| format!("DRA driver {driver} is not registered"))
    }

    fn change(&self, change: impl FnOnce(&mut Record) -> Result<(), String>) -> Result<(), String> {
        let mut inner = self.lock();
        let mut record = inner.record.clone();
        change(&mut record)?;
        if record != inner.record {
            self.file.write(&record).map_err(|error| format!("checkpoint ResourceClaim state: {error}"))?;
            inner.record = record;
        }
        Ok(())
    }

    /// Ends what follows the drivers. They are heard of again by the next agent.
    pub(super) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut self.lock().tasks);
        tasks.shutdown().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Handler for Drivers {
    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        let named = |version: &&Version| plugin.versions.iter().any(|name| name == version.name);
        let Some(version) = VERSIONS.iter().find(named) else {
            let (ours, path) = (VERSIONS.iter().map(|v| v.name).collect::<Vec<_>>(), plugin.endpoint.display());
            return Err(format!(
                "invalid supported gRPC versions of DRA driver plugin {} at endpoint {path}: none of services supported \
                 by the plugin ({:?}) are supported by the kubelet ({ours:?})",
                plugin.name, plugin.versions
            ));
        };
        self.add(&plugin.name, &plugin.endpoint, *version);
        // Pods that were waiting for it.
        for pod in self.pods.pods().iter().filter(|pod| objects(pod).map_or(true, |all| !all.is_empty())) {
            self.pods.wake_for_objects(uid(pod));
        }
        Ok(())
    }

    async fn deregister(&self, plugin: &Plugin) {
        self.remove(&plugin.name, &plugin.endpoint);
    }
}
