//! Fair use over HTTP: with FlowSchemas and priority levels as they are stored, and with the controllers that keep
//! them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, stream};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use skiff::api::flowcontrol;
use skiff::api::user::User;
use skiff::server::controllers;
use skiff::server::http::client;
use skiff::server::http::nodes::Nodes;
use skiff::server::http::service::{Identity, Service};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Answer, Server, controllers_config};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DUMP: &str = "/debug/api_priority_and_fairness";

fn user(name: &str) -> User {
    User::new(name, &["system:authenticated"])
}

/// A server with few seats, what a cluster begins with, and a user named `noisy` who may do anything, like every other.
async fn busy(seats: u32) -> Server {
    let server = Server::of(Nodes::new(skiff::pki::tls::unverified().unwrap()), seats, None).await;
    let levels = [flowcontrol::mandatory_priority_levels(), flowcontrol::suggested_priority_levels()].concat();
    for level in levels {
        created(&server, "prioritylevelconfigurations", &json!(level)).await;
    }
    for schema in [flowcontrol::mandatory_flow_schemas(), flowcontrol::suggested_flow_schemas()].concat() {
        created(&server, "flowschemas", &json!(schema)).await;
    }
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "all"}, "rules": [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["get"], "nonResourceURLs": ["/readyz"]}]});
    assert_eq!(server.post(&format!("{rbac}/clusterroles"), &role).await.code, 201);
    let binding = json!({"metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"}]});
    assert_eq!(server.post(&format!("{rbac}/clusterrolebindings"), &binding).await.code, 201);
    server
}

async fn created(server: &Server, plural: &str, object: &Value) -> Value {
    let answer = server.post(&format!("{GROUP}/{plural}"), object).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    answer.json()
}

/// A level of one seat that borrows none, for what users do with config maps; and the schema for it.
async fn people(server: &Server, queuing: &Value) -> (Value, Value) {
    let subjects = ["noisy", "quiet"].map(|name| json!({"kind": "User", "user": {"name": name}}));
    let tiny = json!({"metadata": {"name": "tiny"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1,
        "borrowingLimitPercent": 0, "limitResponse": {"type": "Queue", "queuing": queuing}}}});
    let schema = json!({"metadata": {"name": "people"}, "spec": {"matchingPrecedence": 50,
        "priorityLevelConfiguration": {"name": "tiny"}, "distinguisherMethod": {"type": "ByUser"}, "rules": [{
            "subjects": subjects,
            "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["default"]}]}]}});
    (created(server, "prioritylevelconfigurations", &tiny).await, created(server, "flowschemas", &schema).await)
}

async fn ask(service: &Service, who: &User, method: &str, uri: &str, body: impl Into<Bytes>) -> Answer {
    let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    let body = skiff::server::http::body::full(body);
    Answer::of(service.respond(request.extension(Identity(who.clone())).body(body).unwrap()).await).await
}

/// Creates that are under way until their bodies are sent.
struct Slow {
    running: JoinSet<u16>,
    bodies: Arc<Semaphore>,
}

impl Slow {
    fn start(server: &Server, who: &str, count: usize) -> Self {
        let mut slow = Self { running: JoinSet::new(), bodies: Arc::new(Semaphore::new(0)) };
        for n in 0..count {
            let sent = slow.bodies.clone();
            let map = json!({"metadata": {"name": format!("{who}-{n}")}}).to_string();
            let frames = stream::once(async move {
                sent.acquire().await.unwrap().forget();
                Ok(Frame::data(Bytes::from(map)))
            });
            let request = Request::builder().method("POST").uri(MAPS).header("content-type", "application/json");
            let request = request.extension(Identity(user(who))).body(StreamBody::new(frames).boxed_unsync()).unwrap();
            let service = server.service.clone();
            slow.running.spawn(async move { service.respond(request).await.status().as_u16() });
        }
        slow
    }

    /// Sends the body of one that runs, and waits for an answer.
    async fn end_one(&mut self) -> u16 {
        self.bodies.add_permits(1);
        self.running.join_next().await.unwrap().unwrap()
    }
}

/// Running and waiting requests of a level, by the dump that operators see.
async fn level(server: &Server, name: &str) -> (usize, usize) {
    let text = server.get(&format!("{DUMP}/dump_priority_levels")).await.text;
    let row = text.lines().find(|l| l.starts_with(&format!("{name},"))).unwrap_or_else(|| panic!("no {name}: {text}"));
    let columns: Vec<&str> = row.split(',').map(str::trim).collect();
    (columns[5].parse().unwrap(), columns[4].parse().unwrap())
}

async fn wait_for<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let seen = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), seen).await.is_ok(), "not in time: {what}");
}

/// One user with slow requests has neither the seats of nodes nor those of other users for itself.
#[tokio::test]
async fn a_noisy_user_delays_nobody_beyond_their_turn() {
    let server = busy(20).await;
    let namespace = json!({"metadata": {"name": "kube-node-lease"}});
    assert_eq!(server.post("/api/v1/namespaces", &namespace).await.code, 201);
    let node = User::new("system:node:a", &["system:nodes", "system:authenticated"]);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "a"}}).to_string();
    let lease = ask(&server.service, &node, "POST", leases, lease).await;
    assert_eq!(lease.code, 201, "{}", lease.text);

    people(&server, &json!({"queues": 64, "handSize": 1, "queueLengthLimit": 50})).await;
    let mut slow = Slow::start(&server, "noisy", 40);
    wait_for("all to have come", || async { level(&server, "tiny").await == (1, 39) }).await;

    // A heartbeat goes through while all of them are as they were.
    let beat = ask(&server.service, &node, "PUT", &format!("{leases}/a"), lease.text).await;
    assert_eq!(beat.code, 200, "{}", beat.text);
    assert_eq!(level(&server, "tiny").await, (1, 39));
    // So does an administrator, and a probe.
    assert_eq!(server.get(MAPS).await.code, 200);
    assert_eq!(ask(&server.service, &user("noisy"), "GET", "/readyz", "").await.code, 200);

    // Another user of the same level has its turn, though 39 came before.
    let (service, quiet) = (server.service.clone(), user("quiet"));
    let mut others = JoinSet::new();
    others.spawn(async move { ask(&service, &quiet, "GET", MAPS, "").await.code });
    wait_for("its place", || async { server.get(&format!("{DUMP}/dump_requests")).await.text.contains("quiet") }).await;
    let text = server.get(&format!("{DUMP}/dump_requests?includeRequestDetails=1")).await.text;
    assert!(text.lines().any(|l| l.contains("quiet,") && l.contains("list,") && l.contains(MAPS)), "{text}");
    assert!(server.get(&format!("{DUMP}/dump_queues")).await.text.contains("tiny,"));
    let mut ended = 0;
    while server.get(&format!("{DUMP}/dump_requests")).await.text.contains("quiet") {
        assert_eq!(slow.end_one().await, 201);
        ended += 1;
        assert!(ended <= 3, "{ended} went before it");
    }
    assert_eq!(others.join_next().await.unwrap().unwrap(), 200);
    // Who goes away leaves nothing behind.
    slow.running.shutdown().await;
    wait_for("all to be gone", || async { level(&server, "tiny").await == (0, 0) }).await;
}

/// What is too much is sent away with 429, and told when to come back; who it was for is told by UIDs.
#[tokio::test]
async fn what_is_too_much_is_sent_away() {
    let server = busy(20).await;
    let (tiny, schema) = people(&server, &json!({"queues": 1, "handSize": 1, "queueLengthLimit": 2})).await;
    let mut slow = Slow::start(&server, "noisy", 3);
    wait_for("a full queue", || async { level(&server, "tiny").await == (1, 2) }).await;

    let refused = ask(&server.service, &user("noisy"), "GET", MAPS, "").await;
    assert_eq!((refused.code, refused.text.as_str()), (429, "Too many requests, please try again later.\n"));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(refused.headers["x-kubernetes-pf-flowschema-uid"], schema["metadata"]["uid"].as_str().unwrap());
    assert_eq!(refused.headers["x-kubernetes-pf-prioritylevel-uid"], tiny["metadata"]["uid"].as_str().unwrap());
    // Of another resource, it is for another level.
    assert_eq!(ask(&server.service, &user("noisy"), "GET", "/api/v1/namespaces/default/pods", "").await.code, 200);
    // A watch is under way once its first events are; it waits for its turn until then.
    let watch = ask(&server.service, &user("noisy"), "GET", &format!("{MAPS}?watch=1"), "").await;
    assert_eq!(watch.code, 429);

    assert_eq!(slow.end_one().await, 201);
    wait_for("the next one to run", || async { level(&server, "tiny").await == (1, 1) }).await;
    // A quarter of the time that it has is for waiting.
    let late = ask(&server.service, &user("noisy"), "GET", &format!("{MAPS}?timeout=40ms"), "").await;
    assert_eq!(late.code, 429);
    let metrics = server.get("/metrics").await.text;
    let counted = |name: &str, labels: &str| {
        let line = metrics.lines().find(|l| l.starts_with(&format!("apiserver_flowcontrol_{name}{{{labels}}} ")));
        line.and_then(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
    };
    let noisy = "priority_level=\"tiny\",flow_schema=\"people\"";
    assert_eq!(counted("rejected_requests_total", &format!("{noisy},reason=\"queue-full\"")), Some(2));
    assert_eq!(counted("rejected_requests_total", &format!("{noisy},reason=\"time-out\"")), Some(1));
    assert_eq!(counted("dispatched_requests_total", noisy), Some(2));
    assert_eq!(counted("current_executing_requests", noisy), Some(1));
    assert_eq!(counted("current_inqueue_requests", noisy), Some(1));
    assert_eq!(counted("nominal_limit_seats", "priority_level=\"tiny\""), Some(1));

    // An edit is live: it no longer queues. Then it has more seats, and those who wait get them.
    let edit = json!({"spec": {"limited": {"limitResponse": {"type": "Reject", "queuing": null}}}});
    let path = format!("{GROUP}/prioritylevelconfigurations/tiny");
    assert_eq!(server.patch(&path, "application/merge-patch+json", &edit).await.code, 200);
    assert_eq!(ask(&server.service, &user("noisy"), "GET", MAPS, "").await.code, 429);
    let edit = json!({"spec": {"limited": {"nominalConcurrencyShares": 100}}});
    assert_eq!(server.patch(&path, "application/merge-patch+json", &edit).await.code, 200);
    let fine = ask(&server.service, &user("noisy"), "GET", MAPS, "").await;
    assert_eq!(fine.code, 200);
    assert_eq!(fine.headers["x-kubernetes-pf-flowschema-uid"], schema["metadata"]["uid"].as_str().unwrap());
    assert_eq!(level(&server, "tiny").await, (2, 0));
    // Nobody else may look at the queues.
    assert_eq!(ask(&server.service, &user("noisy"), "GET", &format!("{DUMP}/dump_queues"), "").await.code, 403);
    assert_eq!(server.get(&format!("{DUMP}/dump_other")).await.code, 404);
}

/// A watch holds its seat until what was there at its start has been sent, and not longer.
#[tokio::test]
async fn a_watch_holds_its_seat_until_it_is_under_way() {
    let server = busy(600).await;
    let request = Request::builder().uri(format!("{MAPS}?watch=1")).extension(Identity(user("ann")));
    let request = request.body(skiff::server::http::body::empty()).unwrap();
    let mut watch = server.service.respond(request).await;
    assert_eq!((watch.status().as_u16(), level(&server, "global-default").await), (200, (1, 0)));
    assert!(watch.body_mut().frame().now_or_never().is_none(), "nothing was there");
    assert_eq!(level(&server, "global-default").await, (0, 0));
    assert_eq!(server.post(MAPS, &json!({"metadata": {"name": "a"}})).await.code, 201);
    let frame = watch.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(frame.starts_with(b"{\"type\":\"ADDED\""));
}

struct Running {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Running {
    fn start(server: &Server) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let config = controllers_config(server);
        let client = client(&server.service, User::new("system:kube-controller-manager", &["system:masters"]));
        let end = stop.clone();
        tasks.spawn(async move {
            let _ = controllers::run(client, config, end).await;
        });
        Self { tasks, stop }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn dangling(schema: &Value) -> Option<(String, String)> {
    let condition = schema["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Dangling")?;
    Some((condition["status"].as_str()?.to_owned(), condition["reason"].as_str()?.to_owned()))
}

fn says(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.to_owned(), reason.to_owned()))
}

async fn named(server: &Server, plural: &str, name: &str) -> Value {
    server.get(&format!("{GROUP}/{plural}/{name}")).await.json()
}

#[tokio::test]
async fn what_a_cluster_begins_with_is_kept() {
    let server = Server::new().await;
    let running = Running::start(&server);
    let all =
        async |plural: &str| server.get(&format!("{GROUP}/{plural}")).await.json()["items"].as_array().unwrap().clone();
    wait_for("all of them", || async {
        let schemas = all("flowschemas").await;
        let found = schemas.iter().filter(|s| dangling(s) == says("False", "Found")).count();
        (found, schemas.len(), all("prioritylevelconfigurations").await.len()) == (11, 11, 8)
    })
    .await;
    let schemas = all("flowschemas").await;
    assert!(schemas.iter().all(|s| s["metadata"]["generation"] == 1), "none was written twice but its status");
    running.stop().await;

    // Started again it writes nothing.
    let running = Running::start(&server);
    let schema = json!({"metadata": {"name": "mine"}, "spec": {"priorityLevelConfiguration": {"name": "none"}, "rules": [{
        "subjects": [{"kind": "User", "user": {"name": "me"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    created(&server, "flowschemas", &schema).await;
    wait_for("a dangling schema", || async {
        dangling(&named(&server, "flowschemas", "mine").await) == says("True", "NotFound")
    })
    .await;
    for before in &schemas {
        let name = before["metadata"]["name"].as_str().unwrap();
        assert_eq!(&named(&server, "flowschemas", name).await, before, "{name} was written again");
    }
    let level = json!({"metadata": {"name": "none"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}});
    created(&server, "prioritylevelconfigurations", &level).await;
    wait_for("its level", || async {
        dangling(&named(&server, "flowschemas", "mine").await) == says("False", "Found")
    })
    .await;

    // Mandatory ones come back; suggested ones are put right, unless their annotation says otherwise.
    for (plural, name) in [("flowschemas", "catch-all"), ("prioritylevelconfigurations", "system")] {
        let uid = named(&server, plural, name).await["metadata"]["uid"].clone();
        assert_eq!(server.delete(&format!("{GROUP}/{plural}/{name}"), &json!({})).await.code, 200);
        wait_for("it to come back", || async {
            let back = named(&server, plural, name).await["metadata"]["uid"].clone();
            back.is_string() && back != uid
        })
        .await;
    }
    let path = format!("{GROUP}/flowschemas/probes");
    let edit = |precedence: u32| json!({"spec": {"matchingPrecedence": precedence}});
    assert_eq!(server.patch(&path, "application/merge-patch+json", &edit(77)).await.code, 200);
    wait_for("the suggestion", || async {
        named(&server, "flowschemas", "probes").await["spec"]["matchingPrecedence"] == 2
    })
    .await;
    let mine = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}});
    assert_eq!(server.patch(&path, "application/merge-patch+json", &mine).await.code, 200);
    assert_eq!(server.patch(&path, "application/merge-patch+json", &edit(78)).await.code, 200);
    let annotation = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}});
    let old = format!("{GROUP}/prioritylevelconfigurations/none");
    assert_eq!(server.patch(&old, "application/merge-patch+json", &annotation).await.code, 200);
    wait_for("what is no longer ours to go", || async {
        dangling(&named(&server, "flowschemas", "mine").await) == says("True", "NotFound")
    })
    .await;
    assert_eq!(named(&server, "flowschemas", "probes").await["spec"]["matchingPrecedence"], 78);
    running.stop().await;
}
