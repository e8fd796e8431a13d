//! Types: what the HTTP layer asks of the registry, and what comes back.

use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::api::decode::FieldValidation;
use crate::api::field::{FieldError, Path};
use crate::api::object::ObjectRef;
use crate::api::resource::Resource;
use crate::api::revision::Revision;
use crate::api::selector::{FieldSelector, LabelSelector};
use crate::api::status::Status;
use crate::api::user::User;
pub use crate::server::cache::watch::{Event, Watch};

/// What a request is about.
#[derive(Clone, Debug)]
pub struct Target {
    pub resource: &'static Resource,
    /// Empty for cluster-scoped resources and for lists over all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// `status`, `scale`, `binding`, `finalize`… or empty.
    pub subresource: &'static str,
}

/// Who asks, and what the answer should warn about.
#[derive(Debug, Default)]
pub struct Context {
    pub user: User,
    /// `Warning` headers of the response, in order.
    pub warnings: Mutex<Vec<String>>,
}

impl Context {
    #[must_use]
    pub fn new(user: User) -> Self {
        Self { user, warnings: Mutex::default() }
    }

    /// # Panics
    /// Never: no code panics while it holds the lock.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().expect("no panic while held").push(text.into());
    }
}

/// Query options of create, update and patch.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    /// The client named the manager; otherwise it goes by its user agent.
    pub names_manager: bool,
    pub field_validation: FieldValidation,
    /// Server-side apply only.
    pub force: bool,
    /// The client may create the object, should it not be there.
    pub may_create: bool,
}

/// Query options of list, watch and deletecollection.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// `None` when the client sent none; `Some(0)` is "any version".
    pub revision: Option<Revision>,
    pub revision_match: Option<RevisionMatch>,
    /// 0 is no limit.
    pub limit: u64,
    pub continue_token: String,
    pub bookmarks: bool,
    /// How long a watch will go on, where that is known.
    pub lasts: Option<Duration>,
    pub send_initial_events: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevisionMatch {
    Exact,
    NotOlderThan,
}

/// A page of a collection. Items are whole documents, ready to be copied to the wire.
#[derive(Debug)]
pub struct List {
    pub items: Vec<ObjectRef>,
    pub revision: Revision,
    /// Empty on the last page.
    pub continue_token: String,
    pub remaining: Option<u64>,
}

pub const JSON_PATCH: &str = "application/json-patch+json";
pub const MERGE_PATCH: &str = "application/merge-patch+json";
pub const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
pub const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// A patch as it arrived, by its content type.
#[derive(Clone, Debug)]
pub enum Patch {
    /// `application/json-patch+json` (RFC 6902)
    Json(json_patch::Patch),
    /// `application/merge-patch+json` (RFC 7386)
    Merge(Value),
    /// `application/strategic-merge-patch+json`
    Strategic(Value),
    /// `application/apply-patch+yaml`
    Apply(Value),
}

/// Body and query of a delete (`metav1.DeleteOptions`).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphan_dependents: Option<bool>,
    /// `Orphan`, `Background` or `Foreground`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<String>,
    /// Delete what cannot be read, and nothing else.
    #[serde(rename = "ignoreStoreReadErrorWithClusterBreakingPotential", skip_serializing_if = "Option::is_none")]
    pub ignore_store_read_error: Option<bool>,
}

impl DeleteOptions {
    /// Decides (`ValidateDeleteOptions`).
    ///
    /// # Errors
    /// 422 for values that make no sense, or not together.
    pub fn check(&self) -> Result<(), Status> {
        let mut errors = Vec::new();
        if let Some(policy) = &self.propagation_policy {
            let path = Path::new("propagationPolicy");
            if self.orphan_dependents.is_some() {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid(&path, policy, why));
            }
            if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&path, policy, &known));
            }
        }
        for flag in self.dry_run.iter().filter(|flag| *flag != "All") {
            errors.push(FieldError::not_supported(&Path::new("dryRun"), flag, &["All"]));
        }
        if self.ignore_store_read_error == Some(true) {
            let path = Path::new("ignoreStoreReadErrorWithClusterBreakingPotential");
            let others = [
                (!self.dry_run.is_empty(), "dryRun"),
                (self.propagation_policy.is_some(), "propagationPolicy"),
                (self.orphan_dependents.is_some(), "orphanDependents"),
                (self.grace_period_seconds.is_some(), "gracePeriodSeconds"),
                (self.preconditions.is_some(), "preconditions"),
            ];
            for (_, other) in others.iter().filter(|(set, _)| *set) {
                let why = format!("cannot be set together with .{other}");
                errors.push(FieldError::invalid(&path, &true, &why));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid_options("DeleteOptions", &errors)) }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// What an update or patch did.
#[derive(Debug)]
pub struct Written {
    pub object: ObjectRef,
    /// 201 instead of 200.
    pub created: bool,
}

/// What a delete did.
#[derive(Debug)]
pub enum Deleted {
    /// Gone: the last state. The response is a `Status` of success (or the object, where upstream returns it).
    Gone(ObjectRef),
    /// Marked with a deletion timestamp: finalizers or a grace period hold it.
    Marked(ObjectRef),
}
