//! Decides: how occurrences become Event objects: repeated ones are counted, similar ones combined, floods dropped.
//!
//! Same figures as client-go's correlator (`tools/record/events_cache.go`): a bucket of 25 per object that refills one
//! in five minutes; more than 10 events in 10 minutes that differ only in their message become one.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use serde_json::{Value, json};

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub regarding: ObjectReference,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
    /// `source.component`, or `reportingComponent` of the newer form.
    pub component: &'static str,
    /// Empty: the older form (`count`, `firstTimestamp`). Set: the form of events.k8s.io (`eventTime`, `series`).
    pub action: &'static str,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Create {
        namespace: String,
        body: Value,
    },
    /// A merge patch; `fallback` is created when the event has expired meanwhile.
    Patch {
        namespace: String,
        name: String,
        body: Value,
        fallback: Value,
    },
}

const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
const SIMILAR_MAX: u32 = 10;
const SIMILAR_SECONDS: i64 = 600;
/// Entries of each table; the oldest half goes when it is full.
const TABLE_MAX: usize = 1024;

#[derive(Default)]
pub struct Correlator {
    /// Per source and object.
    buckets: HashMap<String, Bucket>,
    /// Per everything but the message.
    similar: HashMap<String, Similar>,
    /// Per everything, the message included.
    same: HashMap<String, Same>,
    serial: u64,
}

struct Bucket {
    tokens: f64,
    at: i64,
}

struct Similar {
    count: u32,
    at: i64,
}

struct Same {
    name: String,
    count: u32,
    first: Time,
    at: i64,
}

impl Correlator {
    /// `None` when the object has been noisy for too long.
    pub fn correlate(&mut self, note: &Note, now: Timestamp) -> Option<Write> {
        let second = now.as_second();
        let of = &note.regarding;
        let object = format!(
            "{}\0{}\0{}\0{}\0{}",
            note.component,
            of.kind.as_deref().unwrap_or_default(),
            of.namespace.as_deref().unwrap_or_default(),
            of.name.as_deref().unwrap_or_default(),
            of.uid.as_deref().unwrap_or_default()
        );
        if !self.admit(&object, second) {
            return None;
        }
        let kind =
            format!("{object}\0{}\0{}\0{}", note.warning, note.reason, of.field_path.as_deref().unwrap_or_default());
        let combined = self.combined(&kind, second);
        let (message, same) = if combined {
            (format!("(combined from similar events): {}", note.message), kind)
        } else {
            (note.message.clone(), format!("{kind}\0{}", note.message))
        };
        Some(self.count(note, message, same, now))
    }

    fn admit(&mut self, object: &str, second: i64) -> bool {
        shrink(&mut self.buckets, |b| b.at);
        let bucket = self.buckets.entry(object.to_owned()).or_insert(Bucket { tokens: BURST, at: second });
        #[allow(clippy::cast_precision_loss, reason = "seconds between two events")]
        let elapsed = (second - bucket.at).max(0) as f64;
        bucket.tokens = (bucket.tokens + elapsed * REFILL_PER_SECOND).min(BURST);
        bucket.at = second;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Whether so many events that differ only in their message came lately that they are told as one.
    fn combined(&mut self, kind: &str, second: i64) -> bool {
        shrink(&mut self.similar, |s| s.at);
        let similar = self.similar.entry(kind.to_owned()).or_insert(Similar { count: 0, at: second });
        if second - similar.at > SIMILAR_SECONDS {
            similar.count = 0;
        }
        similar.count += 1;
        similar.at = second;
        similar.count > SIMILAR_MAX
    }

    fn count(&mut self, note: &Note, message: String, key: String, now: Timestamp) -> Write {
        let namespace = note.regarding.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
        let time = whole_second(now);
        shrink(&mut self.same, |s| s.at);
        self.serial += 1;
        // Nanoseconds since the epoch, as upstream names events; the serial keeps two of one instant apart.
        let stamp = u64::try_from(now.as_nanosecond()).unwrap_or_default().wrapping_add(self.serial % 1000);
        let name = format!("{}.{stamp:x}", note.regarding.name.as_deref().unwrap_or_default());
        let known = self.same.get_mut(&key);
        let fresh = |count: u32, first: &Time| body(note, &namespace, &name, &message, count, first, now);
        if let Some(same) = known {
            same.count += 1;
            same.at = now.as_second();
            let patch = if note.action.is_empty() {
                json!({ "count": same.count, "lastTimestamp": time, "message": message })
            } else {
                json!({ "series": { "count": same.count, "lastObservedTime": MicroTime(now) } })
            };
            let fallback = fresh(same.count, &same.first);
            let old = same.name.clone();
            return Write::Patch { namespace, name: old, body: patch, fallback };
        }
        let create = fresh(1, &time);
        self.same.insert(key, Same { name, count: 1, first: time, at: now.as_second() });
        Write::Create { namespace, body: create }
    }

    /// The event named `old` had expired and `new` was made in its place.
    pub fn renamed(&mut self, old: &str, new: &str) {
        for same in self.same.values_mut().filter(|s| s.name == old) {
            same.name = new.to_owned();
        }
    }
}

fn whole_second(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

fn body(note: &Note, namespace: &str, name: &str, message: &str, count: u32, first: &Time, now: Timestamp) -> Value {
    let mut event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": namespace },
        "involvedObject": note.regarding,
        "reason": note.reason,
        "message": message,
        "type": if note.warning { "Warning" } else { "Normal" },
    });
    let more = if note.action.is_empty() {
        json!({
            "source": { "component": note.component },
            "reportingComponent": note.component,
            "firstTimestamp": first,
            "lastTimestamp": whole_second(now),
            "count": count,
        })
    } else {
        json!({
            "eventTime": MicroTime(now),
            "action": note.action,
            "reportingComponent": note.component,
            "reportingInstance": format!("{}-skiff", note.component),
        })
    };
    if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
        event.extend(more);
    }
    event
}

/// Halves a full table by age.
fn shrink<V>(table: &mut HashMap<String, V>, at: impl Fn(&V) -> i64) {
    if table.len() < TABLE_MAX {
        return;
    }
    let mut ages: Vec<i64> = table.values().map(&at).collect();
    ages.sort_unstable();
    let middle = ages[ages.len() / 2];
    table.retain(|_, v| at(v) > middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> Note {
        Note {
            regarding: ObjectReference {
                kind: Some("Pod".into()),
                namespace: Some("ns".into()),
                name: Some("p".into()),
                uid: Some("u".into()),
                ..ObjectReference::default()
            },
            warning: false,
            reason: "Reason",
            message: message.into(),
            component: "test",
            action: "",
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn repeated_events_are_counted() {
        let mut c = Correlator::default();
        let Some(Write::Create { namespace, body }) = c.correlate(&note("m"), at(0)) else { panic!("no create") };
        assert_eq!((namespace.as_str(), &body["count"]), ("ns", &json!(1)));
        let Some(Write::Patch { name, body: patch, .. }) = c.correlate(&note("m"), at(7)) else { panic!("no patch") };
        assert_eq!(Value::from(name), body["metadata"]["name"]);
        assert_eq!(patch, json!({ "count": 2, "lastTimestamp": "1970-01-12T13:46:47Z", "message": "m" }));
    }

    #[test]
    fn similar_events_are_combined_after_ten() {
        let mut c = Correlator::default();
        for i in 0..10 {
            let write = c.correlate(&note(&format!("m{i}")), at(i));
            assert!(matches!(write, Some(Write::Create { .. })), "{i}");
        }
        let Some(Write::Create { body, .. }) = c.correlate(&note("m10"), at(10)) else { panic!("no create") };
        assert_eq!(body["message"], "(combined from similar events): m10");
        let Some(Write::Patch { body, .. }) = c.correlate(&note("m11"), at(11)) else { panic!("no patch") };
        assert_eq!(body["message"], "(combined from similar events): m11");
    }

    #[test]
    fn a_flood_is_dropped_and_recovers_slowly() {
        let mut c = Correlator::default();
        let sent = (0..100).filter(|_| c.correlate(&note("m"), at(0)).is_some()).count();
        assert_eq!(sent, 25);
        assert!(c.correlate(&note("m"), at(299)).is_none());
        assert!(c.correlate(&note("m"), at(600)).is_some());
    }

    #[test]
    fn the_tables_are_bounded() {
        let mut c = Correlator::default();
        for i in 0..5000 {
            let mut n = note("m");
            n.regarding.name = Some(format!("p{i}"));
            c.correlate(&n, at(i));
        }
        assert!(c.same.len() <= TABLE_MAX && c.buckets.len() <= TABLE_MAX && c.similar.len() <= TABLE_MAX);
    }
}
