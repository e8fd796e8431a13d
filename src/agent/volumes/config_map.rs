//! Effects: `configMap` volumes.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, KeyToPath, Pod};

use super::atomic::{File, Payload};
use super::{Failure, mode};
use crate::agent::context::NodeContext;
use crate::agent::objects::{self, Data, Kind};
use crate::agent::pod::{namespace, uid};

pub(super) async fn fetch(cx: &NodeContext, pod: &Pod, source: &ConfigMapVolumeSource) -> Result<Payload, Failure> {
    let items = source.items.as_deref().unwrap_or_default();
    object(cx, pod, Kind::ConfigMap, &source.name, items, source.default_mode, source.optional).await
}

/// ConfigMaps and Secrets project alike.
pub(super) async fn object(
    cx: &NodeContext,
    pod: &Pod,
    kind: Kind,
    name: &str,
    items: &[KeyToPath],
    default_mode: Option<i32>,
    optional: Option<bool>,
) -> Result<Payload, Failure> {
    match cx.objects.get(kind, namespace(pod), name, uid(pod)).await {
        Ok(data) => payload(kind, &data, items, default_mode, optional == Some(true)),
        Err(objects::Error::NotFound { .. }) if optional == Some(true) => Ok(Payload::new()),
        Err(error) => Err(error.into()),
    }
}

fn payload(
    kind: Kind,
    data: &Data,
    items: &[KeyToPath],
    default_mode: Option<i32>,
    optional: bool,
) -> Result<Payload, Failure> {
    if items.is_empty() {
        let file = |bytes: &Vec<u8>| File { bytes: bytes.clone(), mode: mode(None, default_mode) };
        return Ok(data.values.iter().map(|(key, bytes)| (key.clone(), file(bytes))).collect());
    }
    let mut payload = Payload::new();
    for item in items {
        match data.values.get(&item.key) {
            Some(bytes) => {
                let file = File { bytes: bytes.clone(), mode: mode(item.mode, default_mode) };
                payload.insert(item.path.clone(), file);
            }
            None if optional => {}
            None => {
                let kind = if kind == Kind::ConfigMap { "config" } else { "secret" };
                return Err(Failure::NoKey { kind, key: item.key.clone() });
            }
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_choose_and_rename() {
        let values = [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())].into();
        let data = Data { values, ..Data::default() };
        let item = |key: &str| KeyToPath { key: key.into(), path: "x/y".into(), mode: Some(0o400) };
        let all = payload(Kind::ConfigMap, &data, &[], Some(0o600), false).expect("all keys");
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(all["a"].mode, 0o600);
        let one = payload(Kind::ConfigMap, &data, &[item("b")], None, false).expect("one key");
        assert_eq!(one["x/y"], File { bytes: b"2".to_vec(), mode: 0o400 });
        let none = payload(Kind::ConfigMap, &data, &[item("c")], None, false).expect_err("no such key");
        assert_eq!(none.to_string(), "references non-existent config key: c");
        assert!(payload(Kind::Secret, &data, &[item("c")], None, true).expect("optional").is_empty());
    }
}
