//! What the conformance profile of v1.36 asks of the API, in the steps of its tests, where no other test shows it whole.
//! `tests/CONFORMANCE.md` says which requirement is shown where.
//!
//! - [`discovery`], [`openapi`], [`kinds`], [`events`], [`auth`]: what is there, and the life of an object of each kind
//! - [`watches`], [`chunking`], [`fields`]: how it is read and written
//! - [`webhooks`], [`policies`], [`custom`]: what extends it
//! - [`workloads`]: the same of workloads, and of what the scheduler goes by
//! - [`quotas`]: how much of it there may be
//! - [`namespaces`], [`garbage`]: how it ends, with the real controllers

mod auth;
mod chunking;
mod custom;
mod discovery;
mod events;
mod fields;
mod garbage;
mod kinds;
mod namespaces;
mod node_kinds;
mod openapi;
mod policies;
mod quotas;
mod watches;
mod webhooks;
mod workloads;

use std::ops::Deref;
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use skiff::api::user::User;
use skiff::config::scheduler::Scheduler;
use skiff::server::authz::bootstrap;
use skiff::server::controllers;
use skiff::server::crd::definitions;
use skiff::server::http::body::Body;
use skiff::server::{http, scheduler, webhook};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Server, controllers_config};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Long enough for a busy machine; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(5);

/// A server with its controllers, and without nodes. It ends when it is dropped.
pub(crate) struct Cluster {
    server: Server,
    tasks: JoinSet<()>,
}

impl Deref for Cluster {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Cluster {
    /// With the namespace `default` and its service account.
    pub async fn new() -> Self {
        let cluster = Self::of(Server::new().await);
        cluster.await_there("/api/v1/namespaces/default/serviceaccounts/default").await;
        cluster
    }

    /// A server, with the controllers.
    pub fn of(server: Server) -> Self {
        let tasks = Self::controllers(&server);
        Self { server, tasks }
    }

    /// The controllers of a server, until they are dropped.
    pub fn controllers(server: &Server) -> JoinSet<()> {
        let registry = server.service.backend().registry.clone();
        let webhooks = webhook::Client::new(registry.cache().clone());
        let config = controllers_config(server);
        let client = http::client(&server.service, User::new("system:kube-controller-manager", &["system:masters"]));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(definitions::follow(registry, webhooks, stop.clone()));
        tasks.spawn(async move {
            let Ok(()) = controllers::run(client, config, stop).await;
        });
        tasks
    }

    /// Starts the scheduler, which may do what its roles say.
    pub async fn schedule(&mut self) {
        for name in ["kube-system", "kube-public"] {
            self.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await;
        }
        let admin = http::client(&self.server.service, User::new("system:apiserver", &["system:masters"]));
        bootstrap::reconcile(admin).await.unwrap();
        let client = http::client(&self.server.service, User::new("system:kube-scheduler", &["system:authenticated"]));
        self.tasks.spawn(async move {
            let Ok(()) = scheduler::run(client, Scheduler::default(), CancellationToken::new()).await;
        });
    }

    /// Waits until an object is as it should be, and returns it.
    pub async fn await_object(&self, uri: &str, what: impl Fn(&Value) -> bool) -> Value {
        wait_for(uri, async || {
            let answer = self.get(uri).await;
            (answer.code == 200).then(|| answer.json()).filter(&what)
        })
        .await
    }

    async fn await_there(&self, uri: &str) -> Value {
        self.await_object(uri, |_| true).await
    }

    pub async fn await_gone(&self, uri: &str) {
        wait_for(uri, async || (self.get(uri).await.code == 404).then_some(())).await;
    }

    /// Makes a definition, and waits until it is served.
    pub async fn define(&self, definition: &Value) {
        self.made("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
        let (group, plural) =
            (definition["spec"]["group"].as_str().unwrap(), definition["spec"]["names"]["plural"].as_str().unwrap());
        for version in definition["spec"]["versions"].as_array().unwrap().iter().filter(|v| v["served"] == true) {
            self.await_there(&format!("/apis/{group}/{}/{plural}", version["name"].as_str().unwrap())).await;
        }
    }
}

impl Server {
    /// Creates an object, which must succeed.
    pub(crate) async fn made(&self, uri: &str, object: &Value) -> Value {
        let answer = self.post(uri, object).await;
        assert_eq!(answer.code, 201, "{uri}: {}", answer.text);
        answer.json()
    }

    /// Patches, which must succeed.
    pub(crate) async fn patched(&self, uri: &str, kind: &str, patch: &Value) -> Value {
        let answer = self.patch(uri, kind, patch).await;
        assert!(matches!(answer.code, 200 | 201), "{uri}: {}", answer.text);
        answer.json()
    }

    /// Replaces, which must succeed.
    pub(crate) async fn replaced(&self, uri: &str, object: &Value) -> Value {
        let answer = self.put(uri, object).await;
        assert_eq!(answer.code, 200, "{uri}: {}", answer.text);
        answer.json()
    }

    /// Deletes, which must succeed.
    pub(crate) async fn deleted(&self, uri: &str, options: &Value) -> Value {
        let answer = self.delete(uri, options).await;
        assert!(matches!(answer.code, 200 | 202), "{uri}: {}", answer.text);
        answer.json()
    }

    pub(crate) async fn items(&self, uri: &str) -> Vec<Value> {
        let answer = self.get(uri).await;
        assert_eq!(answer.code, 200, "{uri}: {}", answer.text);
        answer.json()["items"].as_array().unwrap().clone()
    }
}

/// Polls a condition of a server whose controllers are at work.
pub async fn wait_for<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let start = skiff::clock::instant();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "{what}: not within {}s", DEADLINE.as_secs());
        tokio::time::sleep(STEP).await;
    }
}

/// An open watch.
struct Watching {
    body: Body,
    text: Vec<u8>,
}

impl Watching {
    async fn new(server: &Server, uri: &str) -> Self {
        let response = server.respond("GET", uri, &[], "").await;
        assert_eq!(response.status(), 200, "{uri}");
        Self { body: response.into_body(), text: Vec::new() }
    }

    /// The next event: its type, its object.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                return (event["type"].as_str().unwrap().to_owned(), event["object"].clone());
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("an event in time");
            self.text.extend(frame.expect("the watch goes on").unwrap().into_data().unwrap());
        }
    }

    /// `TYPE name` of the next event.
    async fn told(&mut self) -> String {
        let (kind, object) = self.next().await;
        format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or_default())
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn names(items: &[Value]) -> Vec<&str> {
    items.iter().map(name).collect()
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "c:1"}]}})
}
