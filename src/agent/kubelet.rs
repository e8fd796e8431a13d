//! Loop: the agent's parts put together: the node's status, pods and their workers, runtime events, events, logs.

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
use super::images::Puller;
use super::metrics::probes::Counts;
use super::node_info::Machine;
use super::node_status::NodeLoop;
use super::objects::Objects;
use super::pod::table::PodTable;
use super::pod_source::PodSource;
use super::{events, gc, logs};
use crate::api::amounts::Amounts;
use crate::net::services::View;
use crate::{config, cri};

/// Between attempts to follow the runtime's events.
const RECONNECT: Duration = Duration::from_millis(200);

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
    /// True once the image archives of this node are imported: a pod before that would look for them elsewhere.
    pub pods_may_start: watch::Receiver<bool>,
}

pub struct Kubelet {
    cx: Arc<NodeContext>,
    machine: Machine,
    events: events::Writer,
    pods_may_start: watch::Receiver<bool>,
}

impl Kubelet {
    /// Reads the machine and makes the groups for pods; starts nothing.
    #[must_use]
    pub fn new(parts: Parts) -> Kubelet {
        Kubelet::with_cgroups(parts, Path::new("/sys/fs/cgroup"))
    }

    /// With another root of the control group tree: tests leave the machine's alone.
    pub(super) fn with_cgroups(parts: Parts, cgroup_root: &Path) -> Kubelet {
        let Parts { config, cluster, client, runtime, images, services, pods_may_start } = parts;
        let (recorder, writer) = events::new(client.clone(), &config.node_name);
        let pods = PodTable::default();
        let machine = Machine::read(&config.data_dir);
        let cx = NodeContext {
            paths: Paths::new(&config.data_dir),
            objects: Objects::new(client.clone(), pods.clone()),
            images: Puller::new(images, config.images.clone(), &config.data_dir),
            cgroups: Cgroups::new(cgroup_root),
            ledger: Ledger::new(Amounts::parse(Some(&machine.resources(config.max_pods).1))),
            allocatable: machine.allocatable(),
            memory_bytes: i64::try_from(machine.memory_bytes).unwrap_or(i64::MAX),
            tokens: std::sync::Mutex::default(),
            probe_counts: Counts::default(),
            events: recorder,
            config,
            cluster,
            client,
            runtime,
            services,
            pods,
        };
        Kubelet { cx: Arc::new(cx), machine, events: writer, pods_may_start }
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

    /// Runs until `stop`; containers keep running after that.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let (runtime_state, seen_state) = watch::channel(None);
        tasks.spawn(self.events.run(stop.clone()));
        let node = NodeLoop { cx: self.cx.clone(), machine: self.machine, runtime_state: seen_state };
        tasks.spawn(node.run(stop.clone()));
        tasks.spawn(follow_runtime(self.cx.clone(), runtime_state, stop.clone()));
        tasks.spawn(logs::rotate(self.cx.clone(), stop.clone()));
        tasks.spawn(gc::run(self.cx.clone(), stop.clone()));
        let (source, mut may_start) = (PodSource::new(self.cx.clone()), self.pods_may_start);
        tasks.spawn(async move {
            tokio::select! {
                // A sender that is gone has said all it will.
                _ = may_start.wait_for(|may| *may) => {}
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
