//! Decides and effects: where pods live in the control group tree, and their limits.
//!
//! ```text
//! kubepods/pod<uid>             Guaranteed
//! kubepods/burstable/pod<uid>   Burstable
//! kubepods/besteffort/pod<uid>  BestEffort
//! ```
//! The runtime makes the containers' groups below. Where the tree cannot be written (a container, a restricted
//! user), pods run without these limits and the log says so once.

mod exclusive;
mod oom;
mod pids;
pub mod reserved;
mod resize;
mod whole;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pod::{Role, containers, pod_spec, uid};
use crate::cri::v1;

const CPU_PERIOD_MICROSECONDS: i64 = 100_000;
const MIN_QUOTA_MICROSECONDS: i64 = 1000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Qos::Guaranteed => "/kubepods",
            Qos::Burstable => "/kubepods/burstable",
            Qos::BestEffort => "/kubepods/besteffort",
        }
    }
}

/// Requests and limits of a whole pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodResources {
    pub cpu_request_milli: i64,
    /// `None` when a container has no limit.
    pub cpu_limit_milli: Option<i64>,
    pub memory_limit_bytes: Option<i64>,
}

/// Which layout this machine has.
#[derive(Clone, Debug)]
enum Layout {
    /// One directory per controller.
    V1 {
        cpu: PathBuf,
        memory: PathBuf,
    },
    V2 {
        root: PathBuf,
    },
    /// Nothing that can be written.
    None,
}

pub struct Cgroups {
    layout: Layout,
    /// CPU requests of the pods that are here, for the groups' own shares.
    requests: Mutex<HashMap<String, (Qos, i64)>>,
    /// Whole CPUs of Guaranteed pods are theirs alone.
    exclusive_cpus: bool,
    /// Processes and threads that a pod may have.
    pids: Option<i64>,
}

impl Cgroups {
    /// Finds the layout and makes the groups of the classes.
    #[must_use]
    pub fn new(root: &Path) -> Cgroups {
        let layout = match detect(root) {
            Some(layout) => layout,
            None => {
                tracing::warn!(root = %root.display(), "control groups cannot be written: pods run without limits of their own");
                Layout::None
            }
        };
        let cgroups = Cgroups { layout, requests: Mutex::default(), exclusive_cpus: false, pids: None };
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            if let Err(error) = cgroups.make(qos.group()) {
                tracing::warn!(%error, group = qos.group(), "control group not made");
            }
        }
        cgroups
    }

    #[must_use]
    pub fn is_v2(&self) -> bool {
        matches!(self.layout, Layout::V2 { .. })
    }

    /// Where a controller's files of a group are: all in one directory in version 2.
    #[must_use]
    pub fn files(&self, controller: &str, group: &str) -> Option<PathBuf> {
        let below = group.trim_start_matches('/');
        match &self.layout {
            Layout::V1 { cpu, .. } => Some(cpu.parent()?.join(controller).join(below)),
            Layout::V2 { root } => Some(root.join(below)),
            Layout::None => None,
        }
    }

    /// The parent of the pod's containers; `None` leaves it to the runtime.
    #[must_use]
    pub fn parent(&self, pod: &Pod) -> Option<String> {
        let writable = !matches!(self.layout, Layout::None);
        writable.then(|| format!("{}/pod{}", qos(pod).group(), uid(pod)))
    }

    /// Makes the pod's group and sets its limits.
    pub fn apply(&self, pod: &Pod) {
        let Some(group) = self.parent(pod) else { return };
        let made = self.make(&group).and_then(|()| self.limit(&group, &self.resources(pod)));
        if let Err(error) = made.and_then(|()| self.limit_pids(&group)) {
            tracing::warn!(%error, group, "control group of the pod not set up");
        }
        self.count(pod);
    }

    /// Removes the pod's group; its containers are gone.
    pub fn remove(&self, pod: &Pod) {
        if let Some(group) = self.parent(pod) {
            self.remove_group(&group);
        }
        let requests = {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.remove(uid(pod));
            burstable_milli(&requests)
        };
        self.share(requests);
    }

    /// The uids of all pods that have a group, whoever made it.
    #[must_use]
    pub fn pods(&self) -> HashSet<String> {
        let classes = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort].map(Qos::group);
        let directories = classes.into_iter().flat_map(|group| self.directories(group));
        let entries = directories.flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten().flatten());
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_prefix("pod").map(str::to_owned)).collect()
    }

    /// For a pod that is not known any more: tries all classes.
    pub fn remove_by_uid(&self, pod_uid: &str) {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            self.remove_group(&format!("{}/pod{pod_uid}", qos.group()));
        }
    }

    fn remove_group(&self, group: &str) {
        for directory in self.directories(group) {
            remove_tree(&directory, 3);
        }
    }

    fn directories(&self, group: &str) -> Vec<PathBuf> {
        let below = group.trim_start_matches('/');
        match &self.layout {
            Layout::V1 { cpu, memory } => {
                // The runtime also makes groups in the other controllers' trees.
                let siblings = cpu.parent().and_then(|root| std::fs::read_dir(root).ok());
                let mut found: Vec<PathBuf> = siblings
                    .into_iter()
                    .flatten()
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path().join(below))
                    .collect();
                found.extend([cpu.join(below), memory.join(below)]);
                found
            }
            Layout::V2 { root } => vec![root.join(below)],
            Layout::None => Vec::new(),
        }
    }

    fn make(&self, group: &str) -> std::io::Result<()> {
        let below = group.trim_start_matches('/');
        match &self.layout {
            Layout::V1 { cpu, memory } => {
                std::fs::create_dir_all(cpu.join(below))?;
                std::fs::create_dir_all(memory.join(below))
            }
            Layout::V2 { root } => {
                let mut directory = root.clone();
                for part in Path::new(below) {
                    // Children get only what their parent passes on.
                    enable_controllers(&directory);
                    directory.push(part);
                    match std::fs::create_dir(&directory) {
                        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
                        _ => {}
                    }
                }
                enable_controllers(&directory);
                Ok(())
            }
            Layout::None => Ok(()),
        }
    }

    fn limit(&self, group: &str, resources: &PodResources) -> std::io::Result<()> {
        let below = group.trim_start_matches('/');
        let shares = shares(resources.cpu_request_milli);
        let quota = resources.cpu_limit_milli.map(quota);
        match &self.layout {
            Layout::V1 { cpu, memory } => {
                write(&cpu.join(below).join("cpu.shares"), shares.to_string())?;
                if let Some(quota) = quota {
                    write(&cpu.join(below).join("cpu.cfs_quota_us"), quota.to_string())?;
                }
                if let Some(limit) = resources.memory_limit_bytes {
                    write(&memory.join(below).join("memory.limit_in_bytes"), limit.to_string())?;
                }
                Ok(())
            }
            Layout::V2 { root } => {
                let group = root.join(below);
                write(&group.join("cpu.weight"), weight(shares).to_string())?;
                if let Some(quota) = quota {
                    write(&group.join("cpu.max"), format!("{quota} {CPU_PERIOD_MICROSECONDS}"))?;
                }
                if let Some(limit) = resources.memory_limit_bytes {
                    write(&group.join("memory.max"), limit.to_string())?;
                    // One process of a container dies, not a random one.
                    let _ = write(&group.join("memory.oom.group"), "0");
                }
                Ok(())
            }
            Layout::None => Ok(()),
        }
    }

    /// Burstable pods together weigh what they ask for; the rest get next to nothing under pressure.
    fn share(&self, burstable_milli: i64) {
        let groups = [(Qos::Burstable, shares(burstable_milli)), (Qos::BestEffort, MIN_SHARES)];
        for (qos, shares) in groups {
            let below = qos.group().trim_start_matches('/');
            let written = match &self.layout {
                Layout::V1 { cpu, .. } => std::fs::write(cpu.join(below).join("cpu.shares"), shares.to_string()),
                Layout::V2 { root } => std::fs::write(root.join(below).join("cpu.weight"), weight(shares).to_string()),
                Layout::None => Ok(()),
            };
            if let Err(error) = written {
                tracing::debug!(%error, group = below, "shares not set");
            }
        }
    }
}

fn write(file: &Path, text: impl AsRef<[u8]>) -> std::io::Result<()> {
    let named = |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", file.display()));
    std::fs::write(file, text).map_err(named)
}

fn burstable_milli(requests: &HashMap<String, (Qos, i64)>) -> i64 {
    requests.values().filter(|(qos, _)| *qos == Qos::Burstable).map(|(_, milli)| milli).sum()
}

fn detect(root: &Path) -> Option<Layout> {
    let layout = if root.join("cgroup.controllers").exists() {
        Layout::V2 { root: root.to_owned() }
    } else {
        let cpu = ["cpu", "cpu,cpuacct"].map(|name| root.join(name)).into_iter().find(|path| path.is_dir())?;
        Layout::V1 { cpu, memory: root.join("memory") }
    };
    let probe = match &layout {
        Layout::V1 { cpu, .. } => cpu.join("kubepods"),
        Layout::V2 { root } => root.join("kubepods"),
        Layout::None => return None,
    };
    std::fs::create_dir_all(probe).ok().map(|()| layout)
}

fn enable_controllers(directory: &Path) {
    // One at a time: a controller that is missing must not keep the others away.
    for controller in ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"] {
        let _ = std::fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn remove_tree(directory: &Path, depth: u32) {
    if depth > 0 {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path(), depth - 1);
            }
        }
    }
    let _ = std::fs::remove_dir(directory);
}

#[must_use]
pub fn qos(pod: &Pod) -> Qos {
    if let Some(class) = pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        match class {
            "Guaranteed" => return Qos::Guaranteed,
            "Burstable" => return Qos::Burstable,
            "BestEffort" => return Qos::BestEffort,
            _ => {}
        }
    }
    let (mut any, mut guaranteed) = (false, true);
    // What the pod as a whole asks for stands for all of its containers.
    let whole = pod_spec(pod).resources.as_ref();
    let each: Vec<Option<&ResourceRequirements>> = match whole.filter(|r| r.requests.is_some() || r.limits.is_some()) {
        Some(whole) => vec![Some(whole)],
        None => containers(pod).map(|(_, container)| container.resources.as_ref()).collect(),
    };
    for resources in each {
        for resource in ["cpu", "memory"] {
            let request = listed(resources, false, resource);
            let limit = listed(resources, true, resource);
            any |= request.or(limit).is_some_and(|value| value > 0);
            guaranteed &= limit.is_some_and(|limit| limit > 0 && request.unwrap_or(limit) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// Containers add up; one init container at a time runs beside the sidecars started before it.
#[must_use]
pub fn pod_resources(pod: &Pod) -> PodResources {
    let own = pod_spec(pod).resources.as_ref();
    let total = |limit: bool, resource: &str| -> Option<i64> {
        let list = own.and_then(|r| if limit { r.limits.as_ref() } else { r.requests.as_ref() });
        if let Some(Quantity(text)) = list.and_then(|list| list.get(resource)) {
            return Some(parse(resource, text));
        }
        let (mut apps, mut sidecars, mut peak) = (0, 0, 0);
        for (role, container) in containers(pod) {
            let value = match amount(container, limit, resource) {
                Some(value) => value,
                None if limit => return None,
                None => 0,
            };
            match role {
                Role::App => apps += value,
                Role::Sidecar => {
                    sidecars += value;
                    peak = peak.max(sidecars);
                }
                Role::Init => peak = peak.max(sidecars + value),
                Role::Ephemeral => {}
            }
        }
        Some((apps + sidecars).max(peak))
    };
    let overhead = |resource: &str| {
        let list = pod_spec(pod).overhead.as_ref();
        list.and_then(|list| list.get(resource)).map_or(0, |Quantity(text)| parse(resource, text))
    };
    PodResources {
        cpu_request_milli: total(false, "cpu").unwrap_or(0) + overhead("cpu"),
        cpu_limit_milli: total(true, "cpu").filter(|value| *value > 0).map(|value| value + overhead("cpu")),
        memory_limit_bytes: total(true, "memory").filter(|value| *value > 0).map(|value| value + overhead("memory")),
    }
}

/// A container's limits as the runtime takes them.
#[must_use]
pub fn container_resources(pod: &Pod, container: &Container, node_memory_bytes: i64) -> v1::LinuxContainerResources {
    // A container that names no limit may use all that the pod has.
    let whole = pod_spec(pod).resources.as_ref();
    let limit = |name: &str| amount(container, true, name).filter(|v| *v > 0).or_else(|| listed(whole, true, name));
    let cpu_limit = limit("cpu");
    let cpu = amount(container, false, "cpu").or(cpu_limit).unwrap_or(0);
    v1::LinuxContainerResources {
        cpu_period: if cpu_limit.is_some() { CPU_PERIOD_MICROSECONDS } else { 0 },
        cpu_quota: cpu_limit.map_or(0, quota),
        cpu_shares: shares(cpu),
        memory_limit_in_bytes: limit("memory").unwrap_or(0),
        oom_score_adj: oom::score(pod, container, node_memory_bytes),
        ..v1::LinuxContainerResources::default()
    }
}

fn amount(container: &Container, limit: bool, resource: &str) -> Option<i64> {
    listed(container.resources.as_ref(), limit, resource)
}

fn listed(resources: Option<&ResourceRequirements>, limit: bool, resource: &str) -> Option<i64> {
    let resources = resources?;
    let list = if limit { resources.limits.as_ref() } else { resources.requests.as_ref() };
    list?.get(resource).map(|Quantity(text)| parse(resource, text))
}

fn parse(resource: &str, text: &str) -> i64 {
    if resource == "cpu" { milli(text) } else { bytes(text) }
}

fn shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

fn quota(milli: i64) -> i64 {
    if milli <= 0 { 0 } else { (milli * CPU_PERIOD_MICROSECONDS / 1000).max(MIN_QUOTA_MICROSECONDS) }
}

/// Shares (2 to 262144) as a weight (1 to 10000), as runc does it from 1.3.2 on: what is usual stays so, 1024 being 100.
fn weight(shares: i64) -> i64 {
    if shares <= MIN_SHARES {
        return 1;
    }
    if shares >= MAX_SHARES {
        return 10_000;
    }
    #[allow(clippy::cast_precision_loss, reason = "at most 18 bits")]
    let log = (shares as f64).log2();
    #[allow(clippy::cast_possible_truncation, reason = "between 1 and 10000")]
    let weight = 10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as i64;
    weight
}

/// A quantity in thousandths, rounded up. Text that is none counts as zero: the API server checked it.
#[must_use]
pub fn milli(text: &str) -> i64 {
    crate::api::quantity::Quantity::parse(text).map_or(0, |quantity| quantity.milli())
}

/// A quantity in whole units, rounded up.
#[must_use]
pub fn bytes(text: &str) -> i64 {
    crate::api::quantity::Quantity::parse(text).map_or(0, |quantity| quantity.value())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(containers: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u1"}, "spec": {"containers": containers}})).expect("valid")
    }

    fn resources(requests: Value, limits: Value) -> Value {
        json!([{"name": "c", "resources": {"requests": requests, "limits": limits}}])
    }

    #[test]
    fn quantities() {
        for (text, expect) in [("100m", 100), ("1", 1000), ("0.1", 100), ("1.5", 1500), ("2k", 2_000_000)] {
            assert_eq!(milli(text), expect, "{text}");
        }
        for (text, expect) in [("64Mi", 64 << 20), ("1e3", 1000), ("1G", 1_000_000_000), ("128974848", 128_974_848)] {
            assert_eq!(bytes(text), expect, "{text}");
        }
        assert_eq!(bytes("1Ei"), 1 << 60);
        assert_eq!(bytes("100m"), 1);
    }

    #[test]
    fn classes() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos(&pod(resources(both.clone(), both.clone()))), Qos::Guaranteed);
        assert_eq!(qos(&pod(resources(json!({}), both.clone()))), Qos::Guaranteed);
        assert_eq!(qos(&pod(resources(json!({"cpu": "500m"}), both))), Qos::Burstable);
        assert_eq!(qos(&pod(resources(json!({"cpu": "1"}), json!({})))), Qos::Burstable);
        assert_eq!(qos(&pod(json!([{"name": "c"}]))), Qos::BestEffort);
    }

    #[test]
    fn container_limits() {
        let pod = pod(resources(json!({"cpu": "250m", "memory": "256Mi"}), json!({"cpu": "500m", "memory": "512Mi"})));
        let found = container_resources(&pod, &pod_spec(&pod).containers[0], 1 << 30);
        assert_eq!((found.cpu_shares, found.cpu_quota, found.cpu_period), (256, 50_000, 100_000));
        assert_eq!((found.memory_limit_in_bytes, found.oom_score_adj), (512 << 20, 750));
    }

    #[test]
    fn shares_as_weights() {
        for (shares, expect) in
            [(2, 1), (3, 2), (102, 17), (256, 35), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)]
        {
            assert_eq!(weight(shares), expect, "{shares}");
        }
    }

    #[test]
    fn a_version_2_tree() {
        let root = tempfile::tempdir().expect("temporary directory");
        std::fs::write(root.path().join("cgroup.controllers"), "cpu memory").expect("written");
        let cgroups = Cgroups::new(root.path());
        let both = json!({"cpu": "500m", "memory": "64Mi"});
        let pod = pod(resources(both.clone(), both));
        cgroups.apply(&pod);
        let read = |file: &str| std::fs::read_to_string(root.path().join("kubepods/podu1").join(file)).ok();
        assert_eq!(read("cpu.max").as_deref(), Some("50000 100000"));
        assert_eq!(read("memory.max").as_deref(), Some("67108864"));
        assert_eq!(cgroups.parent(&pod).as_deref(), Some("/kubepods/podu1"));
        std::fs::create_dir(root.path().join("kubepods/besteffort/podu2")).expect("made");
        assert_eq!(cgroups.pods(), HashSet::from(["u1".to_owned(), "u2".to_owned()]), "and not the classes");
    }
}
