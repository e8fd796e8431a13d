//! Stories: the server is away for an hour, and pods come, change and go while it is, in simulated time.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Node, POD, is_ready, one, pod};
use crate::clock;
use crate::cri::{ExecResult, Runtime as _};

const SECONDS: u32 = 3600;
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
const SETTINGS: &str = "/api/v1/namespaces/ns/configmaps/settings";

/// `web` is looked after by a probe, `crash` is what the story ends again and again. They need what the API has: a
/// ConfigMap, and a token that must be replaced within the hour.
fn busy() -> Value {
    let container = |name: &str| {
        json!({"name": name, "image": "busybox:1", "imagePullPolicy": "IfNotPresent",
            "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "t", "mountPath": "/t"}]})
    };
    let mut web = container("web");
    web["livenessProbe"] = json!({"exec": {"command": ["check"]}, "periodSeconds": 10});
    pod(json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 1, "containers": [web, container("crash")],
        "volumes": [{"name": "v", "configMap": {"name": "settings"}},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}))
}

fn restarts(status: &Value, name: &str) -> Option<u64> {
    let found = status["containerStatuses"].as_array()?.iter().find(|container| container["name"] == name)?;
    found["restartCount"].as_u64()
}

/// When it was asked for what, in seconds since `began`.
fn by_request(missed: Vec<(Instant, String)>, began: Instant) -> BTreeMap<String, Vec<u64>> {
    let mut requests: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (at, request) in missed {
        requests.entry(request).or_default().push(at.duration_since(began).as_secs());
    }
    requests
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_a_server() {
    clock::simulated::set("2026-01-01T00:00:00Z".parse().expect("a time"));
    let mut node = Node::new();
    node.api.put(SETTINGS, json!({"metadata": {"name": "settings", "namespace": "ns"}, "data": {"k": "1"}}));
    let cx = node.start();
    node.api.put(POD, busy());
    node.status_when("ready", is_ready).await;
    node.until("lease", || node.api.get(LEASE)).await;
    // What is told of the start is told.
    tokio::time::sleep(Duration::from_secs(60)).await;

    node.api.set_down(true);
    let (began, probed, started) = (clock::instant(), node.calls_of("ExecSync"), node.calls_of("StartContainer"));
    for second in 0..SECONDS {
        node.runtime.exit("u1", "crash", 1);
        if second == SECONDS / 2 {
            node.runtime.on_exec("check", ExecResult { exit_code: 1, ..ExecResult::default() });
        }
        if node.calls_of("StopContainer") == 1 {
            node.runtime.on_exec("check", ExecResult::default());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (probed, started) = (node.calls_of("ExecSync") - probed, node.calls_of("StartContainer") - started);
    assert!((350..=370).contains(&probed), "every ten seconds: {probed}");
    assert_eq!((node.calls_of("StopContainer"), node.calls_of("RunPodSandbox")), (1, 1), "as the probe said");
    // At once, after 10 s, 20 s, and so on up to five minutes; and the one with the probe.
    assert!((16..=19).contains(&started), "{started}");
    let known = || serde_json::to_value(&*cx.pods.by_uid("u1").expect("it goes on").status).expect("a status");
    assert_eq!(restarts(&known(), "web"), Some(1));
    assert_eq!(restarts(&known(), "crash"), Some(started as u64 - 1));
    assert_eq!(restarts(&node.api.get(POD).expect("there")["status"], "crash"), Some(0), "nobody could be told");

    let requests = by_request(node.api.missed(), began);
    let most = |request: &str| match request {
        "PATCH /api/v1/namespaces/ns/pods/p/status" => 120,
        // The lease is renewed every ten seconds, and the node's conditions go with it.
        request if request.starts_with("PATCH ") && request.contains("/n1") => 370,
        request if request.ends_with("/token") => 60,
        // Lists and watches: every five seconds.
        request if request.starts_with("GET ") => 740,
        _ => 40,
    };
    for (request, times) in &requests {
        assert!(times.len() <= most(request), "{request}: {} times", times.len());
    }
    let told = &requests["PATCH /api/v1/namespaces/ns/pods/p/status"];
    assert!(told.windows(2).skip(6).all(|pair| pair[1] - pair[0] >= 32), "{told:?}");
    let events: usize = requests.iter().filter(|(request, _)| request.contains("/events")).map(|(_, t)| t.len()).sum();
    assert!(events <= 80, "25 of an object, and one each five minutes: {events}");

    node.api.set_down(false);
    let back = clock::now();
    tokio::time::sleep(Duration::from_secs(40)).await;
    let told = node.api.get(POD).expect("there")["status"].clone();
    assert_eq!((restarts(&told, "web"), restarts(&told, "crash")), (Some(1), restarts(&known(), "crash")));
    let renewed = node.api.get(LEASE).expect("there")["spec"]["renewTime"].clone();
    let renewed: Timestamp = renewed.as_str().expect("a time").parse().expect("a time");
    assert!(renewed.duration_since(back) > SignedDuration::from_secs(20), "{renewed} and {back}");
    assert!(is_ready(&node.api.get("/api/v1/nodes/n1").expect("there")["status"]));
    node.halt().await;
}

fn at(name: &str) -> String {
    format!("/api/v1/namespaces/ns/pods/{name}")
}

fn named(name: &str, uid: &str) -> Value {
    let mut pod = one("Always");
    (pod["metadata"]["name"], pod["metadata"]["uid"]) = (json!(name), json!(uid));
    pod
}

/// Whoever made them did so at another server, or by a way that this node could not be reached by.
#[tokio::test(start_paused = true)]
async fn pods_that_came_changed_and_went_meanwhile() {
    for history in [true, false] {
        let mut node = Node::new();
        node.runtime.add_image("busybox:2", 1);
        node.start();
        let ready = |name: &str| node.api.get(&at(name)).filter(|pod| is_ready(&pod["status"]));
        for name in ["stays", "changes", "goes", "vanishes", "again"] {
            node.api.put(&at(name), named(name, name));
        }
        for name in ["stays", "changes", "goes", "vanishes", "again"] {
            node.until(name, || ready(name)).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let calls = ["RunPodSandbox", "StartContainer", "StopContainer", "StopPodSandbox"];
        let done = || calls.map(|call| node.calls_of(call));
        assert_eq!(done(), [5, 5, 0, 0]);

        node.api.set_down(true);
        tokio::time::sleep(Duration::from_secs(30)).await;
        node.api.put(&at("comes"), named("comes", "comes"));
        let mut changes = node.api.get(&at("changes")).expect("there");
        changes["spec"]["containers"][0]["image"] = json!("busybox:2");
        changes["metadata"]["generation"] = json!(2);
        node.api.put(&at("changes"), changes);
        let mut goes = node.api.get(&at("goes")).expect("there");
        goes["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        goes["metadata"]["deletionGracePeriodSeconds"] = json!(1);
        node.api.put(&at("goes"), goes);
        node.api.remove(&at("vanishes"));
        // Another one of the same name, as a StatefulSet makes it.
        node.api.remove(&at("again"));
        node.api.put(&at("again"), named("again", "again-2"));
        // Nobody here has ever heard of it.
        node.api.put(&at("brief"), named("brief", "brief"));
        node.api.remove(&at("brief"));
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(done(), [5, 5, 0, 0], "nobody could tell the node");

        if !history {
            node.api.forget_history();
        }
        node.api.set_down(false);
        tokio::time::sleep(Duration::from_secs(60)).await;
        for name in ["stays", "comes", "changes", "again"] {
            let pod = ready(name).unwrap_or_else(|| panic!("{name}: {:?}", node.api.get(&at(name))));
            let restarts = if name == "changes" { 1 } else { 0 };
            assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], restarts, "{name}");
        }
        let image = node.api.get(&at("changes")).expect("there")["status"]["containerStatuses"][0]["image"].clone();
        assert_eq!(image, "busybox:2");
        assert_eq!(node.api.get(&at("goes")), None);
        let mut sandboxes: Vec<String> =
            node.runtime.sandboxes(None).await.expect("listed").into_iter().map(|sandbox| sandbox.pod_uid).collect();
        sandboxes.sort();
        assert_eq!(sandboxes, ["again-2", "changes", "comes", "stays"]);
        // The two that came, and the new container of the one that changed; what was seen for a moment at most may have
        // been begun, but for one sandbox.
        let [ran, started, ..] = done();
        let brief = ran - 7;
        assert!(brief <= usize::from(history), "{ran}");
        assert!((8..=8 + brief).contains(&started), "{started}");
        node.halt().await;
    }
}
