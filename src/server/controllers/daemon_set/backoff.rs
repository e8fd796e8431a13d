//! Decides: how long a failed pod waits until it is remade, per node (client-go's `flowcontrol.Backoff`).

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(15 * 60);

/// uid of the DaemonSet, the generation it was last seen in, node.
pub type Key = (String, i64, String);

#[derive(Default)]
pub struct Backoff(HashMap<Key, Entry>);

struct Entry {
    since: Timestamp,
    delay: Duration,
}

impl Entry {
    fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.since)).unwrap_or_default()
    }

    /// What has been well for so long starts anew.
    fn is_over(&self, now: Timestamp) -> bool {
        self.age(now) > MOST * 2
    }
}

impl Backoff {
    /// How long to wait yet; `None` when the time has come.
    pub fn left(&self, key: &Key, now: Timestamp) -> Option<Duration> {
        let entry = self.0.get(key).filter(|e| !e.is_over(now))?;
        entry.delay.checked_sub(entry.age(now)).filter(|left| !left.is_zero())
    }

    /// It is remade now: the next time will be later.
    pub fn remade(&mut self, key: Key, now: Timestamp) {
        self.0.retain(|_, entry| !entry.is_over(now));
        let delay = self.0.get(&key).map_or(FIRST, |entry| (entry.delay * 2).min(MOST));
        self.0.insert(key, Entry { since: now, delay });
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn waits_twice_as_long_each_time_and_forgets_at_last() {
        let (mut backoff, key) = (Backoff::default(), ("uid".to_owned(), 1, "n".to_owned()));
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| start + SignedDuration::from_secs(seconds);
        assert_eq!(backoff.left(&key, start), None);
        backoff.remade(key.clone(), start);
        assert_eq!(backoff.left(&key, start), Some(FIRST));
        assert_eq!(backoff.left(&key, after(1)), None);
        backoff.remade(key.clone(), after(1));
        assert_eq!(backoff.left(&key, after(2)), Some(FIRST));
        (0..20).for_each(|_| backoff.remade(key.clone(), after(2)));
        assert_eq!(backoff.left(&key, after(2)), Some(MOST));
        // Another node, and a new template, wait for nothing.
        assert_eq!(backoff.left(&("uid".into(), 1, "m".into()), after(2)), None);
        assert_eq!(backoff.left(&("uid".into(), 2, "n".into()), after(2)), None);
        backoff.remade(key.clone(), after(2000));
        assert_eq!(backoff.left(&key, after(2000)), Some(FIRST), "half an hour later it begins anew");
    }
}
