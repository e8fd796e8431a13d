//! Devices of the node: what a device plugin offers is scheduled, reaches containers and is given back, whatever dies.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use skiff::agent::devices::fake::FakePlugin;
use skiff::agent::dra::fake::FakeDriver;
use skiff::agent::plugins::grpc;
use skiff::agent::pod_resources::{
    AllocatableResourcesResponse, Empty, GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesResponse,
};
use tokio::runtime::Runtime;

use crate::lab::{IMAGE, Lab, wait_for};
use crate::support::skip;

const GPU: &str = "nvidia.com/gpu";

struct Plugins {
    runtime: Runtime,
    sockets: PathBuf,
}

impl Plugins {
    fn new(lab: &Lab) -> Plugins {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Plugins { runtime, sockets: lab.machines[0].data_dir.join("agent/device-plugins") }
    }

    fn start(&self, names: &[&str]) -> FakePlugin {
        self.runtime.block_on(async {
            let plugin = FakePlugin::start(&self.sockets, GPU).unwrap();
            plugin.offer(names);
            plugin.register().await.unwrap();
            plugin
        })
    }
}

impl Plugins {
    /// The devices of a pod, as monitors ask for them.
    fn monitored(&self, pod: &str) -> Vec<String> {
        let channel = || grpc::channel(&self.sockets.with_file_name("pod-resources/kubelet.sock"));
        let (list, get) = ("/v1.PodResourcesLister/List", "/v1.PodResourcesLister/Get");
        let wait = Duration::from_secs(10);
        self.runtime.block_on(async {
            let all: ListPodResourcesResponse = grpc::call(&channel(), list, Empty {}, wait).await.unwrap();
            let listed = all.pod_resources.into_iter().find(|of| of.name == pod).unwrap();
            let asked = GetPodResourcesRequest { pod_name: pod.into(), pod_namespace: "default".into() };
            let one: GetPodResourcesResponse = grpc::call(&channel(), get, asked, wait).await.unwrap();
            assert_eq!(one.pod_resources.as_ref(), Some(&listed));
            let path = "/v1.PodResourcesLister/GetAllocatableResources";
            let all: AllocatableResourcesResponse = grpc::call(&channel(), path, Empty {}, wait).await.unwrap();
            // One row for each, as there is where each of them is.
            assert!(all.devices.iter().all(|of| of.resource_name == GPU && of.device_ids.len() == 1));
            assert_eq!((all.devices.len(), all.cpu_ids.len()), (2, 0), "no container has CPUs for itself");
            let devices = listed.containers.into_iter().flat_map(|container| container.devices);
            devices.filter(|of| of.resource_name == GPU).flat_map(|of| of.device_ids).collect()
        })
    }
}

fn gpu_pod(lab: &Lab, name: &str, spec: serde_json::Value) {
    let script = "echo devices=$VISIBLE_DEVICES; ls /dev/gpu*; exec sleep 100000";
    let container = json!({"name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", script],
        "resources": {"limits": {GPU: "1"}}});
    let mut body = json!({"containers": [container], "terminationGracePeriodSeconds": 0});
    crate::lab::merge(&mut body, &spec);
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body});
    lab.apply(&manifest.to_string());
}

/// Waits until the node says so: capacity and allocatable.
fn told(lab: &Lab, resource: &str, capacity: &str, allocatable: &str) {
    wait_for(&format!("{resource}: {capacity} and {allocatable}"), || {
        let node = lab.json(&["get", "node", "m1"]).ok()?;
        let status = &node["status"];
        (status["capacity"][resource] == capacity && status["allocatable"][resource] == allocatable).then_some(())
    });
}

/// The devices that the container of a running pod was given.
fn given(lab: &Lab, name: &str) -> String {
    wait_for(&format!("devices of {name}"), || {
        let output = lab.kubectl_output(&["logs", name]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let devices = text.lines().find_map(|line| line.strip_prefix("devices="))?;
        text.lines().any(|line| line == format!("/dev/{devices}")).then(|| devices.to_owned())
    })
}

#[test]
fn devices_of_a_plugin_reach_containers_and_come_back() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_server(1);
    let plugins = Plugins::new(&lab);
    let plugin = plugins.start(&["gpu0", "gpu1"]);
    told(&lab, GPU, "2", "2");
    gpu_pod(&lab, "one", json!({}));
    gpu_pod(&lab, "two", json!({}));
    let mut all = [given(&lab, "one"), given(&lab, "two")];
    all.sort();
    assert_eq!(all, ["gpu0", "gpu1"], "each has its own");
    assert_eq!(plugins.monitored("one"), [given(&lab, "one")]);

    // There are no more, until one is given back.
    gpu_pod(&lab, "three", json!({}));
    wait_for("three to be told why", || {
        let pod = lab.json(&["get", "pod", "three"]).ok()?;
        let message = pod["status"]["conditions"][0]["message"].as_str()?.to_owned();
        message.contains("1 Insufficient nvidia.com/gpu").then_some(())
    });
    let free = given(&lab, "two");
    lab.kubectl(&["delete", "pod", "two"]);
    assert_eq!(given(&lab, "three"), free);

    // The plugin dies: what is there goes on, nothing new is given.
    drop(plugin);
    told(&lab, GPU, "2", "0");
    gpu_pod(&lab, "bound", json!({"nodeName": "m1"}));
    let refused = wait_for("the pod that asked at the wrong time", || {
        let pod = lab.json(&["get", "pod", "bound"]).ok()?;
        (pod["status"]["phase"] == "Failed").then_some(pod)
    });
    assert_eq!(refused["status"]["reason"], "UnexpectedAdmissionError");
    assert_eq!(
        refused["status"]["message"],
        "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices \
         nvidia.com/gpu, which is unexpected"
    );
    assert_eq!(given(&lab, "three"), free);
    let plugin = plugins.start(&["gpu0", "gpu1"]);
    told(&lab, GPU, "2", "2");

    // So does skiff: who has what is remembered.
    lab.machines[0].stop();
    lab.machines[0].restart();
    told(&lab, GPU, "0", "0");
    plugins.runtime.block_on(plugin.register()).unwrap_err();
    drop(plugin);
    let _plugin = plugins.start(&["gpu0", "gpu1"]);
    told(&lab, GPU, "2", "2");
    let one = given(&lab, "one");
    lab.kubectl(&["delete", "pod", "one", "bound"]);
    gpu_pod(&lab, "four", json!({}));
    assert_eq!(given(&lab, "four"), one, "the other is still {}'s", "three");

    // Resources that nobody looks after but an administrator.
    let patch = r#"[{"op": "add", "path": "/status/capacity/example.com~1dongle", "value": "4"}]"#;
    lab.kubectl(&["patch", "node", "m1", "--subresource=status", "--type=json", "-p", patch]);
    told(&lab, "example.com/dongle", "4", "4");
}

const DRIVER: &str = "gpu.example.com";
/// Where drivers put their specifications; in the lab it is the machine's own.
const CDI: &str = "/var/run/cdi";

/// The objects of a driver with one device: its class, what it publishes, and a claim of its own for each pod.
const DRIVER_OBJECTS: &str = r#"
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: gpu}
spec: {selectors: [{cel: {expression: 'device.driver == "gpu.example.com"'}}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: gpu}
spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: gpu}}]}}}
"#;
const SLICE: &str = r#"
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: m1-gpu}
spec:
  nodeName: m1
  driver: gpu.example.com
  pool: {name: m1, generation: 1, resourceSliceCount: 1}
  devices: [{name: one}]
"#;

fn claiming_pod(lab: &Lab, name: &str) {
    let script = "echo devices=$GPU; ls /dev/gpu*; exec sleep 100000";
    let container = json!({"name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", script],
        "resources": {"claims": [{"name": "gpu"}]}});
    let claim = json!({"name": "gpu", "resourceClaimTemplateName": "gpu"});
    let body = json!({"containers": [container], "resourceClaims": [claim], "terminationGracePeriodSeconds": 0});
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body});
    lab.apply(&manifest.to_string());
}

/// What the driver's devices are to a runtime, where it looks.
struct Specification {
    made: bool,
}

impl Specification {
    /// Nothing of the test may show outside of the machine.
    fn write(lab: &Lab) -> Specification {
        let made = std::fs::create_dir(CDI).is_ok();
        let mount = lab.machines[0].command("mount".as_ref()).args(["-t", "tmpfs", "cdi", CDI]).status().unwrap();
        assert!(mount.success());
        let spec = json!({"cdiVersion": "0.5.0", "kind": "example.com/gpu", "devices": [{"name": "one", "containerEdits":
            {"env": ["GPU=gpu0"], "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null"}]}}]});
        let script = format!("cat > {CDI}/example.json <<'END'\n{spec}\nEND");
        assert!(lab.machines[0].command("sh".as_ref()).args(["-c", &script]).status().unwrap().success());
        Specification { made }
    }
}

impl Drop for Specification {
    fn drop(&mut self) {
        if self.made {
            let _ = std::fs::remove_dir(CDI);
        }
    }
}

fn called(driver: &mut FakeDriver, verb: &str) {
    wait_for(verb, || driver.calls.try_recv().ok().filter(|call| call.starts_with(verb)));
}

#[test]
fn claims_are_prepared_by_their_driver_and_undone() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_server(1);
    let specification = Specification::write(&lab);

    let registry = lab.machines[0].data_dir.join("agent/plugins_registry");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let start = || runtime.block_on(async { FakeDriver::start(&registry, DRIVER, "example.com/gpu=one").unwrap() });

    // A pod comes before its driver, and is told so.
    lab.apply(DRIVER_OBJECTS);
    lab.apply(SLICE);
    claiming_pod(&lab, "first");
    wait_for("the pod to be told", || {
        let events = lab.json(&["get", "events"]).ok()?;
        let mut events = events["items"].as_array()?.iter();
        let expected = "Failed to prepare dynamic resources: prepare dynamic resources: DRA driver gpu.example.com is \
                        not registered";
        events.any(|e| e["reason"] == "FailedPrepareDynamicResources" && e["message"] == expected).then_some(())
    });
    let mut driver = start();
    called(&mut driver, "prepare default/first-gpu-");
    assert_eq!(given(&lab, "first"), "gpu0");

    // skiff starts anew: the claim stays prepared, and is undone with its pod.
    lab.machines[0].stop();
    lab.machines[0].restart();
    wait_for("the API", || lab.json(&["get", "pod", "first"]).ok());
    lab.kubectl(&["delete", "pod", "first"]);
    called(&mut driver, "unprepare default/first-gpu-");
    wait_for("the claim to be gone", || {
        let claims = lab.json(&["get", "resourceclaims"]).ok()?;
        claims["items"].as_array()?.is_empty().then_some(())
    });

    // A driver that stays away has nothing to offer here.
    wait_for("slices of before to be gone", || {
        let slices = lab.json(&["get", "resourceslices"]).ok()?;
        slices["items"].as_array()?.is_empty().then_some(())
    });
    lab.apply(SLICE);
    claiming_pod(&lab, "second");
    called(&mut driver, "prepare default/second-gpu-");
    assert_eq!(given(&lab, "second"), "gpu0");
    drop(driver);
    drop(runtime);
    wait_for("its slices to be removed", || {
        let slices = lab.json(&["get", "resourceslices"]).ok()?;
        slices["items"].as_array()?.is_empty().then_some(())
    });
    drop(lab);
    drop(specification);
}

/// A pod whose first container asks for a device as it asks for CPU. It is there until its node is done with it.
fn asking_pod(lab: &Lab, name: &str, resource: &str, then: &str) {
    let script = format!("echo devices=$GPU; ls /dev/gpu*; {then}");
    let asks = json!({"name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", script],
        "resources": {"limits": {resource: "1"}}});
    let script = format!("ls /dev/gpu* 2>/dev/null || echo none; {then}");
    let other = json!({"name": "other", "image": IMAGE, "command": ["/bin/sh", "-c", script]});
    let body = json!({"containers": [asks, other], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1});
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body});
    lab.apply(&manifest.to_string());
}

fn no_claims(lab: &Lab) {
    wait_for("the claim to be gone", || {
        let claims = lab.json(&["get", "resourceclaims"]).ok()?;
        claims["items"].as_array()?.is_empty().then_some(())
    });
}

#[test]
fn extended_resources_are_devices_of_a_class() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let lab = Lab::with_server(1);
    let specification = Specification::write(&lab);
    let registry = lab.machines[0].data_dir.join("agent/plugins_registry");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut driver = runtime.block_on(async { FakeDriver::start(&registry, DRIVER, "example.com/gpu=one").unwrap() });

    // Nobody offers it, until a class says what it is.
    let told = |name: &str, what: &str| {
        wait_for(&format!("{name} to be told: {what}"), || {
            let pod = lab.json(&["get", "pod", name]).ok()?;
            let message = pod["status"]["conditions"][0]["message"].as_str()?.to_owned();
            message.contains(what).then_some(())
        });
    };
    let forever = "exec sleep 100000";
    asking_pod(&lab, "first", "example.com/gpu", forever);
    told("first", "1 Insufficient example.com/gpu");
    lab.apply(DRIVER_OBJECTS);
    lab.kubectl(&[
        "patch",
        "deviceclass",
        "gpu",
        "--type=merge",
        "-p",
        r#"{"spec": {"extendedResourceName": "example.com/gpu"}}"#,
    ]);
    told("first", "1 cannot allocate all claims");
    lab.apply(SLICE);
    called(&mut driver, "prepare default/first-extended-resources-");
    let logs = |name: &str, container: &str| {
        String::from_utf8_lossy(&lab.kubectl_output(&["logs", name, "-c", container]).stdout).into_owned()
    };
    let given = |name: &str| {
        wait_for(&format!("devices of {name}"), || {
            let all = (logs(name, "c"), logs(name, "other"));
            (all == ("devices=gpu0\n/dev/gpu0\n".into(), "none\n".into())).then_some(())
        });
    };
    given("first");
    let pod = lab.json(&["get", "pod", "first"]).unwrap();
    let status = &pod["status"]["extendedResourceClaimStatus"];
    let mapping =
        json!({"containerName": "c", "resourceName": "example.com/gpu", "requestName": "container-0-request-0"});
    assert_eq!(status["requestMappings"], json!([mapping]));
    let claim = lab.json(&["get", "resourceclaim", status["resourceClaimName"].as_str().unwrap()]).unwrap();
    assert_eq!(claim["metadata"]["annotations"]["resource.kubernetes.io/extended-resource-claim"], "true");
    assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], pod["metadata"]["uid"]);
    assert_eq!(claim["status"]["reservedFor"][0]["uid"], pod["metadata"]["uid"]);
    assert_eq!(claim["status"]["allocation"]["devices"]["results"][0]["device"], "one");

    // There is one device. The next one has it when it is free, by the name that every class has.
    asking_pod(&lab, "second", "deviceclass.resource.kubernetes.io/gpu", "true");
    told("second", "1 cannot allocate all claims");
    lab.kubectl(&["delete", "pod", "first"]);
    called(&mut driver, "unprepare default/first-extended-resources-");
    called(&mut driver, "prepare default/second-extended-resources-");
    given("second");
    // It has ended: its claim goes, though the pod stays.
    called(&mut driver, "unprepare default/second-extended-resources-");
    no_claims(&lab);
    assert_eq!(lab.json(&["get", "pod", "second"]).unwrap()["status"]["phase"], "Succeeded");
    drop(driver);
    drop(runtime);
    drop(lab);
    drop(specification);
}
