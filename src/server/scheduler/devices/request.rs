//! Types: what a claim asks for: its requests, each with its alternatives, and the classes that they name.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{
    DeviceClass, DeviceRequest, DeviceSelector, DeviceSubRequest, DeviceToleration, ExactDeviceRequest, ResourceClaim,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::Devices;
use crate::client::store::Meta as _;

/// A request, or one alternative of a request.
pub struct Ask<'a> {
    /// Among all of one attempt.
    pub number: usize,
    /// Namespace and name of the claim.
    pub claim: String,
    pub name: &'a str,
    /// The request that it is an alternative of.
    pub parent: Option<&'a str>,
    pub class_name: &'a str,
    pub class: &'a DeviceClass,
    pub selectors: &'a [DeviceSelector],
    pub tolerations: &'a [DeviceToleration],
    pub capacity: Option<&'a BTreeMap<String, Text>>,
    /// Every device there is, instead of a number.
    pub all: bool,
    pub count: usize,
    /// Also of those in use.
    pub admin: bool,
}

/// A claim that is to be allocated.
pub struct Asked<'a> {
    pub claim: &'a ResourceClaim,
    /// Each by its alternatives; one for those that have none.
    pub requests: Vec<Vec<Ask<'a>>>,
}

impl Ask<'_> {
    /// As results and configurations name it.
    #[must_use]
    pub fn full_name(&self) -> String {
        self.parent.map_or_else(|| self.name.to_owned(), |parent| format!("{parent}/{}", self.name))
    }

    /// Whether a reference means it: by the request, or by request and alternative.
    #[must_use]
    pub fn is_named(&self, reference: &str) -> bool {
        match self.parent {
            None => reference == self.name,
            Some(parent) => {
                let rest = reference.strip_prefix(parent);
                rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('/') == Some(self.name))
            }
        }
    }
}

/// What a request and an alternative have both.
struct Common<'a> {
    class: &'a str,
    mode: Option<&'a str>,
    count: Option<i64>,
    selectors: Option<&'a Vec<DeviceSelector>>,
    tolerations: Option<&'a Vec<DeviceToleration>>,
    capacity: Option<&'a BTreeMap<String, Text>>,
    admin: bool,
}

impl<'a> Asked<'a> {
    /// `before` requests have been numbered.
    ///
    /// # Errors
    /// Why it cannot be allocated, wherever; in upstream's words.
    pub fn new(claim: &'a ResourceClaim, devices: &'a Devices, before: usize) -> Result<Self, String> {
        let key = format!("{}/{}", claim.metadata.namespace(), claim.metadata.name());
        let (mut requests, mut number) = (Vec::new(), before);
        for request in claim.spec.devices.iter().flat_map(|d| d.requests.iter().flatten()) {
            let mut alternatives = Vec::new();
            for (name, parent, common) in alternatives_of(request) {
                let full = parent.map_or_else(|| name.to_owned(), |parent| format!("{parent}/{name}"));
                let class_name = common.class;
                let Some(class) = devices.class(class_name) else {
                    return Err(format!("request {full}: device class {class_name} does not exist"));
                };
                let all = match common.mode.unwrap_or("ExactCount") {
                    "All" => true,
                    "ExactCount" => false,
                    other => return Err(format!("claim {key}, request {full}: unsupported count mode {other}")),
                };
                alternatives.push(Ask {
                    number,
                    claim: key.clone(),
                    name,
                    parent,
                    class_name,
                    class,
                    selectors: common.selectors.map(Vec::as_slice).unwrap_or_default(),
                    tolerations: common.tolerations.map(Vec::as_slice).unwrap_or_default(),
                    capacity: common.capacity,
                    all,
                    count: usize::try_from(common.count.unwrap_or(1)).unwrap_or(0),
                    admin: common.admin,
                });
                number += 1;
            }
            if alternatives.is_empty() {
                return Err(format!("resource claim {key}, request {}: unknown request type", request.name));
            }
            requests.push(alternatives);
        }
        Ok(Self { claim, requests })
    }

    /// How many requests and alternatives it has.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.requests.iter().map(Vec::len).sum()
    }
}

type Alternative<'a> = (&'a str, Option<&'a str>, Common<'a>);

fn alternatives_of(request: &DeviceRequest) -> Vec<Alternative<'_>> {
    if let Some(exact) = &request.exactly {
        return vec![(&request.name, None, exactly(exact))];
    }
    let list = request.first_available.iter().flatten();
    list.map(|one| (one.name.as_str(), Some(request.name.as_str()), alternative(one))).collect()
}

fn exactly(exact: &ExactDeviceRequest) -> Common<'_> {
    Common {
        class: &exact.device_class_name,
        mode: exact.allocation_mode.as_deref(),
        count: exact.count,
        selectors: exact.selectors.as_ref(),
        tolerations: exact.tolerations.as_ref(),
        capacity: exact.capacity.as_ref().and_then(|c| c.requests.as_ref()),
        admin: exact.admin_access == Some(true),
    }
}

fn alternative(one: &DeviceSubRequest) -> Common<'_> {
    Common {
        class: &one.device_class_name,
        mode: one.allocation_mode.as_deref(),
        count: one.count,
        selectors: one.selectors.as_ref(),
        tolerations: one.tolerations.as_ref(),
        capacity: one.capacity.as_ref().and_then(|c| c.requests.as_ref()),
        admin: false,
    }
}
