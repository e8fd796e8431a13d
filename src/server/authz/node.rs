//! Decides what a node may do: read the Secrets, ConfigMaps, claims, volumes and pods that pods on it use, ask for tokens of their service
//! accounts, write its own Node, Lease and pods' status. Everything else by the rules of the `system:node` role.
//!
//! (`plugin/pkg/auth/authorizer/node`; the relations come from the pods in the cache instead of a graph.)

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use super::policy::CLUSTER_ROLES;
use super::{Attributes, ResourceAttributes, rules};
use crate::api::object::Object;
use crate::api::user::{SYSTEM_NODES, User};
use crate::server::objects::SharedObjects;

/// The name of the node that a user is.
#[must_use]
pub fn identity(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.in_group(SYSTEM_NODES))
}

/// `None` leaves it to the next authorizer, with what could be said about why.
#[derive(Debug, PartialEq, Eq)]
pub enum Opinion {
    Allow,
    None(String),
}

pub struct NodeAuthorizer {
    objects: SharedObjects,
    rules: Vec<PolicyRule>,
}

impl NodeAuthorizer {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        let role = CLUSTER_ROLES.iter().find(|r| r.name() == "system:node");
        Self { objects, rules: role.map(|r| r.rules()).unwrap_or_default() }
    }

    #[must_use]
    pub fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Opinion {
        let Some(node) = identity(user) else { return none("") };
        if node.is_empty() {
            return none(format!("unknown node for user {:?}", user.name));
        }
        if let Attributes::Resource(a) = attributes {
            match (a.group, a.resource) {
                ("", "secrets") => return self.read(node, a, Kind::Secret),
                ("", "configmaps") => return self.read(node, a, Kind::ConfigMap),
                ("", "persistentvolumeclaims") => return self.claim(node, a),
                ("", "persistentvolumes") => return self.volume(node, a),
                ("", "serviceaccounts") => return self.service_account(node, a),
                ("", "nodes") => return own_node(node, a),
                ("", "pods") => return self.pod(node, a),
                ("coordination.k8s.io", "leases") => return own_lease(node, a),
                ("storage.k8s.io", "csinodes") => return own_csi_node(node, a),
                ("storage.k8s.io", "volumeattachments") => return self.attachment(node, a),
                _ => {}
            }
        }
        if self.rules.iter().any(|r| rules::allows(r, attributes)) { Opinion::Allow } else { none("") }
    }

    fn read(&self, node: &str, a: &ResourceAttributes<'_>, kind: Kind) -> Opinion {
        if !matches!(a.verb, "get" | "list" | "watch") {
            return none("can only read resources of this type");
        }
        if !a.subresource.is_empty() {
            return none("cannot read subresource");
        }
        if a.namespace.is_empty() {
            return none("can only read namespaced object of this type");
        }
        self.related(node, a, kind)
    }

    fn claim(&self, node: &str, a: &ResourceAttributes<'_>) -> Opinion {
        match (a.subresource, a.verb) {
            ("", "get") | ("status", "update" | "patch") => self.related(node, a, Kind::Claim),
            ("status", _) => none("can only update or patch the status of this type"),
            _ => none("can only get individual resources of this type"),
        }
    }

    /// Those that are bound to a claim of a pod on the node.
    fn volume(&self, node: &str, a: &ResourceAttributes<'_>) -> Opinion {
        if (a.verb, a.subresource) != ("get", "") {
            return none("can only get individual resources of this type");
        }
        let volume = self.objects.get("persistentvolumes", "", a.name);
        let of = volume.and_then(|v| Some(v.value().ok()?["spec"]["claimRef"].clone()));
        match of.as_ref().map(|of| (of["namespace"].as_str(), of["name"].as_str())) {
            Some((Some(namespace), Some(name))) => {
                self.related(node, &ResourceAttributes { namespace, name, ..*a }, Kind::Claim)
            }
            _ => unrelated(node),
        }
    }

    /// Those of volumes to the node itself.
    fn attachment(&self, node: &str, a: &ResourceAttributes<'_>) -> Opinion {
        if (a.verb, a.subresource) != ("get", "") {
            return none("can only get individual resources of this type");
        }
        let attachment = self.objects.get("storage.k8s.io/volumeattachments", "", a.name);
        let of = attachment.and_then(|attachment| attachment.value().ok());
        if of.is_some_and(|of| of["spec"]["nodeName"] == node) { Opinion::Allow } else { unrelated(node) }
    }

    fn service_account(&self, node: &str, a: &ResourceAttributes<'_>) -> Opinion {
        match (a.verb, a.subresource) {
            ("create", "token") if a.name.is_empty() => none("can only create tokens for individual service accounts"),
            ("create", "token") | ("get", "") => self.related(node, a, Kind::ServiceAccount),
            _ => none("can only get individual service accounts and create tokens for them"),
        }
    }

    fn related(&self, node: &str, a: &ResourceAttributes<'_>, kind: Kind) -> Opinion {
        let name = object_name(a);
        if name.is_empty() {
            return none("No Object name found");
        }
        let related = self.objects.list("pods", Some(a.namespace)).iter().any(|pod| {
            // Decoding is the costly part: most pods don't even hold the name.
            let named = mentions(pod, name) || (kind == Kind::Claim && may_be_ephemeral(pod, name));
            on_node(pod, node) && named && pod.value().is_ok_and(|pod| uses(&pod, kind, name))
        });
        let related = related || (kind == Kind::Secret && self.is_secret_of_volume(node, a, name));
        if related { Opinion::Allow } else { unrelated(node) }
    }

    /// A volume names it that is bound to a claim of a pod on the node (`pkg/api/persistentvolume`, VisitPVSecretNames).
    fn is_secret_of_volume(&self, node: &str, a: &ResourceAttributes<'_>, name: &str) -> bool {
        self.objects.list("persistentvolumes", None).iter().any(|volume| {
            let Some(volume) = mentions(volume, name).then(|| volume.value().ok()).flatten() else { return false };
            let claim = &volume["spec"]["claimRef"];
            let (Some(namespace), Some(of)) = (claim["namespace"].as_str(), claim["name"].as_str()) else {
                return false;
            };
            names_secret(&volume["spec"], namespace, (a.namespace, name))
                && matches!(
                    self.related(node, &ResourceAttributes { namespace, name: of, ..*a }, Kind::Claim),
                    Opinion::Allow
                )
        })
    }

    fn pod(&self, node: &str, a: &ResourceAttributes<'_>) -> Opinion {
        match (a.subresource, a.verb) {
            ("", "get") => match self.objects.get("pods", a.namespace, a.name) {
                Some(pod) if on_node(&pod, node) => Opinion::Allow,
                _ => unrelated(node),
            },
            ("", "list" | "watch") => {
                if a.fields.is_some_and(|f| f.exact("spec.nodeName") == Some(node)) {
                    Opinion::Allow
                } else if !a.name.is_empty() {
                    self.pod(node, &ResourceAttributes { verb: "get", ..*a })
                } else {
                    none("can only list/watch pods with spec.nodeName field selector")
                }
            }
            // The NodeRestriction admission plugin looks at the objects.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Opinion::Allow,
            _ => none(""),
        }
    }
}

fn own_node(node: &str, a: &ResourceAttributes<'_>) -> Opinion {
    match (a.subresource, a.verb) {
        ("", "get" | "list" | "watch") if object_name(a) == node => Opinion::Allow,
        ("", "get" | "list" | "watch") => {
            none(format!("node '{node}' cannot read '{}', only its own Node object", object_name(a)))
        }
        // The NodeRestriction admission plugin looks at the objects.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Opinion::Allow,
        _ => none(""),
    }
}

fn own_lease(node: &str, a: &ResourceAttributes<'_>) -> Opinion {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return none("can only get, create, update, patch, or delete a node lease");
    }
    if a.namespace != "kube-node-lease" {
        return none("can only access leases in the \"kube-node-lease\" system namespace");
    }
    if a.verb != "create" && a.name != node {
        return none("can only access node lease with the same name as the requesting node");
    }
    Opinion::Allow
}

fn own_csi_node(node: &str, a: &ResourceAttributes<'_>) -> Opinion {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return none("can only get, create, update, patch, or delete a CSINode");
    }
    if !a.subresource.is_empty() {
        return none("cannot authorize CSINode subresources");
    }
    if a.verb != "create" && a.name != node {
        return none("can only access CSINode with the same name as the requesting node");
    }
    Opinion::Allow
}

fn none(reason: impl Into<String>) -> Opinion {
    Opinion::None(reason.into())
}

fn unrelated(node: &str) -> Opinion {
    none(format!("no relationship found between node '{node}' and this object"))
}

/// The object that a request names, be it by the field selector of a list.
fn object_name<'a>(a: &ResourceAttributes<'a>) -> &'a str {
    if a.name.is_empty() { a.fields.and_then(|f| f.exact("metadata.name")).unwrap_or_default() } else { a.name }
}

/// `spec.nodeName` is the first selectable field of pods.
fn on_node(pod: &Object, node: &str) -> bool {
    pod.head.fields.first().is_some_and(|f| **f == *node)
}

/// The claim of a generic ephemeral volume is named after its pod and the volume, so the pod does not hold its name.
fn may_be_ephemeral(pod: &Object, claim: &str) -> bool {
    claim.strip_prefix(&*pod.key.name).is_some_and(|rest| rest.starts_with('-'))
}

fn mentions(pod: &Object, name: &str) -> bool {
    pod.json.windows(name.len()).any(|w| w == name.as_bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
}

/// The pod refers to the object (`pkg/api/v1/pod`, VisitPodSecretNames and VisitPodConfigmapNames).
fn uses(pod: &Value, kind: Kind, name: &str) -> bool {
    let spec = &pod["spec"];
    let is = |v: &Value| v.as_str() == Some(name);
    let each = |v: &Value, test: &dyn Fn(&Value) -> bool| v.as_array().is_some_and(|a| a.iter().any(test));
    let containers = |test: &dyn Fn(&Value) -> bool| {
        ["initContainers", "containers", "ephemeralContainers"].iter().any(|c| each(&spec[*c], test))
    };
    let environment = |source: &str, key: &str| {
        containers(&|c| {
            each(&c["envFrom"], &|e| is(&e[source]["name"])) || each(&c["env"], &|e| is(&e["valueFrom"][key]["name"]))
        })
    };
    let volumes = |test: &dyn Fn(&Value) -> bool| each(&spec["volumes"], test);
    let projected = |source: &str| volumes(&|v| each(&v["projected"]["sources"], &|s| is(&s[source]["name"])));
    match kind {
        Kind::ServiceAccount => is(&spec["serviceAccountName"]),
        Kind::ConfigMap => {
            environment("configMapRef", "configMapKeyRef")
                || volumes(&|v| is(&v["configMap"]["name"]))
                || projected("configMap")
        }
        Kind::Secret => {
            each(&spec["imagePullSecrets"], &|s| is(&s["name"]))
                || environment("secretRef", "secretKeyRef")
                || volumes(&|v| is(&v["secret"]["secretName"]) || any_secret_reference(v, name))
                || projected("secret")
        }
        Kind::Claim => {
            volumes(&|v| is(&v["persistentVolumeClaim"]["claimName"]))
                || volumes(&|v| {
                    let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
                    !v["ephemeral"].is_null() && format!("{pod}-{}", v["name"].as_str().unwrap_or_default()) == name
                })
        }
    }
}

/// Whether a volume's type names a Secret that is for nodes. `default`: the namespace where none is said.
fn names_secret(spec: &Value, default: &str, secret: (&str, &str)) -> bool {
    let is = |namespace: &Value, name: &Value| {
        let namespace = namespace.as_str().filter(|namespace| !namespace.is_empty()).unwrap_or(default);
        (namespace, name.as_str().unwrap_or_default()) == secret
    };
    spec.as_object().is_some_and(|sources| {
        sources.values().any(|source| {
            let references = ["secretRef", "nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"];
            references.iter().any(|key| is(&source[*key]["namespace"], &source[*key]["name"]))
                || is(&source["secretNamespace"], &source["secretName"])
        })
    })
}

/// Secrets of storage drivers: `csi.nodePublishSecretRef`, `cephfs.secretRef` and their like.
fn any_secret_reference(volume: &Value, name: &str) -> bool {
    volume.as_object().is_some_and(|sources| {
        sources.values().any(|s| {
            ["secretRef", "nodePublishSecretRef", "secretName"]
                .iter()
                .any(|key| s[*key].as_str() == Some(name) || s[*key]["name"].as_str() == Some(name))
        })
    })
}
