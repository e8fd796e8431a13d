//! Volumes that an agent left mounted, on the real kernel, in a mount namespace of their own.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use skiff::agent::volumes::memory::InMemory;
use skiff::agent::volumes::{subpath, teardown};

use crate::support::skip;

#[test]
fn nothing_is_deleted_through_a_mount() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "volumes::inside", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn mounts_below(folder: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(folder)))
        .count()
}

#[test]
#[ignore = "mounts: the test above runs it in a namespace of its own"]
fn inside() {
    let root = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(root.path()).unwrap();
    let (pod, data) = (root.join("pods/uid"), root.join("data"));
    let (memory, nested) = (pod.join("volumes/m"), pod.join("volumes/m/nested"));
    fs::create_dir_all(&memory).unwrap();
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("sub/kept"), "x").unwrap();
    let none = None::<&str>;
    mount(Some("tmpfs"), &memory, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    fs::create_dir(&nested).unwrap();
    // What a container mounted in a volume, and one on top of another.
    mount(Some(&data), &nested, none, MsFlags::MS_BIND, none).unwrap();
    mount(Some(&data), &nested, none, MsFlags::MS_BIND, none).unwrap();
    let bound = pod.join("volume-subpaths/d/c/0");
    subpath::bind("d", "c", &data, "sub", &bound).unwrap();
    assert_eq!(fs::read_to_string(bound.join("kept")).unwrap(), "x");
    // A restarted container has it mounted anew, not twice.
    subpath::bind("d", "c", &data, "sub", &bound).unwrap();
    assert_eq!(mounts_below(&pod), 4);
    // A file in it is open: that keeps nothing.
    let open = fs::File::open(nested.join("sub/kept")).unwrap();
    teardown::remove(&pod).unwrap();
    assert_eq!((mounts_below(&pod), pod.exists()), (0, false));
    assert_eq!(fs::read_to_string(data.join("sub/kept")).unwrap(), "x");
    drop(open);

    // What was left mounted by one that was killed while it tried is no matter.
    fs::create_dir(root.join("in-memory")).unwrap();
    mount(Some("tmpfs"), &root.join("in-memory"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    assert_ne!(InMemory::probe(&root), InMemory::No);
    assert_eq!((mounts_below(&root), root.join("in-memory").exists()), (0, false));
}
