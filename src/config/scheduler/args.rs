//! Decides: what is said to plugins (`pluginConfig`), with upstream's defaults and checks
//! (`pkg/scheduler/apis/config/validation/validation_pluginargs.go`).

use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeAffinity, NodeSelectorTerm, TopologySpreadConstraint};
use serde_json::Value;

use super::fields::{Fields, Found};
use super::plugins;
use crate::api::duration;
use crate::api::field::{FieldError, Path};
use crate::api::label;

/// Score of the best, in shapes.
const MAX_CUSTOM_SCORE: i64 = 10;
const MAX_WEIGHT: i64 = 100;

#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    pub fit: Fit,
    /// What `NodeResourcesBalancedAllocation` balances.
    pub balanced: Vec<String>,
    /// What spreads pods that say nothing of it; `None` for the constraints of the system.
    pub default_constraints: Option<Vec<TopologySpreadConstraint>>,
    pub hard_pod_affinity_weight: i64,
    pub ignore_preferred_terms_of_existing_pods: bool,
    pub added_affinity: NodeAffinity,
    /// How long volumes may take to be bound, and devices to be prepared.
    pub bind_timeout: Duration,
    pub binding_timeout: Duration,
    pub preemption: Preemption,
}

/// How many nodes are tried for victims: so many of a hundred, or so many if that is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preemption {
    pub percentage: usize,
    pub absolute: usize,
}

/// Of `NodeResourcesFit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Extended resources that somebody else sees to: by name, and by what stands before the slash.
    pub ignored: Vec<String>,
    pub ignored_groups: Vec<String>,
    pub strategy: Strategy,
    /// With their weights.
    pub resources: Vec<(String, i64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    LeastAllocated,
    MostAllocated,
    /// Points of a line: how much is used in percent, and the score for that, 0 to 10.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

fn cpu_and_memory() -> Vec<(String, i64)> {
    vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)]
}

impl Default for Fit {
    fn default() -> Self {
        let (ignored, ignored_groups) = (Vec::new(), Vec::new());
        Self { ignored, ignored_groups, strategy: Strategy::LeastAllocated, resources: cpu_and_memory() }
    }
}

impl Default for Args {
    fn default() -> Self {
        Self {
            fit: Fit::default(),
            balanced: cpu_and_memory().into_iter().map(|(name, _)| name).collect(),
            default_constraints: None,
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
            added_affinity: NodeAffinity::default(),
            bind_timeout: Duration::from_mins(10),
            binding_timeout: Duration::from_mins(10),
            preemption: Preemption { percentage: 10, absolute: 100 },
        }
    }
}

/// `entries`: the items of `pluginConfig`.
#[must_use]
pub fn read(entries: &[(Path, &Value)], found: &Found) -> Args {
    let mut args = Args::default();
    let mut seen: Vec<String> = Vec::new();
    for (path, entry) in entries {
        let mut fields = Fields::new(path, entry, found);
        let name = fields.text("name").unwrap_or_default();
        if seen.contains(&name) {
            found.add(FieldError::duplicate(path, &name));
        }
        let value = fields.get("args").unwrap_or(&Value::Null);
        fields.end();
        let path = path.child("args");
        let mut of = Fields::new(&path, value, found);
        let kind = of.text("kind").filter(|kind| *kind != format!("{name}Args"));
        let version = of.text("apiVersion").filter(|version| version != super::VERSION);
        if kind.is_some() || version.is_some() {
            found.add(FieldError::invalid(&path, value, "has to match plugin args"));
        }
        match name.as_str() {
            "NodeResourcesFit" => args.fit = fit(&mut of, &path, found),
            "NodeResourcesBalancedAllocation" => args.balanced = balanced(&mut of, &path, found),
            "PodTopologySpread" => args.default_constraints = spread(&mut of, &path, found),
            "InterPodAffinity" => inter_pod_affinity(&mut of, &path, &mut args, found),
            "NodeAffinity" => args.added_affinity = node_affinity(&mut of, &path, found),
            "VolumeBinding" => volume_binding(&mut of, &path, &mut args, found),
            "DynamicResources" => dynamic_resources(&mut of, &path, &mut args, found),
            "DefaultPreemption" => args.preemption = preemption(&mut of, &path, found),
            other if plugins::is_known(other) => {}
            other => found.say(format!("{path}: there is no plugin {other:?}")),
        }
        of.end();
        seen.push(name);
    }
    args
}

fn out_of(path: &Path, value: i64, range: std::ops::RangeInclusive<i64>, found: &Found) -> bool {
    let out = !range.contains(&value);
    if out {
        let detail = format!("not in valid range [{}, {}]", range.start(), range.end());
        found.add(FieldError::invalid(path, &value, &detail));
    }
    out
}

fn fit(fields: &mut Fields, path: &Path, found: &Found) -> Fit {
    let (ignored, ignored_groups) = (fields.texts("ignoredResources"), fields.texts("ignoredResourceGroups"));
    for (i, name) in ignored.iter().enumerate() {
        let at = path.child("ignoredResources").index(i);
        label::qualified_name(name).iter().for_each(|why| found.add(FieldError::invalid(&at, name, why)));
    }
    for (i, group) in ignored_groups.iter().enumerate() {
        let at = path.child("ignoredResourceGroups").index(i);
        if group.contains('/') {
            found.add(FieldError::invalid(&at, group, "resource group name can't contain '/'"));
        }
        label::qualified_name(group).iter().for_each(|why| found.add(FieldError::invalid(&at, group, why)));
    }
    let Some(value) = fields.get("scoringStrategy") else { return Fit { ignored, ignored_groups, ..Fit::default() } };
    let path = path.child("scoringStrategy");
    let mut fields = Fields::new(&path, value, found);
    let kind = fields.text("type").unwrap_or_default();
    let resources = resources(&mut fields, found);
    for (i, (name, weight)) in resources.iter().enumerate().filter(|(_, (_, w))| !(1..=MAX_WEIGHT).contains(w)) {
        let detail = format!("resource weight of {name} not in valid range (0, 100]");
        found.add(FieldError::invalid(&path.child("resources").index(i).child("weight"), weight, &detail));
    }
    let ratio = fields.get("requestedToCapacityRatio");
    let at = path.child("requestedToCapacityRatio");
    let strategy = match (kind.as_str(), ratio) {
        ("RequestedToCapacityRatio", None) => {
            found.add(FieldError::required(&at, "must be specified when type is RequestedToCapacityRatio"));
            Strategy::LeastAllocated
        }
        ("RequestedToCapacityRatio", Some(ratio)) => Strategy::RequestedToCapacityRatio(shape(&at, ratio, found)),
        (_, Some(_)) => {
            found.add(FieldError::forbidden(&at, "must be nil when type is not RequestedToCapacityRatio"));
            Strategy::LeastAllocated
        }
        ("MostAllocated", None) => Strategy::MostAllocated,
        ("LeastAllocated", None) => Strategy::LeastAllocated,
        (other, None) => {
            let all = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
            found.add(FieldError::not_supported(&path.child("type"), &other, &all));
            Strategy::LeastAllocated
        }
    };
    fields.end();
    Fit { ignored, ignored_groups, strategy, resources }
}

/// With their weights; CPU and memory where none is named.
fn resources(fields: &mut Fields, found: &Found) -> Vec<(String, i64)> {
    let one = |(at, value): (Path, &Value)| {
        let mut of = Fields::new(&at, value, found);
        let (name, weight) = (of.text("name").unwrap_or_default(), of.number("weight").filter(|w| *w != 0));
        of.end();
        (name, weight.unwrap_or(1))
    };
    let named: Vec<(String, i64)> = fields.list("resources").into_iter().map(one).collect();
    if named.is_empty() { cpu_and_memory() } else { named }
}

fn shape(path: &Path, value: &Value, found: &Found) -> Vec<(i64, i64)> {
    let mut fields = Fields::new(path, value, found);
    let at = path.child("shape");
    let point = |(at, value): (Path, &Value)| {
        let mut of = Fields::new(&at, value, found);
        let point = (of.number("utilization").unwrap_or(0), of.number("score").unwrap_or(0));
        of.end();
        point
    };
    let points: Vec<(i64, i64)> = fields.list("shape").into_iter().map(point).collect();
    fields.end();
    if points.is_empty() {
        found.add(FieldError::required(&at, "at least one point must be specified"));
    }
    if let Some(i) = points.windows(2).position(|two| two[0].0 >= two[1].0) {
        let at = at.index(i + 1).child("utilization");
        found.add(FieldError::invalid(&at, &points[i + 1].0, "values must be sorted in increasing order"));
    }
    for (i, (utilization, score)) in points.iter().enumerate() {
        out_of(&at.index(i).child("utilization"), *utilization, 0..=100, found);
        out_of(&at.index(i).child("score"), *score, 0..=MAX_CUSTOM_SCORE, found);
    }
    points
}

fn balanced(fields: &mut Fields, path: &Path, found: &Found) -> Vec<String> {
    let resources = resources(fields, found);
    let path = path.child("resources");
    for (i, (name, weight)) in resources.iter().enumerate() {
        if resources[..i].iter().any(|(other, _)| other == name) {
            found.add(FieldError::duplicate(&path.index(i).child("name"), name));
        }
        if *weight != 1 {
            found.add(FieldError::invalid(&path.index(i).child("weight"), weight, "must be 1"));
        }
    }
    resources.into_iter().map(|(name, _)| name).collect()
}

fn spread(fields: &mut Fields, path: &Path, found: &Found) -> Option<Vec<TopologySpreadConstraint>> {
    let constraints: Vec<TopologySpreadConstraint> = fields.typed("defaultConstraints").unwrap_or_default();
    let kind = fields.text("defaultingType").unwrap_or_else(|| "System".to_owned());
    let at = path.child("defaultingType");
    match kind.as_str() {
        "List" => {}
        "System" if constraints.is_empty() => {}
        "System" => found.add(FieldError::invalid(&at, &kind, "when .defaultConstraints are not empty")),
        _ => found.add(FieldError::not_supported(&at, &kind, &["System", "List"])),
    }
    let path = path.child("defaultConstraints");
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.index(i);
        if constraint.max_skew <= 0 {
            found.add(FieldError::invalid(&at.child("maxSkew"), &constraint.max_skew, "not in valid range (0, inf)"));
        }
        let (key, key_at) = (&constraint.topology_key, at.child("topologyKey"));
        if key.is_empty() {
            found.add(FieldError::required(&key_at, "can not be empty"));
        } else {
            label::qualified_name(key).iter().for_each(|why| found.add(FieldError::invalid(&key_at, key, why)));
        }
        let (when, when_at) = (&constraint.when_unsatisfiable, at.child("whenUnsatisfiable"));
        match when.as_str() {
            "" => found.add(FieldError::required(&when_at, "can not be empty")),
            "DoNotSchedule" | "ScheduleAnyway" => {}
            _ => found.add(FieldError::not_supported(&when_at, when, &["DoNotSchedule", "ScheduleAnyway"])),
        }
        if constraint.label_selector.is_some() {
            let detail = "constraint must not define a selector, as they deduced for each pod";
            found.add(FieldError::forbidden(&at.child("labelSelector"), detail));
        }
        let same = |o: &TopologySpreadConstraint| (&o.topology_key, &o.when_unsatisfiable) == (key, when);
        if constraints[..i].iter().any(same) {
            found.add(FieldError::duplicate(&at, &format!("{{{key}, {when}}}")));
        }
    }
    (kind == "List").then_some(constraints)
}

fn inter_pod_affinity(fields: &mut Fields, path: &Path, args: &mut Args, found: &Found) {
    if let Some(weight) = fields.number("hardPodAffinityWeight") {
        out_of(&path.child("hardPodAffinityWeight"), weight, 0..=100, found);
        args.hard_pod_affinity_weight = weight;
    }
    args.ignore_preferred_terms_of_existing_pods =
        fields.flag("ignorePreferredTermsOfExistingPods").unwrap_or_default();
}

fn node_affinity(fields: &mut Fields, path: &Path, found: &Found) -> NodeAffinity {
    let affinity: NodeAffinity = fields.typed("addedAffinity").unwrap_or_default();
    let path = path.child("addedAffinity");
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref();
    let at = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    for (i, one) in required.into_iter().flat_map(|r| &r.node_selector_terms).enumerate() {
        term(&at.index(i), one, found);
    }
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    let at = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (i, one) in preferred.enumerate() {
        term(&at.index(i), &one.preference, found);
    }
    affinity
}

fn term(path: &Path, term: &NodeSelectorTerm, found: &Found) {
    let lists = [("matchExpressions", &term.match_expressions), ("matchFields", &term.match_fields)];
    for (name, list) in lists {
        for (i, r) in list.iter().flatten().enumerate() {
            let at = path.child(name).index(i);
            let values = r.values.as_deref().unwrap_or_default();
            let one_number = || values.len() == 1 && values[0].parse::<i64>().is_ok();
            let fine = match r.operator.as_str() {
                "In" | "NotIn" => !values.is_empty(),
                "Exists" | "DoesNotExist" => values.is_empty(),
                "Gt" | "Lt" => one_number(),
                other => {
                    found.add(FieldError::not_supported(
                        &at.child("operator"),
                        &other,
                        &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"],
                    ));
                    continue;
                }
            };
            if !fine {
                let detail = format!("does not go with operator {:?}", r.operator);
                found.add(FieldError::invalid(&at.child("values"), &serde_json::json!(values), &detail));
            }
            let key = at.child("key");
            label::qualified_name(&r.key).iter().for_each(|why| found.add(FieldError::invalid(&key, &r.key, why)));
        }
    }
}

fn volume_binding(fields: &mut Fields, path: &Path, args: &mut Args, found: &Found) {
    if let Some(seconds) = fields.number("bindTimeoutSeconds") {
        match u64::try_from(seconds) {
            Ok(seconds) => args.bind_timeout = Duration::from_secs(seconds),
            Err(_) => {
                let detail = "invalid BindTimeoutSeconds, should not be a negative value";
                found.add(FieldError::invalid(&path.child("bindTimeoutSeconds"), &seconds, detail));
            }
        }
    }
    if let Some(shape) = fields.get("shape") {
        let detail = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring";
        found.add(FieldError::invalid(&path.child("shape"), shape, detail));
    }
}

fn dynamic_resources(fields: &mut Fields, path: &Path, args: &mut Args, found: &Found) {
    let mut time = |name: &'static str, least: i64, detail: &str| {
        let text = fields.text(name)?;
        let nanos = duration::parse(&text);
        match nanos.as_ref().ok().filter(|n| **n >= least).and_then(|n| u64::try_from(*n).ok()) {
            Some(nanos) => Some(Duration::from_nanos(nanos)),
            None => {
                let detail = nanos.err().unwrap_or_else(|| detail.to_owned());
                found.add(FieldError::invalid(&path.child(name), &text, &detail));
                None
            }
        }
    };
    // Devices are found in a bounded number of steps instead.
    time("filterTimeout", 0, "must be zero or positive");
    if let Some(timeout) = time("bindingTimeout", 1_000_000_000, "must be at least 1 second") {
        args.binding_timeout = timeout;
    }
}

fn preemption(fields: &mut Fields, path: &Path, found: &Found) -> Preemption {
    let (percent, absolute) = ("minCandidateNodesPercentage", "minCandidateNodesAbsolute");
    let (p, a) = (fields.number(percent).unwrap_or(10), fields.number(absolute).unwrap_or(100));
    out_of(&path.child(percent), p, 0..=100, found);
    if a < 0 {
        found.add(FieldError::invalid(&path.child(absolute), &a, "not in valid range [0, inf)"));
    }
    if p == 0 && a == 0 {
        for (one, other) in [(percent, absolute), (absolute, percent)] {
            let detail = format!("cannot be zero at the same time as {other}");
            found.add(FieldError::invalid(&path.child(one), &0_i64, &detail));
        }
    }
    Preemption { percentage: usize::try_from(p).unwrap_or(0), absolute: usize::try_from(a).unwrap_or(0) }
}
