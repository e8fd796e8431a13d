//! The whole binary as its users have it: real kubectl, real containerd, pods on one and on several nodes. Needs root.
//!
//! Each test is a story on a lab of its own: machines are network, mount and UTS namespaces on one switch.

#[path = "../support/mod.rs"]
mod support;

mod lab;
mod load;

mod apps;
mod bad_input;
mod bench;
mod bench_node;
mod bench_streams;
mod budgets;
mod clients;
mod conformance;
mod controller;
mod cpus;
mod csi;
mod custom_resources;
mod deletion;
mod devices;
mod endpoint;
mod extension;
mod faults;
mod fleet;
mod host;
mod languages;
mod lifecycle;
mod node;
mod node_life;
mod operations;
mod pods;
mod quotas;
mod registry;
mod runtime;
mod scheduling;
mod static_binary;
mod streams;
mod two_tier;
mod users;
mod watches;
mod workloads;
