//! Decides: how many replicas a HorizontalPodAutoscaler gives its target (`pkg/controller/podautoscaler`).
//!
//! ```text
//!            15 s                    answers                         written, or not
//!   rest ───────────▶ ask ──────────────────────▶ decide ──▶ scale ──────────────────▶ say so ─▶ rest
//!                      ▲     the scale; then        └─────────────────────────────────────▲
//!                      └──── metrics and pods             nothing to scale
//! ```
//!
//! - [`scale`]: what is scaled
//! - [`asked`]: what the server is asked of it, its pods and its metrics
//! - [`metrics`], by [`calculator`]: what each metric proposes; the most of all is recommended
//! - [`behavior`]: what of that is done now
//! - [`status`]: what is said of it

mod asked;
mod behavior;
mod calculator;
mod metrics;
mod scale;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricStatus,
};
use serde_json::Value;

use self::asked::{Answers, Asked};
use self::behavior::{Bounds, History};
use self::calculator::{Calculator, Tolerance};
use self::metrics::{Invalid, Target};
use self::scale::Scale;
use self::status::{ABLE, ACTIVE, Draft, LIMITED};
use super::action::{Action, Controller, Enqueue, Failure, Moment, Name, Plan, Report, Write};
use super::owners;
use super::stores::{Stores, row};
use crate::api::quantity::{Format, Quantity};
use crate::api::selector::LabelSelector;
use crate::client::request::Request;
use crate::client::store::Meta as _;

pub const AUTOSCALERS: &str = "autoscaling/horizontalpodautoscalers";
const COMPONENT: &str = "horizontal-pod-autoscaler";
/// From the end of one round to the next (`--horizontal-pod-autoscaler-sync-period`).
const PERIOD: Duration = Duration::from_secs(15);
/// `--horizontal-pod-autoscaler-tolerance`
const TOLERANCE: f64 = 0.1;

/// Keys are HorizontalPodAutoscalers. Without any, nothing is done.
#[derive(Default)]
pub struct HorizontalPodAutoscalers {
    memory: Mutex<BTreeMap<Name, Memory>>,
}

/// What is known of one besides the stores.
#[derive(Default)]
struct Memory {
    /// When the last round ended.
    rests_since: Option<Timestamp>,
    /// Of this round.
    answers: Answers,
    history: History,
    /// Of the pods of its target, since it was last looked at: nobody else may scale them.
    selector: Option<LabelSelector>,
    /// What is being written.
    scaling: Option<Scaling>,
}

struct Scaling {
    from: i32,
    to: i32,
    /// What is to be said when it goes wrong, but for the error.
    status: HorizontalPodAutoscalerStatus,
    /// What is measured.
    metrics: Option<Vec<MetricStatus>>,
}

impl Controller for HorizontalPodAutoscalers {
    fn name(&self) -> &'static str {
        "horizontalpodautoscaler"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.autoscalers.subscribe(move |change| {
            change.each().for_each(|a| queue.add(a.metadata.namespace(), a.metadata.name()));
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut all = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = all.remove(key).unwrap_or_default();
        let Some(autoscaler) = stores.autoscalers.get(&key.namespace, &key.name) else { return Plan::nothing() };
        let others = all.iter().filter(|(other, _)| other.namespace == key.namespace);
        let others = others.filter_map(|(other, memory)| Some((other, memory.selector.as_ref()?))).collect();
        let plan = Round { stores, key, autoscaler: &autoscaler, others, now: moment.now }.plan(&mut memory, moment);
        all.insert(key.clone(), memory);
        plan
    }

    fn learn(&self, key: &Name, request: &Request, answer: Option<Value>) {
        self.answered(key, request, answer.ok_or_else(String::new));
    }

    /// What cannot be had is said, and does not keep from the rest.
    fn refused(&self, key: &Name, request: &Request, failure: &Failure) -> bool {
        self.answered(key, request, Err(failure.message.clone()));
        true
    }
}

impl HorizontalPodAutoscalers {
    fn answered(&self, key: &Name, request: &Request, answer: Result<Value, String>) {
        let mut all = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = all.get_mut(key) {
            memory.answers.insert(request.at.clone(), answer);
        }
    }
}

/// What a plan is made from.
struct Round<'a> {
    stores: &'a Stores,
    key: &'a Name,
    autoscaler: &'a HorizontalPodAutoscaler,
    /// What others of the namespace scale.
    others: Vec<(&'a Name, &'a LabelSelector)>,
    now: Timestamp,
}

/// What is recommended: replicas, after which metric, and what is measured.
struct Recommended {
    replicas: i32,
    after: String,
    measured: Vec<MetricStatus>,
}

impl Round<'_> {
    fn plan(&self, memory: &mut Memory, moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        if let Some(scaling) = memory.scaling.take() {
            self.settle(scaling, memory, moment.failure, &mut plan);
        } else if let Some(left) = memory.rests_since.and_then(|since| rest(since, self.now)) {
            plan.look_after(left);
            return plan;
        } else {
            self.decide(memory, &mut plan);
        }
        if plan.again.is_none() && !plan.actions.iter().any(|action| matches!(action, Action::Read(_))) {
            memory.answers.clear();
            memory.rests_since = Some(self.now);
            plan.look_after(PERIOD);
        }
        plan
    }

    /// How the writing of the scale went.
    fn settle(&self, scaling: Scaling, memory: &mut Memory, failure: Option<&Failure>, plan: &mut Plan) {
        let Scaling { from, to, status, metrics } = scaling;
        let mut draft = Draft::of(self.autoscaler, self.now).resume(status);
        if let Some(failure) = failure {
            let message = format!("the HPA controller was unable to update the target scale: {}", failure.message);
            draft.set(ABLE, false, "FailedUpdateScale", message);
            let before = draft.status.desired_replicas;
            draft.replicas(from, before, metrics);
        } else {
            let message = format!("the HPA controller was able to update the target scale to {to}");
            draft.set(ABLE, true, "SucceededRescale", message);
            draft.replicas(from, to, metrics);
            draft.scaled();
            memory.history.scaled(self.autoscaler.spec.behavior.as_ref(), from, to, self.now);
        }
        draft.write(plan);
    }

    fn decide(&self, memory: &mut Memory, plan: &mut Plan) {
        let spec = &self.autoscaler.spec;
        let mut draft = Draft::of(self.autoscaler, self.now);
        let asked = Asked::of(&memory.answers);
        let scale = Scale::of(self.stores, &asked, &self.key.namespace, &spec.scale_target_ref);
        let Ok(scale) = scale.inspect_err(|error| {
            draft.warn("FailedGetScale", error);
            let message = format!("the HPA controller was unable to get the target's current scale: {error}");
            draft.set(ABLE, false, "FailedGetScale", message);
        }) else {
            if !ask(asked, plan) {
                draft.write(plan);
            }
            return;
        };
        let message = "the HPA controller was able to get the target's current scale";
        draft.set(ABLE, true, "SucceededGetScale", message);
        let bounds = Bounds { current: scale.wanted(), least: spec.min_replicas.unwrap_or(1), most: spec.max_replicas };
        let current = bounds.current;
        memory.history.begin(current, self.now);
        if current == 0 && bounds.least != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            draft.set(ACTIVE, false, "ScalingDisabled", message);
            draft.replicas(current, current, None);
            return draft.write(plan);
        }
        let (replicas, why, measured) = if current > bounds.most {
            (bounds.most, "Current number of replicas above Spec.MaxReplicas".to_owned(), None)
        } else if current < bounds.least {
            (bounds.least, "Current number of replicas below Spec.MinReplicas".to_owned(), None)
        } else {
            let recommended = self.recommend(&scale, &asked, &mut memory.selector, &mut draft);
            if ask(asked, plan) {
                return;
            }
            let Recommended { replicas: wanted, after, measured } = match recommended {
                Ok(recommended) => recommended,
                Err((measured, error)) => {
                    let before = draft.status.desired_replicas;
                    draft.replicas(current, before, measured);
                    draft.warn("FailedComputeMetricsReplicas", error);
                    return draft.write(plan);
                }
            };
            let why =
                if wanted > current { format!("{after} above target") } else { "All metrics below target".to_owned() };
            let allowed = behavior::allowed(spec.behavior.as_ref(), &mut memory.history, wanted, bounds, self.now);
            draft.set(ABLE, true, allowed.able.0, allowed.able.1);
            draft.set(LIMITED, allowed.limited, allowed.limit.0, allowed.limit.1);
            (allowed.replicas, why, Some(measured))
        };
        if replicas == current {
            draft.replicas(current, current, measured);
            return draft.write(plan);
        }
        draft.tell(plan);
        let size = format!("New size: {replicas}; reason: {why}");
        plan.push(Write::new(scale.to(replicas)).reported(Report {
            regarding: owners::object_reference(row(AUTOSCALERS), &self.autoscaler.metadata),
            component: COMPONENT,
            ok: Some(("SuccessfulRescale", size.clone())),
            failed: Some(("FailedRescale", format!("{size}; error: {{error}}"))),
        }));
        memory.scaling = Some(Scaling { from: current, to: replicas, status: draft.status, metrics: measured });
        // How it went is known when the plan has been carried out.
        plan.look_after(Duration::ZERO);
    }

    /// The most that a metric asks for. One that says nothing counts as asking for no less than there is.
    fn recommend(
        &self,
        scale: &Scale,
        asked: &Asked<'_>,
        kept: &mut Option<LabelSelector>,
        draft: &mut Draft<'_>,
    ) -> Result<Recommended, (Option<Vec<MetricStatus>>, String)> {
        let namespace = &*self.key.namespace;
        let selector = parsed(scale.selector(), draft).map_err(|error| (None, error))?;
        let labels = |pod: &k8s_openapi::api::core::v1::Pod| pod.metadata.labels.clone().unwrap_or_default();
        let pods = self.stores.pods.find(namespace, |pod| {
            let labels = pod.metadata.labels.as_ref();
            selector.matches(|key| labels.and_then(|l| l.get(key)).map(String::as_str))
        });
        let selector = &*kept.insert(selector);
        let of_other = |other: &LabelSelector| {
            pods.iter().any(|pod| {
                let labels = labels(pod);
                other.matches(|key| labels.get(key).map(String::as_str))
            })
        };
        let mut claims: Vec<&Name> =
            self.others.iter().filter(|(_, other)| of_other(other)).map(|(name, _)| *name).collect();
        if !claims.is_empty() {
            claims.push(self.key);
            claims.sort();
            let names: Vec<String> = claims.iter().map(|n| format!("{{{} {}}}", n.name, n.namespace)).collect();
            let all = names.join(" ");
            let error = format!("pods by selector {} are controlled by multiple HPAs: [{all}]", scale.selector());
            draft.warn("AmbiguousSelector", &*error);
            draft.set(ACTIVE, false, "AmbiguousSelector", &*error);
            return Err((None, error));
        }
        let calculator = Calculator {
            pods: &pods,
            current: scale.wanted(),
            existing: scale.existing(),
            tolerance: tolerance(self.autoscaler),
            now: self.now,
        };
        let target = Target { stores: self.stores, asked, namespace, selector, calculator };
        let (mut found, mut measured, mut invalid): (Option<(i32, String)>, _, Vec<Invalid>) =
            (None, Vec::new(), Vec::new());
        let specs = self.autoscaler.spec.metrics.as_deref().unwrap_or_default();
        for spec in specs {
            match metrics::proposal(&target, spec) {
                Ok(proposal) => {
                    if found.as_ref().is_none_or(|(most, _)| *most == 0 || proposal.replicas > *most) {
                        found = Some((proposal.replicas, proposal.name));
                    }
                    measured.push(proposal.status);
                }
                Err(error) => {
                    draft.warn(error.reason, &*error.error);
                    invalid.push(error);
                    measured.push(MetricStatus::default());
                }
            }
        }
        let less = |(replicas, _): &(i32, String)| *replicas < scale.wanted();
        match (found, invalid.first()) {
            (Some((replicas, after)), None) => Ok(Recommended { replicas, after, measured }),
            (Some(found), Some(_)) if !less(&found) => Ok(Recommended { replicas: found.0, after: found.1, measured }),
            (_, first) => {
                let (all, wrong) = (specs.len(), invalid.len());
                let listed = first.map_or("there are no metrics", |first| first.listed.as_str());
                let error = format!("invalid metrics ({wrong} invalid out of {all}), first error is: {listed}");
                if let Some(first) = first {
                    let message = format!("the HPA was unable to compute the replica count: {}", first.error);
                    draft.set(ACTIVE, false, first.reason, message);
                }
                Err((Some(measured), error))
            }
        }
        .inspect(|recommended| {
            let message =
                format!("the HPA was able to successfully calculate a replica count from {}", recommended.after);
            draft.set(ACTIVE, true, "ValidMetricFound", message);
        })
    }
}

/// Asks for what is missing. True when that is anything: what was found out without it is of no consequence.
fn ask(asked: Asked<'_>, plan: &mut Plan) -> bool {
    plan.actions.extend(asked.missing().into_iter().map(|path| Action::Read(Request::at(path))));
    !plan.actions.is_empty()
}

/// What is left of the period. A clock that was set back ends it.
fn rest(since: Timestamp, now: Timestamp) -> Option<Duration> {
    let rested = Duration::try_from(now.duration_since(since)).ok()?;
    PERIOD.checked_sub(rested).filter(|left| !left.is_zero())
}

/// The selector as the scale has it.
fn parsed(text: &str, draft: &mut Draft<'_>) -> Result<LabelSelector, String> {
    if text.is_empty() {
        let error = "selector is required";
        draft.warn("SelectorRequired", error);
        draft.set(ACTIVE, false, "InvalidSelector", "the HPA target's scale is missing a selector");
        return Err(error.into());
    }
    LabelSelector::parse(text).map_err(|error| {
        let error = format!("couldn't convert selector into a corresponding internal selector object: {error}");
        draft.warn("InvalidSelector", &*error);
        draft.set(ACTIVE, false, "InvalidSelector", &*error);
        error
    })
}

fn tolerance(autoscaler: &HorizontalPodAutoscaler) -> Tolerance {
    let behavior = autoscaler.spec.behavior.as_ref();
    let of = |rules: Option<&HPAScalingRules>| {
        let said = rules.and_then(|r| r.tolerance.as_ref()).and_then(|t| Quantity::parse(&t.0).ok());
        said.map_or(TOLERANCE, |t| t.ratio(Quantity::from_units(1, Format::Decimal)))
    };
    Tolerance {
        up: of(behavior.and_then(|b| b.scale_up.as_ref())),
        down: of(behavior.and_then(|b| b.scale_down.as_ref())),
    }
}

#[cfg(test)]
mod tests;
