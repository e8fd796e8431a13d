//! The network of nodes and pods, each a network namespace of its own.

mod cni;
mod dns;
mod machines;
mod overlay;
mod proxy;
mod whole;
