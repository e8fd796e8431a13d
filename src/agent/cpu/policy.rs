//! Decides: which containers have CPUs for themselves, and which (`pkg/kubelet/cm/cpumanager/policy_static.go`). Messages
//! are upstream's: they end up in the pod's status.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::spread::distributed;
use super::take::packed;
use crate::agent::cgroups::{self, Qos, qos};
use crate::agent::pod::admit::Refusal;
use crate::agent::pod::{Role, containers, pod_spec};
use crate::agent::topology::hint::{Hints, Mask, marked, masks};
use crate::agent::topology::machine::{Level, Topology};
use crate::config::cpu_set::CpuSet;
use crate::config::placement::CpuOptions;

/// The policy named `static`.
#[derive(Clone, Debug)]
pub struct Static {
    topology: Topology,
    /// Never given away.
    reserved: CpuSet,
    /// With the other threads of the same cores.
    reserved_cores: CpuSet,
    options: CpuOptions,
}

/// By container, of each pod by its uid.
pub type Assignments = BTreeMap<String, BTreeMap<String, CpuSet>>;

/// Who has what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What all other containers run on.
    pub shared: CpuSet,
    pub pods: Assignments,
}

impl State {
    #[must_use]
    pub fn of(&self, pod_uid: &str, container: &str) -> Option<&CpuSet> {
        self.pods.get(pod_uid)?.get(container)
    }
}

/// How many CPUs a container is to have for itself. 0 is none: it shares.
#[must_use]
pub fn wants(pod: &Pod, container: &Container) -> usize {
    let whole = pod_spec(pod).resources.as_ref();
    let for_all = whole.is_some_and(|r| r.requests.is_some() || r.limits.is_some());
    if for_all || qos(pod) != Qos::Guaranteed {
        return 0;
    }
    let resources = container.resources.as_ref();
    let amount = |list: Option<&BTreeMap<String, Quantity>>| list?.get("cpu").map(|text| cgroups::milli(&text.0));
    let asked = amount(resources.and_then(|r| r.requests.as_ref()));
    let milli = asked.or_else(|| amount(resources.and_then(|r| r.limits.as_ref()))).unwrap_or(0);
    if milli > 0 && milli % 1000 == 0 { usize::try_from(milli / 1000).unwrap_or(0) } else { 0 }
}

/// Whether a container that stays has CPUs for itself.
#[must_use]
pub fn stays_exclusive(pod: &Pod) -> bool {
    containers(pod).any(|(role, container)| role != Role::Init && wants(pod, container) > 0)
}

/// The most that the pod's containers have at the same time.
#[must_use]
pub fn of_pod(pod: &Pod, of: impl Fn(&Container) -> usize) -> usize {
    let (mut apps, mut sidecars, mut peak) = (0, 0, 0);
    for (role, container) in containers(pod) {
        let amount = of(container);
        match role {
            Role::Init => peak = peak.max(sidecars + amount),
            Role::Sidecar => sidecars += amount,
            Role::App | Role::Ephemeral => apps += amount,
        }
    }
    (apps + sidecars).max(peak)
}

impl Static {
    /// `milli` is reserved; which CPUs these are is `named`, or left to us.
    ///
    /// # Errors
    /// They are not there.
    pub fn new(topology: Topology, milli: i64, named: &CpuSet, options: CpuOptions) -> Result<Static, String> {
        let mut policy = Static { topology, reserved: named.clone(), reserved_cores: CpuSet::default(), options };
        let all = policy.topology.all();
        let missing = named.without(&all);
        if !missing.is_empty() {
            return Err(format!("reserved-cpus={named}: CPUs {missing} are not there or not online; there are {all}"));
        }
        if named.is_empty() {
            let count = usize::try_from(milli.max(0)).unwrap_or(0).div_ceil(1000);
            policy.reserved = policy.take(&all, count).map_err(|error| {
                format!("unable to reserve the required amount of CPUs ({count} of {all}): {error}")
            })?;
        }
        let cores = policy.topology.split(&policy.reserved, Level::Core);
        let whole = cores.iter().map(|core| policy.topology.whole(core, Level::Core));
        policy.reserved_cores = whole.fold(CpuSet::default(), |all, core| all.or(&core));
        Ok(policy)
    }

    /// Nobody has anything.
    #[must_use]
    pub fn initial(&self) -> State {
        State { shared: self.pool(), pods: Assignments::new() }
    }

    #[must_use]
    pub fn reserved(&self) -> &CpuSet {
        &self.reserved
    }

    /// What containers can have for themselves.
    #[must_use]
    pub fn allocatable(&self) -> CpuSet {
        self.topology.all().without(&self.reserved)
    }

    /// What is free for a container to have for itself.
    #[must_use]
    pub fn available(&self, state: &State) -> CpuSet {
        state.shared.without(&self.reserved)
    }

    /// Whether a container has whole cores or is refused.
    #[must_use]
    pub fn gives_whole_cores(&self) -> bool {
        self.options.full_cores
    }

    #[must_use]
    pub fn share_a_cache(&self, cpus: &CpuSet) -> bool {
        self.topology.split(cpus, Level::Cache).len() == 1
    }

    fn pool(&self) -> CpuSet {
        if self.options.strict { self.allocatable() } else { self.topology.all() }
    }

    /// # Errors
    /// Why this machine cannot have been left like that.
    pub fn check(&self, state: &State) -> Result<(), String> {
        let (reserved, shared) = (&self.reserved, &state.shared);
        if self.options.strict && !reserved.and(shared).is_empty() {
            let some = reserved.and(shared);
            return Err(format!(
                "some of strictly reserved cpus: \"{some}\" are present in defaultCpuSet: \"{shared}\""
            ));
        }
        if !self.options.strict && !reserved.is_within(shared) {
            return Err(format!("not all reserved cpus: \"{reserved}\" are present in defaultCpuSet: \"{shared}\""));
        }
        let mut known = shared.clone();
        for (pod, containers) in &state.pods {
            for (container, cpus) in containers {
                if !cpus.and(shared).is_empty() {
                    return Err(format!(
                        "pod: {pod}, container: {container} cpuset: \"{cpus}\" overlaps with default cpuset \"{shared}\""
                    ));
                }
                known = known.or(cpus);
            }
        }
        let all = self.pool();
        if known != all {
            return Err(format!(
                "current set of available CPUs \"{all}\" doesn't match with CPUs in state \"{known}\""
            ));
        }
        Ok(())
    }

    /// Gives a container its CPUs, unless it has them. `reusable` are those of the pod's init containers, which have ended
    /// when this one starts.
    ///
    /// # Errors
    /// Why the pod cannot have them. The state is as it was.
    pub fn allocate(
        &self,
        state: &mut State,
        pod_uid: &str,
        (role, container, wanted): (Role, &str, usize),
        affinity: Option<Mask>,
        reusable: &mut CpuSet,
    ) -> Result<(), Refusal> {
        if wanted == 0 {
            return Ok(());
        }
        let cpus = match state.of(pod_uid, container) {
            Some(cpus) => cpus.clone(),
            None => {
                self.check_cores(state, wanted, reusable)?;
                let cpus = self.choose(state, wanted, affinity, reusable).map_err(|error| unexpected(&error))?;
                state.shared = state.shared.without(&cpus);
                state.pods.entry(pod_uid.to_owned()).or_default().insert(container.to_owned(), cpus.clone());
                cpus
            }
        };
        *reusable = if role == Role::Init { reusable.or(&cpus) } else { reusable.without(&cpus) };
        Ok(())
    }

    /// Where threads of one core must not be of two containers.
    fn check_cores(&self, state: &State, wanted: usize, reusable: &CpuSet) -> Result<(), Refusal> {
        let refused = |message| Err(Refusal { reason: "SMTAlignmentError", message });
        if !self.options.full_cores {
            return Ok(());
        }
        let each = self.topology.cpus_per(Level::Core).max(1);
        if !wanted.is_multiple_of(each) {
            return refused(format!(
                "SMT Alignment Error: requested {wanted} cpus not multiple cpus per core = {each}"
            ));
        }
        let available = state.shared.or(reusable).without(&self.reserved_cores).len();
        if wanted > available {
            return refused(format!(
                "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = {available}, \
                 requested CPUs = {wanted}, CPUs per core = {each}"
            ));
        }
        Ok(())
    }

    /// As many as there are of those near what else the container gets, then others.
    fn choose(
        &self,
        state: &State,
        wanted: usize,
        affinity: Option<Mask>,
        reusable: &CpuSet,
    ) -> Result<CpuSet, String> {
        let free = self.available(state).or(reusable);
        let near = match affinity {
            Some(mask) => {
                let near = free.and(&self.topology.of_nodes(|node| mask.contains(node)));
                self.take(&near, wanted.min(near.len()))?
            }
            None => CpuSet::default(),
        };
        let more = self.take(&free.without(&near), wanted - near.len())?;
        Ok(near.or(&more))
    }

    fn take(&self, free: &CpuSet, count: usize) -> Result<CpuSet, String> {
        if self.options.distribute {
            let group = if self.options.full_cores { self.topology.cpus_per(Level::Core) } else { 1 };
            return distributed(&self.topology, free, count, group);
        }
        packed(&self.topology, free, count, self.options.by_cache)
    }

    /// The pod is over: its CPUs are everybody's. False when it had none.
    pub fn release(&self, state: &mut State, pod_uid: &str) -> bool {
        let Some(containers) = state.pods.remove(pod_uid) else { return false };
        for cpus in containers.values() {
            state.shared = state.shared.or(cpus);
        }
        true
    }

    /// Which nodes the container's CPUs could come from.
    #[must_use]
    pub fn hints(&self, state: &State, pod_uid: &str, container: (&str, usize), reusable: &CpuSet) -> Hints {
        let (name, wanted) = container;
        if wanted == 0 {
            return None;
        }
        match state.of(pod_uid, name) {
            Some(has) if has.len() != wanted => Some(Vec::new()),
            Some(has) => self.possible(has, &CpuSet::default(), wanted),
            None => self.possible(&self.available(state), reusable, wanted),
        }
    }

    /// Which nodes those of all its containers could come from.
    #[must_use]
    pub fn pod_hints(&self, state: &State, pod_uid: &str, pod: &Pod) -> Hints {
        let wanted = of_pod(pod, |container| wants(pod, container));
        if wanted == 0 {
            return None;
        }
        let mut has = CpuSet::default();
        for (_, container) in containers(pod) {
            if let Some(cpus) = state.of(pod_uid, &container.name) {
                if cpus.len() != wants(pod, container) {
                    return Some(Vec::new());
                }
                has = has.or(cpus);
            }
        }
        match has.len() == wanted {
            true => self.possible(&has, &CpuSet::default(), wanted),
            false => self.possible(&self.available(state), &has, wanted),
        }
    }

    fn possible(&self, available: &CpuSet, reusable: &CpuSet, wanted: usize) -> Hints {
        let mut nodes: Vec<u32> = self.topology.cpus.values().map(|place| place.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut fewest = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let mut possible = Vec::new();
        for mask in masks(&nodes) {
            let inside = self.topology.of_nodes(|node| mask.contains(node));
            if inside.len() >= wanted {
                fewest = fewest.min(mask.count());
            }
            if reusable.is_within(&inside) && reusable.len() + available.and(&inside).len() >= wanted {
                possible.push(mask);
            }
        }
        marked(possible, fewest)
    }
}

/// As upstream words what has no reason of its own.
#[must_use]
pub fn unexpected(error: &str) -> Refusal {
    Refusal {
        reason: "UnexpectedAdmissionError",
        message: format!("Allocate failed due to {error}, which is unexpected"),
    }
}
