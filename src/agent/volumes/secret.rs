//! Effects: `secret` volumes.

use k8s_openapi::api::core::v1::{Pod, SecretVolumeSource};

use super::atomic::Payload;
use super::{Failure, config_map};
use crate::agent::context::NodeContext;
use crate::agent::objects::Kind;

pub(super) async fn fetch(cx: &NodeContext, pod: &Pod, source: &SecretVolumeSource) -> Result<Payload, Failure> {
    let name = source.secret_name.as_deref().unwrap_or_default();
    let items = source.items.as_deref().unwrap_or_default();
    config_map::object(cx, pod, Kind::Secret, name, items, source.default_mode, source.optional).await
}
