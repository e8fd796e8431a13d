//! Decides: how much of a device's capacity a request may take, where several share the device.

use k8s_openapi::api::resource::v1::{CapacityRequestPolicyRange, DeviceCapacity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::{items, unique};
use crate::api::field::{FieldError, Path};
use crate::server::registry::metadata::Errors;
use crate::server::registry::quantity;

const MAX_VALUES: usize = 10;

/// In whole units. What came through decoding is a quantity.
fn units(text: &Text) -> i64 {
    quantity::parse(text).map(|q| q.value()).unwrap_or_default()
}

pub fn check(errors: &mut Errors, path: &Path, capacity: &DeviceCapacity, shared: bool) {
    let Some(policy) = &capacity.request_policy else { return };
    let path = path.child("requestPolicy");
    if !shared {
        errors.push(FieldError::forbidden(&path, "allowMultipleAllocations must be true"));
        return;
    }
    let values = policy.valid_values.as_ref().filter(|v| !v.is_empty());
    let (field, missing) = match (values, &policy.valid_range) {
        (Some(_), Some(_)) => {
            let message = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at \
                           the same time";
            errors.push(FieldError::forbidden(&path, message));
            return;
        }
        (None, None) => return,
        (Some(_), None) => ("validValues", "required when validValues is defined"),
        (None, Some(_)) => ("validRange", "required when validRange is defined"),
    };
    let Some(default) = &policy.default else {
        errors.push(FieldError::required(&path.child("default"), missing));
        return;
    };
    match (values, &policy.valid_range) {
        (Some(values), _) => valid_values(errors, &path.child(field), default, &capacity.value, values),
        (None, Some(range)) => valid_range(errors, &path.child(field), default, &capacity.value, range),
        (None, None) => {}
    }
}

fn valid_values(errors: &mut Errors, path: &Path, default: &Text, most: &Text, values: &Vec<Text>) {
    for (i, pair) in values.windows(2).enumerate().filter(|(_, pair)| units(&pair[0]) > units(&pair[1])) {
        errors.push(FieldError::invalid(&path.index(i + 1), &pair[1].0, "values must be sorted in ascending order"));
    }
    let listed = items(errors, path, Some(values), MAX_VALUES);
    for (i, value) in listed.iter().enumerate().filter(|(_, v)| units(v) > units(most)) {
        let message = format!("option is larger than capacity value: {}", most.0);
        errors.push(FieldError::invalid(&path.index(i), &value.0, &message));
    }
    let keys: Vec<String> = listed.iter().map(|v| units(v).to_string()).collect();
    unique(errors, path, keys.iter().map(String::as_str));
    if !listed.iter().any(|v| units(v) == units(default)) {
        let message = "default value is not valid according to the requestPolicy";
        errors.push(FieldError::invalid(path, &default.0, message));
    }
}

fn valid_range(errors: &mut Errors, path: &Path, default: &Text, most: &Text, range: &CapacityRequestPolicyRange) {
    let mut refuse = |field: &str, value: &Text, message: &str, other: &Text| {
        errors.push(FieldError::invalid(&path.child(field), &value.0, &format!("{message}: {}", other.0)));
    };
    let min = &range.min;
    if units(min) > units(most) {
        refuse("min", min, "min is larger than capacity value", most);
    }
    if units(default) < units(min) {
        refuse("min", default, "default is less than min", min);
    }
    if let Some(max) = &range.max {
        if units(min) > units(max) {
            refuse("max", min, "min is larger than max", max);
        }
        if units(max) > units(most) {
            refuse("max", max, "max is larger than capacity value", most);
        }
        if units(default) > units(max) {
            refuse("max", default, "default is more than max", max);
        }
    }
    let Some(step) = &range.step else { return };
    let at = path.child("step");
    let one = units(min).saturating_add(units(step));
    if one > units(most) {
        let message = format!("one step {one} is larger than capacity value: {}", most.0);
        errors.push(FieldError::invalid(&at, &step.0, &message));
    }
    for value in [Some(default), range.max.as_ref()].into_iter().flatten() {
        let above = units(value).saturating_sub(units(min));
        if units(step) != 0 && above % units(step) != 0 {
            let message = format!("value is not a multiple of a given step ({}) from ({})", step.0, min.0);
            errors.push(FieldError::invalid(&at, &value.0, &message));
        }
    }
}
