//! Tests: delete, grace periods, finalizers.

use super::*;
use crate::server::registry::strategy::Removal;

#[tokio::test]
async fn finalizers_hold_what_is_deleted() {
    let bed = Bed::new();
    let t = configmap("a");
    bed.create(&t, json!({"metadata": {"name": "a", "finalizers": ["x/y"]}})).await.unwrap();
    let first = marked(bed.delete(&t, json!({})).await.unwrap());
    assert!(first["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(first["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(first["metadata"]["generation"], 2);
    let before = bed.revision();
    assert_eq!(marked(bed.delete(&t, json!({})).await.unwrap()), first);
    assert_eq!(bed.revision(), before, "deleting twice writes once");
    // Neither can be taken back.
    let mut body = first.clone();
    body["metadata"].as_object_mut().unwrap().remove("deletionTimestamp");
    assert_eq!(bed.update(&t, body).await.unwrap(), first);
    let last = bed.patch(&t, json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert!(last["metadata"].get("finalizers").is_none());
    assert_eq!(last["metadata"]["resourceVersion"], bed.revision().to_string());
    assert_eq!(bed.get(&t).await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn propagation_policies_become_finalizers() {
    let bed = Bed::new();
    for (name, options, expect) in [
        ("a", json!({"propagationPolicy": "Foreground"}), Some("foregroundDeletion")),
        ("b", json!({"propagationPolicy": "Orphan"}), Some("orphan")),
        ("c", json!({"orphanDependents": true}), Some("orphan")),
        ("d", json!({"propagationPolicy": "Background"}), None),
        ("e", json!({"orphanDependents": false}), None),
        ("f", json!({}), None),
    ] {
        let t = configmap(name);
        bed.create(&t, json!({"metadata": {"name": name}})).await.unwrap();
        let deleted = bed.delete(&t, options).await.unwrap();
        match expect {
            Some(finalizer) => assert_eq!(marked(deleted)["metadata"]["finalizers"], json!([finalizer]), "{name}"),
            None => assert!(gone(deleted)["metadata"].get("finalizers").is_none(), "{name}"),
        }
    }
    // A later delete in the background takes the finalizer off again, and with it the object.
    gone(bed.delete(&configmap("a"), json!({"propagationPolicy": "Background"})).await.unwrap());
    for wrong in
        [json!({"propagationPolicy": "Never"}), json!({"propagationPolicy": "Orphan", "orphanDependents": true})]
    {
        assert_eq!(bed.delete(&configmap("b"), wrong).await.unwrap_err().code(), 422);
    }
}

#[tokio::test]
async fn deletes_check_their_preconditions() {
    let bed = Bed::new();
    let t = target("apps", "deployments", "a");
    let made = bed.create(&t, json!({"metadata": {"name": "a"}})).await.unwrap();
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let status = bed.delete(&t, json!({"preconditions": {"uid": "other"}})).await.unwrap_err();
    let message = format!(
        "Operation cannot be fulfilled on Deployment.apps \"a\": the UID in the precondition (other) does not match \
         the UID in record ({uid}). The object might have been deleted and then recreated"
    );
    assert_eq!((status.code(), status.message()), (409, message.as_str()));
    let status = bed.delete(&t, json!({"preconditions": {"resourceVersion": "1"}})).await.unwrap_err();
    assert_eq!(status.reason(), "Conflict");
    let revision = made["metadata"]["resourceVersion"].clone();
    let last = gone(bed.delete(&t, json!({"preconditions": {"uid": uid, "resourceVersion": revision}})).await.unwrap());
    assert_eq!(last["metadata"]["resourceVersion"], bed.revision().to_string());
    assert_eq!(bed.delete(&t, json!({})).await.unwrap_err().message(), "deployments.apps \"a\" not found");
}

/// Pods that are on a node get a grace period, as upstream's do.
struct Graceful(Plain);

impl Strategy for Graceful {
    fn resource(&self) -> &'static Resource {
        self.0.resource()
    }
    fn defaults(&self, object: &mut Value) -> Result<(), Status> {
        self.0.defaults(object)
    }
    fn prepare_create(&self, cx: &Context, object: &mut Value) -> Result<Prepared, Status> {
        self.0.prepare_create(cx, object)
    }
    fn prepare_update(&self, cx: &Context, part: Part, new: &mut Value, old: &Value) -> Result<Prepared, Status> {
        self.0.prepare_update(cx, part, new, old)
    }
    fn removal(&self, object: &mut Value, o: &DeleteOptions) -> Removal {
        if self.resource().kind == "Namespace" {
            object["status"]["phase"] = "Terminating".into();
            return Removal::Finalize;
        }
        Removal::Graceful { seconds: o.grace_period_seconds.unwrap_or(30) }
    }
    fn create_on_update(&self) -> bool {
        true
    }
    fn unconditional_update(&self) -> bool {
        false
    }
}

async fn graceful() -> Bed {
    bed_with(|row| Box::new(Graceful(Plain(row))), Chain::default()).await
}

#[tokio::test]
async fn a_grace_period_can_only_become_shorter() {
    let bed = graceful().await;
    let t = target("", "pods", "p");
    bed.create(&t, json!({"metadata": {"name": "p"}})).await.unwrap();
    let time = |v: &Value| v["metadata"]["deletionTimestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let before = crate::clock::now().as_second();
    let first = marked(bed.delete(&t, json!({})).await.unwrap());
    assert_eq!(
        (&first["metadata"]["deletionGracePeriodSeconds"], &first["metadata"]["generation"]),
        (&json!(30), &json!(2))
    );
    assert!((before + 30..before + 60).contains(&time(&first).as_second()));
    for longer in [json!({}), json!({"gracePeriodSeconds": 30}), json!({"gracePeriodSeconds": 90})] {
        assert_eq!(marked(bed.delete(&t, longer).await.unwrap()), first);
    }
    let shorter = marked(bed.delete(&t, json!({"gracePeriodSeconds": 10})).await.unwrap());
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 10);
    assert_eq!(time(&first).as_second() - time(&shorter).as_second(), 20);
    // Meanwhile whoever runs it writes its status, which does not remove it.
    let status = Target { subresource: "status", ..t.clone() };
    let now = bed.get(&t).await.unwrap()["metadata"]["resourceVersion"].clone();
    bed.patch(&status, json!({"metadata": {"resourceVersion": now}, "status": {"phase": "Failed"}})).await.unwrap();
    let last = gone(bed.delete(&t, json!({"gracePeriodSeconds": 0})).await.unwrap());
    assert_eq!(last["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(bed.get(&t).await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn grace_and_finalizers_together() {
    let bed = graceful().await;
    let t = target("", "pods", "p");
    bed.create(&t, json!({"metadata": {"name": "p", "finalizers": ["a/b"]}})).await.unwrap();
    marked(bed.delete(&t, json!({})).await.unwrap());
    let zero = marked(bed.delete(&t, json!({"gracePeriodSeconds": 0})).await.unwrap());
    assert_eq!(zero["metadata"]["deletionGracePeriodSeconds"], 0);
    bed.patch(&t, json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert_eq!(bed.get(&t).await.unwrap_err().code(), 404);
    // And at once, when nothing holds it.
    bed.create(&t, json!({"metadata": {"name": "p"}})).await.unwrap();
    gone(bed.delete(&t, json!({"gracePeriodSeconds": 0})).await.unwrap());
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let bed = graceful().await;
    let t = target("", "namespaces", "n");
    bed.create(&t, json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}})).await.unwrap();
    let first = marked(bed.delete(&t, json!({})).await.unwrap());
    assert_eq!(first["status"]["phase"], "Terminating");
    assert!(first["metadata"]["deletionTimestamp"].is_string());
    assert!(first["metadata"].get("deletionGracePeriodSeconds").is_none());
    assert_eq!(marked(bed.delete(&t, json!({})).await.unwrap()), first);
    let finalize = Target { subresource: "finalize", ..t.clone() };
    let mut body = first.clone();
    body["spec"] = json!({});
    bed.update(&finalize, body).await.unwrap();
    assert_eq!(bed.get(&t).await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn put_creates_where_the_kind_allows_it() {
    let bed = graceful().await;
    let t = configmap("a");
    let body = json!({"metadata": {"name": "a"}});
    assert!(
        bed.registry.would_create(&t, false)
            && !bed.registry.would_create(&Target { subresource: "status", ..t.clone() }, true)
    );
    // A client that may not create is told that there is nothing.
    assert_eq!(bed.update(&t, body.clone()).await.unwrap_err().code(), 404);
    let may_create = WriteOptions { may_create: true, ..options() };
    let written = bed.registry.update(&bed.cx, &t, body, &may_create).await.unwrap();
    assert!(written.created);
    let status = bed.update(&t, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.unwrap_err();
    let message =
        "ConfigMap \"a\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified for an update";
    assert_eq!((status.code(), status.message()), (422, message));
    let body = json!({"metadata": {"name": "b", "resourceVersion": "3"}});
    let status = bed.registry.update(&bed.cx, &configmap("b"), body, &may_create).await;
    assert_eq!(status.unwrap_err().reason(), "Conflict");
    let status = Target { subresource: "status", ..configmap("b") };
    assert_eq!(bed.update(&status, json!({"metadata": {"name": "b"}})).await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn old_events_go_by_themselves() {
    use futures::StreamExt;
    let bed = Bed::new();
    let t = target("", "events", "");
    let entry = bed.registry.entry(&t).unwrap();
    for (name, time) in [("old", "2020-01-01T00:00:00Z".into()), ("new", meta::now())] {
        let value = json!({"metadata": {"name": name, "namespace": "default", "creationTimestamp": time}});
        let draft = entry.draft(entry.key("default".into(), name), &value).await.unwrap();
        assert!(bed.registry.commit(&entry, Intent::Create(draft)).await.is_ok());
    }
    let o = ListOptions { revision: Some(bed.revision()), ..ListOptions::default() };
    let mut watch = bed.registry.watch(&bed.cx, &t, &o).unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(bed.registry.clone().expire_events(stop.clone()));
    let Some(Ok(Event::Deleted(gone))) = watch.next().await else { panic!("nothing was deleted") };
    assert_eq!(&*gone.key.name, "old");
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
    assert_eq!(bed.names(&t, &ListOptions::default()).await, ["new"]);
}
