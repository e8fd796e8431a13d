//! Tables: the two forms of an Event.

use serde_json::json;

use super::EventKind;
use crate::api::user::User;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Strategy, Typed};

#[test]
fn forms() {
    let wire = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "note": "hello", "reason": "Started", "action": "Start", "type": "Normal",
        "reportingController": "kubelet", "reportingInstance": "n",
    });
    let strategy = Typed(EventKind::Events);
    let mut stored = strategy.storage_form(wire.clone());
    assert_eq!(stored["apiVersion"], "v1");
    assert_eq!((&stored["message"], &stored["involvedObject"]["name"]), (&json!("hello"), &json!("p")));
    assert_eq!(stored["reportingComponent"], "kubelet");
    assert_eq!(strategy.wire_form(stored.clone()), wire);
    strategy.defaults(&mut stored).unwrap();
    let cx = Context::new(User::default());
    assert_eq!(strategy.prepare_create(&cx, &mut stored).unwrap().errors, []);
    stored["series"] = json!({"count": 1, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
    stored["count"] = json!(2);
    let errors = strategy.prepare_create(&cx, &mut stored).unwrap().errors;
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        ["series.count: Invalid value: \"\": should be at least 2", "count: Invalid value: \"\": needs to be unset",]
    );
}

#[test]
fn namespaces_agree() {
    let strategy = Typed(EventKind::Core);
    let mut event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "other"},
    });
    strategy.defaults(&mut event).unwrap();
    let errors = strategy.prepare_create(&Context::new(User::default()), &mut event).unwrap().errors;
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"]);
}
