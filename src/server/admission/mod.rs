//! Admission: what may change or refuse a write after authorization. One plugin per file.

use serde_json::Value;

use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::server::registry::request::Context;

/// The write a plugin looks at.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub cx: &'a Context,
    pub operation: Operation,
    pub resource: &'static Resource,
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty on a create with `generateName`.
    pub name: &'a str,
    /// The stored object on update and delete.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// One admission plugin. Synchronous: plugins decide from caches.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name, as in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    /// # Errors
    /// A refusal, usually 403.
    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let _ = (attributes, object);
        Ok(())
    }

    /// `object` is `None` on delete.
    ///
    /// # Errors
    /// A refusal, usually 403.
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let _ = (attributes, object);
        Ok(())
    }
}

/// The plugins in upstream's order: all mutate, then (after the strategy's validation) all validate.
#[derive(Default)]
pub struct Chain(pub Vec<Box<dyn Plugin>>);

impl Chain {
    /// # Errors
    /// The first refusal.
    pub fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        self.0.iter().try_for_each(|p| p.mutate(attributes, object))
    }

    /// # Errors
    /// The first refusal.
    pub fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        self.0.iter().try_for_each(|p| p.validate(attributes, object))
    }
}
