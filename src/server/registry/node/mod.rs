//! Decides: RuntimeClass. Its handler never changes.

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use k8s_openapi::api::node::v1::{RuntimeClass, Scheduling};

use super::core::{node_labels, scheduling};
use super::format;
use super::kinds::row;
use super::metadata::{Errors, immutable, invalid, labels};
use super::quantity;
use super::strategy::{Kind, Part};
use crate::api::field::{BadValue, FieldError, Path};
use crate::api::resource::Resource;

pub struct RuntimeClassKind;

impl Kind for RuntimeClassKind {
    type Object = RuntimeClass;

    fn resource(&self) -> &'static Resource {
        row("node.k8s.io/v1", "RuntimeClass")
    }

    fn defaults(&self, class: &mut RuntimeClass) {
        if let Some(overhead) = &mut class.overhead {
            quantity::canonical_list(&mut overhead.pod_fixed);
        }
    }

    fn validate(&self, class: &RuntimeClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        invalid(&mut errors, &Path::new("handler"), &class.handler, format::dns_label(&class.handler));
        if let Some(overhead) = &class.overhead {
            let limits = ResourceRequirements { limits: overhead.pod_fixed.clone(), ..Default::default() };
            quantity::requirements(&mut errors, &Path::new("overhead"), &limits, &[]);
        }
        if let Some(scheduling) = &class.scheduling {
            check(&mut errors, &Path::new("scheduling"), scheduling);
        }
        errors
    }

    fn validate_update(&self, _: Part, new: &RuntimeClass, old: &RuntimeClass) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        immutable(&mut errors, &Path::new("handler"), &new.handler, &old.handler);
        errors
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn warnings(&self, class: &RuntimeClass) -> Vec<String> {
        let labels = class.scheduling.as_ref().and_then(|s| s.node_selector.as_ref());
        let old = labels.into_iter().flatten().filter_map(|(label, _)| node_labels::deprecation(label));
        old.map(|message| format!("scheduling.nodeSelector: {message}")).collect()
    }
}

fn check(errors: &mut Errors, path: &Path, scheduling: &Scheduling) {
    labels(errors, &path.child("nodeSelector"), scheduling.node_selector.as_ref());
    let (path, tolerations) = (path.child("tolerations"), scheduling.tolerations.as_deref().unwrap_or_default());
    scheduling::tolerations(errors, &path, tolerations);
    for (i, toleration) in tolerations.iter().enumerate() {
        if tolerations[..i].iter().any(|before| key(before) == key(toleration)) {
            errors.push(FieldError::duplicate(&path.index(i), &Shown(toleration)));
        }
    }
}

/// What makes two tolerations the same entry of the list: everything but how long they hold.
fn key(toleration: &Toleration) -> [&str; 4] {
    [&toleration.key, &toleration.operator, &toleration.value, &toleration.effect]
        .map(|field| field.as_deref().unwrap_or_default())
}

/// Upstream shows the toleration of its internal type.
struct Shown<'a>(&'a Toleration);

impl BadValue for Shown<'_> {
    fn shown(&self) -> String {
        let [key, operator, value, effect] = key(self.0);
        let seconds = self.0.toleration_seconds.map_or_else(|| "null".into(), |s| s.to_string());
        format!(
            "{{\"Key\":{key:?},\"Operator\":{operator:?},\"Value\":{value:?},\"Effect\":{effect:?},\
             \"TolerationSeconds\":{seconds}}}"
        )
    }
}

#[cfg(test)]
mod tests;
