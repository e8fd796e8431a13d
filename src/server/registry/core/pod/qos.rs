//! Decides: the QoS class of a pod (`pkg/apis/core/helper/qos`).

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};

use crate::api::quantity::Quantity;
use crate::server::registry::quantity;

/// `Guaranteed` when every container limits CPU and memory and requests just that, `BestEffort` when none says
/// anything about either, `Burstable` between.
#[must_use]
pub fn class(spec: &PodSpec) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    // What the pod as a whole asks for stands for all of its containers.
    let whole = spec.resources.as_ref().filter(|r| r.requests.is_some() || r.limits.is_some());
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let each: Vec<ResourceRequirements> = match whole {
        Some(whole) => vec![whole.clone()],
        None => containers.map(|container| container.resources.clone().unwrap_or_default()).collect(),
    };
    for resources in each {
        let positive = |list: &Option<quantity::List>, name: &str| -> Option<Quantity> {
            let quantity = quantity::parse(list.as_ref()?.get(name)?).ok()?;
            (!quantity.is_zero() && !quantity.is_negative()).then_some(quantity)
        };
        for name in ["cpu", "memory"] {
            let (request, limit) = (positive(&resources.requests, name), positive(&resources.limits, name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(containers: Value, expect: &str) {
        let spec: PodSpec = serde_json::from_value(json!({"containers": containers})).unwrap();
        assert_eq!(class(&spec), expect, "{containers}");
    }

    #[test]
    fn classes() {
        let one = |requests: Value, limits: Value| json!({"name": "a", "resources": {"requests": requests, "limits": limits}});
        check(json!([{"name": "a"}]), "BestEffort");
        check(json!([one(json!({"cpu": "0"}), json!({}))]), "BestEffort");
        check(json!([one(json!({"cpu": "1"}), json!({}))]), "Burstable");
        let full = one(json!({"cpu": "1000m", "memory": "1Gi"}), json!({"cpu": "1", "memory": "1024Mi"}));
        check(json!([full]), "Guaranteed");
        check(json!([full, {"name": "b"}]), "Burstable");
        check(json!([one(json!({"ephemeral-storage": "1Gi"}), json!({}))]), "BestEffort");
    }

    #[test]
    fn a_pod_as_a_whole() {
        let check = |resources: Value, expect: &str| {
            let containers = json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}]);
            let spec = json!({"containers": containers, "resources": resources});
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(class(&spec), expect, "{resources}");
        };
        let both = json!({"cpu": "1", "memory": "1Gi"});
        check(json!({"limits": both}), "Guaranteed");
        check(json!({"limits": both, "requests": {"cpu": "500m", "memory": "1Gi"}}), "Burstable");
        check(json!({}), "Burstable");
    }
}
