//! Decides: which plugins a profile has at which extension point, and their weights (upstream's `mergePlugins` and
//! `expandMultiPointPlugins`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::VERSION;
use super::fields::{Fields, Found};
use crate::api::field::{FieldError, Path};

/// Where plugins are asked, in the order in which upstream reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
    PostBind,
}

use Point::{Bind, Filter, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort, Reserve, Score};

/// With the field that it has.
const POINTS: [(Point, &str); 12] = [
    (PreEnqueue, "preEnqueue"),
    (QueueSort, "queueSort"),
    (PreFilter, "preFilter"),
    (Filter, "filter"),
    (PostFilter, "postFilter"),
    (PreScore, "preScore"),
    (Score, "score"),
    (Reserve, "reserve"),
    (Point::Permit, "permit"),
    (PreBind, "preBind"),
    (Bind, "bind"),
    (Point::PostBind, "postBind"),
];

pub const DEFAULT_BINDER: &str = "DefaultBinder";
pub const DEFAULT_PREEMPTION: &str = "DefaultPreemption";
pub const DYNAMIC_RESOURCES: &str = "DynamicResources";
pub const PRIORITY_SORT: &str = "PrioritySort";
pub const SCHEDULING_GATES: &str = "SchedulingGates";

/// Each plugin with its weight by default and where it can be asked, in the order of the default profile.
const PLUGINS: &[(&str, i64, &[Point])] = &[
    (SCHEDULING_GATES, 0, &[PreEnqueue]),
    (PRIORITY_SORT, 0, &[QueueSort]),
    ("NodeUnschedulable", 0, &[Filter]),
    ("NodeName", 0, &[Filter]),
    ("TaintToleration", 3, &[Filter, PreScore, Score]),
    ("NodeAffinity", 2, &[PreFilter, Filter, PreScore, Score]),
    ("NodePorts", 0, &[PreFilter, Filter]),
    ("NodeResourcesFit", 1, &[PreFilter, Filter, PreScore, Score]),
    ("VolumeRestrictions", 0, &[PreFilter, Filter]),
    ("NodeVolumeLimits", 0, &[PreFilter, Filter]),
    ("VolumeBinding", 0, &[PreFilter, Filter, PreScore, Score, Reserve, PreBind]),
    ("VolumeZone", 0, &[PreFilter, Filter]),
    ("PodTopologySpread", 2, &[PreFilter, Filter, PreScore, Score]),
    ("InterPodAffinity", 2, &[PreFilter, Filter, PreScore, Score]),
    (DYNAMIC_RESOURCES, 0, &[PreEnqueue, PreFilter, Filter, PostFilter, Score, Reserve, PreBind]),
    (DEFAULT_PREEMPTION, 0, &[PreEnqueue, PostFilter]),
    ("NodeResourcesBalancedAllocation", 1, &[PreScore, Score]),
    ("ImageLocality", 1, &[Score]),
    (DEFAULT_BINDER, 0, &[Bind]),
];

/// Plugins that upstream had once.
const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

/// The index of a plugin of that name.
fn find(name: &str) -> Option<usize> {
    PLUGINS.iter().position(|(n, ..)| *n == name)
}

#[must_use]
pub fn is_known(name: &str) -> bool {
    find(name).is_some()
}

/// The plugins of a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    /// In the order in which they are asked.
    at: BTreeMap<Point, Vec<&'static str>>,
    weights: BTreeMap<&'static str, i64>,
}

impl Default for Points {
    fn default() -> Self {
        expand(&defaults(), &BTreeMap::new())
    }
}

impl Points {
    #[must_use]
    pub fn at(&self, point: Point) -> &[&'static str] {
        self.at.get(&point).map_or(&[], Vec::as_slice)
    }

    /// Whether a plugin is asked at a point, which it is only after what it prepares for that at another.
    #[must_use]
    pub fn has(&self, plugin: &str, point: Point) -> bool {
        let prepares = match point {
            Filter => Some(PreFilter),
            Score => Some(PreScore),
            _ => None,
        };
        let able = |point: Point| find(plugin).is_some_and(|i| PLUGINS[i].2.contains(&point));
        let asked = |point: Point| self.at(point).contains(&plugin);
        asked(point) && prepares.is_none_or(|before| !able(before) || asked(before))
    }

    /// What a score of the plugin is multiplied with.
    #[must_use]
    pub fn weight(&self, plugin: &str) -> i64 {
        self.weights.get(plugin).copied().unwrap_or(1)
    }

    /// What every profile needs and this one has not, and how many it has.
    pub(super) fn incomplete(&self) -> Vec<(&'static str, String)> {
        let (sorts, binds) = (self.at(QueueSort).len(), self.at(Bind).len());
        let sort = (sorts != 1).then(|| ("only one queue sort plugin required", format!(", but got {sorts}")));
        let bind = (binds == 0).then(|| ("at least one bind plugin is needed", String::new()));
        sort.into_iter().chain(bind).collect()
    }
}

/// What one extension point, or all of them, is told.
#[derive(Default)]
struct Set {
    /// With their weights, 0 for none.
    enabled: Vec<(&'static str, i64)>,
    disabled: Vec<String>,
}

impl Set {
    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|d| d == name)
    }
}

fn defaults() -> Vec<(&'static str, i64)> {
    PLUGINS.iter().map(|(name, weight, _)| (*name, *weight)).collect()
}

#[must_use]
pub fn read(profile: &Path, value: Option<&Value>, found: &Found) -> Points {
    let Some(value) = value else { return Points::default() };
    let path = profile.child("plugins");
    let mut fields = Fields::new(&path, value, found);
    let mut sets: BTreeMap<Point, Set> = BTreeMap::new();
    for (point, field) in POINTS {
        if let Some(value) = fields.get(field) {
            sets.insert(point, set(profile, &path.child(field), value, Some(point), found));
        }
    }
    let multi = fields.get("multiPoint").map(|v| set(profile, &path.child("multiPoint"), v, None, found));
    fields.end();
    expand(&merge(&multi.unwrap_or_default(), profile, found), &sets)
}

fn set(profile: &Path, path: &Path, value: &Value, point: Option<Point>, found: &Found) -> Set {
    let mut fields = Fields::new(path, value, found);
    let mut set = Set::default();
    for (at, value) in fields.list("enabled") {
        let mut plugin = Fields::new(&at, value, found);
        let (name, weight) = (plugin.text("name").unwrap_or_default(), plugin.number("weight").unwrap_or(0));
        plugin.end();
        let interface = format!("{:?}Plugin", point.unwrap_or(PreFilter));
        let Some(index) = find(&name) else {
            if REMOVED.contains(&name.as_str()) {
                let why =
                    format!("was invalid in version {VERSION:?} (KubeSchedulerConfiguration is version {VERSION:?})");
                found.add(FieldError::invalid(&at, &name, &why));
            } else {
                found.say(format!("{profile}: {interface} {name:?} does not exist"));
            }
            continue;
        };
        let (name, _, points) = PLUGINS[index];
        if point.is_some_and(|point| !points.contains(&point)) {
            found.say(format!("{profile}: plugin {name:?} does not extend {interface} plugin"));
        } else if point.is_some() && set.enabled.iter().any(|(other, _)| *other == name) {
            found.say(format!("{profile}: plugin {name:?} already registered as {interface:?}"));
        } else {
            set.enabled.push((name, weight));
        }
    }
    for (at, value) in fields.list("disabled") {
        let mut plugin = Fields::new(&at, value, found);
        set.disabled.extend(plugin.text("name"));
        plugin.get("weight");
        plugin.end();
    }
    fields.end();
    set
}

/// The default plugins with what a profile says of all points: in their place where it says something of them.
fn merge(custom: &Set, profile: &Path, found: &Found) -> Vec<(&'static str, i64)> {
    let mut given = custom.enabled.clone();
    let mut merged: Vec<(&'static str, i64)> = Vec::new();
    if !custom.disables("*") {
        for (name, weight) in defaults().into_iter().filter(|(name, _)| !custom.disables(name)) {
            // The last of them, as upstream.
            let again = given.iter().rposition(|(n, _)| *n == name).map(|at| given.remove(at));
            merged.push(again.unwrap_or((name, weight)));
        }
    }
    for (name, weight) in given {
        match merged.iter().any(|(n, _)| *n == name) {
            true => {
                let point = find(name).and_then(|i| PLUGINS[i].2.first()).copied().unwrap_or(Filter);
                found.say(format!("{profile}: plugin {name:?} already registered as \"{point:?}Plugin\""));
            }
            false => merged.push((name, weight)),
        }
    }
    merged
}

fn expand(multi: &[(&'static str, i64)], sets: &BTreeMap<Point, Set>) -> Points {
    let none = Set::default();
    let mut at = BTreeMap::new();
    for (point, _) in POINTS {
        let set = sets.get(&point).unwrap_or(&none);
        let specific = || set.enabled.iter().map(|(name, _)| *name);
        let here = |name: &str| find(name).is_some_and(|i| PLUGINS[i].2.contains(&point));
        if set.disables("*") {
            at.insert(point, specific().collect());
            continue;
        }
        let of_all = |name: &'static str| here(name) && !set.disables(name) && multi.iter().any(|(n, _)| *n == name);
        // What the point says of plugins of all points comes first, then those, then what it adds.
        let mut order: Vec<&'static str> = specific().filter(|name| of_all(name)).collect();
        for (name, _) in multi {
            if of_all(name) && !order.contains(name) {
                order.push(name);
            }
        }
        for name in specific() {
            if !order.contains(&name) {
                order.push(name);
            }
        }
        at.insert(point, order);
    }
    let mut weights = BTreeMap::new();
    for (name, weight) in sets.get(&Score).map_or(&[][..], |set| &set.enabled).iter().chain(multi) {
        weights.entry(*name).or_insert(if *weight == 0 { 1 } else { *weight });
    }
    Points { at, weights }
}
