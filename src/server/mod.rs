//! The control plane: API, store, controllers, scheduler.

pub mod admission;
/// Extension servers: requests for their groups are passed on to them.
pub mod aggregation;
mod assembly;
pub mod authn;
pub mod authz;
pub mod cache;
/// The Common Expression Language, for the rules of custom resources and of policies.
pub mod cel;
pub mod controllers;
pub mod crd;
pub mod flow;
pub mod http;
pub mod objects;
pub mod registry;
pub mod scheduler;
pub mod store;
pub mod webhook;

pub use assembly::{Error, run};
