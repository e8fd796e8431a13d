//! Loop: ends what a containerd that was killed in the middle of a start or an end has left behind: shims that nobody talks
//! to, containers of runc, bundles. containerd looks only after those that it has a record of; it writes the record before it makes
//! anything, and removes it last, so that what has none is nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::volumes::teardown;
use crate::cri::containerd::{Layout, find};
use crate::cri::records;

/// What the killed one had begun may come to an end after the next one is ready: it is looked for once more.
const LATE: Duration = Duration::from_secs(20);
/// Where shims have runc keep its state, for containers of CRI.
const RUNC_ROOT: &str = "/run/containerd/runc/k8s.io";

pub struct LeftOver {
    pub layout: Layout,
    /// To find runc.
    pub search_path: String,
    /// As [`crate::cri::containerd::Supervised::problem`].
    pub problem: watch::Receiver<Option<String>>,
}

impl LeftOver {
    /// Looks whenever containerd has become ready.
    pub async fn run(mut self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        loop {
            if self.problem.borrow_and_update().is_none() {
                self.sweep().await;
                match tokio::time::timeout(LATE, self.problem.changed()).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(_)) => return,
                    Err(_) => self.sweep().await,
                }
            }
            if self.problem.changed().await.is_err() {
                return;
            }
        }
    }

    async fn sweep(&self) {
        // Before the records are asked for: what is made meanwhile has one by then.
        let found = found(&self.layout, Path::new(RUNC_ROOT));
        if found.is_empty() {
            return;
        }
        let known = match records::containers(&self.layout.socket()).await {
            Ok(known) => known,
            Err(error) => return tracing::debug!(%error, "containerd not asked for its containers"),
        };
        for (id, shims) in found.into_iter().filter(|(id, _)| !known.contains(id)) {
            tracing::info!(id, shims = shims.len(), "removing what a containerd that was killed has left");
            self.remove(&id, &shims).await;
        }
    }

    async fn remove(&self, id: &str, shims: &[i32]) {
        // The number may have been given to another process since.
        for shim in shims.iter().filter(|pid| shim_of(**pid, &self.layout.socket()).as_deref() == Some(id)) {
            let _ = kill(Pid::from_raw(*shim), Signal::SIGKILL);
        }
        let state = Path::new(RUNC_ROOT).join(id);
        if state.exists()
            && let Some(runc) = find("runc", &self.search_path)
        {
            // With its processes and its control groups.
            let ran = Command::new(runc).args(["--root", RUNC_ROOT, "delete", "--force", id]).output().await;
            if let Ok(output) = ran.as_ref().map_err(|error| tracing::warn!(%error, id, "runc not started"))
                && !output.status.success()
            {
                tracing::warn!(id, said = %String::from_utf8_lossy(&output.stderr), "container of runc not removed");
            }
        }
        // What containerd is about to remove has a dot before its name.
        for bundle in [id.to_owned(), format!(".{id}")] {
            if let Err(error) = teardown::remove(&self.layout.tasks().join(bundle)) {
                tracing::warn!(%error, id, "bundle not removed");
            }
        }
    }
}

/// Ids of all that is there of containers, with the shims that name them.
fn found(layout: &Layout, runc_root: &Path) -> BTreeMap<String, Vec<i32>> {
    let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for pid in names("/proc".as_ref()).iter().filter_map(|name| name.parse().ok()) {
        if let Some(id) = shim_of(pid, &layout.socket()) {
            found.entry(id).or_default().push(pid);
        }
    }
    let tasks = layout.tasks();
    let bundles = names(&tasks);
    // Others on this machine may have theirs there.
    let is_ours = |id: &&String| {
        let state = fs::read_to_string(runc_root.join(id).join("state.json")).unwrap_or_default();
        state.contains(&format!("\"{}\"", tasks.join(id).join("rootfs").display()))
    };
    let states: Vec<String> = names(runc_root).iter().filter(is_ours).cloned().collect();
    for id in bundles.into_iter().chain(states) {
        found.entry(id.trim_start_matches('.').to_owned()).or_default();
    }
    found
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The container for which this process is a shim of the containerd behind the socket.
fn shim_of(pid: i32, socket: &Path) -> Option<String> {
    let command = fs::read(PathBuf::from(format!("/proc/{pid}/cmdline"))).ok()?;
    id_of(&command, socket)
}

fn id_of(command: &[u8], socket: &Path) -> Option<String> {
    let mut words = command.split(|byte| *byte == 0);
    let program = Path::new(std::str::from_utf8(words.next()?).ok()?).file_name()?.to_str()?.to_owned();
    let words: Vec<&[u8]> = words.collect();
    let after = |flag: &[u8]| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1).copied());
    // `start` and `delete` come and go; containerd waits for them.
    let stays = !words.contains(&&b"start"[..]) && !words.contains(&&b"delete"[..]);
    let is_ours = after(b"-address") == Some(socket.as_os_str().as_bytes());
    let id = std::str::from_utf8(after(b"-id")?).ok()?;
    (program.starts_with("containerd-shim") && stays && is_ours).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_names_its_container() {
        let check = |command: &str| id_of(command.replace(' ', "\0").as_bytes(), Path::new("/data/c.sock"));
        let shim = "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id abc -address /data/c.sock";
        assert_eq!(check(shim).as_deref(), Some("abc"));
        for other in [
            "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id abc -address /other.sock",
            "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id abc -address /data/c.sock start",
            "/usr/bin/containerd-shim-runc-v2 -address /data/c.sock -id",
            "/bin/sleep -id abc -address /data/c.sock",
            "",
        ] {
            assert_eq!(check(other), None, "{other}");
        }
    }

    #[test]
    fn bundles_and_states_of_ours_are_found() {
        let root = tempfile::tempdir().expect("temporary directory");
        let layout = Layout::new(&root.path().join("data"));
        let runc = root.path().join("runc");
        for bundle in ["one", ".two"] {
            fs::create_dir_all(layout.tasks().join(bundle)).expect("made");
        }
        let rootfs = layout.tasks().join("three/rootfs").display().to_string();
        for (id, rootfs) in [("three", rootfs.as_str()), ("four", "/elsewhere/four/rootfs")] {
            fs::create_dir_all(runc.join(id)).expect("made");
            fs::write(runc.join(id).join("state.json"), format!(r#"{{"config":{{"rootfs":"{rootfs}"}}}}"#))
                .expect("written");
        }
        let found: Vec<String> = found(&layout, &runc).into_keys().collect();
        assert_eq!(found, ["one", "three", "two"]);
    }
}
