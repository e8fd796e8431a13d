//! What both sides of the wire speak. Uses nothing else of ours.
//!
//! - [`resource`]: the resource table: one row per kind, with names, scope, verbs and subresources
//! - [`object`], [`key`], [`revision`]: an object at rest
//! - [`status`], [`field`]: errors in Kubernetes' words, and the field paths they name
//! - [`selector`]: label and field selectors
//! - [`user`]: who asks; [`version`]: who answers

pub mod field;
pub mod key;
pub mod object;
pub mod resource;
pub mod revision;
pub mod selector;
pub mod status;
pub mod user;
pub mod version;
