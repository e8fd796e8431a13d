//! The node: what runs pods.

pub mod api;
pub mod join;
pub mod streaming;
