//! Decides: what happens in the cluster: what users want of it, and what befalls it.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::checks::{CONTROLLERS, DRAINER, SCHEDULER, app, is_active, name, number, text};
use super::world::{NAMESPACE, World};
use crate::client::request::{Error, Request, Verb};
use crate::clock::simulated;
use crate::server::controllers::stores::row;

pub const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// How long a drain asks for one eviction again.
const DRAINS: usize = 20;

fn template(app: &str, image: &str, cpu: usize) -> Value {
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": false,
            "tolerations": [
                { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 },
                { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 },
            ],
            "containers": [{ "name": "c", "image": image, "readinessProbe": { "exec": { "command": ["true"] } },
                "resources": { "requests": { "cpu": format!("{cpu}m") } } }],
        },
    })
}

/// What users want at first: one workload of each kind, and a pod and a map that are nobody's.
pub async fn begin(world: &World) {
    let dice = &world.dice;
    let selector = |app: &str| json!({ "matchLabels": { "app": app } });
    for web in ["web", "api"] {
        let surge = dice.below(3);
        let unavailable = dice.below(2) + usize::from(surge == 0);
        world.create("apps/deployments", json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": web, "labels": { "app": web } },
            "spec": {
                "replicas": 1 + dice.below(6), "selector": selector(web), "revisionHistoryLimit": 2,
                "minReadySeconds": dice.below(2) * 5, "template": template(web, "v1", 500),
                "strategy": { "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } },
            },
        })).await;
    }
    let policy = if dice.chance(500) { "OrderedReady" } else { "Parallel" };
    world
        .create(
            "apps/statefulsets",
            json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "db", "labels": { "app": "db" } },
                "spec": { "replicas": 3, "serviceName": "db", "selector": selector("db"), "podManagementPolicy": policy,
                    "template": template("db", "v1", 700) },
            }),
        )
        .await;
    let rolling = match dice.below(2) {
        0 => json!({ "maxSurge": 0, "maxUnavailable": 1 + dice.below(2) }),
        _ => json!({ "maxSurge": 1, "maxUnavailable": 0 }),
    };
    world.create("apps/daemonsets", json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "agent", "labels": { "app": "agent" } },
        "spec": { "selector": selector("agent"), "updateStrategy": { "rollingUpdate": rolling },
            "template": template("agent", "v1", 100) },
    })).await;
    job(world, 0).await;
    let mut alone = template("alone", "v1", 100);
    alone["metadata"]["name"] = "alone".into();
    alone["spec"]["tolerations"] = json!([{ "operator": "Exists" }]);
    (alone["apiVersion"], alone["kind"]) = ("v1".into(), "Pod".into());
    world.create("pods", alone).await;
    for (of, least) in [("db", 2), ("web", 1)] {
        world
            .create(
                "policy/poddisruptionbudgets",
                json!({
                    "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": of },
                    "spec": { "minAvailable": least, "selector": selector(of) },
                }),
            )
            .await;
    }
}

async fn job(world: &World, number: u64) {
    let mut template = template("work", "v1", 200);
    template["spec"]["restartPolicy"] = if world.dice.chance(500) { "Never" } else { "OnFailure" }.into();
    let indexed = world.dice.chance(500);
    world.create("batch/jobs", json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": format!("work-{number}") },
        "spec": { "completions": 1 + world.dice.below(5), "parallelism": 1 + world.dice.below(3), "backoffLimit": 100,
            "completionMode": if indexed { "Indexed" } else { "NonIndexed" }, "template": template },
    })).await;
}

/// One thing that happens.
pub async fn step(world: &mut World, number: u64) {
    let dice = world.dice.clone();
    let node = *dice.one(&NODES).unwrap();
    match dice.below(100) {
        0..14 => {
            let of = *dice.one(&["web", "api"]).unwrap();
            world.patch("apps/deployments", of, json!({ "spec": { "replicas": dice.below(7) } })).await;
        }
        14..28 => {
            let (storage, of) = *dice
                .one(&[
                    ("apps/deployments", "web"),
                    ("apps/deployments", "api"),
                    ("apps/statefulsets", "db"),
                    ("apps/daemonsets", "agent"),
                ])
                .unwrap();
            let image = format!("v{}", 1 + dice.below(4));
            let spec = json!({ "containers": [{ "name": "c", "image": image }] });
            world.patch(storage, of, json!({ "spec": { "template": { "spec": spec } } })).await;
        }
        28..33 => {
            world.patch("apps/statefulsets", "db", json!({ "spec": { "replicas": 1 + dice.below(4) } })).await;
        }
        33..38 => job(world, number).await,
        38..50 => drain(world, node).await,
        50..54 => {
            let pods: Vec<Value> = world.checks.of("pods").into_iter().filter(|p| app(p) != "alone").collect();
            if let Some(pod) = dice.one(&pods) {
                world.delete("pods", name(pod)).await;
            }
        }
        54..60 => {
            world.weather.set_away(&format!("system:node:{node}"), true);
        }
        60..64 => world.power_off(node),
        64..70 => world.kill_kubelet(node),
        // Nobody would make the pod anew that is nobody's.
        70..74 if world.checks.get("pods", "alone").is_none_or(|p| text(&p, "/spec/nodeName") != node) => {
            // A machine that is taken away for good, and another one in its place.
            world.power_off(node);
            world.delete("nodes", node).await;
            tokio::time::sleep(dice.millis(0, 90_000)).await;
            world.add_node(node);
        }
        74..80 => world.doom(CONTROLLERS),
        80..84 => world.kill(CONTROLLERS),
        84..88 => world.doom(SCHEDULER),
        88..90 => world.kill(SCHEDULER),
        90..93 => simulated::jump(SignedDuration::from_secs(i64::try_from(dice.below(7200)).unwrap() - 3600)),
        _ => recover(world).await,
    }
}

/// What was lost comes back, mostly.
pub async fn recover(world: &mut World) {
    for node in NODES {
        world.weather.set_away(&format!("system:node:{node}"), false);
        world.start_kubelet(node);
        world.patch("nodes", node, json!({ "spec": { "unschedulable": null } })).await;
    }
    for who in [CONTROLLERS, SCHEDULER] {
        if world.is_dead(who) {
            world.start(who);
        }
    }
}

/// As `kubectl drain --ignore-daemonsets`.
async fn drain(world: &World, node: &str) {
    world.patch("nodes", node, json!({ "spec": { "unschedulable": true } })).await;
    let drainer = world.client(DRAINER);
    for pod in world.checks.of("pods") {
        let of_set = pod["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet";
        if text(&pod, "/spec/nodeName") != node || of_set || !is_active(&pod) || app(&pod) == "alone" {
            continue;
        }
        let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "name": name(&pod), "namespace": NAMESPACE },
            "deleteOptions": { "preconditions": { "uid": pod["metadata"]["uid"] } } });
        let evict = Request::new(Verb::Create, row("pods"), NAMESPACE, name(&pod), eviction).on("eviction");
        for _ in 0..DRAINS {
            match evict.write(&drainer).await {
                Err(Error::Status(s)) if s.code == 429 => tokio::time::sleep(Duration::from_secs(5)).await,
                Err(Error::Transport(_)) => {}
                _ => break,
            }
        }
    }
}

/// What is not as it should be when all has settled; `None` when nothing is left to do.
pub fn unfinished(world: &World) -> Option<String> {
    let checks = &world.checks;
    let pods = checks.of("pods");
    let of = |app: &str| pods.iter().filter(|p| self::app(p) == app && is_active(p)).collect::<Vec<_>>();
    let wrong = |what: String| Some(what);
    for (storage, named) in [
        ("apps/deployments", "web"),
        ("apps/deployments", "api"),
        ("apps/statefulsets", "db"),
        ("apps/daemonsets", "agent"),
    ] {
        let Some(object) = checks.get(storage, named) else { return wrong(format!("{named} is gone")) };
        let daemon = storage == "apps/daemonsets";
        let replicas = if daemon { 4 } else { number(&object, "/spec/replicas", 1) };
        let image = text(&object, "/spec/template/spec/containers/0/image");
        let pods = of(named);
        let good = |p: &&&Value| super::checks::is_ready(p) && text(p, "/spec/containers/0/image") == image;
        let are = i64::try_from(pods.iter().filter(good).count()).unwrap();
        if are != replicas || pods.len() != usize::try_from(replicas).unwrap() {
            return wrong(format!("{named}: {are} good ones of {} pods, {replicas} are wanted", pods.len()));
        }
        let counts: &[&str] = match daemon {
            true => &[
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ],
            false => &["replicas", "readyReplicas", "updatedReplicas", "availableReplicas"],
        };
        for count in counts {
            let is = number(&object, &format!("/status/{count}"), 0);
            if is != replicas {
                return wrong(format!("{named}: status.{count} is {is}, {replicas} is right"));
            }
        }
        if number(&object, "/status/observedGeneration", 0) != number(&object, "/metadata/generation", 0) {
            return wrong(format!("{named}: the last change was not observed"));
        }
    }
    for budget in checks.of("policy/poddisruptionbudgets") {
        let are = i64::try_from(of(name(&budget)).len()).unwrap();
        let allowed = (are - number(&budget, "/spec/minAvailable", 0)).max(0);
        let is = number(&budget, "/status/disruptionsAllowed", -1);
        if is != allowed {
            return wrong(format!("budget {} allows {is} disruptions of {are} pods", name(&budget)));
        }
    }
    for job in checks.of("batch/jobs") {
        let done = number(&job, "/status/succeeded", 0);
        if done != number(&job, "/spec/completions", 1) {
            return wrong(format!("{}: {done} have succeeded: {}", name(&job), job["status"]));
        }
    }
    if of("alone").len() != 1 {
        return wrong("the pod that is nobody's is gone".into());
    }
    let stuck = pods.iter().find(|p| super::checks::is_ending(p));
    stuck.map(|p| format!("{} does not end", name(p)))
}

/// Two pods of one StatefulSet with the same ordinal run at once.
pub fn twins(world: &World) -> Option<String> {
    let mut running: Vec<(String, String)> = world.nodes.values().flat_map(|(node, _)| node.running()).collect();
    running.retain(|(name, _)| name.starts_with("db-"));
    running.sort();
    let twins = running.windows(2).find(|two| two[0].0 == two[1].0)?;
    Some(format!("two pods {} run", twins[0].0))
}
