//! Decides: whether the devices of a claim agree in an attribute, or all differ in one, as the claim wants it.

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceConstraint};

use super::request::Ask;

/// One constraint of a claim, and what the devices have that it got so far.
pub struct Constraint<'a> {
    requests: &'a [String],
    /// `domain/name`
    attribute: &'a str,
    distinct: bool,
    values: Vec<&'a DeviceAttribute>,
}

impl<'a> Constraint<'a> {
    /// `None` for one of a kind that is not known.
    #[must_use]
    pub fn new(constraint: &'a DeviceConstraint) -> Option<Self> {
        let (attribute, distinct) = match (&constraint.match_attribute, &constraint.distinct_attribute) {
            (Some(name), _) => (name.as_str(), false),
            (None, Some(name)) => (name.as_str(), true),
            (None, None) => return None,
        };
        let requests = constraint.requests.as_deref().unwrap_or_default();
        Some(Self { requests, attribute, distinct, values: Vec::new() })
    }

    fn concerns(&self, ask: &Ask) -> bool {
        self.requests.is_empty() || self.requests.iter().any(|name| ask.is_named(name))
    }

    /// Counts one more device, if the constraint holds with it.
    pub fn add(&mut self, ask: &Ask, driver: &str, device: &'a Device) -> bool {
        if !self.concerns(ask) {
            return true;
        }
        let Some(value) = attribute(device, driver, self.attribute).filter(|v| is_single(v)) else { return false };
        let holds = if self.distinct {
            !self.values.iter().any(|other| same(other, value))
        } else {
            self.values.first().is_none_or(|first| same(first, value))
        };
        if holds {
            self.values.push(value);
        }
        holds
    }

    /// Takes the device back that was added last for a request.
    pub fn remove(&mut self, ask: &Ask) {
        if self.concerns(ask) {
            self.values.pop();
        }
    }
}

/// By its full name, or by its name alone if the domain is the driver's.
fn attribute<'a>(device: &'a Device, driver: &str, name: &str) -> Option<&'a DeviceAttribute> {
    let attributes = device.attributes.as_ref()?;
    let short = || name.split_once('/').filter(|(domain, _)| *domain == driver).map(|(_, short)| short);
    attributes.get(name).or_else(|| attributes.get(short()?))
}

/// Lists are of a gate that is off.
fn is_single(value: &DeviceAttribute) -> bool {
    value.string.is_some() || value.int.is_some() || value.bool.is_some() || value.version.is_some()
}

/// Of the same type and equal. Versions have one way to be written.
fn same(a: &DeviceAttribute, b: &DeviceAttribute) -> bool {
    (&a.string, a.int, a.bool, &a.version) == (&b.string, b.int, b.bool, &b.version)
}
