//! Effects: tells the API the status of one pod: one patch on the way at a time, the newest status next, later and
//! later while it fails.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use tokio::time::Instant;

use super::{describe, name, namespace, resize, status};
use crate::client::request::revision;
use crate::clock;

/// The time between two tries doubles this often, from one second.
const DOUBLINGS: u32 = 5;

pub struct Telling {
    /// What the API has, or will have once the patch on the way is there.
    told: PodStatus,
    /// Revision of the pod with what was told last.
    since: u64,
    on_the_way: Option<BoxFuture<'static, Result<u64, kube::Error>>>,
    failures: u32,
    /// Of the mirror of a static pod.
    uid: Option<String>,
    /// Not before this.
    pub at: Option<Instant>,
}

impl Telling {
    #[must_use]
    pub fn new(told: PodStatus) -> Self {
        Self { told, since: 0, on_the_way: None, failures: 0, uid: None, at: None }
    }

    /// The pod as the watch shows it. Others write its status too: a node that was silent has its pods not ready, and only
    /// its agent can say that they are. What is older than what was told says nothing.
    pub fn seen(&mut self, pod: &Pod) {
        let at = revision(pod.metadata.resource_version.as_deref().unwrap_or_default());
        let Some(api) = pod.status.as_ref().filter(|_| self.on_the_way.is_none() && at >= self.since) else { return };
        let says = |status: &PodStatus, kind: &str| {
            let found = status.conditions.iter().flatten().find(|c| c.type_ == kind);
            found.map(|c| c.status.clone())
        };
        let differs = |kind: &&str| says(&self.told, kind).is_some_and(|told| says(api, kind) != Some(told));
        if status::CONDITIONS.iter().any(differs) {
            self.told = PodStatus::default();
        }
    }

    /// The API knows a static pod by its mirror: another one has to be told everything.
    pub fn mirrored(&mut self, mirror: Option<&Pod>) {
        let uid = mirror.and_then(|mirror| mirror.metadata.uid.clone());
        if self.uid != uid {
            (self.told, self.since, self.uid) = (PodStatus::default(), 0, uid);
            self.on_the_way = None;
        } else if let Some(mirror) = mirror {
            self.seen(mirror);
        }
    }

    #[must_use]
    pub fn is_mirrored(&self) -> bool {
        self.uid.is_some()
    }

    /// Whether the API has said that it has this status.
    #[must_use]
    pub fn has_told(&self, current: &PodStatus) -> bool {
        self.on_the_way.is_none() && *current == self.told
    }

    #[cfg(test)]
    pub fn is_on_the_way(&self) -> bool {
        self.on_the_way.is_some()
    }

    /// Starts a patch if the API has another status than this, and none is on the way.
    pub fn start(&mut self, client: &kube::Client, pod: &Pod, current: &Arc<PodStatus>) {
        let due = self.at.is_none_or(|at| at <= clock::instant());
        if self.on_the_way.is_some() || !due || **current == self.told {
            return;
        }
        self.at = None;
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace(pod));
        let mut patch = status::patch(pod, current);
        let in_api = pod.status.clone().unwrap_or_default();
        resize::take_back(&mut patch, &[&self.told, &in_api], current);
        if let Some(uid) = &self.uid {
            patch["metadata"]["uid"] = uid.clone().into();
        }
        let name = name(pod).to_owned();
        self.told = (**current).clone();
        self.on_the_way = Some(Box::pin(async move {
            let pod = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
            Ok(revision(pod.metadata.resource_version.as_deref().unwrap_or_default()))
        }));
    }

    /// Waits for the patch on the way, else for ever. May be dropped and called again.
    pub async fn answer(&mut self) -> Result<u64, kube::Error> {
        match &mut self.on_the_way {
            Some(future) => future.await,
            None => std::future::pending().await,
        }
    }

    /// Takes what [`Telling::answer`] gave.
    pub fn answered(&mut self, pod: &Pod, result: Result<u64, kube::Error>) {
        self.on_the_way = None;
        match result {
            Ok(at) => {
                (self.failures, self.since) = (0, at);
                // Others may have written since, while nobody looked.
                self.seen(pod);
            }
            // Gone, or another pod of that name: the watch will say so.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => {
                tracing::debug!(%error, pod = describe(pod), "status not told");
                self.told = PodStatus::default();
                let delay = Duration::from_secs(1 << self.failures.min(DOUBLINGS));
                self.failures += 1;
                self.at = Some(clock::instant() + delay);
            }
        }
    }

    /// Another patch overtakes the one on the way.
    pub fn abandon(&mut self) {
        self.on_the_way = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_made_of_a_condition_is_told_again_unless_it_is_old() {
        let pod = |revision: &str, ready: &str| -> Pod {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            let pod = json!({"metadata": {"resourceVersion": revision}, "status": {"conditions": conditions}});
            serde_json::from_value(pod).unwrap()
        };
        for (revision, ready, again) in [("7", "True", false), ("7", "False", true), ("4", "False", false)] {
            let mut telling = Telling::new(pod("5", "True").status.unwrap());
            telling.since = 5;
            telling.seen(&pod(revision, ready));
            assert_eq!(telling.told == PodStatus::default(), again, "{ready} at {revision}");
            // It came while an answer was awaited.
            let mut telling = Telling::new(pod("5", "True").status.unwrap());
            telling.answered(&pod(revision, ready), Ok(5));
            assert_eq!(telling.told == PodStatus::default(), again, "{ready} at {revision}");
        }
    }
}
