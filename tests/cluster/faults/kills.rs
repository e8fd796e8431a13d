//! Processes of a node are killed at random moments while pods come and go. The seed is printed; `SKIFF_TEST_SEED` sets
//! another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::belongings::{back_to, count, kill, of_node, processes, twice};
use crate::lab::{IMAGE, Lab, Machine, now, variable, wait_for};
use crate::support::skip;

const KILLS: usize = 30;
const PODS: u32 = 6;
const WHAT: [&str; 7] =
    ["agent", "containerd", "containerd while runc runs", "containerd while a plug-in runs", "shim", "runc", "plug-in"];
/// How long a process that comes and goes is waited for.
const GLIMPSE: Duration = Duration::from_millis(700);

#[test]
fn kills_at_any_moment_leave_nothing_and_lose_nothing() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_server(2);
    lab.join(2);
    lab.kubectl(&["cordon", "m1"]);
    let before = count(&lab.machines[1]);
    lab.apply(&workload().to_string());
    rolled_out(&lab);
    let folder = claim_folder(&lab);
    std::fs::write(folder.join("kept"), "since the beginning").unwrap();

    untouched(&mut lab);

    let over = Arc::new(AtomicBool::new(false));
    let watcher = watch_for_doubles(over.clone());
    let given = variable("SKIFF_TEST_SEED").and_then(|seed| seed.to_str()?.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
        if round % 2 == 0 {
            change(&lab, &mut random);
        }
        strike(&mut lab, &mut random);
    }
    // New pods wait for no back-off of the old ones.
    lab.kubectl(&["scale", "deployment/faults", &format!("--replicas={PODS}")]);
    lab.kubectl(&["set", "env", "deployment/faults", "ROUND=last"]);
    rolled_out(&lab);
    over.store(true, Ordering::Relaxed);
    assert_eq!(watcher.join().unwrap(), Vec::<String>::new(), "started twice; seed {seed}");

    assert_eq!(std::fs::read_to_string(folder.join("kept")).unwrap(), "since the beginning");
    assert!(!folder.join("lost").exists(), "a container began without what its pod had written; seed {seed}");
    lab.kubectl(&["delete", "deployment/faults", "--timeout=60s"]);
    wait_for("the pods' end", || (lab.json(&["get", "pods"]).ok()?["items"] == json!([])).then_some(()));
    lab.kubectl(&["delete", "pvc/data", "--timeout=60s"]);
    back_to(&lab, &lab.machines[1], &before);
    wait_for("the claim's folder to go", || (!folder.exists()).then_some(()));
}

/// An init container, a sidecar, a container with a probe; an emptyDir, and a claim that all pods share.
fn workload() -> Value {
    let env = |name: &str| {
        json!([{"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "FAULTS_MARK", "value": format!("$(UID)/{name}")}])
    };
    let mounts = json!([{"name": "scratch", "mountPath": "/scratch"}, {"name": "data", "mountPath": "/data"}]);
    let container = |name: &str, script: &str| {
        json!({"name": name, "image": IMAGE, "command": ["/bin/sh", "-c", script], "env": env(name),
            "volumeMounts": mounts, "resources": {"requests": {"cpu": "1m"}, "limits": {"memory": "32Mi"}}})
    };
    let mut sidecar = container("sidecar", "exec sleep 100000");
    sidecar["restartPolicy"] = "Always".into();
    let mut app =
        container("app", "[ -f /scratch/made ] || echo $UID >> /data/lost; echo up > /scratch/up; exec sleep 100000");
    app["readinessProbe"] = json!({"exec": {"command": ["test", "-f", "/scratch/up"]}, "periodSeconds": 1});
    let template = json!({"metadata": {"labels": {"app": "faults"}}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "initContainers": [container("first", "echo made > /scratch/made"), sidecar],
        "containers": [app],
        "volumes": [{"name": "scratch", "emptyDir": {}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "faults"}, "spec": {
        "replicas": PODS, "selector": {"matchLabels": {"app": "faults"}}, "template": template,
        "progressDeadlineSeconds": 3600}});
    json!({"apiVersion": "v1", "kind": "List", "items": [claim, deployment]})
}

fn rolled_out(lab: &Lab) {
    lab.kubectl(&["rollout", "status", "deployment/faults", "--timeout=90s"]);
}

fn claim_folder(lab: &Lab) -> std::path::PathBuf {
    let claim = lab.json(&["get", "pvc", "data"]).unwrap();
    let volume = lab.json(&["get", "pv", claim["spec"]["volumeName"].as_str().unwrap()]).unwrap();
    volume["spec"]["hostPath"]["path"].as_str().unwrap().into()
}

/// Containers of the pods that run: ids and restarts.
fn containers(lab: &Lab) -> Vec<(Value, Value)> {
    let pods = lab.json(&["get", "pods", "-l", "app=faults"]).unwrap();
    let statuses = pods["items"].as_array().unwrap().iter().flat_map(|pod| {
        let of = |list: &str| pod["status"][list].as_array().cloned().unwrap_or_default();
        [of("containerStatuses"), of("initContainerStatuses")].concat()
    });
    let mut all: Vec<_> = statuses.map(|c| (c["containerID"].clone(), c["restartCount"].clone())).collect();
    all.sort_by_key(|(id, _)| id.to_string());
    all
}

/// Neither the agent's death nor containerd's ends a container.
fn untouched(lab: &mut Lab) {
    let before = containers(lab);
    lab.machines[1].kill();
    lab.machines[1].restart();
    let ready = |lab: &Lab| {
        let output = lab.kubectl_output(&["exec", "deployment/faults", "-c", "app", "--", "true"]);
        output.status.success().then_some(())
    };
    wait_for("the agent's return", || ready(lab));
    let daemon = containerd(&lab.machines[1]).expect("the agent has started one");
    kill(daemon);
    wait_for("another containerd", || containerd(&lab.machines[1]).filter(|id| *id != daemon));
    wait_for("its answers", || ready(lab));
    rolled_out(lab);
    assert_eq!(containers(lab), before, "{}", lab.logs());
}

fn containerd(machine: &Machine) -> Option<i32> {
    of_node(machine).into_iter().find(|process| process.name == "containerd").map(|process| process.id)
}

fn watch_for_doubles(over: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut found = Vec::new();
        while !over.load(Ordering::Relaxed) {
            found.extend(twice());
            std::thread::sleep(Duration::from_millis(100));
        }
        found
    })
}

fn change(lab: &Lab, random: &mut StdRng) {
    match random.random_range(0..4) {
        0 | 1 => {
            let env = format!("ROUND={}", random.random::<u32>());
            lab.kubectl(&["set", "env", "deployment/faults", &env]);
        }
        2 => {
            let replicas = format!("--replicas={}", random.random_range(2..=PODS));
            lab.kubectl(&["scale", "deployment/faults", &replicas]);
        }
        _ => {
            let pods = lab.json(&["get", "pods", "-l", "app=faults"]).unwrap();
            let all = pods["items"].as_array().unwrap();
            if !all.is_empty() {
                let name = all[random.random_range(0..all.len())]["metadata"]["name"].as_str().unwrap().to_owned();
                // It may be gone by now.
                lab.kubectl_output(&["delete", "pod", &name, "--wait=false"]);
            }
        }
    }
}

fn strike(lab: &mut Lab, random: &mut StdRng) {
    let machine = &lab.machines[1];
    let what = WHAT[random.random_range(0..WHAT.len())];
    let hit = match what {
        "agent" => {
            lab.machines[1].kill();
            lab.machines[1].restart();
            None
        }
        "containerd" => containerd(machine),
        "shim" => {
            let shims: Vec<_> =
                of_node(machine).into_iter().filter(|p| p.name.starts_with("containerd-shim")).collect();
            (!shims.is_empty()).then(|| shims[random.random_range(0..shims.len())].id)
        }
        "containerd while a plug-in runs" => glimpse(|| plug_in(machine)).and_then(|_| containerd(machine)),
        "containerd while runc runs" => glimpse(|| runc(machine)).and_then(|_| containerd(machine)),
        "runc" => glimpse(|| runc(machine)),
        _ => glimpse(|| plug_in(machine)),
    };
    eprintln!("kill {what}: {hit:?}");
    if let Some(id) = hit {
        kill(id);
    }
}

/// Of the pods' networks.
fn plug_in(machine: &Machine) -> Option<i32> {
    of_node(machine).iter().find(|process| process.arguments.contains("/agent/cni/bin/")).map(|process| process.id)
}

/// A runc of the machine's shims, or what it has started on its way.
fn runc(machine: &Machine) -> Option<i32> {
    let all = processes();
    let shims: Vec<i32> = of_node(machine).iter().map(|process| process.id).collect();
    let is_ours =
        |parent: i32| shims.contains(&parent) || all.iter().any(|p| p.id == parent && shims.contains(&p.parent));
    all.iter().find(|p| p.name.starts_with("runc") && is_ours(p.parent)).map(|p| p.id)
}

fn glimpse(mut find: impl FnMut() -> Option<i32>) -> Option<i32> {
    let begin = now();
    while begin.elapsed() < GLIMPSE {
        if let Some(id) = find() {
            return Some(id);
        }
    }
    None
}
