//! Types: what an expression may name beside the functions: its variables and, for mutations, the messages it builds.

use std::sync::Arc;

use super::types::{Decl, Field, ObjectType, Type};

/// The variables of an expression, in the order in which they are bound.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(String, Decl)>,
    mutations: bool,
    devices: bool,
}

impl Environment {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more variable, whose slot is the number of those before it.
    #[must_use]
    pub fn with(mut self, name: &str, decl: Decl) -> Self {
        self.variables.push((name.to_owned(), decl));
        self
    }

    /// With `Object{…}`, `Object.spec{…}` and `JSONPatch{…}`, which mutating policies build.
    #[must_use]
    pub fn with_mutations(mut self) -> Self {
        self.mutations = true;
        self
    }

    /// As selectors of devices have it: `cel.bind`, and sizes of what a map has also where it is read as a field.
    #[must_use]
    pub(super) fn for_devices(mut self) -> Self {
        self.devices = true;
        self
    }

    pub(super) fn is_for_devices(&self) -> bool {
        self.devices
    }

    /// The slot of a variable.
    #[must_use]
    pub fn slot(&self, name: &str) -> Option<usize> {
        // The last of a name hides the others.
        self.variables.iter().rposition(|(other, _)| other == name)
    }

    /// What is declared of the variable of a slot.
    #[must_use]
    pub fn decl(&self, slot: usize) -> Option<&Decl> {
        self.variables.get(slot).map(|(_, decl)| decl)
    }

    pub(super) fn len(&self) -> usize {
        self.variables.len()
    }

    pub(super) fn name(&self, slot: usize) -> &str {
        self.variables.get(slot).map_or("", |(name, _)| name)
    }

    /// The message type of a name that stands before `{`.
    pub(super) fn message(&self, name: &str) -> Option<Type> {
        if !self.mutations {
            return None;
        }
        if name == "JSONPatch" {
            let fields = [("op", Type::String), ("path", Type::String), ("from", Type::String), ("value", Type::Dyn)];
            let fields = fields.into_iter().map(|(name, ty)| Field::new(name, ty)).collect();
            return Some(Type::Object(Arc::new(ObjectType::new(name, fields))));
        }
        let own = name == "Object" || name.starts_with("Object.");
        own.then(|| Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields: Vec::new(), open: true })))
    }
}
