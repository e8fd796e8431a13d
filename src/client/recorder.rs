//! Loop: writes Events. Whoever notes one never waits: the queue is bounded and drops what does not fit.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::correlator::{Correlator, Note, Write};
use super::request::{Class, Request, Verb};
use crate::api::resource::{Resource, find_storage};
use crate::clock;

/// Notes waiting to be written.
const QUEUE: usize = 1000;

/// Takes notes from anywhere.
#[derive(Clone)]
pub struct Recorder(mpsc::Sender<Note>);

impl Recorder {
    pub fn note(&self, note: Note) {
        if self.0.try_send(note).is_err() {
            tracing::debug!("event dropped, the queue is full");
        }
    }
}

pub struct Writer {
    client: kube::Client,
    notes: mpsc::Receiver<Note>,
    events: &'static Resource,
}

/// A recorder and the loop that writes what it takes.
///
/// # Panics
/// Never: the resource table has events.
#[must_use]
pub fn new(client: kube::Client) -> (Recorder, Writer) {
    let (sender, notes) = mpsc::channel(QUEUE);
    let events = find_storage("events").expect("the resource table has events");
    (Recorder(sender), Writer { client, notes, events })
}

impl Writer {
    pub async fn run(mut self, stop: CancellationToken) {
        let mut correlator = Correlator::default();
        loop {
            let note = tokio::select! {
                () = stop.cancelled() => return,
                note = self.notes.recv() => note,
            };
            let Some(note) = note else { return };
            let Some(write) = correlator.correlate(&note, clock::now()) else { continue };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.send(write, &mut correlator) => {}
            }
        }
    }

    async fn send(&self, write: Write, correlator: &mut Correlator) {
        let (namespace, body) = match write {
            Write::Create { namespace, body } => (namespace, body),
            Write::Patch { namespace, name, body, fallback } => {
                let patch = Request::new(Verb::MergePatch, self.events, &namespace, &name, body);
                match patch.write(&self.client).await {
                    Err(error) if error.class() == Class::NotFound => {
                        correlator.renamed(&name, fallback["metadata"]["name"].as_str().unwrap_or_default());
                        (namespace, fallback)
                    }
                    Err(error) => return tracing::debug!(%error, "event not written"),
                    Ok(_) => return,
                }
            }
        };
        // An event is not worth a second try: 403 is a namespace that ends.
        if let Err(error) = Request::create(self.events, &namespace, body).write(&self.client).await {
            tracing::debug!(%error, "event not written");
        }
    }
}
