//! Loop: one watch of Services and one of EndpointSlices per node, for proxy and DNS together.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStream, TryStreamExt};
use k8s_openapi::api::core::v1::Service as ApiService;
use k8s_openapi::api::discovery::v1::EndpointSlice as ApiSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::services::{Key, Service, Slice, View};

/// What the two watches told, and what an unfinished list told so far.
#[derive(Default)]
struct State {
    view: View,
    services_listed: bool,
    slices_listed: bool,
    new_services: BTreeMap<Key, Arc<Service>>,
    new_slices: BTreeMap<Key, BTreeMap<String, Arc<Slice>>>,
}

/// Publishes a new [`View`] after each change that matters, until stopped. While the server cannot be reached the last
/// view stays.
pub async fn run(client: kube::Client, publish: watch::Sender<Arc<View>>, stop: CancellationToken) {
    // A list in pages would be several requests for what this server sends at once.
    let config = || watcher::Config::default().any_semantic();
    let services = watcher(Api::<ApiService>::all(client.clone()), config()).default_backoff();
    let slices = watcher(Api::<ApiSlice>::all(client), config()).default_backoff();
    let mut services = std::pin::pin!(logged(services, "services"));
    let mut slices = std::pin::pin!(logged(slices, "endpointslices"));
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

/// Errors are logged here, once; the watcher tries again by itself.
fn logged<S, K>(stream: S, kind: &'static str) -> impl futures::Stream<Item = watcher::Event<K>>
where
    S: TryStream<Ok = watcher::Event<K>, Error = watcher::Error>,
{
    stream.into_stream().filter_map(move |event| {
        std::future::ready(match event {
            Ok(event) => Some(event),
            Err(error) => {
                tracing::warn!(kind, %error, "watch was interrupted");
                None
            }
        })
    })
}

impl State {
    /// Whether the view changed.
    fn service(&mut self, event: watcher::Event<ApiService>) -> bool {
        let key = |s: &ApiService| Key::new(&s.namespace().unwrap_or_default(), &s.name_any());
        match event {
            watcher::Event::Init => {
                self.new_services.clear();
                false
            }
            watcher::Event::InitApply(service) => {
                self.new_services.insert(key(&service), Arc::new(Service::from_api(&service)));
                false
            }
            watcher::Event::InitDone => {
                let new = std::mem::take(&mut self.new_services);
                let changed = !self.services_listed || new != self.view.services;
                self.view.services = new;
                self.services_listed = true;
                changed
            }
            watcher::Event::Apply(service) => {
                let (key, service) = (key(&service), Arc::new(Service::from_api(&service)));
                self.view.services.insert(key, service.clone()).is_none_or(|old| old != service)
            }
            watcher::Event::Delete(service) => self.view.services.remove(&key(&service)).is_some(),
        }
    }

    fn slice(&mut self, event: watcher::Event<ApiSlice>) -> bool {
        match event {
            watcher::Event::Init => {
                self.new_slices.clear();
                false
            }
            watcher::Event::InitApply(slice) => {
                put(&mut self.new_slices, &slice);
                false
            }
            watcher::Event::InitDone => {
                let new = std::mem::take(&mut self.new_slices);
                let changed = !self.slices_listed || new != self.view.slices;
                self.view.slices = new;
                self.slices_listed = true;
                changed
            }
            watcher::Event::Apply(slice) => put(&mut self.view.slices, &slice),
            watcher::Event::Delete(slice) => {
                let namespace = slice.namespace().unwrap_or_default();
                remove(&mut self.view.slices, &namespace, &slice.name_any(), None)
            }
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
        assert!(state.slice(watcher::Event::Apply(slice("web-1", "web", "10.42.0.2"))));
        assert!(!state.slice(watcher::Event::Apply(slice("web-1", "web", "10.42.0.2"))));
        assert!(state.slice(watcher::Event::Apply(slice("web-1", "web", "10.42.0.3"))));
        assert!(state.slice(watcher::Event::Delete(slice("web-1", "web", "10.42.0.3"))));
        assert!(state.view.slices.is_empty());
    }

    #[test]
    fn a_slice_can_move_to_another_service() {
        let mut state = State::default();
        state.slice(watcher::Event::Apply(slice("s", "a", "10.42.0.2")));
        assert!(state.slice(watcher::Event::Apply(slice("s", "b", "10.42.0.2"))));
        assert_eq!(state.view.slices.keys().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let mut state = State::default();
        state.slice(watcher::Event::Apply(slice("s", "a", "10.42.0.2")));
        state.slice(watcher::Event::Init);
        state.slice(watcher::Event::InitApply(slice("t", "b", "10.42.0.3")));
        assert!(state.view.slices.contains_key(&Key::new("default", "a")), "an unfinished list changes nothing");
        assert!(state.slice(watcher::Event::InitDone));
        assert_eq!(state.view.slices.keys().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }
}
