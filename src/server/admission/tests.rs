//! Tables of what each plugin changes and refuses.

mod classes;
mod limits;

use serde_json::json;

use super::*;
use crate::api::resource::find_kind;
use crate::api::user::{SYSTEM_AUTHENTICATED, SYSTEM_NODES, User};
use crate::server::authz::policy;
use crate::server::objects::fake::Fake;

fn objects() -> Arc<Fake> {
    let namespace = |name: &str, phase: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "status": {"phase": phase}});
    let account = |namespace: &str, name: &str, extra: Value| {
        let mut account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace, "uid": "u"}});
        account.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        account
    };
    let objects = Fake::new(policy::aggregated());
    for object in [
        namespace("x", "Active"),
        namespace("empty", "Active"),
        namespace("going", "Terminating"),
        namespace("kube-node-lease", "Active"),
        account("x", "default", json!({})),
        account("x", "quiet", json!({"automountServiceAccountToken": false, "imagePullSecrets": [{"name": "pull"}]})),
        json!({"apiVersion": "v1", "kind": "Namespace", "status": {"phase": "Active"},
               "metadata": {"name": "new", "creationTimestamp": crate::clock::time()}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "node1"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "x", "uid": "pod1"},
               "spec": {"nodeName": "n1"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q", "namespace": "x", "uid": "pod2"},
               "spec": {"nodeName": "n2"}}),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"},
               "value": 1000, "preemptionPolicy": "Never"}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
               "metadata": {"name": "alice", "namespace": "x"},
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
               "subjects": [{"kind": "User", "name": "alice"}]}),
    ] {
        objects.put(object);
    }
    objects
}

fn admin() -> User {
    User::new("system:admin", &["system:masters", SYSTEM_AUTHENTICATED])
}

fn node() -> User {
    User::new("system:node:n1", &[SYSTEM_NODES, SYSTEM_AUTHENTICATED])
}

struct Request<'a> {
    user: User,
    operation: Operation,
    subresource: &'a str,
    old: Option<Value>,
}

fn create(user: User) -> Request<'static> {
    Request { user, operation: Operation::Create, subresource: "", old: None }
}

fn update(user: User, subresource: &'static str, old: &Value) -> Request<'static> {
    Request { user, operation: Operation::Update, subresource, old: Some(old.clone()) }
}

fn delete(user: User, old: &Value) -> Request<'static> {
    Request { user, operation: Operation::Delete, subresource: "", old: Some(old.clone()) }
}

/// Runs the whole default chain.
fn run(request: &Request<'_>, object: &Value) -> Result<Value, Status> {
    let objects: SharedObjects = objects();
    let client = webhook::Client::new(objects.clone());
    let chain = default_chain(&objects, &Arc::new(Authorizer::new(objects.clone())), &client);
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let cx = Context::new(request.user.clone());
    let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    let attributes = Attributes {
        cx: &cx,
        operation: request.operation,
        resource: find_kind(&text(&object["apiVersion"]), &text(&object["kind"])).unwrap(),
        subresource: request.subresource,
        namespace: &namespace,
        name: if request.operation == Operation::Create { "" } else { &name },
        old: request.old.as_ref(),
        dry_run: false,
    };
    if request.operation == Operation::Delete {
        return chain.validate(&attributes, None).map(|()| Value::Null);
    }
    let mut object = object.clone();
    chain.mutate(&attributes, &mut object)?;
    chain.validate(&attributes, Some(&object))?;
    Ok(object)
}

fn refused(request: Request<'_>, object: Value, code: u16, message: &str) {
    let status = run(&request, &object).expect_err(message);
    assert_eq!((status.code(), status.message()), (code, message));
}

fn pod(namespace: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": namespace}, "spec": spec})
}

fn config_map(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": namespace}})
}

#[test]
fn a_plain_pod() {
    let mut got = run(&create(admin()), &pod("x", json!({"containers": [{"name": "c"}]}))).unwrap();
    let name = got["spec"]["volumes"][0]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("kube-api-access-") && name.len() == "kube-api-access-".len() + 5, "{name}");
    got["spec"]["volumes"][0]["name"] = json!("v");
    got["spec"]["containers"][0]["volumeMounts"][0]["name"] = json!("v");
    let expect = json!({
        "containers": [{"name": "c", "volumeMounts": [
            {"name": "v", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
        "volumes": [{"name": "v", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}],
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
        "tolerations": [
            {"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300},
            {"effect": "NoExecute", "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300}],
    });
    assert_eq!(got["spec"], expect);
}

#[test]
fn what_a_pod_says_itself_stays() {
    let spec = json!({"serviceAccountName": "quiet", "priorityClassName": "high",
        "tolerations": [{"operator": "Exists"}], "containers": [{"name": "c"}]});
    let got = run(&create(admin()), &pod("x", spec)).unwrap();
    assert_eq!(
        got["spec"],
        json!({"serviceAccountName": "quiet", "serviceAccount": "quiet", "imagePullSecrets": [{"name": "pull"}],
               "priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never",
               "tolerations": [{"operator": "Exists"}], "containers": [{"name": "c"}]})
    );
    let mounted = json!({"containers": [{"name": "c", "volumeMounts": [
        {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]});
    let got = run(&create(admin()), &pod("x", mounted)).unwrap();
    assert!(got["spec"]["volumes"].is_null(), "no container needs the volume");
}

#[test]
fn refusals_of_pods() {
    let check = |spec: Value, message: &str| refused(create(admin()), pod("x", spec), 403, message);
    check(
        json!({"serviceAccountName": "nobody"}),
        "pods \"web\" is forbidden: error looking up service account x/nobody: serviceaccount \"nobody\" not found",
    );
    check(
        json!({"priorityClassName": "nothing"}),
        "pods \"web\" is forbidden: no PriorityClass with name nothing was found",
    );
    check(
        json!({"priority": 7}),
        "pods \"web\" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission \
         controller computed 0 from the given PriorityClass name",
    );
    refused(
        create(admin()),
        pod("empty", json!({})),
        403,
        "pods \"web\" is forbidden: error looking up service account empty/default: serviceaccount \"default\" not found",
    );
    assert!(run(&create(admin()), &pod("new", json!({}))).is_ok(), "the controller is about to make the account");
    refused(
        create(admin()),
        pod("new", json!({"serviceAccountName": "other"})),
        403,
        "pods \"web\" is forbidden: error looking up service account new/other: serviceaccount \"other\" not found",
    );
    let critical = run(&create(admin()), &pod("x", json!({"priorityClassName": "system-node-critical"}))).unwrap();
    assert_eq!(critical["spec"]["priority"], 2_000_001_000);
}

#[test]
fn namespaces() {
    refused(create(admin()), config_map("missing"), 404, "namespaces \"missing\" not found");
    let going = run(&create(admin()), &config_map("going")).unwrap_err();
    assert_eq!(
        going.message(),
        "configmaps \"c\" is forbidden: unable to create new content in namespace going because it is being terminated"
    );
    let cause = &going.details().unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("NamespaceTerminating", "metadata.namespace"));
    assert!(run(&update(admin(), "", &config_map("going")), &config_map("going")).is_ok());
    assert!(run(&delete(admin(), &config_map("going")), &config_map("going")).is_ok());
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    for name in ["default", "kube-system", "kube-public"] {
        let message = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        refused(delete(admin(), &namespace(name)), namespace(name), 403, &message);
    }
    assert!(run(&delete(admin(), &namespace("x")), &namespace("x")).is_ok());
}

fn own_node(name: &str, labels: Value, taints: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}})
}

#[test]
fn nodes_write_themselves_only() {
    let labels = json!({"kubernetes.io/hostname": "n1", "node.kubernetes.io/x": "", "mine": "yes"});
    let good = own_node("n1", labels, json!([]));
    let made = run(&create(node()), &good).unwrap();
    assert_eq!(made["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
    assert!(run(&update(node(), "status", &made), &made).is_ok());
    refused(
        create(node()),
        own_node("n2", json!({}), json!([])),
        403,
        "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"",
    );
    refused(
        create(node()),
        own_node(
            "n1",
            json!({"node-role.kubernetes.io/control-plane": "", "x.node-restriction.kubernetes.io/y": ""}),
            json!([]),
        ),
        403,
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: \
         node-role.kubernetes.io/control-plane, x.node-restriction.kubernetes.io/y",
    );
    refused(
        update(node(), "", &made),
        good,
        403,
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints",
    );
    let mut relabelled = made.clone();
    relabelled["metadata"]["labels"]["kubernetes.io/new"] = json!("");
    refused(
        update(node(), "status", &made),
        relabelled,
        403,
        "nodes \"n1\" is forbidden: is not allowed to modify labels: kubernetes.io/new",
    );
}

#[test]
fn nodes_write_what_is_bound_to_them() {
    let bound = |to: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "x"}, "spec": {"nodeName": to}});
    assert!(run(&update(node(), "status", &bound("n1")), &bound("n1")).is_ok());
    assert!(run(&delete(node(), &bound("n1")), &bound("n1")).is_ok());
    refused(
        update(node(), "status", &bound("n2")),
        bound("n2"),
        403,
        "pods \"p\" is forbidden: node \"n1\" can only update pod status for pods with spec.nodeName set to itself",
    );
    refused(
        delete(node(), &bound("n2")),
        bound("n2"),
        403,
        "pods \"p\" is forbidden: node \"n1\" can only delete pods with spec.nodeName set to itself",
    );
    let lease = |namespace: &str, name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": namespace}});
    assert!(run(&create(node()), &lease("kube-node-lease", "n1")).is_ok());
    refused(
        create(node()),
        lease("kube-node-lease", "n2"),
        403,
        "leases.coordination.k8s.io \"n2\" is forbidden: can only access node lease with the same name as the requesting node",
    );
    refused(
        create(node()),
        lease("x", "n1"),
        403,
        "leases.coordination.k8s.io \"n1\" is forbidden: can only access leases in the \"kube-node-lease\" system namespace",
    );
}

#[test]
fn nodes_make_mirror_pods_only() {
    let mut mirror = pod("x", json!({"nodeName": "n1", "containers": [{"name": "c"}]}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
    mirror["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "node1", "controller": true}]);
    assert!(run(&create(node()), &mirror).is_ok());
    let check = |change: &dyn Fn(&mut Value), message: &str| {
        let mut pod = mirror.clone();
        change(&mut pod);
        refused(create(node()), pod, 403, &format!("pods \"web\" is forbidden: {message}"));
    };
    check(
        &|p| p["spec"]["nodeName"] = json!("n2"),
        "node \"n1\" can only create pods with spec.nodeName set to itself",
    );
    check(
        &|p| p["metadata"]["ownerReferences"] = json!([]),
        "node \"n1\" can only create pods with an owner reference set to itself",
    );
    check(
        &|p| p["metadata"]["ownerReferences"][0]["uid"] = json!("other"),
        "node n1 UID mismatch: expected other got node1",
    );
    check(
        &|p| p["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]),
        "node \"n1\" can not create pods that reference secrets",
    );
    check(&|p| p["spec"]["serviceAccountName"] = json!("default"), "a mirror pod may not reference service accounts");
}

#[test]
fn nodes_ask_for_tokens_of_their_pods() {
    use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequestSpec};
    let objects: SharedObjects = objects();
    let check = |user: User, bound: Option<(&str, &str)>, expect: &str| {
        let reference = bound.map(|(name, uid)| BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(name.into()),
            uid: Some(uid.into()),
        });
        let spec = TokenRequestSpec { bound_object_ref: reference, ..TokenRequestSpec::default() };
        let got = node_restriction::token_request(&user, &objects, "x", "app", &spec);
        assert_eq!(got.map_or_else(|s| s.message().to_owned(), |()| String::new()), expect);
    };
    check(admin(), None, "");
    check(node(), Some(("p", "pod1")), "");
    check(node(), None, "serviceaccounts \"app\" is forbidden: node requested token not bound to a pod");
    check(
        node(),
        Some(("q", "pod2")),
        "serviceaccounts \"app\" is forbidden: node requested token bound to a pod scheduled on a different node",
    );
    check(node(), Some(("r", "u")), "pods \"r\" not found");
}

#[test]
fn nobody_grants_more_than_they_have() {
    let alice = || User::new("alice", &[SYSTEM_AUTHENTICATED]);
    let role = |namespace: &str, rules: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
               "metadata": {"name": "r", "namespace": namespace}, "rules": rules})
    };
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let bind = |name: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
               "metadata": {"name": "b", "namespace": "x"}, "subjects": [],
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}})
    };
    assert!(run(&create(alice()), &role("x", json!([rule("", "pods", &["get", "delete"])]))).is_ok());
    assert!(run(&create(alice()), &bind("view")).is_ok());
    let nodes =
        role("x", json!([rule("", "pods", &["get"]), rule("", "nodes", &["list", "get"]), rule("*", "*", &["*"])]));
    refused(
        create(alice()),
        nodes.clone(),
        403,
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"alice\" (groups=[\"system:authenticated\"]) is attempting \
         to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"list\" \"get\"]}\n\
         {APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}",
    );
    assert!(run(&create(admin()), &nodes).is_ok());
    assert!(run(&update(alice(), "", &nodes), &nodes).is_ok(), "nothing is granted by an update that changes no rule");
    let message = run(&create(alice()), &bind("cluster-admin")).unwrap_err().message().to_owned();
    assert!(message.contains("is attempting to grant RBAC permissions not currently held"), "{message}");
    refused(create(alice()), bind("gone"), 404, "clusterrole.rbac.authorization.k8s.io \"gone\" not found");
}

/// What one plugin, among these objects, makes of a write.
fn ask(plugin: &dyn Plugin, request: &Request<'_>, object: &Value) -> Result<Value, String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let cx = Context::new(request.user.clone());
    let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    let attributes = Attributes {
        cx: &cx,
        operation: request.operation,
        resource: find_kind(&text(&object["apiVersion"]), &text(&object["kind"])).unwrap(),
        subresource: request.subresource,
        namespace: &namespace,
        name: &name,
        old: request.old.as_ref(),
        dry_run: false,
    };
    let mut object = object.clone();
    plugin.mutate(&attributes, &mut object).map_err(|s| s.message().to_owned())?;
    plugin.validate(&attributes, Some(&object)).map_err(|s| s.message().to_owned())?;
    Ok(object)
}
