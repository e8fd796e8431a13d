//! Types: the settings of a kubelet that users know, as `--kubelet-arg=name=value` gives them. One table; a row that is
//! not there is named as unknown, all of them at once.

mod file;
pub mod host;

use std::collections::BTreeMap;
use std::time::Duration;

use host::Host;

use super::cpu_set::CpuSet;
use super::eviction::{Threshold, Written, duration};
use super::placement::{self, Placement};
use super::source::Values;
use crate::api::quantity::Quantity;

/// What the rows of [`TABLE`] set. Defaults are the kubelet's.
#[derive(Clone, Debug, PartialEq)]
pub struct Kubelet {
    /// `eviction-hard`, `eviction-soft` and what belongs to them.
    pub thresholds: Vec<Threshold>,
    /// `eviction-pressure-transition-period`: a condition stays for this long.
    pub pressure_transition: Duration,
    /// `eviction-max-pod-grace-period`: what a soft threshold gives pods, in seconds.
    pub soft_grace_seconds: u32,
    pub image_gc: ImageGc,
    /// `container-log-max-size`, `container-log-max-files`.
    pub log_max_bytes: u64,
    pub log_max_files: usize,
    /// `system-reserved` and `kube-reserved`, by resource.
    pub system_reserved: BTreeMap<String, Quantity>,
    pub kube_reserved: BTreeMap<String, Quantity>,
    /// `enforce-node-allocatable` has `pods`: their common control group is limited.
    pub enforce_pods: bool,
    /// `pods-per-core`; 0 is no limit.
    pub pods_per_core: u32,
    /// `node-status-max-images`; `None` is all.
    pub max_images: Option<usize>,
    /// `node-status-report-frequency`: the status is told again after this.
    pub report: Duration,
    /// `node-lease-duration-seconds`.
    pub lease_seconds: i32,
    /// `serialize-image-pulls`, `max-parallel-image-pulls`; `None` is the default.
    pub parallel_pulls: Option<usize>,
    /// `shutdown-grace-period`, and of it for critical pods `shutdown-grace-period-critical-pods`.
    pub shutdown_grace: Duration,
    pub shutdown_grace_critical: Duration,
    /// `cpu-manager-policy`, `topology-manager-policy` and what belongs to them.
    pub placement: Placement,
    pub host: Host,
}

impl Kubelet {
    /// How long it takes at most to end all pods before the machine goes down.
    #[must_use]
    pub fn longest_shutdown(&self) -> Duration {
        match self.host.shutdown.is_empty() {
            true => self.shutdown_grace,
            false => self.host.shutdown.iter().map(|(_, grace)| *grace).sum(),
        }
    }
}

/// When images that nobody uses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageGc {
    /// Of the disk in use: from here on images are removed…
    pub high_percent: u32,
    /// …until it is only this much.
    pub low_percent: u32,
    /// Younger ones stay.
    pub min_age: Duration,
    /// Older ones go even when there is room; zero is never.
    pub max_age: Duration,
}

impl Default for Kubelet {
    fn default() -> Self {
        Self {
            thresholds: Written::default().thresholds(&mut Vec::new()),
            pressure_transition: Duration::from_secs(300),
            soft_grace_seconds: 0,
            image_gc: ImageGc {
                high_percent: 85,
                low_percent: 80,
                min_age: Duration::from_secs(120),
                max_age: Duration::ZERO,
            },
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            enforce_pods: true,
            pods_per_core: 0,
            max_images: Some(50),
            report: Duration::from_secs(300),
            lease_seconds: 40,
            parallel_pulls: None,
            shutdown_grace: Duration::ZERO,
            shutdown_grace_critical: Duration::ZERO,
            placement: Placement::default(),
            host: Host::default(),
        }
    }
}

/// Arguments that are settings of ours under the same or another name.
const ALIASES: [(&str, &str); 12] = [
    ("container-runtime-endpoint", "container-runtime-endpoint"),
    ("hostname-override", "node-name"),
    ("image-credential-provider-bin-dir", "image-credential-provider-bin-dir"),
    ("image-credential-provider-config", "image-credential-provider-config"),
    ("max-pods", "max-pods"),
    ("node-ip", "node-ip"),
    ("node-labels", "node-label"),
    ("pod-manifest-path", "pod-manifest-path"),
    ("port", "kubelet-port"),
    ("register-with-taints", "node-taint"),
    ("resolv-conf", "resolv-conf"),
    ("root-dir", "kubelet-dir"),
];

struct Parsing {
    kubelet: Kubelet,
    written: Written,
    serialize: Option<bool>,
    parallel: Option<usize>,
    /// `enforce-node-allocatable`
    enforce: Vec<String>,
}

type Set = fn(&mut Parsing, &str) -> Result<(), String>;

const TABLE: &[(&str, Set)] = &[
    ("container-log-max-files", |p, v| {
        // The one that is written, and one that was.
        set(&mut p.kubelet.log_max_files, number(v).and_then(|n: usize| at_least(n, 2)))
    }),
    ("container-log-max-size", |p, v| set(&mut p.kubelet.log_max_bytes, bytes(v))),
    ("cpu-manager-policy", |p, v| set(&mut p.kubelet.placement.static_cpus, placement::cpu_policy(v))),
    ("cpu-manager-policy-options", |p, v| set(&mut p.kubelet.placement.cpu_options, placement::cpu_options(v))),
    // There is no such period here: what changes is carried out at once.
    ("cpu-manager-reconcile-period", |_, v| duration(v).map(drop)),
    ("eviction-hard", |p, v| set(&mut p.written.hard, Ok(v.to_owned()))),
    ("eviction-max-pod-grace-period", |p, v| set(&mut p.kubelet.soft_grace_seconds, number(v))),
    ("eviction-minimum-reclaim", |p, v| set(&mut p.written.min_reclaim, Ok(v.to_owned()))),
    ("eviction-pressure-transition-period", |p, v| set(&mut p.kubelet.pressure_transition, duration(v))),
    ("eviction-soft", |p, v| set(&mut p.written.soft, Ok(v.to_owned()))),
    ("eviction-soft-grace-period", |p, v| set(&mut p.written.soft_grace, Ok(v.to_owned()))),
    ("image-gc-high-threshold", |p, v| set(&mut p.kubelet.image_gc.high_percent, percent(v))),
    ("image-gc-low-threshold", |p, v| set(&mut p.kubelet.image_gc.low_percent, percent(v))),
    ("image-maximum-gc-age", |p, v| set(&mut p.kubelet.image_gc.max_age, duration(v))),
    ("kube-reserved", |p, v| set(&mut p.kubelet.kube_reserved, resources(v))),
    ("max-parallel-image-pulls", |p, v| set(&mut p.parallel, number(v).and_then(|n| at_least(n, 1)).map(Some))),
    ("minimum-image-ttl-duration", |p, v| set(&mut p.kubelet.image_gc.min_age, duration(v))),
    ("node-lease-duration-seconds", |p, v| {
        set(&mut p.kubelet.lease_seconds, number(v).and_then(|n: i32| at_least(n, 1)))
    }),
    ("node-status-max-images", |p, v| match v {
        "-1" => set(&mut p.kubelet.max_images, Ok(None)),
        _ => set(&mut p.kubelet.max_images, number(v).map(Some)),
    }),
    ("node-status-report-frequency", |p, v| set(&mut p.kubelet.report, duration(v))),
    ("pods-per-core", |p, v| set(&mut p.kubelet.pods_per_core, number(v))),
    ("reserved-cpus", |p, v| set(&mut p.kubelet.placement.reserved, v.parse::<CpuSet>())),
    ("serialize-image-pulls", |p, v| {
        set(&mut p.serialize, v.parse().map(Some).map_err(|_| "not true or false".to_owned()))
    }),
    ("shutdown-grace-period", |p, v| set(&mut p.kubelet.shutdown_grace, duration(v))),
    ("shutdown-grace-period-critical-pods", |p, v| set(&mut p.kubelet.shutdown_grace_critical, duration(v))),
    ("system-reserved", |p, v| set(&mut p.kubelet.system_reserved, resources(v))),
    ("topology-manager-policy", |p, v| set(&mut p.kubelet.placement.alignment, placement::alignment(v))),
    ("topology-manager-policy-options", |p, v| {
        set(&mut p.kubelet.placement.alignment_options, placement::alignment_options(v))
    }),
    ("topology-manager-scope", |p, v| set(&mut p.kubelet.placement.whole_pods, placement::scope(v))),
];

/// Takes what `--kubelet-arg` gives, after what its files say. Arguments that are settings of ours are put among `values`.
pub(super) fn parse(given: &[String], values: &mut Values, problems: &mut Vec<String>) -> Kubelet {
    let mut parsing = Parsing {
        kubelet: Kubelet::default(),
        written: Written::default(),
        serialize: None,
        parallel: None,
        enforce: vec!["pods".to_owned()],
    };
    for argument in file::expand(given, problems) {
        let file::Argument { name, value, told_as } = argument;
        if let Some((_, setting)) = ALIASES.iter().find(|(known, _)| *known == name) {
            values.insert(setting, vec![value]);
            continue;
        }
        let row = TABLE.iter().chain(host::TABLE).find(|(known, _)| *known == name);
        let set =
            row.map_or_else(|| Err("not a setting of this kubelet".to_owned()), |(_, set)| set(&mut parsing, &value));
        if let Err(why) = set {
            problems.push(format!("{told_as}: {why}"));
        }
    }
    host::check(&mut parsing, problems);
    let Parsing { mut kubelet, written, serialize, parallel, .. } = parsing;
    kubelet.thresholds = written.thresholds(problems);
    let gc = kubelet.image_gc;
    if gc.low_percent >= gc.high_percent {
        let (low, high) = (gc.low_percent, gc.high_percent);
        problems
            .push(format!("--kubelet-arg=image-gc-low-threshold={low} must be below image-gc-high-threshold={high}"));
    }
    if kubelet.shutdown_grace_critical > kubelet.shutdown_grace {
        problems.push("--kubelet-arg=shutdown-grace-period-critical-pods is part of shutdown-grace-period".into());
    }
    reserve(&mut kubelet);
    let reserved = [&kubelet.system_reserved, &kubelet.kube_reserved].map(|list| list.get("cpu").copied());
    let reserves = reserved.into_iter().flatten().any(|amount| !amount.is_zero());
    placement::check(&kubelet.placement, reserves, problems);
    kubelet.parallel_pulls = match (serialize, parallel) {
        (Some(true), Some(many)) if many > 1 => {
            problems.push("--kubelet-arg=max-parallel-image-pulls needs serialize-image-pulls=false".into());
            None
        }
        (Some(true), _) => Some(1),
        (_, parallel) => parallel,
    };
    kubelet
}

/// CPUs that are named are what is reserved, whatever amounts are given besides (`cmd/kubelet/app/server.go`).
fn reserve(kubelet: &mut Kubelet) {
    let named = i64::try_from(kubelet.placement.reserved.len()).unwrap_or(0);
    if named > 0 {
        kubelet.kube_reserved.remove("cpu");
        kubelet.system_reserved.insert("cpu".to_owned(), Quantity::from_milli(named * 1000));
    }
}

fn set<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    value.map(|value| *place = value)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "not a number in range".to_owned())
}

fn at_least<T: PartialOrd + std::fmt::Display>(value: T, least: T) -> Result<T, String> {
    if value < least { Err(format!("must be at least {least}")) } else { Ok(value) }
}

fn percent(text: &str) -> Result<u32, String> {
    number(text).and_then(|n: u32| if n > 100 { Err("must be from 0 to 100".to_owned()) } else { Ok(n) })
}

fn bytes(text: &str) -> Result<u64, String> {
    let quantity = Quantity::parse(text).map_err(|error| error.to_string())?;
    u64::try_from(quantity.value()).ok().filter(|n| *n > 0).ok_or_else(|| "must be positive".to_owned())
}

/// `cpu=500m,memory=1Gi,ephemeral-storage=1Gi,pid=1000`
fn resources(text: &str) -> Result<BTreeMap<String, Quantity>, String> {
    let mut found = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, amount) = part.split_once('=').ok_or_else(|| format!("{part}: not resource=amount"))?;
        if !["cpu", "memory", "ephemeral-storage", "pid"].contains(&name) {
            return Err(format!("cannot reserve {name:?} resource"));
        }
        let quantity = Quantity::parse(amount).map_err(|error| format!("{part}: {error}"))?;
        if quantity.is_negative() {
            return Err(format!("resource quantity for {name:?} cannot be negative: {amount}"));
        }
        found.insert(name.to_owned(), quantity);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn parsed(given: &[&str]) -> (Kubelet, Values, Vec<String>) {
        let (mut values, mut problems) = (Values::new(), Vec::new());
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        let kubelet = parse(&given, &mut values, &mut problems);
        (kubelet, values, problems)
    }

    #[test]
    fn what_users_of_k3s_give() {
        let (kubelet, values, problems) = parsed(&[
            "max-pods=50",
            "eviction-hard=memory.available<200Mi,nodefs.available<1Gi",
            "--image-gc-high-threshold=90",
            "container-log-max-size=1Mi",
            "container-log-max-files=3",
            "system-reserved=cpu=500m,memory=256Mi",
            "serialize-image-pulls",
            "node-status-max-images=-1",
            "shutdown-grace-period=1m",
        ]);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(values["max-pods"], ["50"]);
        assert_eq!(kubelet.thresholds.len(), 3, "memory counts twice");
        assert_eq!((kubelet.image_gc.high_percent, kubelet.image_gc.low_percent), (90, 80));
        assert_eq!((kubelet.log_max_bytes, kubelet.log_max_files), (1 << 20, 3));
        assert_eq!(kubelet.system_reserved["cpu"].milli(), 500);
        assert_eq!((kubelet.parallel_pulls, kubelet.max_images), (Some(1), None));
        assert_eq!(kubelet.shutdown_grace, Duration::from_secs(60));
        assert_eq!(kubelet.longest_shutdown(), Duration::from_secs(60));
        assert_eq!(parsed(&[]).0, Kubelet::default());
    }

    #[test]
    fn named_cpus_are_what_is_reserved() {
        let given = ["reserved-cpus=0,4", "cpu-manager-policy=static", "kube-reserved=cpu=3,memory=1Gi"];
        let (kubelet, _, problems) = parsed(&given);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(kubelet.system_reserved["cpu"].milli(), 2000);
        assert_eq!(kubelet.kube_reserved.keys().collect::<Vec<_>>(), ["memory"]);
        assert_eq!(parsed(&["cpu-manager-policy=static", "system-reserved=cpu=100m"]).2, Vec::<String>::new());
        let problems = parsed(&["cpu-manager-policy=static"]).2;
        assert!(problems.len() == 1 && problems[0].contains("--kubelet-arg=reserved-cpus=0"), "{problems:?}");
        let problems = parsed(&["cpu-manager-policy-options=full-pcpus-only=true"]).2;
        assert_eq!(problems, ["--kubelet-arg=cpu-manager-policy-options needs cpu-manager-policy=static"]);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let problems = parsed(&[
            "unknown=1",
            "another",
            "image-gc-high-threshold=70",
            "container-log-max-files=1",
            "system-reserved=gold=3",
            "eviction-hard=nothing<1",
            "enforce-node-allocatable=system-reserved",
        ])
        .2;
        assert_eq!(problems.len(), 7, "{problems:#?}");
        assert_eq!(problems[0], "--kubelet-arg=unknown=1: not a setting of this kubelet");
    }
}
