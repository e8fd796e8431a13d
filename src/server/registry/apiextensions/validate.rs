//! Decides: what is wrong with a CustomResourceDefinition (`pkg/apis/apiextensions/validation/validation.go`).
//!
//! What all versions have in common (schema, subresources, columns, selectable fields) upstream keeps once, at the top
//! of its internal form. Nobody can send that form, but messages name its fields: `spec.validation` is the schema of
//! every version, `spec.versions[0].schema` that of a version which is not like the others.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinitionNames, CustomResourceSubresources, SelectableField,
};
use serde_json::{Value, json};

use super::types::{CustomResourceDefinition, Spec, Validation, Version};
use super::{conversion, paths, schema};
use crate::api::field::{BadValue, FieldError, Path};
use crate::server::registry::format::{self, Problems};
use crate::server::registry::metadata::{Errors, immutable};
use crate::server::registry::webhook::Url;

const SCOPES: &[&str] = &["Cluster", "Namespaced"];
const APPROVAL: &str = "api-approved.kubernetes.io";
const MAX_WARNING: usize = 256;

/// What is held against what was there before.
#[derive(Clone, Copy)]
pub struct Options {
    /// A schema for every version.
    schemas: bool,
    pub recognized_review: bool,
    pub valid_ca_bundle: bool,
}

pub fn create(new: &CustomResourceDefinition) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let meta = &new.metadata;
    let required = format!("{}.{}", new.spec.names.plural, new.spec.group);
    for (field, name) in [("generateName", &meta.generate_name), ("name", &meta.name)] {
        if let Some(name) = name.as_ref().filter(|n| !n.is_empty() && **n != required) {
            let path = Path::new("metadata").child(field);
            errors.push(FieldError::invalid(&path, name, "must be spec.names.plural+\".\"+spec.group"));
        }
    }
    spec(&mut errors, &new.spec, Options { schemas: true, recognized_review: true, valid_ca_bundle: false }, None);
    rest(&mut errors, new, None);
    errors
}

pub fn update(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let established = is_true(old, "Established");
    let options = Options {
        schemas: old.spec.versions.iter().all(|v| v.json_schema().is_some()),
        recognized_review: conversion::knows_review(&old.spec),
        valid_ca_bundle: established && conversion::has_valid_ca_bundle(&old.spec),
    };
    spec(&mut errors, &new.spec, options, Some(&old.spec));
    let (path, after, before) = (Path::new("spec"), &new.spec, &old.spec);
    let names = path.child("names");
    if established {
        immutable(&mut errors, &path.child("scope"), &after.scope, &before.scope);
        immutable(&mut errors, &names.child("kind"), &after.names.kind, &before.names.kind);
    }
    immutable(&mut errors, &path.child("group"), &after.group, &before.group);
    immutable(&mut errors, &names.child("plural"), &after.names.plural, &before.names.plural);
    rest(&mut errors, new, Some(old));
    errors
}

pub fn status(new: &CustomResourceDefinition) -> Vec<FieldError> {
    let mut errors = Vec::new();
    names(&mut errors, &Path::new("status").child("acceptedNames"), &new.status.accepted_names);
    errors
}

fn is_true(definition: &CustomResourceDefinition, kind: &str) -> bool {
    definition.status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

/// What comes after the spec.
fn rest(errors: &mut Errors, new: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>) {
    errors.extend(status(new));
    stored_versions(errors, new);
    approval(errors, new, old);
    if new.spec.preserve_unknown_fields && !old.is_some_and(|o| o.spec.preserve_unknown_fields) {
        let message = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                       spec.versions[*].schema instead";
        errors.push(FieldError::invalid(&Path::new("spec").child("preserveUnknownFields"), &true, message));
    }
}

fn stored_versions(errors: &mut Errors, definition: &CustomResourceDefinition) {
    let (path, shown) = (Path::new("status").child("storedVersions"), json!(definition.status.stored_versions));
    let stored = definition.status.stored_versions.as_deref().unwrap_or_default();
    if stored.is_empty() {
        errors.push(FieldError::invalid(&path, &shown, "must have at least one stored version"));
        return;
    }
    let versions = &definition.spec.versions;
    for version in versions.iter().filter(|v| v.storage && !stored.contains(&v.name)) {
        let message = format!("must have the storage version {}", version.name);
        errors.push(FieldError::invalid(&path, &shown, &message));
    }
    for (i, name) in stored.iter().enumerate().filter(|(_, name)| !versions.iter().any(|v| v.name == **name)) {
        let message = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
             until a storage migration ensures no data remains persisted in {name} and removes {name} from \
             status.storedVersions"
        );
        errors.push(FieldError::invalid(&path.index(i), name, &message));
    }
}

/// How a group of Kubernetes' own came to have a definition (kubernetes/enhancements#1111).
#[derive(PartialEq, Eq)]
enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

fn approval(errors: &mut Errors, new: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>) {
    let group = &new.spec.group;
    let is_protected = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    if !is_protected("k8s.io") && !is_protected("kubernetes.io") {
        return;
    }
    let text = |definition: &CustomResourceDefinition| {
        definition.metadata.annotations.as_ref().and_then(|a| a.get(APPROVAL)).cloned().unwrap_or_default()
    };
    let state = |text: &str| match Url::parse(text) {
        _ if text.is_empty() => Approval::Missing,
        _ if text.starts_with("unapproved") => Approval::Bypassed,
        Ok(url) if !url.host.is_empty() && !url.scheme.is_empty() => Approval::Approved,
        _ => Approval::Invalid,
    };
    let now = state(&text(new));
    if old.is_some_and(|old| state(&text(old)) == now) {
        return;
    }
    let path = Path::new("metadata").child("annotations").key(APPROVAL);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match now {
        Approval::Missing => {
            let message = format!("protected groups must have approval annotation {APPROVAL:?}, {see}");
            errors.push(FieldError::required(&path, &message));
        }
        Approval::Invalid => {
            let message = format!(
                "protected groups must have approval annotation {APPROVAL:?} with either a URL or a reason starting \
                 with \"unapproved\", {see}"
            );
            errors.push(FieldError::invalid(&path, &text(new), &message));
        }
        Approval::Bypassed | Approval::Approved => {}
    }
}

/// Problems that upstream tells in one message.
pub fn joined(errors: &mut Errors, path: &Path, value: &str, problems: &Problems) {
    if !problems.is_empty() {
        errors.push(FieldError::invalid(path, &value, &problems.join(",")));
    }
}

pub fn one_of(errors: &mut Errors, path: &Path, value: &str, accepted: &[&str]) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !accepted.contains(&value) {
        errors.push(FieldError::not_supported(path, &value, accepted));
    }
}

/// What all versions have in common; `None` where they differ.
struct Shared<'a> {
    validation: Option<Option<&'a Validation>>,
    subresources: Option<Option<&'a CustomResourceSubresources>>,
    columns: Option<&'a [CustomResourceColumnDefinition]>,
    selectable: Option<&'a [SelectableField]>,
}

fn same<'a, T: PartialEq>(spec: &'a Spec, of: impl Fn(&'a Version) -> T) -> Option<T> {
    let mut all = spec.versions.iter().map(of);
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

impl<'a> Shared<'a> {
    fn of(spec: &'a Spec) -> Self {
        Self {
            validation: same(spec, |v| v.schema.as_ref()),
            subresources: same(spec, |v| v.subresources.as_ref()),
            columns: same(spec, |v| v.additional_printer_columns.as_slice()),
            selectable: same(spec, |v| v.selectable_fields.as_slice()),
        }
    }
}

fn spec(errors: &mut Errors, spec: &Spec, options: Options, old: Option<&Spec>) {
    let path = Path::new("spec");
    let at = path.child("group");
    match spec.group.as_str() {
        "" => errors.push(FieldError::required(&at, "")),
        group => match format::dns_subdomain(group) {
            problems if !problems.is_empty() => joined(errors, &at, group, &problems),
            _ if !group.contains('.') => {
                errors.push(FieldError::invalid(&at, &group, "should be a domain with at least one dot"));
            }
            _ => {}
        },
    }
    one_of(errors, &path.child("scope"), &spec.scope, SCOPES);
    for (i, version) in spec.versions.iter().enumerate().filter(|(_, v)| v.json_schema().is_none()) {
        let at = path.child("versions").index(i).child("schema").child("openAPIV3Schema");
        if options.schemas {
            errors.push(FieldError::required(&at, ""));
        } else if version.served && !spec.preserve_unknown_fields {
            errors.push(FieldError::required(&at, "because otherwise all fields are pruned"));
        }
    }
    if spec.preserve_unknown_fields && spec.versions.iter().filter_map(Version::json_schema).any(schema::has_defaults) {
        let message = "must be false in order to use defaults in the schema";
        errors.push(FieldError::invalid(&path.child("preserveUnknownFields"), &true, message));
    }
    let shared = Shared::of(spec);
    versions(errors, &path, spec, &shared, old);
    for (field, name) in [
        ("plural", Some(&spec.names.plural)),
        ("singular", spec.names.singular.as_ref()),
        ("kind", Some(&spec.names.kind)),
        ("listKind", spec.names.list_kind.as_ref()),
    ] {
        if name.is_none_or(String::is_empty) {
            errors.push(FieldError::required(&path.child("names").child(field), ""));
        }
    }
    names(errors, &path.child("names"), &spec.names);
    common(errors, &path, spec, &shared, old);
    if let Some(conversion) = &spec.conversion {
        let at = path.child("conversion");
        if conversion.strategy != "None" && spec.preserve_unknown_fields {
            let message = "must be None if spec.preserveUnknownFields is true";
            errors.push(FieldError::invalid(&at.child("strategy"), &conversion.strategy, message));
        }
        conversion::check(errors, &at, conversion, options);
    }
}

/// Each version on its own, and all of them together.
fn versions(errors: &mut Errors, path: &Path, spec: &Spec, shared: &Shared, old: Option<&Spec>) {
    let at = path.child("versions");
    for (i, version) in spec.versions.iter().enumerate() {
        let at = at.index(i);
        joined(errors, &at.child("name"), &version.name, &format::dns_1035_label(&version.name));
        if let Some(text) = &version.deprecation_warning {
            for problem in warning(version.deprecated, text) {
                errors.push(FieldError::invalid(&at.child("deprecationWarning"), text, &problem));
            }
        }
        if shared.validation.is_none()
            && let Some(own) = version.json_schema()
        {
            let has_status = version.subresources.as_ref().is_some_and(|s| s.status.is_some());
            errors.extend(schema::check(own, &at.child("schema"), has_status));
        }
        if shared.subresources.is_none() {
            paths::subresources(errors, &at.child("subresources"), version.subresources.as_ref());
        }
        if shared.columns.is_none() {
            paths::columns(errors, &at.child("additionalPrinterColumns"), &version.additional_printer_columns);
        }
        // Fields that are selected alike in schemas that differ are looked for in each of them.
        let apart = shared.selectable.is_none() || shared.validation.is_none();
        if apart && !version.selectable_fields.is_empty() {
            let at = at.child("selectableFields");
            match version.json_schema() {
                // As upstream words it.
                None => errors.push(FieldError::invalid(
                    &at,
                    &"",
                    "may only be set when `version.schema.openAPIV3Schema` is not included",
                )),
                Some(own) => {
                    let before = old.and_then(|o| o.versions.iter().find(|v| v.name == version.name));
                    let before = before.map(|v| v.selectable_fields.as_slice());
                    paths::selectable(errors, &at, &version.selectable_fields, own, before);
                }
            }
        }
    }
    let mut refuse = |message: &str| errors.push(FieldError::invalid(&at, &Internal(spec, shared), message));
    if spec.versions.iter().enumerate().any(|(i, v)| spec.versions[..i].iter().any(|w| w.name == v.name)) {
        refuse("must contain unique version names");
    }
    if spec.versions.iter().filter(|v| v.storage).count() != 1 {
        refuse("must have exactly one version marked as storage version");
    }
    // The name of the first is a field of its own in upstream's form.
    if let Some(first) = spec.versions.first().filter(|v| !v.name.is_empty()) {
        joined(errors, &path.child("version"), &first.name, &format::dns_1035_label(&first.name));
    }
}

/// What all versions share.
fn common(errors: &mut Errors, path: &Path, spec: &Spec, shared: &Shared, old: Option<&Spec>) {
    let validation = shared.validation.flatten();
    let common_schema = validation.and_then(|v| v.open_api_v3_schema.as_ref());
    if let Some(common) = common_schema {
        let has_status = spec.versions.iter().any(|v| v.subresources.as_ref().is_some_and(|s| s.status.is_some()));
        errors.extend(schema::check(common, &path.child("validation"), has_status));
    }
    paths::subresources(errors, &path.child("subresources"), shared.subresources.flatten());
    paths::columns(errors, &path.child("additionalPrinterColumns"), shared.columns.unwrap_or_default());
    let fields = shared.selectable.unwrap_or_default();
    let at = path.child("selectableFields");
    if let (Some(schema), false) = (common_schema, fields.is_empty()) {
        let before = old.and_then(|o| Shared::of(o).selectable);
        paths::selectable(errors, &at, fields, schema, before);
    }
}

fn warning(deprecated: bool, text: &str) -> Problems {
    if !deprecated {
        return vec!["can only be set for deprecated versions".into()];
    }
    let mut problems = Vec::new();
    if text.len() > MAX_WARNING {
        problems.push(format!("must be <= {MAX_WARNING} characters long"));
    }
    if text.is_empty() {
        problems.push("must not be an empty string".into());
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        problems
            .push(format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
    problems
}

fn names(errors: &mut Errors, path: &Path, names: &CustomResourceDefinitionNames) {
    let singular = names.singular.as_deref().unwrap_or_default();
    let list_kind = names.list_kind.as_deref().unwrap_or_default();
    for (field, name) in [("plural", names.plural.as_str()), ("singular", singular)] {
        if !name.is_empty() {
            joined(errors, &path.child(field), name, &format::dns_1035_label(name));
        }
    }
    for (field, name) in [("kind", names.kind.as_str()), ("listKind", list_kind)] {
        let problems = format::dns_1035_label(&name.to_lowercase());
        if !name.is_empty() && !problems.is_empty() {
            let message = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
            errors.push(FieldError::invalid(&path.child(field), &name, &message));
        }
    }
    for (i, name) in names.short_names.iter().flatten().enumerate() {
        joined(errors, &path.child("shortNames").index(i), name, &format::dns_1035_label(name));
    }
    if !names.kind.is_empty() && names.kind == list_kind {
        let at = path.child("listKind");
        errors.push(FieldError::invalid(&at, &list_kind, "kind and listKind may not be the same"));
    }
    for (i, name) in names.categories.iter().flatten().enumerate() {
        joined(errors, &path.child("categories").index(i), name, &format::dns_1035_label(name));
    }
}

/// The versions as an error shows them: upstream's internal form, whose fields have the names of Go. Schemas are shown as
/// they are in JSON.
struct Internal<'a>(&'a Spec, &'a Shared<'a>);

impl BadValue for Internal<'_> {
    fn shown(&self) -> String {
        let Self(spec, shared) = self;
        let json = |own: bool, value: Value| if own { value } else { Value::Null };
        let list = |own: bool, list: Vec<String>| {
            if own && !list.is_empty() { format!("[{}]", list.join(",")) } else { "null".into() }
        };
        let version = |v: &Version| {
            let schema = v.schema.as_ref().map(|s| json!({"OpenAPIV3Schema": s.open_api_v3_schema}));
            let columns = v.additional_printer_columns.iter().map(|c| {
                format!(
                    "{{\"Name\":{:?},\"Type\":{:?},\"Format\":{:?},\"Description\":{:?},\"Priority\":{},\"JSONPath\":{:?}}}",
                    c.name,
                    c.type_,
                    c.format.as_deref().unwrap_or_default(),
                    c.description.as_deref().unwrap_or_default(),
                    c.priority.unwrap_or_default(),
                    c.json_path
                )
            });
            let fields = v.selectable_fields.iter().map(|f| format!("{{\"JSONPath\":{:?}}}", f.json_path));
            format!(
                "{{\"Name\":{:?},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\
                 \"Schema\":{},\"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
                v.name,
                v.served,
                v.storage,
                v.deprecated,
                json!(v.deprecation_warning),
                json(shared.validation.is_none(), json!(schema)),
                if shared.subresources.is_none() { paths::internal(v.subresources.as_ref()) } else { "null".into() },
                list(shared.columns.is_none(), columns.collect()),
                list(shared.selectable.is_none(), fields.collect()),
            )
        };
        list(true, spec.versions.iter().map(version).collect())
    }
}
