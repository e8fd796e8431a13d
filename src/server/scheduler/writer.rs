//! Effects: binds pods, deletes victims, and tells what came of each attempt in Events and conditions.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::resource::v1::AllocationResult;
use serde_json::{Value, json};

use super::devices::Reservation;
use super::devices::extended::Unmade;
use super::plugins::dynamic_resources::{self, Release};
use super::pod::PodInfo;
use super::profile::Profile;
use super::promises::{ClaimId, Promise};
use super::state::{Attempt, Refused};
use crate::api::resource::Resource;
use crate::client::correlator::Note;
use crate::client::recorder::Recorder;
use crate::client::request::{self, Answer, Class, Error, Request, Verb};
use crate::clock;
use crate::server::controllers::persistent_volumes::{BOUND_BY_CONTROLLER, SELECTED_NODE};
use crate::server::controllers::resource_claims::{CLAIMS, FINALIZER};
use crate::server::controllers::stores::row;

/// What the state has to know of a write.
#[derive(Debug)]
pub enum Written {
    /// Nothing: the watches show it.
    Done,
    /// Claims of a pod are told their volumes, their node, or their devices with the revisions that they have now.
    Promised { uid: String, revision: u64, devices: Vec<(Reservation, u64)> },
    /// Some of them could not be told.
    Broken { uid: String, devices: Vec<(Reservation, u64)>, unwritten: Vec<Promise> },
    /// The binding of a pod failed.
    Unbound { uid: String },
    /// The victims of a pod are deleted, or could not all be.
    Preempted { uid: String, deleted: bool },
}

#[derive(Clone)]
pub struct Writer {
    pub client: kube::Client,
    pub recorder: Recorder,
    pub pods: &'static Resource,
}

impl Writer {
    pub async fn write(&self, attempt: Attempt) -> Written {
        match attempt {
            Attempt::Place { pod, node, made } => self.bind(&pod, &node, made.as_ref()).await,
            Attempt::Promise { pod, node, promises } => self.promise(&pod, &node, &promises).await,
            Attempt::Unbindable { pod, plugin, why, made } => {
                self.end(&pod, made.as_ref()).await;
                let message = format!("running PreBind plugin {plugin:?}: {why}");
                self.recorder.note(note(&pod, true, "FailedScheduling", "Scheduling", message));
                Written::Done
            }
            Attempt::Refused(refused) => self.refuse(*refused).await,
        }
    }

    async fn bind(&self, pod: &PodInfo, node: &str, made: Option<&ClaimId>) -> Written {
        let body = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": pod.name, "namespace": pod.namespace(), "uid": pod.uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let request = Request::new(Verb::Create, self.pods, pod.namespace(), &pod.name, body).on("binding");
        if let Err(error) = request.write(&self.client).await {
            if error.class() != Class::NotFound {
                tracing::warn!(namespace = pod.namespace(), pod = pod.name, node, %error, "binding failed");
                let message = format!("binding rejected: {error}");
                self.recorder.note(note(pod, true, "FailedScheduling", "Scheduling", message));
            }
            // Anything else may mean that it is bound after all, or gone.
            if error.class() == Class::Permanent {
                let claims = pod.wants.iter().flat_map(|w| &w.device_claims);
                self.unreserve(pod, claims.filter_map(|c| c.name.as_deref())).await;
                self.end(pod, made).await;
            }
            return Written::Unbound { uid: pod.uid.clone() };
        }
        let message = format!("Successfully assigned {}/{} to {node}", pod.namespace(), pod.name);
        self.recorder.note(note(pod, false, "Scheduled", "Binding", message));
        Written::Done
    }

    /// Tells claims where the pod will be. The controllers of volumes do the rest, and the state waits for it.
    async fn promise(&self, pod: &PodInfo, node: &str, promises: &[Promise]) -> Written {
        let (mut revision, mut devices) = (0, Vec::new());
        for (i, promise) in promises.iter().enumerate() {
            let written = match promise {
                Promise::Volume { claim, volume, revision } => {
                    volume_request(claim, volume, revision).write(&self.client).await
                }
                Promise::Node { claim, node } => node_request(claim, node).write(&self.client).await,
                Promise::Devices(reservation) => match &reservation.unmade {
                    None => self.reserve(pod, reservation).await,
                    Some(unmade) => self.make(pod, reservation, unmade).await,
                },
            };
            match written {
                Ok(answer) => {
                    let at = request::revision(&answer.metadata.resource_version);
                    revision = revision.max(at);
                    if let Promise::Devices(reservation) = promise {
                        let mut reservation = (**reservation).clone();
                        if reservation.unmade.is_some() {
                            (reservation.claim.name, reservation.claim.uid) =
                                (answer.metadata.name, answer.metadata.uid);
                        }
                        devices.push((reservation, at));
                    }
                }
                Err(error) => {
                    self.not_promised(pod, node, promise, &error);
                    let (made, reserved): (Vec<_>, Vec<_>) =
                        devices.iter().map(|(r, _)| r).partition(|r| r.unmade.is_some());
                    self.unreserve(pod, reserved.iter().map(|r| r.claim.name.as_str())).await;
                    self.end(pod, made.first().map(|r| &r.claim)).await;
                    return Written::Broken { uid: pod.uid.clone(), devices, unwritten: promises[i..].to_vec() };
                }
            }
        }
        if promises.is_empty() || devices.iter().any(|(r, _)| dynamic_resources::prepares(r)) {
            let message = format!("waiting for binding conditions for device on node {node}");
            self.recorder.note(note(pod, false, "BindingConditionsPending", "Scheduling", message));
        }
        Written::Promised { uid: pod.uid.clone(), revision, devices }
    }

    /// Gives a claim its devices, and the pod the use of them. The finalizer comes first: whoever ends a claim looks
    /// for it.
    async fn reserve(&self, pod: &PodInfo, reservation: &Reservation) -> Result<Answer, Error> {
        let Reservation { claim, allocation, revision, finalizers, .. } = reservation;
        let request = |verb, body| Request::new(verb, row(CLAIMS), &claim.namespace, &claim.name, body);
        let user = user(pod);
        let Some(allocation) = allocation else {
            // Others may reserve at the same time.
            let body = json!({ "metadata": { "uid": claim.uid }, "status": { "reservedFor": user } });
            return request(Verb::StrategicPatch, body).on("status").write(&self.client).await;
        };
        let mut revision = revision.clone();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            let all: Vec<&str> = finalizers.iter().map(String::as_str).chain([FINALIZER]).collect();
            let meta = json!({ "uid": claim.uid, "resourceVersion": revision, "finalizers": all });
            let answer = request(Verb::MergePatch, json!({ "metadata": meta })).write(&self.client).await?;
            revision = answer.metadata.resource_version;
        }
        self.allocate(pod, claim, &revision, allocation).await
    }

    async fn allocate(
        &self,
        pod: &PodInfo,
        claim: &ClaimId,
        revision: &str,
        allocation: &AllocationResult,
    ) -> Result<Answer, Error> {
        let mut allocation = json!(allocation);
        allocation["allocationTimestamp"] = json!(clock::time());
        let body = json!({
            "metadata": { "uid": claim.uid, "resourceVersion": revision },
            "status": { "allocation": allocation, "reservedFor": user(pod) },
        });
        let request = Request::new(Verb::MergePatch, row(CLAIMS), &claim.namespace, &claim.name, body);
        request.on("status").write(&self.client).await
    }

    /// Makes the claim of a pod's extended resources, with its devices, and tells the pod. What is half made goes again.
    async fn make(&self, pod: &PodInfo, reservation: &Reservation, unmade: &Unmade) -> Result<Answer, Error> {
        let mut body = json!(unmade.claim);
        body["metadata"]["finalizers"] = json!([FINALIZER]);
        for unknown in ["name", "uid"] {
            body["metadata"].as_object_mut().map(|meta| meta.remove(unknown));
        }
        let created = Request::create(row(CLAIMS), pod.namespace(), body).write(&self.client).await?.metadata;
        let id = ClaimId { namespace: pod.namespace().to_owned(), name: created.name, uid: created.uid };
        let written = match &reservation.allocation {
            Some(allocation) => self.allocate(pod, &id, &created.resource_version, allocation).await,
            None => Ok(Answer::default()),
        };
        let status = json!({ "extendedResourceClaimStatus": {
            "resourceClaimName": id.name, "requestMappings": unmade.mappings,
        } });
        let told = match written {
            Ok(answer) => self.patch_status(pod, status).await.map(|_| answer),
            Err(error) => Err(error),
        };
        if told.is_err() {
            self.end(pod, Some(&id)).await;
        }
        told
    }

    /// Nobody needs the claim that was made for the pod's extended resources. Its name goes from the pod too: the node
    /// that takes the pod in the end may need no claim.
    async fn end(&self, pod: &PodInfo, claim: Option<&ClaimId>) {
        let Some(claim) = claim else { return };
        let body = json!({ "metadata": { "uid": claim.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER] } });
        let release = Request::new(Verb::StrategicPatch, row(CLAIMS), &claim.namespace, &claim.name, body);
        let delete = Request::delete(row(CLAIMS), &claim.namespace, &claim.name, &claim.uid);
        for request in [release, delete] {
            if let Err(error) = request.write(&self.client).await {
                // The next attempt finds it, or the garbage collector after the pod.
                tracing::debug!(namespace = pod.namespace(), pod = pod.name, claim = claim.name, %error, "claim not deleted");
                return;
            }
        }
        if let Err(error) = self.patch_status(pod, json!({ "extendedResourceClaimStatus": null })).await {
            tracing::debug!(namespace = pod.namespace(), pod = pod.name, %error, "name of the claim not taken back");
        }
    }

    /// What is stale is tried again without a word.
    fn not_promised(&self, pod: &PodInfo, node: &str, promise: &Promise, error: &Error) {
        tracing::debug!(namespace = pod.namespace(), pod = pod.name, node, %error, "claims not bound");
        if let (Promise::Devices(reservation), false) =
            (promise, matches!(error.class(), Class::NotFound | Class::Conflict))
        {
            let claim = format!("{}/{}", reservation.claim.namespace, reservation.claim.name);
            let what = match (&reservation.unmade, &reservation.allocation) {
                (Some(_), _) => format!("create claim for extended resources {claim}"),
                (None, Some(_)) => format!("add allocation and reservation to claim {claim}"),
                (None, None) => format!("add reservation to claim {claim}"),
            };
            let plugin = dynamic_resources::NAME;
            let message = format!("running PreBind plugin {plugin:?}: {what}: {error}");
            self.recorder.note(note(pod, true, "FailedScheduling", "Scheduling", message));
        }
    }

    /// The pod does not come to its devices after all.
    async fn unreserve(&self, pod: &PodInfo, claims: impl Iterator<Item = &str>) {
        for claim in claims {
            let ours = json!([{ "$patch": "delete", "uid": pod.uid }]);
            let body = json!({ "status": { "reservedFor": ours } });
            let request = Request::new(Verb::StrategicPatch, row(CLAIMS), pod.namespace(), claim, body).on("status");
            if let Err(error) = request.write(&self.client).await {
                tracing::debug!(namespace = pod.namespace(), pod = pod.name, claim, %error, "still reserved");
            }
        }
    }

    /// Takes from an idle claim what it has, as it was seen, or ends it.
    async fn release(&self, pod: &PodInfo, release: &Release) {
        let Release { claim, revision } = release;
        let Some(revision) = revision else { return self.end(pod, Some(claim)).await };
        let body = json!({
            "metadata": { "uid": claim.uid, "resourceVersion": revision },
            "status": { "allocation": null, "reservedFor": null, "devices": null },
        });
        let request = Request::new(Verb::MergePatch, row(CLAIMS), &claim.namespace, &claim.name, body).on("status");
        if let Err(error) = request.write(&self.client).await {
            tracing::debug!(namespace = pod.namespace(), pod = pod.name, claim = claim.name, %error, "claim not deallocated");
        }
    }

    async fn refuse(&self, refused: Refused) -> Written {
        let Refused { pod, message, nominate, victims, release, displaced } = refused;
        if let Some(release) = &release {
            self.release(&pod, release).await;
        }
        self.recorder.note(note(&pod, true, "FailedScheduling", "Scheduling", message.clone()));
        let told = pod.wants.as_ref().and_then(|w| w.told.as_ref());
        if told != Some(&message) || nominate.is_some() {
            let mut condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastProbeTime": null, "observedGeneration": pod.generation,
            });
            if told.is_none() {
                // Another message is no transition.
                condition["lastTransitionTime"] = json!(clock::time());
            }
            let mut status = json!({ "conditions": [condition] });
            if let Some(node) = &nominate {
                // An empty one is taken out.
                status["nominatedNodeName"] = if node.is_empty() { Value::Null } else { node.as_str().into() };
            }
            if let Err(error) = self.patch_status(&pod, status).await {
                tracing::debug!(namespace = pod.namespace(), pod = pod.name, %error, "condition not written");
            }
        }
        for other in &displaced {
            if let Err(error) = self.patch_status(other, json!({ "nominatedNodeName": null })).await {
                tracing::debug!(namespace = other.namespace(), pod = other.name, %error, "nomination not cleared");
            }
        }
        let Some(node) = nominate.filter(|_| !victims.is_empty()) else { return Written::Done };
        let mut deleted = true;
        for victim in &victims {
            deleted &= self.preempt(&pod, victim, &node).await;
        }
        Written::Preempted { uid: pod.uid.clone(), deleted }
    }

    /// Deletes a victim; false when it is still there.
    async fn preempt(&self, pod: &PodInfo, victim: &Arc<PodInfo>, node: &str) -> bool {
        let status = json!({ "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", scheduler(pod)),
            "lastProbeTime": null, "lastTransitionTime": clock::time(), "observedGeneration": victim.generation,
        }] });
        let told = self.patch_status(victim, status).await.map(drop);
        let delete = Request::delete(self.pods, victim.namespace(), &victim.name, &victim.uid);
        let gone = match told {
            Ok(()) => delete.write(&self.client).await.map(drop),
            Err(error) => Err(error),
        };
        match gone {
            Ok(()) => {
                tracing::info!(
                    namespace = victim.namespace(),
                    pod = victim.name,
                    node,
                    preemptor = pod.name,
                    "preempted"
                );
                let message = format!("Preempted by pod {} on node {node}", pod.uid);
                let component = scheduler(pod);
                self.recorder.note(Note { component, ..note(victim, false, "Preempted", "Preempting", message) });
                true
            }
            // Gone already, or another pod of that name by now.
            Err(error) if matches!(error.class(), Class::NotFound | Class::Conflict) => true,
            Err(error) => {
                tracing::warn!(namespace = victim.namespace(), pod = victim.name, node, %error, "victim not deleted");
                false
            }
        }
    }

    /// The uid makes it fail when the name belongs to another pod by now.
    async fn patch_status(&self, pod: &PodInfo, status: Value) -> Result<Answer, Error> {
        let body = json!({ "metadata": { "uid": pod.uid }, "status": status });
        let request = Request::new(Verb::StrategicPatch, self.pods, pod.namespace(), &pod.name, body).on("status");
        request.write(&self.client).await
    }
}

fn user(pod: &PodInfo) -> Value {
    json!([{ "resource": "pods", "name": pod.name, "uid": pod.uid }])
}

fn volume_request(claim: &ClaimId, volume: &str, revision: &str) -> Request {
    let reference = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.name,
        "namespace": claim.namespace, "uid": claim.uid });
    let body = json!({
        "metadata": { "resourceVersion": revision, "annotations": { BOUND_BY_CONTROLLER: "yes" } },
        "spec": { "claimRef": reference },
    });
    Request::new(Verb::MergePatch, row("persistentvolumes"), "", volume, body)
}

fn node_request(claim: &ClaimId, node: &str) -> Request {
    let body = json!({ "metadata": { "uid": claim.uid, "annotations": { SELECTED_NODE: node } } });
    Request::new(Verb::MergePatch, row("persistentvolumeclaims"), &claim.namespace, &claim.name, body)
}

/// The one whose pod it is.
fn scheduler(pod: &PodInfo) -> &'static str {
    pod.wants.as_ref().map_or(Profile::default_one().name, |wants| wants.profile().name)
}

fn note(pod: &PodInfo, warning: bool, reason: &'static str, action: &'static str, message: String) -> Note {
    let regarding = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace().to_owned()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        resource_version: Some(pod.resource_version.clone()),
        field_path: None,
    };
    Note { regarding, warning, reason, message, component: scheduler(pod), action }
}
