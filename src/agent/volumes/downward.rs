//! Decides: `downwardAPI` volumes: fields of the pod as files.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Pod};

use super::atomic::{File, Payload};
use super::{Failure, fields, mode};
use crate::agent::pod::container;

pub(super) fn payload(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    node: &fields::Allocatable,
) -> Result<Payload, Failure> {
    let mut payload = Payload::new();
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            fields::metadata(pod, &field.field_path)?
        } else if let Some(resource) = &item.resource_field_ref {
            let name = resource.container_name.as_deref().unwrap_or_default();
            let unknown = || fields::Error::Resource(format!("{name}.{}", resource.resource));
            let (_, container) = container(pod, name).ok_or_else(unknown)?;
            fields::resource(&container, resource, node)?
        } else {
            continue;
        };
        let file = File { bytes: text.into_bytes(), mode: mode(item.mode, default_mode) };
        payload.insert(item.path.clone(), file);
    }
    Ok(payload)
}
