//! Decides: what happens in the cluster: what users change, and what befalls it.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::checks::{CONTROLLERS, DRAINER, SCHEDULER, app, is_active, name, text};
use super::wanted::{self, CRON_JOBS, IDLE};
use super::world::{NAMESPACE, World};
use crate::client::request::{Error, Request, Verb};
use crate::clock::simulated;
use crate::server::controllers::stores::row;

pub const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// How long a drain asks for one eviction again.
const DRAINS: usize = 20;

/// One thing that happens.
pub async fn step(world: &mut World, number: u64) {
    let dice = world.dice.clone();
    let node = *dice.one(&NODES).unwrap();
    match dice.below(100) {
        0..14 => {
            let of = *dice.one(&["web", "api", "vip", IDLE[0], IDLE[1]]).unwrap();
            let replicas = if of == "vip" { dice.below(4) } else { dice.below(7) };
            world.patch("apps/deployments", of, json!({ "spec": { "replicas": replicas } })).await;
        }
        14..28 => {
            let (storage, of) = *dice
                .one(&[
                    ("apps/deployments", "web"),
                    ("apps/deployments", "api"),
                    ("apps/deployments", IDLE[0]),
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
        33..38 => wanted::job(world, number).await,
        38..48 => drain(world, node).await,
        // What a pod uses stays until that ends.
        48..50 => {
            let claims = world.checks.of("persistentvolumeclaims");
            if let Some(claim) = dice.one(&claims) {
                world.delete("persistentvolumeclaims", name(claim)).await;
            }
        }
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
        90..93 => {
            world.checks.jumped();
            simulated::jump(SignedDuration::from_secs(i64::try_from(dice.below(7200)).unwrap() - 3600));
        }
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

/// Schedules would never let it come to rest.
pub async fn suspend(world: &World) {
    for (name, _) in CRON_JOBS {
        world.patch("batch/cronjobs", name, json!({ "spec": { "suspend": true } })).await;
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

/// Two pods of one StatefulSet with the same ordinal run at once.
pub fn twins(world: &World) -> Option<String> {
    twins_among(world.nodes.values().flat_map(|(node, _)| node.running()).collect())
}

/// Names, and uids.
fn twins_among(mut running: Vec<(String, String)>) -> Option<String> {
    running.retain(|(name, _)| name.starts_with("db-"));
    running.sort();
    let twins = running.windows(2).find(|two| two[0].0 == two[1].0)?;
    Some(format!("two pods {} run", twins[0].0))
}

#[test]
fn twins_are_told() {
    let of = |names: &[&str]| twins_among(names.iter().map(|name| ((*name).to_owned(), String::new())).collect());
    assert_eq!(of(&["db-0", "web", "db-1", "web"]), None);
    assert_eq!(of(&["db-0", "db-1", "db-0"]).as_deref(), Some("two pods db-0 run"));
}
