//! Effects: `nfs` volumes, mounted by mount(8) and the host's mount.nfs (`pkg/volume/nfs`).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{Failure, teardown};

/// A server that does not answer is given up after this; the mount is tried again.
const LIMIT: Duration = Duration::from_secs(120);

/// A share, as a pod or a PersistentVolume names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub server: String,
    pub path: String,
    pub read_only: bool,
    pub options: Vec<String>,
}

impl Share {
    fn arguments(&self, target: &Path) -> Vec<String> {
        // An IPv6 address has colons of its own.
        let server = match self.server.contains(':') && !self.server.starts_with('[') {
            true => format!("[{}]", self.server),
            false => self.server.clone(),
        };
        let mut options = self.options.clone();
        if self.read_only {
            options.push("ro".into());
        }
        let mut arguments = vec!["-t".to_owned(), "nfs".to_owned()];
        if !options.is_empty() {
            arguments.extend(["-o".to_owned(), options.join(",")]);
        }
        arguments.extend([format!("{server}:{}", self.path), target.display().to_string()]);
        arguments
    }
}

/// Mounts the share, unless it is.
pub(super) async fn mount(share: &Share, target: &Path, search_path: &str) -> Result<(), Failure> {
    if teardown::is_mount_point(target) {
        return Ok(());
    }
    std::fs::create_dir_all(target).map_err(Failure::io(target))?;
    let arguments = share.arguments(target);
    let mut command = Command::new("mount");
    command.args(&arguments).env("PATH", search_path).stdin(Stdio::null()).kill_on_drop(true);
    let failed = |what: String, output: &str| {
        let output = output.trim();
        Failure::Mount(format!(
            "mount failed: {what}\nMounting command: mount\nMounting arguments: {}\nOutput: {output}",
            arguments.join(" ")
        ))
    };
    let result = match tokio::time::timeout(LIMIT, command.output()).await {
        Err(_) => Err(failed(format!("no answer within {}s", LIMIT.as_secs()), "")),
        Ok(Err(error)) => Err(failed(error.to_string(), "")),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(failed(status(output.status), &String::from_utf8_lossy(&output.stderr))),
    };
    if result.is_err() {
        // Empty, or mounted after all: then it stays.
        let _ = std::fs::remove_dir(target);
    }
    result
}

/// As Go words it.
fn status(status: std::process::ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share() -> Share {
        Share { server: "192.0.2.1".into(), path: "/export".into(), read_only: false, options: Vec::new() }
    }

    #[test]
    fn arguments_are_those_of_mount() {
        let target = Path::new("/t");
        assert_eq!(share().arguments(target), ["-t", "nfs", "192.0.2.1:/export", "/t"]);
        let options = vec!["nfsvers=4.2".to_owned()];
        let other = Share { server: "2001:db8::1".into(), read_only: true, options, ..share() };
        assert_eq!(other.arguments(target), ["-t", "nfs", "-o", "nfsvers=4.2,ro", "[2001:db8::1]:/export", "/t"]);
    }

    #[tokio::test]
    async fn what_mount_says_is_told() {
        let root = tempfile::tempdir().unwrap();
        let (tools, target) = (root.path().join("bin"), root.path().join("v"));
        std::fs::create_dir(&tools).unwrap();
        let program = tools.join("mount");
        std::fs::write(&program, "#!/bin/sh\necho bad option >&2\nexit 32\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = mount(&share(), &target, &tools.display().to_string()).await.unwrap_err().to_string();
        let expect = format!(
            "mount failed: exit status 32\nMounting command: mount\nMounting arguments: -t nfs 192.0.2.1:/export {}\n\
             Output: bad option",
            target.display()
        );
        assert_eq!(error, expect);
        assert!(!target.exists());
    }
}
