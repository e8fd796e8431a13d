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
use tokio::time::Instant;
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
    tasks.spawn(follower().keep("services", SERVICES));
    tasks.spawn(follower().keep("replicationcontrollers", REPLICATION_CONTROLLERS));
    tasks.spawn(follower().keep("apps/replicasets", REPLICA_SETS));
    tasks.spawn(follower().keep("apps/statefulsets", STATEFUL_SETS));
    tasks.spawn(follower().keep("policy/poddisruptionbudgets", BUDGETS));
    tasks.spawn(follower().keep("storage.k8s.io/storageclasses", CLASSES));
    tasks.spawn(follower().keep("storage.k8s.io/csinodes", CSI_NODES));
    tasks.spawn(follower().keep("storage.k8s.io/volumeattachments", ATTACHMENTS));
    tasks.spawn(follower().keep("storage.k8s.io/csidrivers", DRIVERS));
    tasks.spawn(follower().keep("storage.k8s.io/csistoragecapacities", CAPACITIES));
    tasks.spawn(follower().keep("persistentvolumes", VOLUMES));
    tasks.spawn(follower().follow("persistentvolumeclaims", claim));
    tasks.spawn(follower().keep("resource.k8s.io/deviceclasses", DEVICE_CLASSES));
    tasks.spawn(follower().keep("resource.k8s.io/resourceslices", SLICES));
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
    fn keep<K: DeserializeOwned + Send>(self, storage: &'static str, kept: Kept<K>) -> impl Future<Output = ()> + Send {
        self.follow(storage, move |state, event| kept.take(state, event))
    }

    /// `take` puts an event into the state and says whether it can help a pod that waits.
    async fn follow<K: DeserializeOwned + Send>(
        self,
        storage: &'static str,
        take: impl Fn(&mut State, Event<K>) -> bool + Send,
    ) {
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

fn device_claim(state: &mut State, event: Event<ResourceClaim>) -> bool {
    let now = clock::instant();
    match event {
        Event::Replace(claims, revision) => state.observe_device_claims(claims, revision, now),
        Event::Set(claim) => state.observe_device_claim(claim, now),
        Event::Gone(claim) => {
            let (namespace, name) = names(claim.metadata);
            state.forget_device_claim(&namespace, &name, now);
        }
        Event::Bookmark(_) => return false,
    }
    true
}

/// How objects of a kind that are kept by name come into the state.
struct Kept<K> {
    /// Before a complete list.
    clear: fn(&mut State),
    /// Whether it can help a pod that waits; so can every list.
    set: fn(&mut State, K) -> bool,
    gone: fn(&mut State, K) -> bool,
    /// Wakes those that are helped. `None` where nobody waits for the kind.
    wake: Option<fn(&mut State, Instant)>,
}

impl<K> Kept<K> {
    fn take(&self, state: &mut State, event: Event<K>) -> bool {
        let helps = match event {
            Event::Replace(all, _) => {
                (self.clear)(state);
                for one in all {
                    (self.set)(state, one);
                }
                true
            }
            Event::Set(one) => (self.set)(state, one),
            Event::Gone(one) => (self.gone)(state, one),
            Event::Bookmark(_) => false,
        };
        let wake = self.wake.filter(|_| helps);
        if let Some(wake) = wake {
            wake(state, clock::instant());
        }
        wake.is_some()
    }
}

const BUDGETS: Kept<PodDisruptionBudget> = Kept {
    clear: State::forget_budgets,
    set: |state, budget| {
        state.observe_budget(budget);
        false
    },
    gone: |state, budget| {
        let (namespace, name) = names(budget.metadata);
        state.forget_budget(&namespace, &name);
        false
    },
    wake: None,
};

const VOLUMES: Kept<PersistentVolume> = Kept {
    clear: |state| state.snapshot.volumes.forget_volumes(),
    set: |state, volume| {
        state.snapshot.volumes.set_volume(volume);
        true
    },
    gone: |state, volume| {
        state.snapshot.volumes.forget_volume(&names(volume.metadata).1);
        true
    },
    wake: Some(State::volumes_changed),
};

const CLASSES: Kept<StorageClass> = Kept {
    clear: |state| state.snapshot.volumes.forget_classes(),
    set: |state, class| {
        state.snapshot.volumes.set_class(class);
        true
    },
    gone: |state, class| {
        state.snapshot.volumes.forget_class(&names(class.metadata).1);
        true
    },
    wake: Some(State::volumes_changed),
};

const CSI_NODES: Kept<CSINode> = Kept {
    clear: |state| state.snapshot.csi.forget_nodes(),
    set: |state, node| state.snapshot.csi.set_node(node),
    gone: |state, node| {
        state.snapshot.csi.forget_node(&names(node.metadata).1);
        true
    },
    wake: Some(State::limits_changed),
};

const ATTACHMENTS: Kept<VolumeAttachment> = Kept {
    clear: |state| state.snapshot.csi.forget_attachments(),
    set: |state, attachment| {
        state.snapshot.csi.set_attachment(attachment);
        false
    },
    gone: |state, attachment| {
        state.snapshot.csi.forget_attachment(&names(attachment.metadata).1);
        true
    },
    wake: Some(State::limits_changed),
};

const DRIVERS: Kept<CSIDriver> = Kept {
    clear: |state| state.snapshot.csi.forget_drivers(),
    set: |state, driver| state.snapshot.csi.set_driver(driver),
    gone: |state, driver| state.snapshot.csi.forget_driver(&names(driver.metadata).1),
    wake: Some(State::volumes_changed),
};

const CAPACITIES: Kept<CSIStorageCapacity> = Kept {
    clear: |state| state.snapshot.csi.forget_capacities(),
    set: |state, capacity| state.snapshot.csi.set_capacity(capacity),
    gone: |state, capacity| {
        let (namespace, name) = names(capacity.metadata);
        state.snapshot.csi.forget_capacity(&namespace, &name);
        false
    },
    wake: Some(State::volumes_changed),
};

const SLICES: Kept<ResourceSlice> = Kept {
    clear: |state| state.snapshot.devices.forget_slices(),
    set: |state, slice| state.snapshot.devices.set_slice(slice),
    gone: |state, slice| {
        state.snapshot.devices.forget_slice(&names(slice.metadata).1);
        false
    },
    wake: Some(State::devices_changed),
};

const DEVICE_CLASSES: Kept<DeviceClass> = Kept {
    clear: |state| state.snapshot.devices.forget_classes(),
    set: |state, class| state.snapshot.devices.set_class(class),
    gone: |state, class| {
        state.snapshot.devices.forget_class(&names(class.metadata).1);
        false
    },
    wake: Some(State::device_classes_changed),
};

/// Selectors only move scores: nobody who waits is helped.
const SERVICES: Kept<Exact> = Kept {
    clear: |state| state.snapshot.workloads.forget_services(),
    set: |state, service| set_service(state, service.metadata, service.spec.selector),
    gone: |state, service| set_service(state, service.metadata, None),
    wake: None,
};

fn set_service(state: &mut State, meta: ObjectMeta, selector: Option<Labels>) -> bool {
    let (namespace, name) = names(meta);
    state.snapshot.workloads.set_service(&namespace, &name, selector);
    false
}

const REPLICATION_CONTROLLERS: Kept<Exact> = Kept {
    clear: |state| state.snapshot.workloads.forget_owners(OwnerKind::ReplicationController),
    set: |state, controller| {
        let selector = controller.spec.selector.filter(|s| !s.is_empty()).map(|s| Selector::exact(&s));
        set_owner(state, OwnerKind::ReplicationController, controller.metadata, selector)
    },
    gone: |state, controller| set_owner(state, OwnerKind::ReplicationController, controller.metadata, None),
    wake: None,
};

const REPLICA_SETS: Kept<Selecting> = Kept {
    clear: |state| state.snapshot.workloads.forget_owners(OwnerKind::ReplicaSet),
    set: |state, set| set_owner(state, OwnerKind::ReplicaSet, set.metadata, set.spec.selector()),
    gone: |state, set| set_owner(state, OwnerKind::ReplicaSet, set.metadata, None),
    wake: None,
};

const STATEFUL_SETS: Kept<Selecting> = Kept {
    clear: |state| state.snapshot.workloads.forget_owners(OwnerKind::StatefulSet),
    set: |state, set| set_owner(state, OwnerKind::StatefulSet, set.metadata, set.spec.selector()),
    gone: |state, set| set_owner(state, OwnerKind::StatefulSet, set.metadata, None),
    wake: None,
};

fn set_owner(state: &mut State, kind: OwnerKind, meta: ObjectMeta, selector: Option<Selector>) -> bool {
    let (namespace, name) = names(meta);
    state.snapshot.workloads.set_owner(kind, &namespace, &name, selector);
    false
}

impl SelectingSpec {
    fn selector(&self) -> Option<Selector> {
        self.selector.as_ref().map(|s| Selector::new(Some(s)))
    }
}
