//! Tests: claims that are prepared and undone by a driver, and what becomes of them when it is away.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Drivers;
use super::fake::FakeDriver;
use crate::agent::fake_api::FakeApi;
use crate::agent::plugins::registry::{Handlers, Registry};
use crate::agent::plugins::{DRA, Handler};
use crate::agent::pod::table::PodTable;

const DRIVER: &str = "gpu.example.com";

struct Host {
    directory: tempfile::TempDir,
    api: FakeApi,
    drivers: Drivers,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Host {
    fn start(directory: tempfile::TempDir, api: FakeApi) -> Host {
        let drivers = Drivers::new(&directory.path().join("claims.json"), api.client(), "n1", PodTable::default());
        let stop = CancellationToken::new();
        std::fs::create_dir_all(directory.path().join("registry")).expect("made");
        let handlers = Handlers::from([(DRA, std::sync::Arc::new(drivers.clone()) as std::sync::Arc<dyn Handler>)]);
        let registry = Registry { directory: directory.path().join("registry"), handlers };
        let mut tasks = JoinSet::new();
        tasks.spawn(registry.run(stop.clone()));
        Host { directory, api, drivers, tasks, stop }
    }

    fn new() -> Host {
        Host::start(tempfile::tempdir().expect("temporary directory"), FakeApi::default())
    }

    async fn restart(self) -> Host {
        self.stop.cancel();
        self.tasks.join_all().await;
        self.drivers.stop().await;
        Host::start(self.directory, self.api)
    }

    fn driver(&self) -> FakeDriver {
        FakeDriver::start(&self.directory.path().join("registry"), DRIVER, "example.com/gpu=one").expect("started")
    }

    fn claim(&self, name: &str, pods: &[&str]) {
        let user = |uid: &&str| json!({"resource": "pods", "name": uid, "uid": uid});
        let users: Vec<Value> = pods.iter().map(user).collect();
        let result = json!({"driver": DRIVER, "pool": "n1", "device": "one", "request": "r"});
        let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "spec": {},
            "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")},
            "status": {"reservedFor": users, "allocation": {"devices": {"results": [result]}}}});
        self.api.put(&format!("/apis/resource.k8s.io/v1/namespaces/ns/resourceclaims/{name}"), claim);
    }

    async fn prepared(&self, pod: &Pod) {
        let mut last = String::new();
        for _ in 0..1000 {
            match self.drivers.prepare(pod).await {
                Ok(()) => return,
                Err(error) => last = error,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not prepared: {last}");
    }
}

fn pod(uid: &str, claim: &str) -> Pod {
    let container = json!({"name": "c", "resources": {"claims": [{"name": "gpu"}]}});
    let spec = json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": claim}], "containers": [container]});
    serde_json::from_value(json!({"metadata": {"name": uid, "namespace": "ns", "uid": uid}, "spec": spec}))
        .expect("a pod")
}

fn calls(driver: &mut FakeDriver) -> Vec<String> {
    std::iter::from_fn(|| driver.calls.try_recv().ok()).collect()
}

#[tokio::test]
async fn a_claim_is_prepared_for_the_first_pod_and_undone_after_the_last() {
    let host = Host::new();
    host.claim("one", &["u1", "u2"]);
    let (first, second) = (pod("u1", "one"), pod("u2", "one"));
    assert_eq!(host.drivers.prepare(&first).await, Err(format!("DRA driver {DRIVER} is not registered")));
    assert!(!host.directory.path().join("claims.json").exists(), "nothing is noted for a driver that never was here");
    let mut driver = host.driver();
    host.prepared(&first).await;
    host.prepared(&second).await;
    let container = &first.spec.as_ref().expect("a spec").containers[0];
    assert_eq!(host.drivers.cdi_devices(&first, container).expect("prepared"), ["example.com/gpu=one"]);
    host.drivers.unprepare("u1").await.expect("another uses it");
    assert_eq!(calls(&mut driver), ["prepare ns/one"]);
    host.drivers.unprepare("u2").await.expect("undone");
    host.drivers.unprepare("u2").await.expect("nothing left");
    assert_eq!(calls(&mut driver), ["unprepare ns/one"]);
}

#[tokio::test]
async fn an_agent_that_starts_again_undoes_what_is_left() {
    let host = Host::new();
    host.claim("one", &["u1"]);
    let mut driver = host.driver();
    host.prepared(&pod("u1", "one")).await;
    let host = host.restart();
    let host = host.await;
    // Prepared before: not asked again.
    host.prepared(&pod("u1", "one")).await;
    assert_eq!(calls(&mut driver), ["prepare ns/one"]);
    host.drivers.retain(|_| false);
    host.drivers.retain(|_| false);
    let undone = tokio::time::timeout(Duration::from_secs(10), driver.calls.recv()).await;
    assert_eq!(undone.expect("in time").as_deref(), Some("unprepare ns/one"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(calls(&mut driver).is_empty(), "once");
}

#[tokio::test]
async fn a_driver_that_fails_is_quoted_and_may_undo() {
    let host = Host::new();
    host.claim("broken", &["u1"]);
    let mut driver = host.driver();
    let pod = pod("u1", "broken");
    let expected = "NodePrepareResources failed for ResourceClaim broken: the device does not answer";
    while host.drivers.prepare(&pod).await.expect_err("it cannot") != expected {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It may have got half way.
    host.drivers.unprepare("u1").await.expect("undone");
    assert_eq!(calls(&mut driver), ["prepare ns/broken", "unprepare ns/broken"]);
    // And a driver that is gone keeps the pod until it is back.
    host.claim("one", &["u3"]);
    host.prepared(&self::pod("u3", "one")).await;
    drop(driver);
    std::fs::remove_file(host.directory.path().join("registry").join(format!("{DRIVER}-reg.sock"))).expect("removed");
    while host.drivers.unprepare("u3").await != Err(format!("DRA driver {DRIVER} is not registered")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut driver = host.driver();
    while host.drivers.unprepare("u3").await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(calls(&mut driver), ["unprepare ns/one"]);
}
