//! Pods that fit nowhere wait, and nothing is written while nothing changes.

use super::*;
use crate::conformance::Cluster;

/// Two nodes, and a scheduler.
async fn cluster() -> Cluster {
    let mut cluster = Cluster::new().await;
    for name in ["a", "b"] {
        node(&cluster, name).await;
    }
    cluster.schedule().await;
    cluster
}

/// Why the pod is not scheduled.
async fn waits(cluster: &Cluster, name: &str) -> String {
    wait_for(name, async || {
        let pod = cluster.get(&format!("{PODS}/{name}")).await.json();
        let conditions = pod["status"]["conditions"].as_array()?;
        let condition = conditions.iter().find(|c| c["type"] == "PodScheduled" && c["status"] == "False")?;
        assert_eq!(condition["reason"], "Unschedulable", "{condition}");
        Some(condition["message"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn impossible_constraints_are_told_once() {
    let cluster = cluster().await;
    let own = json!({"labelSelector": {"matchLabels": {"app": "p"}}, "topologyKey": "rack"});
    let spread = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 1000,
        "labelSelector": {"matchLabels": {"app": "p"}}});
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let huge = |cpu: &str| json!([{"name": "c", "image": "c:1", "resources": {"requests": {"cpu": cpu}}}]);
    let cases = [
        ("selector", json!({"nodeSelector": {"disk": "none"}}), "2 node(s) didn't match Pod's node affinity/selector"),
        ("near", json!({"affinity": {"podAffinity": {required: [own]}}}), "2 node(s) didn't match pod affinity rules"),
        ("huge", json!({"containers": huge("5")}), "2 Insufficient cpu"),
        ("absurd", json!({"containers": huge("9223372036854775")}), "2 Insufficient cpu"),
        (
            "claim",
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}]}),
            "persistentvolumeclaim \"none\" not found",
        ),
    ];
    for (name, spec, why) in &cases {
        let mut pod = template(&json!({"app": "p"}), spec);
        pod["metadata"]["name"] = (*name).into();
        cluster.made(PODS, &pod).await;
        let said = waits(&cluster, name).await;
        assert!(said.starts_with(&format!("0/2 nodes are available: {why}. ")), "{said}");
        assert!(told(&cluster, name, "FailedScheduling").await.contains(why));
    }
    // With one domain too few the least are none: one pod fits each domain, and no more.
    for name in ["first", "second", "third"] {
        let mut pod = template(&json!({"app": "p"}), &json!({"topologySpreadConstraints": [spread]}));
        pod["metadata"]["name"] = name.into();
        cluster.made(PODS, &pod).await;
        if name != "third" {
            cluster.await_object(&format!("{PODS}/{name}"), |p| p["spec"]["nodeName"].is_string()).await;
        }
    }
    let said = waits(&cluster, "third").await;
    let why = "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints. ";
    assert!(said.starts_with(why), "{said}");
    // Each is tried again every five minutes, and what is said of it is counted.
    tokio::time::sleep(HOUR).await;
    let hour = an_hour(&cluster).await;
    let (waiting, rounds) = (cases.len() as u64 + 1, 12);
    assert!(hour.writes().keys().all(|what| what.ends_with(" events")), "{:?}", hour.0);
    assert!(hour.of("PATCH events") <= waiting * rounds, "{:?}", hour.0);
    for (name, _, _) in &cases {
        assert_eq!(cluster.get(&format!("{PODS}/{name}")).await.json()["status"]["phase"], "Pending");
    }
}
