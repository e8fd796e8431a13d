//! Decides: what the node has and what of it pods get: capacity less what is reserved for the system and the kubelet,
//! less what must be left before pods are evicted.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::node_info::Machine;
use super::volumes::fields::Allocatable;
use crate::api::quantity::Quantity;
use crate::config::eviction::{Signal, Threshold};
use crate::config::kubelet::Kubelet;

pub type Resources = BTreeMap<String, Text>;

/// What there is and what is kept back of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    pub allocatable: Allocatable,
    /// Memory of all pods together: what is reserved is kept from them, what must be left is not.
    pub pods_memory_bytes: i64,
    /// Processes and threads of all pods together: all that the machine can have where none are reserved.
    pub pods_processes: Option<i64>,
    pub pods: u32,
}

/// `max_pods` is what the flag says; fewer where the cores do not allow as many.
#[must_use]
pub fn shares(machine: &Machine, kubelet: &Kubelet, max_pods: u32, most_tasks: Option<i64>) -> Shares {
    let reserved = |resource: &str| {
        let of = |list: &BTreeMap<String, Quantity>| list.get(resource).copied().unwrap_or_default();
        of(&kubelet.system_reserved) + of(&kubelet.kube_reserved)
    };
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let kept = |signal: Signal, capacity: i64| {
        let hard = |t: &&Threshold| t.signal == signal && t.is_hard();
        kubelet.thresholds.iter().find(hard).map_or(0, |threshold| threshold.value.of(capacity))
    };
    let (memory, disk) = (signed(machine.memory_bytes), signed(machine.disk_bytes));
    let hugepages = signed(machine.hugepages.values().sum());
    let pods_memory_bytes = (memory - reserved("memory").value()).max(0);
    let per_core = kubelet.pods_per_core.saturating_mul(u32::try_from(machine.cpus).unwrap_or(u32::MAX));
    Shares {
        allocatable: Allocatable {
            cpu_milli: (machine.cpus * 1000 - reserved("cpu").milli()).max(0),
            memory_bytes: (pods_memory_bytes - kept(Signal::MemoryAvailable, memory) - hugepages).max(0),
            ephemeral_storage_bytes: (disk
                - reserved("ephemeral-storage").value()
                - kept(Signal::NodefsAvailable, disk))
            .max(0),
        },
        pods_memory_bytes,
        pods_processes: most_tasks.map(|most| (most - reserved("pid").value()).max(1)),
        pods: if kubelet.pods_per_core == 0 { max_pods } else { max_pods.min(per_core) },
    }
}

/// `capacity` and `allocatable` of the Node.
#[must_use]
pub fn resources(machine: &Machine, shares: &Shares) -> (Resources, Resources) {
    let kibi = |bytes: u64| format!("{}Ki", bytes / 1024);
    let mut capacity = BTreeMap::from([
        ("cpu".to_owned(), machine.cpus.to_string()),
        ("memory".to_owned(), kibi(machine.memory_bytes)),
        ("ephemeral-storage".to_owned(), kibi(machine.disk_bytes)),
        ("pods".to_owned(), shares.pods.to_string()),
    ]);
    for (size, bytes) in &machine.hugepages {
        let amount = if *bytes == 0 { "0".to_owned() } else { kibi(*bytes) };
        capacity.insert(format!("hugepages-{size}"), amount);
    }
    let of = shares.allocatable;
    let mut allocatable = capacity.clone();
    allocatable.insert("cpu".into(), Quantity::from_milli(of.cpu_milli).to_string());
    allocatable.insert("memory".into(), kibi(u64::try_from(of.memory_bytes).unwrap_or(0)));
    allocatable.insert("ephemeral-storage".into(), of.ephemeral_storage_bytes.to_string());
    let quantities = |map: BTreeMap<String, String>| map.into_iter().map(|(k, v)| (k, Text(v))).collect();
    (quantities(capacity), quantities(allocatable))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSystemInfo;

    use super::*;

    fn machine() -> Machine {
        Machine {
            cpus: 2,
            memory_bytes: 4 << 30,
            swap_bytes: 0,
            disk_bytes: 1_024_000,
            hugepages: [("2Mi".to_owned(), 0), ("1Gi".to_owned(), 1024)].into(),
            system: NodeSystemInfo::default(),
        }
    }

    fn show(map: &Resources) -> String {
        map.iter().map(|(key, value)| format!("{key}={} ", value.0)).collect()
    }

    #[test]
    fn resources_are_written_as_the_kubelet_does() {
        let shares = shares(&machine(), &Kubelet::default(), 110, Some(1000));
        let (capacity, allocatable) = resources(&machine(), &shares);
        assert_eq!(
            show(&capacity),
            "cpu=2 ephemeral-storage=1000Ki hugepages-1Gi=1Ki hugepages-2Mi=0 memory=4194304Ki pods=110 "
        );
        // 100 MiB and one huge page less, and 5 % of the disk.
        assert_eq!(
            show(&allocatable),
            "cpu=2 ephemeral-storage=972800 hugepages-1Gi=1Ki hugepages-2Mi=0 memory=4091903Ki pods=110 "
        );
        assert_eq!((shares.pods_memory_bytes, shares.pods_processes), (4 << 30, Some(1000)));
    }

    #[test]
    fn what_is_reserved_is_kept_from_pods() {
        let quantity = |text: &str| Quantity::parse(text).expect("a quantity");
        let kubelet = Kubelet {
            system_reserved: [("cpu", "250m"), ("memory", "200Mi"), ("pid", "100")]
                .map(|(name, amount)| (name.to_owned(), quantity(amount)))
                .into(),
            kube_reserved: [("cpu".to_owned(), quantity("250m")), ("ephemeral-storage".to_owned(), quantity("1Gi"))]
                .into(),
            pods_per_core: 10,
            ..Kubelet::default()
        };
        let shares = shares(&machine(), &kubelet, 110, Some(1000));
        let allocatable = resources(&machine(), &shares).1;
        assert_eq!(
            show(&allocatable),
            "cpu=1500m ephemeral-storage=0 hugepages-1Gi=1Ki hugepages-2Mi=0 memory=3887103Ki pods=20 "
        );
        assert_eq!(shares.pods_memory_bytes, (4 << 30) - (200 << 20));
        assert_eq!(shares.pods_processes, Some(900));
    }
}
