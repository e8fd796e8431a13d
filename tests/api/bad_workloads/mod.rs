//! Workloads that nobody should have asked for, with the real registry, the real controllers and, where constraints matter,
//! the real scheduler. Each is looked at from three sides: what is told, what is left alone, and how much is done about it
//! in an hour in which nobody does anything. The clock of timers is paused, so that an hour takes as long as what is done in it;
//! what is the time of day stands almost still.
//!
//! - [`selectors`]: several controllers that want the same pods
//! - [`owners`]: circles, and owners that are not there
//! - [`constraints`]: pods that fit nowhere
//! - [`absurd`]: more than there can be
//! - [`refused`]: pods that admission refuses each time
//! - [`schedules`]: times that never come, or came too often
//! - [`missing`]: what others were built on is gone
//! - [`stuck`]: finalizers that nobody removes

mod absurd;
mod constraints;
mod missing;
mod owners;
mod refused;
mod schedules;
mod selectors;
mod stuck;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::conformance::{Cluster, wait_for};

const NAMESPACE: &str = "/api/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";
const APPS: &str = "/apis/apps/v1/namespaces/default";
const BATCH: &str = "/apis/batch/v1/namespaces/default";
const MERGE: &str = "application/merge-patch+json";
const FINALIZER: &str = "example.com/never";

const HOUR: Duration = Duration::from_secs(3600);
/// What fails is tried again after 5 ms, then after twice as long each time up to 1000 s: 18 times in the first twenty
/// minutes and three times an hour from then on. What a controller writes of a failure wakes it once or twice more.
const TRIES: u64 = 25;
const TRIES_AN_HOUR: u64 = 5;
/// Each watch is renewed once an hour; an autoscaler looks every fifteen seconds.
const READS_AN_HOUR: u64 = 400;

/// Requests since a moment, by verb and resource: `CREATE pods`.
struct Requests(BTreeMap<String, u64>);

impl Requests {
    async fn so_far(cluster: &Cluster) -> Self {
        let mut counts = BTreeMap::new();
        for line in cluster.get("/metrics").await.text.lines() {
            let Some(labels) = line.strip_prefix("apiserver_request_total{") else { continue };
            let (labels, count) = labels.rsplit_once("} ").unwrap();
            let label = |name: &str| {
                let found = labels.split(',').find_map(|l| l.strip_prefix(name)?.strip_prefix("=\""));
                found.unwrap_or_default().trim_end_matches('"').to_owned()
            };
            *counts.entry(format!("{} {}", label("verb"), label("resource"))).or_default() +=
                count.parse::<u64>().unwrap();
        }
        Self(counts)
    }

    async fn since(cluster: &Cluster, before: &Self) -> Self {
        let mut now = Self::so_far(cluster).await;
        now.0.retain(|what, count| {
            *count -= before.0.get(what).unwrap_or(&0);
            *count > 0
        });
        now
    }

    fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    fn is_write(what: &str) -> bool {
        !["GET ", "LIST ", "WATCH "].iter().any(|read| what.starts_with(read))
    }

    fn writes(&self) -> BTreeMap<&str, u64> {
        self.0.iter().filter(|(what, _)| Self::is_write(what)).map(|(what, count)| (what.as_str(), *count)).collect()
    }

    fn reads(&self) -> u64 {
        self.0.iter().filter(|(what, _)| !Self::is_write(what)).map(|(_, count)| count).sum()
    }
}

/// What an hour brings in which nobody does anything.
async fn an_hour(cluster: &Cluster) -> Requests {
    let before = Requests::so_far(cluster).await;
    tokio::time::sleep(HOUR).await;
    let hour = Requests::since(cluster, &before).await;
    assert!(hour.reads() < READS_AN_HOUR, "{:?}", hour.0);
    hour
}

/// Waits until all is done that can be done, then looks for an hour whether that was all.
async fn is_quiet(cluster: &Cluster) {
    tokio::time::sleep(HOUR).await;
    let hour = an_hour(cluster).await;
    assert!(hour.writes().is_empty(), "{:?}", hour.0);
}

/// As [`is_quiet`], but for these few writes of what is tried again ever more seldom, and of the Events that say so.
async fn is_almost_quiet(cluster: &Cluster, tried: &[&str]) {
    tokio::time::sleep(HOUR).await;
    let hour = an_hour(cluster).await;
    for (what, count) in hour.writes() {
        let expected = tried.contains(&what) || what.ends_with(" events");
        assert!(expected && count <= TRIES_AN_HOUR * tried.len() as u64, "{what}: {count} in an hour");
    }
}

fn template(labels: &Value, more: &Value) -> Value {
    let mut template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "c:1"}]}});
    json_patch::merge(&mut template["spec"], more);
    template
}

/// A node that takes pods, if nobody is there to run them.
async fn node(cluster: &Cluster, name: &str) {
    let labels = json!({"kubernetes.io/hostname": name, "zone": name});
    cluster.made("/api/v1/nodes", &json!({"metadata": {"name": name, "labels": labels}})).await;
    let status = json!({"status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "110"}}});
    cluster.patched(&format!("/api/v1/nodes/{name}/status"), MERGE, &status).await;
    cluster.patched(&format!("/api/v1/nodes/{name}"), MERGE, &json!({"spec": {"taints": null}})).await;
}

/// A workload with pods of these labels.
async fn made(cluster: &Cluster, uri: &str, name: &str, labels: &Value, more: &Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": labels}, "template": template(labels, &json!({}))});
    json_patch::merge(&mut spec, more);
    cluster.made(uri, &json!({"metadata": {"name": name}, "spec": spec})).await
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap()
}

fn controller(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|o| o["controller"] == true)?["uid"].as_str()
}

/// The uids of the pods that an object controls.
async fn pods_of(cluster: &Cluster, owner: &Value) -> BTreeSet<String> {
    let pods = cluster.items(PODS).await;
    pods.iter().filter(|p| controller(p) == Some(uid(owner))).map(|p| uid(p).to_owned()).collect()
}

async fn has_pods(cluster: &Cluster, owner: &Value, count: usize) -> BTreeSet<String> {
    let what = format!("{count} pods of {}", owner["metadata"]["name"]);
    wait_for(&what, async || Some(pods_of(cluster, owner).await).filter(|pods| pods.len() == count)).await
}

/// The message of an Event about an object of that name.
async fn told(cluster: &Cluster, name: &str, reason: &str) -> String {
    let what = format!("{reason} of {name}");
    wait_for(&what, async || {
        let events = cluster.items("/api/v1/events").await;
        let found = events.iter().find(|e| e["involvedObject"]["name"] == name && e["reason"] == reason)?;
        Some(found["message"].as_str().unwrap().to_owned())
    })
    .await
}

/// The condition of that type, once it is true.
async fn condition(cluster: &Cluster, uri: &str, kind: &str) -> Value {
    wait_for(&format!("{kind} of {uri}"), async || {
        let object = cluster.get(uri).await.json();
        let conditions = object["status"]["conditions"].as_array()?;
        conditions.iter().find(|c| c["type"] == kind && c["status"] == "True").cloned()
    })
    .await
}
