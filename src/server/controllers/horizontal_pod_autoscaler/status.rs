//! Decides: what a round says: conditions, Events, and the status that is written when anything in it has changed.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricStatus,
};
use serde_json::json;

use super::{AUTOSCALERS, COMPONENT};
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Action, Note, Plan, Report, Write};
use crate::server::controllers::owners;
use crate::server::controllers::stores::row;

pub const ABLE: &str = "AbleToScale";
pub const ACTIVE: &str = "ScalingActive";
pub const LIMITED: &str = "ScalingLimited";

/// What a round says so far.
pub struct Draft<'a> {
    autoscaler: &'a HorizontalPodAutoscaler,
    now: Timestamp,
    pub status: HorizontalPodAutoscalerStatus,
    events: Vec<Action>,
}

impl<'a> Draft<'a> {
    /// From what was said last.
    pub fn of(autoscaler: &'a HorizontalPodAutoscaler, now: Timestamp) -> Self {
        let status = autoscaler.status.clone().unwrap_or_default();
        Self { autoscaler, now, status, events: Vec::new() }
    }

    pub fn resume(self, status: HorizontalPodAutoscalerStatus) -> Self {
        Self { status, ..self }
    }

    pub fn set(&mut self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let conditions = self.status.conditions.get_or_insert_default();
        let index = conditions.iter().position(|c| c.type_ == kind).unwrap_or_else(|| {
            conditions.push(HorizontalPodAutoscalerCondition { type_: kind.into(), ..Default::default() });
            conditions.len() - 1
        });
        let condition = &mut conditions[index];
        let status = if holds { "True" } else { "False" };
        if condition.status != status {
            condition.status = status.into();
            condition.last_transition_time = Some(owners::whole_second(self.now));
        }
        condition.reason = Some(reason.into());
        condition.message = Some(message.into());
    }

    /// A warning.
    pub fn warn(&mut self, reason: &'static str, message: impl Into<String>) {
        let regarding = owners::object_reference(row(AUTOSCALERS), &self.autoscaler.metadata);
        let message = message.into();
        let note = Note { regarding, warning: true, reason, message, component: COMPONENT, action: "" };
        self.events.push(Action::Event(note));
    }

    pub fn replicas(&mut self, current: i32, desired: i32, metrics: Option<Vec<MetricStatus>>) {
        self.status.current_replicas = Some(current);
        self.status.desired_replicas = desired;
        self.status.current_metrics = metrics;
    }

    pub fn scaled(&mut self) {
        self.status.last_scale_time = Some(owners::whole_second(self.now));
    }

    /// The Events alone; what is said besides goes on.
    pub fn tell(&mut self, plan: &mut Plan) {
        plan.actions.append(&mut self.events);
    }

    /// Nobody else writes this status, so that a change of anything else meanwhile is no reason not to.
    pub fn write(mut self, plan: &mut Plan) {
        let meta = &self.autoscaler.metadata;
        self.status.observed_generation = meta.generation;
        plan.actions.append(&mut self.events);
        if normal(&self.status) != normal(&self.autoscaler.status.clone().unwrap_or_default()) {
            let status = &self.status;
            // What is not said is taken away.
            let body = json!({"metadata": {"uid": meta.uid}, "status": {
                "conditions": status.conditions, "currentMetrics": status.current_metrics,
                "currentReplicas": status.current_replicas, "desiredReplicas": status.desired_replicas,
                "lastScaleTime": status.last_scale_time, "observedGeneration": status.observed_generation,
            }});
            let request = Request::new(Verb::MergePatch, row(AUTOSCALERS), meta.namespace(), meta.name(), body);
            plan.push(Write::new(request.on("status")).reported(Report {
                regarding: owners::object_reference(row(AUTOSCALERS), meta),
                component: COMPONENT,
                ok: None,
                failed: Some(("FailedUpdateStatus", "{error}".into())),
            }));
        }
    }
}

/// An empty list is none.
fn normal(status: &HorizontalPodAutoscalerStatus) -> HorizontalPodAutoscalerStatus {
    let mut normal = status.clone();
    normal.current_metrics.take_if(|list| list.is_empty());
    normal.conditions.take_if(|list| list.is_empty());
    normal.current_replicas.take_if(|n| *n == 0);
    normal
}
