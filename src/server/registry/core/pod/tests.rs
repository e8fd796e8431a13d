//! Tables: defaults, validation, updates and removal of pods.

use serde_json::{Value, json};

use super::PodKind;
use crate::api::user::User;
use crate::server::registry::request::{Context, DeleteOptions};
use crate::server::registry::strategy::{Part, Prepared, Removal, Strategy, Typed};

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// A pod with one container, changed as told.
fn pod(change: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    });
    merge(&mut pod, &change);
    pod
}

fn with_container(container: Value) -> Value {
    let mut full = json!({"name": "c", "image": "busybox"});
    merge(&mut full, &container);
    pod(json!({"spec": {"containers": [full]}}))
}

fn prepared(mut object: Value) -> (Value, Prepared) {
    let strategy = Typed(PodKind);
    strategy.defaults(&mut object).unwrap();
    let prepared = strategy.prepare_create(&Context::new(User::default()), &mut object).unwrap();
    (object, prepared)
}

fn created(object: Value) -> Value {
    prepared(object).0
}

fn check(object: Value, expect: &[&str]) {
    let (_, Prepared { errors, .. }) = prepared(object);
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
}

fn check_update(old: Value, change: &Value, part: Part, expect: &[&str]) -> Value {
    let (strategy, cx) = (Typed(PodKind), Context::new(User::default()));
    let old = created(old);
    let mut new = old.clone();
    merge(&mut new, change);
    strategy.defaults(&mut new).unwrap();
    let Prepared { errors, .. } = strategy.prepare_update(&cx, part, &mut new, &old).unwrap();
    // A diff follows the first line.
    let first = |e: &crate::api::field::FieldError| e.to_string().lines().next().unwrap_or_default().to_owned();
    assert_eq!(errors.iter().map(first).collect::<Vec<_>>(), expect);
    new
}

#[test]
fn defaults() {
    let pod = created(pod(json!({"spec": {
        "hostNetwork": true,
        "containers": [{"name": "c", "image": "nginx:1.25", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1000m"}},
            "readinessProbe": {"httpGet": {"port": 80}},
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
        "volumes": [{"name": "e"}, {"name": "m", "configMap": {"name": "x"}},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
    }})));
    let spec = &pod["spec"];
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(container["terminationMessagePolicy"], "File");
    assert_eq!(container["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
    assert_eq!(container["resources"], json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}));
    assert_eq!(
        container["readinessProbe"],
        json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
    assert_eq!(spec["volumes"][1]["configMap"]["defaultMode"], 420);
    assert_eq!(spec["volumes"][2]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3600);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Burstable"}));
    assert_eq!(pod["metadata"]["generation"], 1);
}

#[test]
fn pull_policy_follows_the_tag() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0000", "IfNotPresent"),
    ] {
        let pod = created(with_container(json!({"image": image})));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn containers() {
    check(pod(json!({})), &[]);
    check(pod(json!({"spec": {"containers": []}})), &["spec.containers: Required value"]);
    check(
        pod(json!({"spec": {"containers": [{"name": "", "image": ""}]}})),
        &["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"],
    );
    check(
        pod(json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "x"}]}})),
        &["spec.containers[1].name: Duplicate value: \"a\""],
    );
    check(
        with_container(json!({"imagePullPolicy": "Sometimes"})),
        &["spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
           \"IfNotPresent\", \"Never\""],
    );
    check(
        with_container(json!({"ports": [{"containerPort": 70000, "name": "HTTP"}]})),
        &[
            "spec.containers[0].ports[0].name: Invalid value: \"HTTP\": must contain only alpha-numeric characters \
             (a-z, 0-9), and hyphens (-)",
            "spec.containers[0].ports[0].name: Invalid value: \"HTTP\": must contain at least one letter (a-z)",
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        with_container(json!({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}})),
        &["spec.containers[0].resources.requests: Invalid value: \"2Gi\": must be less than or equal to memory limit \
           of 1Gi"],
    );
    check(
        pod(json!({"spec": {"initContainers": [{"name": "i", "image": "x", "lifecycle": {}}]}})),
        &["spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without \
           restartPolicy=Always"],
    );
}

#[test]
fn environment_probes_and_hooks() {
    check(
        with_container(json!({"env": [{"name": "A=B"}, {"name": "C", "value": "x", "valueFrom": {"secretKeyRef":
            {"name": "s", "key": "k"}}}, {"name": "D", "valueFrom": {}}]})),
        &[
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist \
             only of printable ASCII characters other than '='",
            "spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            "spec.containers[0].env[2].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, \
             `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        ],
    );
    check(
        with_container(json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodename"}}},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]})),
        &[
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nodename\": error converting \
           fieldPath: field label not supported: spec.nodename",
        ],
    );
    check(
        with_container(json!({"envFrom": [{}]})),
        &["spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"],
    );
    check(
        with_container(json!({"livenessProbe": {"successThreshold": 2}})),
        &[
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
    check(
        with_container(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 60}}}})),
        &["spec.containers[0].lifecycle.preStop.sleep: Invalid value: 60: must be non-negative and less than \
           terminationGracePeriodSeconds (30)"],
    );
}

#[test]
fn volumes_and_mounts() {
    check(
        with_container(json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]})),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"x\""],
    );
    check(
        pod(json!({"spec": {"volumes": [{"name": "a", "secret": {}}, {"name": "b", "hostPath": {"path": "/a/../b"}},
            {"name": "c", "emptyDir": {}, "configMap": {"name": "m"}}]}})),
        &[
            "spec.volumes[0].secret.secretName: Required value",
            "spec.volumes[1].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            "spec.volumes[2].configMap: Forbidden: may not specify more than 1 volume type",
        ],
    );
    check(
        pod(json!({"spec": {"volumes": [{"name": "a", "configMap": {"name": "m", "defaultMode": 1000}}]}})),
        &["spec.volumes[0].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), \
           both inclusive"],
    );
}

#[test]
fn the_rest_of_the_spec() {
    check(
        pod(json!({"spec": {"restartPolicy": "No", "dnsPolicy": "None"}})),
        &[
            "spec.restartPolicy: Unsupported value: \"No\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ],
    );
    check(
        pod(
            json!({"spec": {"tolerations": [{"operator": "Equal"}, {"key": "a", "operator": "Exists", "value": "b"}]}}),
        ),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, \
             which means \"match all values and all keys\"",
            "spec.tolerations[1].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
        ],
    );
    check(
        pod(json!({"spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "x", "ports":
            [{"containerPort": 80, "hostPort": 81}]}]}})),
        &["spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is \
           true"],
    );
    check(
        with_container(json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}})),
        &[
            "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: \
           cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ],
    );
    check(
        pod(json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]}}}}})),
        &["spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]\
           .matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"],
    );
    check(
        pod(json!({"spec": {"hostAliases": [{"ip": "1.2.3", "hostnames": ["a"]}]}})),
        &["spec.hostAliases[0].ip: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or \
           2001:db8::ffff)"],
    );
}

#[test]
fn updates() {
    const OTHER: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
        `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
        tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let image = json!({"spec": {"containers": [{"name": "c", "image": "busybox:2"}]}});
    let mut old = created(pod(json!({})));
    old["spec"]["containers"][0]["image"] = "busybox:1".into();
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = image["spec"]["containers"][0]["image"].clone();
    let (strategy, cx) = (Typed(PodKind), Context::new(User::default()));
    let prepared = strategy.prepare_update(&cx, Part::Spec, &mut new, &old).unwrap();
    assert_eq!(prepared.errors, []);
    assert_eq!(new["metadata"]["generation"], 2);

    check_update(pod(json!({})), &json!({"metadata": {"labels": {"a": "b"}}}), Part::Spec, &[]);
    check_update(pod(json!({})), &json!({"spec": {"activeDeadlineSeconds": 5}}), Part::Spec, &[]);
    check_update(
        pod(json!({})),
        &json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}}),
        Part::Spec,
        &[],
    );
    check_update(pod(json!({})), &json!({"spec": {"nodeName": "n"}}), Part::Spec, &[OTHER]);
    check_update(
        pod(json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}})),
        &json!({"spec": {"tolerations": []}}),
        Part::Spec,
        &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
    );
    check_update(
        pod(json!({})),
        &json!({"spec": {"schedulingGates": [{"name": "g"}]}}),
        Part::Spec,
        &["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"],
    );
}

#[test]
fn status_and_spec_are_apart() {
    let change = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
    let new = check_update(pod(json!({})), &change, Part::Status, &[]);
    assert_eq!((&new["spec"]["nodeName"], &new["status"]["phase"]), (&Value::Null, &json!("Running")));
    assert_eq!(new["metadata"]["generation"], 1);
    let new = check_update(pod(json!({})), &json!({"status": {"phase": "Running"}}), Part::Spec, &[]);
    assert_eq!(new["status"]["phase"], "Pending");
    check_update(
        pod(json!({})),
        &json!({"status": {"qosClass": "Guaranteed"}}),
        Part::Status,
        &["status.qosClass: Invalid value: \"Guaranteed\": field is immutable"],
    );
}

#[test]
fn removal() {
    let check = |change: Value, phase: &str, asked: Option<i64>, expect: Removal| {
        let mut object = created(pod(change));
        object["status"]["phase"] = phase.into();
        let options = DeleteOptions { grace_period_seconds: asked, ..DeleteOptions::default() };
        assert_eq!(Typed(PodKind).removal(&mut object, &options), expect);
    };
    let assigned = || json!({"spec": {"nodeName": "n"}});
    check(json!({}), "Pending", None, Removal::Now);
    check(assigned(), "Pending", None, Removal::Graceful { seconds: 30 });
    check(assigned(), "Running", Some(5), Removal::Graceful { seconds: 5 });
    check(assigned(), "Running", Some(0), Removal::Now);
    check(assigned(), "Running", Some(-1), Removal::Graceful { seconds: 1 });
    check(assigned(), "Succeeded", None, Removal::Now);
}

#[test]
fn warnings() {
    let check = |object: Value, expect: &[&str]| {
        assert_eq!(prepared(object).1.warnings, expect);
    };
    check(
        with_container(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
            "ports": [{"containerPort": 80}, {"containerPort": 80}]})),
        &[
            "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
        ],
    );
    check(
        pod(json!({"metadata": {"annotations": {"scheduler.alpha.kubernetes.io/critical-pod": ""}},
            "spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}})),
        &[
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \
             \"priorityClassName\" field instead",
        ],
    );
}

#[test]
fn label_keys_become_requirements_of_the_selector() {
    let term = |selector: Value| {
        json!({"topologyKey": "zone", "labelSelector": selector,
            "matchLabelKeys": ["app", "absent"], "mismatchLabelKeys": ["tenant"]})
    };
    let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {}, "matchLabelKeys": ["app"]});
    let labels = json!({"labels": {"app": "a", "tenant": "t"}});
    let of = |selector: Value| {
        json!({"metadata": labels, "spec": {
            "affinity": {"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [term(selector.clone())],
                "preferredDuringSchedulingIgnoredDuringExecution":
                    [{"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "matchLabelKeys": ["app"],
                        "labelSelector": {}}}]}},
            "topologySpreadConstraints": [constraint]}})
    };
    let made = created(pod(of(json!({"matchLabels": {"x": "y"}}))));
    let anti = "/spec/affinity/podAntiAffinity";
    let app = json!({"key": "app", "operator": "In", "values": ["a"]});
    let tenant = json!({"key": "tenant", "operator": "NotIn", "values": ["t"]});
    let selector = |path: &str| made.pointer(path).unwrap()["labelSelector"].clone();
    let required = selector(&format!("{anti}/requiredDuringSchedulingIgnoredDuringExecution/0"));
    assert_eq!(required, json!({"matchLabels": {"x": "y"}, "matchExpressions": [app, tenant]}));
    let preferred = format!("{anti}/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm");
    assert_eq!(selector(&preferred), json!({"matchExpressions": [app]}));
    assert_eq!(selector("/spec/topologySpreadConstraints/0"), json!({"matchExpressions": [app]}));
    // What is made is valid, and what says the same twice is not.
    check(pod(of(json!({"matchLabels": {"x": "y"}}))), &[]);
    check(
        pod(of(json!({"matchLabels": {"app": "a"}}))),
        &[
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0][0]: Invalid value: \"app\": \
           exists in both matchLabelKeys and labelSelector",
        ],
    );
}
