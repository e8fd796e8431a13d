//! Types: what CSI drivers say of nodes and of room, and what is attached to nodes.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, VolumeAttachment};

use super::selector::{Labels, Selector};
use crate::api::quantity::Quantity;
use crate::client::store::Meta as _;

/// Where clusters have no such drivers, all of this is empty.
#[derive(Default)]
pub struct Csi {
    /// How many volumes of a driver can be attached, by node and driver. Absent: any number.
    limits: HashMap<String, BTreeMap<String, usize>>,
    attachments: HashMap<String, Attachment>,
    /// Drivers that say how much room is left.
    tracking: HashSet<String>,
    /// By namespace and name.
    capacities: HashMap<(String, String), Capacity>,
}

/// A volume that is, or is about to be, attached to a node.
pub struct Attachment {
    node: String,
    pub driver: String,
    /// Name of the PersistentVolume.
    pub volume: String,
}

/// What can be made for a class where a selector of nodes says.
struct Capacity {
    class: String,
    nodes: Selector,
    /// Bytes of the largest volume.
    limit: Option<i64>,
}

impl Csi {
    #[must_use]
    pub fn limits(&self, node: &str) -> Option<&BTreeMap<String, usize>> {
        self.limits.get(node)
    }

    pub fn attachments<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Attachment> {
        self.attachments.values().filter(move |attachment| attachment.node == node)
    }

    /// Whether a volume of so many bytes can be made for a class, reachable from a node with these labels.
    #[must_use]
    pub fn has_room(&self, driver: &str, class: &str, bytes: i64, labels: &Labels) -> bool {
        let suffices = |capacity: &Capacity| {
            capacity.class == class
                && capacity.limit.is_some_and(|limit| limit >= bytes)
                && capacity.nodes.matches(labels)
        };
        !self.tracking.contains(driver) || self.capacities.values().any(suffices)
    }

    /// True when more can be attached now than before.
    pub fn set_node(&mut self, node: CSINode) -> bool {
        let limit = |driver: k8s_openapi::api::storage::v1::CSINodeDriver| {
            let count = driver.allocatable?.count?;
            Some((driver.name, usize::try_from(count).unwrap_or(0)))
        };
        let limits: BTreeMap<String, usize> = node.spec.drivers.into_iter().filter_map(limit).collect();
        let name = node.metadata.name.unwrap_or_default();
        let Some(before) = self.limits.get(&name) else {
            self.limits.insert(name, limits);
            return true;
        };
        let more = before.iter().any(|(driver, count)| limits.get(driver).is_none_or(|now| now > count));
        self.limits.insert(name, limits);
        more
    }

    pub fn forget_node(&mut self, name: &str) {
        self.limits.remove(name);
    }

    pub fn set_attachment(&mut self, attachment: VolumeAttachment) {
        let spec = attachment.spec;
        // Those without a name are of volumes of clouds.
        if let Some(volume) = spec.source.persistent_volume_name {
            let attached = Attachment { node: spec.node_name, driver: spec.attacher, volume };
            self.attachments.insert(attachment.metadata.name.unwrap_or_default(), attached);
        }
    }

    pub fn forget_attachment(&mut self, name: &str) {
        self.attachments.remove(name);
    }

    /// True when its claims are no longer held back for lack of room.
    pub fn set_driver(&mut self, driver: CSIDriver) -> bool {
        let name = driver.metadata.name.unwrap_or_default();
        if driver.spec.storage_capacity == Some(true) {
            self.tracking.insert(name);
            return false;
        }
        self.forget_driver(&name)
    }

    pub fn forget_driver(&mut self, name: &str) -> bool {
        self.tracking.remove(name)
    }

    /// True when there is more room than before.
    pub fn set_capacity(&mut self, capacity: CSIStorageCapacity) -> bool {
        let meta = &capacity.metadata;
        let key = (meta.namespace().to_owned(), meta.name().to_owned());
        let limit = capacity.maximum_volume_size.or(capacity.capacity);
        let fresh = Capacity {
            class: capacity.storage_class_name,
            nodes: Selector::new(capacity.node_topology.as_ref()),
            limit: limit.and_then(|q| Quantity::parse(&q.0).ok()).map(|q| q.value()),
        };
        let now = fresh.limit;
        self.capacities.insert(key, fresh).is_none_or(|before| before.limit < now)
    }

    pub fn forget_capacity(&mut self, namespace: &str, name: &str) {
        self.capacities.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Before a complete list.
    pub fn forget_nodes(&mut self) {
        self.limits.clear();
    }

    pub fn forget_attachments(&mut self) {
        self.attachments.clear();
    }

    pub fn forget_drivers(&mut self) {
        self.tracking.clear();
    }

    pub fn forget_capacities(&mut self) {
        self.capacities.clear();
    }
}
