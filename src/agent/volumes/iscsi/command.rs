//! Decides: what iscsiadm(8) and the programs of file systems are told (`pkg/volume/iscsi/iscsi_util.go`,
//! `mount-utils/mount_linux.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::disk::Disk;
use crate::agent::volumes::tools::Call;

/// Calls about the database of open-iscsi.
const QUICK: Duration = Duration::from_secs(30);
/// iscsiadm gives up by itself after five attempts of fifteen seconds.
const DISCOVERY: Duration = Duration::from_secs(90);
/// iscsid gives up by itself after eight attempts of fifteen seconds: one that goes on would log in behind our back.
const LOGIN: Duration = Duration::from_secs(150);
const LOGOUT: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(60);
/// Mounting replays journals, unmounting writes what is not written yet.
const MOUNT: Duration = Duration::from_secs(120);
const CHECK: Duration = Duration::from_secs(30 * 60);

const DEFAULT_FS_TYPE: &str = "ext4";

/// Keys of the Secret, which are those of open-iscsi.
const DISCOVERY_KEYS: [&str; 4] = [
    "discovery.sendtargets.auth.username",
    "discovery.sendtargets.auth.password",
    "discovery.sendtargets.auth.username_in",
    "discovery.sendtargets.auth.password_in",
];
const SESSION_KEYS: [&str; 4] = [
    "node.session.auth.username",
    "node.session.auth.password",
    "node.session.auth.username_in",
    "node.session.auth.password_in",
];

pub(super) type Secrets = BTreeMap<String, String>;

fn iscsiadm<'a>(arguments: impl IntoIterator<Item = &'a str>, limit: Duration) -> Call {
    Call::new("iscsiadm", arguments, limit)
}

/// What is done with an interface: `show`, `new`, `delete`.
pub(super) fn interface(name: &str, operation: &str) -> Call {
    iscsiadm(["-m", "iface", "-I", name, "-o", operation], QUICK)
}

/// What a copy of an interface is told after it was made.
pub(super) fn copy_interface(name: &str, shown: &str, initiator: &str) -> Vec<Call> {
    let mut settings = interface_settings(shown);
    settings.insert("iface.initiatorname", initiator);
    let update = |(key, value): (&&str, &&str)| {
        iscsiadm(["-m", "iface", "-I", name, "-o", "update", "-n", *key, "-v", *value], QUICK)
    };
    settings.iter().map(update).collect()
}

/// Of what `-o show` prints: what is set, without the name, which cannot be changed.
fn interface_settings(shown: &str) -> BTreeMap<&str, &str> {
    let pairs = shown.lines().filter_map(|line| line.split_once(" = "));
    let pairs = pairs.map(|(key, value)| (key.trim(), value.trim()));
    pairs
        .filter(|(key, value)| key.starts_with("iface.") && *value != "<empty>" && !value.is_empty())
        .filter(|(key, _)| *key != "iface.iscsi_ifacename")
        .collect()
}

/// About the record of what is discovered at a portal.
struct Discovery<'a>([&'a str; 8]);

impl<'a> Discovery<'a> {
    fn at(portal: &'a str, interface: &'a str) -> Discovery<'a> {
        Discovery(["-m", "discoverydb", "-t", "sendtargets", "-p", portal, "-I", interface])
    }

    fn and(&self, more: &[&'a str], limit: Duration) -> Call {
        iscsiadm(self.0.iter().chain(more).copied(), limit)
    }
}

pub(super) fn discovery_record(disk: &Disk, portal: &str, operation: &str) -> Call {
    Discovery::at(portal, &disk.session_interface()).and(&["-o", operation], QUICK)
}

/// What the discovery is told to authenticate itself.
pub(super) fn discovery_secrets(disk: &Disk, portal: &str, secrets: &Secrets) -> Vec<Call> {
    let interface = disk.session_interface();
    let at = Discovery::at(portal, &interface);
    let update = |key, rest: &[&'static str]| {
        let mut more = vec!["-o", "update", "-n", key, "-v"];
        more.extend(rest);
        at.and(&more, QUICK)
    };
    let method = update("discovery.sendtargets.auth.authmethod", &["CHAP"]);
    let keys = DISCOVERY_KEYS.iter().filter_map(|key| Some((*key, given(secrets, key)?)));
    std::iter::once(method).chain(keys.map(|(key, value)| update(key, &[]).secret(value))).collect()
}

fn given<'a>(secrets: &'a Secrets, key: &str) -> Option<&'a str> {
    secrets.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

pub(super) fn discover(disk: &Disk, portal: &str) -> Call {
    Discovery::at(portal, &disk.session_interface()).and(&["--discover"], DISCOVERY)
}

fn node(disk: &Disk, portal: &str, more: &[&str], limit: Duration) -> Call {
    let interface = disk.session_interface();
    let at = ["-m", "node", "-p", portal, "-T", &disk.iqn, "-I", &interface];
    iscsiadm(at.iter().chain(more).copied(), limit)
}

/// So that the sessions of a volume end with it: not begun by the next boot, and with the disks only that are asked for,
/// as others go without a word (kubernetes/kubernetes#90982). An old iscsiadm does not know the latter.
pub(super) fn node_settings(disk: &Disk, portal: &str) -> [Call; 2] {
    [("node.startup", "manual"), ("node.session.scan", "manual")]
        .map(|(key, value)| node(disk, portal, &["-o", "update", "-n", key, "-v", value], QUICK))
}

/// What the session is told to authenticate itself.
pub(super) fn node_secrets(disk: &Disk, portal: &str, secrets: &Secrets) -> Vec<Call> {
    let method = node(disk, portal, &["-o", "update", "-n", "node.session.auth.authmethod", "-v", "CHAP"], QUICK);
    let keys = SESSION_KEYS.iter().filter_map(|key| Some((*key, given(secrets, key)?)));
    let keys = keys.map(|(key, value)| node(disk, portal, &["-o", "update", "-n", key, "-v"], QUICK).secret(value));
    std::iter::once(method).chain(keys).collect()
}

pub(super) fn login(disk: &Disk, portal: &str) -> Call {
    node(disk, portal, &["--login"], LOGIN)
}

pub(super) fn logout(disk: &Disk, portal: &str) -> Call {
    node(disk, portal, &["--logout"], LOGOUT)
}

pub(super) fn forget_node(disk: &Disk, portal: &str) -> Call {
    node(disk, portal, &["-o", "delete"], QUICK)
}

pub(super) fn forget_multipath(device: &str) -> Call {
    Call::new("multipath", ["-f", device], LOGOUT)
}

/// What is on a disk.
pub(super) fn probe(device: &str) -> Call {
    Call::new("blkid", ["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", device], PROBE)
}

/// The file system that blkid found; a partition table is none that may be overwritten.
pub(super) fn found_format(output: &str) -> Result<String, String> {
    let mut found = String::new();
    for line in output.lines().filter(|line| !line.is_empty()) {
        match line.split_once('=') {
            Some(("PTTYPE", table)) if !table.is_empty() => return Ok("unknown data, probably partitions".into()),
            Some(("TYPE", kind)) => kind.clone_into(&mut found),
            Some(_) => {}
            None => return Err(format!("blkid returns invalid output: {output}")),
        }
    }
    Ok(found)
}

/// The type of file system that is asked for.
///
/// # Errors
/// It is none: it names the program that makes it, and a pod must not name just any.
pub(super) fn fs_type(asked: &str) -> Result<&str, String> {
    match asked {
        "" => Ok(DEFAULT_FS_TYPE),
        _ if asked.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => Ok(asked),
        _ => Err(format!("fsType {asked:?} is not the name of a file system")),
    }
}

pub(super) fn make_file_system(device: &str, fs_type: &str) -> Call {
    let options: &[&str] = match fs_type {
        // Whatever it takes the disk for, and no blocks that only root may use.
        "ext3" | "ext4" => &["-F", "-m0"],
        "xfs" => &["-f"],
        _ => &[],
    };
    Call::new(&format!("mkfs.{fs_type}"), options.iter().copied().chain([device]), CHECK)
}

pub(super) fn check_file_system(device: &str) -> Call {
    Call::new("fsck", ["-a", device], CHECK)
}

pub(super) fn mount(device: &str, target: &str, fs_type: &str, options: &[String], read_only: bool) -> Call {
    let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
    if read_only {
        all.push("ro");
    }
    all.push("defaults");
    Call::new("mount", ["-t", fs_type, "-o", &all.join(","), "--", device, target], MOUNT)
}

/// The global mount, which was read-only, for a pod that writes.
pub(super) fn mount_writable(target: &str) -> Call {
    Call::new("mount", ["-o", "remount,rw", "--", target], MOUNT)
}

pub(super) fn bind(source: &str, target: &str, read_only: bool) -> Call {
    Call::new("mount", ["-o", if read_only { "bind,ro" } else { "bind" }, "--", source, target], MOUNT)
}

pub(super) fn unmount(target: &str) -> Call {
    Call::new("umount", ["--", target], MOUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        Disk {
            volume: "data".into(),
            portals: vec!["192.0.2.1:3260".into()],
            iqn: "iqn.2001-04.com.example:d".into(),
            interface: "default".into(),
            ..Disk::default()
        }
    }

    fn check(call: &Call, expect: &str) {
        assert_eq!(format!("{call:?}"), expect);
    }

    fn check_all(calls: &[Call], expect: &[&str]) {
        assert_eq!(calls.iter().map(|call| format!("{call:?}")).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn iscsiadm_is_told_as_upstream_tells_it() {
        let (disk, portal) = (disk(), "192.0.2.1:3260");
        let at = "iscsiadm -m discoverydb -t sendtargets -p 192.0.2.1:3260 -I default";
        check(&discovery_record(&disk, portal, "new"), &format!("{at} -o new"));
        check(&discover(&disk, portal), &format!("{at} --discover"));
        let at = "iscsiadm -m node -p 192.0.2.1:3260 -T iqn.2001-04.com.example:d -I default";
        check_all(
            &node_settings(&disk, portal),
            &[
                &format!("{at} -o update -n node.startup -v manual"),
                &format!("{at} -o update -n node.session.scan -v manual"),
            ],
        );
        check(&login(&disk, portal), &format!("{at} --login"));
        check(&logout(&disk, portal), &format!("{at} --logout"));
        check(&forget_node(&disk, portal), &format!("{at} -o delete"));
        check(&forget_multipath("/dev/dm-0"), "multipath -f /dev/dm-0");
        let own = Disk { initiator: Some("iqn.2001-04.com.example:me".into()), ..disk };
        check(
            &login(&own, portal),
            "iscsiadm -m node -p 192.0.2.1:3260 -T iqn.2001-04.com.example:d -I 192.0.2.1:3260:data --login",
        );
    }

    #[test]
    fn secrets_are_given_and_not_shown() {
        let (disk, portal) = (disk(), "192.0.2.1:3260");
        let secrets: Secrets = [
            ("discovery.sendtargets.auth.username", "finder"),
            ("discovery.sendtargets.auth.password", "hush1"),
            ("node.session.auth.username", "user"),
            ("node.session.auth.password", "hush2"),
            ("node.session.auth.password_in", ""),
            ("other", "x"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let at = "iscsiadm -m discoverydb -t sendtargets -p 192.0.2.1:3260 -I default -o update -n";
        let calls = discovery_secrets(&disk, portal, &secrets);
        check_all(
            &calls,
            &[
                &format!("{at} discovery.sendtargets.auth.authmethod -v CHAP"),
                &format!("{at} discovery.sendtargets.auth.username -v ***"),
                &format!("{at} discovery.sendtargets.auth.password -v ***"),
            ],
        );
        assert_eq!(calls[2].arguments.last().map(String::as_str), Some("hush1"));
        let at = "iscsiadm -m node -p 192.0.2.1:3260 -T iqn.2001-04.com.example:d -I default -o update -n";
        let calls = node_secrets(&disk, portal, &secrets);
        check_all(
            &calls,
            &[
                &format!("{at} node.session.auth.authmethod -v CHAP"),
                &format!("{at} node.session.auth.username -v ***"),
                &format!("{at} node.session.auth.password -v ***"),
            ],
        );
        assert_eq!(calls[2].arguments.last().map(String::as_str), Some("hush2"));
    }

    #[test]
    fn an_interface_is_copied_but_for_its_name() {
        let shown = "# BEGIN RECORD 2.1.8\niface.iscsi_ifacename = default\niface.net_ifacename = <empty>\n\
             iface.transport_name = tcp\niface.initiatorname = <empty>\niface.mtu = 0\n# END RECORD\n";
        check(&interface("default", "show"), "iscsiadm -m iface -I default -o show");
        check_all(
            &copy_interface("i", shown, "iqn.2001-04.com.example:me"),
            &[
                "iscsiadm -m iface -I i -o update -n iface.initiatorname -v iqn.2001-04.com.example:me",
                "iscsiadm -m iface -I i -o update -n iface.mtu -v 0",
                "iscsiadm -m iface -I i -o update -n iface.transport_name -v tcp",
            ],
        );
    }

    #[test]
    fn file_systems_are_made_checked_and_mounted() {
        check(&probe("/dev/sdb"), "blkid -p -s TYPE -s PTTYPE -o export /dev/sdb");
        check(&make_file_system("/dev/sdb", "ext4"), "mkfs.ext4 -F -m0 /dev/sdb");
        check(&make_file_system("/dev/sdb", "xfs"), "mkfs.xfs -f /dev/sdb");
        check(&make_file_system("/dev/sdb", "btrfs"), "mkfs.btrfs /dev/sdb");
        check(&check_file_system("/dev/sdb"), "fsck -a /dev/sdb");
        let options = ["noatime".to_owned()];
        check(&mount("/dev/sdb", "/t", "ext4", &options, true), "mount -t ext4 -o noatime,ro,defaults -- /dev/sdb /t");
        check(&mount("/dev/sdb", "/t", "xfs", &[], false), "mount -t xfs -o defaults -- /dev/sdb /t");
        check(&mount_writable("/t"), "mount -o remount,rw -- /t");
        check(&bind("/s", "/t", false), "mount -o bind -- /s /t");
        check(&bind("/s", "/t", true), "mount -o bind,ro -- /s /t");
        check(&unmount("/t"), "umount -- /t");
        assert_eq!(fs_type(""), Ok("ext4"));
        assert_eq!(fs_type("ntfs3"), Ok("ntfs3"));
        for wrong in ["../../tmp/x", "ext4 -x", "fuse.sshfs", "-h"] {
            assert!(fs_type(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_disk_without_anything_is_empty() {
        for (output, expect) in [
            ("DEVNAME=/dev/sdb\nTYPE=ext4\n", "ext4"),
            ("DEVNAME=/dev/sdb\nPTTYPE=gpt\n", "unknown data, probably partitions"),
            ("DEVNAME=/dev/sdb\nTYPE=vfat\nPTTYPE=dos\n", "unknown data, probably partitions"),
            ("\n", ""),
        ] {
            assert_eq!(found_format(output).as_deref(), Ok(expect), "{output}");
        }
        assert!(found_format("strange").is_err());
    }
}
