//! Decides: MutatingAdmissionPolicy.

use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, Mutation};

use super::expression::{self, Expression, Returns};
use super::{REINVOCATION_POLICIES, match_conditions, match_resources, policy, required_word, static_name};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::Errors;
use crate::server::registry::strategy::Kind;

const PATCH_TYPES: &[&str] = &["ApplyConfiguration", "JSONPatch"];

pub struct MutatingAdmissionPolicyKind;

impl Kind for MutatingAdmissionPolicyKind {
    type Object = MutatingAdmissionPolicy;

    fn resource(&self) -> &'static Resource {
        row("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy")
    }

    fn defaults(&self, object: &mut MutatingAdmissionPolicy) {
        let spec = object.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".into());
        match_resources::defaults(spec.match_constraints.as_mut());
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn validate(&self, object: &MutatingAdmissionPolicy) -> Vec<FieldError> {
        let (mut errors, path) = (Vec::new(), Path::new("spec"));
        let spec = object.spec.clone().unwrap_or_default();
        let constraints = spec.match_constraints.as_ref();
        let params = spec.param_kind.is_some();
        let failure_policy = spec.failure_policy.as_deref();
        policy::check(&mut errors, &path, failure_policy, spec.param_kind.as_ref(), constraints, true);
        match_conditions::check(&mut errors, &path.child("matchConditions"), spec.match_conditions.as_ref(), params);
        let variables = spec.variables.as_deref().unwrap_or_default();
        policy::variables(&mut errors, &path.child("variables"), variables, params);
        let (at, mutations) = (path.child("mutations"), spec.mutations.as_deref().unwrap_or_default());
        if mutations.is_empty() {
            errors.push(FieldError::required(&at, "mutations must contain at least one item"));
        }
        for (i, one) in mutations.iter().enumerate() {
            mutation(&mut errors, &at.index(i), one, params, &policy::named(variables));
        }
        let reinvocation = spec.reinvocation_policy.as_deref().filter(|p| !p.is_empty());
        required_word(&mut errors, &path.child("reinvocationPolicy"), reinvocation, REINVOCATION_POLICIES);
        errors
    }

    fn warnings(&self, object: &MutatingAdmissionPolicy) -> Vec<String> {
        static_name(object.metadata.name.as_deref())
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

fn mutation(errors: &mut Errors, path: &Path, mutation: &Mutation, params: bool, variables: &[(&str, &str)]) {
    let apply = mutation.apply_configuration.as_ref().map(|a| a.expression.as_deref().unwrap_or_default());
    let json = mutation.json_patch.as_ref().map(|p| p.expression.as_deref().unwrap_or_default());
    let kind = mutation.patch_type.as_str();
    let (wanted, other) = match kind {
        "" => return errors.push(FieldError::required(&path.child("patchType"), "")),
        "JSONPatch" => (("jsonPatch", json, Returns::JsonPatches), ("applyConfiguration", apply)),
        "ApplyConfiguration" => (("applyConfiguration", apply, Returns::ApplyConfiguration), ("jsonPatch", json)),
        other => return errors.push(FieldError::not_supported(&path.child("patchType"), &other, PATCH_TYPES)),
    };
    let (field, text, returns) = wanted;
    let at = path.child(field);
    match text.map(str::trim) {
        None => errors.push(FieldError::required(&at, &format!("must be specified when patchType is {kind}"))),
        Some("") => errors.push(FieldError::required(&at.child("expression"), "")),
        Some(text) => {
            let (path, variables) = (at.child("expression"), variables.to_vec());
            errors.extend(expression::compile(&Expression {
                text,
                path,
                returns,
                params,
                authorizer: true,
                variables,
            }));
        }
    }
    let (field, text) = other;
    if text.is_some() {
        let message = format!("must not be specified when patchType is {kind}");
        errors.push(FieldError::invalid(&path.child(field), &format!("{{{field}}}"), &message));
    }
}
