//! Decides: the columns and rows of Ingresses and policies, of ranges of Services, of runtime classes and of requests for
//! certificates.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::access::{age, at, list, name, or, selector, text};
use super::columns::{self, AGE, Column, NAME};
use super::duration::human;

/// Hosts shown before `+ n more...`.
const SHOWN: usize = 3;
const NONE: &str = "<none>";

pub const INGRESS: &[Column] = &[
    NAME,
    columns::text("Class", "The IngressClass that serves it."),
    columns::text("Hosts", "Hosts that it has rules for."),
    columns::text("Address", "Where requests for it arrive."),
    columns::text("Ports", "Ports that are open."),
    AGE,
];

pub const INGRESS_CLASS: &[Column] = &[
    NAME,
    columns::text("Controller", "Who serves this class."),
    columns::text("Parameters", "What configures the controller."),
    AGE,
];

pub const NETWORK_POLICY: &[Column] =
    &[NAME, columns::text("Pod-Selector", "Label selector of the pods that it is about."), AGE];

pub const SERVICE_CIDR: &[Column] =
    &[NAME, columns::text("CIDRs", "Ranges that Services get their addresses from."), AGE];

/// Upstream shows no age here.
pub const IP_ADDRESS: &[Column] = &[NAME, columns::text("ParentRef", "What the address belongs to.")];

pub const RUNTIME_CLASS: &[Column] = &[NAME, columns::text("Handler", "Name of the runtime on the node."), AGE];

pub const SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    columns::text("SignerName", "Who is to sign it."),
    columns::text("Requestor", "Who asks."),
    columns::text("RequestedDuration", "How long the certificate is wanted for."),
    columns::text("Condition", "What was decided, and whether it was signed."),
];

pub fn ingress(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let points = list(ingress, "status.loadBalancer.ingress").iter();
    let addresses: BTreeSet<&str> =
        points.map(|p| or(text(p, "ip"), text(p, "hostname"))).filter(|a| !a.is_empty()).collect();
    let ports = if list(ingress, "spec.tls").is_empty() { "80" } else { "80, 443" };
    vec![
        name(ingress),
        at(ingress, "spec.ingressClassName").as_str().unwrap_or(NONE).into(),
        hosts(list(ingress, "spec.rules")).into(),
        addresses.into_iter().collect::<Vec<_>>().join(",").into(),
        ports.into(),
        age(ingress, now),
    ]
}

/// Upstream counts the rules that follow, also those without a host.
fn hosts(rules: &[Value]) -> String {
    let named: Vec<(usize, &str)> =
        rules.iter().map(|rule| text(rule, "host")).enumerate().filter(|(_, host)| !host.is_empty()).collect();
    let shown: Vec<&str> = named.iter().take(SHOWN).map(|(_, host)| *host).collect();
    let shown = or(&shown.join(","), "*").to_owned();
    match named.get(SHOWN - 1) {
        Some((last, _)) if last + 1 < rules.len() => format!("{shown} + {} more...", rules.len() - SHOWN),
        _ => shown,
    }
}

pub fn ingress_class(class: &Value, now: Timestamp) -> Vec<Value> {
    let annotation = "ingressclass.kubernetes.io/is-default-class";
    let default = if class["metadata"]["annotations"][annotation] == "true" { " (default)" } else { "" };
    let reference = at(class, "spec.parameters");
    let parameters = if reference.is_null() {
        NONE.into()
    } else {
        let group = reference["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
        format!("{}{group}/{}", text(reference, "kind"), text(reference, "name"))
    };
    vec![
        format!("{}{default}", text(class, "metadata.name")).into(),
        text(class, "spec.controller").into(),
        parameters.into(),
        age(class, now),
    ]
}

pub fn network_policy(policy: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(policy), selector(at(policy, "spec.podSelector")).into(), age(policy, now)]
}

pub fn service_cidr(cidr: &Value, now: Timestamp) -> Vec<Value> {
    let cidrs: Vec<&str> = list(cidr, "spec.cidrs").iter().filter_map(Value::as_str).collect();
    vec![name(cidr), cidrs.join(",").into(), age(cidr, now)]
}

pub fn ip_address(ip: &Value) -> Vec<Value> {
    let parent = at(ip, "spec.parentRef");
    if parent.is_null() {
        return vec![name(ip), NONE.into()];
    }
    let dotted = |text: &str, before: &str| if text.is_empty() { String::new() } else { format!("{before}{text}") };
    let resource = format!("{}{}", text(parent, "resource"), dotted(text(parent, "group"), ".")).to_lowercase();
    let namespace = dotted(text(parent, "namespace"), "/");
    vec![name(ip), format!("{resource}{namespace}/{}", text(parent, "name")).into()]
}

pub fn runtime_class(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(class), text(class, "handler").into(), age(class, now)]
}

pub fn signing_request(request: &Value, now: Timestamp) -> Vec<Value> {
    let seconds = at(request, "spec.expirationSeconds").as_i64();
    let is = |kind: &str| list(request, "status.conditions").iter().any(|c| text(c, "type") == kind);
    let mut condition = if is("Denied") {
        "Denied"
    } else if is("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if is("Failed") {
        condition += ",Failed";
    }
    if !text(request, "status.certificate").is_empty() {
        condition += ",Issued";
    }
    vec![
        name(request),
        age(request, now),
        or(text(request, "spec.signerName"), NONE).into(),
        text(request, "spec.username").into(),
        seconds.map_or_else(|| NONE.into(), |s| human(SignedDuration::from_secs(s))).into(),
        condition.into(),
    ]
}

#[cfg(test)]
mod tests;
