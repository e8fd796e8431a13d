//! Tests of single parts against the real kernel and the real containerd. They need root.

#[path = "../support/mod.rs"]
mod support;

mod containerd;
mod network;
mod streaming;
mod volumes;
