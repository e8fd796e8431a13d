//! Decides, once per change, what every subject may do: all roles and bindings compiled into lookups by user and group.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use serde::Deserialize;

use crate::api::object::ObjectRef;
use crate::server::authn::claims::user_name;
use crate::server::objects::Objects;

pub const ROLES: &str = "rbac.authorization.k8s.io/roles";
pub const BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";
pub const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
pub const CLUSTER_BINDINGS: &str = "rbac.authorization.k8s.io/clusterrolebindings";

/// The rules of a role; `Err` is what upstream says about a binding to a role that doesn't exist.
pub type Grant = Result<Arc<[PolicyRule]>, Arc<str>>;

/// Grants by the name of a user or a group.
#[derive(Default)]
struct Subjects {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

/// All of RBAC at one moment.
#[derive(Default)]
pub struct Snapshot {
    cluster: Subjects,
    namespaces: HashMap<String, Subjects>,
    roles: HashMap<(String, String), Arc<[PolicyRule]>>,
}

#[derive(Deserialize)]
struct RoleShape {
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingShape {
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
}

impl Snapshot {
    #[must_use]
    pub fn compile(objects: &dyn Objects) -> Self {
        let mut snapshot = Self::default();
        for storage in [ROLES, CLUSTER_ROLES] {
            for object in objects.list(storage, None) {
                if let Some(role) = parse::<RoleShape>(&object) {
                    let key = (object.key.namespace.to_string(), object.key.name.to_string());
                    snapshot.roles.insert(key, role.rules.unwrap_or_default().into());
                }
            }
        }
        for storage in [CLUSTER_BINDINGS, BINDINGS] {
            for object in objects.list(storage, None) {
                if let Some(binding) = parse::<BindingShape>(&object) {
                    snapshot.bind(&object.key.namespace, binding);
                }
            }
        }
        snapshot
    }

    fn bind(&mut self, namespace: &str, binding: BindingShape) {
        let grant = self.role(namespace, &binding.role_ref);
        let subjects = if namespace.is_empty() {
            &mut self.cluster
        } else {
            self.namespaces.entry(namespace.to_owned()).or_default()
        };
        for subject in binding.subjects.unwrap_or_default() {
            let (table, name) = match subject.kind.as_str() {
                "User" => (&mut subjects.users, subject.name),
                "Group" => (&mut subjects.groups, subject.name),
                "ServiceAccount" => {
                    let of = subject.namespace.filter(|n| !n.is_empty()).unwrap_or_else(|| namespace.to_owned());
                    (&mut subjects.users, user_name(&of, &subject.name))
                }
                _ => continue,
            };
            table.entry(name).or_default().push(grant.clone());
        }
    }

    /// The rules that a role reference in `namespace` stands for.
    ///
    /// # Errors
    /// What upstream says when the role doesn't exist.
    pub fn role(&self, namespace: &str, reference: &RoleRef) -> Grant {
        let (namespace, resource) = match reference.kind.as_str() {
            "Role" => (namespace, "role"),
            _ => ("", "clusterrole"),
        };
        let rules = self.roles.get(&(namespace.to_owned(), reference.name.clone()));
        rules
            .cloned()
            .ok_or_else(|| format!("{resource}.rbac.authorization.k8s.io {:?} not found", reference.name).into())
    }

    /// Every grant to a user in a namespace, the cluster's first.
    pub fn grants<'a>(
        &'a self,
        user: &'a str,
        groups: &'a [String],
        namespace: &str,
    ) -> impl Iterator<Item = &'a Grant> + 'a {
        let namespaced = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        [Some(&self.cluster), namespaced].into_iter().flatten().flat_map(move |subjects| {
            let of_user = subjects.users.get(user).into_iter().flatten();
            of_user.chain(groups.iter().filter_map(|g| subjects.groups.get(g)).flatten())
        })
    }
}

/// What can't be parsed grants nothing; validation keeps such objects out.
fn parse<T: for<'a> Deserialize<'a>>(object: &ObjectRef) -> Option<T> {
    object.typed().inspect_err(|e| tracing::error!(key = %object.key, error = %e, "cannot parse an RBAC object")).ok()
}
