//! The API over HTTP. A request travels through these files in this order:
//!
//! - [`listener`]: TCP, TLS, HTTP/1.1 and HTTP/2; [`client`]: the same without any of them, for our own components
//! - [`service`]: identify, authorize, limit, dispatch
//! - [`request_info`], [`options`], [`negotiate`]: what was asked, and for which representation
//! - [`verbs`], [`watch`]: objects, through the registry; [`paths`], [`health`], [`metrics`]: everything else
//! - [`discovery`], [`openapi`]: what this server has, from the resource and schema tables
//! - [`reviews`], [`nodes`]: requests answered by authentication, authorization, or by a node's kubelet endpoint
//! - [`render`], [`respond`], [`body`], [`pretty`], [`compress`]: the bytes of the answer

pub mod body;
pub mod client;
pub mod compress;
pub mod discovery;
pub mod health;
pub mod listener;
pub mod metrics;
pub mod negotiate;
pub mod nodes;
pub mod openapi;
pub mod options;
pub mod paths;
pub mod pretty;
pub mod render;
pub mod request_info;
pub mod respond;
pub mod reviews;
pub mod service;
pub mod verbs;
pub mod watch;

pub use client::client;
pub use listener::Listener;
pub use service::{Backend, Service};
