//! Tables: whole rounds: what is asked, done and said, and when.

use super::*;

const NONE: [&str; 0] = [];

#[test]
fn a_round_asks_decides_and_says_so() {
    let mut lab = Lab::new(json!({}), ready(3));
    lab.uses(&[300, 500, 700]);
    let paths = |plan: Plan| -> Vec<String> {
        plan.actions.into_iter().map(|a| if let Action::Read(r) = a { r.at } else { panic!("{a:?}") }).collect()
    };
    let first = lab.planned("a", None);
    assert_eq!(first.again, None, "the answer is what it waits for");
    assert_eq!(paths(first), [SCALE]);
    let answer = lab.server[SCALE].clone();
    lab.controller.learn(&Lab::key(), &Request::at(SCALE.into()), Some(answer));
    assert_eq!(paths(lab.planned("a", None)), [PODS, USAGE]);

    assert_eq!(lab.round(), NONE);
    assert_eq!(
        lab.said(),
        "3 -> 3; AbleToScale=True ReadyForNewScale, ScalingActive=True ValidMetricFound, ScalingLimited=False DesiredWithinRange"
    );
    let resource = lab.status().current_metrics.unwrap().remove(0).resource.unwrap();
    assert_eq!((resource.current.average_utilization, &*resource.current.average_value.unwrap().0), (Some(50), "500m"));
    assert_eq!((lab.status().observed_generation, lab.status().last_scale_time), (Some(3), None));

    // Nothing happens until it is time, whatever changes; and what does not change is not written again.
    let rest = lab.planned("a", None);
    assert_eq!((rest.actions.len(), rest.again), (0, Some(PERIOD)));
    lab.now = later(10);
    assert_eq!(lab.planned("a", None).again, Some(Duration::from_secs(5)));
    let before = lab.stores.autoscalers.get("x", "a").unwrap();
    assert_eq!(lab.after(1), NONE);
    assert!(Arc::ptr_eq(&before, &lab.stores.autoscalers.get("x", "a").unwrap()));
    // A clock that is set back is no reason to wait for it.
    lab.now = later(-86400);
    assert_eq!(paths(lab.planned("a", None)), [SCALE]);
}

#[test]
fn more_and_less() {
    let mut lab = Lab::new(json!({}), ready(3));
    lab.uses(&[900, 900, 900]);
    let above = "SuccessfulRescale: New size: 6; reason: cpu resource utilization (percentage of request) above target";
    assert_eq!(lab.round(), [above]);
    assert_eq!(
        lab.said(),
        "3 -> 6; AbleToScale=True SucceededRescale, ScalingActive=True ValidMetricFound, ScalingLimited=False DesiredWithinRange"
    );
    assert_eq!(lab.message(ABLE), "the HPA controller was able to update the target scale to 6");
    assert_eq!(lab.status().last_scale_time.unwrap().0, start());
    lab.scale(3);
    lab.uses(&[1900, 1900, 1900]);
    assert_eq!(
        lab.after(1),
        ["SuccessfulRescale: New size: 6; reason: cpu resource utilization (percentage of request) above target"]
    );
    assert!(lab.said().ends_with("ScalingLimited=True ScaleUpLimit"), "{}", lab.said());
    // Less is wanted, but only now.
    lab.scale(3);
    lab.uses(&[100, 100, 100]);
    assert_eq!(lab.after(1), ["SuccessfulRescale: New size: 6; reason: All metrics below target"]);
    lab.scale(3);
    assert_eq!(lab.after(21), ["SuccessfulRescale: New size: 1; reason: All metrics below target"]);
}

#[test]
fn bounds_come_before_metrics() {
    for (current, expect) in [
        (12, "SuccessfulRescale: New size: 10; reason: Current number of replicas above Spec.MaxReplicas"),
        (1, "SuccessfulRescale: New size: 2; reason: Current number of replicas below Spec.MinReplicas"),
    ] {
        let mut lab = Lab::new(json!({"minReplicas": 2}), ready(2));
        lab.scale(current);
        assert_eq!(lab.round(), [expect]);
    }
}

#[test]
fn a_target_of_none_is_left_alone() {
    let mut lab = Lab::new(json!({}), ready(3));
    lab.uses(&[900, 900, 900]);
    lab.scale(0);
    assert_eq!(lab.round(), NONE);
    assert_eq!(lab.said(), "0 -> 0; AbleToScale=True SucceededGetScale, ScalingActive=False ScalingDisabled");
    // Unless it may be none: then only what is no pod's can be looked at.
    let queue = json!({"type": "External", "external": {"metric": {"name": "queue"},
        "target": {"type": "AverageValue", "averageValue": "10"}}});
    let mut lab = Lab::new(json!({"minReplicas": 0, "metrics": [queue]}), vec![]);
    let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/x/queue";
    lab.server.insert(path.into(), json!({"items": [{"value": "15"}, {"value": "16"}]}));
    assert_eq!(lab.round(), ["SuccessfulRescale: New size: 4; reason: external metric queue(nil) above target"]);
    lab.server.insert(path.into(), json!({"items": [{"value": "0"}]}));
    assert_eq!(lab.after(1), NONE);
    assert_eq!(lab.after(21), ["SuccessfulRescale: New size: 0; reason: All metrics below target"]);
}

#[test]
fn a_scale_that_cannot_be_written_is_said_and_tried_again() {
    let mut lab = Lab::new(json!({}), ready(3));
    lab.uses(&[900, 900, 900]);
    lab.fails = true;
    let failed = "FailedRescale: New size: 6; reason: cpu resource utilization (percentage of request) above target; error: {error}";
    assert_eq!(lab.round(), [failed]);
    assert!(lab.said().starts_with("3 -> 0; AbleToScale=False FailedUpdateScale"), "{}", lab.said());
    assert_eq!(lab.message(ABLE), "the HPA controller was unable to update the target scale: somebody was faster");
    assert_eq!(lab.status().last_scale_time, None);
    assert_eq!(lab.after(1).len(), 1);
    assert!(lab.said().starts_with("3 -> 6; AbleToScale=True SucceededRescale"), "{}", lab.said());
}

#[test]
fn two_do_not_scale_the_same_pods() {
    let mut lab = Lab::new(json!({}), ready(3));
    lab.uses(&[900, 900, 900]);
    lab.autoscaler("b", json!({}));
    assert_eq!(lab.round().len(), 1, "nobody knows yet what the other scales");
    let error = "pods by selector app=web are controlled by multiple HPAs: [{a x} {b x}]";
    let said = [format!("AmbiguousSelector: {error}"), format!("FailedComputeMetricsReplicas: {error}")];
    assert_eq!(lab.round_of("b"), said);
    assert_eq!(lab.after(1), said);
    assert!(lab.said().contains("ScalingActive=False AmbiguousSelector"), "{}", lab.said());
    // One that is gone scales nothing.
    lab.stores.autoscalers.take("x", "b");
    assert_eq!(lab.planned("b", None), Plan::nothing());
    lab.scale(3);
    assert_eq!(lab.after(1).len(), 1);
    assert!(lab.said().contains("SucceededRescale"), "{}", lab.said());
    assert_eq!(lab.controller.memory.lock().unwrap().len(), 1);
}

#[test]
fn the_most_that_a_metric_asks_for() {
    let memory = json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c",
        "target": {"type": "AverageValue", "averageValue": "128Mi"}}});
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    let mut lab = Lab::new(json!({"maxReplicas": 100, "metrics": [cpu, memory]}), ready(3));
    lab.uses(&[600, 600, 600]);
    // Four times as much memory, but not more than twice as many at once.
    assert_eq!(lab.round(), ["SuccessfulRescale: New size: 6; reason: memory resource above target"]);
    assert!(lab.said().ends_with("ScalingLimited=True ScaleUpLimit"), "{}", lab.said());
    let metrics = lab.status().current_metrics.unwrap();
    let of_container = metrics[1].container_resource.as_ref().unwrap();
    assert_eq!(
        (&*of_container.container, &*of_container.current.average_value.as_ref().unwrap().0),
        ("c", "536870912")
    );
}

#[test]
fn custom_metrics_by_what_is_registered() {
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "qps", "selector": {"matchLabels": {"a": "b"}}},
        "target": {"type": "AverageValue", "averageValue": "10"}}});
    let object = |target: Value| {
        json!({"type": "Object", "object": {"metric": {"name": "hits"}, "target": target,
        "describedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"}}})
    };
    let of_space = json!({"type": "Object", "object": {"metric": {"name": "size"},
        "target": {"type": "Value", "value": "100"}, "describedObject": {"kind": "Namespace", "name": "other"}}});
    let value = object(json!({"type": "Value", "value": "100"}));
    let each = object(json!({"type": "AverageValue", "averageValue": "50"}));
    let spec = json!({"maxReplicas": 100, "metrics": [pods, value, each, of_space]});
    for (versions, version) in [(&["v1beta1"][..], "v1beta1"), (&["v1beta1", "v1beta2"], "v1beta2")] {
        let mut lab = Lab::new(spec.clone(), ready(3));
        for version in versions {
            let service = json!({"metadata": {"name": format!("{version}.custom.metrics.k8s.io")},
                "spec": {"group": "custom.metrics.k8s.io", "version": version, "service": {}}});
            lab.stores.api_services.put(serde_json::from_value(service).unwrap());
        }
        let base = format!("/apis/custom.metrics.k8s.io/{version}/namespaces/x");
        let of = |i: usize| json!({"describedObject": {"name": format!("p{i}")}, "value": "11", "timestamp": START});
        let items: Vec<Value> = (0..3).map(of).collect();
        lab.server.insert(
            format!("{base}/pods/*/qps?labelSelector=app%3Dweb&metricLabelSelector=a%3Db"),
            json!({"items": items}),
        );
        lab.server
            .insert(format!("{base}/ingresses.networking.k8s.io/main/hits"), json!({"items": [{"value": "120"}]}));
        lab.server.insert(format!("{base}/metrics/size"), json!({"items": [{"value": "160"}]}));
        assert_eq!(lab.round(), ["SuccessfulRescale: New size: 5; reason: Namespace metric size above target"]);
        let metrics = lab.status().current_metrics.unwrap();
        let shown: Vec<String> = metrics[1..]
            .iter()
            .map(|m| {
                let current = &m.object.as_ref().unwrap().current;
                current.value.clone().or(current.average_value.clone()).unwrap().0
            })
            .collect();
        assert_eq!(shown, ["120", "40", "160"]);
        assert_eq!(metrics[0].pods.as_ref().unwrap().current.average_value.as_ref().unwrap().0, "11");
    }
}

#[test]
fn tolerances_of_a_behavior() {
    let tolerant = |up: &str, down: &str| {
        let rules = |tolerance: &str| {
            json!({"tolerance": tolerance, "stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]})
        };
        Lab::new(json!({"behavior": {"scaleUp": rules(up), "scaleDown": rules(down)}}), ready(3))
    };
    for (up, down, usage, rescaled) in [
        ("500m", "100m", 700, 0),
        ("10m", "100m", 530, 1),
        ("100m", "50m", 460, 0),
        ("100m", "50m", 300, 1),
        ("100m", "500m", 300, 0),
    ] {
        let mut lab = tolerant(up, down);
        lab.uses(&[usage, usage, usage]);
        assert_eq!(lab.round().len(), rescaled, "{up} {down} {usage}");
    }
}
