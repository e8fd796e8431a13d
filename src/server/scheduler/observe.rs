//! Loop: feeds the scheduler's state from watches. Objects are reduced at once; none is kept whole.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::selector::{Labels, Selector};
use super::state::State;
use super::workloads::OwnerKind;
use crate::client::reflector::{self, Event, Source};
use crate::clock;

/// Watches that must have listed before the first attempt.
pub const SOURCES: usize = 18;

/// Of a namespace only its labels.
#[derive(Deserialize)]
struct Named {
    metadata: ObjectMeta,
}

/// Of a Service or a ReplicationController only whom it selects.
#[derive(Deserialize)]
struct Exact {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: ExactSpec,
}

#[derive(Default, Deserialize)]
struct ExactSpec {
    selector: Option<Labels>,
}

/// The same of a ReplicaSet or a StatefulSet.
#[derive(Deserialize)]
struct Selecting {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SelectingSpec,
}

#[derive(Default, Deserialize)]
struct SelectingSpec {
    selector: Option<LabelSelector>,
}

pub fn feed(
    client: &kube::Client,
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> watch::Receiver<usize> {
    let (count, synced) = watch::channel(0);
    let count = Arc::new(count);
    let follower = || Follower {
        client: client.clone(),
        shared: Arc::clone(shared),
        count: Arc::clone(&count),
        stop: stop.clone(),
    };
    tasks.spawn(follower().follow("nodes", node));
    tasks.spawn(follower().follow("namespaces", namespace));
    tasks.spawn(follower().follow("services", service));
    tasks.spawn(follower().follow("replicationcontrollers", replication_controller));
    tasks.spawn(follower().follow("apps/replicasets", replica_set));
    tasks.spawn(follower().follow("apps/statefulsets", stateful_set));
    tasks.spawn(follower().follow("policy/poddisruptionbudgets", budget));
    tasks.spawn(follower().follow("storage.k8s.io/storageclasses", class));
    tasks.spawn(follower().follow("storage.k8s.io/csinodes", csi_node));
    tasks.spawn(follower().follow("storage.k8s.io/volumeattachments", attachment));
    tasks.spawn(follower().follow("storage.k8s.io/csidrivers", driver));
    tasks.spawn(follower().follow("storage.k8s.io/csistoragecapacities", capacity));
    tasks.spawn(follower().follow("persistentvolumes", volume));
    tasks.spawn(follower().follow("persistentvolumeclaims", claim));
    tasks.spawn(follower().follow("resource.k8s.io/deviceclasses", device_class));
    tasks.spawn(follower().follow("resource.k8s.io/resourceslices", slice));
    tasks.spawn(follower().follow("resource.k8s.io/resourceclaims", device_claim));
    tasks.spawn(follower().follow("pods", pod));
    synced
}

struct Follower {
    client: kube::Client,
    shared: Arc<Shared>,
    /// How many have listed.
    count: Arc<watch::Sender<usize>>,
    stop: CancellationToken,
}

impl Follower {
    /// `take` puts an event into the state and says whether it can help a pod that waits.
    async fn follow<K: DeserializeOwned + Send>(self, storage: &'static str, take: fn(&mut State, Event<K>) -> bool) {
        let mut events = pin!(reflector::typed(self.client, Source::of(storage)));
        let mut listed = false;
        loop {
            let event = tokio::select! {
                () = self.stop.cancelled() => return,
                event = events.next() => event,
            };
            let Some(event) = event else { return };
            if take(&mut self.shared.state(), event) {
                self.shared.changed.notify_one();
            }
            if !std::mem::replace(&mut listed, true) {
                self.count.send_modify(|n| *n += 1);
            }
        }
    }
}

fn pod(state: &mut State, event: Event<Pod>) -> bool {
    let now = clock::instant();
    match event {
        Event::Replace(pods, _) => {
            let listed: HashSet<&str> = pods.iter().filter_map(|p| p.metadata.uid.as_deref()).collect();
            for uid in state.pod_uids().into_iter().filter(|uid| !listed.contains(uid.as_str())).collect::<Vec<_>>() {
                state.forget_pod(&uid, now);
            }
            for pod in pods {
                state.observe_pod(pod, now);
            }
        }
        Event::Set(pod) => state.observe_pod(pod, now),
        Event::Gone(pod) => state.forget_pod(pod.metadata.uid.as_deref().unwrap_or_default(), now),
        Event::Bookmark(_) => return false,
    }
    true
}

fn node(state: &mut State, event: Event<Node>) -> bool {
    let now = clock::instant();
    match event {
        Event::Replace(nodes, _) => {
            let listed: HashSet<&str> = nodes.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
            let known: Vec<String> = state.snapshot.node_names().cloned().collect();
            for name in known.iter().filter(|n| !listed.contains(n.as_str())) {
                state.forget_node(name, now);
            }
            for node in nodes {
                state.observe_node(node, now);
            }
        }
        Event::Set(node) => state.observe_node(node, now),
        Event::Gone(node) => state.forget_node(node.metadata.name.as_deref().unwrap_or_default(), now),
        Event::Bookmark(_) => return false,
    }
    true
}

fn namespace(state: &mut State, event: Event<Named>) -> bool {
    let now = clock::instant();
    let labels = |n: Named| (n.metadata.name.unwrap_or_default(), n.metadata.labels.unwrap_or_default());
    match event {
        Event::Replace(namespaces, _) => {
            let listed: HashSet<&str> = namespaces.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
            let known: Vec<String> = state.snapshot.namespaces.keys().cloned().collect();
            for name in known.iter().filter(|n| !listed.contains(n.as_str())) {
                state.observe_namespace(name, None, now);
            }
            for (name, labels) in namespaces.into_iter().map(labels) {
                state.observe_namespace(&name, Some(labels), now);
            }
        }
        Event::Set(namespace) => {
            let (name, labels) = labels(namespace);
            state.observe_namespace(&name, Some(labels), now);
        }
        Event::Gone(namespace) => state.observe_namespace(&labels(namespace).0, None, now),
        Event::Bookmark(_) => return false,
    }
    true
}

fn names(meta: ObjectMeta) -> (String, String) {
    (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default())
}

fn budget(state: &mut State, event: Event<PodDisruptionBudget>) -> bool {
    match event {
        Event::Replace(budgets, _) => {
            state.forget_budgets();
            budgets.into_iter().for_each(|budget| state.observe_budget(budget));
        }
        Event::Set(budget) => state.observe_budget(budget),
        Event::Gone(budget) => {
            let (namespace, name) = names(budget.metadata);
            state.forget_budget(&namespace, &name);
        }
        Event::Bookmark(_) => {}
    }
    false
}

fn claim(state: &mut State, event: Event<PersistentVolumeClaim>) -> bool {
    let now = clock::instant();
    let volumes = &mut state.snapshot.volumes;
    match event {
        Event::Replace(claims, _) => {
            volumes.forget_claims();
            claims.into_iter().for_each(|claim| volumes.set_claim(claim));
            state.volumes_changed(now);
        }
        Event::Set(claim) => {
            let (namespace, name) = names(claim.metadata.clone());
            volumes.set_claim(claim);
            state.claim_changed(&namespace, &name, now);
        }
        Event::Gone(claim) => {
            let (namespace, name) = names(claim.metadata);
            volumes.forget_claim(&namespace, &name);
            state.claim_changed(&namespace, &name, now);
        }
        Event::Bookmark(_) => return false,
    }
    true
}

fn volume(state: &mut State, event: Event<PersistentVolume>) -> bool {
    let volumes = &mut state.snapshot.volumes;
    match event {
        Event::Replace(all, _) => {
            volumes.forget_volumes();
            all.into_iter().for_each(|volume| volumes.set_volume(volume));
        }
        Event::Set(volume) => volumes.set_volume(volume),
        Event::Gone(volume) => volumes.forget_volume(&names(volume.metadata).1),
        Event::Bookmark(_) => return false,
    }
    state.volumes_changed(clock::instant());
    true
}

fn class(state: &mut State, event: Event<StorageClass>) -> bool {
    let volumes = &mut state.snapshot.volumes;
    match event {
        Event::Replace(all, _) => {
            volumes.forget_classes();
            all.into_iter().for_each(|class| volumes.set_class(class));
        }
        Event::Set(class) => volumes.set_class(class),
        Event::Gone(class) => volumes.forget_class(&names(class.metadata).1),
        Event::Bookmark(_) => return false,
    }
    state.volumes_changed(clock::instant());
    true
}

fn csi_node(state: &mut State, event: Event<CSINode>) -> bool {
    let csi = &mut state.snapshot.csi;
    let more = match event {
        Event::Replace(all, _) => {
            csi.forget_nodes();
            all.into_iter().for_each(|node| {
                csi.set_node(node);
            });
            true
        }
        Event::Set(node) => csi.set_node(node),
        Event::Gone(node) => {
            csi.forget_node(&names(node.metadata).1);
            true
        }
        Event::Bookmark(_) => false,
    };
    if more {
        state.limits_changed(clock::instant());
    }
    more
}

fn attachment(state: &mut State, event: Event<VolumeAttachment>) -> bool {
    let csi = &mut state.snapshot.csi;
    let less = match event {
        Event::Replace(all, _) => {
            csi.forget_attachments();
            all.into_iter().for_each(|attachment| csi.set_attachment(attachment));
            true
        }
        Event::Set(attachment) => {
            csi.set_attachment(attachment);
            false
        }
        Event::Gone(attachment) => {
            csi.forget_attachment(&names(attachment.metadata).1);
            true
        }
        Event::Bookmark(_) => false,
    };
    if less {
        state.limits_changed(clock::instant());
    }
    less
}

fn driver(state: &mut State, event: Event<CSIDriver>) -> bool {
    let csi = &mut state.snapshot.csi;
    let more = match event {
        Event::Replace(all, _) => {
            csi.forget_drivers();
            all.into_iter().for_each(|driver| {
                csi.set_driver(driver);
            });
            true
        }
        Event::Set(driver) => csi.set_driver(driver),
        Event::Gone(driver) => csi.forget_driver(&names(driver.metadata).1),
        Event::Bookmark(_) => false,
    };
    if more {
        state.volumes_changed(clock::instant());
    }
    more
}

fn capacity(state: &mut State, event: Event<CSIStorageCapacity>) -> bool {
    let csi = &mut state.snapshot.csi;
    let more = match event {
        Event::Replace(all, _) => {
            csi.forget_capacities();
            all.into_iter().for_each(|capacity| {
                csi.set_capacity(capacity);
            });
            true
        }
        Event::Set(capacity) => csi.set_capacity(capacity),
        Event::Gone(capacity) => {
            let (namespace, name) = names(capacity.metadata);
            csi.forget_capacity(&namespace, &name);
            false
        }
        Event::Bookmark(_) => false,
    };
    if more {
        state.volumes_changed(clock::instant());
    }
    more
}

fn device_claim(state: &mut State, event: Event<ResourceClaim>) -> bool {
    let now = clock::instant();
    match event {
        Event::Replace(claims, _) => state.observe_device_claims(claims, now),
        Event::Set(claim) => state.observe_device_claim(claim, now),
        Event::Gone(claim) => {
            let (namespace, name) = names(claim.metadata);
            state.forget_device_claim(&namespace, &name, now);
        }
        Event::Bookmark(_) => return false,
    }
    true
}

/// What is gone helps nobody.
fn slice(state: &mut State, event: Event<ResourceSlice>) -> bool {
    let devices = &mut state.snapshot.devices;
    let changed = match event {
        Event::Replace(all, _) => {
            devices.forget_slices();
            all.into_iter().fold(false, |changed, slice| devices.set_slice(slice) | changed)
        }
        Event::Set(slice) => devices.set_slice(slice),
        Event::Gone(slice) => {
            devices.forget_slice(&names(slice.metadata).1);
            false
        }
        Event::Bookmark(_) => false,
    };
    if changed {
        state.devices_changed(clock::instant());
    }
    changed
}

fn device_class(state: &mut State, event: Event<DeviceClass>) -> bool {
    let devices = &mut state.snapshot.devices;
    let changed = match event {
        Event::Replace(all, _) => {
            devices.forget_classes();
            all.into_iter().fold(false, |changed, class| devices.set_class(class) | changed)
        }
        Event::Set(class) => devices.set_class(class),
        Event::Gone(class) => {
            devices.forget_class(&names(class.metadata).1);
            false
        }
        Event::Bookmark(_) => false,
    };
    if changed {
        state.devices_changed(clock::instant());
    }
    changed
}

/// Selectors only move scores: nobody who waits is helped.
fn service(state: &mut State, event: Event<Exact>) -> bool {
    let workloads = &mut state.snapshot.workloads;
    match event {
        Event::Replace(services, _) => {
            workloads.forget_services();
            for service in services {
                let (namespace, name) = names(service.metadata);
                workloads.set_service(&namespace, &name, service.spec.selector);
            }
        }
        Event::Set(service) => {
            let (namespace, name) = names(service.metadata);
            workloads.set_service(&namespace, &name, service.spec.selector);
        }
        Event::Gone(service) => {
            let (namespace, name) = names(service.metadata);
            workloads.set_service(&namespace, &name, None);
        }
        Event::Bookmark(_) => {}
    }
    false
}

fn replication_controller(state: &mut State, event: Event<Exact>) -> bool {
    owner(state, OwnerKind::ReplicationController, event, |o| {
        let selector = o.spec.selector.filter(|s| !s.is_empty()).map(|s| Selector::exact(&s));
        (names(o.metadata), selector)
    })
}

fn replica_set(state: &mut State, event: Event<Selecting>) -> bool {
    owner(state, OwnerKind::ReplicaSet, event, selecting)
}

fn stateful_set(state: &mut State, event: Event<Selecting>) -> bool {
    owner(state, OwnerKind::StatefulSet, event, selecting)
}

fn selecting(object: Selecting) -> ((String, String), Option<Selector>) {
    let selector = object.spec.selector.map(|s| Selector::new(Some(&s)));
    (names(object.metadata), selector)
}

type Read<K> = fn(K) -> ((String, String), Option<Selector>);

fn owner<K>(state: &mut State, kind: OwnerKind, event: Event<K>, read: Read<K>) -> bool {
    let workloads = &mut state.snapshot.workloads;
    match event {
        Event::Replace(objects, _) => {
            workloads.forget_owners(kind);
            for object in objects {
                let ((namespace, name), selector) = read(object);
                workloads.set_owner(kind, &namespace, &name, selector);
            }
        }
        Event::Set(object) => {
            let ((namespace, name), selector) = read(object);
            workloads.set_owner(kind, &namespace, &name, selector);
        }
        Event::Gone(object) => {
            let ((namespace, name), _) = read(object);
            workloads.set_owner(kind, &namespace, &name, None);
        }
        Event::Bookmark(_) => {}
    }
    false
}
