//! Decides: the events of one resource that a watch can still go on from.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::object::ObjectRef;
use crate::api::revision::Revision;

/// Most events of one resource that are kept.
pub const MAX_EVENTS: usize = 10_000;
/// Most bytes of JSON that the events of one resource keep in memory. Objects that are still there count too, so
/// this is more than what the window costs.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// This many are kept, however large they are: a watcher must be able to see an event before it goes.
pub const MIN_EVENTS: usize = 16;
/// Older events go with the next change. Upstream forgets after five minutes too (etcd's compaction interval).
pub const MAX_AGE: Duration = Duration::from_secs(300);

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Event {
    pub revision: Revision,
    /// The state before; `None` when the object was created.
    pub before: Option<ObjectRef>,
    /// The state after; `None` when the object was deleted.
    pub after: Option<ObjectRef>,
    /// The last state under the revision of the deletion.
    pub gone: Option<ObjectRef>,
    at: Instant,
}

impl Event {
    #[must_use]
    pub fn new(before: Option<ObjectRef>, after: Option<ObjectRef>, gone: Option<ObjectRef>, at: Instant) -> Self {
        let revision = after.as_ref().or(gone.as_ref()).map(|o| o.revision).unwrap_or_default();
        Self { revision, before, after, gone, at }
    }

    fn bytes(&self) -> usize {
        self.before.as_ref().map_or(0, |o| o.json.len()) + self.gone.as_ref().map_or(0, |o| o.json.len())
    }
}

/// A bounded run of events without gaps.
#[derive(Debug)]
pub struct Window {
    events: VecDeque<Event>,
    bytes: usize,
    /// Every event after this revision is in the window.
    floor: Revision,
}

impl Window {
    #[must_use]
    pub fn new(floor: Revision) -> Self {
        Self { events: VecDeque::new(), bytes: 0, floor }
    }

    /// The oldest revision that a watch can go on from.
    #[must_use]
    pub fn floor(&self) -> Revision {
        self.floor
    }

    pub fn push(&mut self, event: Event) {
        debug_assert!(event.revision > self.floor, "events come in the order of their revisions");
        let now = event.at;
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > MIN_EVENTS {
            let old = now.duration_since(self.events[0].at) > MAX_AGE;
            if !(old || self.bytes > MAX_BYTES || self.events.len() > MAX_EVENTS) {
                break;
            }
            let Some(gone) = self.events.pop_front() else { break };
            self.bytes -= gone.bytes();
            self.floor = gone.revision;
        }
        if self.events.capacity() > 64 && self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(self.events.len() * 2);
        }
    }

    /// Up to `limit` events after a revision; `None` when some of them are gone.
    #[must_use]
    pub fn after(&self, revision: Revision, limit: usize) -> Option<Vec<Event>> {
        if revision < self.floor {
            return None;
        }
        let start = self.events.partition_point(|e| e.revision <= revision);
        Some(self.events.range(start..).take(limit).cloned().collect())
    }

    /// All events after a revision, newest first; `None` when some of them are gone.
    pub fn undo(&self, revision: Revision) -> Option<impl Iterator<Item = &Event>> {
        (revision >= self.floor).then(|| self.events.iter().rev().take_while(move |e| e.revision > revision))
    }
}
