//! Every operation of our own OpenAPI documents, asked with bodies, parameters, patches and headers that are made up, some
//! of them valid: nothing panics, hangs or fails inside, and every refusal is a Status as upstream writes it.
//!
//! Everything is made of one seed, which is printed; `SKIFF_FUZZ_SEED` sets another one. Time is not real here: a request
//! that waits for what never comes is seen at once, and a watch ends when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http_body_util::BodyExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use self::draw::Draw;
use crate::{Server, custom};

#[path = "../../fuzz/src/draw.rs"]
#[allow(dead_code, reason = "the fuzz targets use the rest")]
mod draw;

const SEED: u64 = 36;
/// Requests for each operation of a document.
const ROUNDS: usize = 14;
/// Bytes that the choices of one request are made of.
const BYTES: usize = 512;
/// Longer than any watch is told to last here.
const PATIENCE: Duration = Duration::from_secs(48 * 60 * 60);

const TEXTS: &[&str] = &[
    "a",
    "busybox",
    "Always",
    "Retain",
    "ClusterIP",
    "TCP",
    "Equal",
    "In",
    "Exists",
    "10.0.0.1",
    "80",
    "cpu",
    "memory",
    "/tmp",
    "Namespace",
    "ServiceAccount",
    "rbac.authorization.k8s.io",
    "get",
    "*",
    "pods",
    "example.com/x",
    "True",
    "1h",
    "Fail",
    "None",
    "default",
    "ReadWriteOnce",
    "example.com",
    "Widget",
    "widgets",
    "v1",
    "object",
    "* * * * *",
];
const NAMES: &[&str] = &["a", "b", "a", "a", "b", "c", "A_b", "a.b", "a%2Fb", "%C3%A9", "-", "a%00b"];
const ACCEPT: &[&str] = &[
    "",
    "application/json",
    "*/*",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf,application/json",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/json;as=Nothing;v=v9;g=none",
    "application/cbor",
    "text/html",
    "nonsense",
    ";;;",
];
const CONTENT: &[&str] =
    &["application/yaml", "application/vnd.kubernetes.protobuf", "text/plain", "", "application/cbor", "x"];
/// Bad input for which upstream has no class of errors, and so answers with 500 and no reason.
const UNCLASSIFIED: &[&str] = &[
    "resourceVersion: Invalid value",
    "resourceVersion should not be set",
    "declared merge key",
    "unknown patch type",
    "cannot yet be specified in the patch",
    "but received a ",
    "cannot merge lists without merge key",
    "unable to find api field in struct",
    "$setElementOrder list",
];
const PATCHES: &[&str] = &[
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
    "application/apply-patch+yaml",
];

/// One operation of a document.
struct Operation<'a> {
    path: &'a str,
    method: String,
    body: Option<&'a Value>,
    parameters: Vec<&'a str>,
    kind: &'a Value,
}

struct Fuzz<'a> {
    server: &'a Server,
    schemas: &'a Map<String, Value>,
    /// Answers by code.
    codes: &'a mut BTreeMap<u16, usize>,
    /// Kinds of which an object could be made.
    made: &'a mut BTreeSet<String>,
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_asked_fails_inside() {
    #[allow(clippy::disallowed_methods, reason = "to try a seed again")]
    let seed = std::env::var("SKIFF_FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(SEED);
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let index = server().await.get("/openapi/v3").await.json();
    let (mut codes, mut made) = (BTreeMap::new(), BTreeSet::new());
    let documents = index["paths"].as_object().unwrap();
    assert!(documents.len() > 20, "{documents:?}");
    for address in documents.keys() {
        let server = server().await;
        let document = server.get(&format!("/openapi/v3/{address}")).await.json();
        let empty = Map::new();
        let schemas = document["components"]["schemas"].as_object().unwrap_or(&empty);
        let mut operations = operations(&document);
        // What ends the namespace that the others are in comes last.
        operations.sort_by_key(|o| o.path.starts_with("/api/v1/namespaces") && !o.path.contains("{namespace}"));
        let mut fuzz = Fuzz { server: &server, schemas, codes: &mut codes, made: &mut made };
        for operation in &operations {
            for _ in 0..ROUNDS {
                let mut bytes = [0; BYTES];
                rng.fill(&mut bytes);
                fuzz.ask(operation, &mut Draw::new(&bytes)).await;
            }
        }
    }
    println!("answers: {codes:?}; made: {made:?}");
    // Else it would only be errors that are tried.
    assert!(made.len() >= 40, "objects could be made of these kinds only: {made:?}");
}

/// With a kind that a definition defines.
async fn server() -> Server {
    let server = Server::new().await;
    assert_eq!(server.define(&custom::definition()).await.code, 201);
    server
}

/// Those but for what is passed on to nodes, pods and Services: their addresses are made up as well.
fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut out = Vec::new();
    let own = |path: &str| {
        let passed_on = ["/proxy", "/proxy/{path}", "/exec", "/attach", "/portforward", "/log"];
        !passed_on.iter().any(|end| path.ends_with(end))
    };
    for (path, item) in document["paths"].as_object().into_iter().flatten().filter(|(path, _)| own(path)) {
        for (method, operation) in item.as_object().into_iter().flatten().filter(|(m, _)| *m != "parameters") {
            let content = operation["requestBody"]["content"].as_object();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            out.push(Operation {
                path,
                method: method.to_uppercase(),
                body: content.and_then(|c| c.values().next()).map(|media| &media["schema"]),
                parameters: parameters.filter_map(|p| p["name"].as_str()).collect(),
                kind: &operation["x-kubernetes-group-version-kind"],
            });
        }
    }
    out
}

impl Fuzz<'_> {
    async fn ask(&mut self, o: &Operation<'_>, draw: &mut Draw<'_>) {
        let names = if draw.one_in(4) { NAMES } else { &NAMES[..3] };
        let name = draw.pick(names);
        let namespace = if draw.one_in(12) { draw.pick(NAMES) } else { "default" };
        let mut uri = o.path.replace("{name}", name).replace("{namespace}", namespace);
        let mut query = Vec::new();
        for name in &o.parameters {
            if draw.one_in(5) {
                query.push(parameter(draw, name));
            }
        }
        if !query.is_empty() {
            uri = format!("{uri}?{}", query.join("&"));
        }
        let (content, body) = self.body(o, name, namespace, draw).await;
        let accept = if draw.one_in(6) { draw.pick(ACCEPT) } else { "" };
        let mut headers = vec![("content-type", content), ("accept", accept)];
        headers.retain(|(_, value)| !value.is_empty());
        let method = if o.method == "GET" && draw.one_in(16) { "HEAD" } else { &o.method };

        let shown = format!("{method} {uri} {headers:?}\n{}", String::from_utf8_lossy(&body));
        let answered = async {
            let response = self.server.respond(method, &uri, &headers, body).await;
            let (parts, body) = response.into_parts();
            (parts, body.collect().await.unwrap().to_bytes())
        };
        let answered = tokio::time::timeout(PATIENCE, answered).await;
        let (parts, bytes) = answered.unwrap_or_else(|_| panic!("there is no end to\n{shown}"));
        let code = parts.status.as_u16();
        *self.codes.entry(code).or_default() += 1;
        if code == 201 {
            self.made.insert(o.kind["kind"].as_str().unwrap_or_default().to_owned());
        }
        let answer = String::from_utf8_lossy(&bytes);
        let unclassified = code == 500 && UNCLASSIFIED.iter().any(|text| answer.contains(text));
        assert!(code < 500 || matches!(code, 501 | 503 | 504) || unclassified, "{code} {answer} to\n{shown}");
        let media = parts.headers.get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        if code >= 400 && !unclassified && media.starts_with("application/json") && method != "HEAD" {
            let wrong = status_problem(code, &bytes);
            assert_eq!(wrong, None, "{answer} to\n{shown}");
        }
    }

    /// A body and its content type.
    async fn body(
        &self,
        o: &Operation<'_>,
        name: &str,
        namespace: &str,
        draw: &mut Draw<'_>,
    ) -> (&'static str, Vec<u8>) {
        let Some(schema) = o.body else { return ("", Vec::new()) };
        let stored = if draw.one_in(2) || o.method == "PATCH" {
            let path = o.path.replace("{name}", name).replace("{namespace}", namespace);
            let answer = self.server.get(&path).await;
            if answer.code == 200 {
                serde_json::from_str(&answer.text).unwrap_or_else(|e| panic!("{e}: {path} is {:?}", answer.text))
            } else {
                Value::Null
            }
        } else {
            Value::Null
        };
        let mut value =
            if o.method == "PUT" && stored.is_object() { stored.clone() } else { self.object(draw, o, schema) };
        if !o.kind.is_null() && o.method != "PATCH" && o.method != "DELETE" && !draw.one_in(20) {
            value["metadata"]["name"] = name.into();
            if o.path.contains("{namespace}") {
                value["metadata"]["namespace"] = namespace.into();
            }
        }
        if draw.one_in(4) {
            damage(draw, &mut value);
        }
        let mut content = "application/json";
        if o.method == "PATCH" {
            content = draw.pick(PATCHES);
            value = match content {
                "application/json-patch+json" => operations_on(draw, &stored),
                "application/apply-patch+yaml" => {
                    let mut document = self.object(draw, o, schema);
                    document["metadata"] = json!({"name": name});
                    document
                }
                _ => part_of(draw, &stored),
            };
        }
        let mut bytes = value.to_string().into_bytes();
        if draw.one_in(12) {
            content = draw.pick(CONTENT);
        }
        if draw.one_in(16) {
            let length = draw.below(bytes.len().max(1));
            bytes.truncate(length);
        }
        (content, bytes)
    }

    fn object(&self, draw: &mut Draw<'_>, o: &Operation<'_>, schema: &Value) -> Value {
        let kind = o.kind["kind"].as_str().unwrap_or_default();
        let mut value = match example(kind).filter(|_| draw.one_in(2) && !o.path.ends_with("/status")) {
            Some(example) => example,
            None => self.draw(draw, schema, "", 0),
        };
        if !o.kind.is_null() && value.is_object() {
            let text = |key: &str| o.kind[key].as_str().unwrap_or_default();
            let group = text("group");
            let version = text("version");
            value["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
            value["kind"] = text("kind").into();
        }
        value
    }

    /// A value of a schema. `name` is that of the field.
    fn draw(&self, draw: &mut Draw<'_>, schema: &Value, name: &str, depth: usize) -> Value {
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        if let Some(reference) = reference {
            let reference = reference.rsplit('/').next().unwrap_or_default();
            if reference.ends_with(".Quantity") {
                return draw.quantity();
            }
            // Owners and managed fields would only be refused.
            if depth > 0 && reference.ends_with(".ObjectMeta") {
                return json!({"name": draw.pick(&["a", "b"]), "labels": {"a": "b"}});
            }
            return self.draw(draw, self.schemas.get(reference).unwrap_or(&Value::Null), name, depth);
        }
        match schema["type"].as_str() {
            Some("object") if depth < 14 => {
                let required: Vec<&str> =
                    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let mut map = Map::new();
                for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                    let wanted = required.contains(&name.as_str()) || name == "spec" && depth <= 3;
                    if if wanted { !draw.one_in(50) } else { draw.one_in(6 + 6 * depth) } {
                        map.insert(name.clone(), self.draw(draw, property, name, depth + 1));
                    }
                }
                if schema["additionalProperties"].is_object() {
                    for _ in 0..draw.below(3) {
                        let value = self.draw(draw, &schema["additionalProperties"], name, depth + 1);
                        map.insert(draw.pick(TEXTS).to_owned(), value);
                    }
                }
                map.into()
            }
            Some("object") => json!({}),
            Some("array") => {
                (0..1 + draw.below(2)).map(|_| self.draw(draw, &schema["items"], name, depth + 1)).collect()
            }
            Some("integer" | "number") => draw.pick(&[1, 2, 80, 0, 1000, -1, 70_000, i64::from(i32::MAX)]).into(),
            Some("boolean") => draw.one_in(2).into(),
            Some("string") => match schema["format"].as_str() {
                Some("date-time") => "2026-01-02T03:04:05Z".into(),
                Some("byte") => "YQ==".into(),
                _ if name == "name" => draw.pick(&["a", "b"]).into(),
                _ => draw.pick(TEXTS).into(),
            },
            _ => draw.json(4),
        }
    }
}

/// Something to begin with, of kinds that are seldom hit by chance.
fn example(kind: &str) -> Option<Value> {
    let containers = json!([{"name": "a", "image": "busybox", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "b"}]}]);
    let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}});
    let selector = json!({"matchLabels": {"a": "b"}});
    let job = json!({"template": {"spec": {"containers": containers, "restartPolicy": "Never"}}});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let subject = json!([{"kind": "User", "name": "a", "apiGroup": "rbac.authorization.k8s.io"}]);
    let role = json!({"kind": "ClusterRole", "name": "a", "apiGroup": "rbac.authorization.k8s.io"});
    let policy = json!({"matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["configmaps"]}]}, "validations": [{"expression": "object.metadata.name != 'b'"}]});
    let service = json!({"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "http"}]});
    let backend = json!({"service": {"name": "a", "port": {"number": 80}}});
    let rules = json!([{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]);
    let object = match kind {
        "Pod" => pod,
        "PodTemplate" => json!({"template": pod}),
        "ReplicationController" => json!({"spec": {"selector": {"a": "b"}, "template": pod}}),
        "Deployment" | "ReplicaSet" | "DaemonSet" => json!({"spec": {"selector": selector, "template": pod}}),
        "StatefulSet" => json!({"spec": {"selector": selector, "template": pod, "serviceName": "a"}}),
        "Job" => json!({"spec": job}),
        "CronJob" => json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job}}}),
        "Service" => json!({"spec": service}),
        "Ingress" => json!({"spec": {"rules": rules}}),
        "PersistentVolumeClaim" => json!({"spec": claim}),
        "PersistentVolume" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp/a"}}})
        }
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "a"}}})
        }
        "RoleBinding" | "ClusterRoleBinding" => json!({"subjects": subject, "roleRef": role}),
        "ValidatingAdmissionPolicy" => json!({"spec": policy}),
        "CustomResourceDefinition" | "CronTab" => {
            return Some(if kind == "CronTab" {
                json!({"spec": {"cronSpec": "* * * * *", "ports": [{"name": "a", "port": 80}]}})
            } else {
                custom::definition()
            });
        }
        "APIService" => {
            json!({"spec": {"group": "b.c", "version": "a", "groupPriorityMinimum": 1, "versionPriority": 1,
            "insecureSkipTLSVerify": true, "service": {"name": "a", "namespace": "default"}}})
        }
        _ => return None,
    };
    Some(object)
}

/// What a Status lacks, if anything.
fn status_problem(code: u16, bytes: &[u8]) -> Option<String> {
    const KEYS: &[&str] = &["kind", "apiVersion", "metadata", "status", "message", "reason", "details", "code"];
    let Ok(Value::Object(status)) = serde_json::from_slice::<Value>(bytes) else { return Some("no object".into()) };
    let is = |key: &str, value: Value| status.get(key) == Some(&value);
    let some = |key: &str| status.get(key).and_then(Value::as_str).is_some_and(|t| !t.is_empty());
    let unknown = status.keys().find(|key| !KEYS.contains(&key.as_str()));
    if let Some(unknown) = unknown {
        return Some(format!("{unknown} is no field of a Status"));
    }
    let fine = is("kind", "Status".into())
        && is("apiVersion", "v1".into())
        && is("status", "Failure".into())
        && is("code", code.into())
        && status.get("metadata").is_some_and(Value::is_object)
        && some("message")
        && some("reason");
    if !fine {
        return Some("no Status of a failure".into());
    }
    let causes = status.get("details").and_then(|d| d["causes"].as_array());
    let empty = causes.is_some_and(|c| c.is_empty() || c.iter().any(|c| !c["message"].is_string()));
    empty.then(|| "causes that say nothing".into())
}

fn parameter(draw: &mut Draw<'_>, name: &str) -> String {
    let values: &[&str] = match name {
        "dryRun" => &["All", "", "None", "All&dryRun=All"],
        "fieldManager" => &["me", "", "%00", "x%20y"],
        "fieldValidation" => &["Strict", "Warn", "Ignore", "", "Maybe"],
        "labelSelector" => &["a%3Db", "a", "!a", "a+in+(b,c)", "a%3D%3D%3Db", "%2C", "(", "a%3E1"],
        "fieldSelector" => {
            &["metadata.name%3Da", "metadata.namespace!%3Ddefault", "nothing%3D1", "a", "%3D", "status.phase%3D"]
        }
        "limit" => &["1", "0", "-1", "x", "99999999999999999999"],
        "continue" => &["x", "", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ", "e30", "%00", "bm90aGluZw"],
        "resourceVersion" => &["0", "1", "", "x", "-1", "99999999", "18446744073709551616"],
        "resourceVersionMatch" => &["Exact", "NotOlderThan", "", "None"],
        "timeoutSeconds" => &["1", "0", "-1", "x", "86400"],
        "propagationPolicy" => &["Background", "Foreground", "Orphan", "Nothing", ""],
        "gracePeriodSeconds" => &["0", "1", "-1", "x", "99999999999999999999"],
        _ => &["true", "false", "1", "", "x", "0"],
    };
    format!("{name}={}", draw.pick(values))
}

/// Puts something else in one place.
fn damage(draw: &mut Draw<'_>, value: &mut Value) {
    let place = match value {
        Value::Object(map) if !map.is_empty() && !draw.one_in(6) => {
            let at = draw.below(map.len());
            map.values_mut().nth(at)
        }
        Value::Array(list) if !list.is_empty() && !draw.one_in(6) => {
            let at = draw.below(list.len());
            list.get_mut(at)
        }
        _ => None,
    };
    match place {
        Some(inside) => damage(draw, inside),
        None => *value = draw.json(4),
    }
}

/// A way into a value.
fn path_into(draw: &mut Draw<'_>, value: &Value) -> String {
    let mut at = value;
    let mut path = String::new();
    while !draw.one_in(4) {
        let (key, inside) = match at {
            Value::Object(map) if !map.is_empty() => {
                let nth = draw.below(map.len());
                let Some((key, inside)) = map.iter().nth(nth) else { break };
                (key.replace('~', "~0").replace('/', "~1"), inside)
            }
            Value::Array(list) if !list.is_empty() => {
                let nth = draw.below(list.len());
                (nth.to_string(), &list[nth])
            }
            _ => break,
        };
        path = format!("{path}/{key}");
        at = inside;
    }
    if draw.one_in(6) { format!("{path}/{}", draw.pick(&["-", "0", "a", "~", "metadata"])) } else { path }
}

fn operations_on(draw: &mut Draw<'_>, stored: &Value) -> Value {
    let one = |draw: &mut Draw<'_>| {
        let name = draw.pick(&["replace", "add", "remove", "test", "move", "copy", "nothing"]);
        json!({"op": name, "path": path_into(draw, stored), "from": path_into(draw, stored), "value": draw.json(5)})
    };
    (0..draw.below(4)).map(|_| one(draw)).collect()
}

/// A merge patch for what is somewhere in an object.
fn part_of(draw: &mut Draw<'_>, stored: &Value) -> Value {
    match stored {
        Value::Object(map) if !map.is_empty() && !draw.one_in(5) => {
            let nth = draw.below(map.len());
            let Some((key, inside)) = map.iter().nth(nth) else { return Value::Null };
            json!({key: part_of(draw, inside)})
        }
        Value::Array(list) if !list.is_empty() && draw.one_in(2) => {
            let mut list = list.clone();
            let at = draw.below(list.len());
            damage(draw, &mut list[at]);
            list.into()
        }
        _ => draw.json(4),
    }
}
