//! The network of a node: pods on it, Services, DNS, and the way to other nodes.
//!
//! `cni` attaches pods, `overlay` leads to the pods of other nodes, `proxy` turns Services into rules, `dns` answers for
//! their names. Proxy and DNS read one [`services::View`], which `watch` keeps. `netlink` and `nft` are the thin
//! verbs below them.

pub mod cni;
pub mod netlink;
pub mod nft;
pub mod proxy;
pub mod services;
pub mod watch;
