//! Tests: create, update, patch and the subresources.

use super::*;

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

    fn changes(&self) -> &'static [&'static str] {
        &["configmaps"]
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
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
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
    let nominated = Target { subresource: "status", ..t.clone() };
    bed.patch(&nominated, json!({"status": {"nominatedNodeName": "n0"}})).await.unwrap();
    assert_eq!(bed.get(&t).await.unwrap()["status"]["nominatedNodeName"], "n0");
    let binding = Target { subresource: "binding", ..t.clone() };
    let body = json!({"metadata": {"name": "p", "annotations": {"a": "1"}}, "target": {"kind": "Node", "name": "n1"}});
    bed.registry.create(&bed.cx, &binding, body.clone(), &options()).await.unwrap();
    let pod = bed.get(&t).await.unwrap();
    assert_eq!((&pod["spec"]["nodeName"], &pod["metadata"]["annotations"]["a"]), (&json!("n1"), &json!("1")));
    assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(pod["status"]["conditions"][0]["status"], "True");
    assert!(pod["status"].get("nominatedNodeName").is_none(), "the nomination has served");
    let status = bed.registry.create(&bed.cx, &binding, body, &options()).await.unwrap_err();
    let message = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"";
    assert_eq!((status.code(), status.message()), (409, message));
    let nowhere = json!({"metadata": {"name": "p"}, "target": {}});
    let status = bed.registry.create(&bed.cx, &binding, nowhere, &options()).await.unwrap_err();
    assert_eq!(status.message(), "Binding \"p\" is invalid: target.name: Required value");
}

#[tokio::test]
async fn admission_sees_every_write_in_its_place() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let chain = Chain { plugins: vec![Box::new(Witness(seen.clone()))], ..Chain::default() };
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
            let row = crate::api::resource::find_storage(self.0.0.storage).unwrap();
            object["apiVersion"] = row.api_version().into();
            object["kind"] = row.kind.into();
            Ok(())
        }
        fn prepare_create(&self, _: &Context, _: &mut Value) -> Result<Prepared, Status> {
            Ok(Prepared::default())
        }
        fn prepare_update(&self, _: &Context, _: Part, _: &mut Value, _: &Value) -> Result<Prepared, Status> {
            Ok(Prepared::default())
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
