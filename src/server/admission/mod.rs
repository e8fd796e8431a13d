//! Admission: what may change or refuse a write after authorization. One plugin per file.

pub mod default_toleration_seconds;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod priority;
pub mod rbac_escalation;
pub mod service_account;
pub mod taint_nodes_by_condition;

use std::sync::Arc;

use serde_json::Value;

use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::server::authz::Authorizer;
use crate::server::objects::SharedObjects;
use crate::server::registry::request::Context;

/// The write a plugin looks at.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub cx: &'a Context,
    pub operation: Operation,
    pub resource: &'static Resource,
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty on a create with `generateName`.
    pub name: &'a str,
    /// The stored object on update and delete.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}

impl Attributes<'_> {
    /// The main resource `storage`, not one of its subresources.
    #[must_use]
    pub fn is(&self, storage: &str) -> bool {
        self.resource.storage == storage && self.subresource.is_empty()
    }

    /// A refusal as `admission.NewForbidden` words it. An object without a name yet goes by its `generateName`.
    #[must_use]
    pub fn forbidden(&self, object: Option<&Value>, why: &str) -> Status {
        let meta = |field: &str| object.and_then(|o| o["metadata"][field].as_str()).filter(|n| !n.is_empty());
        let name = Some(self.name).filter(|n| !n.is_empty());
        let name = name.or_else(|| meta("name")).or_else(|| meta("generateName")).unwrap_or("Unknown");
        Status::forbidden(self.resource, name, why)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// One admission plugin. Synchronous: plugins decide from caches.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name, as in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    /// # Errors
    /// A refusal, usually 403.
    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let _ = (attributes, object);
        Ok(())
    }

    /// `object` is `None` on delete.
    ///
    /// # Errors
    /// A refusal, usually 403.
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let _ = (attributes, object);
        Ok(())
    }
}

/// The plugins in upstream's order: all mutate, then (after the strategy's validation) all validate.
#[derive(Default)]
pub struct Chain(pub Vec<Box<dyn Plugin>>);

impl Chain {
    /// # Errors
    /// The first refusal.
    pub fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        self.0.iter().try_for_each(|p| p.mutate(attributes, object))
    }

    /// # Errors
    /// The first refusal.
    pub fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        self.0.iter().try_for_each(|p| p.validate(attributes, object))
    }
}

/// What upstream enables by default, as far as it is here, in upstream's order.
#[must_use]
pub fn default_chain(objects: &SharedObjects, authorizer: &Arc<Authorizer>) -> Chain {
    Chain(vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle::new(objects.clone())),
        Box::new(service_account::ServiceAccount::new(objects.clone())),
        Box::new(node_restriction::NodeRestriction::new(objects.clone())),
        Box::new(taint_nodes_by_condition::TaintNodesByCondition),
        Box::new(priority::Priority::new(objects.clone())),
        Box::new(default_toleration_seconds::DefaultTolerationSeconds),
        Box::new(rbac_escalation::RbacEscalation::new(authorizer.clone())),
    ])
}

#[cfg(test)]
mod tests;
