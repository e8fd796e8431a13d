//! What pods take of a machine, counted from outside: what is there after them and was not before has leaked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::lab::{Lab, Machine, wait_within};

/// The agent looks after what came to life late once a minute, and removes it the second time.
const COLLECTED: Duration = Duration::from_secs(200);

/// By kind: names of what is there.
pub type Found = BTreeMap<&'static str, BTreeSet<String>>;

/// A process of this machine's node, as `/proc` shows it.
pub struct Process {
    pub id: i32,
    pub parent: i32,
    pub name: String,
    pub arguments: String,
}

pub fn processes() -> Vec<Process> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    numbers.filter_map(process).collect()
}

fn process(id: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // proc(5): the name is in parentheses and may hold anything; the state and the parent come after it.
    let (before, after) = stat.rsplit_once(") ")?;
    let name = before.split_once('(')?.1.to_owned();
    let mut fields = after.split(' ');
    let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
    let arguments = String::from_utf8_lossy(&fs::read(format!("/proc/{id}/cmdline")).ok()?).replace('\0', " ");
    (state != "Z").then_some(Process { id, parent, name, arguments })
}

/// Those that were started with a file of the machine's in their arguments: containerd, shims, runc, plug-ins.
pub fn of_node(machine: &Machine) -> Vec<Process> {
    let place = format!("{}/agent/", machine.data_dir.display());
    processes().into_iter().filter(|process| process.arguments.contains(&place)).collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Groups below `kubepods`, in each hierarchy, but those of the classes.
fn groups() -> BTreeSet<String> {
    fn below(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.insert(entry.path().display().to_string());
                below(&entry.path(), found);
            }
        }
    }
    let root = Path::new("/sys/fs/cgroup");
    let mut found = BTreeSet::new();
    let each = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in each.chain([root.to_owned()]) {
        below(&hierarchy.join("kubepods"), &mut found);
    }
    found.retain(|group| !group.ends_with("/burstable") && !group.ends_with("/besteffort"));
    found
}

/// Network namespaces are among the mounts. containerd itself removes the snapshots of a start that it did not live to
/// record, when the lease on them expires (a day).
pub fn count(machine: &Machine) -> Found {
    let agent = machine.data_dir.join("agent");
    let said = |arguments: &[&str]| {
        let output = machine.command(Path::new(arguments[0])).args(&arguments[1..]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let mounts = said(&["cat", "/proc/self/mounts"]);
    let ours = |point: &&str| Path::new(point).starts_with(&agent) || point.contains("/netns/cni-");
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(ours).map(str::to_owned).collect();
    let links = said(&["ip", "-br", "link"]);
    let links = links.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| name.starts_with("veth"));
    let shims = of_node(machine).into_iter().filter(|p| p.name.starts_with("containerd-shim")).map(|p| p.arguments);
    let tasks = agent.join("run/containerd/io.containerd.runtime.v2.task/k8s.io");
    let cri = agent.join("containerd/io.containerd.grpc.v1.cri");
    let containerd = agent.join("run/containerd/containerd.sock").display().to_string();
    let known = |arguments: &[&str]| -> BTreeSet<String> {
        let output =
            machine.command(Path::new("ctr")).args(["-a", &containerd, "-n", "k8s.io"]).args(arguments).output();
        let output = output.unwrap();
        match output.status.success() {
            true => String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(),
            false => ["containerd does not answer".to_owned()].into(),
        }
    };
    let mut addresses = names(&agent.join("cni/ipam"));
    addresses.remove("lock");
    [
        ("mounts", mounts),
        ("addresses", addresses),
        ("links", links.map(str::to_owned).collect()),
        ("control groups", groups()),
        ("shims", shims.collect()),
        ("states of runc", names(Path::new("/run/containerd/runc/k8s.io"))),
        ("tasks of containerd", names(&tasks)),
        ("containers that containerd knows", known(&["containers", "ls", "-q"])),
        ("tasks that containerd knows", known(&["tasks", "ls", "-q"])),
        ("sandboxes of containerd", names(&cri.join("sandboxes"))),
        ("containers of containerd", names(&cri.join("containers"))),
        ("folders of pods", names(&agent.join("pods"))),
        ("logs of pods", names(&agent.join("log/pods"))),
    ]
    .into()
}

/// Waits until there is no more than there was.
#[track_caller]
pub fn back_to(lab: &Lab, machine: &Machine, before: &Found) {
    let more = || -> BTreeMap<&str, Vec<String>> {
        let now = count(machine);
        let more = now.into_iter().map(|(kind, found)| (kind, found.difference(&before[kind]).cloned().collect()));
        more.filter(|(_, found): &(_, Vec<String>)| !found.is_empty()).collect()
    };
    let mut last = BTreeMap::new();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_within(COLLECTED, "nothing to be left", || {
            last = more();
            last.is_empty().then_some(())
        });
    }));
    let log = fs::read_to_string(machine.data_dir.join("agent/containerd.log")).unwrap_or_default();
    let about = |line: &&str| last.values().flatten().any(|left| line.contains(left.as_str()));
    let said: Vec<&str> = log.lines().filter(about).collect();
    assert!(result.is_ok(), "left behind: {last:#?}\n{}\n{}", said.join("\n"), lab.logs());
}

/// Ends a process at once, if it is still there.
pub fn kill(id: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGKILL);
}

/// First processes of containers that say in their environment of which pod and container they are. More than one of
/// the same is a container that was started twice.
pub fn twice() -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut twice = Vec::new();
    for process in processes() {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id)).unwrap_or_default();
        let first = status.lines().find_map(|l| l.strip_prefix("NSpid:")).and_then(|l| l.split_whitespace().last());
        let environment = fs::read(format!("/proc/{}/environ", process.id)).unwrap_or_default();
        let mark = environment.split(|b| *b == 0).find_map(|v| v.strip_prefix(b"FAULTS_MARK="));
        if let Some(mark) = mark.filter(|_| first == Some("1")) {
            let mark = String::from_utf8_lossy(mark).into_owned();
            if !seen.insert(mark.clone()) {
                twice.push(mark);
            }
        }
    }
    twice
}
