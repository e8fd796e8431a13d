//! Tables of what each standard refuses, and what is said then.

use serde_json::json;

use super::*;
use crate::api::resource::find_kind;
use crate::server::objects::fake::Fake;
use crate::server::registry::request::Context;

fn namespace(labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": labels}})
}

fn enforce(level: &str, version: &str) -> Value {
    json!({"pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/enforce-version": version})
}

/// The answer to a write in a namespace with these labels: what was refused, or the warnings.
fn write(labels: Value, kind: (&str, &str), object: &Value, old: Option<&Value>) -> Result<Vec<String>, String> {
    let cx = Context::default();
    let attributes = Attributes {
        cx: &cx,
        operation: if old.is_some() { Operation::Update } else { Operation::Create },
        resource: find_kind(kind.0, kind.1).unwrap(),
        subresource: "",
        namespace: "x",
        name: "web",
        old,
        dry_run: false,
    };
    let pods = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "x"},
        "spec": {"hostPID": true, "containers": [{"name": "c"}]}})
    };
    let objects = Fake::new([namespace(labels), pods("a"), pods("b"), pods("c")]);
    let answer = PodSecurity::new(objects).validate(&attributes, Some(object));
    answer.map_err(|s| s.message().to_owned())?;
    Ok(cx.warnings.into_inner().unwrap())
}

/// What a standard has against a pod with this spec; empty when nothing.
fn check(standard: &str, spec: Value, expect: &str) {
    let (level, version) = standard.split_once(':').unwrap();
    let pod = json!({"metadata": {"name": "web", "annotations": spec["annotations"]}, "spec": spec});
    let expect = match expect {
        "" => Ok(Vec::new()),
        why => Err(format!("pods \"web\" is forbidden: violates PodSecurity \"{standard}\": {why}")),
    };
    assert_eq!(write(enforce(level, version), ("v1", "Pod"), &pod, None), expect, "{standard} {spec}");
}

fn container(name: &str, context: Value) -> Value {
    json!({"name": name, "image": "i", "securityContext": context})
}

fn hardened() -> Value {
    json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}})
}

#[test]
fn baseline_refuses_ways_out_of_a_container() {
    let bad = |spec, expect| check("baseline:latest", spec, expect);
    bad(json!({"containers": [{"name": "a"}]}), "");
    bad(json!({"hostNetwork": true, "hostIPC": true}), "host namespaces (hostNetwork=true, hostIPC=true)");
    bad(
        json!({"initContainers": [container("i", json!({"privileged": true}))],
               "containers": [container("a", json!({"privileged": true})), container("b", json!({}))]}),
        "privileged (containers \"i\", \"a\" must not set securityContext.privileged=true)",
    );
    bad(
        json!({"containers": [container("a", json!({"capabilities": {"add": ["CHOWN", "NET_RAW", "BPF"]}}))]}),
        "non-default capabilities (container \"a\" must not include \"BPF\", \"NET_RAW\" in \
         securityContext.capabilities.add)",
    );
    bad(
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "e", "emptyDir": {}}]}),
        "hostPath volumes (volume \"v\")",
    );
    bad(
        json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}, {"hostPort": 0}]}]}),
        "hostPort (container \"a\" uses hostPorts 443, 80)",
    );
    bad(
        json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "127.0.0.1"}}}]}),
        "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"127.0.0.1\")",
    );
    bad(
        json!({"containers": [container("a", json!({"procMount": "Unmasked"}))]}),
        "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
    );
    bad(json!({"hostUsers": false, "containers": [container("a", json!({"procMount": "Unmasked"}))]}), "");
    bad(
        json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}},
               "containers": [container("a", json!({"seLinuxOptions": {"type": "container_engine_t", "role": "r"}}))]}),
        "seLinuxOptions (pod and container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may \
         not be set; role may not be set)",
    );
    bad(
        json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}, "containers": [{"name": "a"}]}),
        "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
    );
    bad(
        json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
        "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
    );
    bad(
        json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.msgmax"}]}}),
        "forbidden sysctls (kernel.msgmax)",
    );
    bad(
        json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
        "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
    );
}

#[test]
fn restricted_wants_pods_hardened() {
    let bad = |spec, expect| check("restricted:latest", spec, expect);
    bad(json!({"containers": [container("a", hardened())]}), "");
    bad(
        json!({"containers": [{"name": "a", "image": "i"}]}),
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot \
         != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \
         \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
    );
    let with = |extra: Value| {
        let mut context = hardened();
        context.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"containers": [container("a", context)]})
    };
    bad(with(json!({"runAsUser": 0})), "runAsUser=0 (container \"a\" must not set runAsUser=0)");
    bad(
        with(json!({"runAsNonRoot": false})),
        "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
    );
    bad(
        with(json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CHOWN"]}})),
        "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
    );
    let mut volumes = with(json!({}));
    volumes["volumes"] = json!([{"name": "h", "hostPath": {"path": "/"}}, {"name": "n", "nfs": {}},
        {"name": "i", "image": {}}, {"name": "s", "secret": {}}]);
    bad(volumes, "restricted volume types (volumes \"h\", \"n\" use restricted volume types \"hostPath\", \"nfs\")");
    let mut namespaced = with(json!({"runAsUser": 0, "runAsNonRoot": false, "procMount": "Unmasked"}));
    namespaced["hostUsers"] = json!(false);
    bad(namespaced, "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")");
}

#[test]
fn standards_are_those_of_their_version() {
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
    check("baseline:v1.31", sysctl.clone(), "forbidden sysctls (net.ipv4.tcp_rmem)");
    check("baseline:v1.99", sysctl, "");
    let probe = json!({"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"host": "h"}}}]});
    check("baseline:v1.33", probe, "");
    let annotated = json!({"annotations": {SECCOMP_POD: "unconfined"}});
    check(
        "baseline:v1.18",
        annotated.clone(),
        "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")",
    );
    check("baseline:latest", annotated, "");
    let windows =
        json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]});
    check("restricted:latest", windows, "");
}

#[test]
fn templates_are_only_warned_of() {
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "baseline",
        "pod-security.kubernetes.io/warn-version": "v1.30"});
    let spec = json!({"hostPID": true, "containers": [{"name": "a"}]});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"template": {"spec": spec}}});
    let told = write(labels.clone(), ("apps/v1", "Deployment"), &deployment, None);
    let why = "would violate PodSecurity \"baseline:v1.30\": host namespaces (hostPID=true)";
    assert_eq!(told, Ok(vec![why.to_owned()]));
    let cron = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}});
    assert_eq!(write(labels.clone(), ("batch/v1", "CronJob"), &cron, None), Ok(vec![why.to_owned()]));
    // Who is refused is not warned, and an update that changes nothing that counts is neither.
    let pod = json!({"metadata": {"name": "web"}, "spec": spec});
    assert!(write(labels.clone(), ("v1", "Pod"), &pod, None).is_err());
    assert_eq!(write(labels, ("v1", "Pod"), &pod, Some(&pod)), Ok(vec![]));
}

#[test]
fn labels_that_make_no_sense_are_refused_when_they_are_new() {
    let bad = namespace(enforce("strict", "v2"));
    let why = "Namespace \"x\" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \
               \"strict\": must be one of privileged, baseline, restricted, \
               metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: \"v2\": must be \"latest\" or \
               \"v1.x\"]";
    assert_eq!(write(json!({}), ("v1", "Namespace"), &bad, None), Err(why.into()));
    let before = namespace(json!({}));
    assert_eq!(write(json!({}), ("v1", "Namespace"), &bad, Some(&before)), Err(why.into()));
    assert_eq!(write(json!({}), ("v1", "Namespace"), &bad, Some(&bad)), Ok(vec![]));
}

#[test]
fn a_stricter_namespace_is_told_what_it_would_not_let_in() {
    let (before, after) = (namespace(json!({})), namespace(enforce("baseline", "latest")));
    let expect = [
        "existing pods in namespace \"x\" violate the new PodSecurity enforce level \"baseline:latest\"",
        "a (and 2 other pods): host namespaces",
    ];
    let told = write(json!({}), ("v1", "Namespace"), &after, Some(&before));
    assert_eq!(told, Ok(expect.map(str::to_owned).to_vec()));
    assert_eq!(write(json!({}), ("v1", "Namespace"), &before, Some(&after)), Ok(vec![]));
}
