//! Loop: the Node of this machine: registered once, its Lease renewed every 10 s, its status told when it changed and
//! else every 5 minutes. On the same tick it asks the runtime how it is; nothing else here is periodic.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, Taint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::allocatable::{self, Shares};
use super::context::NodeContext;
use super::csi;
use super::events::Kind as EventKind;
use super::node_info::{Machine, Pressure, architecture, runtime_version};
use crate::api::local_storage::PATH_ANNOTATION;
use crate::clock;
use crate::cri;

const RENEW: Duration = Duration::from_secs(10);
/// While the node is not ready, so that Ready is told soon after it is.
const WATCHFUL: Duration = Duration::from_millis(100);
/// For this long after the start; a node that is not ready after that is looked at every [`PATIENT`].
const STARTING: Duration = Duration::from_secs(30);
const PATIENT: Duration = Duration::from_secs(2);

/// Whether the runtime's event stream is up; `None` before the first try.
pub type RuntimeState = watch::Receiver<Option<bool>>;

pub struct NodeLoop {
    pub cx: Arc<NodeContext>,
    pub machine: Machine,
    pub runtime_state: RuntimeState,
    shares: Shares,
    pressure: watch::Receiver<Pressure>,
    going_down: watch::Receiver<bool>,
    address: watch::Receiver<IpAddr>,
}

/// What the conditions are decided from.
#[derive(Clone, Debug, PartialEq)]
struct Observed {
    /// The reason why the node is not ready.
    not_ready: Option<String>,
    pressure: Pressure,
    /// Of the images on the node.
    images: u64,
    address: IpAddr,
    /// Of the runtime, once it has said it.
    runtime: Option<(Vec<cri::Handler>, Option<bool>)>,
}

impl NodeLoop {
    #[must_use]
    pub fn new(cx: Arc<NodeContext>, machine: Machine, shares: Shares, runtime_state: RuntimeState) -> NodeLoop {
        let (pressure, going_down, address) = (cx.pressure.subscribe(), cx.going_down.subscribe(), cx.address.clone());
        NodeLoop { cx, machine, runtime_state, shares, pressure, going_down, address }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        let version = self.runtime_version().await;
        let mut current = self.register(version).await;
        let name = self.cx.config.node_name.clone();
        self.cx.events.node(&name, EventKind::Normal, "Starting", "Starting kubelet.");
        csi::ensure_csi_node(&self.cx).await;
        let mut told: Option<(Observed, tokio::time::Instant)> = None;
        let mut renewed: Option<tokio::time::Instant> = None;
        let mut away = false;
        let began = clock::instant();
        let every = self.cx.config.kubelet.report;
        loop {
            let observed = self.observe().await;
            let due = told.as_ref().is_none_or(|(before, at)| *before != observed || at.elapsed() >= every);
            if due {
                let before = told.as_ref().map(|(before, _)| before.clone());
                let ready_before = before.as_ref().map(|before| before.not_ready.is_none());
                match self.report(&mut current, &observed).await {
                    Ok(()) => {
                        self.note_ready(ready_before, &observed);
                        self.note_pressure(before.map(|before| before.pressure), observed.pressure);
                        told = Some((observed.clone(), clock::instant()));
                    }
                    Err(kube::Error::Api(status)) if status.code == 404 => {
                        // Somebody deleted the Node: this machine is still here.
                        let version = current.node_info.map(|info| info.container_runtime_version);
                        current = self.register(version.unwrap_or_default()).await;
                        told = None;
                        continue;
                    }
                    Err(error) => tracing::debug!(%error, "node status not told"),
                }
            }
            if renewed.is_none_or(|at| at.elapsed() >= RENEW) {
                let result = self.renew().await;
                self.note_server(&mut away, &result);
                if result.is_ok() {
                    renewed = Some(clock::instant());
                }
            }
            let pause = match observed.not_ready.is_none() && told.is_some() {
                true => RENEW,
                false if began.elapsed() < STARTING => WATCHFUL,
                false => PATIENT,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = self.runtime_state.changed() => if changed.is_err() { return },
                // The sender lives as long as the context.
                _ = self.pressure.changed() => {}
                _ = self.going_down.changed() => {}
                // Without a sender it stays as it is.
                Ok(()) = self.address.changed() => self.cx.pods.wake_all(),
            }
        }
    }

    fn note_ready(&self, before: Option<bool>, observed: &Observed) {
        let name = &self.cx.config.node_name;
        match (before, observed.not_ready.as_deref()) {
            (Some(true), Some(why)) => {
                tracing::warn!(node = name, why, "node is not ready");
                let message = format!("Node {name} status is now: NodeNotReady");
                self.cx.events.node(name, EventKind::Normal, "NodeNotReady", message);
            }
            (Some(false) | None, None) => {
                tracing::info!(node = name, "node is ready");
                let message = format!("Node {name} status is now: NodeReady");
                self.cx.events.node(name, EventKind::Normal, "NodeReady", message);
            }
            _ => {}
        }
    }

    /// As the kubelet says them: at the start too.
    fn note_pressure(&self, before: Option<Pressure>, now: Pressure) {
        let name = &self.cx.config.node_name;
        let rows = [
            (before.map(|b| b.memory), now.memory, "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
            (before.map(|b| b.disk), now.disk, "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
            (before.map(|b| b.pid), now.pid, "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ];
        for (before, now, short, fine) in rows {
            let reason = if now { short } else { fine };
            if before != Some(now) {
                let message = format!("Node {name} status is now: {reason}");
                self.cx.events.node(name, EventKind::Normal, reason, message);
            }
        }
    }

    /// Asked once; the daemon may still be starting.
    async fn runtime_version(&self) -> String {
        for _ in 0..100 {
            if let Ok(version) = self.cx.runtime.version().await {
                return runtime_version(&version);
            }
            tokio::time::sleep(WATCHFUL).await;
        }
        String::new()
    }

    async fn observe(&self) -> Observed {
        let down = *self.runtime_state.borrow() == Some(false);
        let going_down = *self.going_down.borrow();
        let health = tokio::time::timeout(Duration::from_secs(5), self.cx.runtime.health()).await;
        let said = |health: &cri::Health| (health.handlers.clone(), health.supplemental_groups_policy);
        let runtime = health.as_ref().ok().and_then(|health| health.as_ref().ok()).map(said);
        let not_ready = match health {
            _ if going_down => Some("node is shutting down".to_owned()),
            Ok(Ok(health)) => not_ready(&health),
            _ if down => Some("container runtime is down".to_owned()),
            Ok(Err(_)) => Some("container runtime is down".to_owned()),
            Err(_) => Some("[container runtime status check may not have completed yet]".to_owned()),
        };
        let (pressure, images) = (*self.cx.pressure.borrow(), self.cx.images.generation() + *self.cx.imports.borrow());
        Observed { not_ready, pressure, images, address: *self.address.borrow(), runtime }
    }

    /// Creates the Node, or brings labels of an old one up to date. Ends when it is there.
    async fn register(&self, runtime_version: String) -> NodeStatus {
        let api: Api<Node> = Api::all(self.cx.client.clone());
        let name = &self.cx.config.node_name;
        let status = self.status(runtime_version);
        let labels = self.labels();
        let annotations = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true",
            PATH_ANNOTATION: self.cx.config.local_storage});
        let taints = self.taints();
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"taints": taints},
        }))
        .unwrap_or_default();
        let volumes_in_use = self.cx.csi.volumes_in_use();
        let node = Node { status: Some(NodeStatus { volumes_in_use, ..status.clone() }), ..node };
        let mut delay = Duration::from_millis(200);
        loop {
            let error = match api.create(&PostParams::default(), &node).await {
                Ok(_) => {
                    tracing::info!(node = name, "node registered");
                    return status;
                }
                Err(kube::Error::Api(answer)) if answer.code == 409 => {
                    let patch = Patch::Merge(json!({"metadata": {"labels": labels, "annotations": annotations}}));
                    match api.patch(name, &PatchParams::default(), &patch).await {
                        // Conditions keep the time of their last change.
                        Ok(found) => {
                            let conditions = found.status.and_then(|status| status.conditions);
                            return NodeStatus { conditions: conditions.or(status.conditions), ..status };
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            tracing::warn!(%error, node = name, "node not registered, trying again");
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(7));
        }
    }

    fn labels(&self) -> serde_json::Map<String, serde_json::Value> {
        let name = self.cx.config.node_name.as_str();
        let mut labels: Vec<(&str, &str)> = vec![
            ("beta.kubernetes.io/arch", architecture()),
            ("beta.kubernetes.io/instance-type", "skiff"),
            ("beta.kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture()),
            ("kubernetes.io/hostname", name),
            ("kubernetes.io/os", "linux"),
            ("node.kubernetes.io/instance-type", "skiff"),
        ];
        labels.extend(self.cx.config.node_labels.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        labels.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
    }

    fn taints(&self) -> Vec<Taint> {
        self.cx.config.node_taints.iter().filter_map(|text| parse_taint(text)).collect()
    }

    fn status(&self, container_runtime_version: String) -> NodeStatus {
        let (capacity, allocatable) = allocatable::resources(&self.machine, &self.shares);
        let mut system = self.machine.system.clone();
        system.container_runtime_version = container_runtime_version;
        NodeStatus {
            capacity: Some(capacity),
            allocatable: Some(allocatable),
            addresses: Some(self.addresses()),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(self.cx.config.kubelet_port) }),
            }),
            node_info: Some(system),
            ..NodeStatus::default()
        }
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
        vec![
            address("InternalIP", self.cx.node_ip().to_string()),
            address("Hostname", self.cx.config.node_name.clone()),
        ]
    }

    async fn report(&self, current: &mut NodeStatus, observed: &Observed) -> Result<(), kube::Error> {
        let now = clock::time();
        current.conditions = Some(conditions(observed, current.conditions.as_deref().unwrap_or_default(), &now));
        current.addresses = Some(self.addresses());
        if let Some((handlers, groups)) = &observed.runtime {
            current.runtime_handlers =
                Some(handlers.iter().map(handler).collect()).filter(|all: &Vec<_>| !all.is_empty());
            current.features = groups.map(|known| NodeFeatures { supplemental_groups_policy: Some(known) });
        }
        if let Ok(images) = self.cx.images.list().await {
            current.images = Some(image_list(images, self.cx.config.kubelet.max_images));
        }
        let api: Api<Node> = Api::all(self.cx.client.clone());
        let patch = Patch::Strategic(json!({ "status": current }));
        api.patch_status(&self.cx.config.node_name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// The one place that says that the server is away: everything else of the agent tries again in silence.
    fn note_server(&self, away: &mut bool, renewed: &Result<(), kube::Error>) {
        let (was_away, server) = (*away, &self.cx.config.server);
        *away = renewed.is_err();
        match renewed {
            Err(error) if !was_away => {
                let error = crate::supervisor::chain(error);
                tracing::warn!(server, error, "the API server is away: pods go on, changes wait until it is back");
            }
            Ok(()) if was_away => tracing::info!(server, "the API server is back"),
            _ => {}
        }
    }

    async fn renew(&self) -> Result<(), kube::Error> {
        let api: Api<Lease> = Api::namespaced(self.cx.client.clone(), "kube-node-lease");
        let name = &self.cx.config.node_name;
        let patch = Patch::Merge(json!({"spec": {"renewTime": clock::micro_time()}}));
        match api.patch(name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => self.create_lease(&api, name).await,
            other => other.map(drop),
        }
    }

    async fn create_lease(&self, api: &Api<Lease>, name: &str) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(self.cx.client.clone());
        let uid = nodes.get(name).await?.metadata.uid;
        let lease: Lease = serde_json::from_value(json!({
            "metadata": {"name": name, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": self.cx.config.kubelet.lease_seconds, "renewTime": clock::micro_time()},
        }))
        .unwrap_or_default();
        api.create(&PostParams::default(), &lease).await.map(drop)
    }
}

/// The message of a Ready condition that is false.
fn not_ready(health: &cri::Health) -> Option<String> {
    let message = &health.message;
    if !health.runtime_ready {
        return Some(format!(
            "container runtime not ready: RuntimeReady=false reason:RuntimeNotReady message:{message}"
        ));
    }
    if !health.network_ready {
        return Some(format!(
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{message}"
        ));
    }
    None
}

fn conditions(observed: &Observed, before: &[NodeCondition], now: &Time) -> Vec<NodeCondition> {
    let pressure = &observed.pressure;
    let row = |kind: &str, status: bool, reason: &str, message: &str| {
        let status = if status { "True" } else { "False" };
        let same = before.iter().find(|old| old.type_ == kind && old.status == status);
        let since = same.and_then(|old| old.last_transition_time.clone());
        NodeCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: since.or_else(|| Some(now.clone())),
        }
    };
    let memory = match pressure.memory {
        true => ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        false => ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    };
    let disk = match pressure.disk {
        true => ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        false => ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    };
    let pid = match pressure.pid {
        true => ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        false => ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    };
    let ready = match observed.not_ready.as_deref() {
        Some(why) => row("Ready", false, "KubeletNotReady", why),
        None => row("Ready", true, "KubeletReady", "kubelet is posting ready status"),
    };
    vec![
        row("MemoryPressure", pressure.memory, memory.0, memory.1),
        row("DiskPressure", pressure.disk, disk.0, disk.1),
        row("PIDPressure", pressure.pid, pid.0, pid.1),
        ready,
    ]
}

fn handler(found: &cri::Handler) -> NodeRuntimeHandler {
    NodeRuntimeHandler {
        name: Some(found.name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(found.recursive_read_only),
            user_namespaces: Some(found.user_namespaces),
        }),
    }
}

/// The biggest first, digests before tags.
fn image_list(mut images: Vec<cri::Image>, most: Option<usize>) -> Vec<ContainerImage> {
    images.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
    images.truncate(most.unwrap_or(usize::MAX));
    let row = |image: cri::Image| ContainerImage {
        names: Some(image.digests.into_iter().chain(image.tags).take(5).collect()),
        size_bytes: i64::try_from(image.size_bytes).ok(),
    };
    images.into_iter().map(row).collect()
}

/// `key=value:Effect` or `key:Effect`.
fn parse_taint(text: &str) -> Option<Taint> {
    let (rest, effect) = text.rsplit_once(':')?;
    let (key, value) = match rest.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (rest, None),
    };
    Some(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(observed: &Observed, before: &[NodeCondition], second: i64) -> Vec<NodeCondition> {
        conditions(observed, before, &Time(jiff::Timestamp::from_second(second).expect("small number")))
    }

    #[test]
    fn conditions_change_their_time_with_their_status() {
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let pressure = Pressure::default();
        let mut observed = Observed { not_ready: None, pressure, images: 0, address, runtime: None };
        let first = show(&observed, &[], 10);
        let text = |c: &NodeCondition| {
            let (reason, message) = (c.reason.as_deref().unwrap_or(""), c.message.as_deref().unwrap_or(""));
            format!("{}={} {reason}: {message}", c.type_, c.status)
        };
        assert_eq!(
            first.iter().map(text).collect::<Vec<_>>(),
            [
                "MemoryPressure=False KubeletHasSufficientMemory: kubelet has sufficient memory available",
                "DiskPressure=False KubeletHasNoDiskPressure: kubelet has no disk pressure",
                "PIDPressure=False KubeletHasSufficientPID: kubelet has sufficient PID available",
                "Ready=True KubeletReady: kubelet is posting ready status",
            ]
        );
        observed.not_ready = Some("container runtime is down".into());
        let second = show(&observed, &first, 20);
        assert_eq!(text(&second[3]), "Ready=False KubeletNotReady: container runtime is down");
        let changed = |c: &NodeCondition| c.last_transition_time.as_ref().map(|time| time.0.as_second());
        assert_eq!((changed(&second[0]), changed(&second[3])), (Some(10), Some(20)));
    }

    #[test]
    fn taints() {
        let taint = parse_taint("a/b=c:NoSchedule").expect("valid");
        assert_eq!(
            (taint.key.as_str(), taint.value.as_deref(), taint.effect.as_str()),
            ("a/b", Some("c"), "NoSchedule")
        );
        assert_eq!(parse_taint("a:NoExecute").expect("valid").value, None);
        assert!(parse_taint("a").is_none());
    }

    #[test]
    fn network_and_runtime_are_told_apart() {
        let health = |runtime_ready, network_ready| cri::Health {
            runtime_ready,
            network_ready,
            message: "why".into(),
            ..cri::Health::default()
        };
        assert_eq!(not_ready(&health(true, true)), None);
        let network = not_ready(&health(true, false)).expect("not ready");
        assert_eq!(
            network,
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:why"
        );
        assert!(not_ready(&health(false, false)).expect("not ready").contains("RuntimeReady=false"));
    }
}
