//! Decides: MutatingAdmissionPolicyBinding.

use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicyBinding;

use super::{binding, match_resources, static_name};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::strategy::Kind;

pub struct MutatingAdmissionPolicyBindingKind;

impl Kind for MutatingAdmissionPolicyBindingKind {
    type Object = MutatingAdmissionPolicyBinding;

    fn resource(&self) -> &'static Resource {
        row("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding")
    }

    fn defaults(&self, object: &mut MutatingAdmissionPolicyBinding) {
        match_resources::defaults(object.spec.get_or_insert_default().match_resources.as_mut());
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn validate(&self, object: &MutatingAdmissionPolicyBinding) -> Vec<FieldError> {
        let (mut errors, path) = (Vec::new(), Path::new("spec"));
        let spec = object.spec.clone().unwrap_or_default();
        let (name, resources) = (spec.policy_name.unwrap_or_default(), spec.match_resources.as_ref());
        binding::check(&mut errors, &path, &name, spec.param_ref.as_ref(), resources);
        if let Some(resources) = resources {
            match_resources::check_mutable(&mut errors, &path.child("matchResources"), resources);
        }
        errors
    }

    fn warnings(&self, object: &MutatingAdmissionPolicyBinding) -> Vec<String> {
        static_name(object.metadata.name.as_deref())
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}
