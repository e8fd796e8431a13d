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
//! - [`result`]: what is written on a claim

pub mod allocator;
pub mod capacity;
pub mod constraints;
pub mod counters;
pub mod pools;
pub mod request;
pub mod result;
pub mod selector;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};

use self::selector::Programs;
use super::promises::ClaimId;
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
}

struct Promised {
    reservation: Reservation,
    /// Revision of the claim with what was promised.
    written: Option<u64>,
}

#[derive(Default)]
pub struct Devices {
    /// By namespace and name.
    claims: HashMap<(String, String), ResourceClaim>,
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

    pub fn slices(&self) -> impl Iterator<Item = &ResourceSlice> {
        self.slices.values()
    }

    /// What is in use now, and what will be.
    #[must_use]
    pub fn taken(&self) -> Taken<'_> {
        let mut taken = Taken::default();
        self.claims.values().filter_map(allocation).for_each(|a| taken.add(a));
        let promised = self.promised.iter().filter(|p| self.is_open(&p.reservation.claim));
        promised.filter_map(|p| p.reservation.allocation.as_deref()).for_each(|a| taken.add(a));
        taken
    }

    /// Not seen as allocated: what is shared must not count twice.
    fn is_open(&self, id: &ClaimId) -> bool {
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

    pub fn promise(&mut self, reservation: &Reservation) {
        self.promised.push(Promised { reservation: reservation.clone(), written: None });
    }

    /// It was not written.
    pub fn withdraw(&mut self, reservation: &Reservation) {
        self.end(|r| (&r.claim.uid, &r.pod) == (&reservation.claim.uid, &reservation.pod));
    }

    fn end(&mut self, which: impl Fn(&Reservation) -> bool) {
        self.promised.retain(|p| !which(&p.reservation));
    }

    /// It was written, which the watch may have shown already.
    pub fn written(&mut self, reservation: &Reservation, revision: u64) {
        let id = &reservation.claim;
        let known = self.claim(&id.namespace, &id.name).filter(|c| c.metadata.uid() == id.uid);
        let shown = known.is_none_or(|c| allocation(c).is_some() || c.metadata.revision() >= revision);
        if shown || reservation.allocation.is_none() {
            return self.withdraw(reservation);
        }
        let same = |p: &&mut Promised| p.reservation.claim.uid == id.uid && p.reservation.pod == reservation.pod;
        if let Some(promised) = self.promised.iter_mut().find(same) {
            promised.written = Some(revision);
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
        let Some(old) = self.claims.insert(key.clone(), claim) else { return Some(ClaimChange { released: false }) };
        let released = allocation(&old).is_some() && !(allocated && old.metadata.uid() == uid);
        let same = self.claims.get(&key).is_some_and(|new| new.status == old.status)
            && old.metadata.uid() == uid
            && old.metadata.deletion_timestamp.is_some() == deleting;
        (!same).then_some(ClaimChange { released })
    }

    pub fn forget_claim(&mut self, namespace: &str, name: &str) -> Option<ClaimChange> {
        let old = self.claims.remove(&(namespace.to_owned(), name.to_owned()))?;
        let uid = old.metadata.uid().to_owned();
        self.promised.retain(|p| p.reservation.claim.uid != uid || p.written.is_none());
        Some(ClaimChange { released: allocation(&old).is_some() })
    }

    /// All claims there are.
    pub fn set_claims(&mut self, claims: Vec<ResourceClaim>) {
        self.claims.clear();
        for claim in claims {
            self.set_claim(claim);
        }
        let Self { claims, promised, .. } = self;
        let there = |id: &ClaimId| claims.get(&id.key()).is_some_and(|c| c.metadata.uid() == id.uid);
        promised.retain(|p| p.written.is_none() || there(&p.reservation.claim));
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
