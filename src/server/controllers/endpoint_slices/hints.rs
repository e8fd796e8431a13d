//! Decides: which clients an endpoint is for, by zone or node: what a Service's `trafficDistribution` or its topology
//! annotation asks for (KEP-2433, KEP-4444, KEP-3015).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, ForNode, ForZone};

use crate::api::quantity::Quantity;
use crate::server::controllers::service_pods as behind;

const MODE: &str = "service.kubernetes.io/topology-mode";
/// The same under an older name, which goes first.
const AWARE: &str = "service.kubernetes.io/topology-aware-hints";
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// How much more than its share an endpoint may be asked to bear (`overloadThreshold`).
const OVERLOAD: f64 = 0.2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    None,
    SameZone,
    SameNode,
    /// Each zone gets endpoints by the share of CPUs that its nodes have.
    Auto,
}

#[must_use]
pub fn mode(service: &Service) -> Mode {
    let annotations = service.metadata.annotations.as_ref();
    let topology = annotations.and_then(|a| a.get(AWARE).or_else(|| a.get(MODE)));
    if topology.is_some_and(|t| t == "Auto" || t == "auto") {
        return Mode::Auto;
    }
    match service.spec.as_ref().and_then(|s| s.traffic_distribution.as_deref()) {
        Some("PreferClose" | "PreferSameZone") => Mode::SameZone,
        Some("PreferSameNode") => Mode::SameNode,
        _ => Mode::None,
    }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true)
}

/// The hints of an endpoint by where it is itself.
#[must_use]
pub fn near(endpoint: &Endpoint, mode: Mode) -> Option<EndpointHints> {
    if !is_ready(endpoint) || !matches!(mode, Mode::SameZone | Mode::SameNode) {
        return None;
    }
    let for_zones = endpoint.zone.as_ref().map(|zone| vec![ForZone { name: zone.clone() }]);
    let node = endpoint.node_name.as_ref().filter(|_| mode == Mode::SameNode);
    let for_nodes = node.map(|node| vec![ForNode { name: node.clone() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

/// What the shares of the zones come from: of a ready node that takes workloads, its zone and thousandths of CPUs.
#[must_use]
pub fn capacity(node: &Node) -> Option<(Option<String>, i64)> {
    let labels = node.metadata.labels.as_ref();
    let status = node.status.as_ref()?;
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if !ready || EXCLUDED.iter().any(|label| labels.is_some_and(|l| l.contains_key(*label))) {
        return None;
    }
    let cpu = status.allocatable.as_ref().and_then(|a| Quantity::parse(&a.get("cpu")?.0).ok());
    Some((labels.and_then(|l| l.get(behind::ZONE).cloned()), cpu.map_or(0, Quantity::milli)))
}

/// The endpoints of a slice, and whether it is written.
pub struct Slot {
    pub endpoints: Vec<Endpoint>,
    pub written: bool,
}

type Zones = BTreeMap<String, usize>;

struct Allocation {
    most: usize,
    desired: f64,
}

/// Gives the endpoints of slices that are written hints, so that every zone has its share. Others are left as they are
/// while that works out.
///
/// # Errors
/// Why no endpoint should have a hint.
pub fn allocate(nodes: &[Arc<Node>], slots: &mut [Slot]) -> Result<(), String> {
    let total = slots.iter().flat_map(|s| &s.endpoints).filter(|e| is_ready(e)).count();
    let allocations = allocations(nodes, total)?;
    let mut allocated = Zones::new();
    for slot in slots.iter_mut().filter(|s| !s.written) {
        match kept(&slot.endpoints, &allocated, &allocations) {
            Some(zones) => zones.into_iter().for_each(|(zone, count)| *allocated.entry(zone).or_default() += count),
            None => slot.written = true,
        }
    }
    // First everyone for its own zone.
    for endpoint in slots.iter_mut().filter(|s| s.written).flat_map(|s| &mut s.endpoints) {
        endpoint.hints = None;
        if is_ready(endpoint) {
            let zone = endpoint.zone.clone().filter(|z| !z.is_empty());
            let zone = zone.ok_or("One or more endpoints do not have a zone specified")?;
            *allocated.entry(zone.clone()).or_default() += 1;
            endpoint.hints = Some(for_zone(zone));
        }
    }
    let (mut giving, mut receiving) = exchange(&allocations, &allocated);
    for endpoint in slots.iter_mut().filter(|s| s.written).flat_map(|s| &mut s.endpoints).filter(|e| is_ready(e)) {
        let own = endpoint.zone.clone().unwrap_or_default();
        let Some(give) = giving.get_mut(&own).filter(|n| **n > 0) else { continue };
        let Some((to, take)) = receiving.iter_mut().find(|(_, n)| **n > 0) else { break };
        (*give, *take) = (*give - 1, *take - 1);
        endpoint.hints = Some(for_zone(to.clone()));
    }
    if allocated.is_empty() { Err("No hints allocated for zones".into()) } else { Ok(()) }
}

fn for_zone(zone: String) -> EndpointHints {
    EndpointHints { for_nodes: None, for_zones: Some(vec![ForZone { name: zone }]) }
}

/// How many endpoints each zone may have.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // far below 2^52
fn allocations(nodes: &[Arc<Node>], total: usize) -> Result<BTreeMap<String, Allocation>, String> {
    const UNKNOWN: &str = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
    let mut cpus: BTreeMap<String, i64> = BTreeMap::new();
    for (zone, cpu) in nodes.iter().filter_map(|n| capacity(n)) {
        let zone = zone.filter(|z| !z.is_empty() && cpu > 0).ok_or(UNKNOWN)?;
        let sum = cpus.entry(zone).or_default();
        *sum = sum.saturating_add(cpu);
    }
    if cpus.len() < 2 {
        return Err(UNKNOWN.into());
    }
    let counts = format!("({total} endpoints, {} zones)", cpus.len());
    if cpus.len() > total {
        return Err(format!("Insufficient number of endpoints {counts}"));
    }
    let all: f64 = cpus.values().map(|c| *c as f64).sum();
    let share = |cpu: i64| {
        let desired = cpu as f64 / all * total as f64;
        (desired, (desired / (1.0 + OVERLOAD)).ceil() as usize)
    };
    let least: usize = cpus.values().map(|cpu| share(*cpu).1).sum();
    let Some(spare) = total.checked_sub(least) else {
        let why = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
        return Err(format!("{why} {counts}"));
    };
    let allocation = |cpu| {
        let (desired, minimum) = share(cpu);
        Allocation { most: minimum + spare, desired: desired.max(minimum as f64) }
    };
    Ok(cpus.into_iter().map(|(zone, cpu)| (zone, allocation(cpu))).collect())
}

/// The hints of a slice by zone; `None` when it cannot stay as it is.
fn kept(endpoints: &[Endpoint], allocated: &Zones, allocations: &BTreeMap<String, Allocation>) -> Option<Zones> {
    let mut zones = Zones::new();
    for endpoint in endpoints.iter().filter(|e| is_ready(e)) {
        let hinted = endpoint.hints.as_ref().and_then(|h| h.for_zones.as_ref()).filter(|z| !z.is_empty())?;
        for zone in hinted {
            *zones.entry(zone.name.clone()).or_default() += 1;
        }
    }
    let fits = |(zone, count): (&String, &usize)| {
        let already = allocated.get(zone).copied().unwrap_or(0);
        allocations.get(zone).is_some_and(|a| already + count <= a.most)
    };
    zones.iter().all(fits).then_some(zones)
}

/// How many endpoints each zone gives to others, and gets from others.
#[expect(clippy::cast_precision_loss)] // far below 2^52
fn exchange(allocations: &BTreeMap<String, Allocation>, allocated: &Zones) -> (Zones, Zones) {
    let (mut over, mut under): (BTreeMap<&str, f64>, BTreeMap<&str, f64>) = Default::default();
    for (zone, allocation) in allocations {
        let surplus = allocated.get(zone).copied().unwrap_or(0) as f64 - allocation.desired;
        if surplus > 0.0 {
            over.insert(zone, surplus)
        } else {
            under.insert(zone, -surplus)
        };
    }
    let most = |zones: &BTreeMap<&str, f64>| zones.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(z, _)| z.to_string());
    let (mut giving, mut receiving) = (Zones::new(), Zones::new());
    while let (Some(from), Some(to)) = (most(&over), most(&under)) {
        let (Some(give), Some(get)) = (over.get_mut(&*from), under.get_mut(&*to)) else { break };
        if (*give < 1.0 && *get < 1.0) || *give < 0.5 || *get < 0.5 {
            break;
        }
        (*give, *get) = (*give - 1.0, *get - 1.0);
        *giving.entry(from).or_default() += 1;
        *receiving.entry(to).or_default() += 1;
    }
    (giving, receiving)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(zone: &str, cpu: &str, more: Value) -> Arc<Node> {
        let mut node = json!({ "metadata": { "name": "n", "labels": { behind::ZONE: zone } },
            "status": { "allocatable": { "cpu": cpu }, "conditions": [{ "type": "Ready", "status": "True" }] } });
        more.as_object().unwrap().iter().for_each(|(at, v)| *node.pointer_mut(at).unwrap() = v.clone());
        Arc::new(serde_json::from_value(node).unwrap())
    }

    /// `a` is ready in zone a, `A` is not; `-` has no zone.
    fn slot(zones: &str, hints: &str, written: bool) -> Slot {
        let endpoint = |(zone, hint): (char, Option<char>)| -> Endpoint {
            let name = (zone != '-').then(|| zone.to_ascii_lowercase().to_string());
            let hint = hint.filter(|h| *h != '-').map(|h| json!({ "forZones": [{ "name": h.to_string() }] }));
            serde_json::from_value(json!({ "addresses": [], "zone": name, "nodeName": "n", "hints": hint,
                "conditions": { "ready": !zone.is_ascii_uppercase() } }))
            .unwrap()
        };
        let hints = hints.chars().map(Some).chain(std::iter::repeat(None));
        Slot { endpoints: zones.chars().zip(hints).map(endpoint).collect(), written }
    }

    fn shown(slot: &Slot) -> String {
        let hint =
            |e: &Endpoint| e.hints.as_ref().map_or("-".to_owned(), |h| h.for_zones.as_ref().unwrap()[0].name.clone());
        let hints: String = slot.endpoints.iter().map(hint).collect();
        if slot.written { format!("{hints} written") } else { hints }
    }

    fn check(nodes: &[Arc<Node>], mut slots: Vec<Slot>, want: Result<&[&str], &str>) {
        let got = allocate(nodes, &mut slots).map(|()| slots.iter().map(shown).collect::<Vec<_>>());
        let want = want.map(|w| w.iter().map(|s| (*s).to_owned()).collect()).map_err(str::to_owned);
        assert_eq!(got, want);
    }

    #[test]
    fn zones_get_their_share() {
        let plain = |zone| node(zone, "4", json!({}));
        let two = [plain("a"), plain("b")];
        let new = |zones| vec![slot(zones, "", true)];
        check(&two, new("aabb"), Ok(&["aabb written"]));
        check(&two, new("aaab"), Ok(&["baab written"]));
        check(&two, new("aaaa"), Ok(&["bbaa written"]));
        check(&two, new("aabbA"), Ok(&["aabb- written"]));
        // A slice that is fine is not written; one with a hint for a zone that is gone is.
        check(&two, vec![slot("ab", "ab", false), slot("ab", "", true)], Ok(&["ab", "ab written"]));
        check(&two, vec![slot("ab", "ac", false), slot("ab", "ab", false)], Ok(&["ab written", "ab"]));
        check(&two, vec![slot("ab", "a-", false)], Ok(&["ab written"]));
        let large = [plain("a"), node("b", "12", json!({}))];
        check(&large, new("aabbaabb"), Ok(&["bbbbaabb written"]));
        const UNKNOWN: &str =
            "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
        check(&two[..1], new("aa"), Err(UNKNOWN));
        check(&[plain("a"), plain("b"), plain("")], new("aabb"), Err(UNKNOWN));
        check(&[plain("a"), plain("b"), node("c", "0", json!({}))], new("aabb"), Err(UNKNOWN));
        check(&two, new("a"), Err("Insufficient number of endpoints (1 endpoints, 2 zones)"));
        check(&two, new("aab-"), Err("One or more endpoints do not have a zone specified"));
        let why = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
        check(
            &[plain("a"), plain("b"), node("c", "1", json!({}))],
            new("abc"),
            Err(&format!("{why} (3 endpoints, 3 zones)")),
        );
        check(&two, new("aaabb"), Err(&format!("{why} (5 endpoints, 2 zones)")));
        // Nodes that are not ready, and those of the control plane, do not count.
        let not_ready = node("c", "4", json!({ "/status/conditions/0/status": "False" }));
        let control = node("c", "4", json!({ "/metadata/labels": { EXCLUDED[0]: "true" } }));
        check(&[plain("a"), plain("b"), not_ready, control], new("aabb"), Ok(&["aabb written"]));
    }

    #[test]
    fn what_a_service_asks_for() {
        let of = |annotations: Value, distribution: Option<&str>| {
            let service = json!({ "metadata": { "annotations": annotations },
                "spec": { "trafficDistribution": distribution } });
            mode(&serde_json::from_value(service).unwrap())
        };
        assert_eq!(of(json!({}), None), Mode::None);
        assert_eq!(of(json!({}), Some("PreferClose")), Mode::SameZone);
        assert_eq!(of(json!({}), Some("PreferSameZone")), Mode::SameZone);
        assert_eq!(of(json!({}), Some("PreferSameNode")), Mode::SameNode);
        assert_eq!(of(json!({ MODE: "Auto" }), Some("PreferSameNode")), Mode::Auto);
        assert_eq!(of(json!({ MODE: "auto", AWARE: "Disabled" }), Some("PreferClose")), Mode::SameZone);
        assert_eq!(of(json!({ AWARE: "Auto" }), None), Mode::Auto);
    }

    #[test]
    fn hints_by_where_an_endpoint_is() {
        let hints = |zone: &str, mode| json!(near(&slot(zone, "", true).endpoints[0], mode));
        let zone = json!([{ "name": "a" }]);
        assert_eq!(hints("a", Mode::SameZone), json!({ "forZones": zone }));
        assert_eq!(hints("a", Mode::SameNode), json!({ "forZones": zone, "forNodes": [{ "name": "n" }] }));
        assert_eq!(hints("-", Mode::SameNode), json!({ "forNodes": [{ "name": "n" }] }));
        for (zone, mode) in [("A", Mode::SameNode), ("-", Mode::SameZone), ("a", Mode::None), ("a", Mode::Auto)] {
            assert_eq!(hints(zone, mode), Value::Null, "{zone} {mode:?}");
        }
    }
}
