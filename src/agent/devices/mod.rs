//! Loop: devices that plugins offer (`nvidia.com/gpu` and the like): who is registered, what works, who has what.
//!
//! ```text
//! plugin registers ─▶ ListAndWatch ─▶ devices, healthy or not ─▶ capacity and allocatable of the Node
//!        stream ends: none works; nothing is left of them after five minutes
//! pod starts ─▶ select ─▶ Allocate ─▶ record ─▶ env, mounts, devices of its containers ─▶ pod over: free again
//! ```
//!
//! - [`registration`]: how plugins are heard of; [`protocol`]: their messages; [`allocate`]: how they are asked
//! - [`select`]: which devices a container gets; [`near`]: from which NUMA nodes; [`record`]: who has them
//! - [`capacity`]: what the Node says

mod allocate;
pub mod capacity;
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "only tests run it")]
pub mod fake;
pub mod near;
mod plugin;
pub mod protocol;
pub mod record;
pub mod registration;
pub mod select;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use self::near::{Groups, NodesOf};
use self::plugin::Plugin;
use self::protocol::{DevicePluginOptions, Empty, PreStartContainerRequest};
use self::record::{Additions, File, Record};
use self::select::Ids;
use super::cgroups;
use super::dra::claims::stand_for;
use super::plugins::grpc;
use super::pod::{Role, containers, uid};
use super::topology::hint::Mask;

const PRE_START_DEADLINE: Duration = Duration::from_secs(30);

/// How many devices of a resource there are, and how many of them work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub capacity: usize,
    pub allocatable: usize,
}

/// A device, as monitors are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub resource: String,
    pub id: String,
    /// Of NUMA; `None` when its plugin does not tell.
    pub nodes: Option<Vec<u32>>,
}

/// By resource.
pub type Counts = BTreeMap<String, Count>;

/// Clones share it.
#[derive(Clone)]
pub struct Devices {
    inner: Arc<Mutex<Inner>>,
    file: Arc<File>,
    counts: Arc<watch::Sender<Counts>>,
    /// A pod gave its devices back.
    freed: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    offers: BTreeMap<String, Offer>,
    record: Record,
    /// Chosen, while the plugin is being asked: by resource.
    promised: BTreeMap<String, Ids>,
    /// Pods that got through since the agent started: their devices are not questioned again.
    admitted: BTreeSet<String>,
    /// Pods that the API has no more, and that are about to give their devices back.
    leaving: BTreeSet<String>,
    /// Plugins that have registered so far.
    serial: u64,
    tasks: JoinSet<()>,
}

/// What is offered of one resource.
#[derive(Default)]
struct Offer {
    /// Of the plugin that came last.
    serial: u64,
    plugin: Option<Connected>,
    healthy: Ids,
    unhealthy: Ids,
    /// Where those are that tell it.
    nodes: NodesOf,
}

struct Connected {
    channel: Channel,
    options: DevicePluginOptions,
    /// Ends its stream.
    gone: CancellationToken,
}

impl Devices {
    /// With what an earlier agent wrote.
    #[must_use]
    pub fn new(path: &Path) -> Devices {
        let file = File::new(path);
        let record: Record = file.read();
        let offers = record.resources.iter().map(|name| (name.clone(), Offer::default())).collect();
        let inner = Inner { record, offers, ..Inner::default() };
        let counts = inner.counts();
        Devices {
            inner: Arc::new(Mutex::new(inner)),
            file: Arc::new(file),
            counts: Arc::new(watch::channel(counts).0),
            freed: Arc::default(),
        }
    }

    /// What the Node is to say.
    #[must_use]
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    /// Takes a plugin, in place of the one that offered the resource before.
    pub(super) fn connect(&self, resource: &str, socket: &Path, options: Option<DevicePluginOptions>) {
        let channel = grpc::channel(socket);
        let gone = CancellationToken::new();
        let mut inner = self.lock();
        let is_new = inner.record.resources.insert(resource.to_owned());
        inner.serial += 1;
        let serial = inner.serial;
        let offer = inner.offers.entry(resource.to_owned()).or_default();
        let connected =
            Connected { channel: channel.clone(), options: options.unwrap_or_default(), gone: gone.clone() };
        offer.serial = serial;
        if let Some(before) = offer.plugin.replace(connected) {
            before.gone.cancel();
        }
        while inner.tasks.try_join_next().is_some() {}
        let plugin = Plugin { devices: self.clone(), resource: resource.to_owned(), serial, channel, gone };
        inner.tasks.spawn(plugin.run());
        if is_new && let Err(error) = self.file.write(&inner.record) {
            tracing::warn!(error, resource, "a device plugin is not remembered");
        }
    }

    /// The plugin took its socket away.
    pub(super) fn disconnect(&self, resource: &str) {
        if let Some(Offer { plugin: Some(plugin), .. }) = self.lock().offers.get(resource) {
            plugin.gone.cancel();
        }
    }

    /// Gives the pod's containers their devices, unless they have them. `running` says that the pod was found so.
    ///
    /// # Errors
    /// Why the pod cannot have them, for its status.
    pub async fn allocate(&self, pod: &Pod, running: bool) -> Result<(), String> {
        if running || self.lock().admitted.contains(uid(pod)) {
            return Ok(());
        }
        let mut reusable: BTreeMap<String, Ids> = BTreeMap::new();
        for (role, container) in containers(pod) {
            self.allocate_container(pod, (role, container), &mut reusable, None).await?;
        }
        self.note_admitted(pod);
        Ok(())
    }

    /// As [`Devices::allocate`], for one container after the other. `reusable` are those of the init containers before it;
    /// `affinity` is where its devices should be.
    ///
    /// # Errors
    /// Why the pod cannot have them, for its status.
    pub async fn allocate_container(
        &self,
        pod: &Pod,
        (role, container): (Role, &Container),
        reusable: &mut BTreeMap<String, Ids>,
        affinity: Option<Mask>,
    ) -> Result<(), String> {
        for (resource, required) in self.wanted(pod, container) {
            let spare = reusable.entry(resource.clone()).or_default();
            let devices = self.allocate_one(pod, container, (&resource, required), spare, affinity).await?;
            match role {
                Role::Init => spare.extend(devices),
                Role::Sidecar | Role::App | Role::Ephemeral => spare.retain(|id| !devices.contains(id)),
            }
        }
        Ok(())
    }

    /// The pod got through: it is not asked for its devices again.
    pub fn note_admitted(&self, pod: &Pod) {
        if containers(pod).any(|(_, container)| !self.wanted(pod, container).is_empty()) {
            self.lock().admitted.insert(uid(pod).to_owned());
        }
    }

    /// Pods that have devices.
    #[must_use]
    pub fn holders(&self) -> BTreeSet<String> {
        self.lock().record.pods.keys().cloned().collect()
    }

    /// When a pod has given its devices back.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Resources that plugins offer, and how many of them the container has to have.
    fn wanted(&self, pod: &Pod, container: &Container) -> Vec<(String, usize)> {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        let Some(limits) = limits.filter(|limits| limits.keys().any(|name| name.contains('/'))) else {
            return Vec::new();
        };
        let inner = self.lock();
        let known = limits.iter().filter(|(name, _)| inner.record.knows(name) && !stand_for(pod, container, name));
        let amounts = known.map(|(name, Quantity(text))| (name, usize::try_from(cgroups::bytes(text)).unwrap_or(0)));
        amounts.filter(|(_, required)| *required > 0).map(|(name, required)| (name.clone(), required)).collect()
    }

    /// What a container is started with. Tells the plugins that ask for it that it starts.
    ///
    /// # Errors
    /// When a plugin wants the container not to start.
    pub async fn additions(&self, pod: &Pod, container: &Container) -> Result<Additions, String> {
        let mut calls = Vec::new();
        for (resource, _) in self.wanted(pod, container) {
            let inner = self.lock();
            let plugin = inner.offers.get(&resource).and_then(|offer| offer.plugin.as_ref());
            let Some(plugin) = plugin.filter(|plugin| plugin.options.pre_start_required) else { continue };
            let granted = inner.record.granted(uid(pod), &container.name, &resource).ok_or_else(|| {
                let (pod, container) = (uid(pod), &container.name);
                format!("no devices found allocated in local cache for pod {pod}, container {container}, resource {resource}")
            })?;
            let devices_ids = granted.devices.iter().cloned().collect();
            calls.push((plugin.channel.clone(), PreStartContainerRequest { devices_ids }));
        }
        for (channel, request) in calls {
            let told: Result<Empty, _> = grpc::call(&channel, protocol::PRE_START, request, PRE_START_DEADLINE).await;
            told.map_err(|error| format!("device plugin PreStartContainer rpc failed with err: {error}"))?;
        }
        Ok(self.lock().record.additions(uid(pod), &container.name))
    }

    /// The devices of a container, by resource.
    #[must_use]
    pub fn granted(&self, pod_uid: &str, container: &str) -> Vec<Seen> {
        let inner = self.lock();
        let grants = inner.record.pods.get(pod_uid).and_then(|containers| containers.get(container));
        grants.into_iter().flatten().flat_map(|(resource, grant)| inner.seen(resource, &grant.devices)).collect()
    }

    /// The devices that work, by resource.
    #[must_use]
    pub fn working(&self) -> Vec<Seen> {
        let inner = self.lock();
        inner.offers.iter().flat_map(|(resource, offer)| inner.seen(resource, &offer.healthy)).collect()
    }

    /// The pod is over: its devices are free.
    pub fn release(&self, pod_uid: &str) {
        self.retain(|uid| uid != pod_uid);
    }

    /// The API has the pod no more; its containers may still be there, and have their devices.
    pub fn leaving(&self, pod_uid: &str) {
        let mut inner = self.lock();
        if inner.record.pods.contains_key(pod_uid) {
            inner.leaving.insert(pod_uid.to_owned());
        }
    }

    /// Pods that are gone need no devices.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut inner = self.lock();
        inner.admitted.retain(|uid| is_there(uid));
        inner.leaving.retain(|uid| is_there(uid));
        let before = inner.record.pods.len();
        inner.record.pods.retain(|uid, _| is_there(uid));
        if inner.record.pods.len() == before {
            return;
        }
        if let Err(error) = self.file.write(&inner.record) {
            tracing::warn!(error, "devices of pods that are over are not forgotten on disk");
        }
        self.freed.notify_waiters();
    }

    /// Ends what follows the plugins. They are heard of again by the next agent.
    pub(super) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut self.lock().tasks);
        tasks.shutdown().await;
    }

    fn update(&self, change: impl FnOnce(&mut Inner)) {
        let counts = {
            let mut inner = self.lock();
            change(&mut inner);
            inner.counts()
        };
        self.counts.send_if_modified(|before| {
            let differs = *before != counts;
            *before = counts;
            differs
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn seen(&self, resource: &str, devices: &Ids) -> Vec<Seen> {
        let nodes = self.offers.get(resource).map(|offer| &offer.nodes);
        let seen = |id: &String| Seen {
            resource: resource.to_owned(),
            id: id.clone(),
            nodes: nodes.and_then(|nodes| nodes.get(id)).cloned(),
        };
        devices.iter().map(seen).collect()
    }

    /// Whether a pod that is on its way out has devices of the resource.
    fn is_leaving(&self, resource: &str) -> bool {
        let mut grants = self.leaving.iter().filter_map(|uid| self.record.pods.get(uid)).flat_map(BTreeMap::values);
        grants.any(|of| of.contains_key(resource))
    }

    fn groups(&self, resource: &str, available: &Ids, affinity: Option<Mask>) -> Groups {
        let none = NodesOf::new();
        let nodes = self.offers.get(resource).map_or(&none, |offer| &offer.nodes);
        Groups::of(available, nodes, affinity)
    }

    fn counts(&self) -> Counts {
        let count = |offer: &Offer| Count {
            capacity: offer.healthy.len() + offer.unhealthy.len(),
            allocatable: offer.healthy.len(),
        };
        self.offers.iter().map(|(name, offer)| (name.clone(), count(offer))).collect()
    }
}
