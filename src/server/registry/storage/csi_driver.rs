//! Decides: CSIDriver. Whether volumes are attached, and how long they live, is decided once.

use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec, TokenRequest};

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, immutable};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

const GROUP_POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
const LIFECYCLES: &[&str] = &["Persistent", "Ephemeral"];
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);
const MIN_UPDATE_SECONDS: i64 = 10;

pub struct CSIDriverKind;

impl Kind for CSIDriverKind {
    type Object = CSIDriver;

    fn resource(&self) -> &'static Resource {
        row("storage.k8s.io/v1", "CSIDriver")
    }

    fn defaults(&self, driver: &mut CSIDriver) {
        let spec = &mut driver.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".into());
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".into()]);
        }
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, driver: &mut CSIDriver) {
        // Part of a feature that is off.
        driver.spec.prevent_pod_scheduling_if_missing = None;
    }

    fn prepare_update(&self, _: &Context, _: Part, new: &mut CSIDriver, old: &CSIDriver) {
        if old.spec.prevent_pod_scheduling_if_missing.is_none() {
            new.spec.prevent_pod_scheduling_if_missing = None;
        }
    }

    fn validate(&self, driver: &CSIDriver) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check(&mut errors, &Path::new("spec"), &driver.spec);
        errors
    }

    fn validate_update(&self, _: Part, new: &CSIDriver, old: &CSIDriver) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        let path = Path::new("spec");
        let (after, before) = (&new.spec, &old.spec);
        // Upstream spells the field this way.
        immutable(&mut errors, &path.child("attachedRequired"), &after.attach_required, &before.attach_required);
        let at = path.child("volumeLifecycleModes");
        immutable(&mut errors, &at, &after.volume_lifecycle_modes, &before.volume_lifecycle_modes);
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

/// What must be said has a default, so it needs no check.
fn check(errors: &mut Errors, path: &Path, spec: &CSIDriverSpec) {
    if let Some(policy) = spec.fs_group_policy.as_deref().filter(|p| !GROUP_POLICIES.contains(p)) {
        errors.push(FieldError::not_supported(&path.child("fsGroupPolicy"), &policy, GROUP_POLICIES));
    }
    let requests = spec.token_requests.as_deref().unwrap_or_default();
    tokens(errors, &path.child("tokenRequests"), requests);
    for mode in spec.volume_lifecycle_modes.iter().flatten().filter(|m| !LIFECYCLES.contains(&m.as_str())) {
        errors.push(FieldError::not_supported(&path.child("volumeLifecycleModes"), mode, LIFECYCLES));
    }
    if let Some(seconds) = spec.node_allocatable_update_period_seconds.filter(|s| *s < MIN_UPDATE_SECONDS) {
        let at = path.child("nodeAllocatableUpdatePeriodSeconds");
        errors.push(FieldError::invalid(&at, &seconds, "must be greater than or equal to 10 seconds"));
    }
    if let Some(given) = spec.service_account_token_in_secrets.filter(|_| requests.is_empty()) {
        let message = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(FieldError::invalid(&path.child("serviceAccountTokenInSecrets"), &given, message));
    }
}

fn tokens(errors: &mut Errors, path: &Path, requests: &[TokenRequest]) {
    for (i, request) in requests.iter().enumerate() {
        let at = path.index(i);
        if requests[..i].iter().any(|r| r.audience == request.audience) {
            errors.push(FieldError::duplicate(&at.child("audience"), &request.audience));
            continue;
        }
        let Some(seconds) = request.expiration_seconds else { continue };
        let message = if seconds < TOKEN_SECONDS.0 {
            "may not specify a duration less than 10 minutes"
        } else if seconds > TOKEN_SECONDS.1 {
            "may not specify a duration larger than 2^32 seconds"
        } else {
            continue;
        };
        errors.push(FieldError::invalid(&at.child("expirationSeconds"), &seconds, message));
    }
}
