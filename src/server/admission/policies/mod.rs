//! Decides: ValidatingAdmissionPolicy: expressions in the cluster that refuse writes, or warn of them, where a binding puts
//! them to work.
//!
//! ```text
//! policy, binding ─ matchConstraints, matchResources ─▶ params ─▶ matchConditions ─▶ validations ─▶ Deny, Warn, Audit
//! ```
//!
//! - [`config`]: policies with their bindings, compiled once for every change of one
//! - [`params`]: the objects that a binding gives to its policy
//! - [`evaluate`]: one policy with one binding and one object of parameters
//! - [`type_check`]: whether expressions fit the kinds that they are about, for the status
//! - [`mutating`]: MutatingAdmissionPolicy, which changes objects instead

mod config;
mod evaluate;
pub mod mutating;
mod params;
pub mod type_check;

use std::sync::Arc;

use serde_json::Value;

use self::config::{Binding, Policy};
use self::evaluate::Denied;
use super::Attributes;
use super::expressions::Input;
use super::webhooks::{Forms, Seen, review, rules};
use crate::api::resource::Resource;
use crate::api::status::{Cause, Details, Status};
use crate::server::authz::Authorizer;
use crate::server::objects::{Derived, SharedObjects};

const INVALID: &str = "Invalid";

/// The plugin.
pub struct Policies {
    objects: SharedObjects,
    authorizer: Arc<Authorizer>,
    policies: Derived<Vec<Arc<Policy>>, 3>,
}

/// A policy that has rules about a write, and the version in which its expressions see the object.
pub struct About {
    policy: Arc<Policy>,
    row: &'static Resource,
}

impl Policies {
    #[must_use]
    pub fn new(objects: SharedObjects, authorizer: Arc<Authorizer>) -> Self {
        Self { policies: config::policies(&objects), objects, authorizer }
    }

    /// The policies with rules about this write.
    #[must_use]
    pub fn about(&self, attributes: &Attributes<'_>, forms: &dyn Forms) -> Vec<About> {
        let policies = self.policies.get();
        if policies.is_empty() || rules::exempt(attributes) {
            return Vec::new();
        }
        let about = |policy: &Arc<Policy>| {
            let row = policy.matching.row(attributes, forms)?;
            Some(About { policy: policy.clone(), row })
        };
        policies.iter().filter_map(about).collect()
    }

    /// # Errors
    /// The first denial. Warnings of all policies reach the client nevertheless.
    pub fn validate(&self, about: &[About], seen: &Seen<'_>) -> Result<(), Status> {
        let mut denied = Vec::new();
        for About { policy, row } in about {
            self.ask(policy, row, seen, &mut denied);
        }
        match denied.into_iter().next() {
            None => Ok(()),
            Some(first) => Err(refusal(seen, &first)),
        }
    }

    fn ask(&self, policy: &Policy, row: &Resource, seen: &Seen<'_>, denied: &mut Vec<Denied>) {
        let unusable = |binding: Option<&Binding>, why: &str| {
            let step = if binding.is_some() { "binding" } else { "policy" };
            let message = format!("failed to configure {step}: {why}");
            policy.fails.then(|| Denied::new(policy, binding, message, INVALID))
        };
        match policy.matching.selects(seen, &*self.objects) {
            Ok(true) => {}
            Ok(false) => return,
            Err(status) => return denied.extend(unusable(None, status.message())),
        }
        if let Some(Err(why)) = &policy.params {
            return denied.extend(unusable(None, why));
        }
        let show = |v: Option<&Value>| v.map(|v| seen.forms.show(row, v)).unwrap_or_default();
        let (object, old) = (show(seen.object), show(seen.attributes.old));
        let request = review::without_objects(seen, row);
        let a = seen.attributes;
        let stored = self.objects.get("namespaces", "", a.namespace).filter(|_| !a.namespace.is_empty());
        let namespace = stored.and_then(|n| n.value().ok()).unwrap_or_default();
        for binding in &policy.bindings {
            match binding.matches(seen, &*self.objects) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(status) => {
                    denied.extend(unusable(Some(binding), status.message()));
                    continue;
                }
            }
            let params = match params::of(policy, binding, a.namespace, &*self.objects) {
                Ok(params) => params,
                Err(why) => {
                    denied.extend(unusable(Some(binding), &why));
                    continue;
                }
            };
            for params in &params {
                let input = Input {
                    object: &object,
                    old: &old,
                    request: &request,
                    namespace: &namespace,
                    params,
                    authorizer: &self.authorizer,
                    user: &a.cx.user,
                };
                for decided in policy.evaluate(binding, &input) {
                    if binding.warns {
                        a.cx.warn(format!(
                            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                            policy.name, binding.name, decided.message
                        ));
                    }
                    denied.extend(binding.denies.then_some(decided));
                }
            }
        }
    }
}

fn refusal(seen: &Seen<'_>, denied: &Denied) -> Status {
    let with = denied.binding.as_ref().map(|b| format!(" with binding '{b}'")).unwrap_or_default();
    let why = format!("ValidatingAdmissionPolicy '{}'{with} denied request: {}", denied.policy, denied.message);
    let forbidden = seen.attributes.forbidden(seen.object, &why);
    let code = match denied.reason.as_str() {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    let details = forbidden.details().cloned().unwrap_or_default();
    let causes = vec![Cause { message: why, ..Cause::default() }];
    let reason = if denied.reason.is_empty() { INVALID } else { &denied.reason };
    Status::new(code, reason, forbidden.message()).with_details(Details { causes, ..details })
}

#[cfg(test)]
mod tests;
