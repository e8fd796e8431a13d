//! Golden plans of ResourceClaims.

use futures::FutureExt as _;
use serde_json::json;

use super::*;
use crate::client::request::Verb;
use crate::server::controllers::action::Action;
use crate::server::controllers::driver::queue::Queue;

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// Puts values into a document by their place.
fn with(mut document: Value, more: &Value) -> Value {
    for (at, value) in more.as_object().unwrap() {
        let (parent, key) = at.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    document
}

fn pod(more: &Value) -> Pod {
    let pod = json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
        "spec": { "containers": [], "resourceClaims": [
            { "name": "gpu", "resourceClaimTemplateName": "t" }, { "name": "nic", "resourceClaimName": "shared" }] },
        "status": { "phase": "Pending" } });
    serde_json::from_value(with(pod, more)).unwrap()
}

/// Made for the pod's `gpu`.
fn made(name: &str, more: &Value) -> ResourceClaim {
    let claim = json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name, "resourceVersion": "7", "annotations": { POD_CLAIM: "gpu" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true }] },
        "spec": {}, "status": {} });
    serde_json::from_value(with(claim, more)).unwrap()
}

fn shared(more: &Value) -> ResourceClaim {
    let mut claim = made("shared", more);
    (claim.metadata.owner_references, claim.metadata.annotations) = (None, None);
    claim
}

fn template() -> Value {
    json!({ "spec": { "metadata": { "labels": { "l": "1" }, "annotations": { "a": "2" } },
        "spec": { "devices": { "requests": [] } } } })
}

fn lines(plan: &Plan) -> Vec<String> {
    let line = |action: &Action| match action {
        Action::Read(request) => format!("read {}/{}", request.resource.plural, request.name),
        Action::Event(note) => format!("{}: {}", note.reason, note.message),
        Action::Write(write) => {
            let (verb, body) = (write.request.verb, &write.request.body);
            let what = match (verb, write.request.subresource) {
                (Verb::Create, _) => &body["metadata"]["generateName"],
                (_, "status") => &body["status"],
                _ => &body["metadata"]["finalizers"],
            };
            format!("{verb:?} {} {what}", write.request.name)
        }
        Action::SlowStart(_) => "slow start".into(),
    };
    plan.actions.iter().map(line).collect()
}

/// What is done for a pod, or for the claim of a key, with what the server answers.
fn check(stores: &Stores, key: &str, answers: &[(&str, Option<Value>)], want: &[&str]) {
    let controller = ResourceClaims::default();
    check_with(&controller, stores, key, answers, want);
}

fn check_with(
    controller: &ResourceClaims,
    stores: &Stores,
    key: &str,
    answers: &[(&str, Option<Value>)],
    want: &[&str],
) {
    let key = Name::new("ns", key);
    for (name, answer) in answers {
        let asked =
            Request::new(Verb::Get, crate::server::controllers::stores::row(TEMPLATES), "ns", name, Value::Null);
        controller.learn(&key, &asked, answer.clone());
    }
    let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, failure: None };
    assert_eq!(lines(&controller.plan(stores, &key, moment)), want, "{key:?}");
}

fn stores(pods: Vec<Pod>, claims: Vec<ResourceClaim>) -> Stores {
    let stores = Stores::new();
    pods.into_iter().for_each(|p| stores.pods.put(p));
    claims.into_iter().for_each(|c| stores.resource_claims.put(c));
    stores
}

#[test]
fn a_template_makes_a_claim_and_its_name_is_recorded() {
    let none = json!({});
    let new = stores(vec![pod(&none)], vec![]);
    check(&new, "p", &[], &["read resourceclaimtemplates/t"]);
    check(&new, "p", &[("t", Some(template()))], &[r#"Create  "p-gpu-""#]);
    let missing = "FailedResourceClaimCreation: PodResourceClaim gpu: resource claim template \"t\": \
                   resourceclaimtemplate.resource.k8s.io \"t\" not found";
    check(&new, "p", &[("t", None)], &[missing]);
    let status = json!([{ "name": "gpu", "resourceClaimName": "p-gpu-x" }]);
    let record = format!("StrategicPatch p {}", json!({ "resourceClaimStatuses": status }));
    check(&stores(vec![pod(&none)], vec![made("p-gpu-x", &none)]), "p", &[], &[&record]);
    let recorded = json!({ "/status/resourceClaimStatuses": status });
    check(&stores(vec![pod(&recorded)], vec![made("p-gpu-x", &none)]), "p", &[], &[]);
    check(&stores(vec![pod(&recorded)], vec![]), "p", &[], &["read resourceclaimtemplates/t"]);
    let mut foreign = made("p-gpu-x", &none);
    foreign.metadata.owner_references = None;
    check(&stores(vec![pod(&recorded)], vec![foreign]), "p", &[], &["read resourceclaimtemplates/t"]);
    let not_needed = json!({ "/status/resourceClaimStatuses": [{ "name": "gpu" }] });
    check(&stores(vec![pod(&not_needed)], vec![]), "p", &[], &[]);
    for over in [json!({ "/status/phase": "Failed" }), json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" })]
    {
        check(&stores(vec![pod(&over)], vec![]), "p", &[], &[]);
    }
}

#[test]
fn a_claim_in_full() {
    let answers = [("t".to_owned(), Some(template()))].into();
    let plan = of_pod::plan(&pod(&json!({})), |_| None, &[], &answers);
    let [Action::Write(write)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    let want = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "generateName": "p-gpu-", "namespace": "ns", "labels": { "l": "1" },
            "annotations": { "a": "2", "resource.kubernetes.io/pod-claim-name": "gpu" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true,
                "blockOwnerDeletion": true }] },
        "spec": { "devices": { "requests": [] } },
    });
    assert_eq!(write.request.body, want);
    let long = json!({ "/metadata/name": "p".repeat(100), "/spec/resourceClaims/0/name": "c".repeat(50) });
    let plan = of_pod::plan(&pod(&long), |_| None, &[], &answers);
    let [Action::Write(write)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    let name = format!("{}-{}", "p".repeat(37), "c".repeat(18));
    assert_eq!(write.request.body["metadata"]["generateName"], name);
}

#[test]
fn a_pod_that_the_scheduler_did_not_place_reserves_its_claims() {
    let on_node = json!({ "/spec/nodeName": "n", "/status/resourceClaimStatuses": [{ "name": "gpu" }] });
    let allocated = json!({ "/status/allocation": {} });
    let reserve = r#"MergePatch shared {"reservedFor":[{"name":"p","resource":"pods","uid":"u"}]}"#;
    check(&stores(vec![pod(&on_node)], vec![shared(&allocated)]), "p", &[], &[reserve]);
    check(&stores(vec![pod(&on_node)], vec![shared(&json!({}))]), "p", &[], &[]);
    check(
        &stores(vec![pod(&json!({ "/status/resourceClaimStatuses": [{ "name": "gpu" }] }))], vec![shared(&allocated)]),
        "p",
        &[],
        &[],
    );
    let reserved = json!({ "/status/allocation": {},
        "/status/reservedFor": [{ "resource": "pods", "name": "p", "uid": "u" }] });
    check(&stores(vec![pod(&on_node)], vec![shared(&reserved)]), "p", &[], &[]);
}

#[test]
fn reservations_end_with_their_pods() {
    let by = |users: &[(&str, &str)]| {
        let users: Vec<Value> = users.iter().map(|(n, u)| json!({ "resource": "pods", "name": n, "uid": u })).collect();
        shared(
            &json!({ "/metadata/finalizers": ["other", FINALIZER], "/status/allocation": {}, "/status/reservedFor": users }),
        )
    };
    let (running, finished) = (pod(&json!({})), pod(&json!({ "/status/phase": "Succeeded" })));
    let key = "claim:shared";
    let clear = r#"MergePatch shared {"allocation":null,"reservedFor":null}"#;
    check(&stores(vec![running.clone()], vec![by(&[("p", "u")])]), key, &[], &[]);
    check(&stores(vec![finished], vec![by(&[("p", "u")])]), key, &[], &[clear]);
    check(&stores(vec![running.clone()], vec![by(&[("p", "another")])]), key, &[], &[clear]);
    let going = pod(&json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" }));
    check(&stores(vec![going], vec![by(&[("p", "u")])]), key, &[], &[clear]);
    let ending = json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z", "/spec/nodeName": "n" });
    check(&stores(vec![pod(&ending)], vec![by(&[("p", "u")])]), key, &[], &[]);
    let two = stores(vec![running], vec![by(&[("p", "u"), ("q", "v")])]);
    check(&two, key, &[], &["read pods/q"]);
    let kept = r#"MergePatch shared {"reservedFor":[{"name":"p","resource":"pods","uid":"u"}]}"#;
    check(&two, key, &[("q", None)], &[kept]);
    check(&two, key, &[("q", Some(json!({ "metadata": { "uid": "v" } })))], &[]);
    let mut others = by(&[("p", "u")]);
    others.status.as_mut().unwrap().reserved_for.as_mut().unwrap()[0].resource = "jobs".into();
    check(&stores(vec![], vec![others]), key, &[], &[]);
}

#[test]
fn a_claim_that_was_released_needs_its_finalizer_no_more() {
    let controller = ResourceClaims::default();
    let protected = json!({ "/metadata/finalizers": ["other", FINALIZER] });
    let used = json!({ "/metadata/finalizers": ["other", FINALIZER], "/status/allocation": {},
        "/status/reservedFor": [{ "resource": "pods", "name": "p", "uid": "gone" }] });
    let stores = stores(vec![pod(&json!({}))], vec![shared(&protected)]);
    check_with(&controller, &stores, "claim:shared", &[], &[]);
    stores.resource_claims.put(shared(&used));
    check_with(
        &controller,
        &stores,
        "claim:shared",
        &[],
        &[r#"MergePatch shared {"allocation":null,"reservedFor":null}"#],
    );
    stores.resource_claims.put(shared(&protected));
    check_with(&controller, &stores, "claim:shared", &[], &[r#"MergePatch shared ["other"]"#]);
    stores.resource_claims.put(shared(&json!({ "/metadata/finalizers": ["other"] })));
    check_with(&controller, &stores, "claim:shared", &[], &[]);
    stores.resource_claims.put(shared(&protected));
    check_with(&controller, &stores, "claim:shared", &[], &[]);
    let going = json!({ "/metadata/finalizers": [FINALIZER], "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" });
    stores.resource_claims.put(shared(&going));
    check_with(&controller, &stores, "claim:shared", &[], &["MergePatch shared []"]);
    let mut allocated = shared(&going);
    allocated.status = Some(serde_json::from_value(json!({ "allocation": {} })).unwrap());
    stores.resource_claims.put(allocated);
    check_with(
        &controller,
        &stores,
        "claim:shared",
        &[],
        &[r#"MergePatch shared {"allocation":null,"reservedFor":null}"#],
    );
}

#[test]
fn a_claim_made_for_a_pod_goes_when_the_pod_is_done() {
    let key = "claim:p-gpu-x";
    let claim = || made("p-gpu-x", &json!({}));
    check(&stores(vec![pod(&json!({}))], vec![claim()]), key, &[], &[]);
    check(&stores(vec![], vec![claim()]), key, &[], &[]);
    let delete = ["Delete p-gpu-x null"];
    check(&stores(vec![pod(&json!({ "/status/phase": "Failed" }))], vec![claim()]), key, &[], &delete);
    check(&stores(vec![pod(&json!({ "/metadata/uid": "new" }))], vec![claim()]), key, &[], &delete);
}

#[test]
fn what_was_made_for_extended_resources_ends_with_its_pod() {
    let status = json!({ "resourceClaimName": "x", "requestMappings": [] });
    let asks = |phase: &str| {
        pod(
            &json!({ "/spec/resourceClaims": [], "/status": { "phase": phase, "extendedResourceClaimStatus": status } }),
        )
    };
    let used = json!({ "reservedFor": [{ "resource": "pods", "name": "p", "uid": "u" }], "allocation": {} });
    let annotated = json!({ "resource.kubernetes.io/extended-resource-claim": "true" });
    let claim =
        made("x", &json!({ "/status": used, "/metadata/annotations": annotated, "/metadata/finalizers": [FINALIZER] }));
    check(&stores(vec![asks("Running")], vec![claim.clone()]), "claim:x", &[], &[]);
    let free = r#"MergePatch x {"allocation":null,"reservedFor":null}"#;
    let over = stores(vec![asks("Succeeded")], vec![claim]);
    check(&over, "claim:x", &[], &[free, "Delete x null"]);
    // The pod is all that is heard of.
    let (stores, queue) = (Arc::new(Stores::new()), Arc::new(Queue::new([].into())));
    ResourceClaims::default().wire(&stores, &Enqueue { queue: Arc::clone(&queue), controller: 0 });
    stores.pods.put(asks("Running"));
    assert!(queue.next().now_or_never().is_none());
    stores.pods.put(asks("Succeeded"));
    assert_eq!(queue.next().now_or_never().map(|key| key.name), Some(Name::new("ns", "claim:x")));
}
