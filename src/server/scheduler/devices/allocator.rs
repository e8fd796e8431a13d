//! Decides: which devices of a node the claims of a pod get, all of them together: the first solution in the order of
//! claims, requests, alternatives and devices (upstream's `structured.Allocator`).
//!
//! A search that goes back from where there is no way on. It has no recursion: users decide how deep it goes. Of the
//! devices of one request the order does not matter, so each set of them is tried once.

use std::cell::RefCell;

use k8s_openapi::api::resource::v1::{Device, DeviceTaint, DeviceToleration};

use super::Taken;
use super::capacity::{self, Amounts};
use super::constraints::Constraint;
use super::counters::{Counters, is_counted};
use super::pools::{Offered, Pool, Trouble};
use super::request::{Ask, Asked};
use super::selector::{Matches, Programs};

/// Devices of one claim (`AllocationResultsMaxSize`).
pub const MAX_RESULTS: usize = 32;

/// Devices that are tried for one node. Upstream gives each node ten seconds; here others wait for the answer.
pub const MAX_STEPS: usize = 50_000;

/// Devices that are tried in one attempt, on all nodes.
pub const MAX_ATTEMPT_STEPS: usize = 500_000;

/// Why there is no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fail {
    /// Not on this node.
    Node(String),
    /// Nowhere: something is wrong with a claim or a class.
    Pod(String),
}

impl Fail {
    #[must_use]
    pub fn timed_out() -> Self {
        Self::Node("timed out trying to allocate devices".into())
    }

    fn no_devices() -> Self {
        Self::Node("cannot allocate all claims".into())
    }
}

/// One device for a request.
#[derive(Clone)]
pub struct Pick<'a> {
    pub request: usize,
    pub offered: Offered<'a>,
    /// What a device that is shared gives.
    pub consumed: Option<Amounts<'a>>,
}

/// What one claim gets.
#[derive(Clone, Default)]
pub struct Found<'a> {
    pub picks: Vec<Pick<'a>>,
    /// The alternative of each request.
    pub chosen: Vec<usize>,
}

/// What is the same for all nodes.
pub struct Given<'s, 'a> {
    pub claims: &'s [Asked<'a>],
    pub taken: &'s Taken<'a>,
    pub programs: &'s Programs,
    pub matches: &'s RefCell<Matches<'a>>,
    /// Steps that are left for the attempt.
    pub steps: &'s std::cell::Cell<usize>,
}

/// Devices for all claims.
///
/// # Errors
/// Why there are none.
pub fn allocate<'a>(given: &Given<'_, 'a>, pools: Vec<Pool<'a>>) -> Result<Vec<Found<'a>>, Fail> {
    let mut search = Search::new(given, pools)?;
    let steps = given.steps.get().min(MAX_STEPS);
    search.steps = steps;
    let found = search.run();
    given.steps.set(given.steps.get() - (steps - search.steps));
    match found {
        Ok(true) => Ok(search.found),
        Ok(false) if search.pools.iter().any(|p| p.trouble == Some(Trouble::Invalid)) => {
            Err(Fail::Node("invalid resource pools were encountered".into()))
        }
        Ok(false) => Err(Fail::no_devices()),
        Err(fail) => Err(fail),
    }
}

/// Where the search stands: the next thing to choose.
#[derive(Clone, Copy, Default)]
struct Cursor {
    claim: usize,
    request: usize,
    /// `None` until one is chosen.
    alternative: Option<usize>,
    /// Devices that the request has already.
    has: usize,
    /// The first candidate that may come next.
    from: usize,
}

/// Something chosen, and where to go on if that was wrong.
struct Choice {
    at: Cursor,
    /// What is tried next: an alternative, or a candidate.
    next: usize,
    taken: Option<Undo>,
}

/// How many devices a request needs, and which, if it needs all.
struct Need {
    count: usize,
    all: Option<Vec<usize>>,
}

/// What a device that was picked has changed.
struct Undo {
    device: usize,
    exclusive: bool,
    counted: bool,
    /// It takes of what is shared.
    shared: bool,
}

struct Search<'s, 'a> {
    given: &'s Given<'s, 'a>,
    pools: Vec<Pool<'a>>,
    /// Devices of the pools that are in order, with their pools.
    devices: Vec<(usize, Offered<'a>)>,
    /// By claim, request and alternative.
    needs: Vec<Vec<Vec<Need>>>,
    /// The least that a claim needs from a request on.
    least: Vec<Vec<usize>>,
    constraints: Vec<Vec<Constraint<'a>>>,
    counters: Counters<'a>,
    /// By device: claims of this pod that have it.
    holders: Vec<Vec<usize>>,
    /// By device: what this pod takes of those that are shared.
    shares: Vec<Vec<Amounts<'a>>>,
    found: Vec<Found<'a>>,
    steps: usize,
}

impl<'s, 'a> Search<'s, 'a> {
    fn new(given: &'s Given<'s, 'a>, pools: Vec<Pool<'a>>) -> Result<Self, Fail> {
        let devices: Vec<(usize, Offered<'a>)> =
            pools.iter().enumerate().flat_map(|(i, pool)| pool.devices.iter().map(move |d| (i, *d))).collect();
        let count = devices.len();
        let mut search = Self {
            given,
            pools,
            devices,
            needs: Vec::new(),
            least: Vec::new(),
            constraints: Vec::new(),
            counters: Counters::default(),
            holders: vec![Vec::new(); count],
            shares: vec![Vec::new(); count],
            found: given
                .claims
                .iter()
                .map(|c| Found { picks: Vec::new(), chosen: vec![0; c.requests.len()] })
                .collect(),
            steps: 0,
        };
        for asked in given.claims {
            search.prepare(asked)?;
        }
        Ok(search)
    }

    fn prepare(&mut self, asked: &Asked<'a>) -> Result<(), Fail> {
        let mut needs = Vec::with_capacity(asked.requests.len());
        for alternatives in &asked.requests {
            let all = alternatives.iter().map(|ask| self.need(ask)).collect::<Result<Vec<_>, Fail>>()?;
            needs.push(all);
        }
        let mut least = vec![0_usize; asked.requests.len() + 1];
        for (i, alternatives) in needs.iter().enumerate().rev() {
            let fewest = alternatives.iter().map(|need| need.count).min().unwrap_or(0);
            least[i] = least[i + 1].saturating_add(fewest);
        }
        let key = |ask: &Ask| ask.claim.clone();
        let name = asked.requests.first().and_then(|r| r.first()).map(key).unwrap_or_default();
        if least[0] > MAX_RESULTS {
            let wanted = least[0];
            let why = format!("number of requested devices {wanted} exceeds the claim limit of {MAX_RESULTS}");
            return Err(Fail::Node(format!("claim {name}: {why}")));
        }
        let constraints = asked.claim.spec.devices.iter().flat_map(|d| d.constraints.iter().flatten());
        let constraints = constraints.enumerate().map(|(i, constraint)| {
            let unknown = || format!("claim {name}, constraint #{i}: empty constraint (unsupported constraint type?)");
            Constraint::new(constraint).ok_or_else(|| Fail::Pod(unknown()))
        });
        self.constraints.push(constraints.collect::<Result<_, _>>()?);
        self.needs.push(needs);
        self.least.push(least);
        Ok(())
    }

    /// How many devices, and which if it is all of them.
    fn need(&self, ask: &Ask) -> Result<Need, Fail> {
        if !ask.all {
            return Ok(Need { count: ask.count, all: None });
        }
        if let Some((pool, trouble)) = self.pools.iter().find_map(|pool| Some((pool, pool.trouble?))) {
            let how = match trouble {
                Trouble::Incomplete => "being updated",
                Trouble::Invalid => "invalid",
            };
            let which = format!("{}/{}", pool.driver, pool.name);
            let why = format!("asks for all devices, but resource pool {which} is currently {how}");
            return Err(Fail::Node(format!("claim {}, request {}: {why}", ask.claim, ask.name)));
        }
        let mut all = Vec::new();
        for (i, (_, offered)) in self.devices.iter().enumerate() {
            if self.matches(ask, offered)? && self.consumption(ask, i).is_some() {
                all.push(i);
            }
        }
        Ok(Need { count: all.len(), all: Some(all) })
    }

    fn matches(&self, ask: &Ask, offered: &Offered<'a>) -> Result<bool, Fail> {
        self.given.matches.borrow_mut().ask(ask, offered, self.given.programs)
    }

    /// What the request takes of a device, if so much is left.
    fn consumption(&self, ask: &Ask, device: usize) -> Option<Amounts<'a>> {
        let offered = &self.devices[device].1;
        let wanted = capacity::consumed(ask.capacity, offered.device)?;
        let mut own = Amounts::new();
        for (name, n) in self.shares[device].iter().flatten() {
            *own.entry(name).or_default() += *n;
        }
        let others = self.given.taken.shared.get(&offered.id);
        capacity::fits(offered.device, &wanted, [others, Some(&own)]).then_some(wanted)
    }

    fn run(&mut self) -> Result<bool, Fail> {
        let mut choices: Vec<Choice> = Vec::new();
        let mut at = Cursor::default();
        loop {
            match self.next(at) {
                None => return Ok(true),
                Some(choice) => choices.push(choice),
            }
            loop {
                let Some(mut choice) = choices.pop() else { return Ok(false) };
                self.take_back(&mut choice);
                if let Some(next) = self.advance(&mut choice)? {
                    choices.push(choice);
                    at = next;
                    break;
                }
            }
        }
    }

    /// What is to be chosen next; `None` when every claim has everything.
    fn next(&self, mut at: Cursor) -> Option<Choice> {
        loop {
            let asked = self.given.claims.get(at.claim)?;
            if at.request >= asked.requests.len() {
                at = Cursor { claim: at.claim + 1, ..Cursor::default() };
                continue;
            }
            match at.alternative {
                None => return Some(Choice { at, next: 0, taken: None }),
                Some(alternative) if at.has < self.needs[at.claim][at.request][alternative].count => {
                    return Some(Choice { at, next: at.from, taken: None });
                }
                Some(_) => at = Cursor { claim: at.claim, request: at.request + 1, ..Cursor::default() },
            }
        }
    }

    /// Tries what comes next; where to go on from there, or `None` when nothing is left to be tried.
    fn advance(&mut self, choice: &mut Choice) -> Result<Option<Cursor>, Fail> {
        let at = choice.at;
        let Some(alternative) = at.alternative else {
            let needs = &self.needs[at.claim][at.request];
            let room =
                MAX_RESULTS.saturating_sub(self.found[at.claim].picks.len() + self.least[at.claim][at.request + 1]);
            // All of nothing is no device.
            let fits = |need: &Need| need.count <= room && (need.count > 0 || need.all.is_none());
            let Some(skipped) = needs[choice.next..].iter().position(fits) else { return Ok(None) };
            let chosen = choice.next + skipped;
            choice.next = chosen + 1;
            self.found[at.claim].chosen[at.request] = chosen;
            return Ok(Some(Cursor { alternative: Some(chosen), ..at }));
        };
        let given = self.given;
        let ask = &given.claims[at.claim].requests[at.request][alternative];
        let all = self.needs[at.claim][at.request][alternative].all.as_ref();
        // Of all devices each has its turn: there is no choice.
        let (only, end) = match all {
            Some(all) => (all.get(at.has).copied(), at.from + 1),
            None => (None, self.devices.len()),
        };
        while choice.next < end {
            let device = only.unwrap_or(choice.next);
            choice.next += 1;
            self.steps = self.steps.checked_sub(1).ok_or_else(Fail::timed_out)?;
            if let Some(undo) = self.take(at, ask, device)? {
                choice.taken = Some(undo);
                let from = if ask.all { 0 } else { choice.next };
                return Ok(Some(Cursor { has: at.has + 1, from, ..at }));
            }
        }
        Ok(None)
    }

    fn take(&mut self, at: Cursor, ask: &Ask<'a>, device: usize) -> Result<Option<Undo>, Fail> {
        let (pool, offered) = self.devices[device];
        let shared = offered.device.allow_multiple_allocations == Some(true);
        if self.is_in_use(at.claim, ask, device, shared) || (!ask.all && !self.matches(ask, &offered)?) {
            return Ok(None);
        }
        let Some(consumed) = self.consumption(ask, device) else { return Ok(None) };
        if has_untolerated_taint(offered.device, ask.tolerations) {
            return Ok(None);
        }
        // Those that share a device have its counters together; administrators take none.
        let counted = is_counted(offered.device)
            && !ask.admin
            && !(shared && (self.given.taken.shared.contains_key(&offered.id) || !self.shares[device].is_empty()));
        if counted && !self.counters.take(pool, &self.pools[pool], offered.device, self.given.taken) {
            return Ok(None);
        }
        if !self.constrain(at.claim, ask, &offered) {
            if counted {
                self.counters.give_back(pool, offered.device);
            }
            if ask.all {
                let (driver, pool, name) = offered.id;
                let which = format!("{driver}/{pool}/{name}");
                return Err(Fail::Pod(format!(
                    "claim {}, request {}: cannot add device {which} because a claim constraint would not be satisfied",
                    ask.claim, ask.name
                )));
            }
            return Ok(None);
        }
        let shares = shared && !ask.admin;
        if shares {
            self.shares[device].push(consumed.clone());
        }
        if !shared {
            self.holders[device].push(at.claim);
        }
        let pick = Pick { request: at.request, offered, consumed: shared.then_some(consumed) };
        self.found[at.claim].picks.push(pick);
        Ok(Some(Undo { device, exclusive: !shared, counted, shared: shares }))
    }

    /// An administrator may have any device, though only once for a claim.
    fn is_in_use(&self, claim: usize, ask: &Ask, device: usize, shared: bool) -> bool {
        let (id, taken) = (self.devices[device].1.id, self.given.taken);
        if ask.admin {
            return self.holders[device].contains(&claim);
        }
        taken.exclusive.contains(&id) || (!shared && taken.shared.contains_key(&id)) || !self.holders[device].is_empty()
    }

    /// Tells the constraints of a claim of one more device, if all of them hold with it.
    fn constrain(&mut self, claim: usize, ask: &Ask, offered: &Offered<'a>) -> bool {
        let constraints = &mut self.constraints[claim];
        let refused = constraints.iter_mut().position(|c| !c.add(ask, offered.id.0, offered.device));
        if let Some(refused) = refused {
            constraints[..refused].iter_mut().for_each(|c| c.remove(ask));
        }
        refused.is_none()
    }

    fn take_back(&mut self, choice: &mut Choice) {
        let Some(undo) = choice.taken.take() else { return };
        let (at, (pool, offered)) = (choice.at, self.devices[undo.device]);
        let ask = &self.given.claims[at.claim].requests[at.request][at.alternative.unwrap_or(0)];
        self.constraints[at.claim].iter_mut().for_each(|c| c.remove(ask));
        if undo.counted {
            self.counters.give_back(pool, offered.device);
        }
        if undo.shared {
            self.shares[undo.device].pop();
        }
        if undo.exclusive {
            self.holders[undo.device].pop();
        }
        self.found[at.claim].picks.pop();
    }
}

fn has_untolerated_taint(device: &Device, tolerations: &[DeviceToleration]) -> bool {
    let mut hard = device.taints.iter().flatten().filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute");
    hard.any(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// `resourceclaim.ToleratesTaint`
fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    if given(&toleration.effect).is_some_and(|e| e != taint.effect)
        || given(&toleration.key).is_some_and(|k| k != taint.key)
    {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        _ => false,
    }
}
