//! agent

pub mod join;
