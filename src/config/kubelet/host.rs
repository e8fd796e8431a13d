//! Types: settings of a kubelet about the machine that pods are on: processes, swap, sysctls, users, what is kept for the
//! system itself, and its way down.

use std::path::Path;
use std::time::Duration;

use super::{Parsing, Set, at_least, number, set};

/// Ids that a pod with users of its own gets, unless it is told otherwise; other numbers are multiples of it.
const IDS_PER_POD: u32 = 65536;
const SWAP_IS_ON: &str =
    "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false";

/// What the rows of [`TABLE`] set. Defaults are the kubelet's, and k3s's for swap: it may be on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `pod-max-pids`: processes and threads of one pod; `None` is no limit but the node's.
    pub pod_pids: Option<i64>,
    /// `memorySwap.swapBehavior` is `LimitedSwap`: pods may swap a part that goes by what they ask for.
    pub limited_swap: bool,
    /// `allowed-unsafe-sysctls`: names, or beginnings of names that end with `*`.
    pub unsafe_sysctls: Vec<String>,
    pub system: Reserved,
    pub kube: Reserved,
    /// `userNamespaces.idsPerPod`
    pub ids_per_pod: u32,
    /// `shutdownGracePeriodByPodPriority`, lowest priority first: from which one on pods have how long.
    pub shutdown: Vec<(i32, Duration)>,
}

/// A group of what is reserved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// `system-reserved-cgroup`, `kube-reserved-cgroup`
    pub group: String,
    /// Whether it is held to what is reserved.
    pub enforced: Enforced,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforced {
    #[default]
    Not,
    /// Only what there is less of when others want it too: processor time.
    Compressible,
    All,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            pod_pids: None,
            limited_swap: false,
            unsafe_sysctls: Vec::new(),
            system: Reserved::default(),
            kube: Reserved::default(),
            ids_per_pod: IDS_PER_POD,
            shutdown: Vec::new(),
        }
    }
}

pub(super) const TABLE: &[(&str, Set)] = &[
    ("allowed-unsafe-sysctls", |p, v| set(&mut p.kubelet.host.unsafe_sysctls, patterns(v))),
    ("enforce-node-allocatable", enforce),
    ("fail-swap-on", |_, v| match v.parse() {
        Ok(true) if swap_is_on(&std::fs::read_to_string(Path::new("/proc/swaps")).unwrap_or_default()) => {
            Err(SWAP_IS_ON.to_owned())
        }
        Ok(_) => Ok(()),
        Err(_) => Err("not true or false".to_owned()),
    }),
    ("kube-reserved-cgroup", |p, v| set(&mut p.kubelet.host.kube.group, Ok(v.to_owned()))),
    // Upstream has the next two in its file only.
    ("memory-swap-behavior", |p, v| match v {
        "" | "NoSwap" => set(&mut p.kubelet.host.limited_swap, Ok(false)),
        "LimitedSwap" => set(&mut p.kubelet.host.limited_swap, Ok(true)),
        _ => Err(format!(
            "invalid configuration: memorySwap.swapBehavior {v:?} must be one of: \"\", \"LimitedSwap\" or \"NoSwap\""
        )),
    }),
    ("user-namespaces-ids-per-pod", |p, v| set(&mut p.kubelet.host.ids_per_pod, ids(v))),
    ("pod-max-pids", |p, v| {
        let limit = number(v).and_then(|n: i64| at_least(n, -1));
        set(&mut p.kubelet.host.pod_pids, limit.map(|n| (n > 0).then_some(n)))
    }),
    ("shutdown-grace-period-by-pod-priority", |p, v| set(&mut p.kubelet.host.shutdown, priorities(v))),
    ("system-reserved-cgroup", |p, v| set(&mut p.kubelet.host.system.group, Ok(v.to_owned()))),
];

fn swap_is_on(swaps: &str) -> bool {
    swaps.trim().lines().count() > 1
}

fn ids(text: &str) -> Result<u32, String> {
    let count: u32 = number(text)?;
    match count {
        0 => Err("invalid configuration: userNamespaces.idsPerPod must not be 0".to_owned()),
        count if count % IDS_PER_POD != 0 => {
            Err(format!("invalid configuration: userNamespaces.idsPerPod must be a multiple of {IDS_PER_POD}"))
        }
        count => Ok(count),
    }
}

/// `0=30s,100000=20s`: what the kubelet's file says by a list.
fn priorities(text: &str) -> Result<Vec<(i32, Duration)>, String> {
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (priority, time) = part.split_once('=').ok_or_else(|| format!("{part}: not priority=duration"))?;
        found.push((number(priority)?, crate::config::eviction::duration(time)?));
    }
    found.sort_unstable();
    if found.windows(2).any(|two| two[0].0 == two[1].0) {
        return Err("a priority is there twice".to_owned());
    }
    Ok(found)
}

fn patterns(text: &str) -> Result<Vec<String>, String> {
    let given = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    given.map(|pattern| pattern.replace('/', ".")).map(namespaced).collect()
}

/// Which of the pod's namespaces a sysctl, or all that begin so, are of (`component-helpers/node/util/sysctl`).
#[must_use]
pub fn namespace(name: &str) -> Option<&'static str> {
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    match name {
        "kernel.sem" => Some("ipc"),
        name if ipc.iter().any(|prefix| name.starts_with(prefix)) => Some("ipc"),
        name if name.starts_with("net.") => Some("net"),
        _ => None,
    }
}

fn namespaced(pattern: String) -> Result<String, String> {
    let (name, starred) = pattern.strip_suffix('*').map_or((pattern.as_str(), false), |name| (name, true));
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let mut parts = name.strip_suffix('.').filter(|_| starred).unwrap_or(name).split('.');
    if pattern.len() > 253 || !parts.all(|part| !part.is_empty() && part.chars().all(known)) {
        return Err(format!(
            "sysctl {pattern:?} is not a name of at most 253 characters, nor the beginning of one with *"
        ));
    }
    match (namespace(name), starred) {
        (Some(_), _) => Ok(pattern),
        (None, true) => Err(format!("the sysctls {pattern:?} are not known to be namespaced")),
        (None, false) => Err(format!("the sysctl {pattern:?} are not known to be namespaced")),
    }
}

/// What is wrong with it is told by [`check`], once the names of the groups are known too.
fn enforce(p: &mut Parsing, text: &str) -> Result<(), String> {
    p.enforce = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    Ok(())
}

const SYSTEM: [&str; 2] = ["system-reserved", "system-reserved-compressible"];
const KUBE: [&str; 2] = ["kube-reserved", "kube-reserved-compressible"];

/// What only all settings together say, in the kubelet's words.
pub(super) fn check(p: &mut Parsing, problems: &mut Vec<String>) {
    let flag = "enforceNodeAllocatable (--enforce-node-allocatable)";
    let mut problem = |text: String| problems.push(format!("--kubelet-arg: invalid configuration: {text}"));
    let has = |name: &str| p.enforce.iter().any(|given| given == name);
    let host = &mut p.kubelet.host;
    for (names, part, setting) in [
        (SYSTEM, &mut host.system, "systemReservedCgroup (--system-reserved-cgroup)"),
        (KUBE, &mut host.kube, "kubeReservedCgroup (--kube-reserved-cgroup)"),
    ] {
        let [all, compressible] = names;
        if has(all) && has(compressible) {
            problem(format!("both {all:?} and {compressible:?} cannot be specified together in {flag}"));
        }
        if (has(all) || has(compressible)) && part.group.is_empty() {
            problem(format!("{setting} must be specified when {all:?} or {compressible:?} included in {flag}"));
        }
        part.enforced = match (has(all), has(compressible)) {
            (true, _) => Enforced::All,
            (false, true) => Enforced::Compressible,
            (false, false) => Enforced::Not,
        };
    }
    for (index, name) in p.enforce.iter().enumerate() {
        if p.enforce[..index].contains(name) {
            problem(format!("duplicated enforcements {name:?} in {flag}"));
        } else if name == "none" && p.enforce.len() > 1 {
            problem(format!("{flag} may not contain additional enforcements when \"none\" is specified"));
        } else if !["pods", "none"].contains(&name.as_str()) && !SYSTEM.iter().chain(&KUBE).any(|known| known == name) {
            problem(format!(
                "option {name:?} specified for {flag}. Valid options are \"pods\", \"system-reserved\", \
                 \"system-reserved-compressible\", \"kube-reserved\", \"kube-reserved-compressible\" or \"none\""
            ));
        }
    }
    p.kubelet.enforce_pods = p.enforce.iter().any(|name| name == "pods");
    let by_two = !p.kubelet.shutdown_grace.is_zero() || !p.kubelet.shutdown_grace_critical.is_zero();
    if by_two && !p.kubelet.host.shutdown.is_empty() {
        problem("Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time".into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parsed;
    use super::*;

    #[test]
    fn what_users_set() {
        let (kubelet, _, problems) = parsed(&[
            "pod-max-pids=100",
            "memory-swap-behavior=LimitedSwap",
            "fail-swap-on=false",
            "allowed-unsafe-sysctls=net/core/somaxconn,kernel.msg*,net.*",
            "enforce-node-allocatable=pods,system-reserved,kube-reserved-compressible",
            "system-reserved-cgroup=/system.slice",
            "kube-reserved-cgroup=/skiff",
            "user-namespaces-ids-per-pod=131072",
            "shutdown-grace-period-by-pod-priority=100=20s,0=1m",
        ]);
        assert_eq!(problems, Vec::<String>::new());
        let reserved = |group: &str, enforced| Reserved { group: group.into(), enforced };
        let expect = Host {
            pod_pids: Some(100),
            limited_swap: true,
            unsafe_sysctls: ["net.core.somaxconn", "kernel.msg*", "net.*"].map(str::to_owned).into(),
            system: reserved("/system.slice", Enforced::All),
            kube: reserved("/skiff", Enforced::Compressible),
            ids_per_pod: 131_072,
            shutdown: vec![(0, Duration::from_secs(60)), (100, Duration::from_secs(20))],
        };
        assert_eq!(kubelet.host, expect);
        assert!(kubelet.enforce_pods);
        assert_eq!(parsed(&["pod-max-pids=-1"]).0.host, Host::default());
        assert!(!parsed(&["enforce-node-allocatable=none"]).0.enforce_pods);
    }

    #[test]
    fn what_makes_no_sense_is_said_in_the_kubelets_words() {
        let flag = "enforceNodeAllocatable (--enforce-node-allocatable)";
        let told = "--kubelet-arg: invalid configuration:";
        for (given, expect) in [
            (
                &["enforce-node-allocatable=system-reserved"][..],
                format!(
                    "{told} systemReservedCgroup (--system-reserved-cgroup) must be specified when \
                     \"system-reserved\" or \"system-reserved-compressible\" included in {flag}"
                ),
            ),
            (
                &["enforce-node-allocatable=kube-reserved,kube-reserved-compressible", "kube-reserved-cgroup=/a"],
                format!(
                    "{told} both \"kube-reserved\" and \"kube-reserved-compressible\" cannot be specified together \
                     in {flag}"
                ),
            ),
            (&["enforce-node-allocatable=pods,pods"], format!("{told} duplicated enforcements \"pods\" in {flag}")),
            (
                &["enforce-node-allocatable=pods,none"],
                format!("{told} {flag} may not contain additional enforcements when \"none\" is specified"),
            ),
            (
                &["shutdown-grace-period=1m", "shutdown-grace-period-by-pod-priority=0=1m"],
                format!(
                    "{told} Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same \
                     time"
                ),
            ),
            (
                &["allowed-unsafe-sysctls=kernel.panic"],
                "--kubelet-arg=allowed-unsafe-sysctls=kernel.panic: the sysctl \"kernel.panic\" are not known to be \
                 namespaced"
                    .to_owned(),
            ),
            (
                &["allowed-unsafe-sysctls=vm.*"],
                "--kubelet-arg=allowed-unsafe-sysctls=vm.*: the sysctls \"vm.*\" are not known to be namespaced"
                    .to_owned(),
            ),
            (
                &["user-namespaces-ids-per-pod=1000"],
                "--kubelet-arg=user-namespaces-ids-per-pod=1000: invalid configuration: userNamespaces.idsPerPod must \
                 be a multiple of 65536"
                    .to_owned(),
            ),
        ] {
            assert_eq!(parsed(given).2, [expect], "{given:?}");
        }
        assert_eq!(parsed(&["allowed-unsafe-sysctls=net..x,Net.x,net.*.x"]).2.len(), 1);
    }

    #[test]
    fn swap_is_on_when_the_kernel_lists_some() {
        assert!(!swap_is_on("Filename\tType\tSize\tUsed\tPriority\n"));
        assert!(!swap_is_on("\n"));
        assert!(swap_is_on("Filename\tType\n/dev/zram0 partition 1 0 100\n"));
    }
}
