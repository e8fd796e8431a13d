use std::sync::Arc;

use serde_json::{Value, json};

use super::request::*;
use super::strategy::{Part, Strategy};
use super::*;
use crate::api::field::{FieldError, Path};
use crate::api::user::User;
use crate::server::store::memory::Memory;

/// A kind that knows nothing: keeps the spec and the status apart, wants a name and a `spec.size` that is no string.
struct Plain(&'static Resource);

impl Strategy for Plain {
    fn resource(&self) -> &'static Resource {
        self.0
    }

    fn defaults(&self, object: &mut Value) -> Result<(), Status> {
        object["apiVersion"] = self.0.api_version().into();
        object["kind"] = self.0.kind.into();
        Ok(())
    }

    fn prepare_create(&self, _: &Context, object: &mut Value) -> Result<(), Status> {
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        object["metadata"]["generation"] = 1.into();
        Ok(())
    }

    fn validate_create(&self, _: &Context, object: &Value) -> Vec<FieldError> {
        let name = meta::text(object, "name");
        let metadata = Path::new("metadata");
        let mut errors = Vec::new();
        if name.is_empty() {
            errors.push(FieldError::required(&metadata.child("name"), "name or generateName is required"));
        }
        errors
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut Value, old: &Value) -> Result<(), Status> {
        let keep = if part == Part::Status { "spec" } else { "status" };
        if part != Part::Binding {
            match old.get(keep) {
                Some(kept) => new[keep] = kept.clone(),
                None => drop(new.as_object_mut().and_then(|n| n.remove(keep))),
            }
        }
        if new.get("spec") != old.get("spec") {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
            new["metadata"]["generation"] = (generation + 1).into();
        }
        Ok(())
    }

    fn validate_update(&self, cx: &Context, _: Part, new: &Value, _: &Value) -> Vec<FieldError> {
        self.validate_create(cx, new)
    }
}

struct Bed {
    registry: Registry,
    cx: Context,
}

fn row(group: &str, plural: &str) -> &'static Resource {
    resource::find(group, "v1", plural).unwrap()
}

impl Bed {
    fn new() -> Self {
        let cache = Cache::new();
        let store = Arc::new(Memory::default());
        store.start(cache.clone()).unwrap();
        let kinds = resource::RESOURCES.iter().filter(|r| !r.storage.is_empty());
        let strategies = kinds.map(|r| Box::new(Plain(r)) as Box<dyn Strategy>).collect();
        let registry = Registry::new(store, cache, strategies, Arc::default());
        Self { registry, cx: Context::new(User::default()) }
    }

    async fn create(&self, t: &Target, body: Value) -> Result<Value, Status> {
        let t = Target { name: String::new(), ..t.clone() };
        let made = self.registry.create(&self.cx, &t, body, &WriteOptions::default()).await?;
        Ok(made.value().unwrap())
    }
}

fn configmap(name: &str) -> Target {
    Target { resource: row("", "configmaps"), namespace: "default".into(), name: name.into(), subresource: "" }
}

#[tokio::test]
async fn what_is_created_is_there_at_once() {
    let bed = Bed::new();
    let t = configmap("a");
    let made = bed.create(&t, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.unwrap();
    let got = bed.registry.get(&bed.cx, &t).await.unwrap();
    assert_eq!(got.value().unwrap(), made);
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(made["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    let list = bed.registry.list(&bed.cx, &configmap(""), &ListOptions::default()).await.unwrap();
    assert_eq!((list.items.len(), list.revision), (1, got.revision));

    let again = bed.create(&t, json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!(again.message(), "configmaps \"a\" already exists");
    assert_eq!((again.code(), again.reason()), (409, "AlreadyExists"));
}

/// Says what it was asked, marks what it mutates, and refuses what is named `refused`.
struct Witness(Arc<std::sync::Mutex<Vec<String>>>);

impl crate::server::admission::Plugin for Witness {
    fn name(&self) -> &'static str {
        "Witness"
    }

    fn mutate(&self, a: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        self.0.lock().unwrap().push(format!("mutate {:?} {}", a.operation, a.name));
        object["metadata"]["labels"]["seen"] = "yes".into();
        Ok(())
    }

    fn validate(&self, a: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let body = if object.is_some() { "body" } else { "no body" };
        self.0.lock().unwrap().push(format!("validate {:?} {} {body}", a.operation, a.name));
        if a.name == "refused" { Err(Status::forbidden(a.resource, a.name, "no")) } else { Ok(()) }
    }
}

async fn bed_with(kind: impl Fn(&'static Resource) -> Box<dyn Strategy>, admission: Chain) -> Bed {
    let cache = Cache::new();
    let store = Arc::new(Memory::default());
    store.start(cache.clone()).unwrap();
    let kinds = resource::RESOURCES.iter().filter(|r| !r.storage.is_empty());
    let registry = Registry::new(store, cache, kinds.map(kind).collect(), Arc::new(admission));
    Bed { registry, cx: Context::new(User::default()) }
}

fn target(group: &str, plural: &str, name: &str) -> Target {
    let resource = row(group, plural);
    let namespace = if resource.namespaced { "default".into() } else { String::new() };
    Target { resource, namespace, name: name.into(), subresource: "" }
}

fn options() -> WriteOptions {
    WriteOptions::default()
}

impl Bed {
    async fn get(&self, t: &Target) -> Result<Value, Status> {
        Ok(self.registry.get(&self.cx, t).await?.value().unwrap())
    }

    async fn update(&self, t: &Target, body: Value) -> Result<Value, Status> {
        Ok(self.registry.update(&self.cx, t, body, &options()).await?.object.value().unwrap())
    }

    async fn patch(&self, t: &Target, patch: Value) -> Result<Value, Status> {
        let done = self.registry.patch(&self.cx, t, Patch::Merge(patch), &options()).await?;
        Ok(done.object.value().unwrap())
    }

    async fn delete(&self, t: &Target, o: Value) -> Result<Deleted, Status> {
        self.registry.delete(&self.cx, t, serde_json::from_value(o).unwrap()).await
    }

    fn revision(&self) -> Revision {
        self.registry.cache().revision()
    }

    async fn names(&self, t: &Target, o: &ListOptions) -> Vec<String> {
        let list = self.registry.list(&self.cx, t, o).await.unwrap();
        list.items.iter().map(|o| o.key.name.to_string()).collect()
    }
}

#[track_caller]
fn gone(deleted: Deleted) -> Value {
    let Deleted::Gone(object) = deleted else { panic!("it is still there: {deleted:?}") };
    object.value().unwrap()
}

#[track_caller]
fn marked(deleted: Deleted) -> Value {
    let Deleted::Marked(object) = deleted else { panic!("it is gone: {deleted:?}") };
    object.value().unwrap()
}

#[tokio::test]
async fn what_a_client_cannot_set_is_the_servers() {
    let bed = Bed::new();
    let t = configmap("a");
    let body = json!({"metadata": {"name": "a", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z",
        "deletionTimestamp": "2001-01-01T00:00:00Z", "deletionGracePeriodSeconds": 5, "selfLink": "/x",
        "managedFields": [], "generation": 9}});
    let made = bed.create(&t, body).await.unwrap();
    let metadata = &made["metadata"];
    assert_ne!(metadata["uid"], "mine");
    assert_ne!(metadata["creationTimestamp"], "2001-01-01T00:00:00Z");
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"] {
        assert!(metadata.get(field).is_none(), "{field}");
    }
    let mut body = made.clone();
    body["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z".into();
    body["metadata"]["generation"] = 77.into();
    body["metadata"].as_object_mut().unwrap().remove("uid");
    body["data"] = json!({"k": "v"});
    let written = bed.update(&t, body).await.unwrap();
    for field in ["uid", "creationTimestamp", "generation"] {
        assert_eq!(written["metadata"][field], metadata[field], "{field}");
    }
}

#[tokio::test]
async fn creates_are_refused_in_upstreams_words() {
    let bed = Bed::new();
    let t = configmap("");
    let check = async |body: Value, code: u16, message: &str| {
        let status = bed.create(&t, body).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
    };
    check(
        json!({"metadata": {"name": "a", "namespace": "other"}}),
        400,
        "the namespace of the provided object does not match the namespace sent on the request",
    )
    .await;
    check(
        json!({"metadata": {"name": "a", "resourceVersion": "5"}}),
        500,
        "resourceVersion should not be set on objects to be created",
    )
    .await;
    check(
        json!({"metadata": {}}),
        422,
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
    )
    .await;
    assert_eq!(bed.names(&t, &ListOptions::default()).await, [""; 0]);
}

#[tokio::test]
async fn generated_names_are_the_base_and_five_letters() {
    let bed = Bed::new();
    for _ in 0..20 {
        let made = bed.create(&configmap(""), json!({"metadata": {"generateName": "web-"}})).await.unwrap();
        let name = made["metadata"]["name"].as_str().unwrap();
        assert!(name.len() == 9 && name.starts_with("web-"), "{name}");
    }
    assert_eq!(bed.names(&configmap(""), &ListOptions::default()).await.len(), 20);
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_not_written() {
    let bed = Bed::new();
    let t = configmap("a");
    let made = bed.create(&t, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.unwrap();
    let before = bed.revision();
    assert_eq!(bed.update(&t, made.clone()).await.unwrap(), made);
    assert_eq!(bed.patch(&t, json!({"data": {"k": "v"}})).await.unwrap(), made);
    assert_eq!(bed.update(&t, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.unwrap(), made);
    assert_eq!(bed.revision(), before);
}

#[tokio::test]
async fn updates_that_do_not_fit_are_refused() {
    let bed = Bed::new();
    let t = configmap("a");
    let made = bed.create(&t, json!({"metadata": {"name": "a"}})).await.unwrap();
    let now = bed.patch(&t, json!({"data": {"k": "1"}})).await.unwrap();
    let check = async |t: &Target, body: Value, code: u16, message: &str| {
        let status = bed.update(t, body).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
    };
    let mut old = made.clone();
    old["data"] = json!({"k": "2"});
    let modified = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply \
                    your changes to the latest version and try again";
    check(&t, old, 409, modified).await;
    let mut other = now.clone();
    other["metadata"]["uid"] = "other".into();
    let uid = now["metadata"]["uid"].as_str().unwrap();
    let precondition = format!(
        "Operation cannot be fulfilled on configmaps \"a\": StorageError: invalid object, Code: 4, Key: \
         /registry/configmaps/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in \
         precondition: other, UID in object meta: {uid}"
    );
    check(&t, other, 409, &precondition).await;
    check(
        &t,
        json!({"metadata": {"name": "b"}}),
        400,
        "the name of the object (b) does not match the name on the URL (a)",
    )
    .await;
    check(
        &t,
        json!({"metadata": {}}),
        400,
        "the name of the object (a based on URL) was undeterminable: name must be provided",
    )
    .await;
    check(&configmap("b"), json!({"metadata": {"name": "b"}}), 404, "configmaps \"b\" not found").await;
    assert_eq!(bed.get(&t).await.unwrap(), now, "nothing of this was written");
}

#[tokio::test]
async fn dry_runs_go_all_the_way_but_write_nothing() {
    let bed = Bed::new();
    let t = configmap("a");
    let dry = WriteOptions { dry_run: true, ..options() };
    let before = bed.revision();
    let anew = Target { name: String::new(), ..t.clone() };
    let body = json!({"metadata": {"name": "a"}});
    let made = bed.registry.create(&bed.cx, &anew, body.clone(), &dry).await.unwrap().value().unwrap();
    assert_eq!(made["metadata"]["namespace"], "default");
    assert!(made["metadata"].get("resourceVersion").is_none());
    assert_eq!(bed.get(&t).await.unwrap_err().code(), 404);
    assert_eq!(bed.revision(), before);

    let made = bed.create(&t, body.clone()).await.unwrap();
    let before = bed.revision();
    assert_eq!(bed.registry.create(&bed.cx, &anew, body, &dry).await.unwrap_err().reason(), "AlreadyExists");
    let patch = Patch::Merge(json!({"data": {"k": "v"}}));
    let patched = bed.registry.patch(&bed.cx, &t, patch, &dry).await.unwrap().object.value().unwrap();
    assert_eq!(patched["data"]["k"], "v");
    assert_eq!(patched["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    gone(bed.delete(&t, json!({"dryRun": ["All"]})).await.unwrap());
    assert_eq!(bed.get(&t).await.unwrap(), made);
    assert_eq!(bed.revision(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_patches_all_take_effect() {
    let bed = Arc::new(Bed::new());
    let t = configmap("a");
    bed.create(&t, json!({"metadata": {"name": "a"}})).await.unwrap();
    let mut running = tokio::task::JoinSet::new();
    for i in 0..24 {
        let (bed, t) = (bed.clone(), t.clone());
        running.spawn(async move {
            for j in 0..10 {
                bed.patch(&t, json!({"data": {format!("k{i}-{j}"): "v"}})).await.unwrap();
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    assert_eq!(bed.get(&t).await.unwrap()["data"].as_object().unwrap().len(), 240);
}

#[tokio::test]
async fn patches_of_three_kinds() {
    let bed = Bed::new();
    let t = target("", "pods", "p");
    let body = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i:1"}]}});
    bed.create(&t, body).await.unwrap();
    let strategic = json!({"spec": {"containers": [{"name": "b", "image": "i:2"}]}});
    let done = bed.registry.patch(&bed.cx, &t, Patch::Strategic(strategic), &options()).await.unwrap();
    let containers = done.object.value().unwrap()["spec"]["containers"].clone();
    assert_eq!(containers.as_array().unwrap().len(), 2, "lists of containers merge by name");
    let json_patch = serde_json::from_value(json!([
        {"op": "test", "path": "/spec/containers/0/name", "value": containers[0]["name"]},
        {"op": "remove", "path": "/spec/containers/0"}
    ]));
    let done = bed.registry.patch(&bed.cx, &t, Patch::Json(json_patch.unwrap()), &options()).await.unwrap();
    assert_eq!(done.object.value().unwrap()["spec"]["containers"].as_array().unwrap().len(), 1);
    let wrong = serde_json::from_value(json!([{"op": "test", "path": "/metadata/name", "value": "q"}])).unwrap();
    let status = bed.registry.patch(&bed.cx, &t, Patch::Json(wrong), &options()).await.unwrap_err();
    assert_eq!((status.code(), status.reason()), (422, "Invalid"));
    let status = bed.patch(&t, json!({"metadata": {"resourceVersion": "1"}, "spec": {}})).await.unwrap_err();
    assert_eq!(status.reason(), "Conflict");
    let status = bed.patch(&t, json!({"metadata": {"name": "q"}})).await.unwrap_err();
    assert_eq!(status.code(), 400);
    let apply = bed.registry.patch(&bed.cx, &t, Patch::Apply(json!({})), &options()).await.unwrap_err();
    assert_eq!(apply.code(), 415);
    let status = bed.patch(&target("", "pods", "none"), json!({})).await.unwrap_err();
    assert_eq!(status.message(), "pods \"none\" not found");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let bed = Bed::new();
    let t = target("apps", "deployments", "d");
    let made =
        bed.create(&t, json!({"metadata": {"name": "d"}, "spec": {"replicas": 1}, "status": {"replicas": 9}})).await;
    assert!(made.unwrap().get("status").is_none());
    let status = Target { subresource: "status", ..t.clone() };
    let after = bed.patch(&status, json!({"spec": {"replicas": 5}, "status": {"replicas": 1}})).await.unwrap();
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(1), &json!(1)));
    assert_eq!(after["metadata"]["generation"], 1);
    let after = bed.patch(&t, json!({"spec": {"replicas": 5}, "status": {"replicas": 7}})).await.unwrap();
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(5), &json!(1)));
    assert_eq!(after["metadata"]["generation"], 2);
}

#[tokio::test]
async fn scale_is_a_view_of_the_replicas() {
    let bed = Bed::new();
    let t = target("apps", "deployments", "d");
    let selector =
        json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]});
    bed.create(&t, json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": selector}})).await.unwrap();
    let scale = Target { subresource: "scale", ..t.clone() };
    let mut seen = bed.get(&scale).await.unwrap();
    assert_eq!((&seen["apiVersion"], &seen["kind"]), (&json!("autoscaling/v1"), &json!("Scale")));
    assert_eq!(seen["status"], json!({"replicas": 0, "selector": "a=1,b=2,c"}));
    assert_eq!(seen["metadata"]["resourceVersion"], bed.get(&t).await.unwrap()["metadata"]["resourceVersion"]);
    seen["spec"]["replicas"] = 4.into();
    assert_eq!(bed.update(&scale, seen.clone()).await.unwrap()["spec"]["replicas"], 4);
    assert_eq!(bed.update(&scale, seen.clone()).await.unwrap_err().reason(), "Conflict", "that was another revision");
    assert_eq!(bed.patch(&scale, json!({"spec": {"replicas": 6}})).await.unwrap()["spec"]["replicas"], 6);
    let after = bed.get(&t).await.unwrap();
    assert_eq!((&after["spec"]["replicas"], &after["metadata"]["generation"]), (&json!(6), &json!(3)));
    let status = bed.patch(&scale, json!({"spec": {"replicas": -1}})).await.unwrap_err();
    let message =
        "Scale.autoscaling \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0";
    assert_eq!((status.code(), status.message()), (422, message));
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let bed = Bed::new();
    let t = target("", "pods", "p");
    bed.create(&t, json!({"metadata": {"name": "p"}, "spec": {}})).await.unwrap();
    let binding = Target { subresource: "binding", ..t.clone() };
    let body = json!({"metadata": {"name": "p", "annotations": {"a": "1"}}, "target": {"kind": "Node", "name": "n1"}});
    bed.registry.create(&bed.cx, &binding, body.clone(), &options()).await.unwrap();
    let pod = bed.get(&t).await.unwrap();
    assert_eq!((&pod["spec"]["nodeName"], &pod["metadata"]["annotations"]["a"]), (&json!("n1"), &json!("1")));
    assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(pod["status"]["conditions"][0]["status"], "True");
    let status = bed.registry.create(&bed.cx, &binding, body, &options()).await.unwrap_err();
    let message = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"";
    assert_eq!((status.code(), status.message()), (409, message));
    let nowhere = json!({"metadata": {"name": "p"}, "target": {}});
    let status = bed.registry.create(&bed.cx, &binding, nowhere, &options()).await.unwrap_err();
    assert_eq!(status.message(), "Binding \"p\" is invalid: target.name: Required value");
}

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
    fn prepare_create(&self, cx: &Context, object: &mut Value) -> Result<(), Status> {
        self.0.prepare_create(cx, object)
    }
    fn validate_create(&self, cx: &Context, object: &Value) -> Vec<FieldError> {
        self.0.validate_create(cx, object)
    }
    fn prepare_update(&self, cx: &Context, part: Part, new: &mut Value, old: &Value) -> Result<(), Status> {
        self.0.prepare_update(cx, part, new, old)
    }
    fn validate_update(&self, cx: &Context, part: Part, new: &Value, old: &Value) -> Vec<FieldError> {
        self.0.validate_update(cx, part, new, old)
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

use super::strategy::Removal;

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
    let written = bed.registry.update(&bed.cx, &t, json!({"metadata": {"name": "a"}}), &options()).await.unwrap();
    assert!(written.created);
    let status = bed.update(&t, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.unwrap_err();
    let message =
        "ConfigMap \"a\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified for an update";
    assert_eq!((status.code(), status.message()), (422, message));
    let status = bed.update(&configmap("b"), json!({"metadata": {"name": "b", "resourceVersion": "3"}})).await;
    assert_eq!(status.unwrap_err().reason(), "Conflict");
    let status = Target { subresource: "status", ..configmap("b") };
    assert_eq!(bed.update(&status, json!({"metadata": {"name": "b"}})).await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn admission_sees_every_write_in_its_place() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let chain = Chain(vec![Box::new(Witness(seen.clone()))]);
    let bed = bed_with(|row| Box::new(Plain(row)), chain).await;
    let t = configmap("a");
    let made = bed.create(&t, json!({"metadata": {"name": "a"}})).await.unwrap();
    assert_eq!(made["metadata"]["labels"]["seen"], "yes");
    bed.patch(&t, json!({"data": {"k": "v"}})).await.unwrap();
    bed.delete(&t, json!({})).await.unwrap();
    let refused = bed.create(&configmap(""), json!({"metadata": {"name": "refused"}})).await.unwrap_err();
    assert_eq!(refused.code(), 403);
    assert_eq!(bed.get(&configmap("refused")).await.unwrap_err().code(), 404);
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "mutate Create a",
            "validate Create a body",
            "mutate Update a",
            "validate Update a body",
            "validate Delete a no body",
            "mutate Create refused",
            "validate Create refused body",
        ]
    );
}

fn page(limit: u64, token: &str) -> ListOptions {
    ListOptions { limit, continue_token: token.into(), ..ListOptions::default() }
}

#[tokio::test]
async fn the_pages_of_a_list_are_one_snapshot() {
    let bed = Bed::new();
    for i in 0..7 {
        bed.create(&configmap(""), json!({"metadata": {"name": format!("c{i}")}})).await.unwrap();
    }
    let t = configmap("");
    let first = bed.registry.list(&bed.cx, &t, &page(3, "")).await.unwrap();
    assert_eq!((first.items.len(), first.remaining), (3, Some(4)));
    // What happens between the pages does not show.
    bed.delete(&configmap("c4"), json!({})).await.unwrap();
    bed.create(&t, json!({"metadata": {"name": "c31"}})).await.unwrap();
    bed.patch(&configmap("c5"), json!({"data": {"new": "1"}})).await.unwrap();
    let second = bed.registry.list(&bed.cx, &t, &page(3, &first.continue_token)).await.unwrap();
    let names: Vec<_> = second.items.iter().map(|o| &*o.key.name).collect();
    assert_eq!((names, second.revision, second.remaining), (vec!["c3", "c4", "c5"], first.revision, Some(1)));
    assert!(second.items[2].value().unwrap().get("data").is_none());
    let third = bed.registry.list(&bed.cx, &t, &page(3, &second.continue_token)).await.unwrap();
    assert_eq!((third.items.len(), third.continue_token.as_str(), third.remaining), (1, "", None));

    // All namespaces, in order.
    let all = Target { namespace: String::new(), ..t.clone() };
    let other = Target { namespace: "a".into(), ..t.clone() };
    bed.create(&other, json!({"metadata": {"name": "z"}})).await.unwrap();
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let list = bed.registry.list(&bed.cx, &all, &page(2, &token)).await.unwrap();
        names.extend(list.items.iter().map(|o| o.key.name.to_string()));
        token = list.continue_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["z", "c0", "c1", "c2", "c3", "c31", "c5", "c6"]);
}

#[tokio::test]
async fn a_page_of_a_forgotten_snapshot_is_expired_but_can_go_on() {
    let bed = Bed::new();
    let t = configmap("");
    for i in 0..4 {
        bed.create(&t, json!({"metadata": {"name": format!("c{i}")}})).await.unwrap();
    }
    let first = bed.registry.list(&bed.cx, &t, &page(2, "")).await.unwrap();
    for i in 0..crate::server::cache::MAX_EVENTS + 1 {
        bed.patch(&configmap("c3"), json!({"data": {"i": i.to_string()}})).await.unwrap();
    }
    let status = bed.registry.list(&bed.cx, &t, &page(2, &first.continue_token)).await.unwrap_err();
    assert_eq!((status.code(), status.reason()), (410, "Expired"));
    assert!(status.message().starts_with("The provided continue parameter is too old"));
    let token = status.to_json()["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(bed.names(&t, &page(2, &token)).await, ["c2", "c3"]);

    let exact = ListOptions {
        revision: Some(first.revision),
        revision_match: Some(RevisionMatch::Exact),
        ..ListOptions::default()
    };
    let status = bed.registry.list(&bed.cx, &t, &exact).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (410, "The resourceVersion for the provided list is too old."));
}

#[tokio::test]
async fn list_options_that_make_no_sense_are_refused() {
    let bed = Bed::new();
    let t = configmap("");
    let now = bed.revision();
    let check = async |o: ListOptions, code: u16, message: &str| {
        let status = bed.registry.list(&bed.cx, &t, &o).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
    };
    let base = ListOptions::default;
    let field =
        |text: &str| ListOptions { fields: crate::api::selector::FieldSelector::parse(text).unwrap(), ..base() };
    check(
        field("spec.x=1"),
        400,
        "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
    )
    .await;
    let future = ListOptions { revision: Some(Revision(now.0 + 9)), ..base() };
    check(future, 504, &format!("Timeout: Too large resource version: {}, current: {now}", now.0 + 9)).await;
    let unset = ListOptions { revision_match: Some(RevisionMatch::Exact), ..base() };
    check(
        unset,
        422,
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden \
         unless resourceVersion is provided",
    )
    .await;
    let both = ListOptions { revision: Some(now), ..page(1, "x") };
    check(both, 400, "specifying resource version is not allowed when using continue").await;
    let status = bed.registry.list(&bed.cx, &t, &page(1, "!")).await.unwrap_err();
    assert!(status.code() == 400 && status.message().starts_with("continue key is not valid"));
    let pods = Target { resource: row("", "pods"), ..t.clone() };
    let status = bed.registry.list(&bed.cx, &pods, &field("spec.x=1")).await.unwrap_err();
    assert_eq!(status.message(), "field label not supported: spec.x");
}

#[tokio::test]
async fn selectors_select() {
    let bed = Bed::new();
    let t = target("", "pods", "");
    for (name, node, tier) in [("a", "n1", "web"), ("b", "n2", "web"), ("c", "n1", "db")] {
        let body = json!({"metadata": {"name": name, "labels": {"tier": tier}}, "spec": {"nodeName": node}});
        bed.create(&t, body).await.unwrap();
    }
    let labels = |text: &str| crate::api::selector::LabelSelector::parse(text).unwrap();
    let fields = |text: &str| crate::api::selector::FieldSelector::parse(text).unwrap();
    let by = |l: &str, f: &str| ListOptions { labels: labels(l), fields: fields(f), ..ListOptions::default() };
    assert_eq!(bed.names(&t, &by("tier=web", "")).await, ["a", "b"]);
    assert_eq!(bed.names(&t, &by("tier=web", "spec.nodeName=n1")).await, ["a"]);
    assert_eq!(bed.names(&t, &by("", "metadata.name=c")).await, ["c"]);
    assert_eq!(bed.names(&t, &by("tier=web", "metadata.name=c")).await, [""; 0]);
    let everywhere = Target { namespace: String::new(), ..t.clone() };
    assert_eq!(bed.names(&everywhere, &by("", "metadata.namespace!=default")).await, [""; 0]);
    let selected = ListOptions { limit: 1, ..by("tier=web", "") };
    let list = bed.registry.list(&bed.cx, &t, &selected).await.unwrap();
    assert_eq!((list.items.len(), list.remaining), (1, None), "upstream counts nothing where a selector is");
    let rest = ListOptions { continue_token: list.continue_token, ..selected };
    assert_eq!(bed.names(&t, &rest).await, ["b"]);

    let deleted = bed.registry.delete_collection(&bed.cx, &t, &by("tier=web", ""), DeleteOptions::default()).await;
    assert_eq!(deleted.unwrap().items.len(), 2);
    assert_eq!(bed.names(&t, &ListOptions::default()).await, ["c"]);
}

#[tokio::test]
async fn a_watch_follows_a_list() {
    use futures::{FutureExt, StreamExt};
    let bed = Bed::new();
    let t = configmap("");
    bed.create(&t, json!({"metadata": {"name": "a"}})).await.unwrap();
    let list = bed.registry.list(&bed.cx, &t, &ListOptions::default()).await.unwrap();
    bed.patch(&configmap("a"), json!({"data": {"k": "v"}})).await.unwrap();
    bed.delete(&configmap("a"), json!({})).await.unwrap();
    let o = ListOptions { revision: Some(list.revision), ..ListOptions::default() };
    let mut watch = bed.registry.watch(&bed.cx, &t, &o).unwrap();
    assert!(matches!(watch.next().await, Some(Ok(Event::Modified(_)))));
    assert!(matches!(watch.next().await, Some(Ok(Event::Deleted(_)))));
    assert!(watch.next().now_or_never().is_none());
    bed.create(&t, json!({"metadata": {"name": "b"}})).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(Event::Added(_)))));

    let one = Target { name: "b".into(), ..t.clone() };
    let mut one = bed.registry.watch(&bed.cx, &one, &ListOptions::default()).unwrap();
    assert!(matches!(one.next().await, Some(Ok(Event::Added(_)))));
    bed.create(&t, json!({"metadata": {"name": "c"}})).await.unwrap();
    assert!(one.next().now_or_never().is_none());

    let streaming = ListOptions {
        send_initial_events: Some(true),
        revision_match: Some(RevisionMatch::NotOlderThan),
        bookmarks: true,
        ..ListOptions::default()
    };
    let mut streaming = bed.registry.watch(&bed.cx, &t, &streaming).unwrap();
    assert!(matches!(streaming.next().await, Some(Ok(Event::Added(_)))));
    assert!(matches!(streaming.next().await, Some(Ok(Event::Added(_)))));
    let end = streaming.next().await.unwrap().unwrap();
    assert_eq!(end, Event::Bookmark { revision: bed.revision(), initial_end: true });
    let wrong = ListOptions { send_initial_events: Some(true), ..ListOptions::default() };
    assert_eq!(bed.registry.watch(&bed.cx, &t, &wrong).unwrap_err().code(), 422);
}

#[tokio::test]
async fn one_resource_in_two_versions() {
    use futures::StreamExt;
    /// Turns the fields' names around, as the two kinds of events do.
    struct Versioned(Plain);
    impl Strategy for Versioned {
        fn resource(&self) -> &'static Resource {
            self.0.resource()
        }
        fn defaults(&self, object: &mut Value) -> Result<(), Status> {
            let row = resource::find_storage(self.0.0.storage).unwrap();
            object["apiVersion"] = row.api_version().into();
            object["kind"] = row.kind.into();
            Ok(())
        }
        fn prepare_create(&self, _: &Context, _: &mut Value) -> Result<(), Status> {
            Ok(())
        }
        fn validate_create(&self, _: &Context, _: &Value) -> Vec<FieldError> {
            Vec::new()
        }
        fn prepare_update(&self, _: &Context, _: Part, _: &mut Value, _: &Value) -> Result<(), Status> {
            Ok(())
        }
        fn validate_update(&self, _: &Context, _: Part, _: &Value, _: &Value) -> Vec<FieldError> {
            Vec::new()
        }
        fn storage_form(&self, mut object: Value) -> Value {
            if self.0.0.group == "events.k8s.io"
                && let Some(note) = object.as_object_mut().and_then(|o| o.remove("note"))
            {
                object["message"] = note;
            }
            object
        }
        fn wire_form(&self, mut object: Value) -> Value {
            if self.0.0.group == "events.k8s.io" {
                object["apiVersion"] = "events.k8s.io/v1".into();
                if let Some(message) = object.as_object_mut().and_then(|o| o.remove("message")) {
                    object["note"] = message;
                }
            }
            object
        }
    }
    let bed = bed_with(|row| Box::new(Versioned(Plain(row))), Chain::default()).await;
    let (core, group) = (target("", "events", "e"), target("events.k8s.io", "events", "e"));
    let made = bed.create(&group, json!({"metadata": {"name": "e"}, "note": "hello"})).await.unwrap();
    assert_eq!((&made["apiVersion"], &made["note"]), (&json!("events.k8s.io/v1"), &json!("hello")));
    let seen = bed.get(&core).await.unwrap();
    assert_eq!((&seen["apiVersion"], &seen["message"]), (&json!("v1"), &json!("hello")));
    assert_eq!(bed.get(&group).await.unwrap(), made);
    let patched = bed.patch(&group, json!({"note": "again"})).await.unwrap();
    assert_eq!(patched["note"], "again");
    assert_eq!(bed.get(&core).await.unwrap()["message"], "again");
    let everything = Target { name: String::new(), ..group.clone() };
    let mut watch = bed.registry.watch(&bed.cx, &everything, &ListOptions::default()).unwrap();
    let Some(Ok(Event::Added(event))) = watch.next().await else { panic!("the event is there") };
    assert_eq!(event.value().unwrap(), patched);
}
