//! Tests: stories of volumes of a driver on a node, with the API and the runtime in memory. The driver answers on its real
//! socket; folders stand for its mounts.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::Status;

use crate::agent::metrics;
use crate::agent::tests::{Node, is_ready};

mod protocol {
    pub use crate::agent::csi::v1 as csi;
    pub use crate::agent::plugins::v1 as registration;
}
#[path = "../../../tests/support/csi_driver.rs"]
mod csi_driver;

use csi_driver::{Driver, NAME, TOPOLOGY};

const NODE: &str = "/api/v1/nodes/n1";
const CSI_NODE: &str = "/apis/storage.k8s.io/v1/csinodes/n1";
const CLAIM: &str = "/api/v1/namespaces/ns/persistentvolumeclaims/data";
const UNIQUE: &str = "kubernetes.io/csi/hostpath.csi.test^handle";

struct Story {
    node: Node,
    driver: Driver,
    serving: JoinSet<()>,
}

impl Story {
    /// A node with a claim for a volume of the driver, which does not run yet.
    fn new(driver: Value) -> Story {
        let node = Node::new();
        let root = node.directory.path().join("driver");
        let socket = node.directory.path().join("agent/plugins_registry/hostpath-reg.sock");
        let driver_object =
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": NAME}, "spec": driver});
        node.api.put(&format!("/apis/storage.k8s.io/v1/csidrivers/{NAME}"), driver_object);
        node.api.put(
            CLAIM,
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data", "namespace": "ns", "uid": "claim-uid"},
                "spec": {"volumeName": "pv"}, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}),
        );
        let csi = json!({"driver": NAME, "volumeHandle": "handle", "volumeAttributes": {"a": "b"},
            "nodeStageSecretRef": {"name": "staging", "namespace": "kube-system"}});
        node.api.put(
            "/api/v1/persistentvolumes/pv",
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
                "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": csi,
                    "claimRef": {"uid": "claim-uid"}}}),
        );
        node.api.put(
            "/api/v1/namespaces/kube-system/secrets/staging",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "staging"}, "data": {"key": "c2VjcmV0"}}),
        );
        let attachment = super::attach::name("handle", NAME, "n1");
        node.api.put(
            &format!("/apis/storage.k8s.io/v1/volumeattachments/{attachment}"),
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": attachment},
                "spec": {"attacher": NAME, "nodeName": "n1", "source": {"persistentVolumeName": "pv"}},
                "status": {"attached": true, "attachmentMetadata": {"disk": "sdx"}}}),
        );
        let driver = Driver::new(&root, &socket, "n1", false);
        Story { node, driver, serving: JoinSet::new() }
    }

    fn serve(&mut self) {
        self.serving.spawn(self.driver.clone().serve());
    }

    async fn registered(&self) {
        let names = || self.node.api.get(CSI_NODE).filter(|node| node["spec"]["drivers"][0]["name"] == NAME);
        self.node.until("the driver registers", names).await;
    }

    fn calls(&self) -> Vec<String> {
        csi_driver::calls(&self.root())
    }

    fn count(&self, call: &str) -> usize {
        self.calls().iter().filter(|made| made.split(' ').next() == Some(call)).count()
    }

    fn root(&self) -> PathBuf {
        self.node.directory.path().join("driver")
    }

    fn agent(&self, path: &str) -> PathBuf {
        self.node.directory.path().join("agent").join(path)
    }

    fn pod(&self, name: &str, volume: Value) {
        let mut volume = volume;
        volume["name"] = "v".into();
        let container = json!({"name": "web", "image": "busybox:1", "imagePullPolicy": "IfNotPresent",
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        self.node.api.put(
            &pod_path(name),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1},
                "spec": {"nodeName": "n1", "restartPolicy": "Always", "terminationGracePeriodSeconds": 1,
                    "volumes": [volume], "containers": [container]}, "status": {"phase": "Pending"}}),
        );
    }

    async fn ready(&self, name: &str) {
        let found = || self.node.api.get(&pod_path(name)).filter(|pod| is_ready(&pod["status"]));
        self.node.until("ready", found).await;
    }

    async fn delete(&self, name: &str) {
        let mut pod = self.node.api.get(&pod_path(name)).expect("there");
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(1);
        self.node.api.put(&pod_path(name), pod);
        self.node.until("deleted", || self.node.api.get(&pod_path(name)).is_none().then_some(())).await;
    }

    /// The controller's part.
    async fn attach(&self) {
        let asked = || {
            let node = self.node.api.get(NODE)?;
            (node["status"]["volumesInUse"] == json!([UNIQUE])).then_some(node)
        };
        let mut node = self.node.until("volumesInUse", asked).await;
        node["status"]["volumesAttached"] = json!([{"name": UNIQUE, "devicePath": ""}]);
        self.node.api.put(NODE, node);
    }

    async fn nothing_in_use(&self) {
        let none = || self.node.api.get(NODE)?["status"]["volumesInUse"].is_null().then_some(());
        self.node.until("nothing in use", none).await;
    }

    /// No file or folder of a volume is left.
    fn assert_clean(&self) {
        let plugin = self.agent(&format!("plugins/kubernetes.io/csi/{NAME}"));
        assert!(!has_entries(&plugin), "{plugin:?}");
        assert!(!has_entries(&self.agent("plugins/kubernetes.io/csi/volumeDevices/publish")));
    }
}

fn has_entries(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/ns/pods/{name}")
}

fn claimed() -> Value {
    json!({"persistentVolumeClaim": {"claimName": "data"}})
}

#[tokio::test]
async fn a_volume_of_two_pods_from_its_attachment_to_its_end() {
    let mut story = Story::new(json!({"podInfoOnMount": true}));
    story.node.start();
    story.serve();
    story.registered().await;
    let csi_node = story.node.api.get(CSI_NODE).expect("there");
    let expect = json!([{"name": NAME, "nodeID": "n1", "topologyKeys": [TOPOLOGY], "allocatable": {"count": 7}}]);
    assert_eq!(csi_node["spec"]["drivers"], expect);
    let node = story.node.api.get(NODE).expect("there");
    assert_eq!(node["metadata"]["labels"][TOPOLOGY], "n1");
    assert_eq!(node["metadata"]["annotations"]["csi.volume.kubernetes.io/nodeid"], format!("{{\"{NAME}\":\"n1\"}}"));

    story.pod("p", claimed());
    story.attach().await;
    story.ready("p").await;
    let calls = story.calls();
    let stage = "NodeStageVolume handle context:disk=sdx secrets:key=secret";
    assert!(calls.iter().any(|call| call == stage), "{calls:?}");
    let publish = "NodePublishVolume handle readonly:false context:a=b,csi.storage.k8s.io/ephemeral=false,\
        csi.storage.k8s.io/pod.name=p,csi.storage.k8s.io/pod.namespace=ns,csi.storage.k8s.io/pod.uid=p,\
        csi.storage.k8s.io/serviceAccount.name=default secrets:";
    assert!(calls.iter().any(|call| call == publish), "{calls:?}");
    story.pod("q", json!({"persistentVolumeClaim": {"claimName": "data", "readOnly": true}}));
    story.ready("q").await;
    assert_eq!((story.count("NodeStageVolume"), story.count("NodePublishVolume")), (1, 2), "staged once for both");

    // The next agent finds what this one did, and does it again: that changes nothing.
    story.node.halt().await;
    let before = story.calls().len();
    story.node.start();
    let again =
        || (story.calls()[before..].iter().filter(|call| call.starts_with("NodePublish")).count() == 2).then_some(());
    story.node.until("published again", again).await;
    assert_eq!(story.node.calls_of("StartContainer"), 2, "no container restarted");

    story.delete("p").await;
    assert_eq!((story.count("NodeUnpublishVolume"), story.count("NodeUnstageVolume")), (1, 0), "the other has it");
    assert_eq!(story.node.api.get(NODE).expect("there")["status"]["volumesInUse"], json!([UNIQUE]));
    story.delete("q").await;
    assert_eq!((story.count("NodeUnpublishVolume"), story.count("NodeUnstageVolume")), (2, 1));
    story.nothing_in_use().await;
    story.assert_clean();

    story.serving.shutdown().await;
    let gone = || (story.node.api.get(CSI_NODE)?["spec"]["drivers"] == json!([])).then_some(());
    story.node.until("the driver is gone", gone).await;
    let annotation = &story.node.api.get(NODE).expect("there")["metadata"]["annotations"];
    assert_eq!(annotation["csi.volume.kubernetes.io/nodeid"], Value::Null);
    story.node.halt().await;
}

#[tokio::test]
async fn an_agent_that_was_killed_between_two_calls_leaves_nothing() {
    let mut story = Story::new(json!({"attachRequired": false}));
    // What the driver did is not known.
    story.driver.fail("NodePublishVolume", Status::unavailable("away"));
    story.node.start();
    story.serve();
    story.registered().await;
    story.pod("p", claimed());
    let why = "FailedMount: MountVolume.SetUp failed for volume \"pv\" : rpc error: code = Unavailable desc = away";
    story.node.until("event", || story.node.api.events().contains(&why.to_owned()).then_some(())).await;
    story.node.halt().await;
    story.node.api.remove(&pod_path("p"));
    story.node.start();
    story.node.until("unstaged", || (story.count("NodeUnstageVolume") == 1).then_some(())).await;
    story.node.until("the pod's folder goes", || (!story.agent("pods/p").exists()).then_some(())).await;
    assert_eq!(story.count("NodeUnpublishVolume"), 1);
    story.assert_clean();
    story.node.halt().await;

    // Killed after the volume was staged, before the pod was told of.
    let staged = story.agent(&format!("plugins/kubernetes.io/csi/{NAME}/{}", super::paths::hex("handle")));
    std::fs::create_dir_all(staged.join("globalmount")).unwrap();
    let record = json!({"driverName": NAME, "volumeHandle": "handle", "specVolID": "pv"});
    std::fs::write(staged.join("vol_data.json"), record.to_string()).unwrap();
    story.node.start();
    story.node.until("unstaged", || (story.count("NodeUnstageVolume") == 2).then_some(())).await;
    story.node.until("forgotten", || (!staged.exists()).then_some(())).await;
    story.node.halt().await;
}

#[tokio::test]
async fn a_pod_waits_for_its_driver_and_says_so() {
    let mut story = Story::new(json!({"attachRequired": false}));
    story.node.start();
    story.pod("p", claimed());
    let why = "FailedMount: MountVolume.MountDevice failed for volume \"pv\" : kubernetes.io/csi: attacher.MountDevice \
        failed to create newCsiDriverClient: driver name hostpath.csi.test not found in the list of registered CSI drivers";
    story.node.until("event", || story.node.api.events().contains(&why.to_owned()).then_some(())).await;
    story.driver.fail("NodeGetInfo", Status::internal("not yet"));
    story.serve();
    story.ready("p").await;
    let told = story.calls();
    let told: Vec<&str> = told.iter().filter_map(|call| call.strip_prefix("NotifyRegistrationStatus ")).collect();
    let refused = "false RegisterPlugin error -- plugin registration failed with err: error during CSI NodeGetInfo() call: \
        rpc error: code = Internal desc = not yet";
    assert_eq!(told, [refused, "true "]);
    story.delete("p").await;
    story.assert_clean();
    story.node.halt().await;
}

#[tokio::test]
async fn a_volume_of_the_pod_itself_has_its_tokens() {
    let mut story = Story::new(json!({"volumeLifecycleModes": ["Ephemeral"], "podInfoOnMount": true,
        "tokenRequests": [{"audience": "vault"}], "serviceAccountTokenInSecrets": true}));
    story.node.start();
    story.serve();
    story.registered().await;
    story.pod("p", json!({"csi": {"driver": NAME, "volumeAttributes": {"a": "b"}, "readOnly": true}}));
    story.ready("p").await;
    let calls = story.calls();
    let publish = calls.iter().find(|call| call.starts_with("NodePublishVolume")).expect("published");
    let handle = format!("csi-{}", super::paths::hex("pv"));
    assert!(publish.contains("readonly:true") && publish.contains("csi.storage.k8s.io/ephemeral=true"), "{publish}");
    assert!(publish.contains(&format!("NodePublishVolume {handle} ")), "{publish}");
    let (context, secrets) = publish.split_once(" secrets:").expect("both");
    assert!(!context.contains("t0ken") && secrets.contains("\"vault\":{") && secrets.contains("\"token\":\"t0ken\""));
    assert_eq!(story.count("NodeStageVolume"), 0);
    story.delete("p").await;
    assert_eq!((story.count("NodeUnpublishVolume"), story.count("NodeUnstageVolume")), (1, 0));
    story.nothing_in_use().await;
    story.node.halt().await;

    // A driver without such volumes.
    let mut story = Story::new(json!({}));
    story.node.start();
    story.serve();
    story.registered().await;
    story.pod("p", json!({"csi": {"driver": NAME}}));
    let why = "FailedMount: MountVolume.SetUp failed for volume \"v\" : volume mode \"Ephemeral\" not supported by driver \
        hostpath.csi.test (only supports [\"Persistent\"])";
    story.node.until("event", || story.node.api.events().contains(&why.to_owned()).then_some(())).await;
    story.node.halt().await;
}

#[tokio::test]
async fn a_volume_that_has_grown_is_grown_on_the_node() {
    let mut story = Story::new(json!({"attachRequired": false}));
    let mut volume = story.node.api.get("/api/v1/persistentvolumes/pv").expect("there");
    volume["spec"]["capacity"]["storage"] = "2Gi".into();
    story.node.api.put("/api/v1/persistentvolumes/pv", volume);
    let mut claim = story.node.api.get(CLAIM).expect("there");
    claim["status"]["conditions"] = json!([{"type": "FileSystemResizePending", "status": "True"}]);
    story.node.api.put(CLAIM, claim);
    story.node.start();
    story.serve();
    story.registered().await;
    story.pod("p", claimed());
    let grown = || {
        let claim = story.node.api.get(CLAIM)?;
        (claim["status"]["capacity"]["storage"] == "2Gi").then_some(claim)
    };
    let claim = story.node.until("grown", grown).await;
    assert_eq!(claim["status"]["conditions"], json!([]));
    assert_eq!(claim["status"]["allocatedResourceStatuses"]["storage"], Value::Null);
    assert!(story.calls().contains(&"NodeExpandVolume handle 2147483648".to_owned()));
    let told = "FileSystemResizeSuccessful: MountVolume.NodeExpandVolume succeeded for volume \"pv\" n1";
    story.node.until("event", || story.node.api.events().contains(&told.to_owned()).then_some(())).await;
    story.node.halt().await;
}

#[tokio::test]
async fn how_full_a_volume_is_its_driver_says_once_a_minute() {
    let mut story = Story::new(json!({"attachRequired": false}));
    let cx = story.node.start();
    story.serve();
    story.registered().await;
    story.pod("p", claimed());
    story.ready("p").await;
    story.driver.fail("NodeGetVolumeStats", Status::internal("not now"));
    let figures = "kubelet_volume_stats_";
    for _ in 0..2 {
        assert!(!metrics::node::render(&cx).await.contains(figures), "nothing is known");
    }
    assert_eq!(story.count("NodeGetVolumeStats"), 1, "and it is not asked again at once");
    story.pod("q", claimed());
    story.ready("q").await;
    for _ in 0..2 {
        let text = metrics::node::render(&cx).await;
        for (name, value) in [
            ("capacity_bytes", 1 << 30),
            ("available_bytes", (1 << 30) - 4096),
            ("used_bytes", 4096),
            ("inodes", 100),
            ("inodes_free", 97),
            ("inodes_used", 3),
        ] {
            let line = format!("{figures}{name}{{namespace=\"ns\",persistentvolumeclaim=\"data\"}} {value}\n");
            assert!(text.contains(&line), "{line} is not in:\n{text}");
        }
    }
    let path = story.agent("pods/q/volumes/kubernetes.io~csi/pv/mount").display().to_string();
    let asked: Vec<String> = story.calls().into_iter().filter(|call| call.starts_with("NodeGetVolumeStats")).collect();
    assert_eq!((asked.len(), asked.last()), (2, Some(&format!("NodeGetVolumeStats handle {path}"))));
    story.delete("p").await;
    story.delete("q").await;
    assert!(!metrics::node::render(&cx).await.contains(figures), "nothing of pods that are gone");
    story.node.halt().await;
}

#[tokio::test]
async fn a_device_reaches_the_container_and_goes() {
    let mut story = Story::new(json!({"attachRequired": false}));
    let mut volume = story.node.api.get("/api/v1/persistentvolumes/pv").expect("there");
    volume["spec"]["volumeMode"] = "Block".into();
    story.node.api.put("/api/v1/persistentvolumes/pv", volume);
    story.node.start();
    story.serve();
    story.registered().await;
    story.pod("p", claimed());
    let mut pod = story.node.api.get(&pod_path("p")).expect("there");
    let container = &mut pod["spec"]["containers"][0];
    container["volumeMounts"] = json!([]);
    container["volumeDevices"] = json!([{"name": "v", "devicePath": "/dev/xvda"}]);
    story.node.api.put(&pod_path("p"), pod);
    story.ready("p").await;
    let device = story.agent("pods/p/volumeDevices/kubernetes.io~csi/pv");
    let published = story.agent("plugins/kubernetes.io/csi/volumeDevices/publish/pv/p");
    assert_eq!(std::fs::read_link(&device).ok(), Some(published.clone()));
    let told = format!(
        "SuccessfulMountVolume: MapVolume.MapPodDevice succeeded for volume \"pv\" volumeMapPath {:?}",
        device.parent().expect("has one").display().to_string()
    );
    story.node.until("event", || story.node.api.events().contains(&told).then_some(())).await;
    story.delete("p").await;
    assert!(!published.exists());
    assert_eq!((story.count("NodeUnpublishVolume"), story.count("NodeUnstageVolume")), (1, 1));
    story.assert_clean();
    story.node.halt().await;
}
