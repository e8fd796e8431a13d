//! Loop: tells when the kernel lets nobody write any more where this node keeps its pods, and when it does again. Pods that
//! run go on; what is told of new ones names the symptom, this names the cause, with the words that
//! `node-problem-detector` has for it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::context::NodeContext;
use super::events::Kind;
use crate::disk;

/// Nobody is told by the kernel: the table of mounts is read.
const PERIOD: Duration = Duration::from_secs(30);

/// Runs until `stop`.
pub async fn run(cx: Arc<NodeContext>, stop: CancellationToken) {
    let folders = [cx.config.data_dir.join("agent"), cx.paths.kubelet.clone()];
    let mut was = false;
    loop {
        let found = folders.iter().find(|folder| disk::is_read_only(folder));
        match found {
            Some(folder) if !was => {
                let (folder, remedy) = (folder.display(), disk::REMEDY);
                tracing::error!(%folder, remedy, "nothing can be written");
                let message = format!("{folder} is on a file system that nobody can write: {remedy}");
                cx.events.node(&cx.config.node_name, Kind::Warning, "FilesystemIsReadOnly", message);
            }
            None if was => {
                tracing::info!("the disk can be written again");
                let message = "The disk of the node can be written again".to_owned();
                cx.events.node(&cx.config.node_name, Kind::Normal, "FilesystemIsNotReadOnly", message);
            }
            _ => {}
        }
        was = found.is_some();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}
