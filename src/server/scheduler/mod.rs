//! Loop: the scheduler. Watches what it has to know, decides in [`state`], binds.
//!
//! - [`state`]: one attempt after the other; what happened wakes those it can help
//! - [`queue`]: whose turn it is
//! - [`search`]: which nodes are feasible, which is best; [`preempt`]: who has to go when there is none
//! - [`profile`]: which plugins a pod meets; [`plugins`]: the constraints and scores, in a table; [`filter`]: those that
//!   others ask for too
//! - [`snapshot`], [`pod`], [`cohorts`], [`topology`], [`workloads`], [`volumes`], [`csi`], [`devices`], [`selector`],
//!   [`resources`]: what is known; [`promises`]: what is about to be written
//!
//! A placement is reserved in the snapshot before its binding is written, so the next attempt counts it; bindings
//! are written side by side.

pub mod cohorts;
pub mod csi;
pub mod devices;
pub mod filter;
mod observe;
pub mod plugins;
pub mod pod;
pub mod preempt;
pub mod profile;
pub mod promises;
pub mod queue;
pub use crate::api::amounts as resources;
pub mod search;
pub mod selector;
pub mod snapshot;
pub mod state;
pub mod topology;
pub mod volumes;
pub mod workloads;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::state::State;
use self::writer::{Writer, Written};
use crate::api::resource::find_storage;
use crate::client::recorder;
use crate::clock;
use crate::config::scheduler::Scheduler;

/// Bindings and condition writes under way at once.
const WRITING: usize = 64;

/// Nothing ends the scheduler but `stop`: what fails is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// State and the bell that rings when something in it has changed.
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
pub async fn run(client: kube::Client, config: Scheduler, stop: CancellationToken) -> Result<(), Error> {
    let shared = Arc::new(Shared { state: Mutex::new(State::new(&config)), changed: Notify::new() });
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
    let mut writing: JoinSet<Written> = JoinSet::new();
    loop {
        while writing.len() < WRITING {
            let attempt = shared.state().attempt(clock::instant());
            let Some(attempt) = attempt else { break };
            let writer = writer.clone();
            writing.spawn(async move { writer.write(attempt).await });
        }
        let deadline = shared.state().deadline();
        let something_is_due = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let room = writing.len() < WRITING;
        tokio::select! {
            () = stop.cancelled() => break,
            Some(written) = writing.join_next(), if !writing.is_empty() => match written {
                Ok(Written::Unbound { uid }) => shared.state().unbound(&uid, clock::instant()),
                Ok(Written::Promised { uid, revision, devices }) => {
                    shared.state().promised(&uid, revision, &devices, clock::instant());
                }
                Ok(Written::Broken { uid, devices, unwritten }) => {
                    shared.state().broken(&uid, &devices, &unwritten, clock::instant());
                }
                Ok(Written::Preempted { uid, deleted }) => shared.state().preempted(&uid, deleted),
                Ok(Written::Done) | Err(_) => {}
            },
            () = shared.changed.notified(), if room => {}
            () = something_is_due, if room => {}
        }
    }
    while writing.join_next().await.is_some() {}
}
