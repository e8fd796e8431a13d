//! Decides: which pod is scheduled next, and when one that did not fit is tried again.
//!
//! ```text
//!  add ─▶ active ─▶ (attempt) ─▶ bound
//!           ▲           │ fits nowhere
//!           │           ▼
//!           ├─ event that can help, back-off over ── unschedulable ── five minutes ─▶ active
//!           │                                            │ event that can help, back-off not over
//!           └────────── back-off over ── back-off ◀──────┘
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::plugins::Refusers;

/// Delay after the first failed attempt, doubled with each further one. Upstream starts at a second; here an event
/// wakes the pod, so a short first delay only matters while the cluster starts. A configuration may say otherwise.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LAST_BACKOFF: Duration = Duration::from_secs(10);
/// After this a pod is tried again although nothing that is known could help it.
const FLUSH: Duration = Duration::from_mins(5);

/// Higher priority first, then the older.
type Rank = (Reverse<i32>, Option<Timestamp>, u64);

pub struct Queue {
    first_backoff: Duration,
    last_backoff: Duration,
    active: BTreeMap<Rank, String>,
    backoff: BTreeSet<(Instant, String)>,
    unschedulable: HashMap<String, Waiting>,
    /// When each of those is tried again at the latest.
    flush: BTreeSet<(Instant, String)>,
    entries: HashMap<String, Entry>,
    serial: u64,
}

struct Waiting {
    refusers: Refusers,
    flush_at: Instant,
}

struct Entry {
    rank: Rank,
    attempts: u32,
    /// Not before this.
    not_before: Option<Instant>,
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(None, None)
    }
}

impl Queue {
    #[must_use]
    pub fn new(first_backoff: Option<Duration>, last_backoff: Option<Duration>) -> Self {
        Self {
            first_backoff: first_backoff.unwrap_or(FIRST_BACKOFF),
            last_backoff: last_backoff.unwrap_or(LAST_BACKOFF),
            active: BTreeMap::new(),
            backoff: BTreeSet::new(),
            unschedulable: HashMap::new(),
            flush: BTreeSet::new(),
            entries: HashMap::new(),
            serial: 0,
        }
    }

    /// Adds a pod, or brings it back at once because it was changed.
    pub fn add(&mut self, uid: &str, priority: i32, created: Option<Timestamp>) {
        self.leave(uid);
        self.serial += 1;
        let rank = (Reverse(priority), created, self.serial);
        let attempts = self.entries.get(uid).map_or(0, |e| e.attempts);
        self.entries.insert(uid.to_owned(), Entry { rank, attempts, not_before: None });
        self.active.insert(rank, uid.to_owned());
    }

    /// Knows a pod again without making it active: for one whose binding failed.
    pub fn restore(&mut self, uid: &str, priority: i32, created: Option<Timestamp>) {
        self.serial += 1;
        let rank = (Reverse(priority), created, self.serial);
        self.entries.entry(uid.to_owned()).or_insert(Entry { rank, attempts: 0, not_before: None });
    }

    pub fn remove(&mut self, uid: &str) {
        self.leave(uid);
        self.entries.remove(uid);
    }

    fn leave(&mut self, uid: &str) {
        if let Some(waiting) = self.unschedulable.remove(uid) {
            self.flush.remove(&(waiting.flush_at, uid.to_owned()));
        }
        if let Some(entry) = self.entries.get(uid) {
            self.active.remove(&entry.rank);
            if let Some(at) = entry.not_before {
                self.backoff.remove(&(at, uid.to_owned()));
            }
        }
    }

    /// The next pod to try.
    pub fn pop(&mut self, now: Instant) -> Option<String> {
        while let Some((_, uid)) = self.flush.first().filter(|(at, _)| *at <= now).cloned() {
            self.bring_back(&uid, now);
        }
        while let Some((_, uid)) = self.backoff.first().filter(|(at, _)| *at <= now).cloned() {
            self.backoff.pop_first();
            if let Some(entry) = self.entries.get(&uid) {
                self.active.insert(entry.rank, uid);
            }
        }
        self.active.pop_first().map(|(_, uid)| uid)
    }

    /// When [`Queue::pop`] will have something although nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.backoff.first().into_iter().chain(self.flush.first()).map(|(at, _)| *at).min()
    }

    /// The attempt failed. Refused by plugins: waits for an event that can help. By none (an error): is tried again
    /// after its back-off.
    pub fn failed(&mut self, uid: &str, refusers: Option<Refusers>, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.attempts += 1;
        let factor = 1_u32.checked_shl(entry.attempts - 1).unwrap_or(u32::MAX);
        let at = now + self.first_backoff.saturating_mul(factor).min(self.last_backoff);
        entry.not_before = Some(at);
        if let Some(refusers) = refusers {
            let flush_at = now + FLUSH;
            self.flush.insert((flush_at, uid.to_owned()));
            self.unschedulable.insert(uid.to_owned(), Waiting { refusers, flush_at });
        } else {
            self.backoff.insert((at, uid.to_owned()));
        }
    }

    /// It need not be tried before an event that can help, and no attempt has failed.
    pub fn waits(&mut self, uid: &str, refusers: Refusers, now: Instant) {
        if self.entries.contains_key(uid) {
            let flush_at = now + FLUSH;
            self.flush.insert((flush_at, uid.to_owned()));
            self.unschedulable.insert(uid.to_owned(), Waiting { refusers, flush_at });
        }
    }

    /// Brings back those that wait and were refused by one of `listeners`, when `helped` says so.
    pub fn wake(&mut self, listeners: Refusers, now: Instant, mut helped: impl FnMut(&str, Refusers) -> bool) {
        let waiting = self.unschedulable.iter().filter(|(_, w)| w.refusers.any_of(listeners));
        let woken: Vec<String> =
            waiting.filter(|(uid, w)| helped(uid, w.refusers)).map(|(uid, _)| uid.clone()).collect();
        for uid in woken {
            self.bring_back(&uid, now);
        }
    }

    fn bring_back(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.unschedulable.remove(uid) else { return };
        self.flush.remove(&(waiting.flush_at, uid.to_owned()));
        let Some(entry) = self.entries.get(uid) else { return };
        match entry.not_before {
            Some(at) if at > now => {
                self.backoff.insert((at, uid.to_owned()));
            }
            _ => {
                self.active.insert(entry.rank, uid.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn order_backoff_and_events_that_help() {
        let mut q = Queue::default();
        let t = |s| Timestamp::from_second(s).ok();
        let now = crate::clock::instant();
        let (fit, affinity) = (Refusers::named("NodeResourcesFit"), Refusers::named("NodeAffinity"));
        q.add("young", 0, t(2));
        q.add("old", 0, t(1));
        q.add("important", 5, t(3));
        for want in ["important", "old", "young"] {
            assert_eq!(q.pop(now).as_deref(), Some(want));
        }
        q.failed("old", Some(fit), now);
        q.failed("young", Some(affinity), now);
        q.failed("important", None, now);
        assert_eq!(q.deadline(), Some(now + FIRST_BACKOFF), "an error is tried again by itself");

        let later = now + Duration::from_secs(1);
        assert_eq!(q.pop(later).as_deref(), Some("important"));
        q.wake(fit, later, |_, _| true);
        assert_eq!(q.pop(later).as_deref(), Some("old"));
        assert_eq!(q.pop(later), None, "room does not help against node affinity");
        q.wake(affinity, later, |_, _| false);
        assert_eq!(q.pop(later), None, "another node of the wrong kind does not either");
        q.wake(affinity, later, |uid, refusers| uid == "young" && refusers == affinity);
        assert_eq!(q.pop(later).as_deref(), Some("young"));

        q.failed("young", Some(affinity), later);
        q.wake(affinity, later, |_, _| true);
        assert_eq!(q.pop(later), None, "still backing off");
        assert_eq!(q.deadline(), Some(later + 2 * FIRST_BACKOFF));
        q.remove("young");
        assert_eq!((q.pop(later + LAST_BACKOFF), q.deadline()), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_has_not_failed() {
        let mut q = Queue::default();
        let now = crate::clock::instant();
        let devices = Refusers::named("DynamicResources");
        q.add("a", 0, None);
        q.pop(now);
        q.waits("a", devices, now);
        assert_eq!((q.pop(now), q.deadline()), (None, Some(now + FLUSH)));
        q.wake(devices, now, |_, _| true);
        assert_eq!(q.pop(now).as_deref(), Some("a"), "at once");
        q.remove("a");
        q.waits("a", devices, now);
        assert_eq!(q.deadline(), None, "gone");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nothing_wakes_is_tried_after_five_minutes() {
        let mut q = Queue::default();
        let now = crate::clock::instant();
        q.add("a", 0, None);
        q.pop(now);
        q.failed("a", Some(Refusers::named("NodePorts")), now);
        assert_eq!(q.deadline(), Some(now + FLUSH));
        assert_eq!(q.pop(now + FLUSH - Duration::from_millis(1)), None);
        assert_eq!(q.pop(now + FLUSH).as_deref(), Some("a"));
        assert_eq!(q.deadline(), None);
    }
}
