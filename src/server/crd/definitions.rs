//! Loop: keeps the registry's catalog as the stored definitions say. They are read from the watch cache itself, so that a
//! definition is served as soon as it is written that it is established.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::definition::Definition;
use crate::api::object::ObjectRef;
use crate::api::resource::custom::DEFINITIONS;
use crate::server::registry::Registry;
use crate::server::webhook::Client;

/// Serves what is defined now. Called before anything is served, so that a restart shows no gap.
pub fn load(registry: &Registry, webhooks: &Arc<Client>) {
    let before: HashMap<Box<str>, Arc<Definition>> =
        registry.catalog().definitions().iter().map(|d| (d.name.clone(), d.clone())).collect();
    let (objects, _) = registry.cache().list(DEFINITIONS, None);
    let of = |object: &ObjectRef| Definition::of(object, before.get(&*object.key.name), webhooks);
    let definitions: Vec<Arc<Definition>> = objects.iter().filter_map(of).collect();
    let same = definitions.len() == before.len()
        && definitions.iter().all(|d| before.get(&d.name).is_some_and(|b| Arc::ptr_eq(b, d)));
    if !same {
        registry.define(&definitions);
    }
}

/// Until `stop`.
pub async fn follow(registry: Registry, webhooks: Arc<Client>, stop: CancellationToken) {
    let mut changes = registry.cache().subscribe(DEFINITIONS);
    loop {
        load(&registry, &webhooks);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
