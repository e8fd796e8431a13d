//! Decides: VolumeAttachment: that a volume is to be attached to a node. Its driver answers in the status.

use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentStatus, VolumeError};

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::core::persistent_volume::{defaults, drivers, same, spec};
use crate::server::registry::format::{self, between};
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, IMMUTABLE, invalid, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

/// Keys and values together, in bytes.
const MAX_METADATA: usize = 256 * 1024;
/// In bytes.
const MAX_ERROR: usize = 1024;
const ONE_SOURCE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";

pub struct VolumeAttachmentKind;

impl Kind for VolumeAttachmentKind {
    type Object = VolumeAttachment;

    fn resource(&self) -> &'static Resource {
        row("storage.k8s.io/v1", "VolumeAttachment")
    }

    fn defaults(&self, attachment: &mut VolumeAttachment) {
        attachment.spec.source.inline_volume_spec.iter_mut().for_each(defaults::spec);
        attachment.status.get_or_insert_default();
    }

    fn prepare_create(&self, _: &Context, attachment: &mut VolumeAttachment) {
        attachment.status = Some(VolumeAttachmentStatus::default());
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut VolumeAttachment, old: &VolumeAttachment) {
        if part != Part::Status {
            return;
        }
        let (meta, before) = (&mut new.metadata, &old.metadata);
        meta.labels.clone_from(&before.labels);
        meta.annotations.clone_from(&before.annotations);
        meta.finalizers.clone_from(&before.finalizers);
        meta.owner_references.clone_from(&before.owner_references);
        meta.deletion_timestamp.clone_from(&before.deletion_timestamp);
    }

    fn validate(&self, attachment: &VolumeAttachment) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        let spec = &attachment.spec;
        if spec.attacher.is_empty() {
            errors.push(FieldError::required(&path.child("attacher"), ""));
        }
        source(&mut errors, &path.child("source"), &spec.source);
        invalid(&mut errors, &path.child("nodeName"), &spec.node_name, format::dns_subdomain(&spec.node_name));
        status(&mut errors, &Path::new("status"), &attachment.status.clone().unwrap_or_default());
        errors
    }

    fn validate_create(&self, attachment: &VolumeAttachment) -> Vec<FieldError> {
        let mut errors = self.validate(attachment);
        let path = Path::new("spec");
        // Older objects may have names that new ones may not.
        drivers::driver_name(&mut errors, &path.child("attacher"), &attachment.spec.attacher);
        if let Some(name) = &attachment.spec.source.persistent_volume_name {
            let at = path.child("source").child("persistentVolumeName");
            invalid(&mut errors, &at, name, format::dns_subdomain(name));
        }
        errors
    }

    fn validate_update(&self, _: Part, new: &VolumeAttachment, old: &VolumeAttachment) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        let (after, before) = (shown(&new.spec), shown(&old.spec));
        if !same::alike(&after, &before, same::is_zero) {
            errors.push(FieldError::invalid(&Path::new("spec"), &after, IMMUTABLE));
        }
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn status_resets(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata"]]
    }
}

fn source(errors: &mut Errors, path: &Path, source: &VolumeAttachmentSource) {
    match (&source.inline_volume_spec, &source.persistent_volume_name) {
        (None, None) => errors.push(FieldError::required(path, ONE_SOURCE)),
        (Some(_), Some(_)) => errors.push(FieldError::forbidden(path, ONE_SOURCE)),
        (None, Some(name)) if name.is_empty() => {
            let message = "must specify non empty persistentVolumeName";
            errors.push(FieldError::required(&path.child("persistentVolumeName"), message));
        }
        (None, Some(_)) => {}
        (Some(inline), None) => spec::validate(errors, &path.child("inlineVolumeSpec"), inline, spec::Place::Inline),
    }
}

fn status(errors: &mut Errors, path: &Path, status: &VolumeAttachmentStatus) {
    let size: usize = status.attachment_metadata.iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_METADATA {
        errors.push(FieldError::too_long(&path.child("attachmentMetadata"), MAX_METADATA));
    }
    for (field, error) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
        if let Some(error) = error {
            volume_error(errors, &path.child(field), error);
        }
    }
}

fn volume_error(errors: &mut Errors, path: &Path, error: &VolumeError) {
    if error.message.as_ref().is_some_and(|m| m.len() > MAX_ERROR) {
        // Upstream names the limit of the metadata.
        errors.push(FieldError::too_long(&path.child("message"), MAX_METADATA));
    }
    if let Some(code) = error.error_code.filter(|c| *c < 0) {
        errors.push(FieldError::invalid(&path.child("errorCode"), &code, &between(0, i64::from(i32::MAX))));
    }
}
