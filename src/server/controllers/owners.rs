//! Decides: who owns an object, what a selector selects, and the patches that adopt and release.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use serde_json::{Value, json};

use crate::api::resource::Resource;
use crate::client::request::{Class, Request, Verb};
use crate::server::controllers::action::{Plan, Write};

/// The owner that manages the object.
#[must_use]
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|o| o.controller == Some(true))
}

/// Name of the managing owner if it is of that kind and API group.
#[must_use]
pub fn controller_named<'a>(meta: &'a ObjectMeta, group: &str, kind: &str) -> Option<&'a str> {
    controller_of(meta)
        .filter(|o| o.kind == kind && o.api_version.split_once('/').map_or("", |(g, _)| g) == group)
        .map(|o| o.name.as_str())
}

/// A label selector of a workload. An empty one selects nothing here: upstream refuses to act on it.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let get = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    let exact = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    if is_empty(selector) {
        return false;
    }
    exact.into_iter().all(|(k, v)| get(k) == Some(v))
        && expressions.into_iter().all(|e| {
            let values = e.values.as_deref().unwrap_or_default();
            match (e.operator.as_str(), get(&e.key)) {
                ("In", Some(v)) => values.iter().any(|w| w == v),
                ("NotIn", Some(v)) => values.iter().all(|w| w != v),
                ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
                _ => false,
            }
        })
}

#[must_use]
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// What a controller does about an object that it could own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Owned,
    Adopt,
    Release,
    Foreign,
}

/// As upstream's `ControllerRefManager.ClaimObject`.
#[must_use]
pub fn claim(owner: &ObjectMeta, selector: &LabelSelector, object: &ObjectMeta) -> Claim {
    let matches = selects(selector, object.labels.as_ref());
    match controller_of(object) {
        Some(reference) if Some(&reference.uid) != owner.uid.as_ref() => Claim::Foreign,
        Some(_) if matches => Claim::Owned,
        Some(_) if owner.deletion_timestamp.is_some() => Claim::Foreign,
        Some(_) => Claim::Release,
        None if owner.deletion_timestamp.is_some() || !matches || object.deletion_timestamp.is_some() => Claim::Foreign,
        None => Claim::Adopt,
    }
}

/// Those of `objects` that the owner, of the kind `by`, owns. Adoptions and releases go to `plan`: with any of them the
/// plan should end there, for what is adopted counts once its owner reference is seen.
pub fn claim_all<'o, K>(
    (by, owner): (&Resource, &ObjectMeta),
    selector: &LabelSelector,
    (of, meta): (&'static Resource, fn(&K) -> &ObjectMeta),
    objects: impl IntoIterator<Item = &'o Arc<K>>,
    plan: &mut Plan,
) -> Vec<&'o Arc<K>> {
    let mut owned = Vec::new();
    for object in objects {
        match claim(owner, selector, meta(object)) {
            Claim::Owned => owned.push(object),
            Claim::Adopt => plan.push(adopt(of, meta(object), &reference(by, owner))),
            Claim::Release => plan.push(release(of, meta(object), owner)),
            Claim::Foreign => {}
        }
    }
    owned
}

/// The reference that makes `owner` the manager of what it creates.
#[must_use]
pub fn reference(resource: &Resource, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: resource.api_version(),
        kind: resource.kind.into(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A time as the API keeps it.
#[must_use]
pub fn whole_second(now: jiff::Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// What Events are about.
#[must_use]
pub fn object_reference(resource: &Resource, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(resource.api_version()),
        kind: Some(resource.kind.into()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

fn patch(resource: &'static Resource, object: &ObjectMeta, body: Value) -> Write {
    let (namespace, name) = (object.namespace.as_deref(), object.name.as_deref());
    Write::new(Request::new(
        Verb::StrategicPatch,
        resource,
        namespace.unwrap_or_default(),
        name.unwrap_or_default(),
        body,
    ))
}

/// `uid` makes the patch fail when the name belongs to another object by now. One that is gone needs no owner.
#[must_use]
pub fn adopt(resource: &'static Resource, object: &ObjectMeta, owner: &OwnerReference) -> Write {
    let mut write = patch(resource, object, json!({ "metadata": { "ownerReferences": [owner], "uid": object.uid } }));
    write.fine = &[Class::NotFound];
    write
}

#[must_use]
pub fn release(resource: &'static Resource, object: &ObjectMeta, owner: &ObjectMeta) -> Write {
    let reference = json!({ "$patch": "delete", "uid": owner.uid });
    let mut write =
        patch(resource, object, json!({ "metadata": { "ownerReferences": [reference], "uid": object.uid } }));
    // Gone, or already released (the patch then has nothing to delete and is refused as invalid).
    write.fine = &[Class::NotFound, Class::Permanent];
    write
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str, label: &str, owner: Option<&str>, deleting: bool) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.into()),
            labels: Some([("app".to_owned(), label.to_owned())].into()),
            owner_references: owner
                .map(|o| vec![OwnerReference { uid: o.into(), controller: Some(true), ..OwnerReference::default() }]),
            deletion_timestamp: deleting.then(crate::clock::time),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn claims() {
        let selector = LabelSelector {
            match_labels: Some([("app".to_owned(), "a".to_owned())].into()),
            ..LabelSelector::default()
        };
        let cases = [
            (false, "a", Some("o"), false, Claim::Owned),
            (false, "b", Some("o"), false, Claim::Release),
            (true, "b", Some("o"), false, Claim::Foreign),
            (false, "a", Some("other"), false, Claim::Foreign),
            (false, "a", None, false, Claim::Adopt),
            (false, "a", None, true, Claim::Foreign),
            (true, "a", None, false, Claim::Foreign),
            (false, "b", None, false, Claim::Foreign),
        ];
        for (owner_deleting, label, owner, deleting, want) in cases {
            let got = claim(&meta("o", "", None, owner_deleting), &selector, &meta("p", label, owner, deleting));
            assert_eq!(got, want, "{label} {owner:?} {deleting} {owner_deleting}");
        }
        assert!(!selects(&LabelSelector::default(), None), "an empty selector must not select everything");
    }
}
