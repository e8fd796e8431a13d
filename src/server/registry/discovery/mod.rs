//! Decides: EndpointSlice.

use std::net::{Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::core::endpoints::{endpoint_ip, protocol};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, immutable, invalid};
use crate::server::registry::strategy::{Kind, Part};

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_ZONE_HINTS: usize = 8;

pub struct EndpointSliceKind;

impl Kind for EndpointSliceKind {
    type Object = EndpointSlice;

    fn resource(&self) -> &'static Resource {
        row("discovery.k8s.io/v1", "EndpointSlice")
    }

    fn defaults(&self, slice: &mut EndpointSlice) {
        for port in slice.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/addressType", "/endpoints", "/metadata/labels", "/ports"]
    }

    fn validate(&self, slice: &EndpointSlice) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("addressType");
        match slice.address_type.as_str() {
            "" => errors.push(FieldError::required(&path, "")),
            known if ADDRESS_TYPES.contains(&known) => {}
            other => errors.push(FieldError::not_supported(&path, &other, ADDRESS_TYPES)),
        }
        endpoints(&mut errors, slice);
        ports(&mut errors, slice);
        errors
    }

    fn validate_update(&self, _: Part, new: &EndpointSlice, old: &EndpointSlice) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        immutable(&mut errors, &Path::new("addressType"), &new.address_type, &old.address_type);
        errors
    }
}

fn endpoints(errors: &mut Errors, slice: &EndpointSlice) {
    let path = Path::new("endpoints");
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(FieldError::too_many(&path, endpoints.len(), MAX_ENDPOINTS));
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let at = path.index(i);
        addresses(errors, &at.child("addresses"), &slice.address_type, endpoint);
        if let Some(node) = &endpoint.node_name {
            invalid(errors, &at.child("nodeName"), node, format::dns_subdomain(node));
        }
        if let Some(host) = &endpoint.hostname {
            invalid(errors, &at.child("hostname"), host, format::dns_label(host));
        }
        let zones = endpoint.hints.as_ref().and_then(|h| h.for_zones.as_deref()).unwrap_or_default();
        let zones_path = at.child("hints").child("forZones");
        if zones.len() > MAX_ZONE_HINTS {
            errors.push(FieldError::too_many(&zones_path, zones.len(), MAX_ZONE_HINTS));
        }
        for (j, zone) in zones.iter().enumerate() {
            let name = zones_path.index(j).child("name");
            if zones[..j].iter().any(|z| z.name == zone.name) {
                errors.push(FieldError::duplicate(&name, &zone.name));
            }
            invalid(errors, &name, &zone.name, format::label_value(&zone.name));
        }
    }
}

fn addresses(errors: &mut Errors, path: &Path, kind: &str, endpoint: &Endpoint) {
    if endpoint.addresses.is_empty() {
        errors.push(FieldError::required(path, "must contain at least 1 address"));
    } else if endpoint.addresses.len() > MAX_ADDRESSES {
        errors.push(FieldError::too_many(path, endpoint.addresses.len(), MAX_ADDRESSES));
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        let at = path.index(i);
        match kind {
            "IPv4" if address.parse::<Ipv4Addr>().is_err() => {
                errors.push(FieldError::invalid(&at, address, "must be a valid IPv4 address"));
            }
            "IPv6" if address.parse::<Ipv6Addr>().is_err() => {
                errors.push(FieldError::invalid(&at, address, "must be a valid IPv6 address"));
            }
            "IPv4" | "IPv6" => endpoint_ip(errors, &at, address),
            "FQDN" => fqdn(errors, &at, address),
            _ => {}
        }
    }
}

fn fqdn(errors: &mut Errors, path: &Path, text: &str) {
    let name = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let problems = format::dns_subdomain(name);
    if !problems.is_empty() {
        errors.push(FieldError::invalid(path, &name, &problems.join(",")));
    } else if !name.contains('.') {
        let message = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, &name, message));
    }
}

fn ports(errors: &mut Errors, slice: &EndpointSlice) {
    let path = Path::new("ports");
    let ports = slice.ports.as_deref().unwrap_or_default();
    if ports.len() > MAX_PORTS {
        errors.push(FieldError::too_many(&path, ports.len(), MAX_PORTS));
        return;
    }
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            invalid(errors, &at.child("name"), &name, format::dns_label(name));
        }
        if ports[..i].iter().any(|p| p.name.as_deref().unwrap_or_default() == name) {
            errors.push(FieldError::duplicate(&at.child("name"), &name));
        }
        protocol(errors, &at.child("protocol"), port.protocol.as_deref());
        if let Some(number) = port.port {
            invalid(errors, &at.child("port"), &number, format::port_number(number));
        }
        if let Some(application) = &port.app_protocol {
            invalid(errors, &at.child("appProtocol"), application, format::qualified_name(application));
        }
    }
}
