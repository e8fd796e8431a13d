//! Decides: what the expressions of webhooks and policies see of a write, and what they say to it.
//!
//! - [`authorizer`]: `authorizer`, which answers whether someone may do something
//! - [`variables`]: `variables`, which are computed when they are read

pub mod authorizer;
pub mod variables;

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::MatchCondition;
use serde_json::Value as Json;

use crate::server::authz::Authorizer;
use crate::server::cel::functions::opaque::AUTHORIZER;
use crate::server::cel::{Bindings, Budget, Decl, Environment, Program, Type, Value, render};

/// What the match conditions of one webhook or policy may cost (`RuntimeCELCostBudgetMatchConditions`).
const CONDITIONS_BUDGET: u64 = 2_500_000;

/// The variables in the order of their slots. Those of webhooks end with the authorizer.
const OBJECT: usize = 0;
const OLD_OBJECT: usize = 1;
const REQUEST: usize = 2;
const AUTHORIZER_SLOT: usize = 3;
const NAMESPACE: usize = 4;
pub const VARIABLES: usize = 5;
const PARAMS: usize = 6;

/// Everything that expressions see. Null is what is not there.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub object: &'a Json,
    pub old: &'a Json,
    /// The AdmissionRequest, without the objects.
    pub request: &'a Json,
    pub namespace: &'a Json,
    pub params: &'a Json,
    pub authorizer: &'a Arc<Authorizer>,
    pub user: &'a crate::api::user::User,
}

/// An expression, compiled or not.
#[derive(Debug)]
pub struct Expression {
    pub source: String,
    program: Result<Program, String>,
}

/// What conditions say of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Matched {
    Yes,
    No,
    /// None says no, yet some cannot be evaluated: a matter for the failure policy.
    Failed(String),
}

/// What the conditions of webhooks see.
#[must_use]
pub fn of_webhooks() -> Environment {
    let any = || Decl { ty: Type::Dyn, max: 0, nullable: true };
    Environment::new()
        .with("object", any())
        .with("oldObject", any())
        .with("request", any())
        .with("authorizer", Decl::of(Type::Opaque(AUTHORIZER)))
}

/// What the expressions of policies see, with the type that their variables have.
#[must_use]
pub fn of_policies(variables: Option<Type>, has_params: bool) -> Environment {
    let any = || Decl { ty: Type::Dyn, max: 0, nullable: true };
    let environment = of_webhooks().with("namespaceObject", any());
    let Some(variables) = variables else {
        // A name that no expression can say keeps the slot.
        let environment = environment.with("@variables", any());
        return if has_params { environment.with("params", any()) } else { environment };
    };
    let environment = environment.with("variables", Decl::of(variables));
    if has_params { environment.with("params", any()) } else { environment }
}

/// The types of the objects that a policy is about, and of its parameters where it has some.
pub struct Typed {
    pub object: Decl,
    pub params: Option<Decl>,
}

/// The same where it is known what kind the objects are of; only to be checked, never to be evaluated.
#[must_use]
pub fn of_typed_policies(typed: &Typed, variables: Type) -> Environment {
    let mut environment = of_policies(Some(variables), false)
        .with("object", typed.object.clone())
        .with("oldObject", typed.object.clone());
    if let Some(params) = &typed.params {
        environment = environment.with("params", params.clone());
    }
    environment
}

impl Expression {
    /// `wanted` are the types that the result may have; none is any.
    #[must_use]
    pub fn compile(source: &str, environment: &Environment, wanted: &[Type]) -> Self {
        let program = Program::compile(source, environment)
            .map_err(|issues| format!("compilation failed: {}", render(source, &issues)))
            .and_then(|program| {
                if wanted.is_empty() || wanted.iter().any(|t| t.same(program.result())) {
                    return Ok(program);
                }
                let names: Vec<&str> = wanted.iter().map(Type::name).collect();
                Err(match names.as_slice() {
                    [one] => format!("must evaluate to {one}"),
                    many => format!("must evaluate to one of [{}]", many.join(" ")),
                })
            });
        Self { source: source.to_owned(), program }
    }

    /// Why it cannot be evaluated, as upstream words it when it is written.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    /// The type of the result, dynamic where there is none.
    #[must_use]
    pub fn result(&self) -> Type {
        self.program.as_ref().map_or(Type::Dyn, |p| p.result().clone())
    }

    /// # Errors
    /// What upstream says of an expression that does not compile, or that fails.
    pub fn evaluate<'a>(&'a self, bindings: &Bindings<'a>, budget: &mut Budget) -> Result<Value<'a>, String> {
        let program = self.program.as_ref().map_err(|why| format!("compilation error: {why}"))?;
        let result = program.evaluate(bindings, budget);
        result.map_err(|e| format!("expression '{}' resulted in error: {e}", self.source))
    }
}

impl<'a> Input<'a> {
    /// The values of the variables, all but `variables`.
    #[must_use]
    pub fn bindings(&self) -> Bindings<'a> {
        let asked = authorizer::Asked::new(self.authorizer.clone(), self.user.clone());
        Bindings::new()
            .with(OBJECT, Value::dynamic(self.object))
            .with(OLD_OBJECT, Value::dynamic(self.old))
            .with(REQUEST, Value::dynamic(self.request))
            .with(AUTHORIZER_SLOT, Value::Host(Arc::new(asked)))
            .with(NAMESPACE, Value::dynamic(self.namespace))
            .with(PARAMS, Value::dynamic(self.params))
    }
}

/// Compiles the conditions of a webhook or policy.
#[must_use]
pub fn conditions(given: &[MatchCondition], environment: &Environment) -> Vec<Expression> {
    given.iter().map(|c| Expression::compile(&c.expression, environment, &[Type::Bool])).collect()
}

/// Whether all conditions hold (`matchconditions.matcher` of upstream). One that is false decides, whatever the others are.
#[must_use]
pub fn matched<'a>(conditions: &'a [Expression], bindings: &Bindings<'a>) -> Matched {
    let mut budget = Budget::new(CONDITIONS_BUDGET);
    let mut errors = Vec::new();
    for condition in conditions {
        match condition.evaluate(bindings, &mut budget) {
            Ok(Value::Bool(false)) => return Matched::No,
            Ok(_) => {}
            Err(why) => errors.push(why),
        }
    }
    match errors.as_slice() {
        [] => Matched::Yes,
        [one] => Matched::Failed(one.clone()),
        many => Matched::Failed(format!("[{}]", many.join(", "))),
    }
}

#[cfg(test)]
mod tests;
