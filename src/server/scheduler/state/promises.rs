//! Decides: when a placed pod can be bound: its claims are told first, and then have to get what they were promised.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::resource::v1::ResourceClaim;
use tokio::time::Instant;

use super::{Attempt, State};
use crate::client::store::Meta as _;
use crate::server::scheduler::devices::{ClaimChange, Reservation};
use crate::server::scheduler::plugins::{Happened, dynamic_resources, volumes};
use crate::server::scheduler::pod::PodInfo;
use crate::server::scheduler::promises::{ClaimId, Promise};

/// A placed pod whose claims are not bound yet.
pub(super) struct Binding {
    pod: Arc<PodInfo>,
    node: String,
    promises: Vec<Promise>,
    pub(super) until: Instant,
    /// Revision of what was written on the claims.
    written: Option<u64>,
    /// The claim that was made for its extended resources.
    made: Option<ClaimId>,
}

/// How long the claims of a pod may take to be bound.
fn bind_time(pod: &PodInfo) -> Duration {
    let Some(wants) = &pod.wants else { return Duration::ZERO };
    let args = &wants.profile().args;
    if wants.device_claims.is_empty() && wants.extended.is_empty() {
        args.bind_timeout
    } else {
        args.bind_timeout.max(args.binding_timeout)
    }
}

/// The plugin that says so, and why.
type Broken = (&'static str, String);

impl State {
    pub fn claim_changed(&mut self, namespace: &str, name: &str, now: Instant) {
        self.happened(&Happened::Claim(namespace, name), now);
        self.settle(now);
    }

    /// Volumes or classes, or the room for volumes.
    pub fn volumes_changed(&mut self, now: Instant) {
        self.happened(&Happened::Volumes, now);
        self.settle(now);
    }

    pub fn devices_changed(&mut self, now: Instant) {
        self.happened(&Happened::Devices, now);
    }

    pub fn device_classes_changed(&mut self, now: Instant) {
        self.happened(&Happened::DeviceClasses, now);
    }

    pub fn observe_device_claim(&mut self, claim: ResourceClaim, now: Instant) {
        let (namespace, name) = (claim.metadata.namespace().to_owned(), claim.metadata.name().to_owned());
        if let Some(change) = self.snapshot.devices.set_claim(claim) {
            self.device_claim_changed(&namespace, &name, change, now);
        }
    }

    pub fn forget_device_claim(&mut self, namespace: &str, name: &str, now: Instant) {
        if let Some(change) = self.snapshot.devices.forget_claim(namespace, name) {
            self.device_claim_changed(namespace, name, change, now);
        }
    }

    /// All claims for devices that there are, as of a revision.
    pub fn observe_device_claims(&mut self, claims: Vec<ResourceClaim>, revision: u64, now: Instant) {
        self.snapshot.devices.set_claims(claims, revision);
        self.devices_changed(now);
        self.settle(now);
    }

    fn device_claim_changed(&mut self, namespace: &str, name: &str, change: ClaimChange, now: Instant) {
        let ClaimChange { released } = change;
        self.happened(&Happened::DeviceClaim { namespace, name, released }, now);
        self.settle(now);
    }

    /// The claims of a pod have been told; those for devices with the revisions that they have now.
    pub fn promised(&mut self, uid: &str, revision: u64, devices: &[(Reservation, u64)], now: Instant) {
        self.devices_written(devices);
        if let Some(binding) = self.binding.get_mut(uid) {
            binding.written = Some(revision);
            binding.made = devices.iter().find(|(r, _)| r.unmade.is_some()).map(|(r, _)| r.claim.clone());
            // As long as claims say that they have been allocated.
            binding.until = now + bind_time(&binding.pod);
        }
        self.settle(now);
    }

    fn devices_written(&mut self, devices: &[(Reservation, u64)]) {
        for (reservation, revision) in devices {
            self.snapshot.devices.written(reservation, *revision);
        }
    }

    /// Not all claims of a pod could be told: which were, and what is free again.
    pub fn broken(&mut self, uid: &str, devices: &[(Reservation, u64)], unwritten: &[Promise], now: Instant) {
        self.devices_written(devices);
        for promise in unwritten {
            if let Promise::Devices(reservation) = promise {
                self.snapshot.devices.withdraw(reservation);
                let ClaimId { namespace, name, .. } = &reservation.claim;
                self.happened(&Happened::DeviceClaim { namespace, name, released: true }, now);
            }
        }
        self.unbound(uid, now);
    }

    /// Looks at the pods that wait for their claims.
    pub(super) fn settle(&mut self, now: Instant) {
        let mut over: Vec<(String, Result<(), Broken>)> = Vec::new();
        for (uid, binding) in &self.binding {
            match self.verdict(binding, now) {
                Ok(false) => {}
                Ok(true) => over.push((uid.clone(), Ok(()))),
                Err(why) => over.push((uid.clone(), Err(why))),
            }
        }
        for (uid, verdict) in over {
            match verdict {
                Ok(()) => {
                    let Some(Binding { pod, node, made, .. }) = self.binding.remove(&uid) else { continue };
                    self.ready.push_back(Attempt::Place { pod, node, made });
                }
                Err((plugin, why)) => {
                    let Some(binding) = self.binding.get(&uid) else { continue };
                    let (pod, made) = (Arc::clone(&binding.pod), binding.made.clone());
                    self.unbound(&uid, now);
                    self.ready.push_back(Attempt::Unbindable { pod, plugin, why, made });
                }
            }
        }
    }

    /// Whether everything is there that a pod waits for, or which plugin says that it never will be.
    fn verdict(&self, binding: &Binding, now: Instant) -> Result<bool, Broken> {
        let Binding { pod, node, written, until, promises, .. } = binding;
        let late = *until <= now;
        if !volumes::settled(pod, &self.snapshot, node, *written).map_err(|why| (volumes::BINDING, why))? {
            let why = || "binding volumes: context deadline exceeded".to_owned();
            return if late { Err((volumes::BINDING, why())) } else { Ok(false) };
        }
        let of_devices = promises.iter().any(|p| matches!(p, Promise::Devices(_)));
        if !of_devices && pod.wants.as_ref().is_none_or(|w| w.device_claims.is_empty()) {
            return Ok(true);
        }
        let name = dynamic_resources::NAME;
        // Nobody but their writer does what was promised of devices.
        let settled =
            if of_devices && written.is_none() { Ok(false) } else { dynamic_resources::settled(pod, &self.snapshot) };
        match settled {
            Ok(false) if late => Err((name, "device binding timeout".to_owned())),
            verdict => verdict.map_err(|why| (name, why)),
        }
    }

    /// Its claims need not wait for it any more. What is promised of devices ends when its writer says so.
    pub(super) fn withdraw(&mut self, uid: &str, now: Instant) {
        let Some(binding) = self.binding.remove(uid) else { return };
        for promise in &binding.promises {
            self.snapshot.volumes.withdraw(promise);
        }
        self.happened(&Happened::Volumes, now);
    }

    /// `promises`: of claims that have no volume or no devices yet.
    pub(super) fn placed(
        &mut self,
        pod: &Arc<PodInfo>,
        slot: usize,
        promises: Option<Vec<Promise>>,
        now: Instant,
    ) -> Attempt {
        let node = self.snapshot.node(slot).name.clone();
        let placed = Arc::new(PodInfo { node: node.clone(), wants: None, ..(**pod).clone() });
        self.assumed.insert(pod.uid.clone());
        self.snapshot.place(Arc::clone(&placed));
        self.end_nomination(&pod.uid, Some(&node), now);
        self.happened(&Happened::Placed(&placed), now);
        let Some(promises) = promises else { return Attempt::Place { pod: Arc::clone(pod), node, made: None } };
        promises.iter().for_each(|promise| self.snapshot.promise(promise));
        let (until, waiting) = (now + bind_time(pod), promises.clone());
        let (pod_too, node_too) = (Arc::clone(pod), node.clone());
        let binding = Binding { pod: pod_too, node: node_too, promises: waiting, until, written: None, made: None };
        self.binding.insert(pod.uid.clone(), binding);
        Attempt::Promise { pod: Arc::clone(pod), node, promises }
    }

    /// The binding of a placed pod failed: it is tried again later, unless it is gone.
    pub fn unbound(&mut self, uid: &str, now: Instant) {
        if !self.assumed.remove(uid) {
            return;
        }
        self.withdraw(uid, now);
        if let Some(pod) = self.pending.get(uid) {
            self.queue.restore(uid, pod.priority, pod.created);
            self.queue.failed(uid, None, now);
            if !pod.nominated.is_empty() {
                self.nominees.insert(uid.to_owned());
            }
        }
        if let Some((pod, slot)) = self.snapshot.unplace(uid) {
            self.happened(&Happened::Gone { pod: &pod, slot }, now);
        }
    }
}
