//! The validation rules of custom resources (`x-kubernetes-validations`): CEL over a value and its schema.
//!
//! [`compile`] makes a tree beside the schema when a `CustomResourceDefinition` is written, and says what is wrong with its
//! rules. [`evaluate`] walks that tree, the new object and the old one together. What fails where nothing has changed is
//! only a warning, so that a stricter schema does not stop those who change something else (KEP-4008, ratcheting).

use std::collections::BTreeMap;

use super::structural::{ListType, Rule};
use crate::server::cel::{Decl, Program};

mod compile;
mod evaluate;
mod field_path;

#[cfg(test)]
mod tests;

pub use compile::compile;
pub use evaluate::{Verdict, check, evaluate};

/// The slots of `self` and `oldSelf`.
const SELF: usize = 0;
const OLD_SELF: usize = 1;

/// The rules of a schema, compiled. Shared by all requests.
#[derive(Debug, Default)]
pub struct Rules {
    /// Nothing for a schema without rules.
    root: Option<Node>,
}

impl Rules {
    /// Whether there is anything to evaluate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }
}

/// A schema that has rules, or has one that has them below it.
#[derive(Debug)]
struct Node {
    decl: Decl,
    /// `type`, as errors show it.
    kind: &'static str,
    rules: Vec<Compiled>,
    all_of: Vec<Node>,
    properties: BTreeMap<String, Node>,
    additional: Option<Box<Node>>,
    items: Option<Box<Node>>,
    list: ListType,
    /// What the values of this schema's fields or items can be found by in the old object, for ratcheting: those that
    /// have a schema.
    known: Known,
}

/// Which of its parts a schema knows.
#[derive(Debug)]
enum Known {
    Nothing,
    Fields(Vec<String>),
    Everything,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    /// Or why it cannot be evaluated: the definition was stored when that was not known.
    program: Result<Program, String>,
    uses_old: bool,
    message: Option<Program>,
    /// Where errors are, from the node; empty for the node itself.
    path: String,
}
