//! Effects: tells the API the status of one pod: one patch on the way at a time, the newest status next, later and
//! later while it fails.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use tokio::time::Instant;

use super::{describe, name, namespace, status};
use crate::clock;

/// The time between two tries doubles this often, from one second.
const DOUBLINGS: u32 = 5;

pub struct Telling {
    /// What the API has, or will have once the patch on the way is there.
    told: PodStatus,
    on_the_way: Option<BoxFuture<'static, Result<(), kube::Error>>>,
    failures: u32,
    /// Not before this.
    pub at: Option<Instant>,
}

impl Telling {
    #[must_use]
    pub fn new(told: PodStatus) -> Self {
        Self { told, on_the_way: None, failures: 0, at: None }
    }

    /// What the API has, as the watch shows it. Others write there too: a node that was silent has its pods not ready, and
    /// only its agent can say that they are.
    pub fn seen(&mut self, api: Option<&PodStatus>) {
        let says = |status: &PodStatus, kind: &str| {
            let found = status.conditions.iter().flatten().find(|c| c.type_ == kind);
            found.map(|c| c.status.clone())
        };
        let Some(api) = api.filter(|_| self.on_the_way.is_none()) else { return };
        let differs = |kind: &&str| says(&self.told, kind).is_some_and(|told| says(api, kind) != Some(told));
        if status::CONDITIONS.iter().any(differs) {
            self.told = PodStatus::default();
        }
    }

    #[must_use]
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
        let patch = status::patch(pod, current);
        let name = name(pod).to_owned();
        self.told = (**current).clone();
        self.on_the_way = Some(Box::pin(async move {
            api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
        }));
    }

    /// Waits for the patch on the way, else for ever. May be dropped and called again.
    pub async fn answer(&mut self) -> Result<(), kube::Error> {
        match &mut self.on_the_way {
            Some(future) => future.await,
            None => std::future::pending().await,
        }
    }

    /// Takes what [`Telling::answer`] gave.
    pub fn answered(&mut self, pod: &Pod, result: Result<(), kube::Error>) {
        self.on_the_way = None;
        match result {
            Ok(()) => self.failures = 0,
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
