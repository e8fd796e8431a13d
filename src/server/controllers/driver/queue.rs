//! Decides: which key is worked on next. Each key is queued at most once and worked on at most once at a time; a key
//! that is added meanwhile comes back when its work is done.
//!
//! ```text
//!            add                    next                 done
//!   (absent) ───▶ ready ──────────────────────▶ working ──────▶ (absent)
//!      │            ▲ add, timer                   │ add
//!      └─ after ─▶ timer                           ▼
//!                                               working+dirty ──done──▶ ready
//! ```

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock;
use crate::server::controllers::action::Name;

/// A key of one of the controllers, by its index.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub controller: usize,
    pub name: Name,
}

/// client-go's default rate limit per item: 5 ms, doubled with each failure, up to 1000 s.
const FIRST_DELAY: Duration = Duration::from_millis(5);
const LAST_DELAY: Duration = Duration::from_secs(1000);

#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    /// Those of controllers that yield.
    later: VecDeque<Key>,
    yielding: HashSet<usize>,
    queued: HashSet<Key>,
    working: HashSet<Key>,
    dirty: HashSet<Key>,
    timers: BTreeMap<(Instant, Key), ()>,
    timer_of: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
    /// Keys that wait until a store has seen more, by storage name.
    waiting: HashMap<&'static str, HashSet<Key>>,
}

impl State {
    fn add(&mut self, key: Key) {
        if self.working.contains(&key) {
            self.dirty.insert(key);
        } else if self.queued.insert(key.clone()) {
            if self.yields(&key) { self.later.push_back(key) } else { self.ready.push_back(key) }
        }
    }

    fn yields(&self, key: &Key) -> bool {
        self.yielding.contains(&key.controller)
    }

    /// Keys of controllers that yield go one at a time, when no other is ready.
    fn pop(&mut self) -> Option<Key> {
        if let Some(key) = self.ready.pop_front() {
            return Some(key);
        }
        if self.later.is_empty() || self.working.iter().any(|key| self.yields(key)) {
            return None;
        }
        self.later.pop_front()
    }

    fn unset_timer(&mut self, key: &Key) {
        if let Some(at) = self.timer_of.remove(key) {
            self.timers.remove(&(at, key.clone()));
        }
    }

    fn due(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, key)) = self.timers.first_key_value().map(|(k, ())| k.clone()) {
            if at > now {
                return Some(at);
            }
            self.unset_timer(&key);
            self.add(key);
        }
        None
    }
}

impl Queue {
    /// `yielding`: the indexes of the controllers that yield.
    pub fn new(yielding: HashSet<usize>) -> Self {
        Self { state: Mutex::new(State { yielding, ..State::default() }), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, controller: usize, name: Name) {
        self.state().add(Key { controller, name });
        self.changed.notify_one();
    }

    /// Adds the key when `delay` has passed; replaces what was set before for it.
    pub fn after(&self, key: Key, delay: Duration) {
        let mut state = self.state();
        state.unset_timer(&key);
        let at = clock::instant() + delay;
        state.timer_of.insert(key.clone(), at);
        state.timers.insert((at, key), ());
        drop(state);
        self.changed.notify_one();
    }

    pub fn forget_timer(&self, key: &Key) {
        self.state().unset_timer(key);
    }

    /// Adds the key after a delay that doubles with each failure in a row, or when it is to be looked at anyway.
    pub fn failed(&self, key: Key) {
        let mut state = self.state();
        let n = state.failures.entry(key.clone()).or_insert(0);
        *n += 1;
        let delay = FIRST_DELAY.saturating_mul(1u32.checked_shl(*n - 1).unwrap_or(u32::MAX)).min(LAST_DELAY);
        let sooner = state.timer_of.get(&key).is_some_and(|at| *at <= clock::instant() + delay);
        drop(state);
        if !sooner {
            self.after(key, delay);
        }
    }

    pub fn succeeded(&self, key: &Key) {
        self.state().failures.remove(key);
    }

    /// Adds the key at the next [`Queue::wake`] of `storage`.
    pub fn wait(&self, storage: &'static str, key: Key) {
        self.state().waiting.entry(storage).or_default().insert(key);
    }

    /// The store of `storage` has changed.
    pub fn wake(&self, storage: &'static str) {
        let mut state = self.state();
        let Some(keys) = state.waiting.remove(storage) else { return };
        for key in keys {
            state.add(key);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The next key, now being worked on until [`Queue::done`]. Sleeps until there is one; nothing wakes it but a key
    /// or the deadline of one.
    pub async fn next(&self) -> Key {
        loop {
            let deadline = {
                let mut state = self.state();
                let deadline = state.due(clock::instant());
                if let Some(key) = state.pop() {
                    state.queued.remove(&key);
                    state.working.insert(key.clone());
                    return key;
                }
                deadline
            };
            match deadline {
                Some(at) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    pub fn done(&self, key: &Key) {
        let mut state = self.state();
        state.working.remove(key);
        if state.dirty.remove(key) {
            state.add(key.clone());
        } else if state.later.is_empty() {
            return;
        }
        drop(state);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { controller: 0, name: Name::new("", name) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once_and_comes_back_when_added_during_work() {
        let q = Queue::default();
        q.add(0, key("a").name);
        q.add(0, key("a").name);
        q.add(0, key("b").name);
        assert_eq!((q.next().await, q.next().await), (key("a"), key("b")));
        q.add(0, key("a").name);
        let idle = tokio::time::timeout(Duration::from_secs(1), q.next()).await;
        assert!(idle.is_err(), "worked on twice at a time");
        q.done(&key("a"));
        assert_eq!(q.next().await, key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_yield_go_last_and_one_at_a_time() {
        let q = Queue::new(HashSet::from([1]));
        let later = |name: &str| Key { controller: 1, name: Name::new("", name) };
        q.add(1, later("a").name);
        q.add(1, later("b").name);
        q.add(0, key("c").name);
        assert_eq!((q.next().await, q.next().await), (key("c"), later("a")));
        assert!(tokio::time::timeout(Duration::from_secs(1), q.next()).await.is_err(), "two at a time");
        q.add(0, key("d").name);
        assert_eq!(q.next().await, key("d"), "others need not wait for it");
        let next = tokio::join!(q.next(), async { q.done(&later("a")) }).0;
        assert_eq!(next, later("b"), "whoever sleeps wakes when its turn comes");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_delay_up_to_the_limit() {
        let q = Queue::default();
        for want in [5, 10, 20, 40] {
            q.failed(key("a"));
            let start = clock::instant();
            q.next().await;
            assert_eq!((clock::instant() - start).as_millis(), want);
            q.done(&key("a"));
        }
        for _ in 0..40 {
            q.forget_timer(&key("a"));
            q.failed(key("a"));
        }
        let start = clock::instant();
        q.next().await;
        assert_eq!((clock::instant() - start).as_secs(), 1000);
        q.done(&key("a"));
        q.after(key("a"), Duration::from_secs(60));
        q.failed(key("a"));
        let start = clock::instant();
        q.next().await;
        assert_eq!((clock::instant() - start).as_secs(), 60, "its plan wanted to look again sooner");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_key_wakes_with_its_store_only() {
        let q = Queue::default();
        q.wait("pods", key("a"));
        q.wake("nodes");
        assert!(tokio::time::timeout(Duration::from_secs(1), q.next()).await.is_err());
        q.wake("pods");
        assert_eq!(q.next().await, key("a"));
    }
}
