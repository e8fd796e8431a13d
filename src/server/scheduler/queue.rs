//! Decides: which pod is scheduled next, and when one that did not fit is tried again.
//!
//! ```text
//!  add ─▶ active ─▶ (attempt) ─▶ bound
//!           ▲           │ fits nowhere
//!           │           ▼
//!           ├─ event that can help, back-off over ── unschedulable
//!           │                                            │ event that can help, back-off not over
//!           └────────── back-off over ── back-off ◀──────┘
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::filter::{NODE_PORTS, NODE_RESOURCES_FIT};

/// Delay after the first failed attempt, doubled with each further one. Upstream starts at a second; here an event
/// wakes the pod, so a short first delay only matters while the cluster starts.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LAST_BACKOFF: Duration = Duration::from_secs(10);

/// What happened that could make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helps {
    /// A pod left its node.
    RoomFreed,
    /// A node came or changed.
    Node,
}

/// Higher priority first, then the older.
type Rank = (Reverse<i32>, Option<Timestamp>, u64);

#[derive(Default)]
pub struct Queue {
    active: BTreeMap<Rank, String>,
    backoff: BTreeSet<(Instant, String)>,
    /// Which plugins refused the pod.
    unschedulable: HashMap<String, Vec<&'static str>>,
    entries: HashMap<String, Entry>,
    serial: u64,
}

struct Entry {
    rank: Rank,
    attempts: u32,
    /// Not before this.
    not_before: Option<Instant>,
}

impl Queue {
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
        self.unschedulable.remove(uid);
        if let Some(entry) = self.entries.get(uid) {
            self.active.remove(&entry.rank);
            if let Some(at) = entry.not_before {
                self.backoff.remove(&(at, uid.to_owned()));
            }
        }
    }

    /// The next pod to try.
    pub fn pop(&mut self, now: Instant) -> Option<String> {
        while let Some((at, uid)) = self.backoff.first().cloned() {
            if at > now {
                break;
            }
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
        self.backoff.first().map(|(at, _)| *at)
    }

    /// The attempt failed. Refused by plugins: waits for an event that can help. By none (an error): is tried again
    /// after its back-off.
    pub fn failed(&mut self, uid: &str, plugins: Vec<&'static str>, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.attempts += 1;
        let factor = 1_u32.checked_shl(entry.attempts - 1).unwrap_or(u32::MAX);
        let at = now + FIRST_BACKOFF.saturating_mul(factor).min(LAST_BACKOFF);
        entry.not_before = Some(at);
        if plugins.is_empty() {
            self.backoff.insert((at, uid.to_owned()));
        } else {
            self.unschedulable.insert(uid.to_owned(), plugins);
        }
    }

    /// Brings back the pods that `event` can help.
    pub fn wake(&mut self, event: Helps, now: Instant) {
        let helped = |plugins: &Vec<&str>| match event {
            Helps::Node => true,
            Helps::RoomFreed => plugins.iter().any(|p| *p == NODE_PORTS || *p == NODE_RESOURCES_FIT),
        };
        let woken: Vec<String> =
            self.unschedulable.iter().filter(|(_, plugins)| helped(plugins)).map(|(uid, _)| uid.clone()).collect();
        for uid in woken {
            self.unschedulable.remove(&uid);
            let Some(entry) = self.entries.get(&uid) else { continue };
            match entry.not_before {
                Some(at) if at > now => {
                    self.backoff.insert((at, uid));
                }
                _ => {
                    self.active.insert(entry.rank, uid);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::NODE_AFFINITY;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn order_backoff_and_events_that_help() {
        let mut q = Queue::default();
        let t = |s| Timestamp::from_second(s).ok();
        let now = crate::clock::instant();
        q.add("young", 0, t(2));
        q.add("old", 0, t(1));
        q.add("important", 5, t(3));
        for want in ["important", "old", "young"] {
            assert_eq!(q.pop(now).as_deref(), Some(want));
        }
        q.failed("old", vec![NODE_RESOURCES_FIT], now);
        q.failed("young", vec![NODE_AFFINITY], now);
        q.failed("important", vec![], now);
        assert_eq!(q.deadline(), Some(now + FIRST_BACKOFF), "an error is tried again by itself");

        let later = now + Duration::from_secs(1);
        assert_eq!(q.pop(later).as_deref(), Some("important"));
        q.wake(Helps::RoomFreed, later);
        assert_eq!(q.pop(later).as_deref(), Some("old"));
        assert_eq!(q.pop(later), None, "room does not help against node affinity");
        q.wake(Helps::Node, later);
        assert_eq!(q.pop(later).as_deref(), Some("young"));

        q.failed("young", vec![NODE_AFFINITY], later);
        q.wake(Helps::Node, later);
        assert_eq!(q.pop(later), None, "still backing off");
        assert_eq!(q.deadline(), Some(later + 2 * FIRST_BACKOFF));
        q.remove("young");
        assert_eq!((q.pop(later + LAST_BACKOFF), q.deadline()), (None, None));
    }
}
