//! Effects: a volume on its way to a pod: staged for the node, published for the pod (`csi_attacher.go`, `csi_mounter.go`,
//! `csi_block.go`).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret as SecretObject};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec};
use kube::Api;

use super::driver::{Driver, Error};
use super::paths::{self, Places, Record};
use super::source::{Secret, Source, pod_information};
use super::v1::{NodePublishVolumeRequest, NodeStageVolumeRequest};
use super::{attach, call, expand, in_use};
use crate::agent::context::NodeContext;
use crate::agent::events::Kind as EventKind;
use crate::agent::pod::{pod_spec, uid};
use crate::agent::volumes::steps::{self, Failure, Steps, at};
use crate::agent::volumes::{self, ownership, teardown};
use crate::client::request;

/// How often a driver that asks for it publishes again (`requiresRepublish`): upstream does so when it looks at a pod.
const REPUBLISH: Duration = Duration::from_secs(60);
/// How often a claim is looked at for a larger size. Nodes may only get claims, not watch them.
const LOOK_AT_SIZE: Duration = Duration::from_secs(30);
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// A volume that a pod can use.
#[derive(Clone, Debug)]
pub struct Published {
    pub path: PathBuf,
    pub read_only: bool,
    /// A device, not a folder.
    pub block: bool,
    pub driver: String,
    pub handle: String,
    /// Look again then.
    pub again_after: Option<Duration>,
}

/// All that was asked of the API before the driver is called.
struct Prepared {
    cx: Arc<NodeContext>,
    pod: Pod,
    source: Source,
    driver: Arc<Driver>,
    spec: CSIDriverSpec,
    places: Places,
    record: Record,
    publish_context: HashMap<String, String>,
    stage_secrets: HashMap<String, String>,
    publish_secrets: HashMap<String, String>,
    volume_context: HashMap<String, String>,
}

/// Makes the volume ready for the pod, unless it is, and expands it when it has grown.
///
/// # Errors
/// The step that failed.
pub async fn publish(cx: &Arc<NodeContext>, pod: &Pod, source: Source) -> Result<Published, Failure> {
    let steps = steps::of(source.block);
    let record = Record {
        driver_name: source.driver.clone(),
        volume_handle: source.handle.clone(),
        name: source.name.clone(),
        node_name: cx.config.node_name.clone(),
        volume_lifecycle_mode: source.lifecycle().into(),
        ..Record::default()
    };
    let places = Places::new(&cx.paths.kubelet, &record, &source.name, source.block);
    let target = places.target(uid(pod));
    let known = cx.csi.done().published.get(&target).copied();
    let published = |again_after| Published {
        path: target.clone(),
        read_only: source.read_only,
        block: source.block,
        driver: source.driver.clone(),
        handle: source.handle.clone(),
        again_after,
    };
    let driver = match (cx.csi.driver(&source.driver).await, known) {
        (Ok(driver), _) => driver,
        // It has the volume; the driver may come back.
        (Err(_), Some(again)) => return Ok(published(again)),
        (Err(error), None) => return Err(no_driver(&source, steps, &error)),
    };
    let again_after = match known {
        Some(again) if again != Some(REPUBLISH) => again,
        _ => {
            let prepared = prepare(cx, pod, &source, &driver, places, record, steps).await?;
            let done = cx.csi.finish(carry_out(prepared, steps)).await;
            done.ok_or_else(|| at(steps.set_up)("the agent stops".into()))??
        }
    };
    expand::if_larger(cx, pod, &source, &driver).await;
    Ok(published(again_after))
}

fn no_driver(source: &Source, steps: &Steps, error: &Error) -> Failure {
    let (step, what) = match source.ephemeral {
        true => (steps.set_up, "mounter.SetUpAt failed to get CSI client"),
        false => (steps.device, "attacher.MountDevice failed to create newCsiDriverClient"),
    };
    at(step)(format!("kubernetes.io/csi: {what}: {error}"))
}

async fn prepare(
    cx: &Arc<NodeContext>,
    pod: &Pod,
    source: &Source,
    driver: &Arc<Driver>,
    places: Places,
    mut record: Record,
    steps: &Steps,
) -> Result<Prepared, Failure> {
    let object = csi_driver(cx, &source.driver).await.map_err(at(steps.set_up))?;
    source.check_lifecycle(object.as_ref()).map_err(at(steps.set_up))?;
    let spec = object.map(|object| object.spec).unwrap_or_default();
    let unique = record.unique();
    let mut publish_context = BTreeMap::new();
    cx.csi.use_by(&unique, uid(pod));
    if !source.ephemeral && spec.attach_required != Some(false) {
        record.attachment = attach::name(&source.handle, &source.driver, &cx.config.node_name);
        record.in_use = true;
        cx.csi.use_attached(&unique);
        in_use::tell(cx).await.map_err(at(steps.attach))?;
        attach::wait(cx, &unique, &source.name).await.map_err(at(steps.attach))?;
        let context = attach::context(cx, &source.handle, &record.attachment).await;
        publish_context = context.map_err(at(steps.attach))?;
    }
    let stage_secrets = match &source.stage_secret {
        Some(secret) if driver.can.stage => {
            secrets(cx, secret, "NodeStageSecretRef").await.map_err(at(steps.device))?
        }
        _ => HashMap::new(),
    };
    let mut publish_secrets = match &source.publish_secret {
        Some(secret) => secrets(cx, secret, "NodePublishSecretRef").await.map_err(at(steps.set_up))?,
        None => HashMap::new(),
    };
    let mut volume_context: HashMap<String, String> = source.attributes.clone().into_iter().collect();
    if spec.pod_info_on_mount == Some(true) {
        let account = volumes::account(pod_spec(pod));
        volume_context.extend(pod_information(pod, account, source.ephemeral));
    }
    if let Some(wanted) = spec.token_requests.as_deref().filter(|wanted| !wanted.is_empty()) {
        let tokens = tokens(cx, pod, &source.name, wanted).await.map_err(at(steps.set_up))?;
        let place = if spec.service_account_token_in_secrets == Some(true) {
            &mut publish_secrets
        } else {
            &mut volume_context
        };
        place.insert(TOKENS.into(), tokens);
    }
    Ok(Prepared {
        cx: Arc::clone(cx),
        pod: pod.clone(),
        source: source.clone(),
        driver: Arc::clone(driver),
        spec,
        places,
        record,
        publish_context: publish_context.into_iter().collect(),
        stage_secrets,
        publish_secrets,
        volume_context,
    })
}

/// `None` when there is no such object: then the defaults hold.
async fn csi_driver(cx: &NodeContext, name: &str) -> Result<Option<CSIDriver>, String> {
    let api: Api<CSIDriver> = Api::all(cx.client.clone());
    let found = api.get_opt(name).await.map_err(request::Error::from);
    found.map_err(|error| format!("CSIDriver {name} not fetched: {error}"))
}

pub(super) async fn secrets(cx: &NodeContext, secret: &Secret, field: &str) -> Result<HashMap<String, String>, String> {
    let Secret { namespace, name } = secret;
    let api: Api<SecretObject> = Api::namespaced(cx.client.clone(), namespace);
    let found = api.get(name).await.map_err(request::Error::from);
    let found = found.map_err(|error| format!("fetching {field} {namespace}/{name} failed: {error}"))?;
    let text = |ByteString(bytes): ByteString| String::from_utf8_lossy(&bytes).into_owned();
    Ok(found.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, text(bytes))).collect())
}

/// Tokens of the pod's account by audience, as JSON.
async fn tokens(
    cx: &NodeContext,
    pod: &Pod,
    volume: &str,
    wanted: &[k8s_openapi::api::storage::v1::TokenRequest],
) -> Result<String, String> {
    let mut tokens = serde_json::Map::new();
    for request in wanted {
        let token = volumes::account_token(cx, pod, volume, &request.audience, request.expiration_seconds).await;
        tokens.insert(request.audience.clone(), token.map_err(|error| error.to_string())?);
    }
    Ok(serde_json::Value::from(tokens).to_string())
}

/// The driver's part; returns when to look again.
async fn carry_out(prepared: Prepared, steps: &'static Steps) -> Result<Option<Duration>, Failure> {
    let Prepared { cx, source, .. } = &prepared;
    let unique = prepared.record.unique();
    let lock = cx.csi.lock_of(&unique);
    let _held = lock.lock().await;
    // Nobody would undo what is done for a pod that was cleaned up meanwhile.
    if !cx.csi.used_by(uid(&prepared.pod)).contains(&unique) {
        return Err(at(steps.set_up)("the pod is gone".into()));
    }
    if !source.ephemeral {
        stage(&prepared).await.map_err(at(steps.device))?;
    }
    publish_for(&prepared).await.map_err(at(steps.set_up))?;
    let grows = !source.ephemeral && !source.read_only && prepared.driver.can.expand;
    let again = match prepared.spec.requires_republish {
        Some(true) => Some(REPUBLISH),
        _ => grows.then_some(LOOK_AT_SIZE),
    };
    let target = prepared.places.target(uid(&prepared.pod));
    if cx.csi.done().published.insert(target, again).is_none() && source.block {
        tell_mapped(&prepared);
    }
    Ok(again)
}

fn tell_mapped(prepared: &Prepared) {
    let Prepared { cx, pod, source, places, .. } = prepared;
    let target = places.target(uid(pod));
    let around = |path: &std::path::Path| path.parent().unwrap_or(path).display().to_string();
    for (what, path) in [("globalMapPath", around(&target)), ("volumeMapPath", around(&places.record(uid(pod))))] {
        let message = format!("MapVolume.MapPodDevice succeeded for volume {:?} {what} {path:?}", source.name);
        cx.events.pod(pod, EventKind::Normal, "SuccessfulMountVolume", message);
    }
}

impl Prepared {
    /// The group that the driver itself gives the volume to.
    fn mount_group(&self) -> Option<i64> {
        let group = pod_spec(&self.pod).security_context.as_ref().and_then(|context| context.fs_group);
        group.filter(|_| self.driver.can.mount_group && !self.source.block)
    }

    fn staging(&self) -> String {
        match self.driver.can.stage && !self.source.ephemeral {
            true => self.places.staging().display().to_string(),
            false => String::new(),
        }
    }
}

async fn stage(prepared: &Prepared) -> Result<(), String> {
    let Prepared { cx, source, driver, places, record, .. } = prepared;
    let unique = record.unique();
    if cx.csi.done().staged.contains(&unique) {
        return Ok(());
    }
    let staged = Record { node_name: String::new(), volume_lifecycle_mode: String::new(), ..record.clone() };
    let path = places.staged_record();
    paths::write(&path, &staged).map_err(|error| format!("{}: {error}", path.display()))?;
    if driver.can.stage {
        let staging = places.staging();
        paths::make(&staging).map_err(|error| format!("{}: {error}", staging.display()))?;
        let request = NodeStageVolumeRequest {
            volume_id: source.handle.clone(),
            publish_context: prepared.publish_context.clone(),
            staging_target_path: prepared.staging(),
            volume_capability: Some(source.capability(driver.can, prepared.mount_group())),
            secrets: prepared.stage_secrets.clone(),
            volume_context: source.attributes.clone().into_iter().collect(),
        };
        if let Err(error) = call::within(driver.node().node_stage_volume(request)).await {
            if error.is_final() && paths::users(&cx.paths.kubelet, &unique).is_empty() {
                drop_empty(|| places.forget_staged(), &places.staging());
            }
            return Err(error.to_string());
        }
    }
    cx.csi.done().staged.insert(unique);
    Ok(())
}

async fn publish_for(prepared: &Prepared) -> Result<(), String> {
    let Prepared { pod, source, driver, places, record, .. } = prepared;
    let target = places.target(uid(pod));
    let record = Record { in_use: false, ..record.clone() };
    places.write(uid(pod), &record).map_err(|error| format!("{}: {error}", target.display()))?;
    let request = NodePublishVolumeRequest {
        volume_id: source.handle.clone(),
        publish_context: prepared.publish_context.clone(),
        staging_target_path: prepared.staging(),
        target_path: target.display().to_string(),
        volume_capability: Some(source.capability(driver.can, prepared.mount_group())),
        readonly: source.read_only,
        secrets: prepared.publish_secrets.clone(),
        volume_context: prepared.volume_context.clone(),
    };
    if let Err(error) = call::within(driver.node().node_publish_volume(request)).await {
        undo_publish(prepared, &error);
        return Err(error.to_string());
    }
    let context = pod_spec(pod).security_context.as_ref();
    let group = context.and_then(|context| context.fs_group);
    if prepared.mount_group().is_none()
        && group.is_some()
        && source.takes_group(prepared.spec.fs_group_policy.as_deref())
    {
        let always = context.and_then(|c| c.fs_group_change_policy.as_deref()) != Some("OnRootMismatch");
        let given = tokio::task::spawn_blocking(move || ownership::give(&target, group, always)).await;
        let given = given.map_err(|error| error.to_string())?;
        given.map_err(|error| format!("applyFSGroup failed for vol {}: {error}", source.handle))?;
    }
    Ok(())
}

fn undo_publish(prepared: &Prepared, error: &Error) {
    let target = prepared.places.target(uid(&prepared.pod));
    if error.is_final() && !prepared.cx.csi.done().published.contains_key(&target) {
        let uid = uid(&prepared.pod).to_owned();
        let forget = || {
            let _ = std::fs::remove_dir(&target);
            prepared.places.forget(&uid)
        };
        drop_empty(forget, &target);
    }
}

/// Removes the record of a call that came to nothing; what is mounted is left for the call that undoes it.
fn drop_empty(forget: impl FnOnce() -> std::io::Result<()>, path: &std::path::Path) {
    if teardown::is_mount_point(path) {
        return;
    }
    if let Err(error) = forget() {
        tracing::debug!(%error, path = %path.display(), "left for the clean-up of the pod");
    }
}
