//! Decides: volumes of CSI drivers are attached to the nodes whose pods use them, and detached after
//! (`pkg/controller/volume/attachdetach`, `pkg/volume/csi/csi_attacher.go`). The driver's own attacher does it, asked by a
//! `VolumeAttachment` for each volume and node.
//!
//! ```text
//! a pod with the volume comes to the node ─▶ VolumeAttachment ─▶ the driver attaches: status.attached
//!     ─▶ node.status.volumesAttached: the node may mount
//! the last such pod goes, the node has unmounted ─▶ out of node.status.volumesAttached ─▶ VolumeAttachment deleted
//!     ─▶ the driver detaches, and takes its finalizer off
//! ```
//!
//! A node says in `volumesInUse` what it is about to mount before it looks into `volumesAttached`. So one state of the Node
//! that has the volume in neither list shows that it can be detached, if that state is not older than what was written to
//! it: those writes and the deletions are plans of one key.
//!
//! Volumes of other kinds need nothing here: a node logs in to an iSCSI target by itself, and mounts none of Fibre Channel
//! or of clouds.
//!
//! - [`wanted`]: what the pods of a node use
//! - [`attach`]: what is made for a volume; [`detach`]: what is told to a node, and taken from it

mod attach;
mod detach;
mod wanted;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan};
use super::owners;
use super::stores::{Stores, row};
use crate::client::store::{Change, Meta as _};

pub const ATTACHMENTS: &str = "storage.k8s.io/volumeattachments";

const COMPONENT: &str = "attachdetach-controller";
/// Namespaces of the keys.
const VOLUME: &str = "volume";
const NODE: &str = "node";

/// Keys are volumes, and nodes: what is said of attachments to a node goes through one key.
#[derive(Default)]
pub struct AttachDetach {
    /// What pods were told last of a volume that is not attached, by volume and node.
    told: Mutex<HashMap<String, BTreeMap<String, String>>>,
    /// Since when volumes are to be detached, by node and unique name.
    since: Mutex<HashMap<String, BTreeMap<String, Timestamp>>>,
}

impl Controller for AttachDetach {
    fn name(&self) -> &'static str {
        "attach-detach"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let (seen, queue) = (Arc::clone(stores), enqueue.clone());
        stores.pods.subscribe(move |change| {
            if uses_change(change) {
                for pod in change.each() {
                    let volumes = wanted::volumes_of(&seen, pod);
                    volumes.iter().for_each(|volume| queue.add(VOLUME, volume.metadata.name()));
                    if !volumes.is_empty() {
                        queue.add(NODE, super::pods::node_name(pod));
                    }
                }
            }
        });
        let (seen, queue) = (Arc::clone(stores), enqueue.clone());
        stores.claims.subscribe(move |change| {
            for name in change.each().filter_map(|claim| claim.spec.as_ref()?.volume_name.as_deref()) {
                if seen.volumes.get("", name).is_some_and(|v| wanted::csi(&v).is_some()) {
                    concern(&seen, &queue, name);
                }
            }
        });
        let (seen, queue) = (Arc::clone(stores), enqueue.clone());
        stores.volumes.subscribe(move |change| {
            if change.each().any(|volume| wanted::csi(volume).is_some()) {
                change.each().for_each(|volume| concern(&seen, &queue, volume.metadata.name()));
            }
        });
        let queue = enqueue.clone();
        stores.attachments.subscribe(move |change| {
            for attachment in change.each() {
                queue.add(NODE, &attachment.spec.node_name);
                if let Some(volume) = &attachment.spec.source.persistent_volume_name {
                    queue.add(VOLUME, volume);
                }
            }
        });
        let (seen, queue) = (Arc::clone(stores), enqueue.clone());
        stores.csi_drivers.subscribe(move |change| {
            for driver in change.each() {
                let of_driver = |v: &&Arc<_>| wanted::csi(v).is_some_and(|c| c.driver == driver.metadata.name());
                seen.volumes.all().iter().filter(of_driver).for_each(|v| concern(&seen, &queue, v.metadata.name()));
            }
        });
        let (seen, queue) = (Arc::clone(stores), enqueue.clone());
        stores.nodes.subscribe(move |change| {
            let [old, new] = [change.old, change.new].map(|node| node.map(|node| state(node)));
            if old == new {
                return;
            }
            if let Some(node) = change.new.or(change.old) {
                queue.add(NODE, node.metadata.name());
            }
            // Only now are its volumes our business.
            if old.is_some_and(|o| o.managed) != new.is_some_and(|n| n.managed) {
                let volumes = seen.volumes.all();
                let names = volumes.iter().filter(|v| wanted::csi(v).is_some()).map(|v| v.metadata.name());
                names.for_each(|name| queue.add(VOLUME, name));
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        if &*key.namespace == VOLUME {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let of_volume = told.entry(key.name.to_string()).or_default();
            let plan = attach::plan(stores, &key.name, of_volume, moment.now);
            if of_volume.is_empty() {
                told.remove(&*key.name);
            }
            return plan;
        }
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let of_node = since.entry(key.name.to_string()).or_default();
        let plan = detach::plan(stores, &key.name, of_node, moment.now);
        if of_node.is_empty() {
            since.remove(&*key.name);
        }
        plan
    }
}

/// Queues a volume, and the nodes that it is attached to.
fn concern(stores: &Stores, queue: &Enqueue, volume: &str) {
    queue.add(VOLUME, volume);
    let of_volume = |a: &&Arc<VolumeAttachment>| a.spec.source.persistent_volume_name.as_deref() == Some(volume);
    stores.attachments.all().iter().filter(of_volume).for_each(|a| queue.add(NODE, &a.spec.node_name));
}

/// The pod begins or ends to use its volumes.
fn uses_change(change: &Change<'_, Pod>) -> bool {
    change.old.map(|pod| (pod.metadata.uid(), wanted::node_of(pod)))
        != change.new.map(|pod| (pod.metadata.uid(), wanted::node_of(pod)))
}

/// What of a Node is looked at here.
#[derive(PartialEq)]
struct State<'a> {
    managed: bool,
    ready: bool,
    out_of_service: bool,
    in_use: &'a [String],
    attached: Vec<&'a str>,
}

fn state(node: &Node) -> State<'_> {
    let status = node.status.as_ref();
    State {
        managed: wanted::is_managed(node),
        ready: detach::is_ready(node),
        out_of_service: detach::is_out_of_service(node),
        in_use: status.and_then(|s| s.volumes_in_use.as_deref()).unwrap_or_default(),
        attached: status.iter().flat_map(|s| s.volumes_attached.iter().flatten()).map(|v| v.name.as_str()).collect(),
    }
}

fn note(pod: &Pod, warning: bool, reason: &'static str, message: String) -> Action {
    let regarding = owners::object_reference(row("pods"), &pod.metadata);
    Action::Event(Note { regarding, warning, reason, message, component: COMPONENT, action: "" })
}

#[cfg(test)]
mod tests;
