//! The network of a node: pods on it, Services, DNS, and the way to other nodes.
pub mod netlink;
pub mod nft;
pub mod cni;
