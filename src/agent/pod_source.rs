//! Loop: the pods that the API binds to this node, one worker each; and what the runtime has that the API does not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::context::NodeContext;
use super::mirror::{self, FullName, Picture, full_name, is_mirror, is_static};
use super::own_node::OwnNode;
use super::pod::admit::{self, Refusal};
use super::pod::observed::Observed;
use super::pod::worker::{Desired, Worker};
use super::pod::{ended, uid};
use super::static_pods::StaticPods;
use super::volumes::{attached, teardown};
use super::{eviction, preemption, shutdown};
use crate::client::reflector::{self, Event, Source};
use crate::cri::{self, Runtime};

pub struct PodSource {
    /// Pods of this node's own, in the folder of manifests.
    own: StaticPods,
    picture: watch::Sender<Picture>,
    /// Follows the picture, once there is something in it.
    mirroring: JoinSet<()>,
    /// New manifests whose pods wait for the ones of the same name to end.
    next: BTreeMap<FullName, Pod>,
    cx: Arc<NodeContext>,
    workers: JoinSet<String>,
    desired: HashMap<String, watch::Sender<Desired>>,
    /// Pods that were cleaned up while the API still shows them.
    finished: BTreeSet<String>,
    /// What the runtime had when the agent started, by pod; taken by the worker.
    found: BTreeMap<String, Found>,
    node: OwnNode,
}

/// A pod that was on this node when the agent started.
struct Found {
    namespace: String,
    name: String,
}

impl PodSource {
    #[must_use]
    pub fn new(cx: Arc<NodeContext>) -> PodSource {
        PodSource {
            own: StaticPods::new(&cx.config.pod_manifests, &cx.config.node_name),
            picture: watch::channel(Picture::default()).0,
            mirroring: JoinSet::new(),
            next: BTreeMap::new(),
            cx,
            workers: JoinSet::new(),
            desired: HashMap::new(),
            finished: BTreeSet::new(),
            found: BTreeMap::new(),
            node: OwnNode::default(),
        }
    }

    /// Returns when every worker has ended; on `stop` the containers keep running.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow(&stop) => {}
        }
        // Workers hold the same token.
        stop.cancel();
        while self.workers.join_next().await.is_some() {}
    }

    async fn follow(&mut self, stop: &CancellationToken) {
        self.found = self.take_stock().await;
        self.read_own(stop).await;
        let own = Source::of("pods").fields(format!("spec.nodeName={}", self.cx.config.node_name));
        let mut stream = pin!(reflector::typed::<Pod>(self.cx.client.clone(), own));
        loop {
            tokio::select! {
                event = stream.next() => match event {
                    None => return,
                    Some(Event::Replace(pods, _)) => {
                        let (mirrors, pods): (Vec<Pod>, Vec<Pod>) = pods.into_iter().partition(is_mirror);
                        self.mirrors_listed(mirrors);
                        let listed = pods.iter().map(|pod| uid(pod).to_owned()).collect();
                        for pod in self.in_order(pods) {
                            self.put(pod, false, stop).await;
                        }
                        self.listed(&listed, stop).await;
                    }
                    Some(Event::Set(pod)) if is_mirror(&pod) => self.mirror_seen(pod, false),
                    Some(Event::Gone(pod)) if is_mirror(&pod) => self.mirror_seen(pod, true),
                    Some(Event::Set(pod)) => self.put(pod, false, stop).await,
                    Some(Event::Bookmark(_)) => {}
                    Some(Event::Gone(pod)) => {
                        self.finished.remove(uid(&pod));
                        self.cx.devices.leaving(uid(&pod));
                        if self.desired.contains_key(uid(&pod)) {
                            self.put(pod, true, stop).await;
                        }
                    }
                },
                () = self.own.changed() => self.read_own(stop).await,
                Some(ended) = self.workers.join_next() => {
                    self.worker_ended(ended);
                    self.start_next(stop).await;
                }
            }
        }
    }

    /// What runs already. The runtime may still be starting; without it nothing can be done anyway.
    async fn take_stock(&self) -> BTreeMap<String, Found> {
        loop {
            match self.cx.runtime.sandboxes(None).await {
                Ok(sandboxes) => {
                    let row = |s: cri::Sandbox| (s.pod_uid, Found { namespace: s.namespace, name: s.name });
                    return sandboxes.into_iter().map(row).collect();
                }
                Err(error) => tracing::debug!(%error, "runtime not asked for its sandboxes"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What runs here first, then the oldest first: they have what is there before others are given any.
    fn in_order(&self, mut pods: Vec<Pod>) -> Vec<Pod> {
        pods.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (!self.found.contains_key(uid(pod)), created)
        });
        pods
    }

    async fn put(&mut self, pod: Pod, gone: bool, stop: &CancellationToken) {
        let id = uid(&pod).to_owned();
        let pod = Arc::new(pod);
        if gone {
            // At once: the next pod may come for what it had. Its worker wakes those that wait.
            self.cx.ledger.release(&id);
        }
        if let Some(desired) = self.desired.get(&id) {
            desired.send_modify(|desired| {
                desired.pod = pod;
                desired.gone |= gone;
            });
            return;
        }
        if self.finished.contains(&id) {
            return;
        }
        let found = self.found.remove(&id);
        let admitted = match &found {
            _ if gone || ended(&pod) => Ok(Vec::new()),
            Some(_) => {
                self.cx.ledger.adopt(&pod);
                Ok(Vec::new())
            }
            None => self.admit(&pod).await,
        };
        let observed = match found {
            None => Observed::default(),
            Some(_) => self.observe_until(&id).await,
        };
        let mirror = self.mirror_of(&pod);
        let (sender, receiver) = watch::channel(Desired { pod, gone, mirror });
        let mut worker = Worker::new(self.cx.clone(), receiver, observed);
        match admitted {
            Ok(leaving) if leaving.is_empty() => {}
            Ok(leaving) => worker.begin_after(preemption::ended(self.cx.clone(), leaving).boxed()),
            Err(why) => worker.refuse(&why),
        }
        let (stop, key) = (stop.clone(), id.clone());
        self.desired.insert(id, sender);
        self.workers.spawn(async move {
            worker.run(stop).await;
            key
        });
    }

    /// Whether the node takes the pod, which is counted then from now on; returns the pods that make room for it.
    async fn admit(&mut self, pod: &Arc<Pod>) -> Result<Vec<Arc<Pod>>, Refusal> {
        if *self.cx.going_down.borrow() {
            return Err(shutdown::not_admitted());
        }
        let host = &self.cx.config.kubelet.host;
        let refused = eviction::admit::refusal(pod, *self.cx.pressure.borrow());
        let refused = refused.or_else(|| admit::unsuitable(pod, host));
        let refused = match refused {
            None if admit::is_strict(pod) => {
                // A runtime that does not answer is asked again by whoever starts the pod.
                self.cx.runtime.health().await.ok().and_then(|health| admit::groups(pod, &health))
            }
            known => known,
        };
        if let Some(why) = refused {
            return Err(why);
        }
        // Those that have ended, or that the API has no more, are not among them: the scheduler has not waited either.
        let others = self.cx.ledger.pods();
        let lacking = self.cx.ledger.admit(pod).err().unwrap_or_default();
        if let Some(first) = lacking.first()
            && !eviction::is_critical(pod)
        {
            return Err(admit::lacking(first));
        }
        let why = match admit::ports(pod, others.iter().map(AsRef::as_ref)) {
            Some(why) => Some(why),
            None => self.unsuited_node(pod).await,
        };
        match why {
            Some(why) => {
                self.cx.ledger.release(uid(pod));
                Err(why)
            }
            // A critical pod is only refused when no others could leave for it.
            None if !lacking.is_empty() => preemption::begin(&self.cx, pod).map_err(|why| admit::no_room(&why)),
            None => Ok(Vec::new()),
        }
    }

    async fn unsuited_node(&mut self, pod: &Pod) -> Option<Refusal> {
        let node = self.node.get(&self.cx, false).await?;
        admit::unsuited_node(pod, &node)?;
        // Its labels may have come after it was read.
        let node = self.node.get(&self.cx, true).await?;
        admit::unsuited_node(pod, &node)
    }

    async fn observe_until(&self, id: &str) -> Observed {
        loop {
            match observe(&*self.cx.runtime, id).await {
                Ok(observed) => return observed,
                Err(error) => tracing::debug!(%error, uid = id, "runtime not asked"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn worker_ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(id) => {
                self.desired.remove(&id);
                // A manifest may come back as it was; a pod of the API does not.
                let was_static = self.picture.borrow().statics.values().any(|pod| uid(pod) == id);
                match was_static {
                    true => self.picture.send_modify(|picture| picture.statics.retain(|_, pod| uid(pod) != id)),
                    false => drop(self.finished.insert(id)),
                }
            }
            Err(error) => tracing::error!(%error, "a pod worker failed"),
        }
    }

    /// The API's list is complete: what it does not have is to go.
    async fn listed(&mut self, listed: &BTreeSet<String>, stop: &CancellationToken) {
        self.finished.retain(|id| listed.contains(id));
        for (id, desired) in &self.desired {
            if !listed.contains(id) && !is_static(&desired.borrow().pod) {
                desired.send_modify(|desired| desired.gone = true);
            }
        }
        let orphans: Vec<String> = self.found.keys().filter(|id| !listed.contains(*id)).cloned().collect();
        for id in orphans {
            let Some(found) = self.found.get(&id) else { continue };
            let mut pod = Pod::default();
            pod.metadata.uid = Some(id.clone());
            pod.metadata.namespace = Some(found.namespace.clone());
            pod.metadata.name = Some(found.name.clone());
            tracing::info!(uid = id, pod = found.name, namespace = found.namespace, "pod is gone from the API");
            self.put(pod, true, stop).await;
        }
        self.remove_directories(listed);
        let is_there = |id: &str| listed.contains(id) || self.desired.contains_key(id);
        self.cx.devices.retain(is_there);
        self.cx.exclusive.retain(is_there);
        self.cx.aligner.retain(is_there);
        self.cx.drivers.retain(is_there);
        attached::remove_unused(&self.cx, is_there);
    }

    /// Directories of pods that neither the API nor the runtime knows.
    fn remove_directories(&self, listed: &BTreeSet<String>) {
        let logs = self.cx.paths.logs_are_ours().then(|| std::fs::read_dir(&self.cx.paths.logs));
        for entry in logs.into_iter().flatten().flatten().flatten() {
            let name = entry.file_name();
            let Some((_, id)) = name.to_str().and_then(|name| name.rsplit_once('_')) else { continue };
            if !listed.contains(id)
                && !self.desired.contains_key(id)
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(%error, directory = %entry.path().display(), "logs of an old pod not removed");
            }
        }
        for entry in std::fs::read_dir(&self.cx.paths.pods).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let id = name.to_string_lossy();
            if listed.contains(id.as_ref()) || self.desired.contains_key(id.as_ref()) {
                continue;
            }
            self.cx.cgroups.remove_by_uid(&id);
            if attached::has_volumes(&self.cx, &id) {
                attached::release_orphan(&self.cx, &id);
                continue;
            }
            match teardown::remove(&entry.path()) {
                Ok(()) => self.cx.users.release(&id),
                Err(error) => tracing::warn!(%error, uid = %id, "directory of an old pod not removed"),
            }
        }
    }
}

impl PodSource {
    /// Starts what is new in the folder, and ends what is gone from it. A manifest that changed is a new pod.
    async fn read_own(&mut self, stop: &CancellationToken) {
        let wanted: BTreeMap<FullName, Pod> = self.own.read().into_iter().map(|pod| (full_name(&pod), pod)).collect();
        let running = self.picture.borrow().statics.clone();
        for (name, pod) in &running {
            if wanted.get(name).is_none_or(|wanted| uid(wanted) != uid(pod)) {
                tracing::info!(pod = name.1, namespace = name.0, "static pod ends: its manifest changed or is gone");
                if let Some(desired) = self.desired.get(uid(pod)) {
                    desired.send_modify(|desired| desired.gone = true);
                }
            }
        }
        let ends = |pod: &Pod| self.desired.get(uid(pod)).is_some_and(|desired| desired.borrow().gone);
        self.next = wanted
            .into_iter()
            .filter(|(name, pod)| running.get(name).is_none_or(|known| uid(known) != uid(pod) || ends(known)))
            .collect();
        self.start_next(stop).await;
    }

    /// Starts manifests' pods that wait for nothing any more.
    async fn start_next(&mut self, stop: &CancellationToken) {
        let free: Vec<FullName> =
            self.next.keys().filter(|name| !self.picture.borrow().statics.contains_key(*name)).cloned().collect();
        for name in free {
            let Some(pod) = self.next.remove(&name) else { continue };
            tracing::info!(pod = name.1, namespace = name.0, "static pod starts");
            self.picture.send_modify(|picture| drop(picture.statics.insert(name, Arc::new(pod.clone()))));
            self.mirror_them();
            self.put(pod, false, stop).await;
        }
    }

    fn mirror_them(&mut self) {
        if self.mirroring.is_empty() {
            self.mirroring.spawn(mirror::run(self.cx.clone(), self.picture.subscribe()));
        }
    }

    fn mirrors_listed(&mut self, mirrors: Vec<Pod>) {
        let mirrors: BTreeMap<FullName, Arc<Pod>> =
            mirrors.into_iter().map(|pod| (full_name(&pod), Arc::new(pod))).collect();
        if !mirrors.is_empty() {
            self.mirror_them();
        }
        self.picture.send_modify(|picture| picture.mirrors = Some(mirrors));
        let statics: Vec<Arc<Pod>> = self.picture.borrow().statics.values().cloned().collect();
        for pod in statics {
            self.tell_worker(&pod);
        }
    }

    fn mirror_seen(&mut self, mirror: Pod, gone: bool) {
        let name = full_name(&mirror);
        self.mirror_them();
        self.picture.send_modify(|picture| {
            let mirrors = picture.mirrors.get_or_insert_default();
            match gone {
                true => drop(mirrors.remove(&name)),
                false => drop(mirrors.insert(name.clone(), Arc::new(mirror))),
            }
        });
        let pod = self.picture.borrow().statics.get(&name).cloned();
        if let Some(pod) = pod {
            self.tell_worker(&pod);
        }
    }

    /// The pod's worker tells its status to the mirror.
    fn tell_worker(&self, pod: &Pod) {
        let mirror = self.mirror_of(pod);
        if let Some(desired) = self.desired.get(uid(pod)) {
            desired.send_if_modified(|desired| {
                let changed = desired.mirror != mirror;
                desired.mirror = mirror;
                changed
            });
        }
    }

    fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        let picture = self.picture.borrow();
        picture.mirrors.as_ref()?.get(&full_name(pod)).filter(|mirror| mirror::shows(mirror, pod)).cloned()
    }
}

/// All that the runtime has of a pod, with the details that only a status call tells.
pub async fn observe(runtime: &dyn Runtime, pod_uid: &str) -> cri::Result<Observed> {
    let (sandboxes, containers) =
        tokio::try_join!(runtime.sandboxes(Some(pod_uid)), runtime.containers(Some(pod_uid)))?;
    let sandboxes = try_join_all(sandboxes.into_iter().map(|sandbox| async move {
        match runtime.sandbox_status(&sandbox.id).await {
            Err(cri::Error::NotFound(_)) => Ok(None),
            other => other.map(Some),
        }
    }));
    let containers = try_join_all(containers.into_iter().map(|container| async move {
        match runtime.container_status(&container.id).await {
            Err(cri::Error::NotFound(_)) => Ok(None),
            Ok(mut full) => {
                full.sandbox_id = container.sandbox_id;
                Ok(Some(full))
            }
            Err(error) => Err(error),
        }
    }));
    let (sandboxes, containers) = tokio::try_join!(sandboxes, containers)?;
    Ok(Observed {
        sandboxes: sandboxes.into_iter().flatten().collect(),
        containers: containers.into_iter().flatten().collect(),
    })
}
