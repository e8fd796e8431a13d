//! Decides: whether the claims for devices of a pod are, or can be, allocated where a node can reach them:
//! `DynamicResources` (`pkg/scheduler/framework/plugins/dynamicresources`).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::extended_resources::Variants;
use super::{Cycle, Happened, Reasons, Room, Wants, most};
use crate::client::store::Meta as _;
use crate::clock;
use crate::server::scheduler::devices::allocator::{Fail, Found, Given, MAX_ATTEMPT_STEPS, allocate};
use crate::server::scheduler::devices::extended::{Asks, Unmade};
use crate::server::scheduler::devices::pools::Pools;
use crate::server::scheduler::devices::request::Asked;
use crate::server::scheduler::devices::selector::{Matches, Programs};
use crate::server::scheduler::devices::{
    MAX_CONSUMERS, Reservation, Taken, allocation, is_reserved_for, reserved_for, result, results,
};
use crate::server::scheduler::filter::term_matches;
use crate::server::scheduler::pod::PodInfo;
use crate::server::scheduler::promises::{ClaimId, Promise};
use crate::server::scheduler::snapshot::{NodeInfo, Snapshot};

pub const NAME: &str = "DynamicResources";

/// Alternatives that a request can have (`FirstAvailableDeviceRequestMaxSize`).
const MAX_ALTERNATIVES: i64 = 8;

/// What the claims of a pod ask for, computed once for an attempt.
#[derive(Default)]
pub struct Needs<'a> {
    /// Why the pod fits nowhere, whatever the nodes are.
    pub refusal: Option<String>,
    /// It has any, and they can be judged.
    claims: bool,
    /// Made for the extended resources of the pod by an attempt that came to nothing: it has to go first.
    stale: Option<&'a ResourceClaim>,
    allocated: Vec<&'a ResourceClaim>,
    open: Option<Open<'a>>,
    /// Of those that are allocated, those that keep the pod from some node.
    away: RefCell<BTreeSet<usize>>,
    error: RefCell<Option<String>>,
}

/// Claims that are to be allocated, and from what.
struct Open<'a> {
    /// By variant. The claims that the pod names are the same in all; the one that is to be made comes last.
    asked: Vec<Vec<Asked<'a>>>,
    variants: &'a Variants,
    pools: Pools<'a>,
    taken: Taken<'a>,
    matches: RefCell<Matches<'a>>,
    steps: Cell<usize>,
    /// By slot. Other pods make no difference to it.
    found: RefCell<HashMap<usize, Result<Vec<Found<'a>>, Fail>>>,
}

impl<'a> Open<'a> {
    /// What is to be allocated on a node, and which of that is to be made.
    fn on(&self, node: &NodeInfo) -> Option<(&[Asked<'a>], Option<&'a Arc<Unmade>>)> {
        let variant = self.variants.of(node)?;
        let unmade = variant.checked_sub(1).and_then(|at| self.variants.all().nth(at));
        Some((self.asked.get(variant)?, unmade))
    }
}

/// A claim that the pod could do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub claim: ClaimId,
    /// Its allocation goes, as it was at that `resourceVersion`. `None`: the whole claim goes.
    pub revision: Option<String>,
}

/// A claim of its own is still to come: it need not be tried, and nobody need be told.
#[must_use]
pub fn waits(pod: &PodInfo, wants: &Wants, snapshot: &Snapshot) -> bool {
    let there = |name: &String| snapshot.devices.claim(pod.namespace(), name).is_some();
    wants.device_claims.iter().any(|c| c.own && !c.name.as_ref().is_some_and(there))
}

impl<'a> Needs<'a> {
    pub fn new(pod: &PodInfo, wants: &Wants, snapshot: &'a Snapshot, variants: &'a Variants) -> Self {
        let claims = !wants.device_claims.is_empty() || variants.is_backed();
        let mut needs = Self { claims, ..Self::default() };
        if let Err(why) = needs.add_all(pod, wants, snapshot, variants) {
            needs.refusal = Some(why);
            // Nothing to take back before it is known what is there.
            needs.claims = false;
        } else if variants.is_backed() {
            needs.stale = snapshot.devices.extended_claim(&pod.uid);
        }
        needs
    }

    fn add_all(
        &mut self,
        pod: &PodInfo,
        wants: &Wants,
        snapshot: &'a Snapshot,
        variants: &'a Variants,
    ) -> Result<(), String> {
        let known = &snapshot.devices;
        let (mut named, mut requests) = (Vec::new(), 0);
        for used in &wants.device_claims {
            let Some(name) = &used.name else {
                return Err(format!("Pod {}/{}: ResourceClaim not created yet", pod.namespace(), pod.name));
            };
            let key = format!("{}/{name}", pod.namespace());
            let claim =
                known.claim(pod.namespace(), name).ok_or_else(|| format!("could not find ResourceClaim {key:?}"))?;
            let meta = &claim.metadata;
            if meta.deletion_timestamp.is_some() {
                return Err(format!("resourceclaim {name:?} is being deleted"));
            }
            if used.own && !meta.owners().iter().any(|o| o.uid == pod.uid && o.controller == Some(true)) {
                let whose = format!("Pod {}/{}", pod.namespace(), pod.name);
                return Err(format!("ResourceClaim {key} was not created for {whose} (Pod is not owner)"));
            }
            if allocation(claim).is_some() {
                if reserved_for(claim).len() >= MAX_CONSUMERS && !is_reserved_for(claim, &pod.uid) {
                    return Err("resourceclaim in use".to_owned());
                }
                self.allocated.push(claim);
                continue;
            }
            if known.is_promised(meta.uid()) {
                return Err(format!("resource claim {key} is in the process of being allocated"));
            }
            let one = Asked::new(claim, known, requests)?;
            requests += one.request_count();
            named.push(one);
        }
        let mut asked = vec![named];
        for unmade in variants.all() {
            let (mut both, mut before) = (Vec::new(), 0);
            for one in &asked[0] {
                both.push(Asked::new(one.claim, known, before)?);
                before += one.request_count();
            }
            let made = Asked::new(&unmade.claim, known, requests)?;
            requests += made.request_count();
            both.push(made);
            asked.push(both);
        }
        if asked.iter().any(|asked| !asked.is_empty()) {
            self.open = Some(Open {
                asked,
                variants,
                pools: Pools::new(known.slices()),
                taken: known.taken(),
                matches: RefCell::default(),
                steps: Cell::new(MAX_ATTEMPT_STEPS),
                found: RefCell::default(),
            });
        }
        Ok(())
    }

    /// Why no node need be asked any more: something is wrong with a claim or a class.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        self.error.borrow().clone()
    }

    /// What the plugin says of a pod that fits nowhere, and the claim that could help by giving up what it has.
    #[must_use]
    pub fn after_all(&self, pod: &PodInfo) -> (&'static str, Option<Release>) {
        // It was refused before nodes were asked, or has no claims.
        if !self.claims {
            return ("no new claims to deallocate", None);
        }
        let idle = |claim: &&ResourceClaim| reserved_for(claim).iter().all(|one| one.uid == pod.uid);
        let away = self.away.borrow();
        let of = |claim: &ResourceClaim, revision| Some(Release { claim: ClaimId::of(&claim.metadata), revision });
        match (away.iter().filter_map(|i| self.allocated.get(*i).copied()).find(idle), self.stale) {
            (Some(claim), _) => {
                let revision = claim.metadata.resource_version.clone().unwrap_or_default();
                ("deallocation of ResourceClaim completed", of(claim, Some(revision)))
            }
            (None, Some(stale)) => ("deletion of ResourceClaim completed", of(stale, None)),
            (None, None) => ("still not schedulable", None),
        }
    }

    /// How many devices stand for an extended resource on a node that leaves it to them, and how many of those are in use.
    /// `None` where that cannot be told.
    #[must_use]
    pub fn standing_for(&self, resource: &str, node: &NodeInfo, programs: &Programs) -> Option<(i64, i64)> {
        let open = self.open.as_ref()?;
        let (asked, unmade) = open.on(node)?;
        let request = &unmade?.mappings.iter().find(|m| m.resource_name == resource)?.request_name;
        let ask = asked.last()?.requests.iter().flatten().find(|ask| ask.name == request)?;
        let mut matches = open.matches.borrow_mut();
        let (mut all, mut taken) = (0, 0);
        for offered in open.pools.on(node).iter().flat_map(|pool| &pool.devices) {
            if matches.ask(ask, offered, programs).ok()? {
                all += 1;
                taken += i64::from(open.taken.has(offered.id));
            }
        }
        Some((all, taken))
    }

    /// What has to be written, or waited for, before the pod can be bound to the node. `None` for nothing.
    #[must_use]
    pub fn promises(&self, pod: &PodInfo, slot: usize, node: &NodeInfo) -> Option<Vec<Promise>> {
        let mut promises = Vec::new();
        let reservation = |claim: &ResourceClaim, allocation, unmade| {
            let meta = &claim.metadata;
            Promise::Devices(Box::new(Reservation {
                claim: ClaimId::of(meta),
                pod: pod.uid.clone(),
                allocation,
                revision: meta.resource_version.clone().unwrap_or_default(),
                finalizers: meta.finalizers().to_vec(),
                unmade,
            }))
        };
        if let Some(open) = &self.open {
            let (asked, unmade) = open.on(node)?;
            let found = open.found.borrow();
            let Some(Ok(found)) = found.get(&slot) else { return None };
            for (asked, found) in asked.iter().zip(found) {
                let made = result::result(asked, found, &node.name, &|| uuid::Uuid::new_v4().to_string());
                let unmade = unmade.filter(|unmade| std::ptr::eq(&unmade.claim, asked.claim)).cloned();
                promises.push(reservation(asked.claim, Some(Arc::new(made)), unmade));
            }
        }
        let unreserved = self.allocated.iter().filter(|c| !is_reserved_for(c, &pod.uid));
        promises.extend(unreserved.map(|claim| reservation(claim, None, None)));
        let ready = self.allocated.iter().all(|c| is_ready(c) == Ok(true));
        (!promises.is_empty() || !ready).then_some(promises)
    }
}

pub fn filter(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    let needs = &cycle.devices;
    if !needs.claims {
        return Ok(());
    }
    let refuse = |text: String| Err(Reasons { texts: vec![text.into()], resolvable: false });
    if needs.stale.is_some() {
        return refuse("cannot schedule extended resource claim".to_owned());
    }
    if let Some(open) = &needs.open {
        let Some((asked, _)) = open.on(room.node) else { return refuse("cannot fit resource".to_owned()) };
        let mut found = open.found.borrow_mut();
        let found = found.entry(room.slot).or_insert_with(|| {
            if asked.is_empty() {
                return Ok(Vec::new());
            }
            let given = Given {
                claims: asked,
                taken: &open.taken,
                programs: &cycle.snapshot.devices.programs,
                matches: &open.matches,
                steps: &open.steps,
            };
            allocate(&given, open.pools.on(room.node))
        });
        match found {
            Ok(_) => {}
            Err(Fail::Node(why)) => return refuse(why.clone()),
            Err(Fail::Pod(why)) => {
                *needs.error.borrow_mut() = Some(format!("running {NAME:?} filter plugin: {why}"));
                return refuse(why.clone());
            }
        }
    }
    let unavailable = |claim: &ResourceClaim| {
        let selector = allocation(claim).and_then(|a| a.node_selector.as_ref());
        let here = selector.is_none_or(|s| s.node_selector_terms.iter().any(|term| term_matches(term, room.node)));
        !here || is_given_up(claim, cycle.profile.args.binding_timeout)
    };
    let away = needs.allocated.iter().enumerate().filter(|(_, claim)| unavailable(claim)).map(|(i, _)| i);
    let away: Vec<usize> = away.collect();
    needs.away.borrow_mut().extend(away.iter().copied());
    if away.is_empty() { Ok(()) } else { refuse("resourceclaim not available on the node".to_owned()) }
}

/// Earlier alternatives are better.
pub fn scores(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let open = cycle.devices.open.as_ref()?;
    let found = open.found.borrow();
    let score = |slot: &usize| {
        let Some(Ok(found)) = found.get(slot) else { return 0 };
        let each = open.asked[0].iter().zip(found).flat_map(|(asked, found)| asked.requests.iter().zip(&found.chosen));
        let ranked = each.filter(|(alternatives, _)| alternatives.iter().any(|a| a.parent.is_some()));
        ranked.map(|(_, chosen)| MAX_ALTERNATIVES - i64::try_from(*chosen).unwrap_or(MAX_ALTERNATIVES)).sum()
    };
    Some(most(slots.iter().map(score).collect()))
}

/// Whether drivers have prepared the devices of a claim. `Err` when one has failed.
fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    let Some(allocation) = allocation(claim) else { return Ok(false) };
    let statuses = claim.status.as_ref().and_then(|s| s.devices.as_deref()).unwrap_or_default();
    for result in results(allocation).iter().filter(|r| r.binding_conditions.as_ref().is_some_and(|c| !c.is_empty())) {
        let device = statuses.iter().find(|s| {
            (&s.driver, &s.pool, &s.device, &s.share_id)
                == (&result.driver, &result.pool, &result.device, &result.share_id)
        });
        let Some(device) = device else { return Ok(false) };
        let is_true =
            |name: &String| device.conditions.iter().flatten().find(|c| c.type_ == *name && c.status == "True");
        if let Some(failed) = result.binding_failure_conditions.iter().flatten().find_map(is_true) {
            let (reason, message) = (&failed.reason, &failed.message);
            return Err(format!(
                "claim {} binding failed: reason={reason}, message={message:?}",
                claim.metadata.name()
            ));
        }
        if !result.binding_conditions.iter().flatten().all(|name| is_true(name).is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Its devices failed to be prepared, or were not in time.
fn is_given_up(claim: &ResourceClaim, bind_time: std::time::Duration) -> bool {
    match is_ready(claim) {
        Ok(true) => false,
        Err(_) => true,
        Ok(false) => {
            let since = allocation(claim).and_then(|a| a.allocation_timestamp.as_ref());
            since.is_some_and(|at| clock::time().0.duration_since(at.0).unsigned_abs() >= bind_time)
        }
    }
}

/// What is promised has to be prepared by drivers before the pod can be bound.
#[must_use]
pub fn prepares(reservation: &Reservation) -> bool {
    reservation.allocation.as_deref().is_some_and(is_to_be_prepared)
}

fn is_to_be_prepared(allocation: &AllocationResult) -> bool {
    results(allocation).iter().any(|r| r.binding_conditions.as_ref().is_some_and(|c| !c.is_empty()))
}

/// Whether the devices of a pod that was placed are prepared by now. `Err` says why they never will be.
pub fn settled(pod: &PodInfo, snapshot: &Snapshot) -> Result<bool, String> {
    for name in pod.wants.iter().flat_map(|w| &w.device_claims).filter_map(|c| c.name.as_ref()) {
        let claim = snapshot
            .devices
            .claim(pod.namespace(), name)
            .ok_or_else(|| format!("could not find ResourceClaim \"{}/{name}\"", pod.namespace()))?;
        let ready = match (allocation(claim), snapshot.devices.promised_allocation(claim.metadata.uid())) {
            (None, Some(promised)) => !is_to_be_prepared(promised),
            _ => is_ready(claim)?,
        };
        if !ready {
            return Ok(false);
        }
    }
    // The one that was made for it may not be seen yet.
    match snapshot.devices.extended_claim(&pod.uid).filter(|claim| allocation(claim).is_some()) {
        Some(claim) => is_ready(claim),
        None => Ok(!snapshot.devices.promised_extended(&pod.uid).is_some_and(is_to_be_prepared)),
    }
}

pub fn helps(pod: &PodInfo, wants: &Wants, happened: &Happened, snapshot: &Snapshot) -> bool {
    let names = || wants.device_claims.iter().filter_map(|c| c.name.as_ref());
    let claim = |name: &String| snapshot.devices.claim(pod.namespace(), name);
    // Only the claims themselves help a pod whose claims are not all there.
    let all_there = || wants.device_claims.iter().all(|c| c.name.as_ref().and_then(claim).is_some());
    let backed = || wants.extended.iter().flat_map(Asks::resources).any(|r| snapshot.devices.backing(r).is_some());
    let open = || names().filter_map(claim).any(|c| allocation(c).is_none()) || backed();
    match happened {
        Happened::DeviceClaim { namespace, name, released } => {
            let own = pod.namespace() == *namespace && names().any(|n| n == name);
            own || (*released && all_there() && open())
        }
        Happened::Node { change, .. } => {
            (change.added || change.labels || (change.allocatable && backed())) && all_there()
        }
        _ => all_there(),
    }
}
