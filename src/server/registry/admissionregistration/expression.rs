//! Decides: whether the CEL expressions of policies and webhooks compile. Every expression of the group comes by here,
//! in the order in which upstream tells of them, with what it may use and must return.

use std::sync::Arc;

use crate::api::field::{FieldError, Path};
use crate::server::admission::expressions::variables::{Variable, declared};
use crate::server::admission::expressions::{self, of_policies};
use crate::server::cel::Type;
use crate::server::cel::parse::RESERVED;
use crate::server::cel::types::ObjectType;

/// An expression and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression<'a> {
    pub text: &'a str,
    pub path: Path,
    pub returns: Returns,
    /// Whether `params` is known.
    pub params: bool,
    /// Whether `authorizer` is known.
    pub authorizer: bool,
    /// Names and expressions of the variables before it: `variables.NAME`.
    pub variables: Vec<(&'a str, &'a str)>,
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    Bool,
    String,
    StringOrNull,
    /// A variable.
    Any,
    /// `JSONPatch` values.
    JsonPatches,
    /// An `Object`.
    ApplyConfiguration,
}

impl Returns {
    fn types(self) -> Vec<Type> {
        let message = |name: &str| Type::Object(Arc::new(ObjectType::new(name, Vec::new())));
        match self {
            Self::Bool => vec![Type::Bool],
            Self::String => vec![Type::String],
            Self::StringOrNull => vec![Type::String, Type::Null],
            Self::Any => Vec::new(),
            Self::JsonPatches => vec![Type::list(message("JSONPatch"))],
            Self::ApplyConfiguration => vec![message("Object")],
        }
    }
}

/// What is wrong with an expression: nothing is stored that could not be evaluated.
#[must_use]
pub fn compile(expression: &Expression) -> Option<FieldError> {
    let mut variables: Vec<Variable> = Vec::new();
    for (name, text) in &expression.variables {
        let environment = of_policies(Some(declared(&variables)), expression.params);
        let expression = expressions::Expression::compile(text, &environment, &[]);
        variables.push(Variable { name: (*name).to_owned(), expression });
    }
    let mut environment = of_policies(Some(declared(&variables)), expression.params);
    if matches!(expression.returns, Returns::JsonPatches | Returns::ApplyConfiguration) {
        environment = environment.with_mutations();
    }
    let compiled = expressions::Expression::compile(expression.text, &environment, &expression.returns.types());
    compiled.refusal().map(|why| FieldError::invalid(&expression.path, &expression.text, why))
}

/// Whether a variable can have this name.
#[must_use]
pub fn is_identifier(name: &str) -> bool {
    let inner = |c: char| c == '_' || c.is_ascii_alphanumeric();
    name.starts_with(|c: char| inner(c) && !c.is_ascii_digit()) && name.chars().all(inner) && !RESERVED.contains(&name)
}
