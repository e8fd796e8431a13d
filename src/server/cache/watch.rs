//! Loop: one watch, as a stream. See the module above for why it is a cursor and not a queue.
//!
//! ```text
//! start ─▶ initial objects ─▶ (bookmark: initial end) ─▶ ┌▶ events after the cursor ─▶ filter ─▶ out
//!    │                                                   └─ wait: woken by a commit, or bookmark due
//!    └─ revision older than the window: 410                 cursor fell out of the window: end
//! ```

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, stream};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::{Cache, Page, window};
use crate::api::object::{Object, ObjectRef};
use crate::api::revision::Revision;
use crate::api::selector::{FieldSelector, LabelSelector};
use crate::api::status::Status;
use crate::clock;

/// How often a watch that asked for bookmarks is told how far it has come.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// How long before its end it is told once more: it will be taken up from there.
pub const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Most events that are taken from the window at once, so that the lock is held for microseconds.
const CHUNK: usize = 128;

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Added(ObjectRef),
    Modified(ObjectRef),
    /// The last state, with the revision of the deletion.
    Deleted(ObjectRef),
    /// Nothing older than this will follow. `initial_end` closes the initial events of a streaming list.
    Bookmark {
        revision: Revision,
        initial_end: bool,
    },
}

/// Which objects of a resource a list or a watch is about.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None` is every namespace.
    pub namespace: Option<String>,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// [`crate::api::resource::Resource::selectable`] of the storage version.
    pub selectable: &'static [&'static str],
}

impl Filter {
    #[must_use]
    pub fn matches(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|ns| *object.key.namespace == *ns) && self.selects(object)
    }

    /// The selectors alone.
    #[must_use]
    pub fn selects(&self, object: &Object) -> bool {
        self.fields.matches(|field| self.field(object, field)) && self.labels.matches(|label| object.label(label))
    }

    fn field<'a>(&self, object: &'a Object, field: &str) -> Option<&'a str> {
        match field {
            "metadata.name" => Some(&*object.key.name),
            "metadata.namespace" => Some(&*object.key.namespace),
            _ => {
                let at = self.selectable.iter().position(|s| *s == field)?;
                object.head.fields.get(at).map(|f| &**f)
            }
        }
    }

    /// What an event of the window is to this watch: entering and leaving the selection look like being created and
    /// deleted.
    fn event(&self, event: &window::Event) -> Option<Event> {
        let before = event.before.as_ref().filter(|o| self.matches(o));
        match &event.after {
            Some(after) => match (before, self.matches(after)) {
                (None, false) => None,
                (None, true) => Some(Event::Added(after.clone())),
                (Some(_), true) => Some(Event::Modified(after.clone())),
                // As upstream: the state that the watch knew, under the revision at which it left.
                (Some(before), false) => Some(Event::Deleted(Arc::new(before.at(event.revision)))),
            },
            None => before.and(event.gone.clone()).map(Event::Deleted),
        }
    }
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is there now as `Added` events. `end` closes them with a bookmark.
    State { end: bool },
    /// With the next change.
    Now,
    /// With the first change after a revision.
    After(Revision),
}

/// Whether a watch is told how far it has come, and when it will end as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bookmarks {
    pub wanted: bool,
    pub end: Option<Instant>,
}

impl From<bool> for Bookmarks {
    fn from(wanted: bool) -> Self {
        Self { wanted, end: None }
    }
}

impl Bookmarks {
    fn due(self, now: Instant) -> Option<Instant> {
        let last = self.end.and_then(|end| end.checked_sub(BOOKMARK_BEFORE_END)).filter(|last| *last > now);
        let next = now + BOOKMARK_INTERVAL;
        self.wanted.then(|| last.map_or(next, |last| last.min(next)))
    }
}

/// A watch. Ends when it was too slow; goes on from the revision of its last event.
pub struct Watch(Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>);

impl Watch {
    #[must_use]
    pub fn new(stream: impl Stream<Item = Result<Event, Status>> + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Stream for Watch {
    type Item = Result<Event, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl Cache {
    /// Watches a resource. A start that the window does not reach back to gives one error, 410 Expired, as upstream:
    /// inside the stream.
    #[must_use]
    pub fn watch(
        self: &Arc<Self>,
        storage: &str,
        filter: Filter,
        start: Start,
        bookmarks: impl Into<Bookmarks>,
    ) -> Watch {
        let bookmarks: Bookmarks = bookmarks.into();
        let shelf = self.shelf(storage);
        let woken = shelf.subscribe();
        let mut pending = VecDeque::new();
        let cursor = match start {
            Start::After(revision) => {
                let floor = shelf.floor();
                if revision < floor {
                    let error = Status::expired(format!("too old resource version: {revision} ({floor})"));
                    return Watch::new(stream::iter([Err(error)]));
                }
                revision
            }
            Start::Now => shelf.reached(|| self.revision()),
            Start::State { end } => {
                let (items, _, revision) = shelf.list(Page::all(filter.namespace.as_deref()), || self.revision());
                pending.extend(items.into_iter().filter(|o| filter.selects(o)).map(Event::Added));
                if end {
                    pending.push_back(Event::Bookmark { revision, initial_end: true });
                }
                revision
            }
        };
        let state = Cursor {
            cache: self.clone(),
            shelf,
            filter,
            woken,
            cursor,
            pending,
            seen: false,
            bookmarks,
            bookmark: bookmarks.due(clock::instant()),
        };
        Watch::new(stream::unfold(state, |mut state| async move {
            let event = state.next().await?;
            Some((Ok(event), state))
        }))
    }
}

struct Cursor {
    cache: Arc<Cache>,
    shelf: Arc<super::Shelf>,
    filter: Filter,
    woken: Receiver<Revision>,
    /// Everything up to here has been given out or does not match.
    cursor: Revision,
    pending: VecDeque<Event>,
    /// There was nothing more when it last looked, so it looks again when it is woken.
    seen: bool,
    bookmarks: Bookmarks,
    /// When the next bookmark is due, if any is wanted.
    bookmark: Option<Instant>,
}

impl Cursor {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if !self.seen {
                // Before the look at the window: a change between the look and the wait must wake.
                self.woken.borrow_and_update();
                let (events, reached) = self.shelf.after(self.cursor, CHUNK, || self.cache.revision())?;
                self.cursor = self.cursor.max(reached);
                self.pending.extend(events.iter().filter_map(|e| self.filter.event(e)));
                self.seen = events.len() < CHUNK;
                continue;
            }
            if let Some(due) = self.bookmark {
                if due <= clock::instant() {
                    self.bookmark = self.bookmarks.due(clock::instant());
                    return Some(Event::Bookmark { revision: self.cursor, initial_end: false });
                }
                tokio::select! {
                    woken = self.woken.changed() => woken.ok()?,
                    () = tokio::time::sleep_until(due) => {}
                }
            } else {
                self.woken.changed().await.ok()?;
            }
            // Also for a bookmark: without a change here, the cache has come further.
            self.seen = false;
        }
    }
}
