//! Decides: ValidatingAdmissionPolicyBinding.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use serde_json::json;

use super::{binding, known, match_resources, static_name};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::Errors;
use crate::server::registry::strategy::Kind;

const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];

pub struct ValidatingAdmissionPolicyBindingKind;

impl Kind for ValidatingAdmissionPolicyBindingKind {
    type Object = ValidatingAdmissionPolicyBinding;

    fn resource(&self) -> &'static Resource {
        row("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding")
    }

    fn defaults(&self, object: &mut ValidatingAdmissionPolicyBinding) {
        match_resources::defaults(object.spec.match_resources.as_mut());
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn validate(&self, object: &ValidatingAdmissionPolicyBinding) -> Vec<FieldError> {
        let (mut errors, path, spec) = (Vec::new(), Path::new("spec"), &object.spec);
        let resources = spec.match_resources.as_ref();
        binding::check(&mut errors, &path, &spec.policy_name, spec.param_ref.as_ref(), resources);
        actions(&mut errors, &path.child("validationActions"), &spec.validation_actions);
        errors
    }

    fn warnings(&self, object: &ValidatingAdmissionPolicyBinding) -> Vec<String> {
        static_name(object.metadata.name.as_deref())
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

fn actions(errors: &mut Errors, path: &Path, actions: &[String]) {
    for (i, action) in actions.iter().enumerate() {
        known(errors, &path.index(i), action, ACTIONS);
        if actions[..i].contains(action) {
            errors.push(FieldError::duplicate(&path.index(i), action));
        }
    }
    let has = |action: &str| actions.iter().any(|a| a == action);
    if has("Deny") && has("Warn") {
        let message = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                       API response and headers serves no purpose)";
        errors.push(FieldError::invalid(path, &json!(actions), message));
    }
    if actions.is_empty() {
        errors.push(FieldError::required(path, "at least one validation action is required"));
    }
}
