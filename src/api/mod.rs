//! What both sides of the wire speak. Uses nothing else of ours.
//!
//! - [`resource`]: the resource table: one row per kind, with names, scope, verbs and subresources
//! - [`schema`]: the schema table: fields, types, list keys and patch strategies of the built-in kinds
//! - [`object`], [`key`], [`revision`], [`encode`]: an object at rest
//! - [`decode`]: a request body becomes an object of a known kind
//! - [`protobuf`]: the binary form of request bodies
//! - [`patch`], [`strategic`]: the three kinds of patches
//! - [`table`]: rows and columns of `kubectl get`
//! - [`status`], [`field`]: errors in Kubernetes' words, and the field paths they name; [`trail`]: where a walk is
//! - [`selector`], [`label`], [`quantity`]: label and field selectors; label syntax; `500m`, `1Gi`; [`quota`]: what is used
//! - [`priority_class`], [`flowcontrol`]: the priority classes, priority levels and flow schemas that every cluster has
//! - [`storage_class`]: its annotations; [`local_storage`]: volumes that are folders on a node's disk
//! - [`duration`]: Go's `1h30m`; [`schedule`]: cron's `*/5 * * * *`
//! - [`extended_resource`]: which of them are devices of a class
//! - [`host_port`]: ports of a node that pods take; [`type_check`]: whether expressions of policies fit, asked of the server
//! - [`query`]: paths and query strings
//! - [`signing`]: certificates that are asked of whoever has the keys
//! - [`user`]: who asks; [`version`]: who answers

pub mod amounts;
pub mod apply;
pub mod decode;
pub mod duration;
pub mod encode;
pub mod ephemeral;
pub mod extended_resource;
pub mod field;
pub mod flowcontrol;
pub mod host_port;
pub mod key;
pub mod label;
pub mod local_storage;
pub mod node_fit;
pub mod object;
pub mod patch;
pub mod priority_class;
pub mod protobuf;
pub mod quantity;
pub mod query;
pub mod quota;
#[cfg(test)]
pub(crate) mod reference;
pub mod resource;
pub mod revision;
pub mod schedule;
pub mod schema;
pub mod selector;
pub mod signing;
pub mod status;
pub mod storage_class;
pub mod strategic;
pub mod table;
pub mod trail;
pub mod type_check;
pub mod user;
pub mod version;
