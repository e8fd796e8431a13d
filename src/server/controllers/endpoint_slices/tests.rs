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
                "conditions": [{ "type": "Ready", "status": status }] },
        }))
        .unwrap(),
    )
}

fn observed(pods: Vec<Arc<Pod>>, slices: Vec<Arc<EndpointSlice>>) -> Observed {
    Observed {
        service: Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "s", "namespace": "ns", "uid": "s", "labels": { "x": "y" } },
                "spec": { "selector": { "app": "a" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
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
        let Action::Write(write) = action else { panic!("{action:?}") };
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
    assert!(sizes(&slices).iter().all(|n| *n <= MAX_PER_SLICE) && slices.len() == 3);
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
