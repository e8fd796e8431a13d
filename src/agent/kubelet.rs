//! Loop: the agent's parts put together: the node's status, pods and their workers, runtime events, events, logs.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::allocation::Ledger;
use super::cgroups::Cgroups;
use super::context::{NodeContext, Paths};
use super::cpu::Exclusive;
use super::devices::Devices;
use super::dra::Drivers;
use super::eviction::signals;
use super::image_gc::ImageGc;
use super::images::Puller;
use super::limits::{Kernel, Shared};
use super::metrics::probes::Counts;
use super::metrics::volumes::VolumeFigures;
use super::node_info::{Machine, Pressure};
use super::node_status::NodeLoop;
use super::objects::Objects;
use super::pod::table::PodTable;
use super::pod_source::PodSource;
use super::topology::Aligner;
use super::users::Users;
use super::volumes::iscsi::Iscsi;
use super::volumes::memory::InMemory;
use super::{allocatable, cpu, csi, events, eviction, gc, logs, plugins, preemption, read_only, reserved, shutdown};
use crate::api::amounts::Amounts;
use crate::net::services::View;
use crate::{config, cri};

/// Between attempts to follow the runtime's events.
const RECONNECT: Duration = Duration::from_millis(200);
const ENFORCE_AGAIN: Duration = Duration::from_secs(60);

/// What the agent is made of; see [`Kubelet::new`].
pub struct Parts {
    pub config: config::Agent,
    /// As the server said when joining.
    pub cluster: config::Cluster,
    /// HTTPS with the node's certificate.
    pub client: kube::Client,
    pub runtime: Arc<dyn cri::Runtime>,
    pub images: Arc<dyn cri::Images>,
    pub services: watch::Receiver<Arc<View>>,
    /// Rounds of imports. No pod starts before the first: it would look elsewhere for images that lie here.
    pub imports: watch::Receiver<u64>,
    /// What an earlier agent left of it.
    pub exclusive: Exclusive,
    pub aligner: Aligner,
    /// The address of the node.
    pub address: watch::Receiver<IpAddr>,
    pub in_memory: InMemory,
}

pub struct Kubelet {
    cx: Arc<NodeContext>,
    machine: Machine,
    shares: allocatable::Shares,
    events: events::Writer,
}

impl Kubelet {
    /// Reads the machine and makes the groups for pods; starts nothing.
    #[must_use]
    pub fn new(parts: Parts) -> Kubelet {
        Kubelet::with_cgroups(parts, Path::new("/sys/fs/cgroup"))
    }

    /// With another root of the control group tree: tests leave the machine's alone.
    pub(super) fn with_cgroups(parts: Parts, cgroup_root: &Path) -> Kubelet {
        let host = &parts.config.kubelet.host;
        let cgroups = Cgroups::new(cgroup_root).with_exclusive_cpus(parts.exclusive.is_on()).with_pids(host.pod_pids);
        let machine = Machine::read(&parts.config.data_dir);
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let shared = Shared { memory: signed(machine.memory_bytes), swap: signed(machine.swap_bytes) };
        let shared = Some(shared).filter(|_| host.limited_swap);
        let shares = allocatable::shares(&machine, &parts.config.kubelet, parts.config.max_pods, signals::most_tasks());
        let reserves = shares.pods_memory_bytes < i64::try_from(machine.memory_bytes).unwrap_or(i64::MAX);
        let kubepods =
            cgroups.of_all_pods().filter(|_| reserves && parts.config.kubelet.enforce_pods).map(|directory| {
                signals::Kubepods { directory, is_v2: cgroups.is_v2(), limit_bytes: shares.pods_memory_bytes }
            });
        let gauges = Arc::new(signals::Machine::new(&parts.config.data_dir, kubepods));
        let Parts {
            config,
            cluster,
            client,
            runtime,
            images,
            services,
            imports,
            exclusive,
            aligner,
            address,
            in_memory,
        } = parts;
        let (recorder, writer) = events::new(client.clone(), &config.node_name);
        let paths = Paths::new(&config.data_dir, config.kubelet_dir.as_deref());
        let pods = PodTable::default();
        let iscsi = Arc::new(Iscsi::new(&paths.kubelet, &config.search_path));
        let cx = NodeContext {
            users: Users::new(&paths.pods, config.kubelet.host.ids_per_pod, config.max_pods, &config.search_path),
            paths,
            address,
            objects: Objects::new(client.clone(), pods.clone()),
            images: Puller::new(images, config.images.clone(), &config.data_dir),
            cgroups,
            ledger: Ledger::new(Amounts::parse(Some(&allocatable::resources(&machine, &shares).1)))
                .with_fixed_cpus(exclusive.is_on()),
            exclusive,
            aligner,
            allocatable: shares.allocatable,
            pressure: watch::channel(Pressure::default()).0,
            going_down: watch::channel(false).0,
            gauges,
            image_gc: ImageGc::default(),
            imports,
            kernel: Kernel { shared, ..Kernel::read(cgroup_root) },
            devices: Devices::new(&config.data_dir.join("agent/devices.json")),
            drivers: Drivers::new(
                &config.data_dir.join("agent/claims.json"),
                client.clone(),
                &config.node_name,
                pods.clone(),
            ),
            memory_bytes: i64::try_from(machine.memory_bytes).unwrap_or(i64::MAX),
            tokens: std::sync::Mutex::default(),
            in_memory,
            probe_counts: Counts::default(),
            preemptions: preemption::Counts::default(),
            volume_figures: VolumeFigures::default(),
            csi: csi::Csi::default(),
            iscsi,
            events: recorder,
            config,
            cluster,
            client,
            runtime,
            services,
            pods,
        };
        Kubelet { cx: Arc::new(cx), machine, shares, events: writer }
    }

    /// With other gauges than the machine's.
    #[cfg(test)]
    pub(super) fn with_gauges(mut self, gauges: Arc<dyn signals::Gauges>) -> Kubelet {
        Arc::get_mut(&mut self.cx).expect("nobody else has it yet").gauges = gauges;
        self
    }

    /// For the kubelet endpoint and whoever looks up pods.
    #[must_use]
    pub fn pods(&self) -> PodTable {
        self.cx.pods.clone()
    }

    #[must_use]
    pub fn context(&self) -> Arc<NodeContext> {
        self.cx.clone()
    }

    /// Runs until `stop`; containers keep running after that, unless the machine goes down.
    pub async fn run(self, stopped: CancellationToken) {
        let mut tasks = JoinSet::new();
        let stop = match self.cx.config.kubelet.longest_shutdown().is_zero() {
            true => stopped,
            false => {
                let (cx, stop) = (self.cx.clone(), CancellationToken::new());
                let ours = stop.clone();
                tasks.spawn(async move {
                    stopped.cancelled().await;
                    if shutdown::machine_goes_down().await {
                        shutdown::run(&cx).await;
                    }
                    ours.cancel();
                });
                stop
            }
        };
        let (runtime_state, seen_state) = watch::channel(None);
        tasks.spawn(self.events.run(stop.clone()));
        let node = NodeLoop::new(self.cx.clone(), self.machine, self.shares, seen_state);
        tasks.spawn(node.run(stop.clone()));
        tasks.spawn(follow_runtime(self.cx.clone(), runtime_state, stop.clone()));
        tasks.spawn(logs::rotate(self.cx.clone(), stop.clone()));
        tasks.spawn(read_only::run(self.cx.clone(), stop.clone()));
        tasks.spawn(gc::run(self.cx.clone(), stop.clone()));
        csi::begin(&self.cx);
        tasks.spawn(eviction::run(self.cx.clone(), stop.clone()));
        if self.cx.config.kubelet.enforce_pods {
            tasks.spawn(enforce(self.cx.clone(), self.shares, stop.clone()));
        }
        reserved::enforce(&self.cx);
        tasks.spawn(plugins::run(self.cx.clone(), stop.clone()));
        if self.cx.exclusive.is_on() {
            let (cx, stop) = (self.cx.clone(), stop.clone());
            tasks.spawn(async move { cpu::share::run(&cx, stop).await });
        }
        let (source, mut imports) = (PodSource::new(self.cx.clone()), self.cx.imports.clone());
        tasks.spawn(async move {
            tokio::select! {
                // A sender that is gone has said all it will.
                _ = imports.wait_for(|rounds| *rounds > 0) => {}
                () = stop.cancelled() => return,
            }
            source.run(stop).await;
        });
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the agent failed");
            }
        }
    }
}

/// Limits all pods together to what the node gives them. Pods that use more already have to go first: it is tried again.
async fn enforce(cx: Arc<NodeContext>, shares: allocatable::Shares, stop: CancellationToken) {
    let (node, of) = (&cx.config.node_name, shares.allocatable);
    while let Err(error) = cx.cgroups.enforce(of.cpu_milli, shares.pods_memory_bytes, shares.pods_processes) {
        tracing::warn!(%error, "pods are not limited to what the node gives them; trying again");
        let message = format!("Failed to update Node Allocatable Limits [\"kubepods\"]: {error}");
        cx.events.node(node, events::Kind::Warning, "FailedNodeAllocatableEnforcement", message);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ENFORCE_AGAIN) => {}
        }
    }
    let message = "Updated Node Allocatable limit across pods";
    cx.events.node(node, events::Kind::Normal, "NodeAllocatableEnforced", message);
}

/// Passes the runtime's events to the pods' workers. After a break everyone looks at everything once.
async fn follow_runtime(cx: Arc<NodeContext>, state: watch::Sender<Option<bool>>, stop: CancellationToken) {
    let mut first = true;
    let pump = async {
        loop {
            match cx.runtime.events().await {
                Ok(mut stream) => {
                    state.send_if_modified(|up| up.replace(true) != Some(true));
                    if !std::mem::take(&mut first) {
                        cx.pods.wake_all();
                    }
                    while let Some(event) = stream.next().await {
                        cx.pods.wake_for_id(&event.id);
                    }
                    tracing::warn!("the runtime's event stream ended");
                }
                Err(error) => tracing::debug!(%error, "no runtime events"),
            }
            state.send_if_modified(|up| up.replace(false) != Some(false));
            tokio::time::sleep(RECONNECT).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = pump => {}
    }
}
