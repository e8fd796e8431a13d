//! Types: what a plan is made of, and how a controller looks to the driver.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::driver::queue::Queue;
use super::stores::Stores;
use crate::api::resource::Resource;
pub use crate::client::correlator::Note;
use crate::client::request::{Class, Request, Verb};

/// What a controller works on: usually the namespace and name of its object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl Name {
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Write(Write),
    /// Carried out in batches of 1, 2, 4… at once; the first failure ends it. A thousand pods that are all refused
    /// cost one request.
    SlowStart(Vec<Write>),
    /// A read from the server itself; the answer goes to [`Controller::learn`].
    Read(Request),
    Event(Note),
}

/// One write and what to say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub request: Request,
    /// Failures that are as good as success.
    pub fine: &'static [Class],
    pub report: Option<Box<Report>>,
}

/// Events that tell how a write went. `{name}` and `{error}` are filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub regarding: ObjectReference,
    pub component: &'static str,
    /// Reason and message.
    pub ok: Option<(&'static str, String)>,
    pub failed: Option<(&'static str, String)>,
}

impl Write {
    #[must_use]
    pub fn new(request: Request) -> Self {
        Self { request, fine: &[], report: None }
    }

    /// For deletions: gone already, or no longer the object that was observed.
    #[must_use]
    pub fn delete(request: Request) -> Self {
        Self { request, fine: &[Class::NotFound, Class::Conflict], report: None }
    }

    /// Writes a status, a merge patch: what it does not name stays. Fails when the object has changed since it was
    /// observed.
    #[must_use]
    pub fn status(resource: &'static Resource, object: &ObjectMeta, status: Value) -> Self {
        let body = json!({
            "apiVersion": resource.api_version(),
            "kind": resource.kind,
            "metadata": { "name": object.name, "namespace": object.namespace, "uid": object.uid,
                "resourceVersion": object.resource_version },
            "status": status,
        });
        let (namespace, name) = (object.namespace.as_deref(), object.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        Self::new(Request::new(Verb::MergePatch, resource, namespace, name, body).on("status"))
    }

    #[must_use]
    pub fn reported(mut self, report: Report) -> Self {
        self.report = Some(Box::new(report));
        self
    }
}

impl From<Request> for Action {
    fn from(request: Request) -> Self {
        Self::Write(Write::new(request))
    }
}

impl From<Write> for Action {
    fn from(write: Write) -> Self {
        Self::Write(write)
    }
}

/// What to do now, and when to look again although nothing changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub again: Option<Duration>,
}

impl Plan {
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    pub fn push(&mut self, action: impl Into<Action>) {
        self.actions.push(action.into());
    }

    /// Looks again after `delay`, or sooner if that was already asked for.
    pub fn look_after(&mut self, delay: Duration) {
        self.again = Some(self.again.map_or(delay, |d| d.min(delay)));
    }
}

/// Why the previous attempt at the same key did not go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: Class,
    pub message: String,
}

/// What a plan may depend on besides the stores.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    pub now: Timestamp,
    pub failure: Option<&'a Failure>,
}

/// Keys of one controller, to be added by subscriptions.
#[derive(Clone)]
pub struct Enqueue {
    pub(super) queue: Arc<Queue>,
    pub(super) controller: usize,
}

impl Enqueue {
    pub fn add(&self, namespace: &str, name: &str) {
        self.queue.add(self.controller, Name::new(namespace, name));
    }
}

/// One controller. Everything here is synchronous: the driver does what waits.
pub trait Controller: Send + Sync {
    fn name(&self) -> &'static str;

    /// Nobody waits for what it does, and it has much to do at a first start: its keys go when no others are ready, one at a
    /// time, so that nodes and pods come first.
    fn yields(&self) -> bool {
        false
    }

    /// Subscribes to whatever concerns it, and queues its fixed keys.
    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue);

    /// Queues keys when something changes that is in no store. The driver runs it until the end.
    fn follow(&self, _enqueue: Enqueue) -> Option<BoxFuture<'static, ()>> {
        None
    }

    /// Observes the stores once and plans. Called for one key at a time, and only when the stores have seen what
    /// earlier plans for the key wrote.
    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan;

    /// The answer to an [`Action::Read`] of the plan for `key`; `None` when there is no such object.
    fn learn(&self, _key: &Name, _request: &Request, _answer: Option<Value>) {}

    /// An [`Action::Read`] of the plan for `key` went wrong, or found nothing. True: that is an answer too, and the plan goes
    /// on. Otherwise it ends there, and is made again later; what is not there is learned.
    fn refused(&self, _key: &Name, _request: &Request, _failure: &Failure) -> bool {
        false
    }
}
