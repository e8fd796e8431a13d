//! Effects: what is left to do for a pod whose containers all stopped: the last status, the runtime's records, volumes,
//! the control group, and last the object in the API.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};

use super::observed::Observed;
use super::{describe, name, namespace, status, uid};
use crate::agent::context::NodeContext;
use crate::agent::volumes::{attached, teardown};
use crate::cri;

const LONGEST_RETRY: Duration = Duration::from_secs(30);

pub struct Cleanup {
    pub cx: Arc<NodeContext>,
    pub pod: Arc<Pod>,
    pub observed: Observed,
    /// `None` when the API has the pod no more.
    pub status: Option<Arc<PodStatus>>,
}

impl Cleanup {
    /// Ends when all is done; tries again what fails.
    pub async fn run(self) {
        let told = async {
            // Once the pod is told to have ended its devices are given to others: nobody may find them prepared.
            undo_claims(&self.cx, &self.pod).await;
            if let Some(status) = self.status.clone() {
                self.tell(status).await;
            }
        };
        tokio::join!(told, self.remove_records(), release_rest(&self.cx, &self.pod));
        if self.status.is_some() {
            self.delete().await;
        }
        // After the object: until then somebody may ask for the logs.
        let logs = self.cx.paths.pod_logs(namespace(&self.pod), name(&self.pod), uid(&self.pod));
        if let Err(error) = tokio::fs::remove_dir_all(&logs).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, directory = %logs.display(), "logs of a deleted pod not removed");
        }
    }

    async fn tell(&self, status: Arc<PodStatus>) {
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), namespace(&self.pod));
        let mut patch = status::patch(&self.pod, &status);
        super::resize::take_back(&mut patch, &[&self.pod.status.clone().unwrap_or_default()], &status);
        let patch = Patch::Strategic(patch);
        let attempt = || async {
            match api.patch_status(name(&self.pod), &PatchParams::default(), &patch).await {
                // Refused means gone or replaced: nobody to tell.
                Ok(_) | Err(kube::Error::Api(_)) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        };
        retry(&self.pod, "last status", attempt).await;
    }

    async fn remove_records(&self) {
        let mut sandboxes: Vec<&str> = self.observed.sandboxes.iter().map(|sandbox| sandbox.id.as_str()).collect();
        sandboxes.sort_unstable();
        for id in sandboxes {
            let attempt = || async {
                match self.cx.runtime.remove_sandbox(id).await {
                    Ok(()) | Err(cri::Error::NotFound(_)) => Ok(()),
                    Err(error) => Err(error.to_string()),
                }
            };
            retry(&self.pod, "sandbox", attempt).await;
        }
    }

    async fn delete(&self) {
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), namespace(&self.pod));
        let mut options = DeleteParams::default().grace_period(0);
        options.preconditions = Some(Preconditions { uid: self.pod.metadata.uid.clone(), resource_version: None });
        let attempt = || async {
            match api.delete(name(&self.pod), &options).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        };
        retry(&self.pod, "object", attempt).await;
    }
}

/// Volumes, tokens, watches, the control group, and claims. The containers are gone or will not run again.
pub async fn release(cx: Arc<NodeContext>, pod: Arc<Pod>) {
    release_rest(&cx, &pod).await;
    // Last, as a driver that is away may take its time.
    undo_claims(&cx, &pod).await;
}

async fn undo_claims(cx: &NodeContext, pod: &Pod) {
    retry(pod, "claims", || cx.drivers.unprepare(uid(pod))).await;
}

async fn release_rest(cx: &Arc<NodeContext>, pod: &Pod) {
    cx.exclusive.release(uid(pod));
    cx.aligner.retain(|known| known != uid(pod));
    cx.objects.release(uid(pod));
    cx.forget_tokens(uid(pod));
    // Those are unmounted by calls and commands: nothing is removed below one.
    retry(pod, "attached volumes", || attached::release(cx, uid(pod))).await;
    // Before the folder, by which an agent that starts anew knows that the pod was here.
    cx.cgroups.remove(pod);
    let directory = cx.paths.pod(uid(pod));
    let attempt = || async {
        let directory = directory.clone();
        match tokio::task::spawn_blocking(move || teardown::remove(&directory)).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    retry(pod, "volumes", attempt).await;
    cx.users.release(uid(pod));
    cx.devices.release(uid(pod));
}

async fn retry<F: Future<Output = Result<(), String>>>(pod: &Pod, what: &str, attempt: impl Fn() -> F) {
    let mut delay = Duration::from_millis(500);
    while let Err(error) = attempt().await {
        tracing::warn!(error, pod = describe(pod), what, "clean-up is tried again");
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(LONGEST_RETRY);
    }
}
