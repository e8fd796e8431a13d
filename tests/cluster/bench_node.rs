//! Figures of a full node, printed: `sh tests/bench.sh`. Nothing here fails because a machine is slow.

use std::time::Duration;

use serde_json::json;

use crate::bench::usage;
use crate::lab::{IMAGE, Lab, now};
use crate::support::skip;

/// As many as a node takes (`maxPods`).
const PODS: u32 = 110;
/// What the starts leave to do is not idling.
const SETTLE: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "prints figures; run by tests/bench.sh"]
fn a_full_node() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_server(2);
    lab.join(2);
    let serve = "mkdir /www && echo up > /www/index.html && exec httpd -f -p 8080 -h /www";
    let pods = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "full"},
        "spec": {"replicas": PODS, "selector": {"matchLabels": {"app": "full"}}, "template": {
            "metadata": {"labels": {"app": "full"}},
            "spec": {
                "terminationGracePeriodSeconds": 0, "nodeSelector": {"kubernetes.io/hostname": "m2"},
                "containers": [{
                    "name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", serve],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 10},
                }],
            },
        }},
    });
    let begin = now();
    lab.apply(&pods.to_string());
    lab.kubectl(&["rollout", "status", "deployment/full", "--timeout=300s"]);
    println!("{PODS} pods of one node: Ready after {:.1} s", begin.elapsed().as_secs_f64());
    std::thread::sleep(SETTLE);
    let agent = lab.machines[1].skiff.as_ref().unwrap().id();
    let before = usage(agent);
    std::thread::sleep(IDLE);
    let after = usage(agent);
    let seconds = IDLE.as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let cpu = (after.cpu_ticks - before.cpu_ticks) as f64;
    println!("agent with {PODS} pods, each asked by HTTP every 10 s: {} KiB PSS", after.pss_kib);
    // A tick is a hundredth of a second.
    println!("agent with {PODS} pods, each asked by HTTP every 10 s: {:.2} % of a core", cpu / seconds);
}
