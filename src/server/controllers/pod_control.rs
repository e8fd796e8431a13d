//! Decides: the writes that make, adopt, release and remove the pods of a workload, with the Events that tell of them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::{Value, json};

use super::action::{Enqueue, Note, Plan, Report, Write};
use super::owners;
use super::stores::{Stores, row};
use crate::api::resource::Resource;
use crate::client::request::Request;
use crate::client::store::Meta as _;

/// What a workload does to its pods.
#[derive(Clone, Copy)]
pub struct PodControl<'a> {
    pub resource: &'static Resource,
    pub owner: &'a ObjectMeta,
    pub component: &'static str,
}

impl PodControl<'_> {
    /// Those of `pods` that it owns, as [`owners::claim_all`].
    pub fn claim<'p>(
        &self,
        selector: &LabelSelector,
        pods: impl IntoIterator<Item = &'p Arc<Pod>>,
        plan: &mut Plan,
    ) -> Vec<&'p Arc<Pod>> {
        owners::claim_all((self.resource, self.owner), selector, (row("pods"), |p: &Pod| &p.metadata), pods, plan)
    }

    /// A pod of the template that it owns, named by the server: `<owner>-<five letters>`.
    #[must_use]
    pub fn pod(&self, template: &PodTemplateSpec) -> Value {
        let meta = template.metadata.as_ref();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": format!("{}-", self.owner.name()),
                "namespace": self.owner.namespace(),
                "labels": meta.and_then(|m| m.labels.as_ref()),
                "annotations": meta.and_then(|m| m.annotations.as_ref()),
                "finalizers": meta.and_then(|m| m.finalizers.as_ref()),
                "ownerReferences": [owners::reference(self.resource, self.owner)],
            },
            "spec": template.spec.as_ref(),
        })
    }

    #[must_use]
    pub fn create(&self, pod: Value) -> Write {
        Write::new(Request::create(row("pods"), self.owner.namespace(), pod)).reported(Report {
            ok: Some(("SuccessfulCreate", "Created pod: {name}".into())),
            failed: Some(("FailedCreate", "Error creating: {error}".into())),
            ..self.report()
        })
    }

    #[must_use]
    pub fn delete(&self, pod: &Pod) -> Write {
        let meta = &pod.metadata;
        Write::delete(Request::delete(row("pods"), meta.namespace(), meta.name(), meta.uid())).reported(Report {
            ok: Some(("SuccessfulDelete", "Deleted pod: {name}".into())),
            failed: Some(("FailedDelete", "Error deleting: {error}".into())),
            ..self.report()
        })
    }

    /// Events about the owner, that say nothing yet.
    #[must_use]
    pub fn report(&self) -> Report {
        let regarding = owners::object_reference(self.resource, self.owner);
        Report { regarding, component: self.component, ok: None, failed: None }
    }

    #[must_use]
    pub fn event(&self, warning: bool, reason: &'static str, message: String) -> Note {
        let regarding = owners::object_reference(self.resource, self.owner);
        Note { regarding, warning, reason, message, component: self.component, action: "" }
    }
}

/// Queues the workload that owns a pod that changed, and, when nobody owns it, those that `selecting` names: by
/// namespace and the pod's labels.
pub fn follow(
    stores: &Stores,
    enqueue: &Enqueue,
    resource: &'static Resource,
    selecting: impl Fn(&ObjectMeta) -> Vec<String> + Send + Sync + 'static,
) {
    let queue = enqueue.clone();
    stores.pods.subscribe(move |change| {
        for pod in change.each() {
            let meta = &pod.metadata;
            if let Some(owner) = owners::controller_named(meta, resource.group, resource.kind) {
                queue.add(meta.namespace(), owner);
            } else if owners::controller_of(meta).is_none() {
                selecting(meta).iter().for_each(|name| queue.add(meta.namespace(), name));
            }
        }
    });
}
