//! Decides: the annotation in which `kubectl apply` without `--server-side` keeps what it applied, and what becomes of it
//! when `kubectl` goes on with server-side apply
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#upgrading-from-client-side-apply>).

use serde_json::{Map, Value};

use super::compare::{Comparison, fields_of};
use super::place::Place;
use super::set::Set;
use crate::api::object::MAX_ANNOTATIONS;

/// The manager for whom this is done.
pub const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn annotation(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION].as_str()
}

fn annotations(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}

/// The fields that client-side apply set and nobody changed since: they are no conflict for `kubectl`.
#[must_use]
pub fn fields(place: Place<'_>, live: &Value) -> Set {
    let Some(last) = annotation(live).and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return Set::default();
    };
    // What belongs to another version names other fields.
    if last["apiVersion"] != live["apiVersion"] || !super::merge::problems(place, &last).is_empty() {
        return Set::default();
    }
    let mut out = fields_of(place, &last);
    let Comparison { added, modified, removed } = Comparison::of(place, &last, live);
    [added, modified, removed].iter().for_each(|changed| out.subtract(changed));
    out
}

/// Writes the document into the annotation of an object that has one, so that client-side apply may go on from there.
pub fn refresh(object: &mut Value, document: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut document = document.clone();
    if let Some(annotations) = annotations(&mut document) {
        annotations.remove(ANNOTATION);
    }
    let Some(annotations) = annotations(object) else { return };
    annotations.insert(ANNOTATION.into(), format!("{document}\n").into());
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
}
