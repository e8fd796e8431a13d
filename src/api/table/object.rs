//! Decides: the rows of kinds that need little: configuration, identities, events, leases.

use jiff::Timestamp;
use serde_json::Value;

use super::access::{age, at, count, list, name, number, or, since, text, time};

/// Kinds without a printer of their own.
pub fn plain(object: &Value) -> Vec<Value> {
    vec![name(object), or(text(object, "metadata.creationTimestamp"), "<unknown>").into()]
}

pub fn namespace(namespace: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(namespace), text(namespace, "status.phase").into(), age(namespace, now)]
}

pub fn config_map(map: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(map), (count(map, "data") + count(map, "binaryData")).into(), age(map, now)]
}

pub fn secret(secret: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(secret), text(secret, "type").into(), count(secret, "data").into(), age(secret, now)]
}

pub fn service_account(account: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(account), count(account, "secrets").into(), age(account, now)]
}

pub fn lease(lease: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(lease), text(lease, "spec.holderIdentity").into(), age(lease, now)]
}

pub fn priority_class(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(class),
        number(class, "value").into(),
        (class["globalDefault"] == true).into(),
        age(class, now),
        text(class, "preemptionPolicy").into(),
    ]
}

pub fn binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str| {
        let subjects = list(binding, "subjects").iter().filter(|s| text(s, "kind") == kind);
        let names = subjects.map(|s| match (kind, text(s, "namespace")) {
            ("ServiceAccount", namespace) => format!("{namespace}/{}", text(s, "name")),
            _ => text(s, "name").to_owned(),
        });
        Value::from(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        name(binding),
        format!("{}/{}", text(binding, "roleRef.kind"), text(binding, "roleRef.name")).into(),
        age(binding, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

/// An event of either API version: they name the same things differently.
pub fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let either = |core: &'static str, new: &'static str| if at(event, core).is_null() { new } else { core };
    let first = time(event, either("firstTimestamp", "deprecatedFirstTimestamp")).or(time(event, "eventTime"));
    let mut last = time(event, either("lastTimestamp", "deprecatedLastTimestamp")).or(first);
    let mut times = number(event, either("count", "deprecatedCount")).max(1);
    if !event["series"].is_null() {
        last = time(event, "series.lastObservedTime");
        times = number(event, "series.count");
    }
    let object = at(event, either("involvedObject", "regarding"));
    let kind = text(object, "kind").to_lowercase();
    let target = match text(object, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = at(event, either("source", "deprecatedSource"));
    let component = [text(source, "component"), text(event, "reportingComponent"), text(event, "reportingController")];
    let component = component.into_iter().find(|c| !c.is_empty()).unwrap_or_default();
    let source = match or(text(source, "host"), text(event, "reportingInstance")) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    };
    vec![
        since(last, now).into(),
        text(event, "type").into(),
        text(event, "reason").into(),
        target.into(),
        text(object, "fieldPath").into(),
        source.into(),
        text(event, either("message", "note")).trim().into(),
        since(first, now).into(),
        times.into(),
        name(event),
    ]
}
