//! Loop: the only asynchronous part of the controllers. Feeds the stores, takes keys, asks for plans, carries them out.
//!
//! ```text
//! reflectors ─▶ stores ─▶ subscriptions ─▶ queue ─▶ plan (synchronous, here) ─▶ apply (a task per key) ─▶ API
//!                 ▲                                    ▲                            │
//!                 └───────────── watch ────────────────┼── waits until the stores ──┘
//!                                                      │   have seen what it wrote
//! ```
//!
//! A plan is made only when the stores have seen everything that earlier plans for the same key wrote: the revision
//! of each object written, the absence (or the deletion timestamp) of each object deleted. So a cache that lags can
//! never make a controller create a pod twice, and no controller needs to count expectations.

pub(in crate::server::controllers) mod apply;
mod custom;
pub mod queue;
mod remote;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::apply::{Applied, Unseen};
use self::queue::{Key, Queue};
use super::action::{Controller, Enqueue, Failure, Moment};
use super::stores::{Fed, Stores, subscribe_all};
use crate::client::recorder::{self, Recorder};
use crate::client::reflector;
use crate::client::request::Class;
use crate::client::store::View;
use crate::clock;

/// Plans carried out at once.
const APPLYING: usize = 16;
/// A write that no store has seen after this long is no longer waited for (client-go: `ExpectationsTimeout`, there 5
/// minutes). Only a store that was lost or a watch that hangs can get here.
const UNSEEN_LIMIT: Duration = Duration::from_secs(60);
/// Whoever wants to look again at once waits this long: a plan that wants it for ever must not hold the processor.
const SOONEST: Duration = Duration::from_millis(10);

pub struct Driver {
    client: kube::Client,
    stores: Arc<Stores>,
    views: HashMap<&'static str, Arc<dyn View>>,
    controllers: Vec<Arc<dyn Controller>>,
    queue: Arc<Queue>,
    recorder: Recorder,
    unseen: HashMap<Key, (tokio::time::Instant, Vec<Unseen>)>,
    failures: HashMap<Key, Failure>,
}

/// Runs `controllers` over `stores` until `stop`; returns when every task it started is gone.
pub async fn run(
    client: kube::Client,
    stores: Arc<Stores>,
    controllers: Vec<Arc<dyn Controller>>,
    stop: CancellationToken,
) {
    let yielding = controllers.iter().enumerate().filter(|(_, c)| c.yields()).map(|(index, _)| index);
    let queue = Arc::new(Queue::new(yielding.collect()));
    let fed = stores.fed();
    let mut follows = Vec::new();
    for (index, controller) in controllers.iter().enumerate() {
        let enqueue = Enqueue { queue: Arc::clone(&queue), controller: index };
        controller.wire(&stores, &enqueue);
        follows.extend(controller.follow(enqueue));
    }
    wake_on_change(&stores, &queue);

    // Loops in order of their end: the driver first, then what it writes to and reads from.
    let feeding = stop.child_token();
    let mut tasks = JoinSet::new();
    for follow in follows {
        let stop = feeding.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow => {}
            }
        });
    }
    let (recorder, writer) = recorder::new(client.clone());
    tasks.spawn(writer.run(feeding.clone()));
    let mut synced = feed(&client, &fed, &mut tasks, &feeding);
    let total = fed.len();
    tasks.spawn(custom::follow(client.clone(), Arc::clone(&stores), feeding.clone()));

    let driver = Driver {
        client,
        views: fed.iter().map(|f| (f.source.resource.storage, Arc::clone(&f.view))).collect(),
        stores,
        controllers,
        queue,
        recorder,
        unseen: HashMap::new(),
        failures: HashMap::new(),
    };
    let ready = tokio::select! {
        () = stop.cancelled() => false,
        ready = synced.wait_for(|n| *n == total) => ready.is_ok(),
    };
    if ready {
        tracing::debug!(resources = total, "controllers have observed the cluster");
        driver.run(&stop).await;
    }
    feeding.cancel();
    while tasks.join_next().await.is_some() {}
    for one in &fed {
        one.view.close();
    }
}

/// Starts one reflector per store. The channel counts those that have listed.
fn feed(
    client: &kube::Client,
    fed: &[Fed],
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> watch::Receiver<usize> {
    let (count, synced) = watch::channel(0);
    let count = Arc::new(count);
    for one in fed.iter().cloned() {
        let (client, stop, count) = (client.clone(), stop.clone(), Arc::clone(&count));
        tasks.spawn(async move {
            let synced = move || count.send_modify(|n| *n += 1);
            reflector::run(client, one.source, &*one.sink, synced, stop).await;
        });
    }
    synced
}

/// Keys that wait for a store look again with each of its changes.
fn wake_on_change(stores: &Arc<Stores>, queue: &Arc<Queue>) {
    let queue = Arc::clone(queue);
    subscribe_all(stores, move |resource, _, _| queue.wake(resource.storage));
}

impl Driver {
    async fn run(mut self, stop: &CancellationToken) {
        let mut applying: JoinSet<(Key, Applied)> = JoinSet::new();
        let queue = Arc::clone(&self.queue);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = applying.join_next(), if !applying.is_empty() => match done {
                    Ok((key, applied)) => self.finish(&key, applied),
                    Err(error) => tracing::error!(%error, "a plan's task ended badly"),
                },
                key = queue.next(), if applying.len() < APPLYING => self.start(key, &mut applying),
            }
        }
        // Writes under way end by themselves: the server answers or its connection closes.
        while applying.join_next().await.is_some() {}
    }

    /// Plans for the key and starts carrying the plan out, unless a store has yet to see an earlier write.
    fn start(&mut self, key: Key, applying: &mut JoinSet<(Key, Applied)>) {
        if self.waits(&key) {
            self.queue.done(&key);
            return;
        }
        self.queue.forget_timer(&key);
        let controller = &self.controllers[key.controller];
        let moment = Moment { now: clock::now(), failure: self.failures.get(&key) };
        let plan = controller.plan(&self.stores, &key.name, moment);
        if let Some(delay) = plan.again {
            self.queue.after(key.clone(), delay.max(SOONEST));
        }
        if plan.actions.is_empty() {
            self.failures.remove(&key);
            self.queue.succeeded(&key);
            self.queue.done(&key);
            return;
        }
        tracing::debug!(
            controller = controller.name(), namespace = %key.name.namespace, name = %key.name.name,
            actions = plan.actions.len(), "applying"
        );
        let (client, recorder, controller) = (self.client.clone(), self.recorder.clone(), Arc::clone(controller));
        applying.spawn(async move {
            let applied = apply::apply(&client, &recorder, &*controller, &key.name, plan.actions).await;
            (key, applied)
        });
    }

    fn finish(&mut self, key: &Key, applied: Applied) {
        if !applied.unseen.is_empty() {
            self.unseen.insert(key.clone(), (clock::instant() + UNSEEN_LIMIT, applied.unseen));
        }
        match applied.failure {
            // To have asked is not to have succeeded: what failed before may fail again with the next plan.
            None if applied.learned => self.queue.add(key.controller, key.name.clone()),
            None => {
                self.failures.remove(key);
                self.queue.succeeded(key);
            }
            Some(failure) => {
                let controller = self.controllers[key.controller].name();
                let (namespace, name) = (&key.name.namespace, &key.name.name);
                if matches!(failure.class, Class::Conflict | Class::NotFound | Class::AlreadyExists) {
                    tracing::debug!(controller, %namespace, %name, error = failure.message, "will observe again");
                } else {
                    tracing::warn!(controller, %namespace, %name, error = failure.message, "plan failed");
                }
                self.failures.insert(key.clone(), failure);
                self.queue.failed(key.clone());
            }
        }
        self.queue.done(key);
    }

    fn waits(&mut self, key: &Key) -> bool {
        let Some((deadline, unseen)) = self.unseen.get_mut(key) else { return false };
        let now = clock::instant();
        // Registered before the check, or a change in between would wake nobody.
        for write in unseen.iter() {
            self.queue.wait(write.storage(), key.clone());
        }
        // Nothing is known of what custom resources have seen: their plans are made again, which is harmless.
        unseen.retain(|write| self.views.get(write.storage()).is_some_and(|view| !write.seen(&**view)));
        if unseen.is_empty() {
            self.unseen.remove(key);
            return false;
        }
        if now >= *deadline {
            tracing::warn!(name = %key.name.name, writes = unseen.len(), "own writes were not observed, planning anyway");
            self.unseen.remove(key);
            return false;
        }
        self.queue.after(key.clone(), *deadline - now);
        true
    }
}
