//! Tables: what is said when something cannot be found out. Nothing is scaled then.

use super::*;

/// `change` is made to a lab with three pods that use a lot.
fn check(spec: Value, change: impl FnOnce(&mut Lab), said: &str, told: &[&str]) {
    let mut lab = Lab::new(spec.clone(), ready(3));
    lab.uses(&[900, 900, 900]);
    change(&mut lab);
    assert_eq!(lab.round(), told, "{spec}");
    assert_eq!(lab.said(), said, "{spec}");
}

const UNKNOWN: &str = "-1 -> 0; AbleToScale=False FailedGetScale";

#[test]
fn targets() {
    let target =
        |version: &str, kind: &str| json!({"scaleTargetRef": {"apiVersion": version, "kind": kind, "name": "web"}});
    let unknown = |spec: Value, error: &str| {
        check(spec, |lab| drop(lab.server.remove(SCALE)), UNKNOWN, &[&format!("FailedGetScale: {error}")]);
    };
    unknown(json!({}), "scale is not there");
    unknown(target("example.com/v1", "Toaster"), "no matches for kind \"Toaster\" in group \"example.com\"");
    unknown(target("v1", "ConfigMap"), "the server could not find the requested resource");
    unknown(target("v1", "Node"), "the server could not find the requested resource");
    // Whatever version it is named with.
    check(
        target("apps/v1beta1", "Deployment"),
        |lab| lab.uses(&[500, 500, 500]),
        "3 -> 3; AbleToScale=True ReadyForNewScale, ScalingActive=True ValidMetricFound, ScalingLimited=False DesiredWithinRange",
        &[],
    );
}

#[test]
fn selectors() {
    let with =
        |selector: Value| move |lab: &mut Lab| lab.server.get_mut(SCALE).unwrap()["status"]["selector"] = selector;
    let said = "3 -> 0; AbleToScale=True SucceededGetScale, ScalingActive=False InvalidSelector";
    for none in [json!(""), Value::Null] {
        check(
            json!({}),
            with(none),
            said,
            &["SelectorRequired: selector is required", "FailedComputeMetricsReplicas: selector is required"],
        );
    }
    let mut lab = Lab::new(json!({}), ready(3));
    with(json!("a in b"))(&mut lab);
    let told = lab.round();
    assert!(
        told[0]
            .starts_with("InvalidSelector: couldn't convert selector into a corresponding internal selector object: "),
        "{told:?}"
    );
    assert_eq!(lab.said(), said);
}

/// The error of one metric, in the condition, and as it is listed.
fn invalid(metric: Value, change: impl FnOnce(&mut Lab), reason: &str, error: &str, listed: &str) {
    let said = format!("3 -> 0; AbleToScale=True SucceededGetScale, ScalingActive=False {reason}");
    let all =
        format!("FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 1), first error is: {listed}{error}");
    check(json!({"metrics": [metric]}), change, &said, &[&format!("{reason}: {error}"), &all]);
}

fn cpu() -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}})
}

fn pods_are(pods: Vec<Value>) -> impl FnOnce(&mut Lab) {
    move |lab| {
        lab.server.insert(PODS.into(), json!({"items": pods}));
    }
}

#[test]
fn resources() {
    let refused = |change: &dyn Fn(&mut Lab), error: &str| {
        let listed = "failed to get cpu resource metric value: ";
        let error = format!("failed to get cpu utilization: {error}");
        invalid(cpu(), |lab| change(lab), "FailedGetResourceMetric", &error, listed);
    };
    refused(
        &|lab| drop(lab.server.remove(USAGE)),
        "unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: pods?labelSelector=app%3Dweb is not there",
    );
    refused(
        &|lab| lab.uses(&[]),
        "unable to get metrics for resource cpu: no metrics returned from resource metrics API",
    );
    refused(
        &|lab| drop(lab.server.remove(PODS)),
        "unable to get pods while calculating replica count: pods?labelSelector=app%3Dweb is not there",
    );
    refused(&|lab| pods_are(vec![])(lab), "no pods returned by selector while calculating replica count");
    refused(
        &|lab| {
            lab.server.get_mut(USAGE).unwrap()["items"]
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(|pod| pod["containers"] = json!([]))
        },
        "did not receive metrics for targeted pods (pods might be unready)",
    );
    refused(
        &|lab| {
            let mut pods = ready(3);
            pods[1]["spec"]["containers"][0]["resources"] = json!({"requests": {"memory": "1Gi"}});
            pods_are(pods)(lab);
        },
        "missing request for cpu in container c of Pod p1",
    );
    refused(
        &|lab| {
            let mut pods = ready(3);
            pods[0]["spec"]["resources"] = json!({"requests": {"memory": "1Gi"}});
            pods[0]["spec"]["containers"][0]["resources"] = Value::Null;
            pods_are(pods)(lab);
        },
        "missing pod-level request for cpu in Pod p0",
    );
    let container = |name: &str| {
        json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": name,
        "target": {"type": "Utilization", "averageUtilization": 50}}})
    };
    invalid(
        container("d"),
        |_| (),
        "FailedGetContainerResourceMetric",
        "failed to get cpu utilization: unable to get metrics for resource cpu: failed to get container metrics: container d not present in metrics for pod x/p0",
        "failed to get d container metric value: ",
    );
    invalid(
        json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}),
        |_| (),
        "FailedGetResourceMetric",
        "invalid resource metric source: neither an average utilization target nor an average value (usage) target was set",
        "failed to get cpu resource metric value: ",
    );
    invalid(
        json!({"type": "Weather"}),
        |_| (),
        "InvalidMetricSourceType",
        "unknown metric source type \"Weather\"",
        "",
    );
}

#[test]
fn what_pods_ask_for() {
    let sum = |change: &dyn Fn(&mut Value), replicas: i32| {
        let mut pods = ready(3);
        pods.iter_mut().for_each(change);
        let mut lab = Lab::new(json!({"maxReplicas": 100}), pods);
        lab.uses(&[900, 900, 900]);
        lab.round();
        assert_eq!(lab.status().desired_replicas, replicas);
    };
    sum(&|_| (), 6);
    // Half, and the limit of twice as many is not reached: a sidecar, or the whole pod, asks for one more.
    sum(
        &|pod| {
            pod["spec"]["initContainers"] = json!([{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
        {"name": "i"}])
        },
        3,
    );
    sum(&|pod| pod["spec"]["resources"] = json!({"requests": {"cpu": "1500m"}}), 4);
    sum(&|pod| pod["spec"]["resources"] = json!({"requests": {"memory": "1Gi"}}), 6);
}

#[test]
fn custom_and_external_metrics() {
    let metric = json!({"name": "qps", "selector": {"matchLabels": {"a": "b"},
        "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]}});
    let shown = "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{\
        LabelSelectorRequirement{Key:c,Operator:In,Values:[d e],},},}";
    let unregistered =
        "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
    let average = json!({"type": "AverageValue", "averageValue": "10"});
    invalid(
        json!({"type": "Pods", "pods": {"metric": metric, "target": average}}),
        |_| (),
        "FailedGetPodsMetric",
        &format!("unable to get metric qps: {unregistered}"),
        "failed to get pods metric value: ",
    );
    let object = |kind: &str, target: &Value| {
        json!({"type": "Object", "object": {"metric": metric, "target": target,
        "describedObject": {"apiVersion": "v1", "kind": kind, "name": "o"}}})
    };
    let value = json!({"type": "Value", "value": "10"});
    invalid(
        object("Service", &value),
        |_| (),
        "FailedGetObjectMetric",
        &format!("unable to get metric qps: Service on x o/{unregistered}"),
        "failed to get object metric value: ",
    );
    invalid(
        object("Service", &average),
        |_| (),
        "FailedGetObjectMetric",
        &format!("unable to get metric qps: Service on x o/{unregistered}"),
        "failed to get object metric value: failed to get qps object metric: ",
    );
    let register = |lab: &mut Lab| {
        let service = json!({"metadata": {"name": "c"}, "spec": {"group": "custom.metrics.k8s.io", "version": "v1beta2", "service": {}}});
        lab.stores.api_services.put(serde_json::from_value(service).unwrap());
    };
    invalid(
        object("Toaster", &value),
        register,
        "FailedGetObjectMetric",
        "unable to get metric qps: Toaster on x o/unable to fetch metrics from custom metrics API: unable to map kind Toaster to \
         resource: no matches for kind \"Toaster\" in group \"\"",
        "failed to get object metric value: ",
    );
    invalid(
        object("Service", &value),
        |lab| {
            register(lab);
            let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/x/services/o/qps?metricLabelSelector=a%3Db%2Cc%20in%20%28d%2Ce%29";
            lab.server.insert(path.into(), json!({"items": []}));
        },
        "FailedGetObjectMetric",
        "unable to get metric qps: Service on x o/unable to fetch metrics from custom metrics API: \
        the custom metrics API server returned 0 results when we asked for exactly one",
        "failed to get object metric value: ",
    );
    invalid(
        object("Service", &json!({"type": "Utilization"})),
        |_| (),
        "FailedGetObjectMetric",
        "invalid object metric source: neither a value target nor an average value target was set",
        "failed to get object metric value: ",
    );
    let external = |target: &Value| json!({"type": "External", "external": {"metric": metric, "target": target}});
    let path = "qps?labelSelector=a%3Db%2Cc%20in%20%28d%2Ce%29";
    let away = format!(
        "unable to get external metric x/qps/{shown}: unable to fetch metrics from external metrics API: {path} is not there"
    );
    invalid(
        external(&value),
        |_| (),
        "FailedGetExternalMetric",
        &away,
        "failed to get qps external metric value: failed to get external metric qps: ",
    );
    invalid(
        external(&average),
        |_| (),
        "FailedGetExternalMetric",
        &away,
        "failed to get qps external metric value: failed to get qps external metric: ",
    );
    invalid(
        external(&average),
        |lab| {
            lab.server
                .insert(format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/x/{path}"), json!({"items": []}));
        },
        "FailedGetExternalMetric",
        &format!("unable to get external metric x/qps/{shown}: no metrics returned from external metrics API"),
        "failed to get qps external metric value: failed to get qps external metric: ",
    );
}

/// What is known may add, and never takes away.
#[test]
fn one_metric_of_several_is_enough_for_more() {
    let none = json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "1"}}});
    let error = "unable to get external metric x/queue/nil: unable to fetch metrics from external metrics API: queue is not there";
    let mut lab = Lab::new(json!({"metrics": [none, cpu()]}), ready(3));
    lab.uses(&[900, 900, 900]);
    let failed = format!("FailedGetExternalMetric: {error}");
    assert_eq!(
        lab.round(),
        [
            failed.as_str(),
            "SuccessfulRescale: New size: 6; reason: cpu resource utilization (percentage of request) above target"
        ]
    );
    let metrics = lab.status().current_metrics.unwrap();
    assert_eq!((&*metrics[0].type_, &*metrics[1].type_), ("", "Resource"));
    lab.scale(3);
    lab.uses(&[100, 100, 100]);
    let listed = format!(
        "FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 2), first error is: failed to get queue \
        external metric value: failed to get external metric queue: {error}"
    );
    assert_eq!(lab.after(30), [failed, listed]);
    assert!(lab.said().contains("ScalingActive=False FailedGetExternalMetric"), "{}", lab.said());
}

/// What nobody wrote by the rules: no panic, no loop.
#[test]
fn nonsense_from_servers() {
    let values = [
        Value::Null,
        json!(7),
        json!("x"),
        json!([]),
        json!({"items": "x"}),
        json!({"items": [7, null, {}]}),
        json!({"items": [{"metadata": {"name": "p0"}, "timestamp": "never", "window": "long", "containers": [{"usage": {"cpu": "x"}}]}]}),
    ];
    for value in &values {
        for path in [SCALE, PODS, USAGE] {
            let mut lab = Lab::new(json!({}), ready(3));
            lab.uses(&[900, 900, 900]);
            lab.server.insert(path.into(), value.clone());
            let told = lab.round();
            assert!(!told.iter().any(|t| t.starts_with("SuccessfulRescale")), "{path} {value}: {told:?}");
        }
    }
}
