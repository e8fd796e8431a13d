//! Effects: what containers get for themselves, devices and CPUs, from NUMA nodes near each other
//! (`--kubelet-arg=topology-manager-policy`). A pod that cannot have it is refused before anything of it is made.
//!
//! - [`machine`]: how the machine's CPUs lie; [`hint`]: which nodes are best

pub mod hint;
pub mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use self::hint::{Hint, Hints, NODES, Nodes};
use self::machine::Topology;
use super::context::NodeContext;
use super::cpu::policy::unexpected;
use super::devices::select::Ids;
use super::pod::admit::Refusal;
use super::pod::{containers, uid};
use crate::clock;
use crate::config::cpu_set::CpuSet;
use crate::config::placement::{Alignment, Placement};

/// How long a pod waits for what one has that is on its way out.
const LEAVING_LIMIT: Duration = Duration::from_secs(60);

/// Where [`Topology::read`] looks.
pub const SYSTEM: &str = "/sys/devices/system";

/// How near to each other things have to be. Without a policy there is nothing in it.
#[derive(Default)]
pub struct Aligner {
    policy: Alignment,
    whole_pods: bool,
    nodes: Nodes,
    /// One pod at a time: what one could have another must not take meanwhile.
    turn: tokio::sync::Mutex<()>,
    /// Pods that got through since the agent started: what they have is not questioned again.
    admitted: Mutex<BTreeSet<String>>,
    requests: AtomicU64,
    errors: AtomicU64,
    /// Containers, or whole pods, that have all from one NUMA node because they must, and those that could not.
    aligned: AtomicU64,
    misaligned: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
#[error("--kubelet-arg=topology-manager-policy={policy} cannot be followed: {why}")]
pub struct Error {
    policy: &'static str,
    why: String,
}

impl Aligner {
    /// `topology` is read only when it is needed.
    ///
    /// # Errors
    /// The machine has too many NUMA nodes.
    pub fn new(settings: &Placement, topology: impl FnOnce() -> Result<Topology, String>) -> Result<Aligner, Error> {
        let policy = settings.alignment;
        if policy == Alignment::None {
            return Ok(Aligner::default());
        }
        let fail = |why| Error { policy: policy.as_str(), why };
        let nodes = topology().map_err(fail)?.nodes;
        let most = settings.alignment_options.most_nodes;
        if nodes.len() > most {
            return Err(fail(format!("unsupported on machines with more than {most} NUMA Nodes")));
        }
        if let Some(node) = nodes.keys().find(|node| **node >= NODES) {
            return Err(fail(format!("NUMA node {node} is beyond {}", NODES - 1)));
        }
        let nodes = Nodes { distances: nodes, closest: settings.alignment_options.closest };
        Ok(Aligner { policy, whole_pods: settings.whole_pods, nodes, ..Aligner::default() })
    }

    /// Pods that asked, and those that were refused. `None` without a policy.
    #[must_use]
    pub fn counts(&self) -> Option<(u64, u64)> {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (self.policy != Alignment::None).then(|| (of(&self.requests), of(&self.errors)))
    }

    /// Of how many containers, and of how many whole pods, all had to come from one NUMA node: those that have it so, and
    /// those that could not. `None` without a policy.
    #[must_use]
    pub fn aligned(&self) -> Option<[(&'static str, u64, u64); 2]> {
        let of = |whole_pods: bool, count: &AtomicU64| match whole_pods == self.whole_pods {
            true => count.load(Ordering::Relaxed),
            false => 0,
        };
        let both = |whole_pods| (of(whole_pods, &self.aligned), of(whole_pods, &self.misaligned));
        let ((containers, no_containers), (pods, no_pods)) = (both(false), both(true));
        let rows = [("container", containers, no_containers), ("pod", pods, no_pods)];
        (self.policy != Alignment::None).then_some(rows)
    }

    /// Only one policy promises it.
    fn count_aligned(&self, count: &AtomicU64) {
        if self.policy == Alignment::SingleNumaNode {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Pods that are gone are not remembered.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.admitted().retain(|uid| is_there(uid));
    }

    fn admitted(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes(&self) -> Vec<u32> {
        self.nodes.distances.keys().copied().collect()
    }

    fn merge(&self, hints: &[Hints]) -> Result<Hint, Refusal> {
        match hint::merge(self.policy, &self.nodes, hints) {
            (best, true) => Ok(best),
            (_, false) => {
                self.count_aligned(&self.misaligned);
                Err(Refusal {
                    reason: "TopologyAffinityError",
                    message: "Resources cannot be allocated with Topology locality".to_owned(),
                })
            }
        }
    }
}

/// Gives the pod's containers their devices and CPUs, unless they have them. `running` says that the pod was found so.
///
/// # Errors
/// Why the pod cannot have them.
pub async fn admit(cx: &NodeContext, pod: &Pod, running: bool) -> Result<(), Refusal> {
    if cx.aligner.policy == Alignment::None && !cx.exclusive.is_on() {
        return cx.devices.allocate(pod, running).await.map_err(|error| unexpected(&error));
    }
    if running || cx.aligner.admitted().contains(uid(pod)) {
        return Ok(());
    }
    let deadline = clock::instant() + LEAVING_LIMIT;
    let given = loop {
        let mut freed = pin!(async {
            tokio::select! {
                () = cx.exclusive.freed() => {}
                () = cx.devices.freed() => {}
            }
        });
        // Listens before it is tried: what is freed meanwhile must not be missed.
        let _ = futures::poll!(freed.as_mut());
        match give(cx, pod).await {
            // Whoever scheduled this pod did not wait for those that have ended, or were deleted by force.
            Err(why) if !someone_leaves(cx, uid(pod)) => break Err(why),
            Err(why) => {
                if tokio::time::timeout_at(deadline, freed).await.is_err() {
                    break Err(why);
                }
            }
            Ok(()) => break Ok(()),
        }
    };
    // Whoever was given CPUs is not to find others there. What the runtime does not take now is tried again later.
    cx.exclusive.settle(&*cx.runtime).await;
    given
}

/// Whether a pod that is not counted any more still has something.
fn someone_leaves(cx: &NodeContext, pod_uid: &str) -> bool {
    let counted: BTreeSet<String> = cx.ledger.pods().iter().map(|pod| uid(pod).to_owned()).collect();
    let mut holders = cx.exclusive.holders();
    holders.extend(cx.devices.holders());
    holders.iter().any(|holder| holder != pod_uid && !counted.contains(holder))
}

/// What of the pod's init containers, which have ended by then, others of it may use.
#[derive(Default)]
struct Reusable {
    cpus: CpuSet,
    devices: BTreeMap<String, Ids>,
}

async fn give(cx: &NodeContext, pod: &Pod) -> Result<(), Refusal> {
    let aligner = &cx.aligner;
    let _turn = match aligner.policy {
        Alignment::None => None,
        _ => Some(aligner.turn.lock().await),
    };
    let mut reusable = Reusable::default();
    let given = give_each(cx, pod, &mut reusable).await;
    if aligner.policy != Alignment::None {
        aligner.requests.fetch_add(1, Ordering::Relaxed);
        aligner.errors.fetch_add(u64::from(given.is_err()), Ordering::Relaxed);
    }
    match given {
        Ok(()) => drop(aligner.admitted().insert(uid(pod).to_owned())),
        Err(_) => cx.exclusive.undo(uid(pod)),
    }
    given
}

async fn give_each(cx: &NodeContext, pod: &Pod, reusable: &mut Reusable) -> Result<(), Refusal> {
    let aligner = &cx.aligner;
    let whole = match (aligner.policy, aligner.whole_pods) {
        (Alignment::None, _) => Some(None),
        (_, true) => {
            let mut hints = cx.devices.pod_hints(pod, &aligner.nodes());
            hints.push(cx.exclusive.pod_hints(pod));
            Some(aligner.merge(&hints)?.affinity)
        }
        (_, false) => None,
    };
    for (role, container) in containers(pod) {
        let affinity = match whole {
            Some(affinity) => affinity,
            None => of_container(cx, pod, container, reusable)?,
        };
        let device = (role, container);
        let given = cx.devices.allocate_container(pod, device, &mut reusable.devices, affinity).await;
        given.map_err(|error| unexpected(&error))?;
        cx.exclusive.allocate(pod, device, affinity, &mut reusable.cpus)?;
        if whole.is_none() {
            aligner.count_aligned(&aligner.aligned);
        }
    }
    if aligner.whole_pods {
        aligner.count_aligned(&aligner.aligned);
    }
    cx.devices.note_admitted(pod);
    Ok(())
}

fn of_container(
    cx: &NodeContext,
    pod: &Pod,
    container: &Container,
    reusable: &Reusable,
) -> Result<Option<hint::Mask>, Refusal> {
    let mut hints = cx.devices.hints(pod, container, &reusable.devices, &cx.aligner.nodes());
    hints.push(cx.exclusive.hints(pod, container, &reusable.cpus));
    Ok(cx.aligner.merge(&hints)?.affinity)
}
