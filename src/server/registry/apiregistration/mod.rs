//! Kinds of the `apiregistration.k8s.io` group, one per file.

pub mod api_service;
