//! Decides: Lease.

use k8s_openapi::api::coordination::v1::Lease;

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::strategy::Kind;

pub struct LeaseKind;

impl Kind for LeaseKind {
    type Object = Lease;

    fn resource(&self) -> &'static Resource {
        row("coordination.k8s.io/v1", "Lease")
    }

    fn defaults(&self, lease: &mut Lease) {
        lease.spec.get_or_insert_default();
    }

    fn validate(&self, lease: &Lease) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let Some(spec) = &lease.spec else { return errors };
        let path = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
            errors.push(FieldError::invalid(&path.child("leaseDurationSeconds"), &seconds, "must be greater than 0"));
        }
        if let Some(count) = spec.lease_transitions.filter(|c| *c < 0) {
            let message = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(&path.child("leaseTransitions"), &count, message));
        }
        let preferred = spec.preferred_holder.as_deref().unwrap_or_default();
        if !preferred.is_empty() && spec.strategy.as_deref().unwrap_or_default().is_empty() {
            let message = "may only be specified if `strategy` is defined";
            errors.push(FieldError::forbidden(&path.child("preferredHolder"), message));
        }
        errors
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}
