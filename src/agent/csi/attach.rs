//! Effects: waits until a volume is attached to this node, as the Node's status says, and asks its VolumeAttachment what
//! the driver's attacher has for the node.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::Api;

use super::paths::hex;
use crate::agent::context::NodeContext;
use crate::client::reflector::{self, Event, Source};
use crate::client::request;

/// As long as upstream's kubelet waits for the volumes of a pod.
const LIMIT: Duration = Duration::from_secs(123);

/// The name under which the control plane made the attachment.
pub(super) fn name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", hex(&format!("{handle}{driver}{node}")))
}

fn is_attached(node: &Node, unique: &str) -> bool {
    let attached = node.status.iter().flat_map(|status| status.volumes_attached.iter().flatten());
    attached.into_iter().any(|volume| volume.name == unique)
}

/// Waits for the Node's status to name the volume.
pub(super) async fn wait(cx: &NodeContext, unique: &str, volume: &str) -> Result<(), String> {
    let node = &cx.config.node_name;
    let own = Source::of("nodes").fields(format!("metadata.name={node}"));
    let seen = async {
        let mut changes = pin!(reflector::typed::<Node>(cx.client.clone(), own));
        while let Some(event) = changes.next().await {
            let node = match event {
                Event::Replace(mut listed, _) => listed.pop(),
                Event::Set(node) => Some(node),
                Event::Gone(_) | Event::Bookmark(_) => None,
            };
            if node.is_some_and(|node| is_attached(&node, unique)) {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, seen).await.map_err(|_| {
        format!("volume not attached according to node status for volume {volume:?}: timed out waiting for it")
    })
}

/// What the attacher has for the node (`publish_context`).
pub(super) async fn context(
    cx: &NodeContext,
    handle: &str,
    attachment: &str,
) -> Result<BTreeMap<String, String>, String> {
    let api: Api<VolumeAttachment> = Api::all(cx.client.clone());
    let found = api.get(attachment).await.map_err(request::Error::from);
    let found =
        found.map_err(|error| format!("volume {handle} has GET error for volume attachment {attachment}: {error}"))?;
    if found.metadata.deletion_timestamp.is_some() {
        return Err("volume attachment is being deleted".into());
    }
    let status = found.status.unwrap_or_default();
    if !status.attached {
        let why = status.attach_error.and_then(|error| error.message);
        return Err(why.unwrap_or_else(|| format!("volume attachment {attachment} is not attached")));
    }
    Ok(status.attachment_metadata.unwrap_or_default())
}
