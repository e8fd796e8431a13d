//! Decides: PriorityClass. Names that begin with `system-` belong to the system.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::immutable;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

const HIGHEST_OF_USERS: i32 = 1_000_000_000;
const SYSTEM: &[(&str, i32)] =
    &[("system-node-critical", 2 * HIGHEST_OF_USERS + 1000), ("system-cluster-critical", 2 * HIGHEST_OF_USERS)];

pub struct PriorityClassKind;

impl Kind for PriorityClassKind {
    type Object = PriorityClass;

    fn resource(&self) -> &'static Resource {
        row("scheduling.k8s.io/v1", "PriorityClass")
    }

    fn defaults(&self, class: &mut PriorityClass) {
        class.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
    }

    fn prepare_create(&self, _: &Context, class: &mut PriorityClass) {
        class.metadata.generation = Some(1);
    }

    fn validate(&self, class: &PriorityClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let name = class.metadata.name.as_deref().unwrap_or_default();
        let value = class.value.unwrap_or_default();
        if name.starts_with("system-") {
            if let Some(why) = not_of_the_system(name, value, class.global_default.unwrap_or_default()) {
                let message = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                );
                errors.push(FieldError::forbidden(&Path::new("metadata").child("name"), &message));
            }
        } else if value > HIGHEST_OF_USERS {
            let message = format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
            errors.push(FieldError::forbidden(&Path::new("value"), &message));
        }
        if let Some(policy) = &class.preemption_policy {
            super::core::scheduling::preemption_policy(&mut errors, &Path::new("preemptionPolicy"), policy);
        }
        errors
    }

    fn validate_update(&self, _: Part, new: &PriorityClass, old: &PriorityClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new.value.unwrap_or_default() != old.value.unwrap_or_default() {
            errors.push(FieldError::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        let path = Path::new("preemptionPolicy");
        immutable(&mut errors, &path, &new.preemption_policy, &old.preemption_policy);
        errors
    }

    fn create_on_update(&self) -> bool {
        true
    }
}

fn not_of_the_system(name: &str, value: i32, global: bool) -> Option<String> {
    let Some((_, wanted)) = SYSTEM.iter().find(|(n, _)| *n == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if value != *wanted {
        return Some(format!("value of {name} PriorityClass must be {wanted}"));
    }
    global.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}
