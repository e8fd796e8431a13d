//! Effects: `volumesInUse` of the Node: which attached volumes this node uses, or is about to use. Nothing is detached
//! that is named there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::{Csi, lock, paths};
use crate::agent::context::NodeContext;
use crate::client::request;

#[derive(Default)]
pub(super) struct InUse {
    /// By unique name.
    users: Mutex<BTreeMap<String, Users>>,
    /// What the API has; `None` when that is not known.
    told: tokio::sync::Mutex<Option<Vec<String>>>,
}

/// Who uses a volume.
#[derive(Default)]
struct Users {
    /// UIDs of pods that have it, or want it. An empty one stands for a volume that was staged before this agent started.
    pods: BTreeSet<String>,
    /// It is attached for this node.
    attached: bool,
}

impl Csi {
    /// As the Node's status has it; `None` when there are none.
    #[must_use]
    pub fn volumes_in_use(&self) -> Option<Vec<String>> {
        let names: Vec<String> =
            lock(&self.in_use.users).iter().filter(|(_, users)| users.attached).map(|row| row.0.clone()).collect();
        (!names.is_empty()).then_some(names)
    }

    pub(super) fn use_by(&self, unique: &str, uid: &str) {
        lock(&self.in_use.users).entry(unique.to_owned()).or_default().pods.insert(uid.to_owned());
    }

    /// From now on the Node names it.
    pub(super) fn use_attached(&self, unique: &str) {
        lock(&self.in_use.users).entry(unique.to_owned()).or_default().attached = true;
    }

    /// Whether a pod wants the volume, or has it.
    pub(super) fn is_wanted(&self, unique: &str) -> bool {
        let users = lock(&self.in_use.users);
        users.get(unique).is_some_and(|users| users.pods.iter().any(|uid| !uid.is_empty()))
    }

    /// The pod neither has nor wants the volume any more.
    pub(super) fn unused_by(&self, unique: &str, uid: &str) {
        let mut users = lock(&self.in_use.users);
        if let Some(of_volume) = users.get_mut(unique) {
            of_volume.pods.remove(uid);
            if of_volume.pods.is_empty() {
                users.remove(unique);
            }
        }
    }

    /// Volumes that the pod wants, or has.
    pub(super) fn used_by(&self, uid: &str) -> Vec<String> {
        let users = lock(&self.in_use.users);
        users.iter().filter(|(_, users)| users.pods.contains(uid)).map(|(unique, _)| unique.clone()).collect()
    }

    /// Reads from disk what an agent before this one left.
    pub(super) fn restore(&self, cx: &NodeContext) {
        let kubelet = &cx.paths.kubelet;
        for found in paths::staged(kubelet) {
            let unique = found.record.unique();
            self.use_by(&unique, "");
            if found.record.in_use {
                self.use_attached(&unique);
            }
        }
        for uid in paths::pods(kubelet) {
            for found in paths::of_pod(kubelet, &uid) {
                let unique = found.record.unique();
                let known = lock(&self.in_use.users).contains_key(&unique);
                if known {
                    self.use_by(&unique, &uid);
                }
            }
        }
    }

    /// What the API has now.
    pub(super) async fn note_told(&self, node: &Node) {
        let named = node.status.as_ref().and_then(|status| status.volumes_in_use.clone());
        *self.in_use.told.lock().await = Some(named.unwrap_or_default());
    }
}

/// Tells the API, unless it knows.
pub(super) async fn tell(cx: &NodeContext) -> Result<(), String> {
    // Held during the request: the last one to tell tells the latest.
    let mut told = cx.csi.in_use.told.lock().await;
    let now = cx.csi.volumes_in_use();
    if *told == Some(now.clone().unwrap_or_default()) {
        return Ok(());
    }
    let api: Api<Node> = Api::all(cx.client.clone());
    let patch = Patch::Merge(json!({"status": {"volumesInUse": now}}));
    let result = api.patch_status(&cx.config.node_name, &PatchParams::default(), &patch).await;
    result.map_err(|error| format!("volumes in use not told: {}", request::Error::from(error)))?;
    *told = Some(now.unwrap_or_default());
    Ok(())
}
