//! Loop: the scheduler. Watches pods, nodes and Services, decides in [`state`], binds.
//!
//! - [`state`]: one attempt: filter, score, reserve
//! - [`queue`]: whose turn it is
//! - [`snapshot`], [`resources`]: what is known of nodes and pods
//! - [`filter`], [`score`]: the plugins
//!
//! A placement is reserved in the snapshot before its binding is written, so the next attempt counts it; bindings
//! are written side by side.

pub mod filter;
mod observe;
pub mod queue;
pub mod resources;
pub mod score;
pub mod snapshot;
pub mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::snapshot::PodInfo;
use self::state::{Attempt, State};
use crate::api::resource::{Resource, find_storage};
use crate::client::correlator::Note;
use crate::client::recorder::{self, Recorder};
use crate::client::request::{Class, Request, Verb};
use crate::clock;

const COMPONENT: &str = "default-scheduler";
/// Bindings and condition writes under way at once.
const WRITING: usize = 64;

/// Nothing ends the scheduler but `stop`: what fails is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// State and the bell that rings when something in it has changed.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Schedules until `stop`; returns when every task is gone.
///
/// # Errors
/// None at present.
///
/// # Panics
/// Never: the resource table has pods.
pub async fn run(client: kube::Client, stop: CancellationToken) -> Result<(), Error> {
    let shared = Arc::new(Shared::default());
    let feeding = stop.child_token();
    let mut tasks = JoinSet::new();
    let (recorder, writer) = recorder::new(client.clone());
    tasks.spawn(writer.run(feeding.clone()));
    let mut synced = observe::feed(&client, &shared, &mut tasks, &feeding);
    let ready = tokio::select! {
        () = stop.cancelled() => false,
        ready = synced.wait_for(|n| *n == observe::SOURCES) => ready.is_ok(),
    };
    if ready {
        let pods = find_storage("pods").expect("the resource table has pods");
        schedule(&Writer { client, recorder, pods }, &shared, &stop).await;
    }
    feeding.cancel();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn schedule(writer: &Writer, shared: &Shared, stop: &CancellationToken) {
    // A pod's uid where its binding failed.
    let mut writing: JoinSet<Option<String>> = JoinSet::new();
    loop {
        while writing.len() < WRITING {
            let attempt = shared.state().attempt(clock::instant());
            let Some(attempt) = attempt else { break };
            let writer = writer.clone();
            writing.spawn(async move { writer.write(attempt).await });
        }
        let deadline = shared.state().deadline();
        let backoff_over = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let room = writing.len() < WRITING;
        tokio::select! {
            () = stop.cancelled() => break,
            Some(done) = writing.join_next(), if !writing.is_empty() => {
                if let Ok(Some(uid)) = done {
                    shared.state().unbound(&uid, clock::instant());
                }
            }
            () = shared.changed.notified(), if room => {}
            () = backoff_over, if room => {}
        }
    }
    while writing.join_next().await.is_some() {}
}

#[derive(Clone)]
struct Writer {
    client: kube::Client,
    recorder: Recorder,
    pods: &'static Resource,
}

impl Writer {
    async fn write(&self, attempt: Attempt) -> Option<String> {
        match attempt {
            Attempt::Place { pod, node } => self.bind(&pod, &node).await,
            Attempt::Refused { pod, message } => {
                self.refuse(&pod, message).await;
                None
            }
        }
    }

    async fn bind(&self, pod: &PodInfo, node: &str) -> Option<String> {
        let body = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": pod.name, "namespace": pod.namespace, "uid": pod.uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let request = Request::new(Verb::Create, self.pods, &pod.namespace, &pod.name, body).on("binding");
        if let Err(error) = request.write(&self.client).await {
            if error.class() != Class::NotFound {
                tracing::warn!(namespace = pod.namespace, pod = pod.name, node, %error, "binding failed");
                let message = format!("binding rejected: {error}");
                self.recorder.note(note(pod, true, "FailedScheduling", "Scheduling", message));
            }
            return Some(pod.uid.clone());
        }
        let message = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
        self.recorder.note(note(pod, false, "Scheduled", "Binding", message));
        None
    }

    async fn refuse(&self, pod: &PodInfo, message: String) {
        self.recorder.note(note(pod, true, "FailedScheduling", "Scheduling", message.clone()));
        if pod.wants.as_ref().and_then(|w| w.told.as_ref()) == Some(&message) {
            return;
        }
        let body = json!({
            "metadata": { "uid": pod.uid },
            "status": { "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastProbeTime": null, "lastTransitionTime": clock::time(),
            }] },
        });
        let request = Request::new(Verb::StrategicPatch, self.pods, &pod.namespace, &pod.name, body).on("status");
        if let Err(error) = request.write(&self.client).await {
            tracing::debug!(namespace = pod.namespace, pod = pod.name, %error, "condition not written");
        }
    }
}

fn note(pod: &PodInfo, warning: bool, reason: &'static str, action: &'static str, message: String) -> Note {
    let regarding = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        resource_version: Some(pod.resource_version.clone()),
        field_path: None,
    };
    Note { regarding, warning, reason, message, component: COMPONENT, action }
}
