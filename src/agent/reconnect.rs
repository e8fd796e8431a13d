//! Decides: how soon a broken watch is tried again. Quicker than client-go, which waits up to half a minute: a server
//! of this size is back within a second, and the pods of its own node should be too.

use std::time::Duration;

use kube::runtime::utils::Backoff;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// 100 ms, doubling up to 5 s; an item that arrives starts it over.
pub struct Reconnect(Duration);

impl Default for Reconnect {
    fn default() -> Reconnect {
        Reconnect(FIRST)
    }
}

impl Iterator for Reconnect {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = self.0;
        self.0 = (delay * 2).min(LONGEST);
        Some(delay)
    }
}

impl Backoff for Reconnect {
    fn reset(&mut self) {
        self.0 = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_start_over() {
        let mut reconnect = Reconnect::default();
        let millis: Vec<u128> = reconnect.by_ref().take(8).map(|delay| delay.as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        reconnect.reset();
        assert_eq!(reconnect.next(), Some(FIRST));
    }
}
