//! Decides that objects are written to namespaces that exist, and made only in those that aren't going away.

use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::api::resource::find_storage;
use crate::api::status::{Cause, Details, NAMESPACE_TERMINATING, Status};
use crate::server::objects::SharedObjects;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle {
    objects: SharedObjects,
}

impl NamespaceLifecycle {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }
}

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let namespace = attributes.namespace;
        let review = attributes.resource.group == "authorization.k8s.io";
        if !attributes.resource.namespaced
            || namespace.is_empty()
            || attributes.operation == Operation::Delete
            || review
        {
            return Ok(());
        }
        let Some(stored) = self.objects.get("namespaces", "", namespace) else {
            let row = find_storage("namespaces").ok_or_else(Status::no_such_resource)?;
            return Err(Status::not_found(row, namespace));
        };
        if attributes.operation == Operation::Create
            && stored.head.fields.first().is_some_and(|p| &**p == "Terminating")
        {
            return Err(terminating(attributes, object));
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, _: Option<&Value>) -> Result<(), Status> {
        if attributes.operation == Operation::Delete
            && attributes.is("namespaces")
            && IMMORTAL.contains(&attributes.name)
        {
            return Err(attributes.forbidden(None, "this namespace may not be deleted"));
        }
        Ok(())
    }
}

/// `status.phase` is the first selectable field of namespaces.
fn terminating(attributes: &Attributes<'_>, object: &Value) -> Status {
    let namespace = attributes.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let status = attributes.forbidden(Some(object), &why);
    let cause = Cause {
        reason: NAMESPACE_TERMINATING.into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    };
    let details = status.details().cloned().unwrap_or_default();
    status.with_details(Details { causes: vec![cause], ..details })
}
