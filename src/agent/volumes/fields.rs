//! Decides: what the downward API says: fields of the pod and resources of its containers.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::agent::cgroups::{bytes, milli};

/// What the node gives to pods; stands for a limit that a container does not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocatable {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_storage_bytes: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
}

/// `metadata.name`, `metadata.labels['key']`, `metadata.annotations`…
pub fn metadata(pod: &Pod, path: &str) -> Result<String, Error> {
    let meta = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let maps = [("metadata.labels", &meta.labels), ("metadata.annotations", &meta.annotations)];
    for (prefix, map) in maps {
        let Some(rest) = path.strip_prefix(prefix) else { continue };
        if rest.is_empty() {
            let lines = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
            return Ok(lines.collect::<Vec<_>>().join("\n"));
        }
        if let Some(key) = rest.strip_prefix("['").and_then(|rest| rest.strip_suffix("']")) {
            return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
        }
    }
    match path {
        "metadata.name" => Ok(text(&meta.name)),
        "metadata.namespace" => Ok(text(&meta.namespace)),
        "metadata.uid" => Ok(text(&meta.uid)),
        _ => Err(Error::Field(path.to_owned())),
    }
}

/// `limits.cpu`, `requests.memory`… divided by the selector's divisor, rounded up.
pub fn resource(container: &Container, selector: &ResourceFieldSelector, node: &Allocatable) -> Result<String, Error> {
    let unknown = || Error::Resource(selector.resource.clone());
    let (list, resource) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.clone().unwrap_or_default();
    let (limits, requests) = (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default());
    let own = match list {
        "limits" => limits.get(resource),
        // A request that is not set is the limit, as defaulting has it.
        "requests" => requests.get(resource),
        _ => return Err(unknown()),
    };
    let is_limit = list == "limits";
    let divisor = selector.divisor.as_ref().map(|Quantity(text)| text.as_str());
    let divisor = divisor.filter(|text| !text.is_empty() && *text != "0");
    let (value, divisor) = match resource {
        "cpu" => {
            let fallback = if is_limit { node.cpu_milli } else { 0 };
            (own.map_or(fallback, |q| milli(&q.0)), divisor.map_or(1000, milli))
        }
        "memory" | "ephemeral-storage" => {
            let node = if resource == "memory" { node.memory_bytes } else { node.ephemeral_storage_bytes };
            let fallback = if is_limit { node } else { 0 };
            (own.map_or(fallback, |q| bytes(&q.0)), divisor.map_or(1, bytes))
        }
        other if other.starts_with("hugepages-") => (own.map_or(0, |q| bytes(&q.0)), divisor.map_or(1, bytes)),
        _ => return Err(unknown()),
    };
    let divisor = divisor.max(1);
    Ok((value / divisor + i64::from(value % divisor > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(resource: &str, divisor: &str) -> ResourceFieldSelector {
        ResourceFieldSelector {
            resource: resource.into(),
            divisor: Some(Quantity(divisor.into())),
            ..ResourceFieldSelector::default()
        }
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}},
        }))
        .expect("valid");
        let node = Allocatable { cpu_milli: 4000, memory_bytes: 1 << 30, ephemeral_storage_bytes: 1 << 33 };
        for (resource_name, divisor, expect) in [
            ("limits.memory", "1Mi", "64"),
            ("limits.memory", "0", "67108864"),
            ("requests.cpu", "1", "1"),
            ("requests.cpu", "1m", "250"),
            ("limits.cpu", "1", "4"),
            ("requests.memory", "1Gi", "1"),
            ("limits.ephemeral-storage", "1Gi", "8"),
        ] {
            let found = resource(&container, &selector(resource_name, divisor), &node);
            assert_eq!(found.as_deref(), Ok(expect), "{resource_name} / {divisor}");
        }
        let unknown = resource(&container, &selector("limits.gpu", "1"), &node);
        assert_eq!(unknown, Err(Error::Resource("limits.gpu".into())));
    }

    #[test]
    fn metadata_maps_are_quoted_lines() {
        let mut pod = Pod::default();
        pod.metadata.labels = Some([("a".into(), "1".into()), ("b".into(), "x\"y".into())].into());
        assert_eq!(metadata(&pod, "metadata.labels").as_deref(), Ok("a=\"1\"\nb=\"x\\\"y\""));
        assert_eq!(metadata(&pod, "metadata.labels['a']").as_deref(), Ok("1"));
        assert_eq!(metadata(&pod, "metadata.labels['none']").as_deref(), Ok(""));
        assert!(metadata(&pod, "status.podIP").is_err());
    }
}
