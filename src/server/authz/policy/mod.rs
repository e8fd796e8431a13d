//! Types: the default roles and bindings of a cluster, as a table, and the objects that it stands for.
//!
//! Words are separated by spaces; `core` is the core API group. [`super::bootstrap`] writes what is here.

mod cluster;
mod controllers;
mod namespaced;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use serde_json::{Value, json};

pub use cluster::CLUSTER_ROLES;
pub use controllers::CONTROLLER_ROLES;
pub use namespaced::{BINDINGS, ROLES};

pub const API_GROUP: &str = "rbac.authorization.k8s.io";
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: &str = "kubernetes.io/bootstrapping";

#[derive(Clone, Copy, Debug)]
pub struct Rule {
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    urls: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Empty: a ClusterRole.
    pub namespace: &'static str,
    prefix: &'static str,
    name: &'static str,
    rules: &'static [Rule],
    /// Labels `aggregate-to-<each of these>`.
    part_of: &'static str,
    /// Selects what is part of this.
    aggregates: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub enum Who {
    User(&'static str),
    Group(&'static str),
    /// Namespace and name.
    ServiceAccount(&'static str, &'static str),
}

#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Empty: a ClusterRoleBinding.
    pub namespace: &'static str,
    pub name: &'static str,
    role: &'static str,
    subjects: &'static [Who],
}

const fn rule(verbs: &'static str, groups: &'static str, resources: &'static str) -> Rule {
    Rule { verbs, groups, resources, names: "", urls: "" }
}

const fn named(verbs: &'static str, groups: &'static str, resources: &'static str, names: &'static str) -> Rule {
    Rule { verbs, groups, resources, names, urls: "" }
}

const fn urls(verbs: &'static str, urls: &'static str) -> Rule {
    Rule { verbs, groups: "", resources: "", names: "", urls }
}

const fn role(name: &'static str, rules: &'static [Rule]) -> Role {
    Role { namespace: "", prefix: "", name, rules, part_of: "", aggregates: "" }
}

const fn controller(name: &'static str, rules: &'static [Rule]) -> Role {
    Role { prefix: "system:controller:", ..role(name, rules) }
}

const fn namespaced(name: &'static str, namespace: &'static str, rules: &'static [Rule]) -> Role {
    Role { namespace, ..role(name, rules) }
}

const fn aggregate(name: &'static str, aggregates: &'static str, part_of: &'static str) -> Role {
    Role { aggregates, part_of, ..role(name, &[]) }
}

const fn binding(namespace: &'static str, name: &'static str, role: &'static str, subjects: &'static [Who]) -> Binding {
    Binding { namespace, name, role, subjects }
}

impl Rule {
    fn policy(&self) -> PolicyRule {
        let words = |text: &str| -> Option<Vec<String>> {
            let words = text.split_whitespace().map(|w| if w == "core" { String::new() } else { w.to_owned() });
            Some(words.collect::<Vec<_>>()).filter(|w| !w.is_empty())
        };
        PolicyRule {
            verbs: words(self.verbs).unwrap_or_default(),
            api_groups: words(self.groups),
            resources: words(self.resources),
            resource_names: words(self.names),
            non_resource_urls: words(self.urls),
        }
    }
}

impl Role {
    const fn part_of(self, aggregate: &'static str) -> Self {
        Self { part_of: aggregate, ..self }
    }

    #[must_use]
    pub fn name(&self) -> String {
        format!("{}{}", self.prefix, self.name)
    }

    #[must_use]
    pub fn is_aggregate(&self) -> bool {
        !self.aggregates.is_empty()
    }

    /// Its own rules. Those of an aggregate are put together in the cluster, where others may have added parts.
    #[must_use]
    pub fn rules(&self) -> Vec<PolicyRule> {
        self.rules.iter().map(Rule::policy).collect()
    }

    /// The whole object.
    #[must_use]
    pub fn object(&self) -> Value {
        let kind = if self.namespace.is_empty() { "ClusterRole" } else { "Role" };
        let mut object = object(kind, self.namespace, &self.name());
        if !self.is_aggregate() {
            object["rules"] = json!(self.rules());
        }
        for aggregate in self.part_of.split_whitespace() {
            object["metadata"]["labels"][aggregate_label(aggregate)] = json!("true");
        }
        if self.is_aggregate() {
            let label = aggregate_label(self.aggregates);
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        }
        object
    }
}

impl Binding {
    #[must_use]
    pub fn object(&self) -> Value {
        let subjects: Vec<Subject> = self.subjects.iter().map(Who::subject).collect();
        binding_object(self.namespace, self.name, self.role, &subjects)
    }
}

impl Who {
    fn subject(&self) -> Subject {
        let rbac = |kind: &str, name: &str| Subject {
            api_group: Some(API_GROUP.into()),
            kind: kind.into(),
            name: name.into(),
            namespace: None,
        };
        match self {
            Self::User(name) => rbac("User", name),
            Self::Group(name) => rbac("Group", name),
            Self::ServiceAccount(namespace, name) => Subject {
                api_group: None,
                kind: "ServiceAccount".into(),
                name: (*name).into(),
                namespace: Some((*namespace).into()),
            },
        }
    }
}

/// Every default object, roles before bindings.
#[must_use]
pub fn objects() -> Vec<Value> {
    let controllers = CONTROLLER_ROLES.iter().map(|role| {
        let subject = Who::ServiceAccount("kube-system", role.name).subject();
        binding_object("", &role.name(), &role.name(), &[subject])
    });
    let roles = CLUSTER_ROLES.iter().chain(CONTROLLER_ROLES).chain(ROLES).map(Role::object);
    roles.chain(BINDINGS.iter().map(Binding::object)).chain(controllers).collect()
}

fn object(kind: &str, namespace: &str, name: &str) -> Value {
    let mut metadata = json!({
        "name": name,
        "annotations": {AUTOUPDATE: "true"},
        "labels": {BOOTSTRAPPING: "rbac-defaults"},
    });
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    json!({"apiVersion": format!("{API_GROUP}/v1"), "kind": kind, "metadata": metadata})
}

fn binding_object(namespace: &str, name: &str, role: &str, subjects: &[Subject]) -> Value {
    let (kind, of) = if namespace.is_empty() { ("ClusterRoleBinding", "ClusterRole") } else { ("RoleBinding", "Role") };
    let mut object = object(kind, namespace, name);
    object["roleRef"] = json!(RoleRef { api_group: Some(API_GROUP.into()), kind: of.into(), name: role.into() });
    if !subjects.is_empty() {
        object["subjects"] = json!(subjects);
    }
    object
}

fn aggregate_label(of: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{of}")
}

#[cfg(test)]
pub use tests::aggregated;

#[cfg(test)]
mod tests;
