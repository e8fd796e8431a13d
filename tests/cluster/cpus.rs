//! CPUs that a pod has for itself: it runs on them and nobody else does, whatever dies; the rest is everybody's.

use std::time::Duration;

use serde_json::{Value, json};
use skiff::agent::plugins::grpc;
use skiff::agent::pod_resources::{AllocatableResourcesResponse, Empty, ListPodResourcesResponse};

use crate::lab::{IMAGE, Lab, wait_for};
use crate::support::skip;

fn pod(lab: &Lab, name: &str, cpu: Option<&str>, spec: &Value) {
    let both = cpu.map_or_else(|| json!({"memory": "16Mi"}), |cpu| json!({"cpu": cpu, "memory": "16Mi"}));
    let container = json!({"name": "c", "image": IMAGE, "resources": {"requests": both, "limits": both}});
    let mut body = json!({"containers": [container], "terminationGracePeriodSeconds": 0});
    crate::lab::merge(&mut body, spec);
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body});
    lab.apply(&manifest.to_string());
}

/// What the kernel lets the container's processes run on.
fn allowed(lab: &Lab, name: &str) -> Option<String> {
    let output = lab.kubectl_output(&["exec", name, "--", "/bin/cat", "/proc/self/status"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(|list| list.trim().to_owned())
}

fn runs_on(lab: &Lab, name: &str, cpus: &str) {
    let mut last = None;
    wait_for(&format!("{name} to run on {cpus}"), || {
        let now = allowed(lab, name);
        if now != last {
            last.clone_from(&now);
        }
        (now.as_deref() == Some(cpus)).then_some(())
    });
}

fn condition_of(lab: &Lab, name: &str, kind: &str) -> Value {
    wait_for(&format!("{kind} of {name}"), || {
        let pod = lab.json(&["get", "pod", name]).ok()?;
        pod["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind).cloned()
    })
}

/// What monitors are told: of a pod, and of the whole node.
fn monitored(lab: &Lab, name: &str) -> (Vec<i64>, Vec<i64>) {
    let socket = lab.machines[0].data_dir.join("agent/pod-resources/kubelet.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (channel, wait) = (grpc::channel(&socket), Duration::from_secs(10));
        let all: ListPodResourcesResponse =
            grpc::call(&channel, "/v1.PodResourcesLister/List", Empty {}, wait).await.unwrap();
        let of_pod = all.pod_resources.into_iter().find(|of| of.name == name).unwrap();
        let path = "/v1.PodResourcesLister/GetAllocatableResources";
        let node: AllocatableResourcesResponse = grpc::call(&channel, path, Empty {}, wait).await.unwrap();
        (of_pod.containers[0].cpu_ids.clone(), node.cpu_ids)
    })
}

#[test]
fn cpus_of_a_pod_are_its_own_whatever_dies() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if count < 2 {
        return skip("needs two CPUs");
    }
    // All but the last are the system's and of those that share.
    let last = (count - 1).to_string();
    let range = |end: usize| if end == 0 { "0".to_owned() } else { format!("0-{end}") };
    let (others, all) = (range(count - 2), range(count - 1));
    let reserved = format!("--kubelet-arg=reserved-cpus={others}");
    let mut lab = Lab::with_image(1);
    lab.server(&["--kubelet-arg=cpu-manager-policy=static", &reserved]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());

    pod(&lab, "shares", None, &json!({}));
    runs_on(&lab, "shares", &all);
    pod(&lab, "own", Some("1"), &json!({}));
    runs_on(&lab, "own", &last);
    runs_on(&lab, "shares", &others);
    // As long as it likes: nothing but its CPU holds it back.
    let files = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max";
    let quota = lab.kubectl(&["exec", "own", "--", "/bin/sh", "-c", files]);
    assert!(["-1", "max"].contains(&quota.split_whitespace().next().unwrap()), "{quota}");
    assert_eq!(
        monitored(&lab, "own"),
        (vec![i64::try_from(count - 1).unwrap()], vec![i64::try_from(count - 1).unwrap()])
    );
    assert_eq!(monitored(&lab, "shares").0, Vec::<i64>::new());
    let metrics = lab.kubectl(&["get", "--raw", "/api/v1/nodes/m1/proxy/metrics"]);
    for line in
        ["kubelet_cpu_manager_exclusive_cpu_allocation_count 1", "kubelet_cpu_manager_shared_pool_size_millicores 0"]
    {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }

    // There are no more, whoever says that there are.
    pod(&lab, "second", Some("1"), &json!({"nodeName": "m1"}));
    let refused = wait_for("the second to be refused", || {
        let pod = lab.json(&["get", "pod", "second"]).ok()?;
        (pod["status"]["phase"] == "Failed").then_some(pod)
    });
    assert_eq!(refused["status"]["reason"], "OutOfcpu");
    // Nor are those that it has resized.
    let half = json!({"cpu": "500m", "memory": "16Mi"});
    let patch = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": half, "limits": half}}]}});
    lab.kubectl(&["patch", "pod", "own", "--subresource=resize", "-p", &patch.to_string()]);
    let pending = condition_of(&lab, "own", "PodResizePending");
    assert_eq!(pending["reason"], "Infeasible");
    assert_eq!(pending["message"], "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"");

    // The agent is killed: who has what is known to the next one.
    lab.machines[0].kill();
    lab.machines[0].restart();
    lab.node_ready("m1");
    runs_on(&lab, "own", &last);
    runs_on(&lab, "shares", &others);
    pod(&lab, "late", None, &json!({}));
    runs_on(&lab, "late", &others);

    // One without the policy does not start: it would let others run there.
    lab.machines[0].stop();
    let mut command = lab.machines[0].command(&lab.machines[0].program[0].clone());
    let data_dir = format!("--data-dir={}", lab.machines[0].data_dir.display());
    let kubeconfig = format!("--write-kubeconfig={}", lab.kubeconfig().display());
    let output = command.args(["server", &data_dir, &kubeconfig, "--node-ip=10.88.0.1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    let expected = "configured policy \"none\" differs from state checkpoint policy \"static\", please drain this node \
                    and delete the CPU manager checkpoint file";
    assert!(said.contains(expected) || said.replace('\\', "").contains(expected), "{said}");
    lab.machines[0].restart();
    lab.node_ready("m1");
    runs_on(&lab, "own", &last);

    // Its CPU is everybody's again, and then another's.
    lab.kubectl(&["delete", "pod", "own", "second"]);
    runs_on(&lab, "shares", &all);
    runs_on(&lab, "late", &all);
    pod(&lab, "third", Some("1"), &json!({}));
    runs_on(&lab, "third", &last);
    runs_on(&lab, "shares", &others);
}
