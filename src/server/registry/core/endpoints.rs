//! Decides: Endpoints, and which addresses traffic may be sent to.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints};

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid};
use crate::server::registry::strategy::{Kind, Part};

pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub struct EndpointsKind;

impl Kind for EndpointsKind {
    type Object = Endpoints;

    fn resource(&self) -> &'static Resource {
        row("v1", "Endpoints")
    }

    fn defaults(&self, endpoints: &mut Endpoints) {
        for port in endpoints.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten()) {
            if port.protocol.as_deref().unwrap_or_default().is_empty() {
                port.protocol = Some("TCP".into());
            }
        }
    }

    fn validate(&self, endpoints: &Endpoints) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, subset) in endpoints.subsets.iter().flatten().enumerate() {
            let path = Path::new("subsets").index(i);
            let ready = subset.addresses.as_deref().unwrap_or_default();
            let waiting = subset.not_ready_addresses.as_deref().unwrap_or_default();
            if ready.is_empty() && waiting.is_empty() {
                errors.push(FieldError::required(&path, "must specify `addresses` or `notReadyAddresses`"));
            }
            for (field, list) in [("addresses", ready), ("notReadyAddresses", waiting)] {
                for (j, address) in list.iter().enumerate() {
                    check_address(&mut errors, &path.child(field).index(j), address);
                }
            }
            let ports = subset.ports.as_deref().unwrap_or_default();
            for (j, port) in ports.iter().enumerate() {
                check_port(&mut errors, &path.child("ports").index(j), port, ports.len() > 1);
            }
        }
        errors
    }

    fn validate_update(&self, _: Part, new: &Endpoints, old: &Endpoints) -> Vec<FieldError> {
        if new.subsets == old.subsets { Vec::new() } else { self.validate(new) }
    }

    fn create_on_update(&self) -> bool {
        true
    }
}

fn check_address(errors: &mut Errors, path: &Path, address: &EndpointAddress) {
    invalid(errors, &path.child("ip"), &address.ip, format::ip(&address.ip));
    if let Some(host) = address.hostname.as_deref().filter(|h| !h.is_empty()) {
        invalid(errors, &path.child("hostname"), &host, format::dns_label(host));
    }
    if let Some(node) = &address.node_name {
        invalid(errors, &path.child("nodeName"), node, format::dns_subdomain(node));
    }
    endpoint_ip(errors, &path.child("ip"), &address.ip);
}

fn check_port(errors: &mut Errors, path: &Path, port: &EndpointPort, named: bool) {
    let name = port.name.as_deref().unwrap_or_default();
    if !name.is_empty() {
        invalid(errors, &path.child("name"), &name, format::dns_label(name));
    } else if named {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    invalid(errors, &path.child("port"), &port.port, format::port_number(port.port));
    protocol(errors, &path.child("protocol"), port.protocol.as_deref());
    if let Some(application) = &port.app_protocol {
        invalid(errors, &path.child("appProtocol"), application, format::qualified_name(application));
    }
}

pub fn protocol(errors: &mut Errors, path: &Path, protocol: Option<&str>) {
    match protocol.unwrap_or_default() {
        "" => errors.push(FieldError::required(path, "")),
        known if PROTOCOLS.contains(&known) => {}
        other => errors.push(FieldError::not_supported(path, &other, PROTOCOLS)),
    }
}

/// Addresses that no endpoint can have: a valid address of a special range.
pub fn endpoint_ip(errors: &mut Errors, path: &Path, text: &str) {
    let Ok(address) = text.parse::<IpAddr>() else {
        errors.push(FieldError::invalid(path, &text, "must be a valid IP address"));
        return;
    };
    let mut refuse = |message: &str| errors.push(FieldError::invalid(path, &text, message));
    if address.is_unspecified() {
        refuse(&format!("may not be unspecified ({text})"));
    }
    if address.is_loopback() {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if local {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}
