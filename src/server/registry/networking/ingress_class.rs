//! Decides: IngressClass. Its controller never changes.

use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference};

use super::{group, required_segment};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, domain_prefixed_path, immutable, invalid};
use crate::server::registry::strategy::{Kind, Part};

const MAX_CONTROLLER: usize = 250;

pub struct IngressClassKind;

impl Kind for IngressClassKind {
    type Object = IngressClass;

    fn resource(&self) -> &'static Resource {
        row("networking.k8s.io/v1", "IngressClass")
    }

    fn defaults(&self, class: &mut IngressClass) {
        if let Some(parameters) = &mut class.spec.get_or_insert_default().parameters {
            parameters.scope.get_or_insert_with(|| "Cluster".into());
        }
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn validate(&self, class: &IngressClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (path, spec) = (Path::new("spec"), class.spec.clone().unwrap_or_default());
        controller(&mut errors, &path.child("controller"), spec.controller.as_deref().unwrap_or_default());
        if let Some(reference) = &spec.parameters {
            parameters(&mut errors, &path.child("parameters"), reference);
        }
        errors
    }

    fn validate_update(&self, _: Part, new: &IngressClass, old: &IngressClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let controller = |class: &IngressClass| class.spec.clone().and_then(|s| s.controller).unwrap_or_default();
        immutable(&mut errors, &Path::new("spec").child("controller"), &controller(new), &controller(old));
        errors.extend(self.validate(new));
        errors
    }
}

/// `acme.io/foo`: a domain and a path (`IsDomainPrefixedPath`).
fn controller(errors: &mut Errors, path: &Path, controller: &str) {
    if controller.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if controller.len() > MAX_CONTROLLER {
        errors.push(FieldError::too_long(path, MAX_CONTROLLER));
    }
    domain_prefixed_path(errors, path, controller);
}

fn parameters(errors: &mut Errors, path: &Path, reference: &IngressClassParametersReference) {
    group(errors, &path.child("apiGroup"), reference.api_group.as_deref());
    required_segment(errors, &path.child("kind"), &reference.kind);
    required_segment(errors, &path.child("name"), &reference.name);
    let at = path.child("namespace");
    match (reference.scope.as_deref(), reference.namespace.as_deref()) {
        (None, _) => errors.push(FieldError::required(&path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(FieldError::required(&at, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(namespace)) => invalid(errors, &at, &namespace, format::dns_label(namespace)),
        (Some("Cluster"), Some(_)) => {
            errors.push(FieldError::forbidden(&at, "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => {}
        (Some(other), _) => {
            let known = ["Cluster", "Namespace"];
            errors.push(FieldError::not_supported(&path.child("scope"), &other, &known));
        }
    }
}
