//! Decides: what a container is limited to beside CPU and memory: swap and huge pages; and what dies when its memory is
//! used up. As upstream's kubelet, with its default of `singleProcessOOMKill: false`.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::cgroups::{self, Qos, qos};
use super::eviction::is_critical;
use crate::cri::v1;

/// What this machine's control groups can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    pub is_v2: bool,
    /// Swap is accounted, and so can be limited.
    pub swap: bool,
    /// Sizes of huge pages that can be limited, in bytes.
    pub huge_pages: Vec<u64>,
    /// What there is to share, when pods may swap (`LimitedSwap`).
    pub shared: Option<Shared>,
}

/// The machine's memory and swap, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    pub memory: i64,
    pub swap: i64,
}

impl Kernel {
    /// Looks below the root of the control groups, once those of pods are made.
    #[must_use]
    pub fn read(root: &Path) -> Kernel {
        let is_v2 = root.join("cgroup.controllers").exists();
        let (swap, pages) = match is_v2 {
            true => (root.join("kubepods/memory.swap.max"), root.join("kubepods")),
            false => (root.join("memory/memory.memsw.limit_in_bytes"), root.join("hugetlb")),
        };
        let files = std::fs::read_dir(pages).into_iter().flatten().flatten();
        let mut huge_pages: Vec<u64> = files
            .filter_map(|entry| {
                let name = entry.file_name();
                let rest = name.to_str()?.strip_prefix("hugetlb.")?;
                let size = rest.strip_suffix(if is_v2 { ".max" } else { ".limit_in_bytes" })?;
                page_bytes(size.strip_suffix(".rsvd").unwrap_or(size))
            })
            .collect();
        huge_pages.sort_unstable();
        huge_pages.dedup();
        Kernel { is_v2, swap: swap.exists(), huge_pages, shared: None }
    }

    /// How much of the swap a container gets: as much of it as it asks for of the memory. Only those of burstable pods get
    /// any, and only where more can be used than was asked for.
    fn swap_bytes(&self, pod: &Pod, container: &Container) -> i64 {
        let Some(shared) = self.shared.filter(|_| self.is_v2) else { return 0 };
        let of = |limits: bool| {
            let resources = container.resources.as_ref();
            let list = resources.and_then(|all| if limits { all.limits.as_ref() } else { all.requests.as_ref() });
            list.and_then(|list| list.get("memory")).map_or(0, |Quantity(text)| cgroups::bytes(text))
        };
        let (request, limit) = (of(false), of(true));
        if qos(pod) != Qos::Burstable || is_critical(pod) || request == limit || shared.memory == 0 {
            return 0;
        }
        let share = i128::from(request) * i128::from(shared.swap) / i128::from(shared.memory);
        i64::try_from(share).unwrap_or(i64::MAX)
    }
}

/// Adds the limits of a container.
#[must_use]
pub fn complete(
    mut resources: v1::LinuxContainerResources,
    (pod, container): (&Pod, &Container),
    kernel: &Kernel,
) -> v1::LinuxContainerResources {
    if kernel.is_v2 {
        // All of the container dies, not one process of it.
        resources.unified.insert("memory.oom.group".into(), "1".into());
    }
    match (kernel.swap, kernel.is_v2) {
        (false, _) => {}
        (true, true) => {
            resources.unified.insert("memory.swap.max".into(), kernel.swap_bytes(pod, container).to_string());
        }
        // Memory and swap together.
        (true, false) => resources.memory_swap_limit_in_bytes = resources.memory_limit_in_bytes,
    }
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    resources.hugepage_limits = kernel
        .huge_pages
        .iter()
        .map(|size| {
            let is_of = |name: &str| {
                name.strip_prefix("hugepages-")
                    .is_some_and(|text| cgroups::bytes(text) == i64::try_from(*size).unwrap_or(0))
            };
            let mut given = limits.into_iter().flatten().filter(|(name, _)| is_of(name));
            let limit = given.next().map_or(0, |(_, Quantity(text))| cgroups::bytes(text));
            // Nobody gets those that he did not ask for.
            v1::HugepageLimit { page_size: page_name(*size), limit: u64::try_from(limit).unwrap_or(0) }
        })
        .collect();
    resources
}

/// `2MB`, as the kernel's files name a size of huge pages.
fn page_name(bytes: u64) -> String {
    match bytes {
        bytes if bytes % (1 << 30) == 0 => format!("{}GB", bytes >> 30),
        bytes if bytes % (1 << 20) == 0 => format!("{}MB", bytes >> 20),
        bytes => format!("{}KB", bytes >> 10),
    }
}

fn page_bytes(name: &str) -> Option<u64> {
    let (number, shift) = [("GB", 30), ("MB", 20), ("KB", 10)]
        .iter()
        .find_map(|(unit, shift)| name.strip_suffix(unit).map(|number| (number, *shift)))?;
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limited(kernel: &Kernel) -> v1::LinuxContainerResources {
        let limits = json!({"memory": "64Mi", "hugepages-2Mi": "4Mi"});
        let container = serde_json::from_value(json!({"name": "c", "resources": {"limits": limits}})).expect("valid");
        let memory = v1::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
        complete(memory, (&Pod::default(), &container), kernel)
    }

    #[test]
    fn on_each_kind_of_machine() {
        let pages = vec![2 << 20, 1 << 30];
        let two = limited(&Kernel { is_v2: true, swap: true, huge_pages: pages.clone(), shared: None });
        assert_eq!(two.unified["memory.swap.max"], "0");
        assert_eq!(two.unified["memory.oom.group"], "1");
        assert_eq!(two.memory_swap_limit_in_bytes, 0);
        let one = limited(&Kernel { is_v2: false, swap: true, huge_pages: pages, shared: None });
        assert_eq!((one.memory_swap_limit_in_bytes, one.unified.len()), (64 << 20, 0));
        let show = |limit: &v1::HugepageLimit| format!("{}={}", limit.page_size, limit.limit);
        assert_eq!(one.hugepage_limits.iter().map(show).collect::<Vec<_>>(), ["2MB=4194304", "1GB=0"]);
        let bare = limited(&Kernel::default());
        assert_eq!((bare.memory_swap_limit_in_bytes, bare.hugepage_limits.len()), (0, 0));
    }

    #[test]
    fn what_a_machine_can_do() {
        let root = tempfile::tempdir().expect("temporary directory");
        let touch = |file: &str| {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, "").expect("written");
        };
        for file in ["hugetlb/hugetlb.2MB.limit_in_bytes", "hugetlb/hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb/other"] {
            touch(file);
        }
        let one = Kernel { is_v2: false, swap: false, huge_pages: vec![2 << 20], shared: None };
        assert_eq!(Kernel::read(root.path()), one);
        for file in ["cgroup.controllers", "kubepods/memory.swap.max", "kubepods/hugetlb.64KB.max"] {
            touch(file);
        }
        let two = Kernel { is_v2: true, swap: true, huge_pages: vec![64 << 10], shared: None };
        assert_eq!(Kernel::read(root.path()), two);
    }

    /// The numbers of `kuberuntime`'s own test of it.
    #[test]
    fn swap_goes_by_what_is_asked_for() {
        const GI: i64 = 1 << 30;
        let check = |pod: serde_json::Value, is_v2: bool, shared: Option<(i64, i64)>| {
            let pod: Pod = serde_json::from_value(json!({"spec": pod})).expect("valid");
            let shared = shared.map(|(memory, swap)| Shared { memory: memory * GI, swap: swap * GI });
            let kernel = Kernel { is_v2, swap: true, shared, ..Kernel::default() };
            let container = &crate::agent::pod::pod_spec(&pod).containers[0];
            complete(v1::LinuxContainerResources::default(), (&pod, container), &kernel)
        };
        let asks = |request: &str, limit: &str| {
            let mut resources = json!({"requests": {"memory": request}, "limits": {"memory": limit}});
            resources.as_object_mut().expect("a map").retain(|_, list| list["memory"] != "");
            json!({"containers": [{"name": "c", "resources": resources}]})
        };
        for (request, memory, swap, expect) in
            [("1Gi", 80, 4, "53687091"), ("2Gi", 40, 2, "107374182"), ("5Gi", 150, 40, "1431655765")]
        {
            let found = check(asks(request, ""), true, Some((memory, swap)));
            assert_eq!(found.unified["memory.swap.max"], expect);
        }
        let none = |pod, shared| check(pod, true, shared).unified["memory.swap.max"] == "0";
        assert!(none(asks("1Gi", ""), None), "NoSwap");
        assert!(none(asks("1Gi", "1Gi"), Some((8, 8))), "it could use no more anyway");
        assert!(none(json!({"containers": [{"name": "c"}]}), Some((8, 8))), "best effort");
        let mut critical = asks("1Gi", "");
        critical["priority"] = json!(2_000_001_000);
        assert!(none(critical, Some((8, 8))));
        let one = check(asks("1Gi", "2Gi"), false, Some((8, 8)));
        assert!(one.unified.is_empty(), "version 1 has no such limit");
    }
}
