//! Kinds of the `certificates.k8s.io` group, and what they are made of.
//!
//! - [`signing_request`]: the kind; who may write which part of it
//! - [`conditions`]: approved, denied, failed
//! - [`pem`]: the request for a certificate, and the certificate
//! - [`signer`]: names of signers

pub mod conditions;
pub mod pem;
pub mod signer;
pub mod signing_request;

#[cfg(test)]
mod tests;
