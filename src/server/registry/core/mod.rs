//! Kinds of the core group, one per file.

pub mod config_map;
pub mod endpoints;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod scheduling;
pub mod secret;
pub mod service;
pub mod service_account;
