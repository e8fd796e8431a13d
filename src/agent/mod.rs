//! The node agent: turns pods into containers and tells the API about them.
//!
//! [`kubelet`] puts the parts together. [`pod_source`] starts one [`pod`] worker per pod; [`volumes`], [`images`],
//! [`objects`] and [`probes`] serve the workers; [`plugins`] register here, those of [`csi`] among them; [`node_status`]
//! speaks for the node. [`join`] comes before all that;
//! [`api`] is the kubelet endpoint, [`metrics`] what monitoring reads there; [`uninstall`] comes after all of it.

#![deny(clippy::unwrap_used, clippy::expect_used)]

mod allocatable;
pub mod allocation;
pub mod api;
mod assembly;
pub mod cgroups;
pub mod context;
pub mod cpu;
pub mod csi;
pub mod devices;
pub mod dra;
pub mod events;
pub mod eviction;
pub mod gc;
mod grpc_health;
mod http_get;
mod image_gc;
pub mod images;
pub mod join;
pub mod kubelet;
mod left_over;
pub mod limits;
pub mod logs;
pub mod metrics;
mod mirror;
pub mod node_info;
pub mod node_status;
pub mod objects;
mod own_node;
pub mod plugins;
pub mod pod;
pub mod pod_resources;
pub mod pod_source;
mod preemption;
pub mod probes;
mod read_only;
mod reserved;
mod running;
mod shutdown;
mod static_pods;
pub mod stats;
pub mod streaming;
pub mod topology;
pub mod uninstall;
mod users;
pub mod volumes;

pub use assembly::{Error, command, run};

#[cfg(test)]
mod fake_api;
#[cfg(test)]
mod static_tests;
#[cfg(test)]
mod tests;
