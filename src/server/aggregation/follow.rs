//! Loop: follows every extension server: whether it can be reached, which is written into its `APIService`, and which
//! resources it has, for discovery.
//!
//! ```text
//! APIService comes ─▶ a task: reachable? ─▶ ask ─▶ its resources ─▶ write the condition if it changed ─▶ wait
//!                        ▲                                                                              │
//!                        └── its Service or its endpoints changed, or it is time to ask again ◀─────────┘
//! APIService goes, or names another server ─▶ the task ends, what it said is forgotten
//! ```
//!
//! Without extension servers this waits for `APIService`s to change and for nothing else. Upstream asks each of them every
//! 30 seconds whether it is there, with five requests at once, and every minute for its resources. Here one request is
//! made, and four more only when that has failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_ok;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::availability::{self, Condition, SLICES};
use super::table::Remote;
use super::{API_SERVICES, Aggregator};
use crate::api::resource::find_storage;
use crate::client::request::{Class, Request, Verb};
use crate::clock;
use crate::server::cache::Cache;

/// How old the resources of a server that answers may be (upstream refreshes them every minute).
const RESOURCES_TIME: Duration = Duration::from_secs(60);
/// Requests that are made after one has failed: another endpoint may answer.
const MORE_ATTEMPTS: usize = 4;
/// When a condition could not be written.
const WRITE_RETRY: Duration = Duration::from_secs(1);

/// Until `stop`; returns when every task it started is gone.
pub async fn follow(aggregator: Arc<Aggregator>, cache: Arc<Cache>, client: kube::Client, stop: CancellationToken) {
    let mut changes = cache.subscribe(API_SERVICES);
    let mut followed: HashMap<Box<str>, (Arc<Remote>, CancellationToken)> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let table = aggregator.table();
        followed.retain(|_, (remote, stop)| {
            let kept = table.entries().iter().any(|e| e.remote == *remote);
            if !kept {
                stop.cancel();
                aggregator.forget(remote);
            }
            kept
        });
        for entry in table.entries() {
            if followed.contains_key(&entry.remote.name) {
                continue;
            }
            let one = One {
                aggregator: aggregator.clone(),
                cache: cache.clone(),
                client: client.clone(),
                remote: entry.remote.clone(),
            };
            let stop = stop.child_token();
            followed.insert(entry.remote.name.clone(), (entry.remote.clone(), stop.clone()));
            tasks.spawn(async move { stop.run_until_cancelled(one.run()).await });
        }
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            changed = changes.changed() => if changed.is_err() { break },
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// One extension server.
struct One {
    aggregator: Arc<Aggregator>,
    cache: Arc<Cache>,
    client: kube::Client,
    remote: Arc<Remote>,
}

impl One {
    async fn run(self) {
        let (mut services, mut slices) = (self.cache.subscribe("services"), self.cache.subscribe(SLICES));
        let mut failures = 0;
        let mut resources_until = None;
        loop {
            let seen = availability::concerned(self.aggregator.objects(), &self.remote);
            let condition = self.condition().await;
            failures = if condition.reason == "FailedDiscoveryCheck" { failures + 1 } else { 0 };
            // First what it has, so that whoever waits for it to be available finds it in discovery.
            self.resources(&condition, &mut resources_until).await;
            let written = self.write(&condition).await;
            let again = if written { condition.again(failures) } else { Some(WRITE_RETRY) };
            let until = again.map(|after| clock::instant() + after);
            loop {
                let due = async {
                    match until {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                let changed = tokio::select! {
                    () = due => break,
                    changed = services.changed() => changed,
                    changed = slices.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
                if availability::concerned(self.aggregator.objects(), &self.remote) != seen {
                    resources_until = None;
                    break;
                }
            }
        }
    }

    async fn condition(&self) -> Condition {
        if let Some(condition) = availability::unreachable(self.aggregator.objects(), &self.remote) {
            return condition;
        }
        let probe = || Box::pin(self.aggregator.probe(&self.remote));
        let mut result = probe().await;
        if result.is_err() {
            result = select_ok((0..MORE_ATTEMPTS).map(|_| probe())).await.map(|_| ());
        }
        Condition::answered(result)
    }

    /// False when it could not be written.
    async fn write(&self, condition: &Condition) -> bool {
        let Some(object) = self.aggregator.objects().get(API_SERVICES, "", &self.remote.name) else { return true };
        let (Ok(service), Some(row)) = (object.value(), find_storage(API_SERVICES)) else { return true };
        let Some(conditions) = availability::conditions(&service, condition, clock::now()) else { return true };
        let meta = &service["metadata"];
        let body = json!({"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
            "status": {"conditions": conditions}});
        let (name, status, reason) = (&*self.remote.name, condition.status, condition.reason);
        tracing::info!(apiservice = name, available = status, reason, "an extension server's availability changed");
        match Request::new(Verb::MergePatch, row, "", name, body).on("status").write(&self.client).await {
            Ok(_) => true,
            Err(error) if error.class() == Class::NotFound => true,
            Err(error) => {
                tracing::debug!(apiservice = name, %error, "its condition was not written");
                false
            }
        }
    }

    async fn resources(&self, condition: &Condition, until: &mut Option<Instant>) {
        let name = &self.remote.name;
        if !condition.holds() {
            *until = None;
            return self.aggregator.keep(name, None);
        }
        let now = clock::instant();
        if until.is_some_and(|until| now < until) {
            return;
        }
        match self.aggregator.discover(&self.remote, self.aggregator.discovered(name)).await {
            Ok(found) => {
                *until = Some(now + RESOURCES_TIME);
                self.aggregator.keep(name, Some(found));
            }
            Err(error) => {
                tracing::warn!(apiservice = %name, error, "an extension server does not say what it has");
                self.aggregator.keep(name, None);
            }
        }
    }
}
