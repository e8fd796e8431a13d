//! Loop: one watch of Services and one of EndpointSlices per node, for proxy, DNS and container environments together.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service as ApiService;
use k8s_openapi::api::discovery::v1::EndpointSlice as ApiSlice;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::services::{Key, Service, Slice, View};
use crate::client::reflector::{self, Event, Source};

/// What the two watches told.
#[derive(Default)]
struct State {
    view: View,
    services_listed: bool,
    slices_listed: bool,
}

/// Publishes a new [`View`] after each change that matters, until stopped. While the server cannot be reached the last
/// view stays.
pub async fn run(client: kube::Client, publish: watch::Sender<Arc<View>>, stop: CancellationToken) {
    let services = reflector::typed(client.clone(), Source::of("services"));
    let slices = reflector::typed(client, Source::of("discovery.k8s.io/endpointslices"));
    let (mut services, mut slices) = (std::pin::pin!(services), std::pin::pin!(slices));
    let mut state = State::default();
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            Some(event) = services.next() => state.service(event),
            Some(event) = slices.next() => state.slice(event),
            else => return,
        };
        if changed {
            state.view.complete = state.services_listed && state.slices_listed;
            publish.send_replace(Arc::new(state.view.clone()));
        }
    }
}

impl State {
    /// Whether the view changed.
    fn service(&mut self, event: Event<ApiService>) -> bool {
        let key = |s: &ApiService| Key::new(&s.namespace().unwrap_or_default(), &s.name_any());
        let reduced = |s: &ApiService| (key(s), Arc::new(Service::from_api(s)));
        match event {
            Event::Replace(all, _) => {
                let new = all.iter().map(reduced).collect();
                let changed = !std::mem::replace(&mut self.services_listed, true) || new != self.view.services;
                self.view.services = new;
                changed
            }
            Event::Set(service) => {
                let (key, service) = reduced(&service);
                self.view.services.insert(key, service.clone()).is_none_or(|old| old != service)
            }
            Event::Gone(service) => self.view.services.remove(&key(&service)).is_some(),
            Event::Bookmark(_) => false,
        }
    }

    fn slice(&mut self, event: Event<ApiSlice>) -> bool {
        match event {
            Event::Replace(all, _) => {
                let mut new = Slices::new();
                for slice in &all {
                    put(&mut new, slice);
                }
                let changed = !std::mem::replace(&mut self.slices_listed, true) || new != self.view.slices;
                self.view.slices = new;
                changed
            }
            Event::Set(slice) => put(&mut self.view.slices, &slice),
            Event::Gone(slice) => {
                let namespace = slice.namespace().unwrap_or_default();
                remove(&mut self.view.slices, &namespace, &slice.name_any(), None)
            }
            Event::Bookmark(_) => false,
        }
    }
}

type Slices = BTreeMap<Key, BTreeMap<String, Arc<Slice>>>;

/// Whether anything changed.
fn put(slices: &mut Slices, slice: &ApiSlice) -> bool {
    let (namespace, name) = (slice.namespace().unwrap_or_default(), slice.name_any());
    let owner = Slice::owner(slice);
    // The label can be moved to another Service.
    let removed = remove(slices, &namespace, &name, owner.as_ref());
    let Some(owner) = owner else { return removed };
    let new = Arc::new(Slice::from_api(slice));
    slices.entry(owner).or_default().insert(name, new.clone()).is_none_or(|old| old != new) || removed
}

/// Removes a slice from every Service of the namespace but `keep`.
fn remove(slices: &mut Slices, namespace: &str, name: &str, keep: Option<&Key>) -> bool {
    let mut removed = false;
    let from = Key::new(namespace, "");
    let mut empty = None;
    for (owner, of_owner) in slices.range_mut(from..).take_while(|(owner, _)| owner.namespace == namespace) {
        if keep != Some(owner) && of_owner.remove(name).is_some() {
            removed = true;
            if of_owner.is_empty() {
                empty = Some(owner.clone());
            }
        }
    }
    if let Some(owner) = empty {
        slices.remove(&owner);
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, service: &str, address: &str) -> ApiSlice {
        serde_json::from_value(serde_json::json!({
            "metadata": { "namespace": "default", "name": name, "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [address] }],
            "ports": [{ "name": "", "port": 80 }],
        }))
        .unwrap()
    }

    #[test]
    fn an_unchanged_object_is_no_change() {
        let mut state = State::default();
        assert!(state.slice(Event::Set(slice("web-1", "web", "10.42.0.2"))));
        assert!(!state.slice(Event::Set(slice("web-1", "web", "10.42.0.2"))));
        assert!(state.slice(Event::Set(slice("web-1", "web", "10.42.0.3"))));
        assert!(state.slice(Event::Gone(slice("web-1", "web", "10.42.0.3"))));
        assert!(state.view.slices.is_empty());
    }

    #[test]
    fn a_slice_can_move_to_another_service() {
        let mut state = State::default();
        state.slice(Event::Set(slice("s", "a", "10.42.0.2")));
        assert!(state.slice(Event::Set(slice("s", "b", "10.42.0.2"))));
        assert_eq!(state.view.slices.keys().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let mut state = State::default();
        state.slice(Event::Set(slice("s", "a", "10.42.0.2")));
        assert!(state.slice(Event::Replace(vec![slice("t", "b", "10.42.0.3")], 2)));
        assert_eq!(state.view.slices.keys().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }
}
