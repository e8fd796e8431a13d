//! Figures, not tests: pods placed in a second on one core. `cargo test --release --lib scheduler::tests::bench -- --ignored --nocapture`

use super::*;
use crate::server::scheduler::selector::Selector;
use crate::server::scheduler::workloads::OwnerKind;

const NODES: usize = 500;
const ZONES: usize = 3;

fn nodes() -> Vec<Node> {
    (0..NODES)
        .map(|i| {
            let labels = json!({ "kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux", "beta.kubernetes.io/os":
                "linux", "node.kubernetes.io/instance-type": "small", "topology.kubernetes.io/region": "r" });
            let change = json!({ "metadata": { "labels": labels } });
            node(&format!("node-{i:03}"), &format!("zone-{}", i % ZONES), "16", change)
        })
        .collect()
}

/// Places all, as the loop does: each placement is seen bound before long.
fn measure(what: &str, count: usize, change: &Value) {
    let mut world = World::new(&nodes(), &[]);
    let labels: std::collections::BTreeMap<String, String> = [("app".to_owned(), "web".to_owned())].into();
    world.state.snapshot.workloads.set_owner(OwnerKind::ReplicaSet, "ns", "rs", Some(Selector::exact(&labels)));
    for i in 0..count {
        world.pod(pod(&format!("p{i}"), change.clone()));
    }
    let started = clock::instant();
    let mut placed = 0;
    while let Some(Ok(_)) = world.outcome() {
        placed += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{what}: {placed} of {count} pods on {NODES} nodes in {seconds:.2} s, {:.0} a second",
        f64::from(placed) / seconds
    );
}

#[test]
#[ignore = "prints figures"]
fn pods_a_second() {
    let plain = both(cpu("10m"), &app("web"));
    measure("plain", 5000, &plain);
    let owned = json!({ "metadata": { "ownerReferences":
        [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true }] } });
    measure("of a ReplicaSet", 5000, &both(plain.clone(), &owned));
    let two = json!({ "whenUnsatisfiable": "DoNotSchedule" });
    let hard = both(spread("web", ZONE, two), &apart("other", HOSTNAME));
    measure("zone spread and hostname anti-affinity to others", 1000, &both(plain.clone(), &hard));
    let alone = both(spread("web", ZONE, json!({})), &apart("web", HOSTNAME));
    measure("zone spread and hostname anti-affinity to their own", 500, &both(plain, &alone));
}
