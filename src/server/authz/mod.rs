//! Decides who may do what. `system:masters` may do everything; then the [`node`] authorizer, then [`rbac`].
//!
//! [`snapshot`] is the compiled form of all roles and bindings, [`rules`] matches one rule, [`policy`] is the table of
//! default roles that [`bootstrap`] writes at start.

pub mod bootstrap;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod rules;
pub mod snapshot;

use crate::api::selector::FieldSelector;
use crate::api::status::{Details, Status};
use crate::api::user::{SYSTEM_MASTERS, User};
use crate::server::objects::SharedObjects;

/// What a request wants to do, as `k8s.io/apiserver/pkg/authorization/authorizer.Attributes`.
#[derive(Clone, Copy, Debug)]
pub enum Attributes<'a> {
    Resource(ResourceAttributes<'a>),
    /// `verb` is the lower-cased HTTP method.
    Path {
        verb: &'a str,
        path: &'a str,
    },
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceAttributes<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or any other word.
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Empty at the cluster scope.
    pub namespace: &'a str,
    pub name: &'a str,
    /// Of a list, watch or deletecollection.
    pub fields: Option<&'a FieldSelector>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// With what could be said about why; usually nothing.
    Deny(String),
}

/// The authorizers in order.
pub struct Authorizer {
    rbac: rbac::Rbac,
    node: node::NodeAuthorizer,
}

impl Authorizer {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        Self { rbac: rbac::Rbac::new(&objects), node: node::NodeAuthorizer::new(objects) }
    }

    #[must_use]
    pub fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        if user.in_group(SYSTEM_MASTERS) {
            return Decision::Allow;
        }
        let node = match self.node.authorize(user, attributes) {
            node::Opinion::Allow => return Decision::Allow,
            node::Opinion::None(reason) => reason,
        };
        match self.rbac.authorize(user, attributes) {
            Decision::Allow => Decision::Allow,
            Decision::Deny(reason) => Decision::Deny(join(&node, &reason)),
        }
    }

    /// # Errors
    /// 403 with upstream's message.
    pub fn check(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), Status> {
        match self.authorize(user, attributes) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) => Err(forbidden(user, attributes, &reason)),
        }
    }

    /// For rules reviews and escalation checks.
    #[must_use]
    pub fn rbac(&self) -> &rbac::Rbac {
        &self.rbac
    }
}

fn join(a: &str, b: &str) -> String {
    match (a.is_empty(), b.is_empty()) {
        (false, false) => format!("{a}\n{b}"),
        _ => format!("{a}{b}"),
    }
}

/// The refusal as upstream words it (`endpoints/handlers/responsewriters/errors.go`).
#[must_use]
pub fn forbidden(user: &User, attributes: &Attributes<'_>, reason: &str) -> Status {
    let colon = if reason.is_empty() { "" } else { ": " };
    let user = &user.name;
    match attributes {
        Attributes::Path { verb, path } => {
            Status::forbidden_path(&format!("User {user:?} cannot {verb} path {path:?}{colon}{reason}"))
        }
        Attributes::Resource(a) => {
            let slash = if a.subresource.is_empty() { "" } else { "/" };
            let what = format!("{}{slash}{}", a.resource, a.subresource);
            let scope = if a.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", a.namespace)
            };
            let dot = if a.group.is_empty() { "" } else { "." };
            let name = if a.name.is_empty() { String::new() } else { format!(" {:?}", a.name) };
            let message = format!(
                "{}{dot}{}{name} is forbidden: User {user:?} cannot {} resource {what:?} in API group {:?} \
                 {scope}{colon}{reason}",
                a.resource, a.group, a.verb, a.group
            );
            Status::new(403, "Forbidden", message).with_details(Details {
                name: a.name.into(),
                group: a.group.into(),
                kind: a.resource.into(),
                ..Details::default()
            })
        }
    }
}

#[cfg(test)]
mod tests;
