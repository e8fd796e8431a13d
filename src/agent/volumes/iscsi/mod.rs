//! Effects: iSCSI volumes, by open-iscsi of the host (`pkg/volume/iscsi`).
//!
//! ```text
//! a pod with a volume ─▶ its record ─▶ discovery, login, scan: the disk                    [`session`], [`device`]
//!     ─▶ checked, or made when it is empty; mounted once for the node, bound for each pod  [`filesystem`]
//! the pod goes ─▶ its mount ─▶ the last one: the global mount, the disk, the session       [`release`]
//! ```
//! What was done is found on disk ([`records`]), in the kernel's tables of mounts and in sysfs; nothing is remembered.
//!
//! One volume is worked on by one task at a time, and what has begun goes on when the pod is deleted meanwhile. Logins to
//! a target, and logouts from it, are one at a time, too.

mod command;
mod device;
mod disk;
mod filesystem;
mod records;
mod release;
mod session;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;

use super::ownership;
use super::steps::{self, Failure, at};
use super::tools::{Host, Runner};
use super::work::Work;
use crate::agent::context::NodeContext;
use crate::agent::pod::{pod_spec, uid};
use crate::client::request;
use command::Secrets;
use device::Kernel;
pub(super) use disk::{Wanted, inline, persistent};
use filesystem::{Mount, Mounter};
use records::{Place, Records, User};

/// The iSCSI volumes of this node.
pub struct Iscsi {
    records: Records,
    kernel: Kernel,
    runner: Box<dyn Runner>,
    work: Work,
}

/// Who gets what is in the volume.
#[derive(Clone, Copy, Default)]
struct Group {
    id: Option<i64>,
    always: bool,
}

impl Iscsi {
    /// `kubelet`: the folder for pods and plug-ins.
    #[must_use]
    pub fn new(kubelet: &Path, search_path: &str) -> Iscsi {
        Iscsi {
            records: Records { kubelet: kubelet.to_owned() },
            kernel: Kernel("/".into()),
            runner: Box::new(Host { search_path: search_path.to_owned() }),
            work: Work::default(),
        }
    }

    fn mounter(&self) -> Mounter<'_> {
        Mounter { kernel: &self.kernel, runner: &*self.runner }
    }

    /// Makes the volume ready for a pod, unless it is; returns its folder, or the device.
    async fn set_up(
        self: &Arc<Iscsi>,
        user: User,
        wanted: Wanted,
        secrets: Secrets,
        group: Group,
    ) -> Result<PathBuf, Failure> {
        let place = self.records.of(&wanted.disk);
        let set_up = steps::of(wanted.block()).set_up;
        // Before the task: whoever takes the pod's volumes away finds it.
        place.add(&user).map_err(|error| at(set_up)(format!("iscsi: {error}")))?;
        let iscsi = Arc::clone(self);
        let done =
            self.work.finish(async move { iscsi.carry_out(&place, &user, &wanted, &secrets, group).await }).await;
        done.ok_or_else(|| at(set_up)("the agent stops".into()))?
    }

    async fn carry_out(
        &self,
        place: &Place,
        user: &User,
        wanted: &Wanted,
        secrets: &Secrets,
        group: Group,
    ) -> Result<PathBuf, Failure> {
        let steps = steps::of(wanted.block());
        let lock = self.work.lock_of(&place.key());
        let _held = lock.lock().await;
        // Nobody would undo what is done for a pod that was cleaned up meanwhile.
        if !place.has(user) {
            return Err(at(steps.set_up)("the pod is gone".into()));
        }
        let target = self.records.target(user, wanted.block());
        let mounter = self.mounter();
        if !wanted.block() && mounter.is_mounted(&target) {
            return Ok(target);
        }
        let device = session::attach(self, place, wanted, secrets).await.map_err(at(steps.attach))?;
        if wanted.block() {
            link(&device, &target).map_err(|error| at(steps.set_up)(format!("{}: {error}", target.display())))?;
            return Ok(device);
        }
        let global = place.global();
        records::make(&global).map_err(|error| at(steps.device)(format!("{}: {error}", global.display())))?;
        let mount = Mount {
            device: &device,
            fs_type: &wanted.fs_type,
            options: &wanted.mount_options,
            read_only: wanted.read_only,
        };
        mounter.mount_device(mount, &global).await.map_err(at(steps.device))?;
        records::make(&target).map_err(|error| at(steps.set_up)(format!("{}: {error}", target.display())))?;
        mounter.bind(&global, &target, wanted.read_only).await.map_err(at(steps.set_up))?;
        if !wanted.read_only {
            self.give(&target, group).await.map_err(at(steps.set_up))?;
        }
        Ok(target)
    }

    async fn give(&self, target: &Path, group: Group) -> Result<(), String> {
        let path = target.to_owned();
        let given = tokio::task::spawn_blocking(move || ownership::give(&path, group.id, group.always)).await;
        let given = given.map_err(|error| error.to_string())?;
        let Err(error) = given else { return Ok(()) };
        // So that it is tried again: what is mounted is taken to be given.
        self.mounter().unmount(target).await?;
        Err(format!("applyFSGroup failed for vol {}: {error}", target.display()))
    }
}

/// So that a pod's folder says which devices it has.
fn link(device: &Path, target: &Path) -> std::io::Result<()> {
    records::make(target.parent().unwrap_or(target))?;
    records::gone(std::fs::remove_file(target))?;
    std::os::unix::fs::symlink(device, target)
}

/// Makes the volume ready for the pod, unless it is; returns its folder, or the device.
///
/// # Errors
/// The step that failed.
pub(super) async fn publish(cx: &NodeContext, pod: &Pod, wanted: Wanted) -> Result<PathBuf, Failure> {
    let steps = steps::of(wanted.block());
    let secrets = secrets(cx, &wanted).await.map_err(at(steps.attach))?;
    let context = pod_spec(pod).security_context.as_ref();
    let group = Group {
        id: context.and_then(|context| context.fs_group),
        always: context.and_then(|context| context.fs_group_change_policy.as_deref()) != Some("OnRootMismatch"),
    };
    let user = User { uid: uid(pod).to_owned(), volume: wanted.volume().to_owned() };
    cx.iscsi.set_up(user, wanted, secrets, group).await
}

/// What the target wants to know.
async fn secrets(cx: &NodeContext, wanted: &Wanted) -> Result<Secrets, String> {
    if !wanted.chap_discovery && !wanted.chap_session {
        return Ok(Secrets::new());
    }
    let Some((namespace, name)) = &wanted.secret else {
        return Err("CHAP enabled but secret name or namespace is empty".into());
    };
    let api: Api<Secret> = Api::namespaced(cx.client.clone(), namespace);
    let found = api.get(name).await.map_err(request::Error::from);
    let found = found.map_err(|error| format!("couldn't get secret {namespace}/{name} error: {error}"))?;
    let text = |ByteString(bytes): ByteString| String::from_utf8_lossy(&bytes).into_owned();
    Ok(found.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, text(bytes))).collect())
}
