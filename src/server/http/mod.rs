//! The API over HTTP. A request travels through these files in this order:
//!
//! - [`listener`]: TCP, TLS, HTTP/1.1 and HTTP/2; [`client`]: the same without any of them, for our own components
//! - [`service`]: identify, authorize, limit, dispatch
//! - [`request_info`], [`query`], [`options`], [`negotiate`]: what was asked, and for which representation
//! - [`verbs`], [`watch`]: objects, through the registry; [`paths`], [`health`], [`metrics`]: everything else
//! - [`reviews`], [`nodes`]: requests answered by authentication, authorization, or by a node's kubelet endpoint
//! - [`render`], [`respond`], [`body`], [`pretty`]: the bytes of the answer

pub mod body;
pub mod health;
pub mod metrics;
pub mod negotiate;
pub mod options;
pub mod pretty;
pub mod query;
pub mod request_info;
pub mod respond;
