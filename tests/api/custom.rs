//! Custom resources, over HTTP. The conditions of a definition are written by hand here: the controller that does it is
//! part of the cluster.

use serde_json::{Value, json};
use skiff::server::crd::definitions;
use skiff::server::webhook;

use crate::hook::Hook;
use crate::{Answer, Server};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/example.com/v1/namespaces/default/crontabs";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

impl Server {
    /// Creates a definition and has it served.
    pub async fn define(&self, definition: &Value) -> Answer {
        let created = self.post(DEFINITIONS, definition).await;
        if created.code == 201 {
            let name = created.json()["metadata"]["name"].as_str().unwrap().to_owned();
            self.establish(&name).await;
        }
        created
    }

    /// What the server does whenever a definition changes.
    fn load(&self) {
        let registry = &self.service.backend().registry;
        definitions::load(registry, &webhook::Client::new(registry.cache().clone()));
    }

    async fn establish(&self, name: &str) {
        let stored = self.get(&format!("{DEFINITIONS}/{name}")).await.json();
        let at = "2026-01-01T00:00:00Z";
        let status = json!({"status": {
            "acceptedNames": stored["spec"]["names"],
            "conditions": [{"type": "Established", "status": "True", "reason": "Test", "message": "", "lastTransitionTime": at}],
        }});
        let answer = self.patch(&format!("{DEFINITIONS}/{name}/status"), MERGE, &status).await;
        assert_eq!(answer.code, 200, "{}", answer.text);
        self.load();
    }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object", "required": ["cronSpec"],
                "properties": {
                    "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
                    "image": {"type": "string", "default": "busybox"},
                    "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
                    "max": {"type": "integer"},
                    "ports": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "required": ["name"],
                            "properties": {"name": {"type": "string"}, "port": {"x-kubernetes-int-or-string": true}}},
                    },
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "mode": {"type": "string", "enum": ["fast", "slow"]},
                },
                "x-kubernetes-validations": [{"rule": "!has(self.replicas) || !has(self.max) || self.replicas <= self.max",
                    "message": "replicas must not be over max"}],
            },
            "status": {
                "type": "object",
                "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}, "phase": {"type": "string"}},
            },
        },
    })
}

pub fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList",
                "shortNames": ["ct"], "categories": ["all"]},
            "versions": [
                {
                    "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema()},
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                    "additionalPrinterColumns": [{"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1}],
                    "selectableFields": [{"jsonPath": ".spec.mode"}],
                },
                {
                    "name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": schema()}, "selectableFields": [{"jsonPath": ".spec.mode"}],
                },
            ],
        },
    })
}

fn tab(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

fn warnings(answer: &Answer) -> Vec<String> {
    answer.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect()
}

async fn server() -> Server {
    let server = Server::new().await;
    let created = server.define(&definition()).await;
    assert_eq!(created.code, 201, "{}", created.text);
    server
}

#[tokio::test]
async fn what_is_defined_is_served_and_discovered() {
    let server = Server::new().await;
    assert_eq!(server.get(TABS).await.code, 404);
    assert_eq!(server.define(&definition()).await.code, 201);
    assert_eq!(server.get(TABS).await.json()["kind"], "CronTabList");

    let group = server.get("/apis/example.com").await.json();
    assert_eq!(group["preferredVersion"]["groupVersion"], "example.com/v1");
    let resources = server.get("/apis/example.com/v1").await.json()["resources"].clone();
    let names: Vec<&str> = resources.as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["crontabs", "crontabs/scale", "crontabs/status"]);
    assert_eq!((&resources[0]["shortNames"], &resources[0]["categories"]), (&json!(["ct"]), &json!(["all"])));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated = server.ask("GET", "/apis", &[("accept", accept)], "").await.json();
    // After it only what is measured, which metrics-server registers as the least.
    let [.., own, measured] = aggregated["items"].as_array().unwrap().as_slice() else { panic!("{aggregated}") };
    assert_eq!(
        (&own["metadata"]["name"], &measured["metadata"]["name"]),
        (&json!("example.com"), &json!("metrics.k8s.io"))
    );
    assert_eq!(own["versions"][1]["version"], "v1beta1");

    let index = server.get("/openapi/v3").await.json();
    let at = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = server.get(&at).await.json();
    let own = &document["components"]["schemas"]["com.example.v1.CronTab"];
    assert_eq!(own["properties"]["spec"]["properties"]["image"]["default"], "busybox");
    let kind = json!([{"group": "example.com", "version": "v1", "kind": "CronTab"}]);
    assert_eq!(own["x-kubernetes-group-version-kind"], kind);
    assert!(document["paths"]["/apis/example.com/v1/namespaces/{namespace}/crontabs/{name}/scale"].is_object());
    let old = server.get("/openapi/v2").await.json();
    assert!(old["definitions"]["com.example.v1.CronTabList"].is_object());

    let gone = server.delete(&format!("{DEFINITIONS}/crontabs.example.com"), &json!({})).await;
    assert_eq!(gone.code, 200, "{}", gone.text);
    let finalizers = json!({"metadata": {"finalizers": null}});
    server.patch(&format!("{DEFINITIONS}/crontabs.example.com"), MERGE, &finalizers).await;
    server.load();
    assert_eq!(server.get(TABS).await.code, 404);
    assert_eq!(server.get("/apis/example.com").await.code, 404);
}

#[tokio::test]
async fn bodies_are_checked_completed_and_pruned() {
    let server = server().await;
    let good = tab("a", json!({"cronSpec": "* * * * */5", "nope": 1, "free": {"any": {"thing": [1]}}, "replicas": 3}));
    let strict = server.post(&format!("{TABS}?fieldValidation=Strict"), &good).await;
    assert_eq!(strict.code, 400);
    let why =
        "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"spec.nope\"";
    assert_eq!(strict.message(), why);
    let created = server.post(TABS, &good).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(warnings(&created), ["299 - \"unknown field \\\"spec.nope\\\"\""]);
    let object = created.json();
    let spec = json!({"cronSpec": "* * * * */5", "free": {"any": {"thing": [1]}}, "image": "busybox", "replicas": 3});
    assert_eq!((&object["spec"], &object["metadata"]["generation"]), (&spec, &json!(1)));
    assert_eq!(server.get(&format!("{TABS}/a")).await.json(), object);
    let patch = json!({"spec": {"nope": 1}});
    let refused = server.patch(&format!("{TABS}/a?fieldValidation=Strict"), MERGE, &patch).await;
    assert_eq!(refused.code, 422);
    let message = refused.json()["details"]["causes"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("Invalid value: \"{\\\"apiVersion\\\":\\\"example.com/v1\\\""), "{message}");
    assert!(message.ends_with(": strict decoding error: unknown field \"spec.nope\""), "{message}");

    for (spec, message) in [
        (
            json!({}),
            "[spec.cronSpec: Required value, <nil>: Invalid value: \"null\": some validation rules were not checked \
             because the object was invalid; correct the existing errors to complete validation]",
        ),
        (
            json!({"cronSpec": "x"}),
            "spec.cronSpec: Invalid value: \"x\": spec.cronSpec in body should match '^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$'",
        ),
        (
            json!({"cronSpec": "* * * * *", "replicas": 11}),
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        ),
        (
            json!({"cronSpec": "* * * * *", "replicas": "2"}),
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        ),
        (
            json!({"cronSpec": "* * * * *", "mode": "x"}),
            "spec.mode: Unsupported value: \"x\": supported values: \"fast\", \"slow\"",
        ),
        (
            json!({"cronSpec": "* * * * *", "ports": [{"name": "a"}, {"name": "a"}]}),
            "spec.ports[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        (
            json!({"cronSpec": "* * * * *", "replicas": 3, "max": 2}),
            "spec: Invalid value: \"object\": replicas must not be over max",
        ),
    ] {
        let refused = server.post(TABS, &tab("b", spec.clone())).await;
        assert_eq!(refused.code, 422, "{spec}: {}", refused.text);
        // Where a value is not of its type, a note that the rules were not asked follows.
        assert!(refused.message().contains(message), "{spec}: {message}: {}", refused.text);
    }
}

#[tokio::test]
async fn versions_are_one_object() {
    let server = server().await;
    let beta = "/apis/example.com/v1beta1/namespaces/default/crontabs";
    let mut body = tab("a", json!({"cronSpec": "* * * * *"}));
    body["apiVersion"] = "example.com/v1beta1".into();
    let created = server.post(beta, &body).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(created.json()["apiVersion"], "example.com/v1beta1");
    assert_eq!(warnings(&created), ["299 - \"example.com/v1beta1 CronTab is deprecated\""]);
    let stored = server.get(&format!("{TABS}/a")).await.json();
    assert_eq!(stored["apiVersion"], "example.com/v1");
    let listed = server.get(beta).await.json();
    assert_eq!(listed["items"][0]["apiVersion"], "example.com/v1beta1");
    assert_eq!(listed["items"][0]["spec"], stored["spec"]);

    // The stored version changes: what is stored in the old one is served in both.
    let mut newer = server.get(&format!("{DEFINITIONS}/crontabs.example.com")).await.json();
    newer["spec"]["versions"][0]["storage"] = false.into();
    newer["spec"]["versions"][1]["storage"] = true.into();
    newer["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["since"] =
        json!({"type": "string", "default": "now"});
    let changed = server.put(&format!("{DEFINITIONS}/crontabs.example.com"), &newer).await;
    assert_eq!(changed.code, 200, "{}", changed.text);
    assert_eq!(changed.json()["status"]["storedVersions"], json!(["v1", "v1beta1"]));
    server.load();
    assert_eq!(server.get(&format!("{TABS}/a")).await.json()["apiVersion"], "example.com/v1");
    assert_eq!(server.get(&format!("{beta}/a")).await.json()["apiVersion"], "example.com/v1beta1");
    let body = json!({"spec": {"max": 4}});
    let patched = server.patch(&format!("{beta}/a"), MERGE, &body).await.json();
    assert_eq!((&patched["spec"]["max"], &patched["spec"]["since"]), (&json!(4), &json!("now")));
}

#[tokio::test]
async fn status_and_scale() {
    let server = server().await;
    let mut body = tab("a", json!({"cronSpec": "* * * * *", "replicas": 2}));
    body["status"] = json!({"phase": "made up"});
    let created = server.post(TABS, &body).await.json();
    assert!(created["status"].is_null(), "{created}");
    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 2, "selector": "app=x", "phase": "Running"}});
    let written = server.patch(&format!("{TABS}/a/status"), MERGE, &status).await.json();
    assert_eq!((&written["spec"]["replicas"], &written["status"]["phase"]), (&json!(2), &json!("Running")));
    assert_eq!(written["metadata"]["generation"], 1);

    let scale = server.get(&format!("{TABS}/a/scale")).await.json();
    assert_eq!(
        (&scale["kind"], &scale["spec"], &scale["status"]),
        (&json!("Scale"), &json!({"replicas": 2}), &json!({"replicas": 2, "selector": "app=x"}))
    );
    let scaled = server.patch(&format!("{TABS}/a/scale"), MERGE, &json!({"spec": {"replicas": 5}})).await;
    assert_eq!((scaled.code, &scaled.json()["spec"]["replicas"]), (200, &json!(5)));
    let object = server.get(&format!("{TABS}/a")).await.json();
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(5), &json!(2)));

    let mut update = object.clone();
    update["status"]["phase"] = "Other".into();
    update["metadata"]["labels"] = json!({"a": "b"});
    let updated = server.put(&format!("{TABS}/a"), &update).await.json();
    assert_eq!((&updated["status"]["phase"], &updated["metadata"]["generation"]), (&json!("Running"), &json!(2)));
    update["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let refused = server.put(&format!("{TABS}/a"), &update).await;
    assert_eq!(
        (
            refused.code,
            refused.message().contains("metadata.resourceVersion: Invalid value: 0x0: must be specified for an update")
        ),
        (422, true),
        "{}",
        refused.text
    );
}

#[tokio::test]
async fn applied_by_the_schema_of_the_definition() {
    let server = server().await;
    let path = format!("{TABS}/a");
    let apply = async |manager: &str, spec: Value| {
        server.patch(&format!("{path}?fieldManager={manager}"), APPLY, &tab("a", spec)).await
    };
    let ports = json!([{"name": "http", "port": 80}]);
    let created = apply("a", json!({"cronSpec": "* * * * *", "ports": ports})).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let other = apply("b", json!({"ports": [{"name": "https", "port": "tls"}], "free": {"x": 1}})).await;
    assert_eq!(other.code, 200, "{}", other.text);
    let object = other.json();
    assert_eq!(object["spec"]["ports"], json!([{"name": "http", "port": 80}, {"name": "https", "port": "tls"}]));
    let fields = &object["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"];
    let expect = json!({"f:free": {".": {}, "f:x": {}}, "f:ports": {"k:{\"name\":\"https\"}": {".": {}, "f:name": {}, "f:port": {}}}});
    assert_eq!(*fields, json!({"f:free": {"f:x": {}}, "f:ports": expect["f:ports"]}), "{object}");
    let refused = apply("b", json!({"cronSpec": "1 * * * *"})).await;
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"a\": .spec.cronSpec");
    let refused = apply("b", json!({"nope": 1})).await;
    assert_eq!(refused.code, 400, "{}", refused.text);
    assert!(refused.message().contains(".spec.nope: field not declared in schema"), "{}", refused.text);
}

#[tokio::test]
async fn tables_selectors_and_other_forms() {
    let server = server().await;
    for (name, mode) in [("a", "fast"), ("b", "slow")] {
        let spec = json!({"cronSpec": "* * * * *", "mode": mode, "replicas": 1});
        assert_eq!(server.post(TABS, &tab(name, spec)).await.code, 201);
    }
    let accept = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = server.ask("GET", TABS, &[accept], "").await.json();
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Spec", "Replicas"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", "* * * * *", 1]));

    let fast = server.get(&format!("{TABS}?fieldSelector=spec.mode%3Dfast")).await.json();
    assert_eq!(fast["items"].as_array().unwrap().len(), 1);
    let refused = server.get(&format!("{TABS}?fieldSelector=spec.image%3Dx")).await;
    assert_eq!((refused.code, refused.message().as_str()), (400, "field label not supported: spec.image"));

    let strategic = server.patch(&format!("{TABS}/a"), "application/strategic-merge-patch+json", &json!({})).await;
    assert_eq!(strategic.code, 415, "{}", strategic.text);
    let body = [("content-type", "application/vnd.kubernetes.protobuf")];
    assert_eq!(server.ask("POST", TABS, &body, "k8s\0").await.code, 415);
    let yaml = "apiVersion: example.com/v1\nkind: CronTab\nmetadata: {name: yaml}\nspec: {cronSpec: '* * * * *'}\n";
    assert_eq!(server.ask("POST", TABS, &[("content-type", "application/yaml")], yaml).await.code, 201);
    let refused =
        server.post(TABS, &json!({"apiVersion": "example.com/v1", "kind": "Other", "metadata": {"name": "z"}})).await;
    assert_eq!(
        refused.message(),
        "Other.example.com \"z\" is invalid: kind: Invalid value: \"Other\": must be CronTab"
            .replace("Other.", "CronTab.")
    );
}

#[tokio::test]
async fn policies_take_parameters_from_custom_resources() {
    let server = server().await;
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "small"},
        "spec": {
            "paramKind": {"apiVersion": "example.com/v1", "kind": "CronTab"},
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["configmaps"]}]},
            "validations": [{"expression": "size(object.data) <= params.spec.max"}],
        },
    });
    assert_eq!(server.post(policies, &policy).await.code, 201);
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "small"},
        "spec": {"policyName": "small", "validationActions": ["Deny"],
            "paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}},
    });
    let bound = server.post("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", &binding).await;
    assert_eq!(bound.code, 201, "{}", bound.text);
    assert_eq!(server.post(TABS, &tab("limits", json!({"cronSpec": "* * * * *", "max": 1}))).await.code, 201);
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    assert_eq!(server.post(maps, &map("a", json!({"x": "1"}))).await.code, 201);
    let refused = server.post(maps, &map("b", json!({"x": "1", "y": "2"}))).await;
    assert_eq!(refused.code, 422, "{}", refused.text);
    assert!(refused.message().contains("size(object.data) <= params.spec.max"), "{}", refused.text);
}

/// Says in an annotation what it was asked for; what is named `stuck` it cannot convert.
fn convert(asked: &Value) -> Option<Value> {
    let to = asked["desiredAPIVersion"].as_str().unwrap();
    let mut objects = asked["objects"].clone();
    for object in objects.as_array_mut().unwrap() {
        if object["metadata"]["name"] == "stuck" && to.ends_with("v1beta1") {
            return Some(json!({"result": {"status": "Failure", "message": "it is stuck"}}));
        }
        object["apiVersion"] = to.into();
        object["metadata"]["annotations"]["for"] = to.into();
        object["metadata"]["generation"] = 99.into();
        object["spec"]["unknown"] = 1.into();
    }
    Some(json!({"result": {"status": "Success"}, "convertedObjects": objects}))
}

#[tokio::test]
async fn a_webhook_converts_what_is_written_and_read() {
    let server = Server::new().await;
    let hook = Hook::new(convert).await;
    let mut definition = definition();
    definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://127.0.0.1:{}/convert", hook.port), "caBundle": hook.ca_bundle},
    }});
    let defined = server.define(&definition).await;
    assert_eq!(defined.code, 201, "{}", defined.text);

    let beta = "/apis/example.com/v1beta1/namespaces/default/crontabs";
    let spec = json!({"cronSpec": "* * * * *"});
    let mut body = tab("a", spec.clone());
    body["apiVersion"] = "example.com/v1beta1".into();
    let created = server.post(beta, &body).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let stored = server.get(&format!("{TABS}/a")).await.json();
    assert_eq!(stored["metadata"]["annotations"]["for"], "example.com/v1");
    // Only labels and annotations are the webhook's to change, and what the schema does not know goes.
    assert_eq!((&stored["metadata"]["generation"], &stored["spec"]["unknown"]), (&json!(1), &Value::Null));
    assert_eq!(stored["metadata"]["uid"], created.json()["metadata"]["uid"]);

    assert_eq!(server.post(TABS, &tab("b", spec.clone())).await.code, 201);
    let asked = hook.requests().len();
    let listed = server.get(beta).await.json();
    assert_eq!(listed["items"][1]["metadata"]["annotations"]["for"], "example.com/v1beta1");
    let requests = hook.requests();
    assert_eq!(
        (requests.len(), requests[asked]["objects"].as_array().unwrap().len()),
        (asked + 1, 2),
        "one call for all"
    );

    assert_eq!(server.post(TABS, &tab("stuck", spec)).await.code, 201);
    let stuck = server.get(&format!("{beta}/stuck")).await;
    let why = "conversion webhook for example.com/v1, Kind=CronTab failed: it is stuck";
    assert_eq!((stuck.code, stuck.message().as_str()), (500, why), "{}", stuck.text);
    assert_eq!(server.get(&format!("{TABS}/stuck")).await.code, 200, "the stored version needs no webhook");
    drop(hook);
    let gone = server.get(&format!("{beta}/a")).await;
    assert_eq!(gone.code, 500, "{}", gone.text);
    assert!(
        gone.message().starts_with("conversion webhook for example.com/v1, Kind=CronTab failed: Post "),
        "{}",
        gone.text
    );
}
