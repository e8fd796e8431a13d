//! Decides: Namespace. Its own finalizers (`spec.finalizers`) hold it until it is empty.
//!
//! ```text
//! Active ──delete──▶ Terminating ──spec.finalizers empty──▶ gone
//! ```

use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec, NamespaceStatus};

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid, standard_finalizer};
use crate::server::registry::request::{Context, DeleteOptions};
use crate::server::registry::strategy::{Kind, NameRule, Part, Removal};

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub struct NamespaceKind;

/// Lets selectors name a namespace by its name.
fn label(namespace: &mut Namespace) {
    if let Some(name) = namespace.metadata.name.clone().filter(|n| !n.is_empty()) {
        namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.into(), name);
    }
}

impl Kind for NamespaceKind {
    type Object = Namespace;

    fn resource(&self) -> &'static Resource {
        row("v1", "Namespace")
    }

    fn name_rule(&self) -> NameRule {
        NameRule::DnsLabel
    }

    fn defaults(&self, namespace: &mut Namespace) {
        label(namespace);
        namespace.spec.get_or_insert_default();
        namespace.status.get_or_insert_default();
    }

    fn prepare_create(&self, _: &Context, namespace: &mut Namespace) {
        label(namespace);
        namespace.status = Some(NamespaceStatus { phase: Some("Active".into()), conditions: None });
        let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
    }

    /// Finalizers of the spec change through `namespaces/finalize` alone.
    fn prepare_update(&self, _: &Context, part: Part, new: &mut Namespace, old: &Namespace) {
        if part == Part::Spec {
            let finalizers = old.spec.as_ref().and_then(|s| s.finalizers.clone());
            new.spec = Some(NamespaceSpec { finalizers });
        }
    }

    fn validate(&self, namespace: &Namespace) -> Vec<FieldError> {
        let path = Path::new("spec").child("finalizers");
        finalizers(namespace, &|_| path.clone())
    }

    fn validate_update(&self, part: Part, new: &Namespace, _: &Namespace) -> Vec<FieldError> {
        let phase = new.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        match part {
            Part::Finalize => finalizers(new, &|i| Path::new("spec").child("finalizers").index(i)),
            Part::Status => {
                let path = Path::new("status").child("Phase");
                match (new.metadata.deletion_timestamp.is_some(), phase) {
                    (false, "Active") | (true, "Terminating") => Vec::new(),
                    (false, _) => {
                        let message = "may only be 'Active' if `deletionTimestamp` is empty";
                        vec![FieldError::invalid(&path, &phase, message)]
                    }
                    (true, _) => {
                        let message = "may only be 'Terminating' if `deletionTimestamp` is not empty";
                        vec![FieldError::invalid(&path, &phase, message)]
                    }
                }
            }
            _ => Vec::new(),
        }
    }

    fn removal(&self, namespace: &mut Namespace, _: &DeleteOptions) -> Removal {
        let held = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| !f.is_empty());
        if !held {
            return Removal::Now;
        }
        namespace.status.get_or_insert_default().phase = Some("Terminating".into());
        Removal::Finalize
    }
}

fn finalizers(namespace: &Namespace, path: &dyn Fn(usize) -> Path) -> Errors {
    let mut errors = Vec::new();
    for (i, name) in namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten()).enumerate() {
        invalid(&mut errors, &path(i), name, format::qualified_name(name));
        standard_finalizer(&mut errors, &path(i), name);
    }
    errors
}
