//! Types: the little that is kept of every object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::client::request::revision;
use crate::client::store::{Kind, Meta};

/// What is kept of an object of a kind that no controller reads more of. There are as many as there are objects, so
/// it is small.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Whole")]
pub struct Partial(PartialMeta);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PartialMeta {
    namespace: Box<str>,
    name: Box<str>,
    uid: Box<str>,
    #[serde(rename = "resourceVersion", deserialize_with = "number")]
    revision: u64,
    #[serde(rename = "ownerReferences")]
    owners: Option<Box<[OwnerReference]>>,
    finalizers: Option<Box<[String]>>,
    #[serde(rename = "deletionTimestamp", deserialize_with = "is_some")]
    deleting: bool,
}

#[derive(Deserialize)]
struct Whole {
    #[serde(default)]
    metadata: PartialMeta,
}

impl From<Whole> for Partial {
    fn from(whole: Whole) -> Self {
        Self(whole.metadata)
    }
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Ok(revision(&String::deserialize(from)?))
}

fn is_some<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(from)?.is_some())
}

impl Kind for Partial {
    fn meta(&self) -> &dyn Meta {
        &self.0
    }
}

impl Meta for PartialMeta {
    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn owners(&self) -> &[OwnerReference] {
        self.owners.as_deref().unwrap_or_default()
    }

    fn finalizers(&self) -> &[String] {
        self.finalizers.as_deref().unwrap_or_default()
    }

    fn deleting(&self) -> bool {
        self.deleting
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_partial_has_what_is_looked_at() {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "o"});
        let whole = json!({"kind": "Secret", "data": {"a": "YQ=="}, "metadata": {"name": "s", "namespace": "ns", "uid": "u",
            "resourceVersion": "7", "finalizers": ["f"], "ownerReferences": [owner], "managedFields": [{"manager": "m"}],
            "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let partial: Partial = serde_json::from_value(whole).unwrap();
        let meta = partial.meta();
        assert_eq!((meta.namespace(), meta.name(), meta.uid(), meta.revision()), ("ns", "s", "u", 7));
        assert_eq!(
            (meta.finalizers(), meta.owners()[0].uid.as_str(), meta.deleting()),
            (&["f".to_owned()][..], "o", true)
        );
        for least in
            [json!({}), json!({"metadata": {"finalizers": null, "ownerReferences": null, "deletionTimestamp": null}})]
        {
            let partial: Partial = serde_json::from_value(least).unwrap();
            let meta = partial.meta();
            assert!(meta.name().is_empty() && meta.finalizers().is_empty() && meta.owners().is_empty());
            assert_eq!((meta.revision(), meta.deleting()), (0, false));
        }
    }
}
