//! Effects: `nfs` volumes, mounted by mount(8) and the host's mount.nfs (`pkg/volume/nfs`).

use std::path::Path;
use std::time::Duration;

use super::tools::{self, Call, Runner};
use super::{Failure, teardown};

/// A server that does not answer is given up after this; the mount is tried again.
const LIMIT: Duration = Duration::from_secs(120);
/// What mount(8) of util-linux, and the kernel, say where the host has no client of NFS.
const NO_CLIENT: [&str; 2] = ["helper program", "unknown filesystem type"];

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
        // A pod names its server as it likes: no option.
        arguments.extend(["--".to_owned(), format!("{server}:{}", self.path), target.display().to_string()]);
        arguments
    }
}

/// Mounts the share, unless it is.
pub(super) async fn mount(share: &Share, target: &Path, runner: &dyn Runner) -> Result<(), Failure> {
    if teardown::is_mount_point(target) {
        return Ok(());
    }
    std::fs::create_dir_all(target).map_err(Failure::io(target))?;
    let result = tools::mount(runner, &Call::new("mount", share.arguments(target), LIMIT)).await;
    if result.is_err() {
        // Empty, or mounted after all: then it stays.
        let _ = std::fs::remove_dir(target);
    }
    result.map_err(|why| Failure::Mount(with_advice(why)))
}

fn with_advice(why: String) -> String {
    match NO_CLIENT.iter().any(|said| why.contains(said)) {
        true => {
            format!("{why}\nThe node has no NFS client: install nfs-common (nfs-utils on other than Debian's) on it")
        }
        false => why,
    }
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
        assert_eq!(share().arguments(target), ["-t", "nfs", "--", "192.0.2.1:/export", "/t"]);
        let options = vec!["nfsvers=4.2".to_owned()];
        let other = Share { server: "2001:db8::1".into(), read_only: true, options, ..share() };
        assert_eq!(other.arguments(target), ["-t", "nfs", "-o", "nfsvers=4.2,ro", "--", "[2001:db8::1]:/export", "/t"]);
    }

    #[tokio::test]
    async fn what_mount_says_is_told() {
        let root = tempfile::tempdir().unwrap();
        let (tools, target) = (root.path().join("bin"), root.path().join("v"));
        std::fs::create_dir(&tools).unwrap();
        let program = tools.join("mount");
        let host = tools::Host { search_path: tools.display().to_string() };
        let said = async |text: &str| {
            std::fs::write(&program, format!("#!/bin/sh\necho '{text}' >&2\nexit 32\n")).unwrap();
            std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            mount(&share(), &target, &host).await.unwrap_err().to_string()
        };
        let expect = format!(
            "mount failed: exit status 32\nMounting command: mount\nMounting arguments: -t nfs -- 192.0.2.1:/export {}\n\
             Output: Connection refused",
            target.display()
        );
        assert_eq!(said("Connection refused").await, expect);
        assert!(!target.exists());
        let advice = "The node has no NFS client: install nfs-common (nfs-utils on other than Debian's) on it";
        for text in ["you might need a /sbin/mount.nfs helper program.", "unknown filesystem type nfs."] {
            let error = said(text).await;
            assert!(error.ends_with(advice), "{error}");
        }
    }

    /// A server that never answers.
    struct Dead(std::sync::Mutex<Vec<(String, Duration)>>);

    #[async_trait::async_trait]
    impl Runner for Dead {
        async fn run(&self, call: &Call) -> Result<String, tools::Failed> {
            self.0.lock().unwrap().push((call.shown(), call.limit));
            Err(tools::Failed { why: tools::Why::Late(call.limit.as_secs()), output: String::new() })
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_given_up() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("v");
        let dead = Dead(std::sync::Mutex::default());
        let error = mount(&share(), &target, &dead).await.unwrap_err().to_string();
        assert!(error.starts_with("mount failed: no answer within 120s\n"), "{error}");
        assert_eq!(dead.0.lock().unwrap()[0].1, LIMIT);
        assert!(!target.exists());
    }
}
