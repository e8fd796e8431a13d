//! Decides: what is written on a claim that gets devices: the devices, what their drivers are to be told, and where they
//! can be used.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::allocator::{Found, Pick};
use super::request::{Ask, Asked};

/// `share_id`: a name for one more use of a device that is shared.
#[must_use]
pub fn result(asked: &Asked, found: &Found, node: &str, share_id: &dyn Fn() -> String) -> AllocationResult {
    let ask = |request: usize| &asked.requests[request][found.chosen[request]];
    let results = found.picks.iter().map(|pick| of_device(ask(pick.request), pick, share_id)).collect();
    let config = configurations(asked, found);
    AllocationResult {
        allocation_timestamp: None,
        devices: Some(DeviceAllocationResult {
            results: Some(results),
            config: Some(config).filter(|c: &Vec<_>| !c.is_empty()),
        }),
        node_selector: where_usable(&found.picks, node),
    }
}

fn of_device(ask: &Ask, pick: &Pick, share_id: &dyn Fn() -> String) -> DeviceRequestAllocationResult {
    let (driver, pool, device) = pick.offered.id;
    let given = pick.offered.device;
    let consumed = pick.consumed.iter().flatten();
    DeviceRequestAllocationResult {
        admin_access: ask.admin.then_some(true),
        binding_conditions: given.binding_conditions.clone().filter(|c| !c.is_empty()),
        binding_failure_conditions: given.binding_failure_conditions.clone().filter(|c| !c.is_empty()),
        consumed_capacity: Some(consumed.map(|(name, n)| ((*name).to_owned(), Text(n.to_string()))).collect())
            .filter(|c: &std::collections::BTreeMap<_, _>| !c.is_empty()),
        device: device.to_owned(),
        driver: driver.to_owned(),
        pool: pool.to_owned(),
        request: ask.full_name(),
        share_id: pick.consumed.as_ref().map(|_| share_id()),
        tolerations: Some(ask.tolerations.to_vec()).filter(|t| !t.is_empty()),
    }
}

/// Those of the classes, each once, then those of the claim. None is told of alternatives that were not chosen.
fn configurations(asked: &Asked, found: &Found) -> Vec<DeviceAllocationConfiguration> {
    let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
    let chosen = || asked.requests.iter().zip(&found.chosen).map(|(alternatives, i)| &alternatives[*i]);
    let mut seen: Vec<(&str, std::ops::Range<usize>)> = Vec::new();
    for ask in chosen() {
        if let Some((_, range)) = seen.iter().find(|(class, _)| *class == ask.class_name) {
            for config in &mut all[range.clone()] {
                config.requests.get_or_insert_default().push(ask.full_name());
            }
            continue;
        }
        let start = all.len();
        all.extend(ask.class.spec.config.iter().flatten().map(|config| DeviceAllocationConfiguration {
            opaque: config.opaque.clone(),
            requests: Some(vec![ask.full_name()]),
            source: "FromClass".to_owned(),
        }));
        seen.push((ask.class_name, start..all.len()));
    }
    for config in asked.claim.spec.devices.iter().flat_map(|d| d.config.iter().flatten()) {
        let names = config.requests.as_deref().unwrap_or_default();
        if names.is_empty() || chosen().any(|ask| names.iter().any(|name| ask.is_named(name))) {
            all.push(DeviceAllocationConfiguration {
                opaque: config.opaque.clone(),
                requests: config.requests.clone(),
                source: "FromClaim".to_owned(),
            });
        }
    }
    for config in &mut all {
        // For every request is for all that there are.
        config.requests.take_if(|names| names.len() == asked.requests.len() || names.is_empty());
    }
    all
}

/// One node, if a device is there alone; what all devices want of nodes otherwise; `None` for everywhere.
fn where_usable(picks: &[Pick], node: &str) -> Option<NodeSelector> {
    let mut term = NodeSelectorTerm::default();
    for Pick { offered, .. } in picks {
        let (device, spec) = (offered.device, &offered.slice.spec);
        let (name, selector) = if spec.per_device_node_selection == Some(true) {
            (&device.node_name, &device.node_selector)
        } else {
            (&spec.node_name, &spec.node_selector)
        };
        if name.is_some() || device.binds_to_node == Some(true) {
            let here = NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            };
            let term = NodeSelectorTerm { match_fields: Some(vec![here]), match_expressions: None };
            return Some(NodeSelector { node_selector_terms: vec![term] });
        }
        // Slices have one term.
        let wanted = selector.as_ref().and_then(|s| s.node_selector_terms.first());
        add(&mut term.match_fields, wanted.and_then(|t| t.match_fields.as_ref()));
        add(&mut term.match_expressions, wanted.and_then(|t| t.match_expressions.as_ref()));
    }
    let any = term.match_fields.is_some() || term.match_expressions.is_some();
    any.then(|| NodeSelector { node_selector_terms: vec![term] })
}

fn add(to: &mut Option<Vec<NodeSelectorRequirement>>, from: Option<&Vec<NodeSelectorRequirement>>) {
    for requirement in from.into_iter().flatten() {
        let all = to.get_or_insert_default();
        if !all.contains(requirement) {
            all.push(requirement.clone());
        }
    }
}
