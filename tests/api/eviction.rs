//! `pods/eviction`: whether a pod may go, what it leaves in its budget, and how it goes.

use serde_json::{Value, json};

use crate::subresources::{PODS, pod, with_account};
use crate::{Answer, Server};

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const MERGE: &str = "application/merge-patch+json";

/// A pod of `app` on a node, in a phase; `Running` ones are ready unless they say `Unready`.
async fn running(server: &Server, name: &str, app: &str, phase: &str) -> Value {
    let mut pod = pod(name);
    pod["metadata"]["labels"] = json!({"app": app});
    pod["spec"]["nodeName"] = json!("n1");
    let created = server.post(PODS, &pod).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let (phase, ready) = if phase == "Unready" { ("Running", "False") } else { (phase, "True") };
    let status = json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
    let patched = server.patch(&format!("{PODS}/{name}/status"), MERGE, &status).await;
    assert_eq!(patched.code, 200, "{}", patched.text);
    patched.json()
}

async fn budget(server: &Server, name: &str, app: &str, status: Value) {
    let budget = json!({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": app}}}});
    assert_eq!(server.post(BUDGETS, &budget).await.code, 201);
    let mut all = json!({"observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2});
    for (field, value) in status.as_object().unwrap() {
        all[field] = value.clone();
    }
    let written = server.patch(&format!("{BUDGETS}/{name}/status"), MERGE, &json!({"status": all})).await;
    assert_eq!(written.code, 200, "{}", written.text);
}

fn eviction(name: &str, options: Value) -> Value {
    json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": name}, "deleteOptions": options})
}

async fn evict(server: &Server, name: &str, query: &str, options: Value) -> Answer {
    server.post(&format!("{PODS}/{name}/eviction{query}"), &eviction(name, options)).await
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    pod["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind)
}

#[tokio::test]
async fn a_pod_goes_at_the_expense_of_its_budget() {
    let server = with_account().await;
    running(&server, "a", "web", "Running").await;
    running(&server, "b", "web", "Running").await;
    budget(&server, "web", "web", json!({"disruptionsAllowed": 1})).await;
    let evicted = evict(&server, "a", "", json!({})).await;
    assert_eq!(evicted.code, 201, "{}", evicted.text);
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    assert_eq!(evicted.json(), success);
    let going = server.get(&format!("{PODS}/a")).await.json();
    assert!(going["metadata"]["deletionTimestamp"].is_string(), "{going}");
    let target = condition(&going, "DisruptionTarget").expect("why it goes");
    assert_eq!(
        (&target["status"], &target["reason"], &target["message"], &target["observedGeneration"]),
        (&json!("True"), &json!("EvictionByEvictionAPI"), &json!("Eviction API: evicting"), &json!(1))
    );
    let left = server.get(&format!("{BUDGETS}/web")).await.json()["status"].clone();
    assert_eq!(left["disruptionsAllowed"], 0);
    assert!(left["disruptedPods"]["a"].is_string(), "{left}");
    assert_eq!(left["conditions"][0]["reason"], "InsufficientPods");

    let refused = evict(&server, "b", "", json!({})).await;
    assert_eq!((refused.code, refused.headers.get("retry-after")), (429, None));
    assert_eq!(refused.message(), "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        refused.json()["details"]["causes"],
        json!([{"reason": "DisruptionBudget", "message": "The disruption budget web does not allow evicting pods \
            currently"}])
    );
    assert_eq!(server.get(&format!("{PODS}/b")).await.json()["metadata"]["deletionTimestamp"], Value::Null);
}

#[tokio::test]
async fn a_budget_that_is_behind_is_to_be_asked_again() {
    let server = with_account().await;
    running(&server, "a", "web", "Running").await;
    budget(&server, "web", "web", json!({"disruptionsAllowed": 1, "observedGeneration": 0})).await;
    let refused = evict(&server, "a", "", json!({})).await;
    assert_eq!((refused.code, refused.headers["retry-after"].to_str().unwrap()), (429, "10"));
    assert_eq!(refused.json()["details"]["retryAfterSeconds"], 10);
    assert_eq!(
        refused.json()["details"]["causes"][0]["message"],
        "The disruption budget web is still being processed by the server."
    );
}

#[tokio::test]
async fn pods_that_no_budget_counts_on_go_at_once() {
    let server = with_account().await;
    budget(&server, "web", "web", json!({"disruptionsAllowed": 0})).await;
    running(&server, "other", "db", "Running").await;
    for phase in ["Pending", "Succeeded", "Failed", "Unready"] {
        let name = phase.to_lowercase();
        running(&server, &name, "web", phase).await;
        let evicted = evict(&server, &name, "", json!({"gracePeriodSeconds": 0})).await;
        assert_eq!(evicted.code, 201, "{phase}: {}", evicted.text);
        assert_eq!(server.get(&format!("{PODS}/{name}")).await.code, 404, "{phase}");
    }
    assert_eq!(evict(&server, "other", "", json!({})).await.code, 201);
    // Again: it is on its way.
    assert_eq!(evict(&server, "other", "", json!({})).await.code, 201);
    let status = server.get(&format!("{BUDGETS}/web")).await.json()["status"].clone();
    assert_eq!(status["disruptedPods"], Value::Null, "the budget gave nothing: {status}");
}

#[tokio::test]
async fn unhealthy_pods_go_by_the_policy_of_their_budget() {
    let server = with_account().await;
    budget(&server, "web", "web", json!({"disruptionsAllowed": 0, "currentHealthy": 0})).await;
    running(&server, "a", "web", "Unready").await;
    assert_eq!(evict(&server, "a", "", json!({})).await.code, 429);
    let policy = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}});
    assert_eq!(server.patch(&format!("{BUDGETS}/web"), MERGE, &policy).await.code, 200);
    assert_eq!(evict(&server, "a", "", json!({})).await.code, 201);
}

#[tokio::test]
async fn two_budgets_are_one_too_many() {
    let server = with_account().await;
    running(&server, "a", "web", "Running").await;
    budget(&server, "one", "web", json!({"disruptionsAllowed": 1})).await;
    budget(&server, "two", "web", json!({"disruptionsAllowed": 1})).await;
    let refused = evict(&server, "a", "", json!({})).await;
    assert_eq!(refused.code, 500);
    assert_eq!(
        refused.json(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500, "message":
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."})
    );
}

#[tokio::test]
async fn a_dry_run_evicts_nothing_but_says_whether_it_would() {
    let server = with_account().await;
    running(&server, "a", "web", "Running").await;
    budget(&server, "web", "web", json!({"disruptionsAllowed": 1})).await;
    let before = (server.get(&format!("{PODS}/a")).await.text, server.get(&format!("{BUDGETS}/web")).await.text);
    for (query, options) in [("?dryRun=All", json!({})), ("", json!({"dryRun": ["All"]}))] {
        let dry = evict(&server, "a", query, options).await;
        assert_eq!(dry.code, 201, "{}", dry.text);
    }
    let after = (server.get(&format!("{PODS}/a")).await.text, server.get(&format!("{BUDGETS}/web")).await.text);
    assert_eq!(before, after);
    let none = json!({"status": {"disruptionsAllowed": 0}});
    assert_eq!(server.patch(&format!("{BUDGETS}/web/status"), MERGE, &none).await.code, 200);
    assert_eq!(evict(&server, "a", "?dryRun=All", json!({})).await.code, 429);
}

#[tokio::test]
async fn preconditions_of_the_delete_hold_for_the_eviction() {
    let server = with_account().await;
    let seen = running(&server, "a", "web", "Running").await;
    let revision = seen["metadata"]["resourceVersion"].as_str().unwrap();
    let wrong = evict(&server, "a", "", json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!((wrong.code, wrong.json()["reason"].as_str()), (409, Some("Conflict")));
    assert!(wrong.message().starts_with("Operation cannot be fulfilled on Pod \"a\": the UID in the precondition"));
    let wrong = evict(&server, "a", "", json!({"preconditions": {"resourceVersion": "1"}})).await;
    assert_eq!(wrong.code, 409);
    assert_eq!(
        wrong.message(),
        format!(
            "Operation cannot be fulfilled on Pod \"a\": the ResourceVersion in the precondition (1) does not match the \
             ResourceVersion in record ({revision}). The object might have been modified"
        )
    );
    assert!(condition(&server.get(&format!("{PODS}/a")).await.json(), "DisruptionTarget").is_none());
    // The condition that the eviction itself writes is no other change.
    let options = json!({"preconditions": {"resourceVersion": revision, "uid": seen["metadata"]["uid"]}});
    assert_eq!(evict(&server, "a", "", options).await.code, 201);
}

#[tokio::test]
async fn wrong_evictions_are_refused() {
    let server = with_account().await;
    running(&server, "a", "web", "Running").await;
    let other = server.post(&format!("{PODS}/a/eviction"), &eviction("b", json!({}))).await;
    assert_eq!((other.code, other.message().as_str()), (400, "name in URL does not match name in Eviction object"));
    let absent = evict(&server, "none", "", json!({})).await;
    assert_eq!((absent.code, absent.message().as_str()), (404, "pods \"none\" not found"));
    let mut elsewhere = eviction("a", json!({}));
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    let elsewhere = server.post(&format!("{PODS}/a/eviction"), &elsewhere).await;
    assert_eq!(
        (elsewhere.code, elsewhere.message().as_str()),
        (400, "the namespace of the provided object does not match the namespace sent on the request")
    );
    let odd = evict(&server, "a", "", json!({"propagationPolicy": "No"})).await;
    assert_eq!(odd.code, 422, "{}", odd.text);
    assert_eq!(server.get(&format!("{PODS}/a/eviction")).await.code, 405);
    let mut older = eviction("a", json!({"dryRun": ["All"]}));
    older["apiVersion"] = json!("policy/v1beta1");
    assert_eq!(server.post(&format!("{PODS}/a/eviction"), &older).await.code, 201);
    older["apiVersion"] = json!("policy/v2");
    assert_eq!(server.post(&format!("{PODS}/a/eviction"), &older).await.code, 400);
    // Whoever writes no kind means this one.
    let short = server.post(&format!("{PODS}/a/eviction"), &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(short.code, 201, "{}", short.text);
}
