//! Loop: keeps the table `skiff-proxy` in step with Services and EndpointSlices.
//!
//! A change is applied at once; the next one not before [`PAUSE`] has passed, with all that came meanwhile. What is in
//! the kernel is remembered, so that an update is as large as its difference, and nothing when there is none.

pub mod conntrack;
pub mod model;
pub mod ruleset;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::nft::{self, Table};
use super::services::View;
use conntrack::Backends;
pub use model::Node;

/// Least time between two transactions.
const PAUSE: Duration = Duration::from_millis(100);
/// Wait after a failed transaction; doubles up to the limit.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_LIMIT: Duration = Duration::from_secs(30);

pub async fn run(mut view: watch::Receiver<Arc<View>>, mut node: watch::Receiver<Node>, stop: CancellationToken) {
    let mut applied: Option<(Table, Backends)> = None;
    let mut retry = RETRY;
    loop {
        let current = view.borrow_and_update().clone();
        let on = node.borrow_and_update().clone();
        let mut wait = PAUSE;
        if current.complete {
            match update(&current, &on, applied.take()).await {
                Ok(table) => {
                    applied = Some(table);
                    retry = RETRY;
                }
                Err(error) => {
                    tracing::error!(error = crate::supervisor::chain(&error), "Service rules were not applied");
                    wait = retry;
                    retry = (retry * 2).min(RETRY_LIMIT);
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        if applied.is_some() || !current.complete {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = view.changed() => if changed.is_err() { return },
                changed = node.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Applies what differs from `applied`. After a failure nothing is known about the kernel's state: the next
/// transaction replaces the table.
async fn update(
    view: &View,
    node: &Node,
    applied: Option<(Table, Backends)>,
) -> Result<(Table, Backends), nft::apply::Error> {
    let ports = model::model(view, node);
    let table = ruleset::ruleset(&ports, node);
    let backends = conntrack::backends(&ports, node);
    let (transaction, stale) = match &applied {
        None => (nft::replace(&table), true),
        Some((old, known)) => (nft::difference(old, &table), *known != backends),
    };
    if !transaction.is_empty() {
        tracing::debug!(services = ports.len(), bytes = transaction.len(), "Service rules change");
        tokio::task::spawn_blocking(move || nft::apply::apply(&transaction))
            .await
            .unwrap_or_else(|e| Err(nft::apply::Error::Run(std::io::Error::other(e))))?;
    }
    if stale {
        // After the rules: a flow that begins again must not be led to the old endpoint once more.
        let wanted = backends.clone();
        match tokio::task::spawn_blocking(move || conntrack::forget_stale(&wanted)).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(flows)) => tracing::debug!(flows, "stale UDP flows were forgotten"),
            Ok(Err(error)) => {
                tracing::warn!(error = crate::supervisor::chain(&error), "stale UDP flows were not forgotten");
            }
        }
    }
    Ok((table, backends))
}
