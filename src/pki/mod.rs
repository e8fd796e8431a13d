//! Keys and certificates: who the server, the nodes and the administrator are.
//!
//! Four authorities, so that no certificate can be used for what it wasn't made for:
//! - `server-ca` signs what the API server shows to its clients; tokens pin it, pods get it as `ca.crt`;
//! - `client-ca` signs client certificates: common name = user, organisation = group;
//! - `kubelet-ca` signs what nodes show to the API server: a node can't pass for the API server with it;
//! - `request-header-ca` signs what says who somebody else is: with `client-auth-proxy` the API server passes requests on
//!   to extension servers, and with such a certificate a proxy in front of us may do the same.
//!
//! [`files`] writes, [`authority`] signs, [`live`] swaps a renewed certificate under open listeners, [`tls`] makes
//! rustls configurations, [`server`] is the server's whole set, [`service_account`] holds the keys of pod tokens,
//! [`token`] and [`join`] are what a node and a server say to each other before they trust each other.

pub mod authority;
pub mod client;
pub mod files;
pub mod join;
pub mod jwt;
pub mod kubeconfig;
pub mod live;
pub mod peer;
pub mod server;
pub mod service_account;
pub mod tls;
pub mod token;

use std::path::PathBuf;

/// What can be wrong with key material. Every variant that comes from a file names it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {step} {}", path.display())]
    File {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Nothing that we wrote looks like this: a disk error, or someone edited it.
    #[error("{} is damaged: {what}; restore it from a backup, or remove it to have a new one made", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{} exists but {} does not: restore the missing file", present.display(), missing.display())]
    Half { present: PathBuf, missing: PathBuf },
    #[error("cannot sign the certificate for {name:?}")]
    Sign {
        name: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("not a valid certificate request: {0}")]
    Request(String),
    #[error("not a usable certificate: {0}")]
    Certificate(String),
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    #[error("the system's random number generator failed")]
    Random,
    #[error("{0}")]
    Token(String),
}
