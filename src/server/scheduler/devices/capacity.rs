//! Decides: how much of a device's capacity a request takes, by the device's policy for requests.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{CapacityRequestPolicy, CapacityRequestPolicyRange, Device, DeviceCapacity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::api::quantity::{Format, Quantity};

/// By the names of capacities.
pub type Amounts<'a> = BTreeMap<&'a str, Quantity>;

/// What the API let through is a quantity.
#[must_use]
pub fn amount(text: &Text) -> Option<Quantity> {
    Quantity::parse(&text.0).ok()
}

/// What a request takes of a device. `None` when the device does not have it, or its policy does not allow so much.
#[must_use]
pub fn consumed<'a>(requests: Option<&BTreeMap<String, Text>>, device: &'a Device) -> Option<Amounts<'a>> {
    let has = |name: &String| device.capacity.as_ref().is_some_and(|c| c.contains_key(name));
    if !requests.into_iter().flatten().all(|(name, _)| has(name)) {
        return None;
    }
    let capacities = device.capacity.iter().flatten();
    let one = |(name, capacity): (&'a String, &DeviceCapacity)| {
        let wanted = requests.and_then(|r| r.get(name)).map_or(Some(None), |text| amount(text).map(Some))?;
        let taken = rounded(wanted, capacity)?;
        let allowed = capacity.request_policy.as_ref().is_none_or(|policy| allows(policy, taken));
        (allowed && !taken.is_negative()).then_some((name.as_str(), taken))
    };
    capacities.map(one).collect()
}

/// Whether that is left beside what others take.
#[must_use]
pub fn fits(device: &Device, wanted: &Amounts, others: [Option<&Amounts>; 2]) -> bool {
    wanted.iter().all(|(name, amount_wanted)| {
        let taken = others.iter().flatten().filter_map(|o| o.get(name)).fold(*amount_wanted, |sum, n| sum + *n);
        let has = device.capacity.as_ref().and_then(|c| c.get(*name)).and_then(|c| amount(&c.value));
        has.is_some_and(|has| taken <= has)
    })
}

/// What is asked for, as much as the policy makes of it; what the policy gives, or everything, when nothing is.
fn rounded(wanted: Option<Quantity>, capacity: &DeviceCapacity) -> Option<Quantity> {
    let policy = capacity.request_policy.as_ref();
    let Some(wanted) = wanted else {
        return amount(policy.and_then(|p| p.default.as_ref()).unwrap_or(&capacity.value));
    };
    let Some(policy) = policy else { return Some(wanted) };
    if let Some(range) = &policy.valid_range {
        return in_range(wanted, range);
    }
    let mut values = policy.valid_values.iter().flatten().filter_map(amount);
    Some(values.find(|value| wanted <= *value).unwrap_or(wanted))
}

/// The next step that is not below.
fn in_range(wanted: Quantity, range: &CapacityRequestPolicyRange) -> Option<Quantity> {
    let min = amount(&range.min)?;
    if wanted < min {
        return Some(min);
    }
    let Some(step) = range.step.as_ref().and_then(amount).map(Quantity::value).filter(|step| *step > 0) else {
        return Some(wanted);
    };
    let above = wanted.value().checked_sub(min.value())?;
    let steps = above / step + i64::from(above % step != 0);
    Some(Quantity::from_units(step.checked_mul(steps)?.checked_add(min.value())?, Format::Binary))
}

fn allows(policy: &CapacityRequestPolicy, taken: Quantity) -> bool {
    if policy.default.as_ref().and_then(amount) == Some(taken) {
        return true;
    }
    if let Some(range) = &policy.valid_range {
        let above = |max: &Text| amount(max).is_some_and(|max| taken > max);
        let step = range.step.as_ref().and_then(amount).map(Quantity::value).filter(|step| *step > 0);
        let uneven = step.is_some_and(|step| {
            amount(&range.min).is_none_or(|min| taken.value().saturating_sub(min.value()) % step != 0)
        });
        return !range.max.as_ref().is_some_and(above) && !uneven;
    }
    let values = policy.valid_values.as_deref().unwrap_or_default();
    values.is_empty() || values.iter().filter_map(amount).any(|value| value == taken)
}
