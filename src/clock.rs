//! Effects: the only place that reads the machine's clocks. Decisions take `now` as an argument.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

/// Wall-clock time, UTC.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> jiff::Timestamp {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    jiff::Timestamp::now()
}

/// Wall-clock time as the API writes it (`metav1.Time`): whole seconds, RFC 3339.
#[must_use]
pub fn time() -> Time {
    let now = now();
    Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Wall-clock time with microseconds (`metav1.MicroTime`), as Leases and Events use it.
#[must_use]
pub fn micro_time() -> MicroTime {
    MicroTime(now())
}

/// Monotonic time, for deadlines and durations. Follows tokio's paused clock in tests.
#[must_use]
pub fn instant() -> tokio::time::Instant {
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    tokio::time::Instant::now()
}

/// A wall clock that goes with tokio's paused one, on the thread that has set it.
#[cfg(test)]
pub mod simulated {
    use std::cell::Cell;

    use jiff::{SignedDuration, Timestamp};
    use tokio::time::Instant;

    thread_local! {
        static BEGAN: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
    }

    pub fn set(now: Timestamp) {
        BEGAN.set(Some((now, super::instant())));
    }

    /// Moves the wall clock, as an administrator or a time server does: what is monotonic knows nothing of it.
    pub fn jump(by: SignedDuration) {
        if let Some(now) = now() {
            set(now.checked_add(by).expect("a simulation does not last for ages"));
        }
    }

    pub(super) fn now() -> Option<Timestamp> {
        let (then, began) = BEGAN.get()?;
        let passed = SignedDuration::try_from(super::instant() - began).expect("simulated time is short");
        then.checked_add(passed).ok()
    }
}
