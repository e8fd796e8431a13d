//! Admission: what may change or refuse a write after authorization. One plugin per file.

pub mod certificates;
pub mod default_ingress_class;
pub mod default_storage_class;
pub mod default_toleration_seconds;
pub mod expressions;
pub mod limit_ranger;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod persistent_volume_claim_resize;
mod pod_resources;
pub mod pod_security;
pub mod policies;
pub mod priority;
pub mod rbac_escalation;
pub mod resource_quota;
pub mod runtime_class;
pub mod service_account;
pub mod storage_object_in_use_protection;
pub mod taint_nodes_by_condition;
pub mod webhooks;

use std::sync::Arc;

use serde_json::Value;

use crate::api::object::ObjectRef;
use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::server::authz::Authorizer;
use crate::server::objects::{Objects, SharedObjects};
use crate::server::registry::request::Context;
use crate::server::webhook;

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
    /// `exec`, `attach`, `portforward` and `proxy`.
    Connect,
}

impl Operation {
    /// As the API writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// One admission plugin. Synchronous: plugins decide from caches.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name, as in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    /// Storage names of the resources that [`Plugin::mutate`] may change; of others it only refuses writes.
    fn changes(&self) -> &'static [&'static str] {
        &[]
    }

    /// May change what is written to the main resource, not to a subresource.
    ///
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

/// The plugins in upstream's order: all mutate, then (after the strategy's validation) all validate. Policies and webhooks
/// come after the plugins that are built in, and quotas last: they hold room for what is really going to be written.
#[derive(Default)]
pub struct Chain {
    pub plugins: Vec<Box<dyn Plugin>>,
    pub mutating_policies: Option<policies::mutating::MutatingPolicies>,
    pub policies: Option<policies::Policies>,
    pub webhooks: Option<webhooks::Webhooks>,
    pub quotas: Option<Arc<resource_quota::Ledger>>,
}

impl Chain {
    /// Whether any plugin may change this write.
    #[must_use]
    pub fn may_change(&self, attributes: &Attributes<'_>) -> bool {
        attributes.subresource.is_empty()
            && self.plugins.iter().any(|p| p.changes().contains(&attributes.resource.storage))
    }

    /// # Errors
    /// The first refusal.
    pub fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|p| p.mutate(attributes, object))
    }

    /// # Errors
    /// The first refusal.
    pub fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|p| p.validate(attributes, object))
    }
}

/// What upstream enables by default, as far as it is here, in upstream's order.
#[must_use]
pub fn default_chain(objects: &SharedObjects, authorizer: &Arc<Authorizer>, client: &Arc<webhook::Client>) -> Chain {
    let shared = || objects.clone();
    let plugins: Vec<Box<dyn Plugin>> = vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle::new(shared())),
        Box::new(limit_ranger::LimitRanger::new(shared())),
        Box::new(service_account::ServiceAccount::new(shared())),
        Box::new(node_restriction::NodeRestriction::new(shared())),
        Box::new(taint_nodes_by_condition::TaintNodesByCondition),
        Box::new(pod_security::PodSecurity::new(shared())),
        Box::new(priority::Priority::new(shared())),
        Box::new(default_toleration_seconds::DefaultTolerationSeconds),
        Box::new(default_storage_class::DefaultStorageClass::new(shared())),
        Box::new(storage_object_in_use_protection::StorageObjectInUseProtection),
        Box::new(persistent_volume_claim_resize::PersistentVolumeClaimResize::new(shared())),
        Box::new(runtime_class::RuntimeClass::new(shared())),
        Box::new(certificates::CertificateApproval(authorizer.clone())),
        Box::new(certificates::CertificateSigning(authorizer.clone())),
        Box::new(certificates::CertificateSubjectRestriction),
        Box::new(default_ingress_class::DefaultIngressClass::new(shared())),
        Box::new(rbac_escalation::RbacEscalation::new(authorizer.clone())),
    ];
    Chain {
        plugins,
        mutating_policies: Some(policies::mutating::MutatingPolicies::new(shared(), authorizer.clone())),
        policies: Some(policies::Policies::new(shared(), authorizer.clone())),
        webhooks: Some(webhooks::Webhooks::new(shared(), authorizer.clone(), client.clone())),
        quotas: Some(resource_quota::Ledger::new(shared())),
    }
}

/// The name of the class that an annotation marks as the default: of several the newest, then the first by name.
fn newest(objects: &dyn Objects, storage: &str, annotations: &[&str]) -> Option<String> {
    let marked = |object: ObjectRef| {
        let class = object.value().ok()?;
        let meta = &class["metadata"];
        let is_default = annotations.iter().any(|a| meta["annotations"][a] == "true");
        // Times are all written alike, so they sort as text.
        is_default.then(|| (meta["creationTimestamp"].as_str().unwrap_or_default().to_owned(), object.key.name.clone()))
    };
    let classes = objects.list(storage, None).into_iter().filter_map(marked);
    let best = classes.min_by(|(a_made, a), (b_made, b)| b_made.cmp(a_made).then_with(|| a.cmp(b)));
    best.map(|(_, name)| name.to_string())
}

#[cfg(test)]
mod tests;
