//! Volumes of CSI drivers on this node (`pkg/volume/csi`).
//!
//! ```text
//! a driver's socket in plugins_registry ─▶ NodeGetInfo ─▶ CSINode, topology labels of the Node         [`register`], [`node`]
//! a pod with a volume ─▶ Node.status.volumesInUse ─▶ wait for Node.status.volumesAttached              [`in_use`], [`attach`]
//!     ─▶ vol_data.json ─▶ NodeStageVolume (once for each volume) ─▶ NodePublishVolume (for each pod)    [`mount`]
//!     ─▶ NodeExpandVolume when the volume is larger than the claim says                                 [`expand`]
//!     ─▶ NodeGetVolumeStats when somebody asks how full it is                                           [`stats`]
//! the pod goes ─▶ NodeUnpublishVolume ─▶ the last one: NodeUnstageVolume ─▶ out of volumesInUse          [`unmount`]
//! ```
//! What was done is found on disk: a record is written before each call, and removed after the one that undoes it. So an
//! agent that was killed at any point undoes what its pods no longer want, by calls that may find nothing to undo.
//!
//! One volume is worked on by one call at a time, and a call that has begun goes on when the pod is deleted meanwhile.
//! Below one folder (`/var/lib/kubelet`, or `agent` in a data directory of another name) everything is where upstream's
//! kubelet has it, as drivers mount it into their containers by that name.

mod attach;
mod call;
mod driver;
mod expand;
mod in_use;
mod mount;
mod node;
mod paths;
mod register;
mod source;
mod stats;
mod unmount;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::agent::volumes::work::Work;

pub use driver::Driver;
pub use mount::{Published, publish};
pub use node::ensure_csi_node;
pub use paths::hex;
pub use register::Register;
pub use source::{Claimed, Source, inline, persistent};
pub use unmount::{begin, has_volumes, release, remove_unused};

/// Messages, clients and servers of `csi.v1`.
#[allow(clippy::all, missing_docs, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("csi.v1");
}

/// How long a pod waits for a driver that is about to register: that of a node that has just started.
const DRIVER_WAIT: Duration = Duration::from_secs(5);

/// Drivers and volumes of this node.
#[derive(Default)]
pub struct Csi {
    drivers: watch::Sender<BTreeMap<String, Arc<Driver>>>,
    done: Mutex<Done>,
    in_use: in_use::InUse,
    /// Volumes go by their unique names.
    work: Work,
}

/// What this process did, or saw done: for the rest, the calls are made again.
#[derive(Default)]
struct Done {
    /// Unique names.
    staged: HashSet<String>,
    /// When to look at a volume again, by the path that it is published at.
    published: HashMap<std::path::PathBuf, Option<Duration>>,
}

impl Csi {
    /// The driver, once it has registered.
    async fn driver(&self, name: &str) -> Result<Arc<Driver>, driver::Error> {
        let mut drivers = self.drivers.subscribe();
        let there = tokio::time::timeout(DRIVER_WAIT, drivers.wait_for(|known| known.contains_key(name))).await;
        let found = there.ok().and_then(Result::ok).and_then(|known| known.get(name).cloned());
        found.ok_or_else(|| driver::Error::NotRegistered(name.to_owned()))
    }

    fn lock_of(&self, unique: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.work.lock_of(unique)
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        lock(&self.done)
    }

    /// Runs what must not stop half-way when whoever asked for it goes. `None` when the agent stops.
    async fn finish<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.work.finish(work).await
    }

    /// The same, when nobody waits for it.
    pub fn begin(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.work.begin(work);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
