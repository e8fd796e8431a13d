//! Decides that a node writes only its own Node, Lease, and the pods bound to it, and gives itself no label or taint
//! that would steer pods to it.

use std::collections::BTreeSet;

use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::api::resource::{Resource, find};
use crate::api::status::Status;
use crate::api::user::User;
use crate::server::authz::node::identity;
use crate::server::objects::SharedObjects;

const MIRROR: &str = "kubernetes.io/config.mirror";
const NODE_RESTRICTION: &str = "node-restriction.kubernetes.io";
/// `k8s.io/kubelet/pkg/apis`: what a kubelet may say about itself.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "kubernetes.io/os",
    "kubernetes.io/arch",
];
const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub struct NodeRestriction {
    objects: SharedObjects,
}

impl NodeRestriction {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    fn check(&self, node: &str, a: &Attributes<'_>, object: Option<&Value>) -> Result<(), String> {
        match (a.resource.storage, a.subresource) {
            ("nodes", "" | "status") => own_node(node, a, object),
            ("coordination.k8s.io/leases", _) => own_lease(node, a, object),
            ("pods", "") => self.pod(node, a, object),
            ("pods", "status") => pod_status(node, a, object),
            ("pods", "eviction") => self.eviction(node, a),
            ("pods", other) => {
                Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
            }
            _ => Ok(()),
        }
    }

    fn pod(&self, node: &str, a: &Attributes<'_>, object: Option<&Value>) -> Result<(), String> {
        match (a.operation, object, a.old) {
            (Operation::Create, Some(pod), _) => self.mirror_pod(node, pod),
            (Operation::Delete, _, Some(pod)) if text(&pod["spec"]["nodeName"]) == node => Ok(()),
            (Operation::Delete, ..) => {
                Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
            }
            _ => Err(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods")),
        }
    }

    fn mirror_pod(&self, node: &str, pod: &Value) -> Result<(), String> {
        let spec = &pod["spec"];
        if pod["metadata"]["annotations"][MIRROR].is_null() {
            return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
        }
        if text(&spec["nodeName"]) != node {
            return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
        }
        let [owner] = pod["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
        };
        if text(&owner["apiVersion"]) != "v1" || text(&owner["kind"]) != "Node" || text(&owner["name"]) != node {
            return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        if owner["controller"].as_bool() != Some(true) {
            return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
        }
        if owner["blockOwnerDeletion"].as_bool() == Some(true) {
            return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        let stored = self.objects.get("nodes", "", node).ok_or_else(|| format!("nodes {node:?} not found"))?;
        if text(&owner["uid"]) != &*stored.head.uid {
            let (expected, got) = (text(&owner["uid"]), &stored.head.uid);
            return Err(format!("node {node} UID mismatch: expected {expected} got {got}"));
        }
        if !text(&spec["serviceAccountName"]).is_empty() {
            return Err(format!("node {node:?} can not create pods that reference a service account"));
        }
        match foreign_reference(spec) {
            Some(kind) => Err(format!("node {node:?} can not create pods that reference {kind}")),
            None => Ok(()),
        }
    }

    fn eviction(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        let pod = self.objects.get("pods", a.namespace, a.name);
        let here = pod.is_some_and(|p| p.head.fields.first().is_some_and(|f| **f == *node));
        if here { Ok(()) } else { Err(format!("node {node} can only evict pods with spec.nodeName set to itself")) }
    }
}

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        self.validate(attributes, Some(object))
    }

    /// Upstream checks only while mutating. Deletes are only validated here, and nothing that later plugins do makes a good
    /// write of a node a bad one, except what the server adds to a new Node itself.
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(node) = identity(&attributes.cx.user) else { return Ok(()) };
        self.check(node, attributes, object).map_err(|why| attributes.forbidden(object, &why))
    }
}

/// A node asks for tokens of service accounts only for pods that run on it.
///
/// # Errors
/// 403 with upstream's words.
pub fn token_request(
    user: &User,
    objects: &SharedObjects,
    namespace: &str,
    account: &str,
    spec: &TokenRequestSpec,
) -> Result<(), Status> {
    let Some(node) = identity(user) else { return Ok(()) };
    let row: &Resource = find("", "v1", "serviceaccounts").ok_or_else(Status::no_such_resource)?;
    let refuse = |why: &str| Err(Status::forbidden(row, account, why));
    let reference = spec.bound_object_ref.as_ref();
    let field = |f: Option<&String>| f.map(String::as_str).unwrap_or_default().to_owned();
    let Some(reference) = reference
        .filter(|r| field(r.api_version.as_ref()) == "v1" && field(r.kind.as_ref()) == "Pod" && r.name.is_some())
    else {
        return refuse("node requested token not bound to a pod");
    };
    let (name, uid) = (field(reference.name.as_ref()), field(reference.uid.as_ref()));
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let Some(pod) = objects.get("pods", namespace, &name) else {
        return Err(Status::not_found(find("", "v1", "pods").ok_or_else(Status::no_such_resource)?, &name));
    };
    if *pod.head.uid != *uid {
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        ));
    }
    if pod.head.fields.first().is_none_or(|f| **f != *node) {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    Ok(())
}

fn own_node(node: &str, a: &Attributes<'_>, object: Option<&Value>) -> Result<(), String> {
    let given = object.map(|o| text(&o["metadata"]["name"])).unwrap_or_default();
    let name = if a.name.is_empty() { given } else { a.name };
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = object else { return Ok(()) };
    let list = |labels: BTreeSet<&str>| labels.into_iter().collect::<Vec<_>>().join(", ");
    match (a.operation, a.old) {
        (Operation::Create, _) => {
            let forbidden = forbidden_labels(new, &Value::Null);
            if !forbidden.is_empty() {
                let forbidden = list(forbidden);
                return Err(format!("node {node:?} is not allowed to set the following labels: {forbidden}"));
            }
        }
        (Operation::Update, Some(old)) => {
            let taints = |o: &Value| o["spec"]["taints"].as_array().cloned().unwrap_or_default();
            if taints(new) != taints(old) {
                return Err(format!("node {node:?} is not allowed to modify taints"));
            }
            let forbidden = forbidden_labels(new, old);
            if !forbidden.is_empty() {
                return Err(format!("is not allowed to modify labels: {}", list(forbidden)));
            }
        }
        _ => {}
    }
    Ok(())
}

fn own_lease(node: &str, a: &Attributes<'_>, object: Option<&Value>) -> Result<(), String> {
    if a.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".into());
    }
    let given = object.map(|o| text(&o["metadata"]["name"])).unwrap_or_default();
    let name = if a.name.is_empty() { given } else { a.name };
    if name != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn pod_status(node: &str, a: &Attributes<'_>, object: Option<&Value>) -> Result<(), String> {
    let Some(old) = a.old else { return Err("unexpected operation".into()) };
    if text(&old["spec"]["nodeName"]) != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    let labels = |o: &Value| o["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    if object.is_some_and(|new| labels(new) != labels(old)) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |o: &Value| o["status"]["resourceClaimStatuses"].as_array().cloned().unwrap_or_default();
    if object.is_some_and(|new| claims(new) != claims(old)) {
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    let extended = |o: &Value| o["status"]["extendedResourceClaimStatus"].clone();
    if object.is_some_and(|new| extended(new) != extended(old)) {
        return Err(format!("node {node:?} cannot update extended resource claim status"));
    }
    Ok(())
}

/// Labels that differ and that a node may not set.
fn forbidden_labels<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let labels = |o: &'a Value| o["metadata"]["labels"].as_object();
    let (new, old) = (labels(new), labels(old));
    let keys = new.into_iter().chain(old).flat_map(|l| l.keys());
    keys.filter(|k| new.and_then(|l| l.get(*k)) != old.and_then(|l| l.get(*k)))
        .map(String::as_str)
        .filter(|k| is_forbidden(k))
        .collect()
}

fn is_forbidden(label: &str) -> bool {
    let namespace = label.split_once('/').map(|(n, _)| n).unwrap_or_default();
    let within = |of: &str| namespace == of || namespace.strip_suffix(of).is_some_and(|n| n.ends_with('.'));
    let kubelet = KUBELET_LABELS.contains(&label) || KUBELET_NAMESPACES.iter().any(|n| within(n));
    within(NODE_RESTRICTION) || (within("kubernetes.io") || within("k8s.io")) && !kubelet
}

/// The kind of another API object that a pod refers to, in upstream's plural.
fn foreign_reference(spec: &Value) -> Option<&'static str> {
    let any = |v: &Value, test: &dyn Fn(&Value) -> bool| v.as_array().is_some_and(|a| a.iter().any(test));
    let containers = |test: &dyn Fn(&Value) -> bool| {
        ["initContainers", "containers", "ephemeralContainers"].iter().any(|c| any(&spec[*c], test))
    };
    let environment = |all: &str, key: &str| {
        containers(&|c| {
            any(&c["envFrom"], &|e| !e[all].is_null()) || any(&c["env"], &|e| !e["valueFrom"][key].is_null())
        })
    };
    let volume = |source: &str| any(&spec["volumes"], &|v| !v[source].is_null());
    let projected =
        |source: &str| any(&spec["volumes"], &|v| any(&v["projected"]["sources"], &|s| !s[source].is_null()));
    let pulls = any(&spec["imagePullSecrets"], &|_| true);
    if pulls || environment("secretRef", "secretKeyRef") || volume("secret") || projected("secret") {
        return Some("secrets");
    }
    if environment("configMapRef", "configMapKeyRef") || volume("configMap") || projected("configMap") {
        return Some("configmaps");
    }
    if projected("clusterTrustBundle") {
        return Some("clustertrustbundles");
    }
    volume("persistentVolumeClaim").then_some("persistentvolumeclaims")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
