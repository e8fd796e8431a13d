//! Decides: [`crate::api::node_fit`] for nodes of the snapshot.

use k8s_openapi::api::core::v1::NodeSelectorTerm;

use super::snapshot::NodeInfo;
pub use crate::api::node_fit::{node_allowed, term_allows, tolerated, tolerates_all};

/// [`term_allows`] for a node of the snapshot.
#[must_use]
pub fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    term_allows(term, &node.name, &node.labels)
}
