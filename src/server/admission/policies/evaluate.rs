//! Decides: what a policy says of a write (`validator.Validate` of upstream's `policy/validating`).

use super::config::{Binding, Policy, Validation};
use crate::server::admission::expressions::variables::Computed;
use crate::server::admission::expressions::{Input, Matched, VARIABLES, matched};
use crate::server::cel::{Bindings, Budget, Value};

/// Longest message that an expression may make, in bytes (`MaxEvaluatedMessageExpressionSizeBytes`).
const MAX_MESSAGE: usize = 5 * 1024;

/// One reason to refuse a write.
#[derive(Debug, PartialEq, Eq)]
pub struct Denied {
    pub policy: String,
    pub binding: Option<String>,
    pub message: String,
    /// Why, in a word; empty is `Invalid`.
    pub reason: String,
}

impl Denied {
    pub fn new(policy: &Policy, binding: Option<&Binding>, message: String, reason: &str) -> Self {
        let binding = binding.map(|b| b.name.clone());
        Self { policy: policy.name.clone(), binding, message, reason: reason.to_owned() }
    }
}

impl Policy {
    /// Everything that this policy, with these parameters, has against a write.
    pub fn evaluate(&self, binding: &Binding, input: &Input<'_>) -> Vec<Denied> {
        let denied = |message: String, reason: &str| Denied::new(self, Some(binding), message, reason);
        let bindings = input.bindings();
        match matched(&self.conditions, &bindings) {
            Matched::Yes => {}
            Matched::No => return Vec::new(),
            Matched::Failed(why) => return self.fails.then(|| denied(why, "")).into_iter().collect(),
        }
        let computed = Computed::new(&self.variables, bindings.clone());
        let bindings = bindings.with(VARIABLES, Value::Lazy(&computed));
        let mut budget = Budget::default();
        let mut all = Vec::new();
        for validation in &self.validations {
            match validation.expression.evaluate(&bindings, &mut budget) {
                Ok(Value::Bool(true)) => {}
                Ok(_) => {
                    let reason = if validation.reason.is_empty() { "Invalid" } else { &validation.reason };
                    all.push(denied(validation.message(&bindings, &mut budget), reason));
                }
                Err(why) => all.extend(self.fails.then(|| denied(why, ""))),
            }
        }
        // There is no audit log for annotations to be in; one that fails is an error all the same.
        for annotation in &self.annotations {
            if let (true, Err(why)) = (self.fails, annotation.evaluate(&bindings, &mut budget)) {
                all.push(denied(why, ""));
            }
        }
        all
    }
}

impl Validation {
    /// What the client is told: what the expression for it makes, else the written message, else the expression that
    /// failed.
    fn message<'a>(&'a self, bindings: &Bindings<'a>, budget: &mut Budget) -> String {
        let made = self.message_expression.as_ref().and_then(|e| e.evaluate(bindings, budget).ok());
        let made = made.as_ref().and_then(Value::as_str).map(str::trim).unwrap_or_default();
        let fits = !made.is_empty() && made.len() <= MAX_MESSAGE && !made.contains('\n');
        match (fits, self.message.trim()) {
            (true, _) => made.to_owned(),
            (false, "") => format!("failed expression: {}", self.expression.source.trim()),
            (false, message) => message.to_owned(),
        }
    }
}
