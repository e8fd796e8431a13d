//! Decides: what a pod asks for and what a node has, as numbers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::api::quantity;

/// Amounts by resource name: millicores for `cpu`, units (bytes, devices, pods) for everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(pub BTreeMap<String, i64>);

impl Amounts {
    #[must_use]
    pub fn parse(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        // The API has validated them; what cannot be read counts as nothing.
        let amount = |(name, text): (&String, &Quantity)| {
            let quantity = quantity::Quantity::parse(&text.0).ok()?;
            Some((name.clone(), if name == "cpu" { quantity.milli() } else { quantity.value() }))
        };
        Self(list.into_iter().flatten().filter_map(amount).collect())
    }

    #[must_use]
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for (name, n) in &other.0 {
            *self.0.entry(name.clone()).or_insert(0) += n;
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        for (name, n) in &other.0 {
            *self.0.entry(name.clone()).or_insert(0) -= n;
        }
    }

    fn max(&mut self, other: &Self) {
        for (name, n) in &other.0 {
            let mine = self.0.entry(name.clone()).or_insert(0);
            *mine = (*mine).max(*n);
        }
    }
}

/// What the scheduler reserves for a pod: containers and sidecars together, or the largest step of its
/// initialization, whichever is more; pod-level requests instead where they are set; overhead on top.
#[must_use]
pub fn requests(spec: &PodSpec) -> Amounts {
    let of = |c: &Container| asked(c.resources.as_ref());
    let mut total = Amounts::default();
    for c in &spec.containers {
        total.add(&of(c));
    }
    let (mut sidecars, mut init) = (Amounts::default(), Amounts::default());
    for c in spec.init_containers.iter().flatten() {
        let mut step = of(c);
        if c.restart_policy.as_deref() == Some("Always") {
            total.add(&step);
            sidecars.add(&step);
            step = sidecars.clone();
        } else {
            step.add(&sidecars);
        }
        init.max(&step);
    }
    total.max(&init);
    for (name, n) in asked(spec.resources.as_ref()).0 {
        total.0.insert(name, n);
    }
    total.add(&Amounts::parse(spec.overhead.as_ref()));
    total
}

fn asked(resources: Option<&ResourceRequirements>) -> Amounts {
    Amounts::parse(resources.and_then(|r| r.requests.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn amounts_are_read_and_rounded_up() {
        for (text, cpu, other) in [
            ("1", 1000, 1),
            ("500m", 500, 1),
            ("1.5", 1500, 2),
            ("100u", 1, 1),
            ("2Ki", 2_048_000, 2048),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("12e3", 12_000_000, 12_000),
            ("3E", 3_000_000_000_000_000_000, 3_000_000_000_000_000_000),
        ] {
            let list: BTreeMap<String, Quantity> =
                [("cpu".into(), Quantity(text.into())), ("memory".into(), Quantity(text.into()))].into();
            let amounts = Amounts::parse(Some(&list));
            assert_eq!(amounts.get("memory"), other, "{text}");
            if text != "3E" {
                assert_eq!(amounts.get("cpu"), cpu, "{text}");
            }
        }
    }

    #[test]
    fn init_containers_sidecars_and_overhead_count() {
        let c = |cpu: &str| json!({ "name": "c", "resources": { "requests": { "cpu": cpu } } });
        let sidecar = json!({ "name": "s", "restartPolicy": "Always", "resources": { "requests": { "cpu": "200m" } } });
        let cases = [
            (json!({ "containers": [c("1"), c("500m")] }), 1500),
            (json!({ "containers": [c("1")], "initContainers": [c("3"), c("2")] }), 3000),
            (json!({ "containers": [c("1")], "initContainers": [sidecar, c("100m")] }), 1200),
            (json!({ "containers": [c("1")], "initContainers": [sidecar, c("3")] }), 3200),
            (json!({ "containers": [c("1")], "overhead": { "cpu": "10m" } }), 1010),
            (json!({ "containers": [c("1")], "resources": { "requests": { "cpu": "4" } } }), 4000),
        ];
        for (value, want) in cases {
            assert_eq!(requests(&spec(value.clone())).get("cpu"), want, "{value}");
        }
    }
}
