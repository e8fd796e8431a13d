//! Types: claims for devices, and the classes and slices that they are allocated from, as the scheduler sees them; and
//! what it has promised of them: allocations and reservations that are about to be written.
//!
//! ```text
//! promised ─▶ written ─▶ the watch shows it: ended
//!    └─ not written: ended, and the devices are free again
//! ```
//!
//! What is being written counts until its writer has said what came of it, whatever becomes of the pod: a device must
//! not be given twice.
//!
//! - [`pools`]: the devices that a node can reach; [`request`]: what claims ask for
//! - [`allocator`]: which devices they get; [`selector`], [`constraints`], [`counters`], [`capacity`]: what it asks
//! - [`result`]: what is written on a claim; [`extended`]: claims that are made for extended resources

pub mod allocator;
pub mod capacity;
pub mod constraints;
pub mod counters;
pub mod extended;
pub mod pools;
pub mod request;
pub mod result;
pub mod selector;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};

use self::extended::Unmade;
use self::selector::Programs;
use super::promises::ClaimId;
use crate::api::extended_resource::{class_of, made_for};
use crate::api::quantity::Quantity;
use crate::client::store::Meta as _;

/// Driver, pool and name of a device.
pub type Id<'a> = (&'a str, &'a str, &'a str);

/// Pods and others that a claim can be reserved for at once.
pub const MAX_CONSUMERS: usize = 256;

/// A claim for devices that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClaim {
    /// `None` until it is made.
    pub name: Option<String>,
    /// Made from a template, for this pod alone.
    pub own: bool,
}

/// The claims of a pod. Those that were found not to be needed are left out.
#[must_use]
pub fn claims_of(pod: &Pod) -> Vec<DeviceClaim> {
    let statuses = pod.status.as_ref().and_then(|s| s.resource_claim_statuses.as_deref()).unwrap_or_default();
    let claims = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
    claims
        .filter_map(|claim| {
            if let Some(name) = &claim.resource_claim_name {
                return Some(DeviceClaim { name: Some(name.clone()), own: false });
            }
            match statuses.iter().find(|s| s.name == claim.name) {
                None => Some(DeviceClaim { name: None, own: true }),
                Some(status) => Some(DeviceClaim { name: Some(status.resource_claim_name.clone()?), own: true }),
            }
        })
        .collect()
}

/// What is to be written on a claim before its pod can be bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    pub claim: ClaimId,
    /// uid of the pod.
    pub pod: String,
    /// What the claim gets. `None` when it has that already.
    pub allocation: Option<Arc<AllocationResult>>,
    /// The claim's `resourceVersion` and finalizers, as they were.
    pub revision: String,
    pub finalizers: Vec<String>,
    /// The claim is still to be made; its id is only known after that.
    pub unmade: Option<Arc<Unmade>>,
}

impl Reservation {
    fn is_same(&self, other: &Self) -> bool {
        let both_unmade = self.unmade.is_some() && other.unmade.is_some();
        self.pod == other.pod && (self.claim.uid == other.claim.uid || both_unmade)
    }
}

struct Promised {
    reservation: Reservation,
    /// Revision of the claim with what was promised.
    written: Option<u64>,
    /// Claims that were made for the pod and are gone, before it was known which is the one.
    gone: Vec<String>,
}

#[derive(Default)]
pub struct Devices {
    /// By namespace and name.
    claims: HashMap<(String, String), ResourceClaim>,
    /// Those for extended resources, by namespace and name, with the uid of their pod. Few.
    extended: BTreeMap<(String, String), String>,
    classes: HashMap<String, DeviceClass>,
    /// By name: the order in which their devices are tried.
    slices: BTreeMap<String, ResourceSlice>,
    promised: Vec<Promised>,
    pub programs: Programs,
}

/// What of a claim has changed, as far as pods wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimChange {
    /// Devices are free again.
    pub released: bool,
}

/// What devices are in use, over all claims.
#[derive(Default)]
pub struct Taken<'a> {
    pub exclusive: HashSet<Id<'a>>,
    /// How much of the capacities of devices that are shared.
    pub shared: HashMap<Id<'a>, BTreeMap<&'a str, Quantity>>,
}

impl<'a> Taken<'a> {
    fn add(&mut self, allocation: &'a AllocationResult) {
        for result in results(allocation).iter().filter(|r| r.admin_access != Some(true)) {
            let id = (result.driver.as_str(), result.pool.as_str(), result.device.as_str());
            if result.share_id.is_none() {
                self.exclusive.insert(id);
                continue;
            }
            let sums = self.shared.entry(id).or_default();
            for (name, text) in result.consumed_capacity.iter().flatten() {
                *sums.entry(name).or_default() += capacity::amount(text).unwrap_or_default();
            }
        }
    }

    #[must_use]
    pub fn has(&self, id: Id<'a>) -> bool {
        self.exclusive.contains(&id) || self.shared.contains_key(&id)
    }
}

/// The devices of an allocation.
#[must_use]
pub fn results(allocation: &AllocationResult) -> &[k8s_openapi::api::resource::v1::DeviceRequestAllocationResult] {
    allocation.devices.as_ref().and_then(|d| d.results.as_deref()).unwrap_or_default()
}

#[must_use]
pub fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

#[must_use]
pub fn reserved_for(claim: &ResourceClaim) -> &[k8s_openapi::api::resource::v1::ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|s| s.reserved_for.as_deref()).unwrap_or_default()
}

#[must_use]
pub fn is_reserved_for(claim: &ResourceClaim, pod: &str) -> bool {
    reserved_for(claim).iter().any(|one| one.uid == pod)
}

impl Devices {
    #[must_use]
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&ResourceClaim> {
        // Asked a few times for each pod that has claims.
        self.claims.get(&(namespace.to_owned(), name.to_owned()))
    }

    #[must_use]
    pub fn class(&self, name: &str) -> Option<&DeviceClass> {
        self.classes.get(name)
    }

    /// The class whose devices stand for an extended resource. Two may have the same name, while one takes the place of
    /// the other: the newer one counts.
    #[must_use]
    pub fn backing(&self, resource: &str) -> Option<&DeviceClass> {
        if let Some(class) = class_of(resource) {
            return self.class(class);
        }
        let named = self.classes.values().filter(|c| c.spec.extended_resource_name.as_deref() == Some(resource));
        named.max_by_key(|c| {
            (c.metadata.creation_timestamp.as_ref().map(|at| at.0), Reverse(c.metadata.name.as_deref()))
        })
    }

    /// What was made for the extended resources of a pod.
    #[must_use]
    pub fn extended_claim(&self, pod: &str) -> Option<&ResourceClaim> {
        let (key, _) = self.extended.iter().find(|(_, of)| *of == pod)?;
        self.claims.get(key)
    }

    pub fn slices(&self) -> impl Iterator<Item = &ResourceSlice> {
        self.slices.values()
    }

    /// What is in use now, and what will be.
    #[must_use]
    pub fn taken(&self) -> Taken<'_> {
        let mut taken = Taken::default();
        self.claims.values().filter_map(allocation).for_each(|a| taken.add(a));
        let promised = self.promised.iter().filter(|p| self.is_open(&p.reservation));
        promised.filter_map(|p| p.reservation.allocation.as_deref()).for_each(|a| taken.add(a));
        taken
    }

    /// Not seen as allocated: what is shared must not count twice.
    fn is_open(&self, reservation: &Reservation) -> bool {
        let id = &reservation.claim;
        if reservation.unmade.is_some() {
            return self.extended_claim(&reservation.pod).is_none_or(|c| allocation(c).is_none());
        }
        let known = self.claim(&id.namespace, &id.name).filter(|c| c.metadata.uid() == id.uid);
        known.is_none_or(|c| allocation(c).is_none())
    }

    /// Something is being written on the claim.
    #[must_use]
    pub fn is_promised(&self, uid: &str) -> bool {
        self.promised.iter().any(|p| p.reservation.claim.uid == uid)
    }

    /// What a claim is about to get.
    #[must_use]
    pub fn promised_allocation(&self, uid: &str) -> Option<&AllocationResult> {
        let of = |p: &&Promised| p.reservation.claim.uid == uid && p.reservation.allocation.is_some();
        self.promised.iter().find(of)?.reservation.allocation.as_deref()
    }

    /// What the claim gets that is made for a pod.
    #[must_use]
    pub fn promised_extended(&self, pod: &str) -> Option<&AllocationResult> {
        let of = |p: &&Promised| p.reservation.pod == pod && p.reservation.unmade.is_some();
        self.promised.iter().find(of)?.reservation.allocation.as_deref()
    }

    pub fn promise(&mut self, reservation: &Reservation) {
        self.promised.push(Promised { reservation: reservation.clone(), written: None, gone: Vec::new() });
    }

    /// It was not written.
    pub fn withdraw(&mut self, reservation: &Reservation) {
        self.promised.retain(|p| !p.reservation.is_same(reservation));
    }

    /// It was written, which the watch may have shown already. A claim that was made has its id by now.
    pub fn written(&mut self, reservation: &Reservation, revision: u64) {
        let id = &reservation.claim;
        let known = self.claim(&id.namespace, &id.name).filter(|c| c.metadata.uid() == id.uid);
        let shown = match known {
            Some(claim) => allocation(claim).is_some() || claim.metadata.revision() >= revision,
            // What is there no more; or what is not seen yet.
            None => reservation.unmade.is_none(),
        };
        if shown || reservation.allocation.is_none() {
            return self.withdraw(reservation);
        }
        self.promised.retain(|p| !p.reservation.is_same(reservation) || !p.gone.contains(&id.uid));
        if let Some(promised) = self.promised.iter_mut().find(|p| p.reservation.is_same(reservation)) {
            promised.written = Some(revision);
            promised.reservation.claim.clone_from(id);
        }
    }

    /// `None` when nobody can care.
    pub fn set_claim(&mut self, mut claim: ResourceClaim) -> Option<ClaimChange> {
        trim(&mut claim);
        let (uid, revision) = (claim.metadata.uid().to_owned(), claim.metadata.revision());
        let allocated = allocation(&claim).is_some();
        self.promised.retain(|p| {
            p.reservation.claim.uid != uid
                || p.reservation.allocation.is_none()
                || !(allocated || p.written.is_some_and(|at| revision >= at))
        });
        let key = (claim.metadata.namespace().to_owned(), claim.metadata.name().to_owned());
        let deleting = claim.metadata.deletion_timestamp.is_some();
        match made_for(&claim.metadata) {
            Some((_, pod)) => drop(self.extended.insert(key.clone(), pod.to_owned())),
            None => drop(self.extended.remove(&key)),
        }
        let Some(old) = self.claims.insert(key.clone(), claim) else { return Some(ClaimChange { released: false }) };
        let released = allocation(&old).is_some() && !(allocated && old.metadata.uid() == uid);
        let same = self.claims.get(&key).is_some_and(|new| new.status == old.status)
            && old.metadata.uid() == uid
            && old.metadata.deletion_timestamp.is_some() == deleting;
        (!same).then_some(ClaimChange { released })
    }

    pub fn forget_claim(&mut self, namespace: &str, name: &str) -> Option<ClaimChange> {
        let key = (namespace.to_owned(), name.to_owned());
        let old = self.claims.remove(&key)?;
        // Its pod may wait for its end.
        let of_pod = self.extended.remove(&key).is_some();
        self.note_end(&old);
        Some(ClaimChange { released: allocation(&old).is_some() || of_pod })
    }

    fn note_end(&mut self, claim: &ResourceClaim) {
        let (uid, pod) = (claim.metadata.uid(), made_for(&claim.metadata).map(|(_, uid)| uid));
        self.promised.retain(|p| p.reservation.claim.uid != uid || p.written.is_none());
        let waits = |p: &&mut Promised| p.reservation.unmade.is_some() && Some(p.reservation.pod.as_str()) == pod;
        self.promised.iter_mut().filter(waits).for_each(|p| p.gone.push(uid.to_owned()));
    }

    /// All claims there are, as of a revision.
    pub fn set_claims(&mut self, claims: Vec<ResourceClaim>, revision: u64) {
        self.extended.clear();
        let before = std::mem::take(&mut self.claims);
        for claim in claims {
            self.set_claim(claim);
        }
        for (key, old) in before {
            if self.claims.get(&key).is_none_or(|new| new.metadata.uid() != old.metadata.uid()) {
                self.note_end(&old);
            }
        }
        let Self { claims, promised, .. } = self;
        let there = |id: &ClaimId| claims.get(&id.key()).is_some_and(|c| c.metadata.uid() == id.uid);
        let newer = |p: &Promised| p.reservation.unmade.is_some() && p.written > Some(revision);
        promised.retain(|p| p.written.is_none() || newer(p) || there(&p.reservation.claim));
    }

    /// Whether it offers something else now.
    pub fn set_slice(&mut self, slice: ResourceSlice) -> bool {
        let name = slice.metadata.name().to_owned();
        let same = self.slices.get(&name).is_some_and(|old| old.spec == slice.spec);
        self.slices.insert(name, slice);
        !same
    }

    pub fn forget_slice(&mut self, name: &str) {
        self.slices.remove(name);
    }

    pub fn forget_slices(&mut self) {
        self.slices.clear();
    }

    /// Whether it says something else now.
    pub fn set_class(&mut self, class: DeviceClass) -> bool {
        let name = class.metadata.name().to_owned();
        let same = self.classes.get(&name).is_some_and(|old| old.spec == class.spec);
        self.classes.insert(name, class);
        !same
    }

    pub fn forget_class(&mut self, name: &str) {
        self.classes.remove(name);
    }

    pub fn forget_classes(&mut self) {
        self.classes.clear();
    }
}

/// What drivers tell of devices may be large; only the conditions are read.
fn trim(claim: &mut ResourceClaim) {
    for device in claim.status.iter_mut().flat_map(|s| s.devices.iter_mut().flatten()) {
        device.data = None;
        device.network_data = None;
    }
}
