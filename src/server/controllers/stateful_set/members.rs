//! Decides: which members of a StatefulSet are made, which go, and in what order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use serde_json::{Value, json};

use super::{Observed, PodControl, REVISION_LABEL, claims, pods, revisions};
use crate::client::request::Request;
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Action, Plan, Report, Write};
use crate::server::controllers::share::{Round, share};
use crate::server::controllers::stores::row;

/// Pods made or removed in one plan (upstream's `MaxBatchSize`).
const BATCH: usize = 500;
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The ordinal of a pod with that name; `None` when it is not named as a member of the set.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let plain = digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()));
    digits.parse().ok().filter(|_| plain)
}

pub fn revision(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(REVISION_LABEL).map(String::as_str)
}

/// The pods of a set by their place in it.
pub struct Members<'a> {
    pub set: &'a StatefulSet,
    pub spec: &'a StatefulSetSpec,
    pub current: &'a ControllerRevision,
    pub update: &'a ControllerRevision,
    /// Those within the ordinals that the set asks for.
    pub replicas: BTreeMap<i32, &'a Arc<Pod>>,
    /// Those beyond them.
    pub condemned: BTreeMap<i32, &'a Arc<Pod>>,
    observed: &'a Observed,
    control: PodControl<'a>,
    now: Timestamp,
}

impl<'a> Members<'a> {
    pub fn new(
        observed: &'a Observed,
        control: PodControl<'a>,
        owned: &[&'a Arc<Pod>],
        current: &'a ControllerRevision,
        update: &'a ControllerRevision,
        now: Timestamp,
    ) -> Self {
        static NONE: std::sync::LazyLock<StatefulSetSpec> = std::sync::LazyLock::new(StatefulSetSpec::default);
        let set = &*observed.set;
        let spec = set.spec.as_ref().unwrap_or(&NONE);
        let by_ordinal = owned.iter().filter_map(|p| Some((ordinal(set.metadata.name(), p.metadata.name())?, *p)));
        let range = start(spec)..start(spec).saturating_add(wanted(spec));
        let (replicas, condemned) = by_ordinal.partition(|(ordinal, _)| range.contains(ordinal));
        Self { set, spec, current, update, replicas, condemned, observed, control, now }
    }

    /// Running and ready for `minReadySeconds`.
    pub fn is_available(&self, pod: &Pod) -> bool {
        self.available_in(pod).is_some_and(|wait| wait.is_zero())
    }

    pub fn available_in(&self, pod: &Pod) -> Option<Duration> {
        let running = pods::phase(pod) == "Running";
        pods::available_in(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now).filter(|_| running)
    }

    /// Gone, not available, or on its way out.
    fn is_unavailable(&self, pod: &Pod) -> bool {
        !self.is_available(pod) || pod.metadata.deletion_timestamp.is_some()
    }

    pub fn plan(&self, plan: &mut Plan) {
        if self.is_ordered() {
            let _ = self.ordered(plan);
        } else {
            self.parallel(plan);
        }
    }

    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    /// One step. `None` when that is all that can be done now.
    fn ordered(&self, plan: &mut Plan) -> Option<()> {
        for ordinal in self.ordinals() {
            let Some(pod) = self.replicas.get(&ordinal) else {
                plan.actions.extend(self.create(&[ordinal]));
                return None;
            };
            self.keep(ordinal, pod, plan)?;
            if self.is_unavailable(pod) {
                return None;
            }
        }
        for (ordinal, pod) in &self.condemned {
            plan.actions.extend(claims::fix(self.observed, &self.control, *ordinal, pod));
        }
        let first_unavailable = self.condemned.values().find(|p| self.is_unavailable(p));
        if let Some(last) = self.condemned.values().next_back() {
            // It may be what holds up everything; otherwise whoever is lower comes first to be healthy.
            let may_go = self.is_available(last) || first_unavailable.is_some_and(|p| Arc::ptr_eq(p, last));
            if last.metadata.deletion_timestamp.is_none() && may_go {
                plan.push(self.delete(last));
            }
            return None;
        }
        self.update(plan);
        Some(())
    }

    fn parallel(&self, plan: &mut Plan) {
        let mut missing = Vec::new();
        for ordinal in self.ordinals() {
            match self.replicas.get(&ordinal) {
                Some(pod) => {
                    let _ = self.keep(ordinal, pod, plan);
                }
                None if missing.len() < BATCH => missing.push(ordinal),
                None => break,
            }
        }
        for (ordinal, pod) in &self.condemned {
            plan.actions.extend(claims::fix(self.observed, &self.control, *ordinal, pod));
        }
        plan.actions.extend(self.create(&missing));
        let alive = self.condemned.values().rev().filter(|p| p.metadata.deletion_timestamp.is_none());
        let going: Vec<Write> = alive.take(BATCH).map(|p| self.delete(p)).collect();
        if !going.is_empty() {
            plan.push(Action::SlowStart(going));
        }
        self.update(plan);
    }

    fn ordinals(&self) -> impl Iterator<Item = i32> + use<> {
        let start = start(self.spec);
        start..start.saturating_add(wanted(self.spec))
    }

    /// A pod that has ended makes room for the next of its name, and claims that are missing are made. `None` when
    /// nothing further may happen before.
    fn keep(&self, ordinal: i32, pod: &Pod, plan: &mut Plan) -> Option<()> {
        if pods::is_terminal(pod) {
            if pod.metadata.deletion_timestamp.is_none() {
                plan.push(self.delete(pod));
            }
            return None;
        }
        if pods::phase(pod) == "Pending" {
            let missing = claims::missing(self.observed, &self.control, ordinal);
            plan.actions.extend(missing.into_iter().flatten().map(Action::from));
        }
        plan.actions.extend(claims::fix(self.observed, &self.control, ordinal, pod));
        Some(())
    }

    /// Makes the members of these ordinals, each after its claims.
    fn create(&self, ordinals: &[i32]) -> Vec<Action> {
        let (mut of_claims, mut of_pods) = (Vec::new(), Vec::new());
        for ordinal in ordinals {
            // A claim that is being deleted, or that is the last pod's, is in the way; its end brings us back.
            let Some(missing) = claims::missing(self.observed, &self.control, *ordinal) else { continue };
            of_claims.extend(missing);
            of_pods.extend(self.create_one(*ordinal));
        }
        let some = |writes: &Vec<Write>| !writes.is_empty();
        [of_claims, of_pods].into_iter().filter(some).map(Action::SlowStart).collect()
    }

    fn create_one(&self, ordinal: i32) -> Option<Write> {
        let revision = if self.is_of_current(ordinal) { self.current } else { self.update };
        let pod = self.pod(ordinal, &revisions::template(revision)?, revision.metadata.name());
        let (set, name) = (self.set.metadata.name(), self.pod_name(ordinal));
        let request = Request::create(row("pods"), self.set.metadata.namespace(), pod);
        Some(Write::new(request).reported(Report {
            ok: Some(("SuccessfulCreate", format!("create Pod {name} in StatefulSet {set} successful"))),
            failed: Some(("FailedCreate", format!("create Pod {name} in StatefulSet {set} failed error: {{error}}"))),
            ..self.control.report()
        }))
    }

    /// A member below the partition, or that a roll-out has not reached, comes back as it was.
    fn is_of_current(&self, ordinal: i32) -> bool {
        if is_on_delete(self.spec) {
            return false;
        }
        let first = start(self.spec);
        match self.rolling() {
            Some(rolling) => ordinal < first.saturating_add(rolling.partition.unwrap_or(0)),
            None => {
                let still = self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0);
                ordinal < first.saturating_add(still)
            }
        }
    }

    fn pod_name(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.set.metadata.name())
    }

    fn pod(&self, ordinal: i32, template: &PodTemplateSpec, revision: &str) -> Value {
        let name = self.pod_name(ordinal);
        let mut pod = self.control.pod(template);
        let meta = &mut pod["metadata"];
        meta["generateName"] = Value::Null;
        meta["name"] = name.as_str().into();
        for (label, value) in
            [(REVISION_LABEL, revision), (NAME_LABEL, name.as_str()), (INDEX_LABEL, &ordinal.to_string())]
        {
            meta["labels"][label] = value.into();
        }
        pod["spec"]["hostname"] = name.as_str().into();
        pod["spec"]["subdomain"] = self.spec.service_name.as_deref().unwrap_or_default().into();
        let volumes = claims::volumes(self.set, self.spec, ordinal);
        if !volumes.is_empty() {
            let replaced = |v: &Value| volumes.iter().any(|of_claim| of_claim["name"] == v["name"]);
            let others = pod["spec"]["volumes"].take();
            let others = others.as_array().into_iter().flatten().filter(|v| !replaced(v)).cloned();
            pod["spec"]["volumes"] = json!(volumes.iter().cloned().chain(others).collect::<Vec<_>>());
        }
        pod
    }

    fn delete(&self, pod: &Pod) -> Write {
        let (set, meta) = (self.set.metadata.name(), &pod.metadata);
        let name = meta.name();
        Write::delete(Request::delete(row("pods"), meta.namespace(), name, meta.uid())).reported(Report {
            ok: Some(("SuccessfulDelete", format!("delete Pod {name} in StatefulSet {set} successful"))),
            failed: Some(("FailedDelete", format!("delete Pod {name} in StatefulSet {set} failed error: {{error}}"))),
            ..self.control.report()
        })
    }

    /// Outdated members go, highest first, as many as may be unavailable at once.
    fn update(&self, plan: &mut Plan) {
        if is_on_delete(self.spec) {
            return;
        }
        let rolling = self.rolling();
        let limit = rolling.and_then(|r| r.max_unavailable.as_ref());
        let limit = limit.and_then(|m| share(m, wanted(self.spec), Round::Down)).unwrap_or(1);
        let limit = usize::try_from(limit).unwrap_or(0).max(1);
        let lowest = start(self.spec).saturating_add(rolling.and_then(|r| r.partition).unwrap_or(0));
        let outdated = |pod: &Pod| revision(pod) != Some(self.update.metadata.name());
        let ends = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        let absent = usize::try_from(wanted(self.spec)).unwrap_or(0).saturating_sub(self.replicas.len());
        let down = self.replicas.values().filter(|p| self.is_unavailable(p));
        let mut unavailable = absent + down.clone().count();
        // What is down already loses nothing by going; but it goes in its turn.
        let coming = absent + down.filter(|p| ends(p) || !outdated(p)).count();
        let mut going = Vec::new();
        let due = self.replicas.range(lowest..).rev().map(|(_, p)| *p).filter(|p| outdated(p) && !ends(p));
        for pod in due.take(limit.saturating_sub(coming).min(BATCH)) {
            if !self.is_unavailable(pod) {
                if unavailable >= limit {
                    break;
                }
                unavailable += 1;
            }
            going.push(self.delete(pod));
        }
        if !going.is_empty() {
            plan.push(Action::SlowStart(going));
        }
    }

    fn rolling(&self) -> Option<&k8s_openapi::api::apps::v1::RollingUpdateStatefulSetStrategy> {
        self.spec.update_strategy.as_ref()?.rolling_update.as_ref()
    }
}

pub fn start(spec: &StatefulSetSpec) -> i32 {
    spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0)
}

pub fn wanted(spec: &StatefulSetSpec) -> i32 {
    spec.replicas.unwrap_or(1)
}

pub fn is_on_delete(spec: &StatefulSetSpec) -> bool {
    spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete")
}
