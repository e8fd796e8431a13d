//! Tables: what budgets allow.

use super::*;

fn pod(name: &str, owner: Option<(&str, &str, &str)>, ready: bool) -> Value {
    let owners = owner.map(|(version, kind, of)| {
        json!([{"apiVersion": version, "kind": kind, "name": of, "uid": format!("{of}-uid"), "controller": true}])
    });
    json!({"metadata": {"name": name, "namespace": "x", "uid": name, "labels": {"app": "web"}, "ownerReferences": owners},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
}

const SET: Option<(&str, &str, &str)> = Some(("apps/v1", "ReplicaSet", "set"));

struct Lab {
    stores: Stores,
    controller: DisruptionController,
}

impl Lab {
    /// A Deployment of four, its set, and these pods, under a budget.
    fn new(spec: Value, status: Value, pods: Vec<Value>) -> Self {
        let stores = Stores::new();
        let mut whole = json!({"selector": {"matchLabels": {"app": "web"}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let budget = json!({"metadata": {"name": "b", "namespace": "x", "uid": "b", "resourceVersion": "7", "generation": 2},
            "spec": whole, "status": status});
        stores.budgets.put(serde_json::from_value(budget).unwrap());
        let template = json!({"metadata": {"labels": {"app": "web"}}});
        let workload = |name: &str, owners: Value, replicas: i32| {
            json!({"metadata": {"name": name, "namespace": "x", "uid": format!("{name}-uid"), "ownerReferences": owners},
                "spec": {"replicas": replicas, "selector": {}, "template": template}})
        };
        let of = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "web-uid", "controller": true}]);
        stores.replica_sets.put(serde_json::from_value(workload("set", of, 3)).unwrap());
        stores.deployments.put(serde_json::from_value(workload("web", Value::Null, 4)).unwrap());
        for pod in pods {
            stores.pods.put(serde_json::from_value(pod).unwrap());
        }
        Self { stores, controller: DisruptionController::default() }
    }

    fn plan(&self) -> Plan {
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        self.controller.plan(&self.stores, &Name::new("x", "b"), Moment { now, failure: None })
    }
}

/// `allowed expected healthy/desired reason`, and the reasons of events.
fn told(plan: &Plan) -> String {
    let mut out = Vec::new();
    for action in &plan.actions {
        match action {
            Action::Write(write) => {
                let status = &write.request.body["status"];
                assert_eq!(write.request.body["metadata"]["resourceVersion"], "7");
                let count = |field: &str| status[field].as_i64().unwrap_or(-1);
                let (allowed, expected) = (count("disruptionsAllowed"), count("expectedPods"));
                let reason = status["conditions"][0]["reason"].as_str().unwrap();
                out.push(format!(
                    "{allowed} of {expected}, {}/{} {reason}",
                    count("currentHealthy"),
                    count("desiredHealthy")
                ));
            }
            Action::Event(note) => out.push(note.reason.to_owned()),
            Action::Read(request) => out.push(place(request)),
            Action::SlowStart(_) => panic!("{action:?}"),
        }
    }
    out.join("; ")
}

fn check(spec: Value, pods: Vec<Value>, expect: &str) {
    assert_eq!(told(&Lab::new(spec.clone(), json!({}), pods).plan()), expect, "{spec}");
}

#[test]
fn what_is_allowed() {
    let three = || vec![pod("a", SET, true), pod("b", SET, true), pod("c", SET, false)];
    check(json!({"minAvailable": 1}), three(), "1 of 3, 2/1 SufficientPods");
    check(json!({"minAvailable": 2}), three(), "0 of 3, 2/2 InsufficientPods");
    // Half of the four that the Deployment wants.
    check(json!({"minAvailable": "30%"}), three(), "0 of 4, 2/2 InsufficientPods");
    check(json!({"minAvailable": "25%"}), three(), "1 of 4, 2/1 SufficientPods");
    check(json!({"maxUnavailable": 3}), three(), "1 of 4, 2/1 SufficientPods");
    check(json!({"maxUnavailable": "50%"}), three(), "0 of 4, 2/2 InsufficientPods");
    check(json!({"maxUnavailable": 9}), three(), "2 of 4, 2/0 SufficientPods");
    check(json!({}), three(), "0 of 0, 2/0 InsufficientPods");
    check(json!({"minAvailable": 0}), vec![], "NoPods; 0 of 0, 0/0 InsufficientPods");
    check(json!({"minAvailable": "50%"}), vec![pod("a", None, true)], "UnmanagedPods; 0 of 0, 1/0 InsufficientPods");
}

#[test]
fn who_is_covered() {
    let mut other = pod("a", SET, true);
    other["metadata"]["labels"] = json!({"app": "other"});
    let pods = || vec![other.clone(), pod("b", SET, true)];
    check(json!({"minAvailable": 0}), pods(), "1 of 1, 1/0 SufficientPods");
    check(json!({"minAvailable": 0, "selector": {}}), pods(), "2 of 2, 2/0 SufficientPods");
    check(json!({"minAvailable": 0, "selector": null}), pods(), "NoPods; 0 of 0, 0/0 InsufficientPods");
    let mut going = pod("c", SET, true);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:09:00Z");
    check(json!({"minAvailable": 1}), vec![going, pod("b", SET, true)], "0 of 2, 1/1 InsufficientPods");
}

#[test]
fn of_other_controllers_the_server_is_asked() {
    let of = |kind: &'static str, version: &'static str| vec![pod("a", Some((version, kind, "db")), true)];
    let lab = Lab::new(json!({"maxUnavailable": 1}), json!({}), of("StatefulSet", "apps/v1"));
    let plan = lab.plan();
    assert_eq!(told(&plan), "apps/statefulsets/db");
    let Some(Action::Read(request)) = plan.actions.first() else { panic!("{plan:?}") };
    assert_eq!(request.subresource, "scale");
    lab.controller.learn(&Name::new("x", "b"), request, Some(json!({"spec": {"replicas": 2}})));
    assert_eq!(told(&lab.plan()), "0 of 2, 1/1 InsufficientPods");
    // What was learned is used once.
    assert_eq!(told(&lab.plan()), "apps/statefulsets/db");
    lab.controller.learn(&Name::new("x", "b"), request, None);
    assert_eq!(told(&lab.plan()), "CalculateExpectedPodCountFailed; 0 of -1, -1/-1 SyncFailed");
    check(
        json!({"maxUnavailable": 1}),
        of("DaemonSet", "apps/v1"),
        "CalculateExpectedPodCountFailed; 0 of -1, -1/-1 SyncFailed",
    );
    check(
        json!({"maxUnavailable": 1}),
        of("Nothing", "example.com/v1"),
        "CalculateExpectedPodCountFailed; 0 of -1, -1/-1 SyncFailed",
    );
}

/// The API server writes into the status whom it lets go: who is still there two minutes later stays.
#[test]
fn those_about_to_go_do_not_count() {
    let pods = || vec![pod("a", SET, true), pod("b", SET, true), pod("c", SET, true)];
    let status = json!({"disruptedPods": {"a": "2026-01-01T00:09:00Z", "b": "2026-01-01T00:01:00Z", "gone": "2026-01-01T00:09:00Z"}});
    let plan = Lab::new(json!({"minAvailable": 1}), status, pods()).plan();
    assert_eq!(told(&plan), "NotDeleted; 1 of 3, 2/1 SufficientPods");
    assert_eq!(plan.again, Some(Duration::from_secs(61)));
    let Some(Action::Write(write)) = plan.actions.last() else { panic!("{plan:?}") };
    let left = json!({"a": "2026-01-01T00:09:00Z", "b": null, "gone": null});
    assert_eq!(write.request.body["status"]["disruptedPods"], left);
}

#[test]
fn nothing_is_written_twice() {
    let pods = || vec![pod("a", SET, true)];
    let first = Lab::new(json!({"minAvailable": 0}), json!({}), pods()).plan();
    let Some(Action::Write(write)) = first.actions.first() else { panic!("{first:?}") };
    let again = Lab::new(json!({"minAvailable": 0}), write.request.body["status"].clone(), pods()).plan();
    assert_eq!(again, Plan::nothing());
}
