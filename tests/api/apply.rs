//! Server-side apply, over HTTP.

use serde_json::{Value, json};

use crate::patches::deployment;
use crate::{Answer, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const APPLY: &str = "application/apply-patch+yaml";

impl Server {
    async fn apply(&self, path: &str, manager: &str, document: &Value) -> Answer {
        self.patch(&format!("{path}?fieldManager={manager}"), APPLY, document).await
    }
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

/// The fields of a manager, and its entry without them.
fn entry(object: &Value, manager: &str) -> (Value, Value) {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let found = entries.iter().find(|e| e["manager"] == manager).unwrap_or_else(|| panic!("{manager}: {object}"));
    let mut rest = found.clone();
    let fields = rest.as_object_mut().unwrap().remove("fieldsV1").unwrap();
    assert!(rest.as_object_mut().unwrap().remove("time").is_some_and(|t| t.is_string()), "{found}");
    (fields, rest)
}

#[tokio::test]
async fn an_object_is_created_changed_and_taken_over() {
    let server = Server::new().await;
    let path = format!("{MAPS}/m");
    let created = server.apply(&path, "a", &map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let (fields, rest) = entry(&created.json(), "a");
    assert_eq!(fields, json!({"f:data": {"f:x": {}, "f:y": {}}}));
    assert_eq!(rest, json!({"manager": "a", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1"}));

    let again = server.apply(&path, "a", &map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!((again.code, again.json()), (200, created.json()), "nothing changed, nothing is written");

    let refused = server.apply(&path, "b", &map(json!({"x": "2"}))).await;
    assert_eq!((refused.code, refused.json()["reason"].as_str()), (409, Some("Conflict")));
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"a\": .data.x");
    assert_eq!(
        refused.json()["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".data.x"}])
    );
    let forced =
        server.patch(&format!("{path}?fieldManager=b&force=true"), APPLY, &map(json!({"x": "2"}))).await.json();
    assert_eq!(forced["data"], json!({"x": "2", "y": "1"}));
    assert_eq!(entry(&forced, "a").0, json!({"f:data": {"f:y": {}}}));
    let dropped = server.apply(&path, "a", &map(json!({}))).await.json();
    assert_eq!(dropped["data"], json!({"x": "2"}));
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_shows_everything() {
    let server = Server::new().await;
    let path = format!("{MAPS}/m");
    let would = server.patch(&format!("{path}?fieldManager=a&dryRun=All"), APPLY, &map(json!({"x": "1"}))).await;
    assert_eq!(would.code, 201);
    assert!(would.json()["metadata"]["managedFields"].is_array());
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn other_writers_are_tracked_by_name_and_subresource() {
    let server = Server::new().await;
    let created = server.apply(WEB, "a", &deployment()).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let status = json!({"status": {"replicas": 1, "observedGeneration": 1}});
    let merge = "application/merge-patch+json";
    let patched = server.patch(&format!("{WEB}/status?fieldManager=controller"), merge, &status).await.json();
    let (fields, rest) = entry(&patched, "controller");
    assert_eq!(fields, json!({"f:status": {"f:observedGeneration": {}, "f:replicas": {}}}));
    assert_eq!((rest["subresource"].as_str(), rest["operation"].as_str()), (Some("status"), Some("Update")));
    // The main resource resets the status: its writers never own it.
    let mut document = deployment();
    document["status"] = json!({"replicas": 7});
    let applied = server.apply(WEB, "a", &document).await.json();
    assert_eq!(applied["status"]["replicas"], 1);
    assert!(entry(&applied, "a").0.get("f:status").is_none());

    // Scaling takes the replicas over; who applies them is told.
    let scale = json!({"spec": {"replicas": 5}});
    assert_eq!(server.patch(&format!("{WEB}/scale?fieldManager=scaler"), merge, &scale).await.code, 200);
    let scaled = server.get(WEB).await.json();
    assert_eq!(entry(&scaled, "scaler").0, json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(entry(&scaled, "scaler").1["subresource"], "scale");
    let refused = server.apply(WEB, "a", &deployment()).await;
    assert_eq!(
        refused.message(),
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let mut without = deployment();
    without["spec"].as_object_mut().unwrap().remove("replicas");
    assert_eq!(server.apply(WEB, "a", &without).await.json()["spec"]["replicas"], 5);
}

#[tokio::test]
async fn a_scale_can_be_applied() {
    let server = Server::new().await;
    let mut document = deployment();
    document["spec"].as_object_mut().unwrap().remove("replicas");
    assert_eq!(server.apply(WEB, "a", &document).await.code, 201);
    let scale = |replicas: u32| {
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": replicas}})
    };
    let path = format!("{WEB}/scale");
    let applied = server.apply(&path, "scaler", &scale(3)).await;
    assert_eq!((applied.code, applied.json()["spec"]["replicas"].as_i64()), (200, Some(3)), "{}", applied.text);
    let refused = server.apply(&path, "other", &scale(4)).await;
    assert_eq!(
        refused.message(),
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\": .spec.replicas"
    );
    let (fields, rest) = entry(&server.get(WEB).await.json(), "scaler");
    assert_eq!((fields, rest["operation"].as_str()), (json!({"f:spec": {"f:replicas": {}}}), Some("Apply")));
}

#[tokio::test]
async fn client_side_apply_is_continued_by_the_same_tool() {
    let server = Server::new().await;
    let last = map(json!({"x": "1", "y": "1"}));
    let mut first = last.clone();
    first["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
    assert_eq!(server.post(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), &first).await.code, 201);
    let path = format!("{MAPS}/m");
    assert_eq!(server.apply(&path, "other", &map(json!({"x": "2"}))).await.code, 409);
    let applied = server.apply(&path, "kubectl", &map(json!({"x": "2", "y": "1"}))).await;
    assert_eq!(applied.code, 200, "{}", applied.text);
    let annotation =
        applied.json()["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].clone();
    assert_eq!(serde_json::from_str::<Value>(annotation.as_str().unwrap()).unwrap(), map(json!({"x": "2", "y": "1"})));
}

/// What kubectl does before its first server-side apply: the entry of the client-side one becomes one of an apply.
#[tokio::test]
async fn a_client_may_set_managed_fields_and_reset_them() {
    let server = Server::new().await;
    let posted = server.post(&format!("{MAPS}?fieldManager=old"), &map(json!({"x": "1"}))).await.json();
    let path = format!("{MAPS}/m");
    let mut entries = posted["metadata"]["managedFields"].clone();
    entries[0]["manager"] = "new".into();
    entries[0]["operation"] = "Apply".into();
    let patch = json!([{"op": "replace", "path": "/metadata/managedFields", "value": entries}]);
    let patched = server.patch(&path, "application/json-patch+json", &patch).await.json();
    assert_eq!(entry(&patched, "new").0, json!({"f:data": {".": {}, "f:x": {}}}));
    // Who knows nothing of them, or sends nonsense, does not lose them.
    let mut plain = map(json!({"x": "1"}));
    for fields in [
        Value::Null,
        json!([{"manager": "broken", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"x": 1}}]),
    ] {
        plain["metadata"]["managedFields"] = fields;
        let put = server.put(&path, &plain).await.json();
        assert_eq!(put["metadata"]["managedFields"], patched["metadata"]["managedFields"]);
    }
    let reset = json!({"metadata": {"managedFields": [{}]}});
    let reset = server.patch(&path, "application/merge-patch+json", &reset).await.json();
    assert_eq!(reset["metadata"]["managedFields"], Value::Null);
}

#[tokio::test]
async fn documents_are_refused() {
    let server = Server::new().await;
    let path = format!("{MAPS}/m");
    let mut wrong = Vec::new();
    let with = |change: Value| {
        let mut document = map(json!({"x": "1"}));
        for (key, value) in change.as_object().unwrap() {
            document[key] = value.clone();
        }
        document
    };
    for (document, code, message) in [
        (json!([]), 400, "error decoding YAML: the document is no object"),
        (
            with(json!({"apiVersion": "v2"})),
            400,
            "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1",
        ),
        (with(json!({"metadata": {"name": "m", "managedFields": []}})), 400, "metadata.managedFields must be nil"),
        (
            with(json!({"data": {"x": 1}})),
            400,
            "failed to create typed patch object (/m; v1, Kind=ConfigMap): .data.x: expected string, got \
             &value.valueUnstructured{Value:1}",
        ),
        (
            with(json!({"metadata": {"name": "n"}})),
            400,
            "the name of the object (n) does not match the name on the URL (m)",
        ),
        (
            with(json!({"metadata": {"name": "m", "uid": "u"}})),
            409,
            "Operation cannot be fulfilled on configmaps \"m\": uid mismatch: the provided object specified uid u, and no \
             existing object was found",
        ),
    ] {
        let answer = server.apply(&path, "a", &document).await;
        if (answer.code, answer.message().as_str()) != (code, message) {
            wrong.push(format!("{document}: {}", answer.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  a: one\n  a: two\n";
    let strict = format!("{path}?fieldManager=a&fieldValidation=Strict");
    let answer = server.ask("PATCH", &strict, &[("content-type", APPLY)], text).await;
    assert_eq!(
        (answer.code, answer.message().as_str()),
        (
            400,
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"a\" already \
             set in map"
        )
    );
    let answer = server.ask("PATCH", &format!("{path}?fieldManager=a"), &[("content-type", APPLY)], text).await;
    assert_eq!((answer.code, answer.json()["data"]["a"].as_str()), (201, Some("two")), "{}", answer.text);
    assert!(answer.headers["warning"].to_str().unwrap().contains("already set in map"));
}

/// Who may patch but not create cannot create by applying, nor by a PUT.
#[tokio::test]
async fn creating_by_an_apply_needs_the_right_to_create() {
    let mut server = Server::new().await;
    let role = json!({"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "patcher"},
        "rules": [{"apiGroups": ["", "coordination.k8s.io"], "resources": ["configmaps", "leases"], "verbs": ["patch", "update"]}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    assert_eq!(server.post(&format!("{rbac}/roles"), &role).await.code, 201);
    let binding = json!({"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "patcher"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patcher"},
        "subjects": [{"kind": "User", "name": "jane"}]});
    assert_eq!(server.post(&format!("{rbac}/rolebindings"), &binding).await.code, 201);
    assert_eq!(
        server
            .apply(
                &format!("{MAPS}/there"),
                "a",
                &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "there"}})
            )
            .await
            .code,
        201
    );

    server.user = Some(skiff::api::user::User::new("jane", &["system:authenticated"]));
    let refused = server.apply(&format!("{MAPS}/m"), "a", &map(json!({}))).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (
            403,
            "configmaps \"m\" is forbidden: User \"jane\" cannot create resource \"configmaps\" in API group \"\" in the \
             namespace \"default\""
        )
    );
    let there = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "there"}, "data": {"a": "b"}});
    assert_eq!(server.apply(&format!("{MAPS}/there"), "a", &there).await.code, 200);
    let lease = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": "l"}, "spec": {}});
    assert_eq!(server.put("/apis/coordination.k8s.io/v1/namespaces/default/leases/l", &lease).await.code, 403);
}
