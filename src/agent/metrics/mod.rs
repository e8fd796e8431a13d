//! What monitoring reads from this node, with the kubelet's names and labels, so that dashboards of any cluster work here.
//! Everything is measured when it is asked for.
//!
//! - [`figures`]: the text format; [`groups`]: what the kernel counts for a control group
//! - [`node`]: `/metrics`, with [`volumes`]; [`resource`], [`cadvisor`], [`probes`]: `/metrics/…`

pub mod cadvisor;
pub mod figures;
pub mod groups;
pub mod node;
pub mod probes;
pub mod resource;
pub mod volumes;
