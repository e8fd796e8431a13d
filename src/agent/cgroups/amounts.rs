//! Decides: what pods and containers ask for and are limited to, as control groups take it.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::oom;
use crate::agent::pod::{Role, containers, pod_spec};
use crate::cri::v1;

pub(super) const CPU_PERIOD_MICROSECONDS: i64 = 100_000;
const MIN_QUOTA_MICROSECONDS: i64 = 1000;
pub(super) const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }

    /// Its group below the root.
    pub(super) fn group(self) -> &'static str {
        match self {
            Qos::Guaranteed => "/kubepods",
            Qos::Burstable => "/kubepods/burstable",
            Qos::BestEffort => "/kubepods/besteffort",
        }
    }
}

/// Requests and limits of a whole pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodResources {
    pub cpu_request_milli: i64,
    /// `None` when a container has no limit.
    pub cpu_limit_milli: Option<i64>,
    pub memory_limit_bytes: Option<i64>,
}

#[must_use]
pub fn qos(pod: &Pod) -> Qos {
    if let Some(class) = pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        match class {
            "Guaranteed" => return Qos::Guaranteed,
            "Burstable" => return Qos::Burstable,
            "BestEffort" => return Qos::BestEffort,
            _ => {}
        }
    }
    let (mut any, mut guaranteed) = (false, true);
    // What the pod as a whole asks for stands for all of its containers.
    let whole = pod_spec(pod).resources.as_ref();
    let each: Vec<Option<&ResourceRequirements>> = match whole.filter(|r| r.requests.is_some() || r.limits.is_some()) {
        Some(whole) => vec![Some(whole)],
        None => containers(pod).map(|(_, container)| container.resources.as_ref()).collect(),
    };
    for resources in each {
        for resource in ["cpu", "memory"] {
            let request = listed(resources, false, resource);
            let limit = listed(resources, true, resource);
            any |= request.or(limit).is_some_and(|value| value > 0);
            guaranteed &= limit.is_some_and(|limit| limit > 0 && request.unwrap_or(limit) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// Containers add up; one init container at a time runs beside the sidecars started before it.
#[must_use]
pub fn pod_resources(pod: &Pod) -> PodResources {
    let own = pod_spec(pod).resources.as_ref();
    let total = |limit: bool, resource: &str| -> Option<i64> {
        let list = own.and_then(|r| if limit { r.limits.as_ref() } else { r.requests.as_ref() });
        if let Some(Quantity(text)) = list.and_then(|list| list.get(resource)) {
            return Some(parse(resource, text));
        }
        let (mut apps, mut sidecars, mut peak) = (0, 0, 0);
        for (role, container) in containers(pod) {
            let value = match amount(container, limit, resource) {
                Some(value) => value,
                None if limit => return None,
                None => 0,
            };
            match role {
                Role::App => apps += value,
                Role::Sidecar => {
                    sidecars += value;
                    peak = peak.max(sidecars);
                }
                Role::Init => peak = peak.max(sidecars + value),
                Role::Ephemeral => {}
            }
        }
        Some((apps + sidecars).max(peak))
    };
    let overhead = |resource: &str| {
        let list = pod_spec(pod).overhead.as_ref();
        list.and_then(|list| list.get(resource)).map_or(0, |Quantity(text)| parse(resource, text))
    };
    PodResources {
        cpu_request_milli: total(false, "cpu").unwrap_or(0) + overhead("cpu"),
        cpu_limit_milli: total(true, "cpu").filter(|value| *value > 0).map(|value| value + overhead("cpu")),
        memory_limit_bytes: total(true, "memory").filter(|value| *value > 0).map(|value| value + overhead("memory")),
    }
}

/// A container's limits as the runtime takes them.
#[must_use]
pub fn container_resources(pod: &Pod, container: &Container, node_memory_bytes: i64) -> v1::LinuxContainerResources {
    // A container that names no limit may use all that the pod has.
    let whole = pod_spec(pod).resources.as_ref();
    let limit = |name: &str| amount(container, true, name).filter(|v| *v > 0).or_else(|| listed(whole, true, name));
    let cpu_limit = limit("cpu");
    let cpu = amount(container, false, "cpu").or(cpu_limit).unwrap_or(0);
    v1::LinuxContainerResources {
        cpu_period: if cpu_limit.is_some() { CPU_PERIOD_MICROSECONDS } else { 0 },
        cpu_quota: cpu_limit.map_or(0, quota),
        cpu_shares: shares(cpu),
        memory_limit_in_bytes: limit("memory").unwrap_or(0),
        oom_score_adj: oom::score(pod, container, node_memory_bytes),
        ..v1::LinuxContainerResources::default()
    }
}

pub(super) fn amount(container: &Container, limit: bool, resource: &str) -> Option<i64> {
    listed(container.resources.as_ref(), limit, resource)
}

pub(super) fn listed(resources: Option<&ResourceRequirements>, limit: bool, resource: &str) -> Option<i64> {
    let resources = resources?;
    let list = if limit { resources.limits.as_ref() } else { resources.requests.as_ref() };
    list?.get(resource).map(|Quantity(text)| parse(resource, text))
}

fn parse(resource: &str, text: &str) -> i64 {
    if resource == "cpu" { milli(text) } else { bytes(text) }
}

pub(super) fn shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

pub(super) fn quota(milli: i64) -> i64 {
    if milli <= 0 { 0 } else { (milli * CPU_PERIOD_MICROSECONDS / 1000).max(MIN_QUOTA_MICROSECONDS) }
}

/// Shares (2 to 262144) as a weight (1 to 10000), as runc does it from 1.3.2 on: what is usual stays so, 1024 being 100.
pub(super) fn weight(shares: i64) -> i64 {
    if shares <= MIN_SHARES {
        return 1;
    }
    if shares >= MAX_SHARES {
        return 10_000;
    }
    #[allow(clippy::cast_precision_loss, reason = "at most 18 bits")]
    let log = (shares as f64).log2();
    #[allow(clippy::cast_possible_truncation, reason = "between 1 and 10000")]
    let weight = 10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as i64;
    weight
}

/// A quantity in thousandths, rounded up. Text that is none counts as zero: the API server checked it.
#[must_use]
pub fn milli(text: &str) -> i64 {
    crate::api::quantity::Quantity::parse(text).map_or(0, |quantity| quantity.milli())
}

/// A quantity in whole units, rounded up.
#[must_use]
pub fn bytes(text: &str) -> i64 {
    crate::api::quantity::Quantity::parse(text).map_or(0, |quantity| quantity.value())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(containers: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u1"}, "spec": {"containers": containers}})).expect("valid")
    }

    fn resources(requests: Value, limits: Value) -> Value {
        json!([{"name": "c", "resources": {"requests": requests, "limits": limits}}])
    }

    #[test]
    fn quantities() {
        for (text, expect) in [("100m", 100), ("1", 1000), ("0.1", 100), ("1.5", 1500), ("2k", 2_000_000)] {
            assert_eq!(milli(text), expect, "{text}");
        }
        for (text, expect) in [("64Mi", 64 << 20), ("1e3", 1000), ("1G", 1_000_000_000), ("128974848", 128_974_848)] {
            assert_eq!(bytes(text), expect, "{text}");
        }
        assert_eq!(bytes("1Ei"), 1 << 60);
        assert_eq!(bytes("100m"), 1);
    }

    #[test]
    fn classes() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos(&pod(resources(both.clone(), both.clone()))), Qos::Guaranteed);
        assert_eq!(qos(&pod(resources(json!({}), both.clone()))), Qos::Guaranteed);
        assert_eq!(qos(&pod(resources(json!({"cpu": "500m"}), both))), Qos::Burstable);
        assert_eq!(qos(&pod(resources(json!({"cpu": "1"}), json!({})))), Qos::Burstable);
        assert_eq!(qos(&pod(json!([{"name": "c"}]))), Qos::BestEffort);
    }

    #[test]
    fn container_limits() {
        let pod = pod(resources(json!({"cpu": "250m", "memory": "256Mi"}), json!({"cpu": "500m", "memory": "512Mi"})));
        let found = container_resources(&pod, &pod_spec(&pod).containers[0], 1 << 30);
        assert_eq!((found.cpu_shares, found.cpu_quota, found.cpu_period), (256, 50_000, 100_000));
        assert_eq!((found.memory_limit_in_bytes, found.oom_score_adj), (512 << 20, 750));
    }

    #[test]
    fn shares_as_weights() {
        for (shares, expect) in
            [(2, 1), (3, 2), (102, 17), (256, 35), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)]
        {
            assert_eq!(weight(shares), expect, "{shares}");
        }
    }
}
