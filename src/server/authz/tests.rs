//! The golden table of who may do what on a new cluster.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::api::user::{SYSTEM_AUTHENTICATED, SYSTEM_NODES};
use crate::server::objects::fake::Fake;

fn cluster() -> (Arc<Fake>, Authorizer) {
    let objects = Fake::new(policy::aggregated());
    let pod = |name: &str, node: &str, volume: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "x"}, "spec": {
            "nodeName": node, "serviceAccountName": "app", "volumes": [volume],
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": format!("{name}-env")}}]}]}})
    };
    objects.put(pod("p1", "n1", json!({"name": "v", "secret": {"secretName": "s1"}})));
    objects.put(pod("p2", "n2", json!({"name": "v", "projected": {"sources": [{"secret": {"name": "s2"}}]}})));
    objects.put(pod("p3", "n1", json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}})));
    objects.put(pod("p4", "n1", json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}})));
    for (volume, claim) in [("pv1", "data"), ("pv2", "p4-scratch"), ("pv3", "other")] {
        objects.put(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
            "spec": {"claimRef": {"namespace": "x", "name": claim},
                "iscsi": {"iqn": "i", "secretRef": {"name": format!("{volume}-chap")}}}}));
    }
    objects.put(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv4"}, "spec": {
        "claimRef": {"namespace": "x", "name": "data"}, "csi": {"driver": "d", "volumeHandle": "h",
            "nodeStageSecretRef": {"namespace": "storage", "name": "stage"},
            "controllerPublishSecretRef": {"namespace": "storage", "name": "controllers"}}}}));
    objects.put(json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "a1"},
        "spec": {"attacher": "x.io", "nodeName": "n1", "source": {"persistentVolumeName": "pv1"}}}));
    let binding = |kind: &str, namespace: &str, name: &str, role: &str, subject: Value| {
        let mut object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [subject]});
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object
    };
    let user = |name: &str| json!({"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"});
    objects.put(binding("RoleBinding", "x", "alice", "edit", user("alice")));
    objects.put(binding("ClusterRoleBinding", "", "bob", "view", user("bob")));
    objects.put(binding("ClusterRoleBinding", "", "carol", "gone", user("carol")));
    objects.put(binding("RoleBinding", "x", "app", "admin", json!({"kind": "ServiceAccount", "name": "app"})));
    let authorizer = Authorizer::new(objects.clone());
    (objects, authorizer)
}

fn who(name: &str) -> User {
    match name {
        "anonymous" => User::anonymous(),
        "admin" => User::new("system:admin", &[SYSTEM_MASTERS, SYSTEM_AUTHENTICATED]),
        n if n.starts_with('n') => User::new(&format!("system:node:{n}"), &[SYSTEM_NODES, SYSTEM_AUTHENTICATED]),
        "app" => User::new(
            "system:serviceaccount:x:app",
            &["system:serviceaccounts", "system:serviceaccounts:x", SYSTEM_AUTHENTICATED],
        ),
        other => User::new(other, &[SYSTEM_AUTHENTICATED]),
    }
}

/// `verb group/resource/subresource ns/name field=value` or `verb path`.
fn ask(authorizer: &Authorizer, user: &str, request: &str) -> Decision {
    let words: Vec<&str> = request.split(' ').collect();
    if words[1].starts_with('/') {
        return authorizer.authorize(&who(user), &Attributes::Path { verb: words[0], path: words[1] });
    }
    let mut what = words[1].split('/');
    let (namespace, name) = words.get(2).and_then(|w| w.split_once('/')).unwrap_or_default();
    let fields = words.get(3).map(|f| FieldSelector::parse(f).unwrap());
    let attributes = ResourceAttributes {
        verb: words[0],
        group: what.next().map(|g| if g == "core" { "" } else { g }).unwrap(),
        resource: what.next().unwrap(),
        subresource: what.next().unwrap_or_default(),
        namespace,
        name,
        fields: fields.as_ref(),
    };
    authorizer.authorize(&who(user), &Attributes::Resource(attributes))
}

const TABLE: &str = "
anonymous  yes  get /healthz
anonymous  yes  get /livez
anonymous  yes  get /readyz
anonymous  yes  get /version
anonymous  no   get /api
anonymous  no   get /apis/apps/v1
anonymous  no   get /openapi/v2
anonymous  no   get /metrics
anonymous  no   list core/pods x/
alice      yes  get /api/v1
alice      yes  get /openapi/v3
alice      no   get /metrics
alice      no   post /api/v1
alice      yes  list core/pods x/
alice      yes  create apps/deployments x/
alice      yes  get core/secrets x/s
alice      yes  patch apps/deployments/scale x/web
alice      yes  create core/pods/exec x/p
alice      no   list core/pods y/
alice      no   list core/pods
alice      no   create rbac.authorization.k8s.io/rolebindings x/
alice      no   list core/nodes
alice      yes  create authorization.k8s.io/selfsubjectaccessreviews
bob        yes  list core/pods
bob        yes  get core/pods/log y/p
bob        no   get core/secrets y/s
bob        no   delete core/pods y/p
carol      no   list core/pods   # RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found
app        yes  create rbac.authorization.k8s.io/roles x/
app        no   create rbac.authorization.k8s.io/roles y/
admin      yes  get /metrics
admin      yes  anything whatever.io/things y/z
n1         yes  get core/secrets x/s1
n1         no   get core/secrets x/s2   # no relationship found between node 'n1' and this object
n2         yes  get core/secrets x/s2
n1         yes  get core/secrets x/pv1-chap
n1         no   get core/secrets y/pv1-chap   # no relationship found between node 'n1' and this object
n1         no   get core/secrets x/pv3-chap   # no relationship found between node 'n1' and this object
n2         no   get core/secrets x/pv1-chap   # no relationship found between node 'n2' and this object
n1         yes  get core/secrets storage/stage
n1         no   get core/secrets storage/controllers   # no relationship found between node 'n1' and this object
n1         yes  watch core/configmaps x/ metadata.name=p1-env
n1         no   list core/configmaps x/   # No Object name found
n1         no   list core/secrets   # can only read namespaced object of this type
n1         no   delete core/secrets x/s1   # can only read resources of this type
n1         yes  create core/serviceaccounts/token x/app
n1         no   create core/serviceaccounts/token x/other   # no relationship found between node 'n1' and this object
n1         yes  get core/persistentvolumeclaims x/data
n1         yes  get core/persistentvolumeclaims x/p4-scratch
n2         no   get core/persistentvolumeclaims x/data   # no relationship found between node 'n2' and this object
n2         no   get core/persistentvolumeclaims x/p4-scratch   # no relationship found between node 'n2' and this object
n1         no   get core/persistentvolumeclaims x/p4-other   # no relationship found between node 'n1' and this object
n1         no   list core/persistentvolumeclaims x/   # can only get individual resources of this type
n1         yes  get core/persistentvolumes /pv1
n1         yes  get core/persistentvolumes /pv2
n1         no   get core/persistentvolumes /pv3   # no relationship found between node 'n1' and this object
n2         no   get core/persistentvolumes /pv1   # no relationship found between node 'n2' and this object
n1         no   list core/persistentvolumes   # can only get individual resources of this type
n1         yes  get storage.k8s.io/volumeattachments /a1
n1         no   get storage.k8s.io/volumeattachments /a2   # no relationship found between node 'n1' and this object
n2         no   get storage.k8s.io/volumeattachments /a1   # no relationship found between node 'n2' and this object
n1         no   list storage.k8s.io/volumeattachments   # can only get individual resources of this type
n1         yes  list core/pods / spec.nodeName=n1
n1         no   list core/pods / spec.nodeName=n2   # can only list/watch pods with spec.nodeName field selector
n1         yes  get core/pods x/p1
n1         no   get core/pods x/p2   # no relationship found between node 'n1' and this object
n1         yes  patch core/pods/status x/p1
n1         yes  get core/nodes /n1
n1         yes  get core/nodes /n2
n1         no   delete core/nodes /n1
n1         no   delete core/nodes /n2
n1         yes  update coordination.k8s.io/leases kube-node-lease/n1
n1         no   update coordination.k8s.io/leases kube-node-lease/n2   # can only access node lease with the same name as the requesting node
n1         no   update coordination.k8s.io/leases x/n1   # can only access leases in the \"kube-node-lease\" system namespace
n1         yes  create core/events x/
n1         yes  list core/services
n1         yes  list core/endpoints
n1         no   update core/endpoints x/
n1         no   list core/namespaces
";

#[test]
fn who_may_do_what() {
    let (_, authorizer) = cluster();
    let mut got = String::from("\n");
    for line in TABLE.lines().filter(|l| !l.is_empty()) {
        let (rest, _) = line.split_once("   # ").unwrap_or((line, ""));
        let (user, request) = (rest[..11].trim(), rest[16..].trim());
        let (answer, why) = match ask(&authorizer, user, request) {
            Decision::Allow => ("yes", String::new()),
            Decision::Deny(why) => ("no", why),
        };
        let why = if why.is_empty() { why } else { format!("   # {why}") };
        writeln!(got, "{user:<10} {answer:<4} {request}{why}").unwrap();
    }
    assert_eq!(got, TABLE);
}

/// The node authorizer alone lets a node read its own Node object only. That nodes read each other's, Services and
/// Endpoints comes from the binding `skiff:node-proxier`: the proxy and the overlay of a node act as the node.
#[test]
fn other_nodes_are_read_through_a_role() {
    let (objects, authorizer) = cluster();
    let other = ResourceAttributes {
        verb: "get",
        group: "",
        resource: "nodes",
        subresource: "",
        namespace: "",
        name: "n2",
        fields: None,
    };
    let reason = "node 'n1' cannot read 'n2', only its own Node object";
    let alone = node::NodeAuthorizer::new(objects.clone());
    let opinion = alone.authorize(&who("n1"), &Attributes::Resource(other));
    assert_eq!(opinion, node::Opinion::None(reason.into()));
    objects.remove(snapshot::CLUSTER_BINDINGS, "", "skiff:node-proxier");
    assert_eq!(ask(&authorizer, "n1", "get core/nodes /n2"), Decision::Deny(reason.into()));
    assert_eq!(ask(&authorizer, "n1", "list core/endpoints"), Decision::Deny(String::new()));
}

#[test]
fn a_change_counts_at_once() {
    let (objects, authorizer) = cluster();
    assert_eq!(ask(&authorizer, "bob", "list core/pods"), Decision::Allow);
    objects.remove(snapshot::CLUSTER_BINDINGS, "", "bob");
    assert_eq!(ask(&authorizer, "bob", "list core/pods"), Decision::Deny(String::new()));
}

#[test]
fn refusals_in_upstreams_words() {
    let check = |attributes: ResourceAttributes<'_>, reason: &str, expect: &str| {
        let status = forbidden(&who("x"), &Attributes::Resource(attributes), reason);
        assert_eq!((status.code(), status.message()), (403, expect));
    };
    let pods = ResourceAttributes { verb: "list", resource: "pods", namespace: "default", ..Default::default() };
    check(
        pods,
        "",
        "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
    );
    check(
        ResourceAttributes { verb: "get", subresource: "log", name: "p", ..pods },
        "",
        "pods \"p\" is forbidden: User \"x\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"default\"",
    );
    check(
        ResourceAttributes { verb: "list", group: "apps", resource: "deployments", ..Default::default() },
        "RBAC: why",
        "deployments.apps is forbidden: User \"x\" cannot list resource \"deployments\" in API group \"apps\" at the cluster \
         scope: RBAC: why",
    );
    let status = forbidden(&User::anonymous(), &Attributes::Path { verb: "get", path: "/metrics" }, "");
    assert_eq!(status.message(), "forbidden: User \"system:anonymous\" cannot get path \"/metrics\"");
}

#[test]
fn rules_of_a_user_can_be_listed() {
    let (_, authorizer) = cluster();
    let status = authorizer.rbac().review(&who("bob"), "y");
    assert!(status.resource_rules.iter().any(|r| r.resources.iter().flatten().any(|x| x == "pods/log")));
    assert!(status.non_resource_rules.iter().any(|r| r.non_resource_urls.iter().flatten().any(|x| x == "/healthz")));
    assert!(!status.incomplete);
    assert!(authorizer.rbac().review(&who("n1"), "y").incomplete);
}
