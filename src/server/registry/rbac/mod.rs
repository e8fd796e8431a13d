//! Kinds of `rbac.authorization.k8s.io`, one per file, and the checks they share.

pub mod bindings;
pub mod roles;
