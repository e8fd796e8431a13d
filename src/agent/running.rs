//! Effects: finds the processes of skiff on a data directory, and ends the skiff that runs there: `skiff uninstall` is
//! typed while it does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::settings::DEFAULT_DATA_DIR;
use crate::cri::containerd::Layout;

/// Processes are looked at again until none is left, at most this many times.
const ROUNDS: u32 = 100;
const ROUND: Duration = Duration::from_millis(50);
/// How often a server or agent is asked to end before it is killed.
const ASKED: u32 = 60;
/// What the installer writes for a service manager, and the manager's words to stop it and to forget it.
const UNIT: &str = "/etc/systemd/system/skiff.service";
const INIT_SCRIPT: &str = "/etc/init.d/skiff";

/// A process does not end although it was killed.
#[derive(Debug, thiserror::Error)]
#[error("process {0} does not end; stop it, then run this again")]
pub struct Stuck(i32);

/// Ends the server or agent that runs on the data directory, if one does, and takes it from its service manager.
///
/// # Errors
/// When it does not end even when killed.
pub async fn end_skiff(data_dir: &Path) -> Result<(), Stuck> {
    leave_managers(data_dir, &skiffs(data_dir));
    for round in 0..ROUNDS {
        let running = skiffs(data_dir);
        if running.is_empty() {
            return Ok(());
        }
        for pid in running {
            let signal = if round < ASKED { Signal::SIGTERM } else { Signal::SIGKILL };
            let _ = kill(Pid::from_raw(pid), signal);
        }
        tokio::time::sleep(ROUND).await;
    }
    skiffs(data_dir).first().map_or(Ok(()), |pid| Err(Stuck(*pid)))
}

/// Ends containerd, the shims and all that runs in pods.
///
/// # Errors
/// When one of them does not end.
pub async fn end_pods(data_dir: &Path) -> Result<(), Stuck> {
    for _ in 0..ROUNDS {
        let doomed = of_pods(data_dir, &processes());
        let Some(first) = doomed.first().copied() else { return Ok(()) };
        tracing::debug!(count = doomed.len(), first, "ending processes");
        for pid in doomed {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        tokio::time::sleep(ROUND).await;
    }
    of_pods(data_dir, &processes()).first().map_or(Ok(()), |pid| Err(Stuck(*pid)))
}

/// The parents of all processes but this one and those that have ended, by process.
fn processes() -> BTreeMap<i32, i32> {
    let own = std::process::id();
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // "pid (name) state ppid": the name may hold anything, so look behind the last parenthesis.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, parent) = (fields.next().unwrap_or_default(), fields.next().and_then(|p| p.parse().ok()));
        if state != "Z" && pid.unsigned_abs() != own {
            parents.insert(pid, parent.unwrap_or_default());
        }
    }
    parents
}

/// containerd and the shims: both name our socket or configuration in their command line.
fn marked(data_dir: &Path, processes: &BTreeMap<i32, i32>) -> Vec<i32> {
    let layout = Layout::new(data_dir);
    let marks = [layout.socket(), layout.config()];
    let is_marked = |pid: &i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|b| *b == 0).any(|argument| marks.iter().any(|m| m.as_os_str().as_bytes() == argument))
    };
    processes.keys().copied().filter(is_marked).collect()
}

/// The marked ones and all their descendants.
fn of_pods(data_dir: &Path, processes: &BTreeMap<i32, i32>) -> Vec<i32> {
    let mut found = marked(data_dir, processes);
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let children = processes.iter().filter(|(child, parent)| **parent == pid && !found.contains(child));
        let children: Vec<i32> = children.map(|(child, _)| *child).collect();
        found.extend(children);
    }
    found
}

/// Servers and agents on the data directory: a file of it is open, or they are the parent of its containerd.
fn skiffs(data_dir: &Path) -> Vec<i32> {
    let processes = processes();
    let supervised = marked(data_dir, &processes);
    let supervises = |pid: i32| supervised.iter().any(|child| processes.get(child) == Some(&pid));
    let real = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let is_skiff = |pid: i32| {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        // A binary that was replaced is shown as "skiff (deleted)".
        program.file_name().is_some_and(|name| name.as_bytes().starts_with(b"skiff"))
    };
    processes.keys().copied().filter(|pid| is_skiff(*pid) && (supervises(*pid) || uses(*pid, &real))).collect()
}

fn uses(pid: i32, data_dir: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|file| file.starts_with(data_dir))
}

/// Stops and removes the services that run skiff on the data directory, or would at the next boot.
fn leave_managers(data_dir: &Path, running: &[i32]) {
    let in_unit = |pid: &i32| read(&format!("/proc/{pid}/cgroup")).lines().any(|line| line.ends_with("/skiff.service"));
    if Path::new(UNIT).exists() && (running.iter().any(in_unit) || is_for(&read(UNIT), data_dir)) {
        command("systemctl", &["disable", "--now", "skiff.service"]);
        let _ = fs::remove_file(UNIT);
        command("systemctl", &["daemon-reload"]);
    }
    let supervisor = read("/run/skiff.pid").trim().parse::<i32>().ok();
    let processes = processes();
    // OpenRC's supervisor is the parent of what it runs.
    let supervised = |pid: &i32| supervisor.is_some() && processes.get(pid).copied() == supervisor;
    if Path::new(INIT_SCRIPT).exists() && (running.iter().any(supervised) || is_for(&read(INIT_SCRIPT), data_dir)) {
        command("rc-service", &["--ifstarted", "skiff", "stop"]);
        command("rc-update", &["--quiet", "del", "skiff"]);
        let _ = fs::remove_file(INIT_SCRIPT);
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// Whether a unit or init script starts skiff on the data directory, as far as its flags tell.
fn is_for(service: &str, data_dir: &Path) -> bool {
    match service.split_once("--data-dir") {
        None => data_dir == Path::new(DEFAULT_DATA_DIR),
        Some((_, rest)) => {
            let value = rest.trim_start_matches([' ', '=', '\'']);
            value.split(['\'', '"', ' ', '\n']).next().is_some_and(|named| Path::new(named) == data_dir)
        }
    }
}

fn command(program: &str, arguments: &[&str]) {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            tracing::warn!(program, ?arguments, said = said.trim(), "the service was not taken away");
        }
        Err(error) => tracing::warn!(program, ?arguments, %error, "the service was not taken away"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_for_the_directory_that_its_flags_name() {
        for (line, default, other) in [
            ("ExecStart=/usr/local/bin/skiff server", true, false),
            ("ExecStart=/usr/local/bin/skiff server '--data-dir' '/mnt/x' '--debug'", false, true),
            ("ExecStart=/usr/local/bin/skiff server '--data-dir=/mnt/x'", false, true),
            ("command_args=\"server '--data-dir=/mnt/x'\"", false, true),
            ("ExecStart=/usr/local/bin/skiff server '--data-dir=/mnt/xyz'", false, false),
        ] {
            assert_eq!(is_for(line, Path::new(DEFAULT_DATA_DIR)), default, "{line}");
            assert_eq!(is_for(line, Path::new("/mnt/x")), other, "{line}");
        }
    }
}
