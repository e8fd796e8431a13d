//! Custom resources: what a `CustomResourceDefinition` says of its objects, and how they are checked, completed and
//! converted by it. The verbs are those of every kind ([`super::registry`]).
//!
//! ```text
//! definition ─ compile ─▶ Definition ─▶ one Custom strategy for each version ─▶ the registry's catalog
//! body ─▶ prune ─▶ default ─▶ admission ─▶ validate, embedded, rules ─▶ convert to the stored version ─▶ commit
//! ```
//!
//! [`check`] says whether a schema can be accepted, [`compile`] makes the tree ([`structural`]) that the rest walks beside
//! an object.

pub mod check;
pub mod compile;
pub mod conversion;
pub mod default;
pub mod definition;
pub mod definitions;
pub mod embedded;
pub mod field_path;
mod map_list;
pub mod prune;
pub mod rules;
pub mod shown;
pub mod strategy;
pub mod validate;

pub use crate::api::schema::{format, pattern, structural};
