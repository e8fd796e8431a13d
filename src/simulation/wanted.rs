//! Decides: what users want of the cluster: workloads of each kind, some more important than others, some with volumes.

use serde_json::{Value, json};

use super::world::World;

/// What gives way to nothing but what is pinned to nodes; what gives way to everything.
const PRIORITIES: [(&str, i64); 3] = [("pinned", 2000), ("important", 1000), ("idle", -10)];

pub const DEPLOYMENTS: [&str; 3] = ["web", "api", "vip"];
/// Deployments that get the room that nobody else wants.
pub const IDLE: [&str; 2] = ["bulk-a", "bulk-b"];
pub const CRON_JOBS: [(&str, &str); 3] = [("once", "Forbid"), ("last", "Replace"), ("many", "Allow")];

fn template(app: &str, image: &str, cpu: usize, priority: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": false,
            "priorityClassName": priority,
            "tolerations": [
                { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 },
                { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 },
            ],
            "containers": [{ "name": "c", "image": image, "readinessProbe": { "exec": { "command": ["true"] } },
                "resources": { "requests": { "cpu": format!("{cpu}m") } } }],
        },
    })
}

fn claim() -> Value {
    json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
        "resources": { "requests": { "storage": "1Gi" } } })
}

fn selector(app: &str) -> Value {
    json!({ "matchLabels": { "app": app } })
}

pub async fn begin(world: &World) {
    for (name, value) in PRIORITIES {
        world
            .create(
                "scheduling.k8s.io/priorityclasses",
                json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": name },
                    "value": value }),
            )
            .await;
    }
    let dice = &world.dice;
    deployment(world, "web", 1 + dice.below(6), 500, "").await;
    deployment(world, "api", 1 + dice.below(6), 500, "").await;
    deployment(world, "vip", dice.below(3), 1000, "important").await;
    for of in IDLE {
        deployment(world, of, 4 + dice.below(5), 900, "idle").await;
    }
    database(world).await;
    let rolling = match dice.below(2) {
        0 => json!({ "maxSurge": 0, "maxUnavailable": 1 + dice.below(2) }),
        _ => json!({ "maxSurge": 1, "maxUnavailable": 0 }),
    };
    world.create("apps/daemonsets", json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "agent", "labels": { "app": "agent" } },
        "spec": { "selector": selector("agent"), "updateStrategy": { "rollingUpdate": rolling },
            "template": template("agent", "v1", 100, "pinned") },
    })).await;
    job(world, 0).await;
    for (name, policy) in CRON_JOBS {
        cron_job(world, name, policy).await;
    }
    let mut alone = template("alone", "v1", 100, "pinned");
    alone["metadata"]["name"] = "alone".into();
    alone["spec"]["tolerations"] = json!([{ "operator": "Exists" }]);
    (alone["apiVersion"], alone["kind"]) = ("v1".into(), "Pod".into());
    world.create("pods", alone).await;
    for (of, least) in [("db", 2), ("web", 1), (IDLE[0], 1 + dice.below(3))] {
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

async fn deployment(world: &World, name: &str, replicas: usize, cpu: usize, priority: &str) {
    let dice = &world.dice;
    let surge = dice.below(3);
    let unavailable = dice.below(2) + usize::from(surge == 0);
    world
        .create(
            "apps/deployments",
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "labels": { "app": name } },
                "spec": {
                    "replicas": replicas, "selector": selector(name), "revisionHistoryLimit": 2,
                    "minReadySeconds": dice.below(2) * 5, "template": template(name, "v1", cpu, priority),
                    "strategy": { "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } },
                },
            }),
        )
        .await;
}

/// Members that keep what they have written: each is pinned to the node that its volume is on.
async fn database(world: &World) {
    let dice = &world.dice;
    let policy = if dice.chance(500) { "OrderedReady" } else { "Parallel" };
    let scaled = if dice.chance(500) { "Retain" } else { "Delete" };
    world
        .create(
            "apps/statefulsets",
            json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "db", "labels": { "app": "db" } },
                "spec": { "replicas": 3, "serviceName": "db", "selector": selector("db"), "podManagementPolicy": policy,
                    "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain", "whenScaled": scaled },
                    "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": claim() }],
                    "template": template("db", "v1", 700, "pinned") },
            }),
        )
        .await;
}

/// A Job, now and then with volumes that live as long as its pods.
pub async fn job(world: &World, number: u64) {
    let mut template = template("work", "v1", 200, "");
    template["spec"]["restartPolicy"] = if world.dice.chance(500) { "Never" } else { "OnFailure" }.into();
    if world.dice.chance(300) {
        template["spec"]["volumes"] =
            json!([{ "name": "scratch", "ephemeral": { "volumeClaimTemplate": { "spec": claim() } } }]);
    }
    let indexed = world.dice.chance(500);
    world.create("batch/jobs", json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": format!("work-{number}") },
        "spec": { "completions": 1 + world.dice.below(5), "parallelism": 1 + world.dice.below(3), "backoffLimit": 100,
            "completionMode": if indexed { "Indexed" } else { "NonIndexed" }, "template": template },
    })).await;
}

/// Jobs every minute that last for about as long now and then, and fail at times.
async fn cron_job(world: &World, name: &str, policy: &str) {
    let mut template = template("tick", "v1", 50, "");
    template["spec"]["restartPolicy"] = "Never".into();
    world
        .create(
            "batch/cronjobs",
            json!({
                "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": name },
                "spec": { "schedule": "* * * * *", "concurrencyPolicy": policy,
                    "successfulJobsHistoryLimit": world.dice.below(3), "failedJobsHistoryLimit": world.dice.below(2),
                    "jobTemplate": { "spec": { "completions": 1 + world.dice.below(3), "backoffLimit": world.dice.below(2),
                        "template": template } } },
            }),
        )
        .await;
}
