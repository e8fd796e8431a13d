//! Effects: carries out a plan in order and stops at the first failure, for planning again is cheap.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::ObjectReference;

use crate::client::correlator::Note;
use crate::client::recorder::Recorder;
use crate::client::request::{Answer, Class, Error, Request, Verb, revision};
use crate::client::store::View;
use crate::server::controllers::action::{Action, Controller, Failure, Name, Report, Write};

/// First batch of a slow start; each next one is twice as large.
const FIRST_BATCH: usize = 1;
/// Largest batch: more requests at once would not be quicker.
const LAST_BATCH: usize = 64;
/// What is here answers at once, but an extension server may hang: it would hold one of the few places of plans.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Applied {
    /// Writes that the stores have yet to see.
    pub unseen: Vec<Unseen>,
    pub failure: Option<Failure>,
    /// The controller was told answers: it wants to plan again.
    pub learned: bool,
}

/// A write of ours that a store has yet to see.
#[derive(Clone, Debug)]
pub enum Unseen {
    Revision { storage: &'static str, revision: u64 },
    Gone { storage: &'static str, namespace: String, name: String, uid: String },
}

impl Unseen {
    pub fn storage(&self) -> &'static str {
        match self {
            Self::Revision { storage, .. } | Self::Gone { storage, .. } => storage,
        }
    }

    pub fn seen(&self, view: &dyn View) -> bool {
        match self {
            Self::Revision { revision, .. } => view.observed() >= *revision,
            Self::Gone { namespace, name, uid, .. } => !view.lives(namespace, name, uid),
        }
    }
}

pub async fn apply(
    client: &kube::Client,
    recorder: &Recorder,
    controller: &dyn Controller,
    key: &Name,
    actions: Vec<Action>,
) -> Applied {
    let mut applied = Applied::default();
    for action in actions {
        let result = match action {
            Action::Event(note) => {
                recorder.note(note);
                Ok(())
            }
            Action::Write(write) => one(client, recorder, &write, &mut applied).await,
            Action::SlowStart(writes) => slow_start(client, recorder, &writes, &mut applied).await,
            Action::Read(request) => {
                let learned = read(client, controller, key, &request).await;
                applied.learned |= learned.is_ok();
                learned
            }
        };
        if let Err(failure) = result {
            applied.failure = Some(failure);
            break;
        }
    }
    applied
}

async fn read(
    client: &kube::Client,
    controller: &dyn Controller,
    key: &Name,
    request: &Request,
) -> Result<(), Failure> {
    let answer = tokio::time::timeout(PATIENCE, request.read(client)).await;
    match answer.unwrap_or_else(|_| Err(Error::Transport(format!("no answer in {PATIENCE:?}")))) {
        Ok(value) => controller.learn(key, request, Some(value)),
        Err(error) => {
            let failure = failure(&error);
            if !controller.refused(key, request, &failure) {
                if failure.class != Class::NotFound {
                    return Err(failure);
                }
                controller.learn(key, request, None);
            }
        }
    }
    Ok(())
}

async fn slow_start(
    client: &kube::Client,
    recorder: &Recorder,
    writes: &[Write],
    applied: &mut Applied,
) -> Result<(), Failure> {
    let mut rest = writes;
    let mut size = FIRST_BATCH;
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(size.min(rest.len()));
        let answers = join_all(batch.iter().map(|w| w.request.write(client))).await;
        let mut result = Ok(());
        for (write, answer) in batch.iter().zip(answers) {
            result = result.and(conclude(recorder, write, answer, applied));
        }
        result?;
        rest = later;
        size = (size * 2).min(LAST_BATCH);
    }
    Ok(())
}

async fn one(client: &kube::Client, recorder: &Recorder, write: &Write, applied: &mut Applied) -> Result<(), Failure> {
    let answer = write.request.write(client).await;
    conclude(recorder, write, answer, applied)
}

fn conclude(
    recorder: &Recorder,
    write: &Write,
    answer: Result<Answer, Error>,
    applied: &mut Applied,
) -> Result<(), Failure> {
    match answer {
        Ok(answer) => {
            if let Some(report) = &write.report {
                let text = report.ok.as_ref().map(|(r, m)| (*r, m.replace("{name}", &named(write, &answer))));
                tell(recorder, report, text, false);
            }
            applied.unseen.extend(unseen(&write.request, &answer));
            Ok(())
        }
        Err(error) if error.class() == Class::Ending || write.fine.contains(&error.class()) => Ok(()),
        Err(error) => {
            if let Some(report) = &write.report {
                let text = report.failed.as_ref().map(|(r, m)| (*r, m.replace("{error}", &error.to_string())));
                tell(recorder, report, text, true);
            }
            Err(failure(&error))
        }
    }
}

fn named(write: &Write, answer: &Answer) -> String {
    if write.request.name.is_empty() { answer.metadata.name.clone() } else { write.request.name.clone() }
}

fn tell(recorder: &Recorder, report: &Report, text: Option<(&'static str, String)>, warning: bool) {
    if let Some((reason, message)) = text {
        let regarding: ObjectReference = report.regarding.clone();
        recorder.note(Note { regarding, warning, reason, message, component: report.component, action: "" });
    }
}

fn failure(error: &Error) -> Failure {
    Failure { class: error.class(), message: error.to_string() }
}

pub fn unseen(request: &Request, answer: &Answer) -> Option<Unseen> {
    let storage = request.resource.storage;
    match request.verb {
        Verb::Get | Verb::List | Verb::DeleteCollection => None,
        Verb::Delete => Some(Unseen::Gone {
            storage,
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            uid: request.body.pointer("/preconditions/uid")?.as_str()?.to_owned(),
        }),
        // A binding or an eviction answers with a Status.
        _ if answer.metadata.resource_version.is_empty() => None,
        _ => Some(Unseen::Revision { storage, revision: revision(&answer.metadata.resource_version) }),
    }
}
