//! Decides: ControllerRevision: a state that does not change once it is written.

use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{immutable, not_negative};
use crate::server::registry::strategy::{Kind, Part};

pub struct ControllerRevisionKind;

impl Kind for ControllerRevisionKind {
    type Object = ControllerRevision;

    fn resource(&self) -> &'static Resource {
        row("apps/v1", "ControllerRevision")
    }

    fn validate(&self, revision: &ControllerRevision) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if revision.data.is_none() {
            errors.push(FieldError::required(&Path::new("data"), "data is mandatory"));
        }
        not_negative(&mut errors, &Path::new("revision"), revision.revision);
        errors
    }

    fn validate_update(&self, _: Part, new: &ControllerRevision, old: &ControllerRevision) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        immutable(&mut errors, &Path::new("data"), &new.data, &old.data);
        errors
    }
}
