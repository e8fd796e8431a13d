//! Decides: policies as they are in the cluster, with the bindings that put them to work, compiled once for every change.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::resource::custom::{self, DEFINITIONS};
use crate::api::resource::{Resource, find_kind};
use crate::api::selector::LabelSelector;
use crate::api::status::Status;
use crate::server::admission::Attributes;
use crate::server::admission::expressions::variables::{Variable, declared};
use crate::server::admission::expressions::{self, Expression, of_policies};
use crate::server::admission::webhooks::rules::{self, Rule};
use crate::server::admission::webhooks::{Forms, Seen};
use crate::server::cel::Type;
use crate::server::objects::{Derived, Objects, SharedObjects};

pub const POLICIES: &str = "admissionregistration.k8s.io/validatingadmissionpolicies";
pub const BINDINGS: &str = "admissionregistration.k8s.io/validatingadmissionpolicybindings";

/// A policy that has a binding.
pub struct Policy {
    pub name: String,
    pub matching: Matching,
    /// What cannot be evaluated is denied (`failurePolicy: Fail`).
    pub fails: bool,
    /// The kind of its parameters; `Err` when there is no such kind.
    pub params: Option<Result<&'static Resource, String>>,
    pub conditions: Vec<Expression>,
    pub variables: Vec<Variable>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<Expression>,
    pub bindings: Vec<Binding>,
}

pub struct Validation {
    pub expression: Expression,
    pub message: String,
    pub message_expression: Option<Expression>,
    pub reason: String,
}

pub struct Binding {
    pub name: String,
    matching: Option<Matching>,
    pub params: Option<ParamRef>,
    pub denies: bool,
    pub warns: bool,
}

/// `matchConstraints`, or `matchResources`.
pub struct Matching {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    equivalent: bool,
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
}

impl Matching {
    /// The version of the resource that the rules are about; no rules are about everything.
    pub fn row(&self, attributes: &Attributes<'_>, forms: &dyn Forms) -> Option<&'static Resource> {
        let matched = |list: &[Rule]| rules::matched(list, self.equivalent, attributes, forms);
        if matched(&self.excluded).is_some() {
            return None;
        }
        if self.rules.is_empty() { Some(attributes.resource) } else { matched(&self.rules) }
    }

    pub fn selects(&self, seen: &Seen<'_>, objects: &dyn Objects) -> Result<bool, Status> {
        rules::selected(&self.namespaces, &self.objects, seen, objects)
    }
}

impl Binding {
    pub fn matches(&self, seen: &Seen<'_>, objects: &dyn Objects) -> Result<bool, Status> {
        match &self.matching {
            None => Ok(true),
            Some(matching) if matching.row(seen.attributes, seen.forms).is_none() => Ok(false),
            Some(matching) => matching.selects(seen, objects),
        }
    }
}

/// Policies with their bindings. A definition may be what makes a kind of parameters known.
#[must_use]
pub fn policies(objects: &SharedObjects) -> Derived<Vec<Arc<Policy>>, 3> {
    Derived::new(objects, [POLICIES, BINDINGS, DEFINITIONS], read)
}

#[derive(Deserialize)]
pub struct Shape<T> {
    pub spec: T,
}

fn read(objects: &dyn Objects) -> Vec<Arc<Policy>> {
    bound(objects, POLICIES, BINDINGS, |binding: &(String, ValidatingAdmissionPolicyBindingSpec)| {
        (binding.1.policy_name.clone(), self::binding(binding))
    })
    .map(|(name, spec, bindings)| Arc::new(policy(name, spec, bindings, objects)))
    .collect()
}

/// The policies that are bound, by name, with their bindings by name, which is how the cache lists them. `binding` reads
/// one: the policy that it names, and what it says.
pub fn bound<P: DeserializeOwned, B: DeserializeOwned>(
    objects: &dyn Objects,
    policies: &str,
    bindings: &str,
    binding: impl Fn(&(String, B)) -> (String, Binding),
) -> impl Iterator<Item = (String, P, Vec<Binding>)> {
    let mut all: HashMap<String, Vec<Binding>> = HashMap::new();
    for object in objects.list(bindings, None) {
        if let Ok(shape) = object.typed::<Shape<B>>() {
            let (policy, one) = binding(&(object.key.name.to_string(), shape.spec));
            all.entry(policy).or_default().push(one);
        }
    }
    objects.list(policies, None).into_iter().filter_map(move |object| {
        let own = all.remove(&*object.key.name)?;
        Some((object.key.name.to_string(), object.typed::<Shape<P>>().ok()?.spec, own))
    })
}

pub fn policy(
    name: String,
    spec: ValidatingAdmissionPolicySpec,
    bindings: Vec<Binding>,
    objects: &dyn Objects,
) -> Policy {
    let has_params = spec.param_kind.is_some();
    let mut variables: Vec<Variable> = Vec::new();
    for given in spec.variables.unwrap_or_default() {
        let environment = of_policies(Some(declared(&variables)), has_params);
        let expression = Expression::compile(&given.expression, &environment, &[]);
        variables.push(Variable { name: given.name, expression });
    }
    let environment = of_policies(Some(declared(&variables)), has_params);
    let compiled = |source: &str, wanted: &[Type]| Expression::compile(source, &environment, wanted);
    let validations = spec.validations.unwrap_or_default().into_iter().map(|v| Validation {
        expression: compiled(&v.expression, &[Type::Bool]),
        message: v.message.unwrap_or_default(),
        message_expression: v.message_expression.map(|m| compiled(&m, &[Type::String])),
        reason: v.reason.unwrap_or_default(),
    });
    let annotations = spec.audit_annotations.unwrap_or_default();
    Policy {
        matching: matching(spec.match_constraints.unwrap_or_default()),
        fails: spec.failure_policy.as_deref() != Some("Ignore"),
        params: spec.param_kind.as_ref().map(|given| kind(given, objects)),
        conditions: expressions::conditions(&spec.match_conditions.unwrap_or_default(), &of_policies(None, has_params)),
        validations: validations.collect(),
        annotations: annotations.iter().map(|a| compiled(&a.value_expression, &[Type::String, Type::Null])).collect(),
        variables,
        bindings,
        name,
    }
}

fn kind(given: &ParamKind, objects: &dyn Objects) -> Result<&'static Resource, String> {
    let version = given.api_version.as_deref().unwrap_or_default();
    let kind = given.kind.as_deref().unwrap_or_default();
    let custom = || {
        let definitions = objects.list(DEFINITIONS, None);
        definitions.iter().find_map(|d| custom::of(&d.value().ok()?)?.kind(version, kind))
    };
    let row = find_kind(version, kind).or_else(custom).filter(|row| !row.storage.is_empty());
    row.ok_or_else(|| {
        let shown = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
        format!("failed to find resource referenced by paramKind: '{shown}, Kind={kind}'")
    })
}

pub fn binding((name, spec): &(String, ValidatingAdmissionPolicyBindingSpec)) -> Binding {
    let acts = |action: &str| spec.validation_actions.iter().any(|a| a == action);
    Binding {
        name: name.clone(),
        matching: spec.match_resources.clone().map(matching),
        params: spec.param_ref.clone(),
        denies: acts("Deny"),
        warns: acts("Warn"),
    }
}

fn matching(given: MatchResources) -> Matching {
    let selector = |s: Option<_>| match s {
        None => Ok(LabelSelector::default()),
        Some(s) => LabelSelector::from_meta(&s).map_err(|e| e.to_string()),
    };
    Matching {
        rules: given.resource_rules.unwrap_or_default().into_iter().map(rule).collect(),
        excluded: given.exclude_resource_rules.unwrap_or_default().into_iter().map(rule).collect(),
        equivalent: given.match_policy.as_deref() == Some("Equivalent"),
        namespaces: selector(given.namespace_selector),
        objects: selector(given.object_selector),
    }
}

fn rule(r: NamedRuleWithOperations) -> Rule {
    Rule {
        operations: r.operations.unwrap_or_default(),
        groups: r.api_groups.unwrap_or_default(),
        versions: r.api_versions.unwrap_or_default(),
        resources: r.resources.unwrap_or_default(),
        scope: r.scope.unwrap_or_default(),
        names: r.resource_names.unwrap_or_default(),
    }
}
