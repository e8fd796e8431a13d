//! Decides: the status of a ValidatingAdmissionPolicy: whether its expressions fit the kinds that it is about.
//!
//! Checked once for every generation, as upstream: a definition that comes later changes nothing.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use serde_json::{Value, json};

use super::action::{Controller, Enqueue, Moment, Name, Plan, Write};
use super::stores::{Stores, row};
use crate::api::type_check::TypeCheck;
use crate::client::store::Meta as _;

pub const POLICIES: &str = "admissionregistration.k8s.io/validatingadmissionpolicies";

/// Keys are policies.
pub struct PolicyStatus {
    check: TypeCheck,
}

impl PolicyStatus {
    #[must_use]
    pub fn new(check: TypeCheck) -> Self {
        Self { check }
    }
}

/// Its status is about what it is now.
#[must_use]
pub fn is_checked(policy: &ValidatingAdmissionPolicy) -> bool {
    let observed = policy.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
    policy.metadata.generation.unwrap_or(0) <= observed
}

impl Controller for PolicyStatus {
    fn name(&self) -> &'static str {
        "validatingadmissionpolicy-status"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.policies.subscribe(move |change| {
            if let Some(policy) = change.new.filter(|p| !is_checked(p)) {
                queue.add("", policy.metadata.name());
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _: Moment<'_>) -> Plan {
        let found = stores.policies.get("", &key.name).filter(|p| !is_checked(p));
        found.map_or_else(Plan::default, |policy| plan(&policy, &self.check))
    }
}

fn plan(policy: &ValidatingAdmissionPolicy, check: &TypeCheck) -> Plan {
    let warnings = policy.spec.as_ref().map(|spec| check.warnings(spec)).unwrap_or_default();
    // That there is a type checking at all says that it is done.
    let warnings = if warnings.is_empty() { Value::Null } else { json!(warnings) };
    let status = json!({
        "observedGeneration": policy.metadata.generation,
        "typeChecking": { "expressionWarnings": warnings },
    });
    let mut plan = Plan::default();
    plan.push(Write::status(row(POLICIES), &policy.metadata, status));
    plan
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::admissionregistration::v1::ExpressionWarning;

    use super::*;
    use crate::server::controllers::action::Action;

    /// What is written of a policy with so many validations, of which every one is wrong.
    fn check(generation: i64, observed: i64, validations: usize, want: Value) {
        let check = TypeCheck::new(|spec| {
            let wrong = |i| ExpressionWarning { field_ref: format!("spec.validations[{i}]"), warning: "why".into() };
            (0..spec.validations.as_ref().map_or(0, Vec::len)).map(wrong).collect()
        });
        let stores = Stores::new();
        let policy = json!({"metadata": {"name": "p", "uid": "u", "generation": generation},
            "spec": {"validations": vec![json!({"expression": "object.a"}); validations]},
            "status": {"observedGeneration": observed}});
        stores.policies.put(serde_json::from_value(policy).unwrap());
        let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, failure: None };
        let plan = PolicyStatus::new(check).plan(&stores, &Name::new("", "p"), moment);
        let written = match plan.actions.as_slice() {
            [] => Value::Null,
            [Action::Write(write)] => write.request.body["status"].clone(),
            more => panic!("{more:?}"),
        };
        assert_eq!(written, want);
    }

    #[test]
    fn each_generation_is_checked_once() {
        let warning = json!({"fieldRef": "spec.validations[0]", "warning": "why"});
        check(1, 0, 1, json!({"observedGeneration": 1, "typeChecking": {"expressionWarnings": [warning]}}));
        check(2, 1, 0, json!({"observedGeneration": 2, "typeChecking": {"expressionWarnings": null}}));
        check(2, 2, 1, Value::Null);
    }
}
