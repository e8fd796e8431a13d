//! Golden plans of EndpointSlices.

use super::*;
use crate::server::controllers::action::Action;

fn pod(i: usize, ready: bool) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": format!("p{i}"), "namespace": "ns", "uid": format!("u{i}"), "labels": { "app": "a" } },
            "spec": { "nodeName": "n1", "containers": [] },
            "status": { "phase": "Running", "podIP": format!("10.0.{}.{}", i / 250, i % 250),
                "conditions": [{ "type": "Ready", "status": status, "lastTransitionTime": "2026-01-02T00:00:00Z" }] },
        }))
        .unwrap(),
    )
}

fn observed(pods: Vec<Arc<Pod>>, slices: Vec<Arc<EndpointSlice>>) -> Observed {
    Observed {
        service: Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "s", "namespace": "ns", "uid": "s", "labels": { "x": "y" },
                    "creationTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "selector": { "app": "a" }, "ports": [{ "port": 80, "targetPort": 8080 }],
                    "ipFamilies": ["IPv4"], "clusterIP": "10.43.0.1" },
            }))
            .unwrap(),
        ),
        nodes: vec![Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": "n1", "labels": { behind::ZONE: "z" } } })).unwrap(),
        )],
        pods,
        slices,
    }
}

/// Carries a plan out on the slices.
fn carry_out(plan: &Plan, slices: &mut Vec<Arc<EndpointSlice>>) {
    for action in &plan.actions {
        let Action::Write(write) = action else { continue };
        let request = &write.request;
        match request.verb {
            Verb::Create => {
                let mut slice: EndpointSlice = serde_json::from_value(request.body.clone()).unwrap();
                slice.metadata.name = Some(format!("s-{}", slices.len()));
                slices.push(Arc::new(slice));
            }
            Verb::Delete => slices.retain(|s| s.metadata.name.as_deref() != Some(&request.name)),
            _ => {
                let slice = slices.iter_mut().find(|s| s.metadata.name.as_deref() == Some(&request.name)).unwrap();
                let mut changed = (**slice).clone();
                changed.endpoints = serde_json::from_value(request.body["endpoints"].clone()).unwrap();
                changed.ports = serde_json::from_value(request.body["ports"].clone()).unwrap();
                let labels = request.body["metadata"]["labels"].as_object().unwrap().clone();
                let labels = labels.into_iter().filter(|(_, v)| !v.is_null());
                changed.metadata.labels = Some(labels.map(|(k, v)| (k, v.as_str().unwrap().to_owned())).collect());
                *slice = Arc::new(changed);
            }
        }
    }
}

fn settle(pods: &[Arc<Pod>], slices: &mut Vec<Arc<EndpointSlice>>) -> usize {
    let plan = plan(&observed(pods.to_vec(), slices.clone()));
    let writes = plan.actions.len();
    carry_out(&plan, slices);
    let again = super::plan(&observed(pods.to_vec(), slices.clone()));
    assert!(again.actions.is_empty(), "not settled: {:?}", again.actions);
    writes
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    slices.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).collect()
}

#[test]
fn slices_are_filled_kept_and_emptied() {
    let mut slices = Vec::new();
    assert_eq!(settle(&[], &mut slices), 1, "an empty one");
    assert_eq!((sizes(&slices), slices[0].ports.clone()), (vec![0], Some(vec![])));
    let all: Vec<_> = (0..250).map(|i| pod(i, true)).collect();
    assert_eq!(settle(&all[..3], &mut slices), 1, "the empty one is filled");
    assert_eq!(sizes(&slices), [3]);
    settle(&all, &mut slices);
    assert_eq!(sizes(&slices).iter().sum::<usize>(), 250);
    assert!(sizes(&slices).iter().all(|n| *n <= packing::MAX_PER_SLICE) && slices.len() == 3);
    let mut changed = all.clone();
    changed[7] = pod(7, false);
    assert_eq!(settle(&changed, &mut slices), 1, "one pod changes one slice");
    settle(&all[..1], &mut slices);
    assert_eq!(sizes(&slices), [1]);
    settle(&[], &mut slices);
    assert_eq!(sizes(&slices), [0]);
}

#[test]
fn an_endpoint_in_full() {
    let plan = plan(&observed(vec![pod(1, true)], vec![]));
    let [Action::Write(write)] = &plan.actions[..] else { panic!() };
    assert_eq!(
        write.request.body,
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "generateName": "s-", "namespace": "ns",
                "labels": { "x": "y", "kubernetes.io/service-name": "s",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io" },
                "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "name": "s", "uid": "s",
                    "controller": true, "blockOwnerDeletion": true }] },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": true, "serving": true,
                "terminating": false }, "nodeName": "n1", "zone": "z",
                "targetRef": { "kind": "Pod", "namespace": "ns", "name": "p1", "uid": "u1" } }],
            "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
        })
    );
}

#[test]
fn terminating_pods_serve_but_are_not_ready() {
    let mut ending = (*pod(1, true)).clone();
    ending.metadata.deletion_timestamp = Some(crate::clock::time());
    let groups = wanted(&observed(vec![Arc::new(ending)], vec![]), false);
    let conditions = groups[0].1[0].conditions.clone().unwrap();
    assert_eq!((conditions.ready, conditions.serving, conditions.terminating), (Some(false), Some(true), Some(true)));
}

/// What a plan does, in a line each: of a write the verb, the slice and its pods.
fn lines(plan: &Plan) -> Vec<String> {
    let line = |action: &Action| match action {
        Action::Event(note) => note.reason.to_owned(),
        Action::Write(write) => {
            let body = &write.request.body;
            let pods = body["endpoints"].as_array().into_iter().flatten();
            let pods: Vec<&str> = pods.map(|e| e["targetRef"]["name"].as_str().unwrap()).collect();
            let family = body["addressType"].as_str().unwrap_or(&write.request.name);
            format!("{:?} {family} {}", write.request.verb, pods.join(" ")).trim().to_owned()
        }
        _ => panic!("{action:?}"),
    };
    plan.actions.iter().map(line).collect()
}

fn with(observed: &Observed, change: impl FnOnce(&mut Service)) -> Observed {
    let mut service = (*observed.service).clone();
    change(&mut service);
    Observed {
        service: Arc::new(service),
        pods: observed.pods.clone(),
        nodes: observed.nodes.clone(),
        slices: observed.slices.clone(),
    }
}

/// A Service with two pods, settled.
fn settled() -> Observed {
    let pods = vec![pod(1, true), pod(2, true)];
    let mut slices = Vec::new();
    settle(&pods, &mut slices);
    observed(pods, slices)
}

#[test]
fn slices_follow_their_service() {
    let start = settled();
    assert!(lines(&plan(&start)).is_empty());
    let changed = |change: &dyn Fn(&mut Service)| lines(&plan(&with(&start, change)));
    assert_eq!(changed(&|s| s.metadata.labels = None), ["MergePatch s-0 p1 p2"]);
    let families = |all: &[&str]| Some(all.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
    let dual = changed(&|s| s.spec.as_mut().unwrap().ip_families = families(&["IPv4", "IPv6"]));
    assert_eq!(dual, ["Create IPv6"], "its pods have no such addresses");
    let other = changed(&|s| s.spec.as_mut().unwrap().ip_families = families(&["IPv6"]));
    assert_eq!(other, ["Create IPv6", "Delete s-0"]);
    let another = changed(&|s| s.metadata.uid = Some("t".into()));
    assert_eq!(another, ["Create IPv4 p1 p2", "Delete s-0"], "an earlier Service's slices are not used");
    let port = changed(&|s| s.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = 81);
    assert!(port.is_empty(), "slices have the ports of pods");
    let mut going = with(&start, |s| s.metadata.deletion_timestamp = Some(crate::clock::time()));
    assert!(lines(&plan(&going)).is_empty());
    going.pods[0] = pod(1, false);
    assert_eq!(lines(&plan(&going)), ["MergePatch s-0 p1 p2"]);
    going.slices.clear();
    assert!(lines(&plan(&going)).is_empty(), "nothing new for a Service that is going");
}

#[test]
fn ports_make_groups() {
    let named = |i: usize, number: i32| {
        let mut pod = (*pod(i, true)).clone();
        pod.spec.as_mut().unwrap().containers = vec![
            serde_json::from_value(json!({ "name": "c", "ports": [
                { "name": "web", "containerPort": number, "protocol": "TCP" },
                { "name": "admin", "containerPort": 9, "protocol": "TCP" }] }))
            .unwrap(),
        ];
        Arc::new(pod)
    };
    let ports = |names: [&str; 2]| -> Option<Vec<k8s_openapi::api::core::v1::ServicePort>> {
        let port = |name| json!({ "name": name, "port": 80, "targetPort": name, "protocol": "TCP" });
        Some(serde_json::from_value(json!(names.map(port))).unwrap())
    };
    let pods = vec![named(1, 80), named(2, 81), named(3, 80)];
    let mut start = with(&observed(pods, vec![]), |s| s.spec.as_mut().unwrap().ports = ports(["web", "admin"]));
    let plan = super::plan(&start);
    assert_eq!(lines(&plan), ["Create IPv4 p1 p3", "Create IPv4 p2"]);
    carry_out(&plan, &mut start.slices);
    let swapped = with(&start, |s| s.spec.as_mut().unwrap().ports = ports(["admin", "web"]));
    assert!(super::plan(&swapped).actions.is_empty(), "the order of ports says nothing");
    start.pods[1] = named(2, 80);
    assert_eq!(lines(&super::plan(&start)), ["MergePatch s-0 p1 p3 p2", "Delete s-1"]);
    start.pods = vec![named(1, 82), named(3, 82), named(2, 81)];
    assert_eq!(lines(&super::plan(&start)), ["MergePatch s-0 p1 p3"], "a slice that is not needed is used again");
}

#[test]
fn what_is_written_says_since_when_it_is_so() {
    let since = |observed: &Observed| {
        let plan = plan(observed);
        let [Action::Write(write)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
        write.request.body["metadata"]["annotations"][behind::TRIGGER_TIME].clone()
    };
    let mut start = settled();
    let settled = start.slices.clone();
    start.slices.clear();
    assert_eq!(since(&start), "2026-01-01T00:00:00Z", "a Service that is new: since it was made");
    start.slices = settled;
    start.pods[1] = pod(2, false);
    assert_eq!(since(&start), "2026-01-02T00:00:00Z");
    start.pods.remove(1);
    assert_eq!(since(&start), Value::Null, "nobody knows since when a pod is gone");
    let mut ending = (*pod(1, true)).clone();
    ending.metadata.deletion_timestamp = Some(crate::clock::time());
    start.pods = vec![Arc::new(ending), pod(2, true)];
    assert_eq!(since(&start), Value::Null, "its readiness is as old as it was");
}

#[test]
fn pods_of_nodes_that_are_not_there_are_left_out() {
    let mut start = settled();
    start.nodes.clear();
    assert_eq!(lines(&plan(&start)), ["MergePatch s-0"]);
    let all = with(&start, |s| s.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true));
    assert_eq!(lines(&plan(&all)), ["MergePatch s-0 p1 p2"], "without the zone");
}

#[test]
fn hints_come_and_go_with_what_the_service_asks_for() {
    let hints = |observed: &Observed| {
        let plan = plan(observed);
        let Some(Action::Write(write)) = plan.actions.first() else { return Vec::new() };
        let of = |e: &Value| e["hints"].to_string();
        write.request.body["endpoints"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    let mut start = settled();
    let near = r#"{"forZones":[{"name":"z"}]}"#;
    let close = |s: &mut Service| s.spec.as_mut().unwrap().traffic_distribution = Some("PreferSameZone".into());
    assert_eq!(hints(&with(&start, close)), [near, near]);
    let mut slices = start.slices.clone();
    carry_out(&plan(&with(&start, close)), &mut slices);
    start.slices = slices;
    assert_eq!(hints(&with(&start, close)).len(), 0, "settled");
    assert_eq!(hints(&start), ["null", "null"], "no longer asked for");
    let auto = |s: &mut Service| {
        s.metadata.annotations = Some([("service.kubernetes.io/topology-mode".to_owned(), "Auto".to_owned())].into());
    };
    assert_eq!(lines(&plan(&with(&start, auto))), ["MergePatch s-0 p1 p2", "TopologyAwareHintsDisabled"]);
    start.slices[0] = Arc::clone(&settled().slices[0]);
    assert!(lines(&plan(&with(&start, auto))).is_empty(), "what does not work out is not said again and again");
    let node = |name: &str, zone: &str| -> Arc<Node> {
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name, "labels": { behind::ZONE: zone } },
                "status": { "allocatable": { "cpu": "2" }, "conditions": [{ "type": "Ready", "status": "True" }] } }))
            .unwrap(),
        )
    };
    start.nodes = vec![node("n1", "z"), node("n2", "y")];
    let shared = with(&start, auto);
    assert_eq!(hints(&shared), [r#"{"forZones":[{"name":"y"}]}"#, near]);
    assert_eq!(lines(&plan(&shared)), ["MergePatch s-0 p1 p2", "TopologyAwareHintsEnabled"]);
    let mut slices = start.slices.clone();
    carry_out(&plan(&shared), &mut slices);
    start.slices = slices;
    assert!(lines(&plan(&with(&start, auto))).is_empty(), "settled");
}
