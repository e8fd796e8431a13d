//! Decides: NetworkPolicy.

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::address::{self, Block};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid, selector, shown};
use crate::server::registry::strategy::Kind;

const POLICY_TYPES: &[&str] = &["Ingress", "Egress"];
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];

pub struct NetworkPolicyKind;

impl Kind for NetworkPolicyKind {
    type Object = NetworkPolicy;

    fn resource(&self) -> &'static Resource {
        row("networking.k8s.io/v1", "NetworkPolicy")
    }

    fn defaults(&self, policy: &mut NetworkPolicy) {
        let spec = policy.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        let ingress = spec.ingress.iter_mut().flatten().filter_map(|rule| rule.ports.as_mut());
        let egress = spec.egress.iter_mut().flatten().filter_map(|rule| rule.ports.as_mut());
        for port in ingress.chain(egress).flatten() {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
        // A policy that does not say so is about what comes in, and about what goes out if it has rules for that.
        let types = spec.policy_types.get_or_insert_default();
        if types.is_empty() {
            types.push("Ingress".into());
            if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
                types.push("Egress".into());
            }
        }
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn validate(&self, policy: &NetworkPolicy) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (path, spec) = (Path::new("spec"), policy.spec.clone().unwrap_or_default());
        selector(&mut errors, &path.child("podSelector"), spec.pod_selector.as_ref());
        for rule in rules(&path, &spec) {
            for (i, one) in rule.ports.iter().enumerate() {
                port(&mut errors, &rule.path.child("ports").index(i), one);
            }
            for (i, one) in rule.peers.iter().enumerate() {
                peer(&mut errors, &rule.peers_path.index(i), one);
            }
        }
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let at = path.child("policyTypes");
        if types.len() > POLICY_TYPES.len() {
            errors.push(FieldError::invalid(&at, &shown(&types), "may not specify more than two policyTypes"));
            return errors;
        }
        for (i, kind) in types.iter().enumerate().filter(|(_, kind)| !POLICY_TYPES.contains(&kind.as_str())) {
            errors.push(FieldError::not_supported(&at.index(i), kind, POLICY_TYPES));
        }
        errors
    }

    /// What passed validation can still be an IPv6 address in an unusual form.
    fn warnings(&self, policy: &NetworkPolicy) -> Vec<String> {
        let Some(spec) = &policy.spec else { return Vec::new() };
        let mut warnings = Vec::new();
        for rule in rules(&Path::new("spec"), spec) {
            let blocks = rule.peers.iter().enumerate().filter_map(|(i, p)| Some((i, p.ip_block.as_ref()?)));
            for (i, block) in blocks {
                let at = rule.peers_path.index(i).child("ipBlock");
                warnings.extend(unusual(&at.child("cidr"), &block.cidr));
                for (j, except) in block.except.iter().flatten().enumerate() {
                    warnings.extend(unusual(&at.child("except").index(j), except));
                }
            }
        }
        warnings
    }
}

/// A rule of either direction.
struct Rule<'a> {
    path: Path,
    ports: &'a [NetworkPolicyPort],
    /// `from` or `to`.
    peers_path: Path,
    peers: &'a [NetworkPolicyPeer],
}

/// Ingress rules, then egress rules.
fn rules<'a>(path: &Path, spec: &'a NetworkPolicySpec) -> Vec<Rule<'a>> {
    let rule = |path: Path, peers: &str, ports: Option<&'a Vec<_>>, list: Option<&'a Vec<_>>| Rule {
        ports: ports.map(Vec::as_slice).unwrap_or_default(),
        peers_path: path.child(peers),
        peers: list.map(Vec::as_slice).unwrap_or_default(),
        path,
    };
    let ingress = spec.ingress.iter().flatten().enumerate();
    let egress = spec.egress.iter().flatten().enumerate();
    let ingress = ingress.map(|(i, r)| rule(path.child("ingress").index(i), "from", r.ports.as_ref(), r.from.as_ref()));
    let egress = egress.map(|(i, r)| rule(path.child("egress").index(i), "to", r.ports.as_ref(), r.to.as_ref()));
    ingress.chain(egress).collect()
}

fn port(errors: &mut Errors, path: &Path, port: &NetworkPolicyPort) {
    if let Some(protocol) = port.protocol.as_deref().filter(|p| !PROTOCOLS.contains(p)) {
        errors.push(FieldError::not_supported(&path.child("protocol"), &protocol, PROTOCOLS));
    }
    let (at, end_at) = (path.child("port"), path.child("endPort"));
    match (&port.port, port.end_port) {
        (Some(IntOrString::Int(number)), end) => {
            invalid(errors, &at, number, format::port_number(*number));
            let Some(end) = end else { return };
            if end < *number {
                errors.push(FieldError::invalid(&end_at, &end, "must be greater than or equal to `port`"));
            }
            invalid(errors, &end_at, &end, format::port_number(end));
        }
        (Some(IntOrString::String(name)), end) => {
            if let Some(end) = end {
                errors.push(FieldError::invalid(&end_at, &end, "may not be specified when `port` is non-numeric"));
            }
            invalid(errors, &at, name, format::port_name(name));
        }
        (None, Some(end)) => {
            errors.push(FieldError::invalid(&end_at, &end, "may not be specified when `port` is not specified"));
        }
        (None, None) => {}
    }
}

fn peer(errors: &mut Errors, path: &Path, peer: &NetworkPolicyPeer) {
    selector(errors, &path.child("podSelector"), peer.pod_selector.as_ref());
    selector(errors, &path.child("namespaceSelector"), peer.namespace_selector.as_ref());
    let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match &peer.ip_block {
        Some(block) => {
            ip_block(errors, &path.child("ipBlock"), block);
            if selects {
                errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
            }
        }
        None if !selects => errors.push(FieldError::required(path, "must specify a peer")),
        None => {}
    }
}

fn ip_block(errors: &mut Errors, path: &Path, block: &IPBlock) {
    let at = path.child("cidr");
    if block.cidr.is_empty() {
        errors.push(FieldError::required(&at, ""));
        return;
    }
    invalid(errors, &at, &block.cidr, address::cidr(&block.cidr));
    let Some(whole) = Block::parse(&block.cidr) else { return };
    for (i, except) in block.except.iter().flatten().enumerate() {
        let at = path.child("except").index(i);
        invalid(errors, &at, except, address::cidr(except));
        if Block::parse(except).is_some_and(|part| !whole.strictly_contains(part)) {
            errors.push(FieldError::invalid(&at, except, "must be a strict subset of `cidr`"));
        }
    }
}

fn unusual(path: &Path, cidr: &str) -> Option<String> {
    let canonical = Block::parse(cidr)?.to_string();
    (canonical != cidr)
        .then(|| format!("{path}: IPv6 CIDR value {cidr:?} should be in RFC 5952 canonical format ({canonical:?})"))
}
