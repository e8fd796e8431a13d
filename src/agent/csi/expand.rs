//! The node's part of growing a volume: the driver grows what is on it, and the claim's status says so
//! (`pkg/volume/util/operationexecutor/node_expander.go`).
//!
//! ```text
//! PV's capacity above that in the claim's status ─▶ NodeResizeInProgress ─▶ NodeExpandVolume
//!     ─▶ the claim's status has the capacity, its conditions about growing are gone
//!     └─ final error ─▶ condition NodeResizeError; NodeResizeInfeasible when asking again is of no use
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tonic::Code;

use super::driver::{Driver, Error};
use super::paths::{Places, Record, unique};
use super::source::{Claimed, Source};
use super::v1::{CapacityRange, NodeExpandVolumeRequest};
use super::{call, mount};
use crate::agent::context::NodeContext;
use crate::agent::events::Kind as EventKind;
use crate::agent::pod::uid;
use crate::client::request;
use crate::clock;

const STORAGE: &str = "storage";
/// Conditions about growing that end with it.
const PENDING: [&str; 4] = ["FileSystemResizePending", "Resizing", "ControllerResizeError", "NodeResizeError"];

fn bytes(
    capacity: Option<&std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> i64 {
    let text = capacity.and_then(|capacity| capacity.get(STORAGE));
    text.map_or(0, |text| crate::agent::cgroups::bytes(&text.0))
}

/// The size that the driver is to make of it, in bytes; `None` when there is nothing to do.
fn wanted(claimed: &Claimed) -> Option<i64> {
    let volume = bytes(claimed.volume.spec.as_ref()?.capacity.as_ref());
    let status = claimed.claim.status.as_ref()?;
    if volume <= bytes(status.capacity.as_ref()) {
        return None;
    }
    // A controller that knows of these states says when it is the node's turn; an older one does not.
    let state = status.allocated_resource_statuses.as_ref().and_then(|states| states.get(STORAGE));
    let turn = match state.map(String::as_str) {
        Some(state) => ["NodeResizePending", "NodeResizeInProgress"].contains(&state),
        None => status.allocated_resources.as_ref().is_none_or(|allocated| !allocated.contains_key(STORAGE)),
    };
    turn.then_some(volume)
}

/// Grows the volume if the claim does not know its size yet. What fails is told in events, and tried again later.
pub(super) async fn if_larger(cx: &Arc<NodeContext>, pod: &Pod, source: &Source, driver: &Arc<Driver>) {
    let Some(claimed) = source.claimed.as_deref() else { return };
    let Some(size) = wanted(claimed).filter(|_| driver.can.expand && !source.read_only) else { return };
    let state = |name: Value| json!({"allocatedResourceStatuses": {STORAGE: name}});
    let result = async {
        patch(cx, &claimed.claim, state("NodeResizeInProgress".into())).await?;
        let secrets = match &source.expand_secret {
            Some(secret) => mount::secrets(cx, secret, "NodeExpandSecretRef").await?,
            None => HashMap::new(),
        };
        match ask(cx, pod, source, driver, size, secrets).await {
            None => Ok(()),
            Some(Err(error)) => {
                if let Some(status) = failed(&claimed.claim, &error) {
                    patch(cx, &claimed.claim, status).await?;
                }
                Err(error.to_string())
            }
            Some(Ok(())) => {
                let message = format!(
                    "MountVolume.NodeExpandVolume succeeded for volume {:?} {}",
                    source.name, cx.config.node_name
                );
                cx.events.pod(pod, EventKind::Normal, "FileSystemResizeSuccessful", message.clone());
                cx.events.about(reference(&claimed.claim), EventKind::Normal, "FileSystemResizeSuccessful", message);
                patch(cx, &claimed.claim, finished(claimed)).await
            }
        }
    };
    if let Err(why) = result.await {
        let message = format!("NodeExpandVolume.NodeExpandVolume failed for volume {:?} : {why}", source.name);
        cx.events.pod(pod, EventKind::Warning, "VolumeResizeFailed", message);
    }
}

/// `None` when the agent stops.
async fn ask(
    cx: &Arc<NodeContext>,
    pod: &Pod,
    source: &Source,
    driver: &Arc<Driver>,
    size: i64,
    secrets: HashMap<String, String>,
) -> Option<Result<(), Error>> {
    let record =
        Record { driver_name: source.driver.clone(), volume_handle: source.handle.clone(), ..Record::default() };
    let places = Places::new(&cx.paths.kubelet, &record, &source.name, source.block);
    let request = NodeExpandVolumeRequest {
        volume_id: source.handle.clone(),
        volume_path: places.target(uid(pod)).display().to_string(),
        capacity_range: Some(CapacityRange { required_bytes: size, limit_bytes: 0 }),
        staging_target_path: if driver.can.stage { places.staging().display().to_string() } else { String::new() },
        volume_capability: Some(source.capability(driver.can, None)),
        secrets,
    };
    let lock = cx.csi.lock_of(&unique(&source.driver, &source.handle));
    let mut node = driver.node();
    cx.csi
        .finish(async move {
            let _held = lock.lock().await;
            call::within(node.node_expand_volume(request)).await.map(drop)
        })
        .await
}

fn finished(claimed: &Claimed) -> Value {
    let capacity = claimed.volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get(STORAGE));
    let status = claimed.claim.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    let left: Vec<_> = conditions.into_iter().filter(|c| !PENDING.contains(&c.type_.as_str())).collect();
    json!({"capacity": {STORAGE: capacity}, "allocatedResourceStatuses": {STORAGE: null}, "conditions": left})
}

/// What the claim's status says of a final error; nothing of one that may still be under way.
fn failed(claim: &PersistentVolumeClaim, error: &Error) -> Option<Value> {
    if !error.is_final() {
        return None;
    }
    let status = claim.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "NodeResizeError");
    let mut conditions = json!(conditions);
    let condition = json!({"type": "NodeResizeError", "status": "True", "lastTransitionTime": clock::time(),
        "message": format!("failed to expand pvc with {error}")});
    conditions.as_array_mut()?.push(condition);
    let mut told = json!({ "conditions": conditions });
    if matches!(error.code(), Some(Code::InvalidArgument | Code::OutOfRange | Code::NotFound)) {
        told["allocatedResourceStatuses"] = json!({STORAGE: "NodeResizeInfeasible"});
    }
    Some(told)
}

fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

async fn patch(cx: &NodeContext, claim: &PersistentVolumeClaim, status: Value) -> Result<(), String> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(cx.client.clone(), namespace);
    let patch = Patch::Merge(json!({ "status": status }));
    let result = api.patch_status(name, &PatchParams::default(), &patch).await;
    result.map(drop).map_err(|error| format!("update pvc status failed: {}", request::Error::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(volume: &str, status: Value) -> Claimed {
        Claimed {
            claim: serde_json::from_value(json!({"metadata": {"name": "c"}, "status": status})).unwrap(),
            volume: serde_json::from_value(json!({"spec": {"capacity": {"storage": volume}}})).unwrap(),
            read_only: false,
        }
    }

    #[test]
    fn it_is_the_nodes_turn_when_the_controller_says_so() {
        let gi = 1 << 30;
        let state = |name: &str| {
            json!({"capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "2Gi"},
                "allocatedResourceStatuses": {"storage": name}})
        };
        for (volume, status, expect) in [
            ("1Gi", json!({"capacity": {"storage": "1Gi"}}), None),
            ("2Gi", json!({"capacity": {"storage": "1Gi"}}), Some(2 * gi)),
            ("2Gi", state("NodeResizePending"), Some(2 * gi)),
            ("2Gi", state("NodeResizeInProgress"), Some(2 * gi)),
            ("2Gi", state("ControllerResizeInProgress"), None),
            ("2Gi", state("NodeResizeInfeasible"), None),
            ("2Gi", json!({"capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "2Gi"}}), None),
        ] {
            assert_eq!(wanted(&claimed(volume, status.clone())), expect, "{volume} {status}");
        }
    }

    #[test]
    fn conditions_about_growing_end_and_others_stay() {
        let condition = |name: &str| json!({"type": name, "status": "True"});
        let status = json!({"conditions": [condition("FileSystemResizePending"), condition("Other")]});
        let told = finished(&claimed("2Gi", status.clone()));
        assert_eq!(told["conditions"], json!([condition("Other")]));
        assert_eq!(told["capacity"]["storage"], "2Gi");
        let error = |code| Error::Call { code, message: "no".into() };
        let claim = claimed("2Gi", status).claim;
        assert_eq!(failed(&claim, &error(Code::Unavailable)), None);
        let told = failed(&claim, &error(Code::Internal)).unwrap();
        assert_eq!(
            (told["conditions"].as_array().unwrap().len(), &told["allocatedResourceStatuses"]),
            (3, &Value::Null)
        );
        let told = failed(&claim, &error(Code::OutOfRange)).unwrap();
        assert_eq!(told["allocatedResourceStatuses"]["storage"], "NodeResizeInfeasible");
    }
}
