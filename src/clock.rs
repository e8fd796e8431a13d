//! Effects: the only place that reads the machine's clocks. Decisions take `now` as an argument.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

/// Wall-clock time, UTC.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> jiff::Timestamp {
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
