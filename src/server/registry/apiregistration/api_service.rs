//! Decides: APIService: which group and version an own server, or another one, serves.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceSpec, APIServiceStatus,
};
use serde_json::json;

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, NameRule, Part};

const STATUSES: &[&str] = &["True", "False", "Unknown"];
const MAX_GROUP_PRIORITY: i32 = 20_000;
const MAX_VERSION_PRIORITY: i32 = 1000;

pub struct ApiServiceKind;

impl Kind for ApiServiceKind {
    type Object = APIService;

    fn resource(&self) -> &'static Resource {
        row("apiregistration.k8s.io/v1", "APIService")
    }

    /// `v1.` is the name of the core group's.
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn defaults(&self, service: &mut APIService) {
        let spec = service.spec.get_or_insert_default();
        if let Some(service) = &mut spec.service {
            service.port.get_or_insert(443);
        }
        service.status.get_or_insert_default();
    }

    /// One that is served here is there as soon as it is made.
    fn prepare_create(&self, _: &Context, service: &mut APIService) {
        let mut status = APIServiceStatus::default();
        if service.spec.as_ref().is_none_or(|s| s.service.is_none()) {
            status.conditions = Some(vec![local()]);
        }
        service.status = Some(status);
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut APIService, old: &APIService) {
        if part == Part::Status {
            let (meta, before) = (&mut new.metadata, &old.metadata);
            meta.labels.clone_from(&before.labels);
            meta.annotations.clone_from(&before.annotations);
            meta.finalizers.clone_from(&before.finalizers);
            meta.owner_references.clone_from(&before.owner_references);
        }
    }

    fn validate(&self, service: &APIService) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = service.spec.clone().unwrap_or_default();
        let required = format!("{}.{}", spec.version.as_deref().unwrap_or_default(), text(spec.group.as_ref()));
        let name = text(service.metadata.name.as_ref());
        if name != required && !name.is_empty() && format::path_segment(name, false).is_empty() {
            let message = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), &name, &message));
        }
        check(&mut errors, &Path::new("spec"), &spec);
        errors
    }

    fn validate_update(&self, part: Part, new: &APIService, _: &APIService) -> Vec<FieldError> {
        if part == Part::Status { status(new) } else { self.validate(new) }
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

fn text(value: Option<&String>) -> &str {
    value.map(String::as_str).unwrap_or_default()
}

fn local() -> APIServiceCondition {
    APIServiceCondition {
        type_: "Available".into(),
        status: "True".into(),
        reason: Some("Local".into()),
        message: Some("Local APIServices are always available".into()),
        last_transition_time: Some(crate::clock::time()),
    }
}

fn check(errors: &mut Errors, path: &Path, spec: &APIServiceSpec) {
    let (group, version) = (text(spec.group.as_ref()), text(spec.version.as_ref()));
    let at = path.child("group");
    if !group.is_empty() {
        invalid(errors, &at, &group, format::dns_subdomain(group));
    } else if version != "v1" {
        errors.push(FieldError::required(&at, "only v1 may have an empty group and it better be legacy kube"));
    }
    invalid(errors, &path.child("version"), &version, format::dns_1035_label(version));
    for (field, value, limit) in [
        ("groupPriorityMinimum", spec.group_priority_minimum, MAX_GROUP_PRIORITY),
        ("versionPriority", spec.version_priority, MAX_VERSION_PRIORITY),
    ] {
        if value <= 0 || value > limit {
            let message = format!("must be positive and less than {limit}");
            errors.push(FieldError::invalid(&path.child(field), &value, &message));
        }
    }
    let bundle = spec.ca_bundle.as_ref().map_or(0, |b| b.0.len());
    let insecure = spec.insecure_skip_tls_verify == Some(true);
    let insecure_at = path.child("insecureSkipTLSVerify");
    let Some(service) = &spec.service else {
        if bundle > 0 {
            let shown = format!("{bundle} bytes");
            let message = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(&path.child("caBundle"), &shown, message));
        }
        if insecure {
            let message = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(&insecure_at, &true, message));
        }
        return;
    };
    let at = path.child("service");
    for (field, value) in [("namespace", &service.namespace), ("name", &service.name)] {
        if text(value.as_ref()).is_empty() {
            errors.push(FieldError::required(&at.child(field), ""));
        }
    }
    for problem in service.port.into_iter().flat_map(format::port_number) {
        let message = format!("port is not valid: {problem}");
        errors.push(FieldError::invalid(&at.child("port"), &json!(service.port), &message));
    }
    if insecure && bundle > 0 {
        errors.push(FieldError::invalid(&insecure_at, &true, "may not be true if caBundle is present"));
    }
}

fn status(service: &APIService) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("status").child("conditions");
    let conditions = service.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
    for (i, condition) in conditions.enumerate().filter(|(_, c)| !STATUSES.contains(&c.status.as_str())) {
        errors.push(FieldError::not_supported(&path.index(i).child("status"), &condition.status, STATUSES));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::server::registry::core::persistent_volume::tests::{made, updated};

    fn check(name: &str, spec: &Value, expect: &[&str]) -> Value {
        made(ApiServiceKind, json!({"metadata": {"name": name}, "spec": spec}), expect)
    }

    #[test]
    fn one_for_each_group_and_version() {
        let spec = |more: Value| {
            let mut spec = json!({"group": "a.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        let own = check("v1.a.io", &spec(json!({})), &[]);
        let condition = &own["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["reason"], &condition["message"]),
            (&json!("Available"), &json!("Local"), &json!("Local APIServices are always available"))
        );
        check("v1.", &spec(json!({"group": ""})), &[]);
        let service = json!({"service": {"namespace": "n", "name": "s"}});
        let other = check("v1.a.io", &spec(service), &[]);
        assert_eq!((&other["spec"]["service"]["port"], &other["status"]), (&json!(443), &json!({})));
        check(
            "a",
            &spec(json!({})),
            &["metadata.name: Invalid value: \"a\": must be `spec.version+\".\"+spec.group`: \"v1.a.io\""],
        );
        check(
            "v2.",
            &json!({"version": "v2", "groupPriorityMinimum": 20001, "insecureSkipTLSVerify": true, "caBundle": "YWI="}),
            &[
                "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
                "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
                "spec.caBundle: Invalid value: \"2 bytes\": local APIServices may not have a caBundle",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ],
        );
        check(
            "v1.a.io",
            &spec(json!({"service": {"port": 0}, "insecureSkipTLSVerify": true, "caBundle": "YWI="})),
            &[
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ],
        );
        let conditions = json!([{"type": "Available", "status": "Maybe"}]);
        updated(
            ApiServiceKind,
            Part::Status,
            &own,
            &[("/status/conditions", conditions)],
            &["status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"True\", \"False\", \
               \"Unknown\""],
        );
    }
}
