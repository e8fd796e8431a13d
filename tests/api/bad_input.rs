//! What is malformed is refused in upstream's words, and what is meant to hurt does not.

use serde_json::{Value, json};

use crate::{Answer, Server, custom};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SCHEMA: &str = "spec.validation.openAPIV3Schema";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

/// Code, reason, the part of the message that is told, and the fields of the causes.
#[track_caller]
fn check(what: &str, answer: &Answer, code: u16, reason: &str, message: &str, causes: &[&str]) {
    let status = answer.json();
    let fields: Vec<&str> =
        status["details"]["causes"].as_array().into_iter().flatten().map(|c| text(&c["field"])).collect();
    let found =
        (answer.code, text(&status["kind"]), text(&status["status"]), text(&status["reason"]), fields.as_slice());
    assert_eq!(found, (code, "Status", "Failure", reason, causes), "{what}: {status}");
    assert_eq!(status["code"], code, "{what}");
    assert!(text(&status["message"]).contains(message), "{what}: {status}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[tokio::test]
async fn malformed_bodies_and_parameters() {
    let server = Server::new().await;
    let map = |more: &str| format!(r#"{{"kind": "ConfigMap", "apiVersion": "v1", "metadata": {{"name": "a"}}{more}}}"#);
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: ";
    for (body, message) in [
        ("".into(), format!("{unrecognized}unexpected end of JSON input (<empty>)")),
        ("{".into(), format!("{unrecognized}unexpected end of JSON input ({{)")),
        ("[]".into(), format!("{unrecognized}json: cannot unmarshal array into Go value of type struct")),
        (
            map(r#", "data": {"a": 1}"#),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string".into(),
        ),
        (
            map(r#", "data": []"#),
            "json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string".into(),
        ),
        (map("}"), format!("{unrecognized}invalid character '}}' after top-level value")),
        (
            map(", ").replace("v1", "v9"),
            format!("{unrecognized}invalid character '}}' looking for beginning of object key string"),
        ),
        (map("").replace("v1", "v9"), "ConfigMap in version \"v9\" cannot be handled as a ConfigMap: no kind".into()),
        (map("").replace("\"ConfigMap\"", "\"Secret\""), "unknown conversion".into()),
        (
            map("").replace("\"v1\"", "7"),
            "json: cannot unmarshal number into Go struct field .apiVersion of type string".into(),
        ),
        (
            map("").replace("\"a\"", "[]"),
            "cannot unmarshal array into Go struct field ObjectMeta.metadata.name of type string".into(),
        ),
    ] {
        let answer = server.ask("POST", MAPS, &[("content-type", JSON)], body.clone()).await;
        check(&body, &answer, 400, "BadRequest", &message, &[]);
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (media, body) in
        [(JSON, deep.clone()), ("application/yaml", deep), (JSON, format!("{{\"a\":{}", "[".repeat(1 << 20)))]
    {
        let answer = server.ask("POST", MAPS, &[("content-type", media)], body).await;
        check("nested", &answer, 400, "BadRequest", "", &[]);
    }
    for (query, code, reason, message) in [
        ("labelSelector=a%3D%3D%3D", 400, "BadRequest", "unable to parse requirement: found '='"),
        ("labelSelector=a+in+(", 400, "BadRequest", "unable to parse requirement"),
        ("labelSelector=-a", 400, "BadRequest", "unable to parse requirement"),
        (
            "fieldSelector=metadata.labels%3Da",
            400,
            "BadRequest",
            "\"metadata.labels\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        ("fieldSelector=a", 400, "BadRequest", "invalid selector: 'a'; can't understand 'a'"),
        ("limit=many", 400, "BadRequest", "strconv.ParseInt: parsing \"many\": invalid syntax"),
        ("continue=%25", 400, "BadRequest", "continue key is not valid"),
        (
            "continue=e30",
            400,
            "BadRequest",
            "continue key is not valid: server does not recognize this encoded version",
        ),
        ("resourceVersion=x", 400, "BadRequest", "invalid resource version"),
        ("resourceVersion=999999", 504, "Timeout", "Too large resource version: 999999"),
    ] {
        let answer = server.get(&format!("{MAPS}?{query}")).await;
        let status = answer.json();
        assert_eq!((answer.code, text(&status["reason"])), (code, reason), "{query}: {status}");
        assert!(text(&status["message"]).contains(message), "{query}: {status}");
    }
    for (path, message) in [
        ("/api/v9/configmaps", ""),
        ("/apis/none.example/v1/things", ""),
        (&*format!("{MAPS}/none"), "configmaps \"none\" not found"),
    ] {
        let answer = server.get(path).await;
        let status = answer.json();
        assert_eq!((answer.code, text(&status["reason"])), (404, "NotFound"), "{path}: {status}");
        assert!(text(&status["message"]).contains(message), "{path}: {status}");
    }
}

/// A definition whose field `spec.cronSpec` has this schema.
fn with_schema(schema: Value) -> Value {
    let mut definition = custom::definition();
    for version in definition["spec"]["versions"].as_array_mut().unwrap() {
        version["selectableFields"] = Value::Null;
        version["additionalPrinterColumns"] = Value::Null;
        version["subresources"] = Value::Null;
        version["schema"] = json!({"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"text": schema}}}}});
    }
    definition
}

#[tokio::test]
async fn schemas_and_expressions_that_are_none() {
    let server = Server::new().await;
    let rule = |rule: &str| json!({"type": "string", "x-kubernetes-validations": [{"rule": rule}]});
    let at = |path: &str| format!("{SCHEMA}.properties[spec].properties[text]{path}");
    for (schema, message, field) in [
        (json!({"type": "nothing"}), "Unsupported value: \"nothing\"", ".type"),
        (json!({"type": "string", "default": 1}), "must be of type string", ".default"),
        (json!({"type": "string", "pattern": "("}), "error parsing regexp: missing closing ): `(`", ".pattern"),
        (json!({"type": "array"}), "must be specified", ".items"),
        (rule("self +"), "compilation failed: ERROR: <input>:1:7: Syntax error", ".x-kubernetes-validations[0].rule"),
        (rule("self.nothing"), "type 'string' does not support field selection", ".x-kubernetes-validations[0].rule"),
        (rule("1"), "must evaluate to a bool", ".x-kubernetes-validations[0].rule"),
        (rule("self.matches('(')"), "invalid matches argument", ".x-kubernetes-validations[0].rule"),
        (
            rule(&format!("{}true{}", "(".repeat(5000), ")".repeat(5000))),
            "expression recursion limit exceeded",
            ".x-kubernetes-validations[0].rule",
        ),
        (
            json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}},
                "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, b.all(c, c == 'x')))"}]}),
            "estimated rule cost exceeds budget by factor of more than 100x",
            ".x-kubernetes-validations[0].rule",
        ),
    ] {
        let answer = server.post(DEFINITIONS, &with_schema(schema.clone())).await;
        let shown = schema.to_string();
        let status = answer.json();
        assert_eq!((answer.code, text(&status["reason"])), (422, "Invalid"), "{shown}: {status}");
        assert!(text(&status["message"]).contains(message), "{shown}: {status}");
        let causes = status["details"]["causes"].as_array().unwrap();
        assert!(causes.iter().any(|c| c["field"] == at(field)), "{shown}: {} is not in {causes:?}", at(field));
    }
}

#[tokio::test]
async fn schemas_and_patterns_that_are_meant_to_hurt() {
    let server = Server::new().await;
    // Bounded in size: what is too large is refused when it is compiled.
    for pattern in [r"\pL{1000}(\pL{10}){100}(\pL{10}){100}", "(((a{10}){10}){10}){10}"] {
        let answer = server.post(DEFINITIONS, &with_schema(json!({"type": "string", "pattern": pattern}))).await;
        assert!(matches!(answer.code, 201 | 422), "{pattern}: {}", answer.text);
        server.delete(&format!("{DEFINITIONS}/crontabs.example.com"), &json!({})).await;
    }
    // Bounded in depth.
    let mut deep = json!({"type": "string"});
    for _ in 0..200 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    let answer = server.post(DEFINITIONS, &with_schema(deep)).await;
    assert_eq!(answer.code, 400, "{}", answer.text);
    // Bounded in time: what another engine would try in 2^n ways.
    let slow = with_schema(json!({"type": "string", "pattern": "^(a+)+$", "maxLength": 100_000,
        "x-kubernetes-validations": [{"rule": "self.matches('^(a|aa)+$')"}]}));
    assert_eq!(server.define(&slow).await.code, 201);
    let tabs = "/apis/example.com/v1/namespaces/default/crontabs";
    let tab = json!({"apiVersion": "example.com/v1", "kind": "CronTab", "metadata": {"name": "a"},
        "spec": {"text": format!("{}!", "a".repeat(99_000))}});
    let answer = server.post(tabs, &tab).await;
    assert_eq!(answer.code, 422, "{}", answer.text);
    // A patch that grows what it patches.
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "x".repeat(1000)}});
    assert_eq!(server.post(MAPS, &map).await.code, 201);
    let copies: Vec<Value> = (0..40).map(|i| json!({"op": "copy", "from": "", "path": format!("/data/{i}")})).collect();
    let answer = server.patch(&format!("{MAPS}/a"), "application/json-patch+json", &copies.into()).await;
    assert_eq!(answer.code, 422, "{}", answer.text);
    let answer = server.patch(&format!("{MAPS}/a"), MERGE, &json!({"data": {"b": "x".repeat(2 << 20)}})).await;
    check("too long", &answer, 422, "Invalid", "Too long: may not be more than 1048576 bytes", &["[]"]);
}
