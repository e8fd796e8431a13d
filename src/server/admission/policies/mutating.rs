//! Decides: MutatingAdmissionPolicy: expressions in the cluster that change objects, before webhooks see them. What an
//! expression makes is merged into the object as server-side apply would merge it, or applied as a JSON patch.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicyBindingSpec, MutatingAdmissionPolicySpec, Mutation, ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec,
};
use serde_json::Value;

use super::config::{self, Binding, Policy};
use super::params;
use crate::api::apply::merge::{merge, problems};
use crate::api::apply::place::{Place, View};
use crate::api::resource::custom::DEFINITIONS;
use crate::api::resource::{Resource, find_kind};
use crate::api::schema;
use crate::api::status::{Cause, Details, Status};
use crate::server::admission::Attributes;
use crate::server::admission::expressions::variables::{Computed, declared};
use crate::server::admission::expressions::{Expression, Input, Matched, VARIABLES, matched, of_policies};
use crate::server::admission::webhooks::{Forms, Options, Rounds, Seen, patch, review, rules};
use crate::server::authz::Authorizer;
use crate::server::cel::types::ObjectType;
use crate::server::cel::{Budget, Type, Value as Cel};
use crate::server::objects::{Derived, Objects, SharedObjects};

const POLICIES: &str = "admissionregistration.k8s.io/mutatingadmissionpolicies";
const BINDINGS: &str = "admissionregistration.k8s.io/mutatingadmissionpolicybindings";

/// The plugin.
pub struct MutatingPolicies {
    objects: SharedObjects,
    authorizer: Arc<Authorizer>,
    policies: Derived<Vec<Arc<Mutating>>, 3>,
}

/// A policy with its bindings, and what it does.
struct Mutating {
    policy: Policy,
    steps: Vec<Step>,
    /// `reinvocationPolicy: IfNeeded`
    again: bool,
}

enum Step {
    /// An `Object` to merge.
    Apply(Expression),
    /// A list of `JSONPatch`.
    Patch(Expression),
}

/// A policy that has rules about a write, and the version in which it sees the object.
pub struct About {
    mutating: Arc<Mutating>,
    row: &'static Resource,
}

impl MutatingPolicies {
    #[must_use]
    pub fn new(objects: SharedObjects, authorizer: Arc<Authorizer>) -> Self {
        let policies = Derived::new(&objects, [POLICIES, BINDINGS, DEFINITIONS], read);
        Self { objects, authorizer, policies }
    }

    /// The policies with rules about this write.
    #[must_use]
    pub fn about(&self, attributes: &Attributes<'_>, forms: &dyn Forms) -> Vec<About> {
        let policies = self.policies.get();
        if policies.is_empty() || rules::exempt(attributes) {
            return Vec::new();
        }
        let about = |mutating: &Arc<Mutating>| {
            let row = mutating.policy.matching.row(attributes, forms)?;
            Some(About { mutating: mutating.clone(), row })
        };
        policies.iter().filter_map(about).collect()
    }

    /// One round of policies, in the order of their names; of the second, only those that have to see what changed.
    ///
    /// # Errors
    /// What went wrong with policies that must not fail.
    pub fn mutate(
        &self,
        about: &[About],
        attributes: &Attributes<'_>,
        options: Options<'_>,
        forms: &dyn Forms,
        object: &mut Value,
        rounds: &mut Rounds,
    ) -> Result<(), Status> {
        let mut errors = Vec::new();
        for About { mutating, row } in about {
            let policy = &mutating.policy;
            let mut wrong = |binding: Option<&Binding>, why: &str| {
                let name = &policy.name;
                let message = match binding {
                    Some(b) => format!("policy '{name}' with binding '{}' denied request: {why}", b.name),
                    None => format!("policy {name:?} denied request: {why}"),
                };
                errors.extend(policy.fails.then_some(message));
            };
            let seen = Seen { attributes, options, forms, object: Some(object) };
            match policy.matching.selects(&seen, &*self.objects) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(status) => {
                    wrong(None, &format!("failed to configure policy: {}", status.message()));
                    continue;
                }
            }
            if let Some(Err(why)) = &policy.params {
                wrong(None, &format!("failed to configure policy: {why}"));
                continue;
            }
            for binding in &policy.bindings {
                let seen = Seen { attributes, options, forms, object: Some(object) };
                let params = match binding.matches(&seen, &*self.objects).map_err(|s| s.message().to_owned()) {
                    Ok(false) => continue,
                    Ok(true) => params::of(policy, binding, attributes.namespace, &*self.objects),
                    Err(why) => Err(why),
                };
                let params = match params {
                    Ok(params) => params,
                    Err(why) => {
                        wrong(Some(binding), &format!("failed to configure binding: {why}"));
                        continue;
                    }
                };
                for params in params {
                    let meta = &params["metadata"];
                    let key = format!("{}/{}/{}/{}", policy.name, binding.name, meta["namespace"], meta["name"]);
                    if rounds.skips(&key) {
                        continue;
                    }
                    let before = object.clone();
                    for why in self.run(mutating, row, &params, attributes, options, forms, object)? {
                        wrong(Some(binding), &why);
                    }
                    if *object != before {
                        rounds.require();
                    }
                    rounds.asked(key, mutating.again);
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(refusal(attributes, object, &errors)) }
    }

    /// The steps of one policy with one object of parameters; the answer is what went wrong with some of them.
    #[allow(clippy::too_many_arguments, reason = "a policy and all that it sees")]
    fn run(
        &self,
        mutating: &Mutating,
        row: &Resource,
        params: &Value,
        attributes: &Attributes<'_>,
        options: Options<'_>,
        forms: &dyn Forms,
        object: &mut Value,
    ) -> Result<Vec<String>, Status> {
        let policy = &mutating.policy;
        let old = attributes.old.map(|v| forms.show(row, v)).unwrap_or_default();
        let seen = Seen { attributes, options, forms, object: Some(object) };
        let request = review::without_objects(&seen, row);
        let stored = self.objects.get("namespaces", "", attributes.namespace);
        let namespace = stored.and_then(|n| n.value().ok()).unwrap_or_default();
        let mut wrong = Vec::new();
        for (place, step) in mutating.steps.iter().enumerate() {
            let shown = forms.show(row, object);
            let input = Input {
                object: &shown,
                old: &old,
                request: &request,
                namespace: &namespace,
                params,
                authorizer: &self.authorizer,
                user: &attributes.cx.user,
            };
            let bindings = input.bindings();
            if place == 0 {
                match matched(&policy.conditions, &bindings) {
                    Matched::Yes => {}
                    Matched::No => return Ok(wrong),
                    Matched::Failed(why) => return Ok(vec![why]),
                }
            }
            let computed = Computed::new(&policy.variables, bindings.clone());
            let bindings = bindings.with(VARIABLES, Cel::Lazy(&computed));
            let made = match step {
                Step::Apply(e) | Step::Patch(e) => e.evaluate(&bindings, &mut Budget::default()),
            };
            let made = made.and_then(|v| v.to_json().ok_or_else(|| "the result has no JSON".to_owned()));
            let changed = made.and_then(|made| match step {
                Step::Apply(_) => applied(&shown, made).map_err(|why| format!("error applying patch: {why}")),
                Step::Patch(_) => patched(&shown, made),
            });
            match changed {
                Ok(changed) if changed != shown => forms.take(row, changed, object).map_err(Status::internal)?,
                Ok(_) => {}
                Err(why) => wrong.push(why),
            }
        }
        Ok(wrong)
    }
}

/// All messages are told, the first as the message of the status.
fn refusal(attributes: &Attributes<'_>, object: &Value, errors: &[String]) -> Status {
    let forbidden = attributes.forbidden(Some(object), "");
    let details = forbidden.details().cloned().unwrap_or_default();
    let causes = errors.iter().map(|e| Cause { message: e.clone(), ..Cause::default() }).collect();
    let first = errors.first().cloned().unwrap_or_default();
    Status::new(403, "Invalid", first).with_details(Details { causes, ..details })
}

/// What an apply configuration makes of an object.
fn applied(shown: &Value, mut document: Value) -> Result<Value, String> {
    for field in ["apiVersion", "kind"] {
        document[field] = shown[field].clone();
    }
    let (version, kind) = (shown["apiVersion"].as_str(), shown["kind"].as_str());
    let row = find_kind(version.unwrap_or_default(), kind.unwrap_or_default());
    let place: Place = row.and_then(schema::of).map(Place::from).ok_or("type converter must not be nil")?;
    let problems = problems(place, &document);
    if !problems.is_empty() {
        return Err(format!("failed to convert patch object to typed object: {}", problems.join("\n")));
    }
    let mut atomics = Vec::new();
    find_atomics(place, &document, "", &mut atomics);
    if !atomics.is_empty() {
        let all = atomics.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {all}"));
    }
    Ok(merge(place, Some(shown), &document))
}

/// What would be replaced as a whole, though an expression names only a part of it.
fn find_atomics(place: Place, value: &Value, path: &str, found: &mut Vec<String>) {
    let view = place.view(value);
    match (view, value) {
        (View::Leaf, Value::Object(_) | Value::Array(_)) => found.push(path.to_owned()),
        (_, Value::Object(fields)) => {
            for (name, value) in fields {
                if let Some(place) = Place::field(view, name) {
                    find_atomics(place, value, &format!("{path}.{name}"), found);
                }
            }
        }
        (View::Keyed(keys), Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                find_atomics(keys.item, item, &format!("{path}[{i}]"), found);
            }
        }
        _ => {}
    }
}

/// A patch of which a test fails changes nothing.
fn patched(shown: &Value, operations: Value) -> Result<Value, String> {
    let operations: json_patch::Patch = serde_json::from_value(operations).map_err(|e| format!("JSONPath: {e}"))?;
    let mut changed = shown.clone();
    match patch::apply(&mut changed, &operations) {
        Ok(()) => Ok(changed),
        Err(why) if why.ends_with("test failed") => Ok(shown.clone()),
        Err(why) => Err(format!("JSONPath: {why}")),
    }
}

fn read(objects: &dyn Objects) -> Vec<Arc<Mutating>> {
    config::bound(objects, POLICIES, BINDINGS, |(name, spec): &(String, MutatingAdmissionPolicyBindingSpec)| {
        let policy = spec.policy_name.clone().unwrap_or_default();
        (policy, config::binding(&(name.clone(), as_validating(spec))))
    })
    .map(|(name, spec, bindings)| Arc::new(mutating(name, spec, bindings, objects)))
    .collect()
}

fn as_validating(binding: &MutatingAdmissionPolicyBindingSpec) -> ValidatingAdmissionPolicyBindingSpec {
    ValidatingAdmissionPolicyBindingSpec {
        match_resources: binding.match_resources.clone(),
        param_ref: binding.param_ref.clone(),
        ..Default::default()
    }
}

/// Everything but the mutations is as in a policy that validates.
fn mutating(
    name: String,
    spec: MutatingAdmissionPolicySpec,
    bindings: Vec<Binding>,
    objects: &dyn Objects,
) -> Mutating {
    let has_params = spec.param_kind.is_some();
    let common = ValidatingAdmissionPolicySpec {
        failure_policy: spec.failure_policy,
        match_conditions: spec.match_conditions,
        match_constraints: spec.match_constraints,
        param_kind: spec.param_kind,
        variables: spec.variables,
        ..Default::default()
    };
    let policy = config::policy(name, common, bindings, objects);
    let environment = of_policies(Some(declared(&policy.variables)), has_params).with_mutations();
    let message = |name: &str| Type::Object(Arc::new(ObjectType::new(name, Vec::new())));
    let step = |m: Mutation| match (m.apply_configuration, m.json_patch) {
        (Some(apply), _) => {
            let source = apply.expression.unwrap_or_default();
            Step::Apply(Expression::compile(&source, &environment, &[message("Object")]))
        }
        (None, patch) => {
            let source = patch.and_then(|p| p.expression).unwrap_or_default();
            Step::Patch(Expression::compile(&source, &environment, &[Type::list(message("JSONPatch"))]))
        }
    };
    let steps = spec.mutations.unwrap_or_default().into_iter().map(step).collect();
    Mutating { steps, again: spec.reinvocation_policy.as_deref() == Some("IfNeeded"), policy }
}
