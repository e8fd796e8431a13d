//! The API over HTTP. A request travels through these files in this order:
//!
//! - [`listener`]: TCP, TLS, HTTP/1.1 and HTTP/2, with writes together by [`gather`]; [`client`]: the same without any of
//!   them, for our own components
//! - [`service`]: identify, limit, authorize, dispatch; `turn`: how long a request may take, and its turn
//! - [`request_info`], [`options`], [`negotiate`]: what was asked, and for which representation
//! - [`verbs`], [`watch`]: objects, through the registry; [`paths`], [`health`], [`metrics`]: everything else
//! - `admit`: connections go through admission before they reach a node
//! - [`discovery`], [`openapi`]: what this server has, from the resource and schema tables
//! - [`reviews`], [`nodes`]: requests answered by authentication, authorization, or by a node's kubelet endpoint
//! - `usage`: what nodes and pods use, asked of the nodes
//! - [`proxy`]: requests passed on to pods, services and nodes; [`dial`]: the connections for both
//! - `aggregation`: requests passed on to extension servers, whose groups the documents list too
//! - [`render`], [`respond`], [`body`], [`pretty`], [`compress`]: the bytes of the answer

mod admit;
mod aggregation;
pub mod body;
pub mod client;
pub mod compress;
pub mod dial;
pub mod discovery;
pub mod gather;
pub mod health;
pub mod listener;
pub mod metrics;
pub mod negotiate;
pub mod nodes;
pub mod openapi;
pub mod options;
pub mod paths;
pub mod pretty;
pub mod proxy;
pub mod render;
pub mod request_info;
pub mod respond;
pub mod reviews;
pub mod service;
mod turn;
mod usage;
pub mod verbs;
pub mod watch;

pub use client::client;
pub use listener::Listener;
pub use service::{Address, Backend, Service};
