//! What goes when something else goes: namespaces with all they hold, dependents of owners, pods of a silent node.

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, condition, merge, wait_for};
use crate::support::skip;

fn deployment(name: &str, replicas: u32, spec: &Value) -> String {
    let mut pod = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": IMAGE}]});
    merge(&mut pod, spec);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    })
    .to_string()
}

fn items(lab: &Lab, arguments: &[&str]) -> Vec<Value> {
    lab.json(arguments).unwrap()["items"].as_array().cloned().unwrap_or_default()
}

fn running(lab: &Lab, selector: &str) -> Vec<Value> {
    let pods = items(lab, &["get", "pods", "-l", selector]);
    pods.into_iter().filter(|p| condition(p, "Ready").as_deref() == Some("True")).collect()
}

#[test]
fn what_hangs_on_something_goes_with_it() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_server(2);

    a_namespace_goes_with_all_that_it_holds(&lab);
    a_finalizer_holds_its_namespace(&lab);
    dependents_go_as_told(&lab);
    pods_leave_a_silent_node(&mut lab);
}

fn a_namespace_goes_with_all_that_it_holds(lab: &Lab) {
    lab.kubectl(&["create", "namespace", "shop"]);
    wait_for("its service account", || lab.json(&["-n", "shop", "get", "serviceaccount", "default"]).ok());
    lab.kubectl(&["config", "set-context", "--current", "--namespace=shop"]);
    lab.apply(&deployment("web", 3, &json!({})));
    lab.kubectl(&["expose", "deployment", "web", "--port=80"]);
    lab.kubectl(&["create", "configmap", "settings", "--from-literal=a=b"]);
    lab.kubectl(&["create", "secret", "generic", "key", "--from-literal=a=b"]);
    lab.kubectl(&["create", "role", "reader", "--verb=get", "--resource=pods"]);
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    lab.kubectl(&["config", "set-context", "--current", "--namespace=default"]);

    lab.kubectl(&["delete", "namespace", "shop", "--timeout=60s"]);
    let gone = lab.json(&["get", "namespace", "shop"]).unwrap_err();
    assert!(gone.contains(r#"Error from server (NotFound): namespaces "shop" not found"#), "{gone}");
    // A namespace of the same name starts empty: nothing was only hidden.
    lab.kubectl(&["create", "namespace", "shop"]);
    let kinds = "deployments,replicasets,pods,services,endpoints,endpointslices,secrets,roles,events";
    assert_eq!(items(lab, &["-n", "shop", "get", kinds]), Vec::<Value>::new());
    lab.kubectl(&["delete", "namespace", "shop", "--timeout=60s"]);
}

fn a_finalizer_holds_its_namespace(lab: &Lab) {
    lab.kubectl(&["create", "namespace", "held"]);
    let held = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": "held", "finalizers": ["test.local/hold"]},
    });
    lab.apply(&held.to_string());
    lab.kubectl(&["delete", "namespace", "held", "--wait=false"]);
    let namespace = wait_for("the namespace to say what holds it", || {
        let namespace = lab.json(&["get", "namespace", "held"]).ok()?;
        (condition(&namespace, "NamespaceFinalizersRemaining")? == "True").then_some(namespace)
    });
    assert_eq!(namespace["status"]["phase"], "Terminating");
    assert_eq!(condition(&namespace, "NamespaceContentRemaining").as_deref(), Some("True"));
    let conditions = namespace["status"]["conditions"].to_string();
    assert!(conditions.contains("test.local/hold in 1 resource instances"), "{conditions}");

    let refused = lab.kubectl_output(&["-n", "held", "create", "configmap", "new"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("because it is being terminated"), "{text}");

    let release = r#"{"metadata":{"finalizers":null}}"#;
    lab.kubectl(&["-n", "held", "patch", "configmap", "held", "--type=merge", "-p", release]);
    lab.kubectl(&["wait", "--for=delete", "namespace/held", "--timeout=60s"]);
}

fn dependents_go_as_told(lab: &Lab) {
    let replica_sets = || items(lab, &["get", "replicasets", "-l", "app=owner"]);
    lab.apply(&deployment("owner", 2, &json!({})));
    lab.kubectl(&["rollout", "status", "deployment/owner", "--timeout=60s"]);

    // Orphans stay, and have no owner any more.
    lab.kubectl(&["delete", "deployment", "owner", "--cascade=orphan"]);
    let orphans = replica_sets();
    assert_eq!(orphans.len(), 1, "{orphans:?}");
    assert_eq!(orphans[0]["metadata"]["ownerReferences"], Value::Null);
    assert_eq!(running(lab, "app=owner").len(), 2);

    // Foreground: the owner is there until its dependents are gone.
    let name = orphans[0]["metadata"]["name"].as_str().unwrap();
    lab.kubectl(&["delete", "replicaset", name, "--cascade=foreground", "--timeout=60s"]);
    assert_eq!(items(lab, &["get", "pods", "-l", "app=owner"]), Vec::<Value>::new());

    // Background: the owner goes at once, the rest follows, two steps down.
    lab.apply(&deployment("owner", 2, &json!({})));
    lab.kubectl(&["rollout", "status", "deployment/owner", "--timeout=60s"]);
    lab.kubectl(&["delete", "deployment", "owner"]);
    wait_for("the dependents to go", || {
        (replica_sets().is_empty() && items(lab, &["get", "pods", "-l", "app=owner"]).is_empty()).then_some(())
    });

    // An owner that is not there, or is another object by now, is no owner.
    let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "uid": "not-its-uid"});
    let stray = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stray", "ownerReferences": [reference]},
    });
    lab.apply(&stray.to_string());
    wait_for("the stray to go", || lab.json(&["get", "configmap", "stray"]).err());
}

fn pods_leave_a_silent_node(lab: &mut Lab) {
    lab.join(2);
    lab.kubectl(&["cordon", "m1"]);
    let soon = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
    let tolerations = json!([soon("node.kubernetes.io/unreachable"), soon("node.kubernetes.io/not-ready")]);
    lab.apply(&deployment("mover", 1, &json!({"tolerations": tolerations})));
    lab.kubectl(&["rollout", "status", "deployment/mover", "--timeout=60s"]);
    assert_eq!(running(lab, "app=mover")[0]["spec"]["nodeName"], "m2");
    lab.kubectl(&["uncordon", "m1"]);

    lab.machines[1].kill();
    let node = wait_for("the node to be found silent", || {
        let node = lab.json(&["get", "node", "m2"]).ok()?;
        (condition(&node, "Ready")? == "Unknown").then_some(node)
    });
    let conditions = node["status"]["conditions"].to_string();
    assert!(conditions.contains("Kubelet stopped posting node status."), "{conditions}");
    wait_for("the taint", || {
        let node = lab.json(&["get", "node", "m2"]).ok()?;
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let unreachable =
            |e: &str| taints.iter().any(|t| t["key"] == "node.kubernetes.io/unreachable" && t["effect"] == e);
        (unreachable("NoSchedule") && unreachable("NoExecute")).then_some(())
    });
    let on = |node: &str| running(lab, "app=mover").iter().any(|p| p["spec"]["nodeName"] == node);
    wait_for("the pod on the other node", || on("m1").then_some(()));
    assert!(lab.kubectl(&["get", "nodes", "--no-headers"]).contains("NotReady"));

    // The node is heard again: the pod that was given up goes away for good, the taints too.
    lab.machines[1].restart();
    lab.node_ready("m2");
    wait_for("one pod", || (items(lab, &["get", "pods", "-l", "app=mover"]).len() == 1).then_some(()));
    wait_for("no taints", || {
        let node = lab.json(&["get", "node", "m2"]).ok()?;
        node["spec"]["taints"].is_null().then_some(())
    });
}
