//! Types: the resource table. A built-in kind is one row in [`rows`] plus a `Strategy` in the registry.
//!
//! Short names, categories and verbs are those of the v1.36 discovery document; a test of discovery compares them.

pub mod custom;
pub mod priority;
mod rows;

use std::borrow::Cow;

pub use rows::{MEASURED, MEASURED_GROUP, RESOURCES};

/// Bits of [`Resource::verbs`], in the order discovery lists them.
pub const CREATE: u16 = 1;
pub const DELETE: u16 = 1 << 1;
pub const DELETE_COLLECTION: u16 = 1 << 2;
pub const GET: u16 = 1 << 3;
pub const LIST: u16 = 1 << 4;
pub const PATCH: u16 = 1 << 5;
pub const UPDATE: u16 = 1 << 6;
pub const WATCH: u16 = 1 << 7;
pub const ALL: u16 = 0xff;

/// The verbs as discovery and authorization name them.
pub const VERBS: [(u16, &str); 8] = [
    (CREATE, "create"),
    (DELETE, "delete"),
    (DELETE_COLLECTION, "deletecollection"),
    (GET, "get"),
    (LIST, "list"),
    (PATCH, "patch"),
    (UPDATE, "update"),
    (WATCH, "watch"),
];

/// One resource in one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    /// Verbs of the main resource; 0 for kinds that are only posted (reviews).
    pub verbs: u16,
    pub subresources: &'static [Subresource],
    /// Name in the store, shared by all versions of one resource: `plural` or `group/plural`.
    pub storage: &'static str,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`, as JSON paths with dots.
    pub selectable: &'static [&'static str],
    /// Leases and Events: served at once, on disk within seconds (architecture, decision 6).
    pub volatile: bool,
}

/// A subresource: its kind where it is not the parent's, and its verbs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subresource {
    pub name: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: u16,
}

impl Resource {
    /// A kind that is only posted or named in messages: no verbs, no storage. Namespaced.
    #[must_use]
    pub const fn unstored(
        group: &'static str,
        plural: &'static str,
        singular: &'static str,
        kind: &'static str,
    ) -> Self {
        Self { group, plural, singular, kind, verbs: 0, ..rows::BASE }
    }

    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }

    #[must_use]
    pub fn has(&self, verb: u16) -> bool {
        self.verbs & verb != 0
    }

    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// The field of the stored version that a field selector names, if the kind has it (upstream's field label conversions).
    #[must_use]
    pub fn selected<'a>(&self, field: &'a str) -> Option<Cow<'a, str>> {
        let known = match field {
            "metadata.name" => true,
            // Kinds with fields of their own know it only where they have namespaces.
            "metadata.namespace" => self.namespaced || self.selectable.is_empty(),
            _ => false,
        };
        if known {
            return Some(field.into());
        }
        // Their stored version is the older one, whose fields have other names.
        let stored: Cow<'a, str> = match (self.group, field) {
            ("events.k8s.io", "reportingController") => "reportingComponent".into(),
            ("events.k8s.io", "reportingComponent") => return None,
            ("events.k8s.io", field) => match field.strip_prefix("regarding.") {
                Some(rest) => format!("involvedObject.{rest}").into(),
                None if field.starts_with("involvedObject.") => return None,
                None => field.into(),
            },
            ("", "spec.host") if self.plural == "pods" => "spec.nodeName".into(),
            _ => field.into(),
        };
        self.selectable.contains(&&*stored).then_some(stored)
    }

    /// What is said of a field that [`Resource::selected`] does not know.
    #[must_use]
    pub fn not_selected(&self, field: &str) -> String {
        match (self.group, self.plural) {
            ("batch", "jobs") => format!("field label {field:?} not supported for batchv1.Job"),
            _ if self.selectable.is_empty() => {
                format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            }
            _ => format!("field label not supported: {field}"),
        }
    }

    /// Path of a collection: `/api/v1/namespaces/x/pods`, `/apis/apps/v1/deployments`.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "api".into() } else { format!("apis/{}", self.group) };
        match namespace.filter(|n| self.namespaced && !n.is_empty()) {
            Some(ns) => format!("/{root}/{}/namespaces/{ns}/{}", self.version, self.plural),
            None => format!("/{root}/{}/{}", self.version, self.plural),
        }
    }
}

/// The row of a resource as a URL names it.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// The row of a kind as `apiVersion` and `kind` of an object name it.
#[must_use]
pub fn find_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    RESOURCES.iter().find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// The row that a storage name belongs to (the first, storage, version).
#[must_use]
pub fn find_storage(storage: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.storage == storage)
}
