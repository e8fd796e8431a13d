//! Types: the schema table of the built-in kinds (architecture, decision 4): one fact source for decoding, strategic
//! merge, server-side apply and the OpenAPI documents.
//!
//! [`types`] is the shape of the table, [`generated`] its contents. The contents come from the OpenAPI document of the
//! Kubernetes release we implement, limited to what the resource table needs, and the protobuf numbers from the tags of
//! its Go structs. After adding a row there, run `SKIFF_UPDATE=1 SKIFF_PROTO=<folder> cargo test --lib api::schema`, where
//! the folder is `k8s.io` of the release's Go sources (the packages `api`, `apimachinery`, `apiextensions-apiserver` and
//! `kube-aggregator`).

pub mod descriptions;
pub mod format;
#[rustfmt::skip]
mod generated;
#[cfg(test)]
mod generator;
pub mod pattern;
pub mod structural;
#[cfg(test)]
mod tags;
pub mod types;

pub use generated::TYPES;
pub use types::{Field, Item, ListType, Other, Shape, Type, Wrap};

use super::resource::Resource;

/// The schema of a kind. `None` for kinds that OpenAPI has no definition of (options in query strings).
#[must_use]
pub fn find(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    TYPES.iter().copied().find(|t| t.gvk.is_some_and(|(g, v, k)| k == kind && v == version && g == group))
}

/// The schema of a resource's objects.
#[must_use]
pub fn of(resource: &Resource) -> Option<&'static Type> {
    find(resource.group, resource.version, resource.kind)
}

/// A type by its OpenAPI name, such as `io.k8s.api.core.v1.PodSpec`.
#[must_use]
pub fn named(name: &str) -> Option<&'static Type> {
    TYPES.binary_search_by(|t| t.name.cmp(name)).ok().map(|i| TYPES[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource::RESOURCES;

    #[test]
    fn every_resource_and_its_list_have_a_schema() {
        for r in RESOURCES {
            let schema = of(r).unwrap_or_else(|| panic!("no schema of {}", r.kind));
            assert!(schema.field("metadata").is_some() && schema.field("kind").is_some(), "{}", schema.name);
            if r.verbs & crate::api::resource::LIST != 0 {
                assert!(find(r.group, r.version, &format!("{}List", r.kind)).is_some(), "{}List", r.kind);
            }
        }
    }

    #[test]
    fn every_field_of_a_body_has_a_protobuf_number() {
        for t in TYPES {
            for field in t.fields {
                // The kind of a whole object is in the envelope.
                let in_envelope = t.gvk.is_some() && matches!(field.name, "kind" | "apiVersion");
                assert_eq!(field.number == 0, in_envelope, "{}.{}", t.name, field.name);
                let same = t.fields.iter().filter(|f| (f.number, f.inside) == (field.number, field.inside)).count();
                assert!(in_envelope || same == 1, "{}.{}", t.name, field.name);
            }
        }
        let probe = named("io.k8s.api.core.v1.Probe").unwrap();
        assert_eq!(probe.numbered(&[1], 2).unwrap().name, "httpGet", "of the embedded handler");
        assert_eq!(probe.numbered(&[], 2).unwrap().name, "initialDelaySeconds");
        let rule = named("io.k8s.api.admissionregistration.v1.NamedRuleWithOperations").unwrap();
        assert_eq!(rule.numbered(&[2, 2], 1).unwrap().name, "apiGroups", "of a struct in a struct");
        assert_eq!((rule.embedded(&[2], 2), rule.embedded(&[2], 1)), (Some(&[2, 2][..]), None));
        let spec = named("io.k8s.api.apps.v1.DeploymentSpec").unwrap();
        assert!(spec.field("minReadySeconds").unwrap().omits_zero && !spec.field("replicas").unwrap().omits_zero);
    }

    #[test]
    fn fields_carry_what_patches_need() {
        let pod = named("io.k8s.api.core.v1.PodSpec").unwrap();
        let containers = pod.field("containers").unwrap();
        assert!(containers.merge && containers.required);
        assert_eq!((containers.merge_key, containers.list), ("name", ListType::Map(&["name"])));
        assert_eq!(containers.shape.go_name(), "[]v1.Container");
        let volumes = pod.field("volumes").unwrap();
        assert!(volumes.merge && volumes.retain_keys);
        assert!(pod.field("nope").is_none());
        let data = named("io.k8s.api.core.v1.Secret").unwrap().field("data").unwrap();
        assert_eq!(data.shape.go_name(), "map[string][]uint8");
    }
}
