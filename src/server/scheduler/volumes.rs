//! Types: claims, volumes and classes as the scheduler sees them, and what it has promised of them: a volume that is
//! about to be bound, a node that is about to be chosen. A promise ends when the watch shows it, or when the pod's
//! binding fails.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use super::promises::Promise;
use crate::client::store::Meta as _;
use crate::server::controllers::persistent_volumes::{BIND_COMPLETED, SELECTED_NODE};

/// Namespace and name of a claim.
pub type ClaimKey = (String, String);

/// A claim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    pub name: String,
    /// Made for this pod alone, by another controller.
    pub ephemeral: bool,
}

/// The claims of a pod's volumes.
#[must_use]
pub fn claims_of(pod: &Pod) -> Vec<ClaimUse> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let claim = |v: &k8s_openapi::api::core::v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(source), _) => Some(ClaimUse { name: source.claim_name.clone(), ephemeral: false }),
        (None, Some(_)) => Some(ClaimUse { name: format!("{name}-{}", v.name), ephemeral: true }),
        _ => None,
    };
    volumes.filter_map(claim).collect()
}

#[derive(Default)]
pub struct Volumes {
    claims: HashMap<ClaimKey, Arc<PersistentVolumeClaim>>,
    volumes: BTreeMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
    /// uid of the claim that a volume is promised to, by the volume's name.
    promised: HashMap<String, String>,
    /// Nodes promised to claims.
    chosen: HashMap<ClaimKey, String>,
}

impl Volumes {
    #[must_use]
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        // The map is asked a few times for each pod that has claims.
        self.claims.get(&(namespace.to_owned(), name.to_owned()))
    }

    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.get(name)
    }

    #[must_use]
    pub fn class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.classes.get(name)
    }

    /// Those that are not promised to another claim.
    pub fn free_for<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Arc<PersistentVolume>> {
        let free = move |v: &&Arc<PersistentVolume>| self.promised.get(v.metadata.name()).is_none_or(|of| of == uid);
        self.volumes.values().filter(free)
    }

    /// The node that a claim's volume is to be made on, if that is settled.
    #[must_use]
    pub fn node_of<'a>(&'a self, claim: &'a PersistentVolumeClaim) -> Option<&'a str> {
        let told = claim.metadata.annotations.as_ref().and_then(|a| a.get(SELECTED_NODE));
        let key = (claim.metadata.namespace().to_owned(), claim.metadata.name().to_owned());
        told.or_else(|| self.chosen.get(&key)).map(String::as_str)
    }

    pub fn promise(&mut self, promise: &Promise) {
        match promise {
            Promise::Volume { claim, volume, .. } => drop(self.promised.insert(volume.clone(), claim.uid.clone())),
            Promise::Node { claim, node } => drop(self.chosen.insert(claim.key(), node.clone())),
            Promise::Devices(_) => {}
        }
    }

    pub fn withdraw(&mut self, promise: &Promise) {
        match promise {
            Promise::Volume { volume, .. } => drop(self.promised.remove(volume)),
            Promise::Node { claim, .. } => drop(self.chosen.remove(&claim.key())),
            Promise::Devices(_) => {}
        }
    }

    pub fn set_claim(&mut self, claim: PersistentVolumeClaim) {
        let key = (claim.metadata.namespace().to_owned(), claim.metadata.name().to_owned());
        if claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(SELECTED_NODE)) {
            self.chosen.remove(&key);
        }
        self.claims.insert(key, Arc::new(claim));
    }

    pub fn forget_claim(&mut self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.chosen.remove(&key);
        self.claims.remove(&key);
    }

    pub fn set_volume(&mut self, volume: PersistentVolume) {
        let name = volume.metadata.name().to_owned();
        if volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_some()) {
            self.promised.remove(&name);
        }
        self.volumes.insert(name, Arc::new(volume));
    }

    pub fn forget_volume(&mut self, name: &str) {
        self.promised.remove(name);
        self.volumes.remove(name);
    }

    pub fn set_class(&mut self, class: StorageClass) {
        self.classes.insert(class.metadata.name().to_owned(), Arc::new(class));
    }

    pub fn forget_class(&mut self, name: &str) {
        self.classes.remove(name);
    }

    /// Before a complete list. What was promised stays promised.
    pub fn forget_claims(&mut self) {
        self.claims.clear();
    }

    pub fn forget_volumes(&mut self) {
        self.volumes.clear();
    }

    pub fn forget_classes(&mut self) {
        self.classes.clear();
    }
}

/// The volume of a claim whose binding is complete.
#[must_use]
pub fn bound_to(claim: &PersistentVolumeClaim) -> Option<&str> {
    let complete = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(BIND_COMPLETED));
    let volume = claim.spec.as_ref()?.volume_name.as_deref().filter(|v| !v.is_empty())?;
    complete.then_some(volume)
}
