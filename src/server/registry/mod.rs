//! The verb algorithms, once for every kind, and the strategies that make kinds differ.

pub mod request;
pub mod strategy;
