//! Effects: the Node object of this node, for those who admit pods. It is asked for when a pod comes, not watched.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use tokio::time::Instant;

use super::context::NodeContext;
use crate::clock;

/// Pods come in crowds: what was read lately will do for the next.
const FRESH: Duration = Duration::from_secs(10);
/// A server that does not answer must not keep pods from starting.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct OwnNode {
    known: Option<(Instant, Arc<Node>)>,
}

impl OwnNode {
    /// As it was in the last seconds; with `again` as it is now. `None` when it cannot be read.
    pub async fn get(&mut self, cx: &NodeContext, again: bool) -> Option<Arc<Node>> {
        if let Some((at, node)) = &self.known
            && !again
            && at.elapsed() < FRESH
        {
            return Some(node.clone());
        }
        let api: Api<Node> = Api::all(cx.client.clone());
        match tokio::time::timeout(LIMIT, api.get(&cx.config.node_name)).await {
            Ok(Ok(node)) => {
                let node = Arc::new(node);
                self.known = Some((clock::instant(), node.clone()));
                Some(node)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "own node not read");
                None
            }
            Err(_) => None,
        }
    }
}
