//! The Common Expression Language (<https://github.com/google/cel-spec>) as the Kubernetes API server has it, for the
//! rules of custom resources, admission policies and match conditions.
//!
//! An expression travels: `lex` and `parse` make an [`ast`] with macros recognised, [`check`] gives every
//! expression a type and every call its overloads, [`estimate`] says what it may cost at most, `plan` resolves names
//! to slots and functions to pointers, and `evaluate` runs the plan over values that borrow from JSON.
//! [`functions`] has one table of all functions; [`schema`] makes types of structural schemas, [`kinds`] of the built-in
//! kinds; [`device`] is what selectors of devices see.
//!
//! Why not a crate: the one there is brings a parser generator's runtime along for its parser, and an evaluator that
//! knows neither types nor cost. The grammar is small.
//!
//! Messages are those of cel-go, cost units too: an expression that upstream refuses as too expensive must be refused
//! here, and one that it accepts must be accepted.

pub mod ast;
pub mod check;
mod compare;
pub mod device;
mod environment;
pub mod estimate;
mod evaluate;
pub mod functions;
mod issue;
pub mod kinds;
mod lex;
pub(in crate::server) mod parse;
mod plan;
mod program;
pub mod schema;
pub mod time;
pub mod types;
mod unify;
pub mod value;

#[cfg(test)]
mod tests;

pub use environment::Environment;
pub use evaluate::{Bindings, Budget};
pub use issue::{Issue, render};
pub use program::Program;
pub use types::{Decl, Type};
pub use value::{Error, Value};

/// What one evaluation may cost (`PerCallLimit` of `k8s.io/apiserver/pkg/apis/cel`): about a tenth of a second.
pub const CALL_LIMIT: u64 = 1_000_000;

/// What all evaluations for one request may cost (`RuntimeCELCostBudget`): about a second.
pub const REQUEST_BUDGET: u64 = 10_000_000;

/// The largest request (`MaxRequestSizeBytes`), from which sizes are guessed where a schema has no limit.
pub const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;
