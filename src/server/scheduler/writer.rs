//! Effects: binds pods, deletes victims, and tells what came of each attempt in Events and conditions.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};

use super::pod::PodInfo;
use super::state::{Attempt, Refused, SCHEDULER};
use super::volumes::Promise;
use crate::api::resource::Resource;
use crate::client::correlator::Note;
use crate::client::recorder::Recorder;
use crate::client::request::{self, Answer, Class, Error, Request, Verb};
use crate::clock;
use crate::server::controllers::persistent_volumes::{BOUND_BY_CONTROLLER, SELECTED_NODE};
use crate::server::controllers::stores::row;

/// What the state has to know of a write.
#[derive(Debug)]
pub enum Written {
    /// Nothing: the watches show it.
    Done,
    /// Claims of a pod are told their volumes or their node.
    Promised { uid: String, revision: u64 },
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
            Attempt::Place { pod, node } => self.bind(&pod, &node).await,
            Attempt::Promise { pod, node, promises } => self.promise(&pod, &node, &promises).await,
            Attempt::Unbindable { pod, why } => {
                let message = format!("running PreBind plugin \"VolumeBinding\": {why}");
                self.recorder.note(note(&pod, true, "FailedScheduling", "Scheduling", message));
                Written::Done
            }
            Attempt::Refused(refused) => self.refuse(*refused).await,
        }
    }

    async fn bind(&self, pod: &PodInfo, node: &str) -> Written {
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
            return Written::Unbound { uid: pod.uid.clone() };
        }
        let message = format!("Successfully assigned {}/{} to {node}", pod.namespace(), pod.name);
        self.recorder.note(note(pod, false, "Scheduled", "Binding", message));
        Written::Done
    }

    /// Tells claims where the pod will be. The controllers of volumes do the rest, and the state waits for it.
    async fn promise(&self, pod: &PodInfo, node: &str, promises: &[Promise]) -> Written {
        let mut revision = 0;
        for promise in promises {
            match promise_request(promise).write(&self.client).await {
                Ok(answer) => revision = revision.max(request::revision(&answer.metadata.resource_version)),
                Err(error) => {
                    tracing::debug!(namespace = pod.namespace(), pod = pod.name, node, %error, "volumes not bound");
                    return Written::Unbound { uid: pod.uid.clone() };
                }
            }
        }
        Written::Promised { uid: pod.uid.clone(), revision }
    }

    async fn refuse(&self, refused: Refused) -> Written {
        let Refused { pod, message, nominate, victims, displaced } = refused;
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
            "message": format!("{SCHEDULER}: preempting to accommodate a higher priority pod"),
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
                self.recorder.note(note(victim, false, "Preempted", "Preempting", message));
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

fn promise_request(promise: &Promise) -> Request {
    match promise {
        Promise::Volume { claim, volume, revision } => {
            let reference = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.name,
                "namespace": claim.namespace, "uid": claim.uid });
            let body = json!({
                "metadata": { "resourceVersion": revision, "annotations": { BOUND_BY_CONTROLLER: "yes" } },
                "spec": { "claimRef": reference },
            });
            Request::new(Verb::MergePatch, row("persistentvolumes"), "", volume, body)
        }
        Promise::Node { claim, node } => {
            let body = json!({ "metadata": { "uid": claim.uid, "annotations": { SELECTED_NODE: node } } });
            Request::new(Verb::MergePatch, row("persistentvolumeclaims"), &claim.namespace, &claim.name, body)
        }
    }
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
    Note { regarding, warning, reason, message, component: SCHEDULER, action }
}
