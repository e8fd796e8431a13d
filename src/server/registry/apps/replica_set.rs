//! Decides: ReplicaSet.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};

use super::{Counts, replica_counts, selector_and_template};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::core::pod::{defaults, warnings};
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, immutable, not_negative, or_default};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

pub struct ReplicaSetKind;

impl Kind for ReplicaSetKind {
    type Object = ReplicaSet;

    fn resource(&self) -> &'static Resource {
        row("apps/v1", "ReplicaSet")
    }

    fn defaults(&self, set: &mut ReplicaSet) {
        let spec = set.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        defaults::template(spec.template.get_or_insert_default());
        set.status.get_or_insert_default();
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, set: &mut ReplicaSet) {
        set.status = Some(ReplicaSetStatus::default());
    }

    fn validate(&self, set: &ReplicaSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (path, spec) = (Path::new("spec"), or_default(set.spec.as_ref()));
        not_negative(&mut errors, &path.child("replicas"), i64::from(spec.replicas.unwrap_or_default()));
        not_negative(
            &mut errors,
            &path.child("minReadySeconds"),
            i64::from(spec.min_ready_seconds.unwrap_or_default()),
        );
        let template = or_default(spec.template.as_ref());
        selector_and_template(&mut errors, &path, &spec.selector, &template, "ReplicaSet");
        errors
    }

    fn validate_update(&self, part: Part, new: &ReplicaSet, old: &ReplicaSet) -> Vec<FieldError> {
        if part == Part::Status {
            return status(new);
        }
        let mut errors = self.validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            immutable(&mut errors, &Path::new("spec").child("selector"), &new.selector, &old.selector);
        }
        errors
    }

    fn warnings(&self, set: &ReplicaSet) -> Vec<String> {
        let Some(template) = set.spec.as_ref().and_then(|s| s.template.as_ref()) else { return Vec::new() };
        warnings::of_template(&Path::new("spec").child("template"), template)
    }
}

fn status(set: &ReplicaSet) -> Errors {
    let status = or_default(set.status.as_ref());
    replica_counts(&Counts {
        replicas: status.replicas,
        fully_labeled: status.fully_labeled_replicas,
        ready: status.ready_replicas,
        available: status.available_replicas,
        observed_generation: status.observed_generation,
    })
}
