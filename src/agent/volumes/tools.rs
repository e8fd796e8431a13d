//! Effects: programs of the host that volumes take, each with a limit of time. What they are told in secret is shown to
//! nobody: not in messages, not in the log.

use std::fmt;
use std::io::ErrorKind;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Command;

const HIDDEN: &str = "***";

/// A program, and what it is told.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub program: String,
    pub arguments: Vec<String>,
    /// Which arguments are secret.
    pub secrets: Vec<String>,
    pub limit: Duration,
}

impl Call {
    pub fn new<S: AsRef<str>>(program: &str, arguments: impl IntoIterator<Item = S>, limit: Duration) -> Call {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        Call { program: program.to_owned(), arguments, secrets: Vec::new(), limit }
    }

    /// One more argument, which is a secret.
    #[must_use]
    pub fn secret(mut self, value: &str) -> Call {
        self.arguments.push(value.to_owned());
        self.secrets.push(value.to_owned());
        self
    }

    /// The arguments as they may be shown.
    pub fn shown(&self) -> String {
        let arguments = self.arguments.iter();
        let shown = arguments.map(|it| if self.secrets.contains(it) { HIDDEN } else { it.as_str() });
        shown.collect::<Vec<_>>().join(" ")
    }

    fn hide(&self, output: &str) -> String {
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(output.to_owned(), |text, secret| text.replace(secret.as_str(), HIDDEN))
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.program, self.shown())
    }
}

/// Why a program did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Why {
    #[error("executable file not found in $PATH: {program:?}: install {package} on the node")]
    Missing { program: String, package: &'static str },
    #[error("no answer within {0}s")]
    Late(u64),
    /// As Go words it.
    #[error("exit status {0}")]
    Status(i32),
    #[error("{0}")]
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(super) struct Failed {
    pub why: Why,
    /// What it printed.
    pub output: String,
}

impl Failed {
    pub fn status(&self) -> Option<i32> {
        match self.why {
            Why::Status(status) => Some(status),
            _ => None,
        }
    }
}

/// Who runs programs.
#[async_trait]
pub(super) trait Runner: Send + Sync {
    /// Returns what the program printed.
    async fn run(&self, call: &Call) -> Result<String, Failed>;
}

/// The programs of this machine.
pub(super) struct Host {
    pub search_path: String,
}

#[async_trait]
impl Runner for Host {
    async fn run(&self, call: &Call) -> Result<String, Failed> {
        tracing::debug!(?call, "a program of the host is run");
        let mut command = Command::new(&call.program);
        command.args(&call.arguments).env("PATH", &self.search_path).env("LC_ALL", "C");
        command.stdin(Stdio::null()).kill_on_drop(true);
        let failed = |why, output: &str| Failed { why, output: call.hide(output.trim()) };
        match tokio::time::timeout(call.limit, command.output()).await {
            Err(_) => Err(failed(Why::Late(call.limit.as_secs()), "")),
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
                Err(failed(Why::Missing { program: call.program.clone(), package: package(&call.program) }, ""))
            }
            Ok(Err(error)) => Err(failed(Why::Other(error.to_string()), "")),
            Ok(Ok(Output { status, stdout, stderr })) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                match status.success() {
                    true => Ok(text(&stdout)),
                    false => Err(failed(ended(status), &format!("{}{}", text(&stdout), text(&stderr)))),
                }
            }
        }
    }
}

fn ended(status: ExitStatus) -> Why {
    status.code().map_or_else(|| Why::Other(status.to_string()), Why::Status)
}

/// What has the program on Debian, and elsewhere where that is another name.
fn package(program: &str) -> &'static str {
    match program {
        "iscsiadm" => "open-iscsi (iscsi-initiator-utils on Fedora and RHEL)",
        "multipath" => "multipath-tools (device-mapper-multipath on Fedora and RHEL)",
        "mkfs.xfs" => "xfsprogs",
        "mkfs.btrfs" => "btrfs-progs",
        "mkfs.ext2" | "mkfs.ext3" | "mkfs.ext4" => "e2fsprogs",
        "mount" | "umount" | "blkid" | "fsck" => "util-linux",
        _ => "the package that has it",
    }
}

/// `mount` fails in upstream's words.
pub(super) async fn mount(runner: &dyn Runner, call: &Call) -> Result<(), String> {
    runner.run(call).await.map(drop).map_err(|Failed { why, output }| {
        format!(
            "mount failed: {why}\nMounting command: {}\nMounting arguments: {}\nOutput: {output}",
            call.program,
            call.shown()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn how_programs_end_is_told_without_their_secrets() {
        let root = tempfile::tempdir().unwrap();
        let program = |name: &str, script: &str| {
            let path = root.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("fails", "echo \"$1 is $2\" >&2; exit 6");
        program("works", "echo \"$1 is $2\"");
        program("hangs", "exec /bin/sleep 600");
        let host = Host { search_path: root.path().display().to_string() };
        let call = |program: &str, limit| Call::new(program, ["password"], limit).secret("open sesame");
        let failed = host.run(&call("fails", LIMIT)).await.unwrap_err();
        assert_eq!((failed.to_string(), failed.output.as_str()), ("exit status 6".into(), "password is ***"));
        assert_eq!(failed.status(), Some(6));
        assert_eq!(host.run(&call("works", LIMIT)).await.unwrap(), "password is open sesame\n");
        let late = host.run(&call("hangs", Duration::from_millis(20))).await.unwrap_err();
        assert_eq!(late.why, Why::Late(0));
        let missing = host.run(&call("iscsiadm", LIMIT)).await.unwrap_err().to_string();
        assert!(missing.contains("\"iscsiadm\": install open-iscsi"), "{missing}");
        assert_eq!(format!("{:?}", call("works", LIMIT)), "works password ***");
    }
}
