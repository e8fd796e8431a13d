//! Webhooks that are called: they mutate, deny, hang, lie or are not there, and what a client of the API is told then.

use serde_json::{Value, json};

use crate::hook::{Hook, allow, mutating, patch, validating};
use crate::{Answer, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn told(answer: &Answer) -> (u16, String) {
    (answer.code, answer.message())
}

#[tokio::test]
async fn a_mutation_is_written_and_belongs_to_nobody() {
    let server = Server::new().await;
    let hook = Hook::new(|_| patch(&json!([{"op": "add", "path": "/data/added", "value": "1"}]))).await;
    mutating(&server, "m", &[hook.webhook(&json!({}))]).await;
    let made = server.post(&format!("{MAPS}?fieldManager=me"), &map("a")).await;
    assert_eq!((made.code, &made.json()["data"]), (201, &json!({"k": "v", "added": "1"})));
    let owned = &made.json()["metadata"]["managedFields"][0];
    assert_eq!((&owned["manager"], &owned["fieldsV1"]["f:data"]), (&json!("me"), &json!({".": {}, "f:k": {}})));
    let requests = hook.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(
        (&request["operation"], &request["name"], &request["namespace"], &request["dryRun"]),
        (&json!("CREATE"), &json!("a"), &json!("default"), &json!(false))
    );
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!(request["object"]["metadata"]["managedFields"][0]["manager"], "me");
    assert_eq!((&request["oldObject"], &request["options"]["kind"]), (&Value::Null, &json!("CreateOptions")));

    let changed = json!({"data": {"k": "w"}});
    let kind = "application/merge-patch+json";
    assert_eq!(server.patch(&format!("{MAPS}/a"), kind, &changed).await.code, 200);
    let gone = server.delete(&format!("{MAPS}/a"), &json!({"propagationPolicy": "Background"})).await;
    // There is nothing to change in what goes.
    let why = "Internal error occurred: admission webhook \"h.example.com\" attempted to modify the object, which is \
               not supported for this operation";
    assert_eq!(told(&gone), (500, why.into()));
    let requests = hook.requests();
    assert_eq!((&requests[1]["operation"], &requests[1]["oldObject"]["data"]["k"]), (&json!("UPDATE"), &json!("v")));
    assert_eq!((&requests[2]["operation"], &requests[2]["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(requests[2]["options"]["propagationPolicy"], "Background");
}

#[tokio::test]
async fn a_denial_is_the_webhooks_with_its_warnings() {
    let server = Server::new().await;
    let hook = Hook::new(|_| {
        let status = json!({"code": 403, "reason": "Forbidden", "message": "not on Fridays"});
        Some(json!({"allowed": false, "status": status, "warnings": ["it is Friday"]}))
    })
    .await;
    validating(&server, "v", &[hook.webhook(&json!({}))]).await;
    let denied = server.post(MAPS, &map("a")).await;
    let why = "admission webhook \"h.example.com\" denied the request: not on Fridays";
    assert_eq!((told(&denied), &denied.json()["reason"]), ((403, why.into()), &json!("Forbidden")));
    assert_eq!(denied.headers["warning"], "299 - \"it is Friday\"");
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 404);
    // Nobody asks about what nobody has rules for.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    assert_eq!(server.post("/api/v1/namespaces/default/secrets", &secret).await.code, 201);
    assert_eq!(hook.requests().len(), 1);
}

/// What a client is told of a webhook that does not do its part, and whether `failurePolicy: Ignore` excuses it.
async fn check(
    behaviour: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static,
    is_excused: bool,
    why: impl Fn(u16, &str) -> String,
) {
    let server = Server::new().await;
    let hook = Hook::new(behaviour).await;
    let (strict, lenient) = (json!({"failurePolicy": "Fail"}), json!({"failurePolicy": "Ignore"}));
    mutating(&server, "m", &[hook.webhook(&strict)]).await;
    let told = told(&server.post(MAPS, &map("a")).await);
    let uid = hook.requests()[0]["uid"].as_str().unwrap().to_owned();
    assert_eq!(told, (500, format!("Internal error occurred: {}", why(hook.port, &uid))));
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/m";
    assert_eq!(server.delete(path, &json!({})).await.code, 200);
    mutating(&server, "m", &[hook.webhook(&lenient)]).await;
    let code = server.post(MAPS, &map("a")).await.code;
    assert_eq!(code, if is_excused { 201 } else { 500 }, "{}", told.1);
}

fn failed(why: &str) -> String {
    format!("failed calling webhook \"h.example.com\": {why}")
}

#[tokio::test]
async fn a_webhook_that_hangs_is_not_waited_for() {
    check(
        |_| None,
        true,
        |port, _| {
            failed(&format!(
                "failed to call webhook: Post \"https://127.0.0.1:{port}/hook?timeout=1s\": context deadline exceeded"
            ))
        },
    )
    .await;
}

#[tokio::test]
async fn a_webhook_that_lies_is_not_believed() {
    check(
        |_| Some(json!({"uid": "other", "allowed": true})),
        true,
        |_, uid| failed(&format!("received invalid webhook response: expected response.uid={uid:?}, got \"other\"")),
    )
    .await;
}

#[tokio::test]
async fn a_patch_that_is_none_or_does_not_apply() {
    check(
        |_| Some(json!({"allowed": true, "patch": "W10="})),
        true,
        |_, _| failed("received invalid webhook response: webhook returned response.patch but not response.patchType"),
    )
    .await;
    let nowhere = json!([{"op": "replace", "path": "/data/none", "value": "1"}]);
    check(
        move |_| patch(&nowhere),
        false,
        |_, _| "replace operation does not apply: doc is missing key: /data/none: missing value".into(),
    )
    .await;
}

#[tokio::test]
async fn a_webhook_that_is_not_there_or_not_trusted() {
    let server = Server::new().await;
    let hook = Hook::new(allow).await;
    let other = Hook::new(allow).await;
    let url = format!("https://127.0.0.1:{}/hook", hook.port);
    let distrusted = json!({"clientConfig": {"url": url, "caBundle": other.ca_bundle}});
    validating(&server, "v", &[hook.webhook(&distrusted)]).await;
    let post = format!("failed to call webhook: Post \"{url}?timeout=1s\": ");
    let why = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    let expect = format!("Internal error occurred: {}", failed(&format!("{post}{why}")));
    assert_eq!(told(&server.post(MAPS, &map("a")).await), (500, expect));
    let port = hook.port;
    drop(other);
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/v";
    assert_eq!(server.delete(path, &json!({})).await.code, 200);
    validating(&server, "v", &[hook.webhook(&json!({}))]).await;
    let task = &hook.task;
    task.abort();
    while !task.is_finished() {
        tokio::task::yield_now().await;
    }
    let why = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    let expect = format!("Internal error occurred: {}", failed(&format!("{post}{why}")));
    assert_eq!(told(&server.post(MAPS, &map("a")).await), (500, expect));
}

#[tokio::test]
async fn a_service_is_asked_at_its_endpoint() {
    let server = Server::new().await;
    let hook = Hook::new(allow).await;
    let service =
        json!({"service": {"namespace": "default", "name": "hook", "path": "/hook"}, "caBundle": hook.ca_bundle});
    validating(&server, "v", &[hook.webhook(&json!({"clientConfig": service}))]).await;
    let post = "failed to call webhook: Post \"https://hook.default.svc:443/hook?timeout=1s\": ";
    let refused = |why: &str| (500, format!("Internal error occurred: {}", failed(&format!("{post}{why}"))));
    assert_eq!(told(&server.post(MAPS, &map("a")).await), refused("service \"hook\" not found"));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"ports": [{"name": "tls", "port": 443, "targetPort": hook.port}]}});
    assert_eq!(server.post("/api/v1/namespaces/default/services", &service).await.code, 201);
    let told = told(&server.post(MAPS, &map("a")).await);
    assert_eq!(told, refused("no endpoints available for service \"hook\""));
}

/// Loopback addresses are no endpoints to the API, so this Service is a name for another host.
#[tokio::test]
async fn a_service_is_asked_under_its_own_name() {
    let server = Server::new().await;
    let hook = Hook::new(allow).await;
    let service = json!({"namespace": "default", "name": "hook", "path": "/hook", "port": hook.port});
    let client = json!({"clientConfig": {"service": service, "caBundle": hook.ca_bundle}});
    validating(&server, "v", &[hook.webhook(&client)]).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"type": "ExternalName", "externalName": "localhost"}});
    assert_eq!(server.post("/api/v1/namespaces/default/services", &service).await.code, 201);
    assert_eq!(server.post(MAPS, &map("a")).await.code, 201);
    assert_eq!(hook.requests().len(), 1);
}

#[tokio::test]
async fn webhooks_follow_one_another_and_are_asked_again_when_they_wish() {
    let server = Server::new().await;
    let count = |asked: &Value| asked["object"]["data"].as_object().map_or(0, serde_json::Map::len);
    let first = Hook::new(move |asked| {
        patch(&json!([{"op": "add", "path": "/data/first", "value": count(asked).to_string()}]))
    })
    .await;
    let second = Hook::new(|_| patch(&json!([{"op": "add", "path": "/data/second", "value": "1"}]))).await;
    // The name of the configuration says who is first.
    mutating(&server, "b", &[second.webhook(&json!({}))]).await;
    mutating(&server, "a", &[first.webhook(&json!({"reinvocationPolicy": "IfNeeded"}))]).await;
    let made = server.post(MAPS, &map("a")).await;
    assert_eq!(made.json()["data"], json!({"k": "v", "first": "3", "second": "1"}));
    assert_eq!((first.requests().len(), second.requests().len()), (2, 1));
}

#[tokio::test]
async fn a_dry_run_is_only_told_to_who_can_tell_it() {
    let server = Server::new().await;
    let hook = Hook::new(allow).await;
    validating(&server, "v", &[hook.webhook(&json!({"sideEffects": "NoneOnDryRun"}))]).await;
    assert_eq!(server.post(&format!("{MAPS}?dryRun=All"), &map("a")).await.code, 201);
    assert_eq!(hook.requests()[0]["dryRun"], true);
    assert_eq!(hook.requests()[0]["options"]["dryRun"], json!(["All"]));
}

#[tokio::test]
async fn selectors_leave_namespaces_and_objects_out() {
    let server = Server::new().await;
    let hook = Hook::new(allow).await;
    let only = json!({"objectSelector": {"matchLabels": {"watched": "yes"}}});
    validating(&server, "v", &[hook.webhook(&only)]).await;
    assert_eq!(server.post(MAPS, &map("a")).await.code, 201);
    assert_eq!(hook.requests().len(), 0);
    let mut watched = map("b");
    watched["metadata"]["labels"] = json!({"watched": "yes"});
    assert_eq!(server.post(MAPS, &watched).await.code, 201);
    assert_eq!(hook.requests().len(), 1);
}

#[tokio::test]
async fn equivalent_versions_are_shown_as_the_rule_names_them() {
    let server = Server::new().await;
    let hook = Hook::new(allow).await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"],
        "resources": ["horizontalpodautoscalers"]}]);
    validating(&server, "v", &[hook.webhook(&json!({"rules": rules}))]).await;
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
                 "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 55}}}]}});
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let made = server.post(path, &scaler).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let request = &hook.requests()[0];
    assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(request["object"]["spec"]["targetCPUUtilizationPercentage"], 55);
}

#[tokio::test]
async fn a_scale_is_shown_as_a_scale() {
    let server = Server::new().await;
    let hook = Hook::new(|_| patch(&json!([{"op": "replace", "path": "/spec/replicas", "value": 2}]))).await;
    let rules = json!([{"operations": ["UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"],
        "resources": ["deployments/scale"]}]);
    mutating(&server, "m", &[hook.webhook(&json!({"rules": rules}))]).await;
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(server.post(path, &deployment).await.code, 201);
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 5}});
    let scaled = server.put(&format!("{path}/web/scale"), &scale).await;
    assert_eq!((scaled.code, &scaled.json()["spec"]["replicas"]), (200, &json!(2)));
    let request = &hook.requests()[0];
    assert_eq!((&request["kind"]["kind"], &request["subResource"]), (&json!("Scale"), &json!("scale")));
    assert_eq!((&request["object"]["kind"], &request["object"]["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    assert_eq!(request["oldObject"]["spec"]["replicas"], 1);
}

#[tokio::test]
async fn conditions_spare_a_webhook_what_it_need_not_see() {
    let server = Server::new().await;
    let hook = Hook::new(allow).await;
    let conditions = json!([{"name": "big", "expression": "object.data.k == 'big' && request.operation == 'CREATE'"}]);
    validating(&server, "v", &[hook.webhook(&json!({"matchConditions": conditions}))]).await;
    assert_eq!(server.post(MAPS, &map("a")).await.code, 201);
    assert_eq!(hook.requests().len(), 0);
    let mut big = map("b");
    big["data"]["k"] = json!("big");
    assert_eq!(server.post(MAPS, &big).await.code, 201);
    assert_eq!(hook.requests().len(), 1);
    let mut none = map("c");
    none["data"] = json!({});
    let why = "configmaps \"c\" is forbidden: expression 'object.data.k == 'big' && request.operation == 'CREATE'' resulted \
               in error: no such key: data";
    assert_eq!(told(&server.post(MAPS, &none).await), (403, why.into()));
}

#[tokio::test]
async fn a_policy_refuses_without_being_called() {
    let server = Server::new().await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p"}, "spec": {
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""],
                "apiVersions": ["v1"], "resources": ["configmaps"]}]},
            "validations": [{"expression": "!('bad' in object.data)", "message": "nothing bad"}]}});
    let made = server.post(&format!("{group}/validatingadmissionpolicies"), &policy).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let mut bad = map("a");
    bad["data"]["bad"] = json!("1");
    assert_eq!(server.post(&format!("{MAPS}?dryRun=All"), &bad).await.code, 201, "no binding, no policy");
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    let made = server.post(&format!("{group}/validatingadmissionpolicybindings"), &binding).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let why =
        "configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: nothing bad";
    let refused = server.post(MAPS, &bad).await;
    assert_eq!((told(&refused), &refused.json()["reason"]), ((422, why.into()), &json!("Invalid")));
    assert_eq!(refused.json()["details"]["causes"][0]["message"], why.split_once(": ").unwrap().1);
    assert_eq!(server.post(MAPS, &map("a")).await.code, 201);
}

#[tokio::test]
async fn a_connection_may_be_refused() {
    let server = Server::new().await;
    let hook = Hook::new(|_| Some(json!({"allowed": false, "status": {"message": "nobody enters"}}))).await;
    let rules =
        json!([{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}]);
    validating(&server, "v", &[hook.webhook(&json!({"rules": rules}))]).await;
    let path = "/api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true";
    let why = "admission webhook \"h.example.com\" denied the request: nobody enters";
    assert_eq!(told(&server.ask("POST", path, &[], "").await), (400, why.into()));
    let request = &hook.requests()[0];
    assert_eq!((&request["operation"], &request["subResource"]), (&json!("CONNECT"), &json!("exec")));
    let expect = json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["sh"], "stdin": true});
    assert_eq!((&request["object"], &request["options"]), (&expect, &Value::Null));
}

#[tokio::test]
async fn a_policy_changes_what_webhooks_then_see() {
    let server = Server::new().await;
    let hook = Hook::new(allow).await;
    mutating(&server, "m", &[hook.webhook(&json!({}))]).await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let apply = "Object{metadata: Object.metadata{labels: {'by': 'policy'}}}";
    let patch = "[JSONPatch{op: 'add', path: '/data/added', value: object.metadata.labels.by + '!'}]";
    let policy = |mutations: Value| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": "p"}, "spec": {"reinvocationPolicy": "Never",
                "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
                    "apiVersions": ["v1"], "resources": ["configmaps"]}]}, "mutations": mutations}})
    };
    let mutations = json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]);
    let made = server.post(&format!("{group}/mutatingadmissionpolicies"), &policy(mutations)).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "b"}, "spec": {"policyName": "p"}});
    let made = server.post(&format!("{group}/mutatingadmissionpolicybindings"), &binding).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let mut labelled = map("a");
    labelled["metadata"]["labels"] = json!({"own": "1"});
    let made = server.post(MAPS, &labelled).await;
    assert_eq!(made.json()["metadata"]["labels"], json!({"own": "1", "by": "policy"}), "{}", made.text);
    assert_eq!(made.json()["data"], json!({"k": "v", "added": "policy!"}));
    assert_eq!(hook.requests()[0]["object"]["data"]["added"], "policy!");

    let broken = json!([{"patchType": "JSONPatch", "jsonPatch": {"expression":
        "[JSONPatch{op: 'remove', path: '/data/none'}]"}}]);
    assert_eq!(server.delete(&format!("{group}/mutatingadmissionpolicies/p"), &json!({})).await.code, 200);
    assert_eq!(server.post(&format!("{group}/mutatingadmissionpolicies"), &policy(broken)).await.code, 201);
    let why = "policy 'p' with binding 'b' denied request: JSONPath: error in remove for path: '/data/none': Unable to \
               remove nonexistent key: none: missing value";
    assert_eq!(told(&server.post(MAPS, &map("b")).await), (403, why.into()));
}
