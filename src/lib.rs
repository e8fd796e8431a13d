//! Skiff: Kubernetes for small machines, in one static binary.
//!
//! Read the modules in the order a request travels: [`server::http`] receives it, `authn` and `authz` decide who
//! may do what, [`server::registry`] runs the verb, [`server::store`] makes it durable, [`server::cache`] tells
//! everyone who watches. Controllers and the scheduler are clients like any other. On each node the
//! [`agent`] turns pods into containers through [`cri`] and [`net`] makes Services reachable.
//!
//! Each file names at its top which of four things it is: **decides** (pure, synchronous), **effects** (I/O,
//! thin), **loop** (owns a task) or **types**.

pub mod agent;
pub mod api;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod cri;
pub mod disk;
pub mod inotify;
pub mod net;
pub mod pki;
pub mod server;
#[cfg(test)]
mod simulation;
pub mod splice;
pub mod supervisor;
pub mod systemd;
