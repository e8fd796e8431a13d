//! Decides: FlowSchema: which requests a priority level is for.

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, FlowSchemaSpec, FlowSchemaStatus};

use super::{conditions, keep_metadata, rules};
use crate::api::field::{BadValue, FieldError, Path};
use crate::api::flowcontrol;
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

const DISTINGUISHERS: &[&str] = &["ByNamespace", "ByUser"];
const DEFAULT_PRECEDENCE: i32 = 1000;
const MAX_PRECEDENCE: i32 = 10_000;

pub struct FlowSchemaKind;

impl Kind for FlowSchemaKind {
    type Object = FlowSchema;

    fn resource(&self) -> &'static Resource {
        row("flowcontrol.apiserver.k8s.io/v1", "FlowSchema")
    }

    fn defaults(&self, schema: &mut FlowSchema) {
        let spec = schema.spec.get_or_insert_default();
        spec.matching_precedence = spec.matching_precedence.filter(|n| *n != 0).or(Some(DEFAULT_PRECEDENCE));
        schema.status.get_or_insert_default();
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, schema: &mut FlowSchema) {
        schema.status = Some(FlowSchemaStatus::default());
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut FlowSchema, old: &FlowSchema) {
        if part == Part::Status {
            keep_metadata(&mut new.metadata, &old.metadata);
        }
    }

    fn status_resets(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata"]]
    }

    fn validate(&self, schema: &FlowSchema) -> Vec<FieldError> {
        let (mut errors, path) = (Vec::new(), Path::new("spec"));
        let (name, spec) =
            (schema.metadata.name.as_deref().unwrap_or_default(), schema.spec.clone().unwrap_or_default());
        check(&mut errors, &path, name, &spec);
        // Those without which no request would find its way.
        let fixed =
            flowcontrol::mandatory_flow_schemas().into_iter().find(|m| m.metadata.name.as_deref() == Some(name));
        if fixed.is_some_and(|m| m.spec != Some(spec.clone())) {
            let message = format!("spec of '{name}' must equal the fixed value");
            errors.push(FieldError::invalid(&path, &shown(&spec), &message));
        }
        errors.extend(status(schema));
        errors
    }

    fn validate_update(&self, part: Part, new: &FlowSchema, _: &FlowSchema) -> Vec<FieldError> {
        if part == Part::Status { status(new) } else { self.validate(new) }
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

fn status(schema: &FlowSchema) -> Errors {
    let mut errors = Vec::new();
    let found = schema.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
    conditions(&mut errors, found.map(|c| c.type_.as_ref()));
    errors
}

/// A method as an error shows it: upstream's internal form.
struct Method<'a>(&'a str);

impl BadValue for Method<'_> {
    fn shown(&self) -> String {
        format!("{{\"Type\":{:?}}}", self.0)
    }
}

fn check(errors: &mut Errors, path: &Path, name: &str, spec: &FlowSchemaSpec) {
    let (at, precedence) = (path.child("matchingPrecedence"), spec.matching_precedence.unwrap_or_default());
    let mut refuse = |message: &str| errors.push(FieldError::invalid(&at, &precedence, message));
    if precedence <= 0 {
        refuse("must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        refuse(&format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && name != "exempt" {
        refuse("only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = spec.distinguisher_method.as_ref().filter(|m| !DISTINGUISHERS.contains(&m.type_.as_str())) {
        let at = path.child("distinguisherMethod").child("type");
        errors.push(FieldError::not_supported(&at, &Method(&method.type_), DISTINGUISHERS));
    }
    let (at, level) = (path.child("priorityLevelConfiguration").child("name"), &spec.priority_level_configuration.name);
    if level.is_empty() {
        errors.push(FieldError::required(&at, "must reference a priority level"));
    } else {
        invalid(errors, &at, level, format::dns_subdomain(level));
    }
    for (i, rule) in spec.rules.iter().flatten().enumerate() {
        rules::check(errors, &path.child("rules").index(i), rule);
    }
}
