//! Tables: what metrics ask for, what behaviors allow, and whole rounds.

mod behavior;
mod calculator;
mod refused;
mod rounds;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::client::request::{Class, Verb};

const START: &str = "2026-01-01T00:00:00Z";

fn start() -> Timestamp {
    START.parse().unwrap()
}

fn later(seconds: i64) -> Timestamp {
    start() + jiff::SignedDuration::from_secs(seconds)
}

/// A pod of `app=web` that has been ready for an hour.
fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "x", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
        "status": {"phase": "Running", "startTime": "2025-12-31T23:00:00Z", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2025-12-31T23:00:10Z"}]}})
}

/// A HorizontalPodAutoscaler of the Deployment `web`, and a server that answers.
struct Lab {
    stores: Stores,
    controller: HorizontalPodAutoscalers,
    /// By path; what is not here is not there.
    server: BTreeMap<String, Value>,
    now: Timestamp,
    /// The next write of a scale goes wrong.
    fails: bool,
}

const SCALE: &str = "/apis/apps/v1/namespaces/x/deployments/web/scale";
const PODS: &str = "/api/v1/namespaces/x/pods?labelSelector=app%3Dweb";
const USAGE: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/x/pods?labelSelector=app%3Dweb";

impl Lab {
    /// With these pods, and `spec` over one that looks at the CPU.
    fn new(spec: Value, pods: Vec<Value>) -> Self {
        let stores = Stores::new();
        let count = pods.len();
        let mut lab = Self {
            stores,
            controller: HorizontalPodAutoscalers::default(),
            server: BTreeMap::new(),
            now: start(),
            fails: false,
        };
        lab.autoscaler("a", spec);
        lab.scale(count);
        lab.server.insert(PODS.into(), json!({"items": pods}));
        for pod in pods {
            lab.stores.pods.put(serde_json::from_value(pod).unwrap());
        }
        lab
    }

    fn autoscaler(&self, name: &str, spec: Value) {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}});
        let mut whole = json!({"minReplicas": 1, "maxReplicas": 10, "metrics": [cpu],
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let object = json!({"metadata": {"name": name, "namespace": "x", "uid": "u", "generation": 3}, "spec": whole});
        self.stores.autoscalers.put(serde_json::from_value(object).unwrap());
    }

    /// The Deployment has and wants so many.
    fn scale(&mut self, replicas: usize) {
        let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": "web", "namespace": "x", "resourceVersion": "7"},
            "spec": {"replicas": replicas}, "status": {"replicas": replicas, "selector": "app=web"}});
        self.server.insert(SCALE.into(), scale);
    }

    /// The pods use so much of the CPU each, in millicores.
    fn uses(&mut self, levels: &[i64]) {
        let of = |(i, milli): (usize, &i64)| {
            json!({"metadata": {"name": format!("p{i}")}, "timestamp": self.now, "window": "10s",
                "containers": [{"name": "c", "usage": {"cpu": format!("{milli}m"), "memory": "512Mi"}}]})
        };
        let items: Vec<Value> = levels.iter().enumerate().map(of).collect();
        self.server.insert(USAGE.into(), json!({"items": items}));
    }

    fn key() -> Name {
        Name::new("x", "a")
    }

    fn planned(&self, name: &str, failure: Option<&Failure>) -> Plan {
        self.controller.plan(&self.stores, &Name::new("x", name), Moment { now: self.now, failure })
    }

    /// A whole round of one, and what was asked, said and done in it.
    fn round_of(&mut self, name: &str) -> Vec<String> {
        let (mut told, mut failure) = (Vec::new(), None);
        for _ in 0..10 {
            let plan = self.planned(name, failure.take().as_ref());
            let again = plan.again;
            for action in plan.actions {
                match action {
                    Action::Read(request) => {
                        let key = Name::new("x", name);
                        match self.server.get(&request.at) {
                            Some(answer) => self.controller.learn(&key, &request, Some(answer.clone())),
                            None => {
                                let message = format!("{} is not there", request.at.rsplit('/').next().unwrap());
                                let failed = Failure { class: Class::NotFound, message };
                                assert!(self.controller.refused(&key, &request, &failed));
                            }
                        }
                    }
                    Action::Event(note) => told.push(format!("{}: {}", note.reason, note.message)),
                    Action::Write(write) if write.request.subresource == "scale" => {
                        let body = &write.request.body;
                        assert_eq!(
                            (write.request.verb, &body["metadata"]["resourceVersion"]),
                            (Verb::Update, &json!("7"))
                        );
                        let report = write.report.unwrap();
                        if std::mem::take(&mut self.fails) {
                            let (reason, message) = report.failed.unwrap();
                            told.push(format!("{reason}: {message}"));
                            failure = Some(Failure { class: Class::Conflict, message: "somebody was faster".into() });
                        } else {
                            let (reason, message) = report.ok.unwrap();
                            told.push(format!("{reason}: {message}"));
                            self.server.insert(SCALE.into(), body.clone());
                        }
                    }
                    Action::Write(write) => {
                        assert_eq!(
                            (write.request.subresource, &write.request.body["metadata"]["uid"]),
                            ("status", &json!("u"))
                        );
                        let mut object = (*self.stores.autoscalers.get("x", name).unwrap()).clone();
                        object.status = Some(serde_json::from_value(write.request.body["status"].clone()).unwrap());
                        self.stores.autoscalers.put(object);
                    }
                    Action::SlowStart(_) => panic!("{action:?}"),
                }
            }
            if again == Some(PERIOD) {
                return told;
            }
        }
        panic!("a round does not end: {told:?}");
    }

    fn round(&mut self) -> Vec<String> {
        self.round_of("a")
    }

    /// The next round, after so many periods.
    fn after(&mut self, periods: i64) -> Vec<String> {
        self.now += jiff::SignedDuration::from_secs(15 * periods);
        self.round()
    }

    fn status(&self) -> HorizontalPodAutoscalerStatus {
        self.stores.autoscalers.get("x", "a").unwrap().status.clone().unwrap_or_default()
    }

    /// `current -> desired` and `type=status reason` of each condition.
    fn said(&self) -> String {
        let status = self.status();
        let conditions = status.conditions.unwrap_or_default().into_iter();
        let conditions: Vec<String> =
            conditions.map(|c| format!("{}={} {}", c.type_, c.status, c.reason.unwrap_or_default())).collect();
        format!("{} -> {}; {}", status.current_replicas.unwrap_or(-1), status.desired_replicas, conditions.join(", "))
    }

    fn message(&self, kind: &str) -> String {
        let conditions = self.status().conditions.unwrap_or_default();
        conditions.into_iter().find(|c| c.type_ == kind).and_then(|c| c.message).unwrap_or_default()
    }
}

fn ready(count: usize) -> Vec<Value> {
    (0..count).map(|i| pod(&format!("p{i}"))).collect()
}
