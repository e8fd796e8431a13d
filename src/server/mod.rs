//! The control plane: API, store, controllers, scheduler.

pub mod admission;
mod assembly;
pub mod authn;
pub mod authz;
pub mod cache;
pub mod controllers;
pub mod http;
pub mod objects;
pub mod registry;
pub mod scheduler;
pub mod store;

pub use assembly::{Error, run};
