//! Decides: which ReplicaSet is the new one, and the numbers that both strategies reckon with.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use crate::server::controllers::share::{Round, share};

pub const HASH_LABEL: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// A Deployment with the ReplicaSets that it owns.
pub struct Sets<'a> {
    pub deployment: &'a Deployment,
    pub spec: &'a DeploymentSpec,
    /// The oldest one of the Deployment's template.
    pub new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    pub old: Vec<Arc<ReplicaSet>>,
}

impl<'a> Sets<'a> {
    pub fn new(deployment: &'a Deployment, mut owned: Vec<Arc<ReplicaSet>>) -> Self {
        static NONE: std::sync::LazyLock<DeploymentSpec> = std::sync::LazyLock::new(DeploymentSpec::default);
        let spec = deployment.spec.as_ref().unwrap_or(&NONE);
        owned.sort_by(|a, b| {
            let key = |s: &ReplicaSet| (s.metadata.creation_timestamp.clone(), s.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        let same = |s: &ReplicaSet| {
            let template = s.spec.as_ref().and_then(|s| s.template.as_ref());
            template.is_some_and(|t| same_template(t, &spec.template))
        };
        let at = owned.iter().position(|s| same(s));
        let new = at.map(|i| owned.remove(i));
        Self { deployment, spec, new, old: owned }
    }

    /// Old ones, then the new one.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(self.new.as_ref())
    }

    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// Pods above the wanted number that a rolling update may run.
    pub fn max_surge(&self) -> i32 {
        if is_rolling(self.deployment) { fenceposts(self.spec).0 } else { 0 }
    }

    /// Pods that there may be at once.
    pub fn most(&self) -> i32 {
        self.replicas().saturating_add(self.max_surge())
    }

    /// Pods below the wanted number that a rolling update may leave.
    pub fn max_unavailable(&self) -> i32 {
        if !is_rolling(self.deployment) || self.replicas() == 0 {
            return 0;
        }
        fenceposts(self.spec).1.min(self.replicas())
    }
}

pub fn is_rolling(d: &Deployment) -> bool {
    let strategy = d.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// Surge rounds up, unavailability rounds down; both zero would never move, so then one pod may be unavailable.
fn fenceposts(spec: &DeploymentSpec) -> (i32, i32) {
    let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let replicas = spec.replicas.unwrap_or(1);
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).and_then(|v| share(v, replicas, Round::Up)).unwrap_or(0);
    let unavailable =
        rolling.and_then(|r| r.max_unavailable.as_ref()).and_then(|v| share(v, replicas, Round::Down)).unwrap_or(0);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// Of two that ask for as many as a number can say there are no more.
pub fn sum(counts: impl Iterator<Item = i32>) -> i32 {
    counts.fold(0, i32::saturating_add)
}

pub fn annotation<'a>(set: &'a ReplicaSet, key: &str) -> Option<&'a str> {
    set.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn revision(set: &ReplicaSet) -> i64 {
    annotation(set, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

pub fn set_name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// Equal but for the hash label, which ReplicaSets add.
fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    fn labels(t: &PodTemplateSpec) -> BTreeMap<&str, &str> {
        let labels = t.metadata.as_ref().and_then(|m| m.labels.as_ref());
        labels.into_iter().flatten().filter(|(k, _)| *k != HASH_LABEL).map(|(k, v)| (k.as_str(), v.as_str())).collect()
    }
    fn annotations(t: &PodTemplateSpec) -> Option<&BTreeMap<String, String>> {
        t.metadata.as_ref().and_then(|m| m.annotations.as_ref()).filter(|a| !a.is_empty())
    }
    labels(a) == labels(b) && annotations(a) == annotations(b) && a.spec == b.spec
}
