//! Types: which CPUs containers may have for themselves, and how strictly what a container gets has to be near each other:
//! `cpu-manager-policy`, `topology-manager-policy` and what belongs to them.

use super::cpu_set::CpuSet;

/// More NUMA nodes than this are too many combinations of them.
const MOST_NODES: usize = 16;
/// As upstream has it, and where it begins to warn.
const USUAL_NODES: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// `cpu-manager-policy` is `static`: whole CPUs of Guaranteed pods are theirs alone.
    pub static_cpus: bool,
    /// `cpu-manager-policy-options`
    pub cpu_options: CpuOptions,
    /// `reserved-cpus`: never given away. Empty leaves it to the kubelet which ones.
    pub reserved: CpuSet,
    /// `topology-manager-policy`
    pub alignment: Alignment,
    /// `topology-manager-scope` is `pod`: all containers of a pod together.
    pub whole_pods: bool,
    /// `topology-manager-policy-options`
    pub alignment_options: AlignmentOptions,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// `full-pcpus-only`
    pub full_cores: bool,
    /// `distribute-cpus-across-numa`
    pub distribute: bool,
    /// `strict-cpu-reservation`: nobody runs on reserved CPUs.
    pub strict: bool,
    /// `prefer-align-cpus-by-uncorecache`
    pub by_cache: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alignment {
    #[default]
    None,
    BestEffort,
    Restricted,
    SingleNumaNode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlignmentOptions {
    /// `prefer-closest-numa-nodes`
    pub closest: bool,
    /// `max-allowable-numa-nodes`
    pub most_nodes: usize,
}

impl Default for AlignmentOptions {
    fn default() -> Self {
        AlignmentOptions { closest: false, most_nodes: USUAL_NODES }
    }
}

impl Alignment {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Alignment::None => "none",
            Alignment::BestEffort => "best-effort",
            Alignment::Restricted => "restricted",
            Alignment::SingleNumaNode => "single-numa-node",
        }
    }
}

/// # Errors
/// What the value may be.
pub(super) fn cpu_policy(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "static" => Ok(true),
        _ => Err("there are none and static".to_owned()),
    }
}

/// # Errors
/// What the value may be.
pub(super) fn alignment(text: &str) -> Result<Alignment, String> {
    let all = [Alignment::None, Alignment::BestEffort, Alignment::Restricted, Alignment::SingleNumaNode];
    let found = all.into_iter().find(|policy| policy.as_str() == text);
    found.ok_or_else(|| "there are none, best-effort, restricted and single-numa-node".to_owned())
}

/// # Errors
/// What the value may be.
pub(super) fn scope(text: &str) -> Result<bool, String> {
    match text {
        "container" => Ok(false),
        "pod" => Ok(true),
        _ => Err("there are container and pod".to_owned()),
    }
}

/// `full-pcpus-only=true,strict-cpu-reservation=true`
///
/// # Errors
/// Which option is unknown, is not to be had or goes with another one no more.
pub(super) fn cpu_options(text: &str) -> Result<CpuOptions, String> {
    let mut options = CpuOptions::default();
    for (name, value) in pairs(text)? {
        let place = match name {
            "full-pcpus-only" => &mut options.full_cores,
            "distribute-cpus-across-numa" => &mut options.distribute,
            "strict-cpu-reservation" => &mut options.strict,
            "prefer-align-cpus-by-uncorecache" => &mut options.by_cache,
            "align-by-socket" | "distribute-cpus-across-cores" => {
                return Err(format!(
                    "CPU Manager Policy Alpha-level Options not enabled, but option {name:?} provided"
                ));
            }
            _ => return Err(format!("unknown CPU Manager Policy option: {name:?}")),
        };
        *place = boolean(name, value)?;
    }
    if options.by_cache && options.distribute {
        let both = "prefer-align-cpus-by-uncorecache and distribute-cpus-across-numa";
        return Err(format!("static policy options {both} can not be used at the same time"));
    }
    Ok(options)
}

/// # Errors
/// Which option is unknown or out of range.
pub(super) fn alignment_options(text: &str) -> Result<AlignmentOptions, String> {
    let mut options = AlignmentOptions::default();
    for (name, value) in pairs(text)? {
        match name {
            "prefer-closest-numa-nodes" => options.closest = boolean(name, value)?,
            "max-allowable-numa-nodes" => {
                let number = value.parse().ok().filter(|number| (USUAL_NODES..=MOST_NODES).contains(number));
                options.most_nodes =
                    number.ok_or_else(|| format!("{name:?} is a number from {USUAL_NODES} to {MOST_NODES}"))?;
            }
            _ => return Err(format!("unknown Topology Manager Policy option: {name:?}")),
        }
    }
    Ok(options)
}

fn pairs(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').ok_or_else(|| format!("{part}: not option=value"))).collect()
}

fn boolean(name: &str, value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("bad value for option {name:?}: {value:?} is not true or false"))
}

/// What does not go together. `reserves` says that some CPU time is reserved.
pub(super) fn check(placement: &Placement, reserves: bool, problems: &mut Vec<String>) {
    let option = placement.cpu_options != CpuOptions::default();
    if option && !placement.static_cpus {
        problems.push("--kubelet-arg=cpu-manager-policy-options needs cpu-manager-policy=static".into());
    }
    if placement.static_cpus && !reserves {
        problems.push(
            "--kubelet-arg=cpu-manager-policy=static needs CPUs that are not given away: name them \
             (--kubelet-arg=reserved-cpus=0), or reserve CPU time (--kubelet-arg=system-reserved=cpu=500m)"
                .into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let strict = CpuOptions { full_cores: true, strict: true, ..CpuOptions::default() };
        assert_eq!(cpu_options("full-pcpus-only=true,strict-cpu-reservation=true"), Ok(strict));
        assert_eq!(cpu_options("full-pcpus-only=false"), Ok(CpuOptions::default()));
        for (text, expect) in [
            ("gold=true", "unknown CPU Manager Policy option: \"gold\""),
            (
                "align-by-socket=true",
                "CPU Manager Policy Alpha-level Options not enabled, but option \"align-by-socket\" provided",
            ),
            ("full-pcpus-only=1", "bad value for option \"full-pcpus-only\": \"1\" is not true or false"),
            ("full-pcpus-only", "full-pcpus-only: not option=value"),
            (
                "prefer-align-cpus-by-uncorecache=true,distribute-cpus-across-numa=true",
                "static policy options prefer-align-cpus-by-uncorecache and distribute-cpus-across-numa can not be \
                 used at the same time",
            ),
        ] {
            assert_eq!(cpu_options(text), Err(expect.to_owned()));
        }
        let far = AlignmentOptions { closest: true, most_nodes: 12 };
        assert_eq!(alignment_options("prefer-closest-numa-nodes=true,max-allowable-numa-nodes=12"), Ok(far));
        for text in ["max-allowable-numa-nodes=7", "max-allowable-numa-nodes=64", "gold=1"] {
            assert!(alignment_options(text).is_err(), "{text}");
        }
        assert_eq!(alignment("single-numa-node"), Ok(Alignment::SingleNumaNode));
        assert!(alignment("best").is_err() && scope("node").is_err() && cpu_policy("dynamic").is_err());
    }
}
