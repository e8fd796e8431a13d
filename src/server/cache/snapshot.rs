//! Decides: what a resource looked like at an earlier revision, by undoing the events since. This is what makes the
//! pages of one list fit together.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::shelf::Objects;
use super::window::Window;
use crate::api::object::ObjectRef;
use crate::api::revision::Revision;

/// The state at `at`, by namespace and name; `None` when the window does not reach back to it.
pub fn at(objects: &Objects, window: &Window, namespace: Option<&str>, at: Revision) -> Option<Vec<ObjectRef>> {
    // Newest first, so the entry that stays is the state before the first event after `at`.
    let mut undone: BTreeMap<(Arc<str>, Arc<str>), Option<ObjectRef>> = BTreeMap::new();
    for event in window.undo(at)? {
        let Some(object) = event.after.as_ref().or(event.gone.as_ref()) else { continue };
        let key = &object.key;
        if namespace.is_none_or(|n| *n == *key.namespace) {
            undone.insert((key.namespace.clone(), key.name.clone()), event.before.clone());
        }
    }
    let now =
        objects.iter().filter(|(ns, _)| namespace.is_none_or(|n| *n == ***ns)).flat_map(|(_, names)| names.values());
    if undone.is_empty() {
        return Some(now.cloned().collect());
    }
    let mut items = Vec::new();
    let mut undone = undone.into_iter().peekable();
    for object in now {
        let key = (object.key.namespace.clone(), object.key.name.clone());
        while let Some((_, before)) = undone.next_if(|(k, _)| *k < key) {
            items.extend(before);
        }
        match undone.next_if(|(k, _)| *k == key) {
            Some((_, before)) => items.extend(before),
            None => items.push(object.clone()),
        }
    }
    items.extend(undone.filter_map(|(_, before)| before));
    Some(items)
}
