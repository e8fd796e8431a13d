//! Decides: the rows of Services, Endpoints and EndpointSlices.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::access::{age, at, labels, list, name, number, or, text, with_more};

/// Endpoints and ports shown before `+ n more...`.
const SHOWN: usize = 3;

pub fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ip = list(service, "spec.clusterIPs").first().and_then(Value::as_str).unwrap_or_default();
    let ports: Vec<String> = list(service, "spec.ports").iter().map(port).collect();
    vec![
        name(service),
        text(service, "spec.type").into(),
        or(or(cluster_ip, text(service, "spec.clusterIP")), "<none>").into(),
        external_ip(service).into(),
        or(&ports.join(","), "<none>").into(),
        age(service, now),
        labels(at(service, "spec.selector")).into(),
    ]
}

fn port(port: &Value) -> String {
    let (number_, protocol) = (number(port, "port"), text(port, "protocol"));
    match number(port, "nodePort") {
        0 => format!("{number_}/{protocol}"),
        node_port => format!("{number_}:{node_port}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let given: Vec<&str> = list(service, "spec.externalIPs").iter().filter_map(Value::as_str).collect();
    match text(service, "spec.type") {
        "ClusterIP" | "NodePort" => or(&given.join(","), "<none>").into(),
        "LoadBalancer" => {
            let ingress = list(service, "status.loadBalancer.ingress").iter();
            let found: BTreeSet<&str> =
                ingress.map(|i| or(text(i, "ip"), text(i, "hostname"))).filter(|i| !i.is_empty()).collect();
            let all: Vec<&str> = found.into_iter().chain(given).collect();
            or(&all.join(","), "<pending>").into()
        }
        "ExternalName" => text(service, "spec.externalName").into(),
        _ => "<unknown>".into(),
    }
}

pub fn endpoints(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    let subsets = list(endpoints, "subsets");
    let mut all = Vec::new();
    for subset in subsets {
        let (addresses, ports) = (list(subset, "addresses"), list(subset, "ports"));
        // A headless Service may have no ports.
        if ports.is_empty() {
            all.extend(addresses.iter().map(|a| text(a, "ip").to_owned()));
        }
        for port in ports {
            all.extend(addresses.iter().map(|a| join(text(a, "ip"), number(port, "port"))));
        }
    }
    let shown = if subsets.is_empty() { "<none>".into() } else { with_more(&all, SHOWN) };
    vec![name(endpoints), shown.into(), age(endpoints, now)]
}

fn join(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub fn endpoint_slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    let port = |p: &Value| match p["port"].as_i64() {
        Some(n) => n.to_string(),
        None => or(text(p, "name"), "*").to_owned(),
    };
    let ports: Vec<String> = list(slice, "ports").iter().map(port).collect();
    let addresses = list(slice, "endpoints").iter().flat_map(|e| list(e, "addresses"));
    let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    vec![
        name(slice),
        text(slice, "addressType").into(),
        or(&with_more(&ports, SHOWN), "<unset>").into(),
        or(&with_more(&addresses, SHOWN), "<unset>").into(),
        age(slice, now),
    ]
}
