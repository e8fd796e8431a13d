//! Loop: Events go an hour after they were last written, as upstream's do (`--event-ttl`). Not by a lease in the store:
//! when an Event was written stands in the Event, so this survives restarts without a word on disk.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Failed, Registry};
use crate::api::encode::{self, Draft};
use crate::api::object::{Object, ObjectRef};
use crate::api::resource;
use crate::clock;
use crate::server::store::Intent;

const EVENTS: &str = "events";
/// How long an Event is kept after it was last written.
const KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);
/// Events that are due within this time go together: one wake-up and one write for many.
const ROUND: Duration = Duration::from_secs(60);

impl Registry {
    /// Runs until it is stopped. Sleeps while there are no Events.
    pub async fn expire_events(self, stop: CancellationToken) {
        let Some(entry) = resource::find("", "v1", EVENTS).and_then(|row| self.catalog().entry(row)) else { return };
        let mut changed = self.0.cache.subscribe(EVENTS);
        loop {
            changed.borrow_and_update();
            let (events, _) = self.0.cache.list(EVENTS, None);
            let plan = plan(&events, clock::now());
            for event in plan.expired {
                let text = encode::without_revision(&event.json).into();
                let last = Draft { key: event.key.clone(), head: event.head.clone(), text };
                match self.commit(&entry, Intent::Delete(last, event.revision)).await {
                    // Written again, or deleted by someone else.
                    Ok(_) | Err(Failed::Conflict) => {}
                    Err(Failed::Refused(error)) => {
                        warn!(key = %event.key, %error, "cannot remove an old event");
                        break;
                    }
                }
            }
            let wait = async {
                match plan.next {
                    Some(next) => tokio::time::sleep(next.max(ROUND)).await,
                    None => drop(changed.changed().await),
                }
            };
            tokio::select! {
                () = wait => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

#[derive(Debug, Default)]
struct Plan {
    expired: Vec<ObjectRef>,
    /// When the next one is due, from now.
    next: Option<Duration>,
}

fn plan(events: &[ObjectRef], now: jiff::Timestamp) -> Plan {
    let mut plan = Plan::default();
    for event in events {
        // An Event that says no time at all is one that nobody can date: it stays for an hour at a time.
        let left = written(event).map_or(KEPT, |at| KEPT - now.duration_since(at));
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => plan.next = Some(plan.next.map_or(left, |next| next.min(left))),
            _ => plan.expired.push(Arc::clone(event)),
        }
    }
    plan
}

/// The latest time that an Event names.
fn written(event: &Object) -> Option<jiff::Timestamp> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Times {
        metadata: Metadata,
        event_time: Option<String>,
        last_timestamp: Option<String>,
        series: Option<Series>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Metadata {
        creation_timestamp: Option<String>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Series {
        last_observed_time: Option<String>,
    }
    let times: Times = event.typed().ok()?;
    let series = times.series.and_then(|s| s.last_observed_time);
    [times.metadata.creation_timestamp, times.event_time, times.last_timestamp, series]
        .into_iter()
        .flatten()
        .filter_map(|text| text.parse().ok())
        .max()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::key::Key;
    use crate::api::revision::Revision;

    fn event(name: &str, mut value: serde_json::Value) -> ObjectRef {
        value["metadata"]["name"] = name.into();
        Arc::new(Draft::new(Key::new(EVENTS, "default", name), &value, &[]).at(Revision(1)))
    }

    #[test]
    fn the_latest_time_counts() {
        let events = [
            event("old", json!({"metadata": {"creationTimestamp": "2026-01-01T10:00:00Z"}, "lastTimestamp": null})),
            event("edge", json!({"metadata": {"creationTimestamp": "2026-01-01T11:00:00Z"}})),
            event(
                "seen",
                json!({"metadata": {"creationTimestamp": "2026-01-01T10:00:00Z"}, "lastTimestamp": "2026-01-01T11:30:00Z"}),
            ),
            event(
                "series",
                json!({"metadata": {"creationTimestamp": "2026-01-01T10:00:00Z"}, "eventTime": "2026-01-01T10:00:00.5Z",
                    "series": {"count": 2, "lastObservedTime": "2026-01-01T11:20:00.25Z"}}),
            ),
            event("undated", json!({})),
        ];
        let plan = plan(&events, "2026-01-01T12:00:00Z".parse().unwrap());
        let names: Vec<_> = plan.expired.iter().map(|e| &*e.key.name).collect();
        assert_eq!(names, ["old", "edge"]);
        assert_eq!(plan.next, Some(Duration::from_millis(20 * 60 * 1000 + 250)));
    }
}
