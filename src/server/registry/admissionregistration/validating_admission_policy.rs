//! Decides: ValidatingAdmissionPolicy. Its status says what types its expressions turned out to have.

use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, ValidatingAdmissionPolicyStatus,
    Validation,
};

use super::expression::{self, Expression, Returns};
use super::{known, match_conditions, match_resources, policy, static_name};
use crate::api::field::{BadValue, FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid};
use crate::server::registry::policy::conditions;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const MAX_ANNOTATIONS: usize = 20;
/// In bytes. Half of what the value of an annotation may have.
const MAX_VALUE_EXPRESSION: usize = 5 * 1024;

pub struct ValidatingAdmissionPolicyKind;

impl Kind for ValidatingAdmissionPolicyKind {
    type Object = ValidatingAdmissionPolicy;

    fn resource(&self) -> &'static Resource {
        row("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy")
    }

    fn defaults(&self, object: &mut ValidatingAdmissionPolicy) {
        let spec = object.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".into());
        match_resources::defaults(spec.match_constraints.as_mut());
        object.status.get_or_insert_default();
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, object: &mut ValidatingAdmissionPolicy) {
        object.status = Some(ValidatingAdmissionPolicyStatus::default());
    }

    fn prepare_update(
        &self,
        _: &Context,
        part: Part,
        new: &mut ValidatingAdmissionPolicy,
        old: &ValidatingAdmissionPolicy,
    ) {
        if part == Part::Status {
            let (meta, before) = (&mut new.metadata, &old.metadata);
            meta.labels.clone_from(&before.labels);
            meta.annotations.clone_from(&before.annotations);
            meta.finalizers.clone_from(&before.finalizers);
            meta.owner_references.clone_from(&before.owner_references);
        }
    }

    fn status_resets(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata"]]
    }

    fn validate(&self, object: &ValidatingAdmissionPolicy) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        check(&mut errors, &Path::new("spec"), name, &object.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_update(
        &self,
        part: Part,
        new: &ValidatingAdmissionPolicy,
        _: &ValidatingAdmissionPolicy,
    ) -> Vec<FieldError> {
        if part == Part::Status { status(new) } else { self.validate(new) }
    }

    fn warnings(&self, object: &ValidatingAdmissionPolicy) -> Vec<String> {
        static_name(object.metadata.name.as_deref())
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

fn check(errors: &mut Errors, path: &Path, name: &str, spec: &ValidatingAdmissionPolicySpec) {
    let params = spec.param_kind.is_some();
    let constraints = spec.match_constraints.as_ref();
    policy::check(errors, path, spec.failure_policy.as_deref(), spec.param_kind.as_ref(), constraints, false);
    match_conditions::check(errors, &path.child("matchConditions"), spec.match_conditions.as_ref(), params);
    let variables = spec.variables.as_deref().unwrap_or_default();
    policy::variables(errors, &path.child("variables"), variables, params);
    let variables = policy::named(variables);
    let validations = spec.validations.as_deref().unwrap_or_default();
    let annotations = spec.audit_annotations.as_deref().unwrap_or_default();
    let (validations_at, annotations_at) = (path.child("validations"), path.child("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for at in [validations_at, annotations_at] {
            let message = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required(&at, message));
        }
        return;
    }
    for (i, one) in validations.iter().enumerate() {
        validation(errors, &validations_at.index(i), one, params, &variables);
    }
    if annotations.len() > MAX_ANNOTATIONS {
        let message = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid(&annotations_at, &Internal(annotations), &message));
    }
    for (i, one) in annotations.iter().enumerate() {
        let at = annotations_at.index(i);
        annotation(errors, &at, name, one, params, &variables);
        if annotations[..i].iter().any(|a| a.key == one.key) {
            errors.push(FieldError::duplicate(&at.child("key"), &one.key));
        }
    }
}

fn validation(errors: &mut Errors, path: &Path, one: &Validation, params: bool, variables: &[(&str, &str)]) {
    let at = path.child("expression");
    let of = |text, path, returns, params, authorizer| {
        expression::compile(&Expression { text, path, returns, params, authorizer, variables: variables.to_vec() })
    };
    if one.expression.trim().is_empty() {
        errors.push(FieldError::required(&at, "expression is not specified"));
    } else {
        errors.extend(of(&one.expression, at, Returns::Bool, params, true));
    }
    let (at, text) = (path.child("messageExpression"), one.message_expression.as_deref().unwrap_or_default());
    if !text.is_empty() && text.trim().is_empty() {
        errors.push(FieldError::invalid(&at, &text, "must be non-empty if specified"));
    } else if !text.is_empty() {
        errors.extend(of(text, at, Returns::String, params, false));
    }
    let (at, text) = (path.child("message"), one.message.as_deref().unwrap_or_default());
    if !text.is_empty() && text.trim().is_empty() {
        errors.push(FieldError::invalid(&at, &text, "must be non-empty if specified"));
    } else if text.trim().contains(['\n', '\r']) {
        errors.push(FieldError::invalid(&at, &text, "must not contain line breaks"));
    }
    if let Some(reason) = &one.reason {
        known(errors, &path.child("reason"), reason, REASONS);
    }
}

/// The key is that of an annotation in the audit log, with the name of the policy before it.
fn annotation(
    errors: &mut Errors,
    path: &Path,
    policy: &str,
    one: &AuditAnnotation,
    params: bool,
    variables: &[(&str, &str)],
) {
    let at = path.child("key");
    if policy.is_empty() {
        errors.push(FieldError::invalid(&at, &one.key, "requires metadata.name be non-empty"));
    } else {
        let key = format!("{policy}/{}", one.key);
        invalid(errors, &at, &key, format::qualified_name(&key));
    }
    let (path, text) = (path.child("valueExpression"), one.value_expression.trim());
    if text.is_empty() {
        errors.push(FieldError::required(&path, "valueExpression is not specified"));
    } else if text.len() > MAX_VALUE_EXPRESSION {
        let message = format!("must not exceed {MAX_VALUE_EXPRESSION} bytes in length");
        errors.push(FieldError::required(&path, &message));
    } else {
        let (returns, variables) = (Returns::StringOrNull, variables.to_vec());
        errors.extend(expression::compile(&Expression { text, path, returns, params, authorizer: true, variables }));
    }
}

/// Annotations as an error shows them: upstream's internal form, whose fields have the names of Go.
struct Internal<'a>(&'a [AuditAnnotation]);

impl BadValue for Internal<'_> {
    fn shown(&self) -> String {
        let one = |a: &AuditAnnotation| format!("{{\"Key\":{:?},\"ValueExpression\":{:?}}}", a.key, a.value_expression);
        format!("[{}]", self.0.iter().map(one).collect::<Vec<_>>().join(","))
    }
}

fn status(object: &ValidatingAdmissionPolicy) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("status");
    let status = object.status.clone().unwrap_or_default();
    let warnings = status.type_checking.and_then(|t| t.expression_warnings).unwrap_or_default();
    for (i, warning) in warnings.iter().enumerate() {
        let at = path.child("typeChecking").child("expressionWarnings").index(i);
        for (field, text) in [("warning", warning.warning.as_str()), ("fieldRef", warning.field_ref.trim())] {
            if text.is_empty() {
                errors.push(FieldError::required(&at.child(field), ""));
            }
        }
    }
    conditions(&mut errors, &path.child("conditions"), status.conditions.as_deref().unwrap_or_default());
    errors
}
