//! Kinds of the `apiextensions.k8s.io` group.

mod conversion;
pub mod custom_resource_definition;
mod paths;
mod schema;
pub mod types;
mod validate;

#[cfg(test)]
mod tests;
