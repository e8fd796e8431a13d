//! Decides: ReplicationController: what came before ReplicaSets, with a selector that is a plain map.

use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus};

use super::pod::{defaults, spec, warnings};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::apps::{Counts, replica_counts, runs_forever};
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, not_negative, or_default, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

pub struct ReplicationControllerKind;

impl Kind for ReplicationControllerKind {
    type Object = ReplicationController;

    fn resource(&self) -> &'static Resource {
        row("v1", "ReplicationController")
    }

    /// Labels and selector come from the labels of the template, where they are not given.
    fn defaults(&self, controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            defaults::template(template);
            let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
            if !labels.is_empty() {
                for given in [&mut spec.selector, &mut controller.metadata.labels] {
                    if given.as_ref().is_none_or(|labels| labels.is_empty()) {
                        *given = Some(labels.clone());
                    }
                }
            }
        }
        controller.status.get_or_insert_default();
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, controller: &mut ReplicationController) {
        controller.status = Some(ReplicationControllerStatus::default());
    }

    fn validate(&self, controller: &ReplicationController) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check(&mut errors, &Path::new("spec"), &or_default(controller.spec.as_ref()));
        errors
    }

    fn validate_update(&self, part: Part, new: &ReplicationController, _: &ReplicationController) -> Vec<FieldError> {
        if part == Part::Status { status(new) } else { self.validate(new) }
    }

    fn orphans(&self) -> bool {
        true
    }

    fn warnings(&self, controller: &ReplicationController) -> Vec<String> {
        let template = controller.spec.as_ref().and_then(|s| s.template.as_ref());
        template.map(|t| warnings::of_template(&Path::new("spec").child("template"), t)).unwrap_or_default()
    }
}

fn check(errors: &mut Errors, path: &Path, spec: &ReplicationControllerSpec) {
    not_negative(errors, &path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or_default()));
    let selector = spec.selector.clone().unwrap_or_default();
    if selector.is_empty() {
        errors.push(FieldError::required(&path.child("selector"), ""));
    }
    not_negative(errors, &path.child("replicas"), i64::from(spec.replicas.unwrap_or_default()));
    let path = path.child("template");
    let Some(template) = &spec.template else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    if !selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        let at = path.child("metadata").child("labels");
        errors.push(FieldError::invalid(&at, &shown(&labels), "`selector` does not match template `labels`"));
    }
    spec::template(errors, &path, template);
    runs_forever(errors, &path, template, "ReplicationController");
}

fn status(controller: &ReplicationController) -> Errors {
    let status = or_default(controller.status.as_ref());
    replica_counts(&Counts {
        replicas: status.replicas,
        fully_labeled: status.fully_labeled_replicas,
        ready: status.ready_replicas,
        available: status.available_replicas,
        observed_generation: status.observed_generation,
    })
}
