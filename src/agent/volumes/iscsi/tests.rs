//! Tests: iSCSI volumes on a machine in a folder: from the pod that wants one to the last that goes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::device::Kernel;
use super::disk::{Disk, Wanted};
use super::fake::{Machine, Trouble, failed};
use super::records::{Records, User};
use super::{Group, Iscsi};
use crate::agent::volumes::steps::Failure;
use crate::agent::volumes::tools::{Failed, Why};
use crate::agent::volumes::work::Work;

const IQN: &str = "iqn.2001-04.com.example:d";
const PORTAL: &str = "192.0.2.1:3260";
const NODE: &str = "iscsiadm -m node -p 192.0.2.1:3260 -T iqn.2001-04.com.example:d -I default";

struct Lab {
    root: tempfile::TempDir,
    machine: Machine,
    iscsi: Arc<Iscsi>,
}

fn agent(machine: &Machine) -> Arc<Iscsi> {
    Arc::new(Iscsi {
        records: Records { kubelet: machine.root.join("kubelet") },
        kernel: Kernel(machine.root.clone()),
        runner: Box::new(machine.clone()),
        work: Work::default(),
    })
}

fn lab() -> Lab {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine::new(&root.path().canonicalize().unwrap());
    Lab { iscsi: agent(&machine), machine, root }
}

fn user(uid: &str) -> User {
    User { uid: uid.into(), volume: "data".into() }
}

fn wanted() -> Wanted {
    let disk = Disk {
        volume: "data".into(),
        portals: vec![PORTAL.into()],
        iqn: IQN.into(),
        interface: "default".into(),
        ..Disk::default()
    };
    Wanted { disk, ..Wanted::default() }
}

fn of_lun(lun: i32) -> Wanted {
    let mut other = wanted();
    other.disk.lun = lun;
    other
}

fn late() -> Failed {
    Failed { why: Why::Late(150), output: String::new() }
}

impl Lab {
    async fn set_up(&self, uid: &str, wanted: Wanted) -> Result<std::path::PathBuf, Failure> {
        self.iscsi.set_up(user(uid), wanted, super::Secrets::new(), Group::default()).await
    }

    /// Another agent after this one was killed.
    fn kill(&mut self) {
        self.iscsi = agent(&self.machine);
    }

    fn is_clean(&self) {
        assert_eq!((self.machine.sessions(), self.machine.mounts()), (0, Vec::new()));
        let left = std::fs::read_dir(self.root.path().join("kubelet/plugins/kubernetes.io/iscsi")).unwrap();
        assert_eq!(left.count(), 0, "records are left");
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_shared_by_pods_and_goes_with_the_last() {
    let lab = lab();
    let one = lab.set_up("u1", wanted()).await.unwrap();
    assert_eq!(one, lab.machine.root.join("kubelet/pods/u1/volumes/kubernetes.io~iscsi/data"));
    let device = lab.machine.root.join("dev/sd1l0").display().to_string();
    let global = lab.machine.mounts()[0].clone();
    let one = one.display().to_string();
    let expect = [
        "iscsiadm -m discoverydb -t sendtargets -p 192.0.2.1:3260 -I default -o new".to_owned(),
        "iscsiadm -m discoverydb -t sendtargets -p 192.0.2.1:3260 -I default --discover".into(),
        format!("{NODE} -o update -n node.startup -v manual"),
        format!("{NODE} -o update -n node.session.scan -v manual"),
        format!("{NODE} --login"),
        format!("blkid -p -s TYPE -s PTTYPE -o export {device}"),
        format!("mkfs.ext4 -F -m0 {device}"),
        format!("mount -t ext4 -o defaults -- {device} {global}"),
        format!("mount -o bind -- {global} {one}"),
    ];
    assert_eq!(lab.machine.calls(), expect);
    lab.set_up("u1", wanted()).await.unwrap();
    assert_eq!(lab.machine.calls(), [""; 0], "all was there");

    let two = lab.set_up("u2", Wanted { read_only: true, ..wanted() }).await.unwrap();
    assert_eq!(lab.machine.calls(), [format!("mount -o bind,ro -- {global} {}", two.display())]);
    assert!(lab.iscsi.has_volumes("u1") && lab.iscsi.has_volumes("u2") && !lab.iscsi.has_volumes("u3"));
    lab.iscsi.release("u1").await.unwrap();
    assert_eq!(lab.machine.calls(), [format!("umount -- {one}")]);
    lab.iscsi.release("u2").await.unwrap();
    let expect = [
        format!("umount -- {}", two.display()),
        format!("umount -- {global}"),
        format!("{NODE} --logout"),
        format!("{NODE} -o delete"),
    ];
    assert_eq!(lab.machine.calls(), expect);
    let deleted = lab.machine.root.join("sys/class/block/sd1l0/device/delete");
    assert_eq!(std::fs::read_to_string(deleted).unwrap(), "1");
    lab.is_clean();
    lab.iscsi.release("u2").await.unwrap();
    assert_eq!(lab.machine.calls(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_a_disk_stays() {
    let lab = lab();
    let device = lab.machine.root.join("dev/sd1l0").display().to_string();
    lab.machine.state.lock().unwrap().formats.insert(device.clone(), "xfs".into());
    lab.set_up("u1", wanted()).await.unwrap();
    let calls = lab.machine.calls();
    assert!(!calls.iter().any(|call| call.starts_with("mkfs")), "{calls:?}");
    assert!(calls.contains(&format!("fsck -a {device}")), "{calls:?}");
    lab.iscsi.release("u1").await.unwrap();

    let device = lab.machine.root.join("dev/sd2l0").display().to_string();
    lab.machine.trouble("blkid", Trouble::Fails(failed(8, "")));
    let error = lab.set_up("u1", wanted()).await.unwrap_err();
    assert_eq!(error.step, "MountVolume.MountDevice");
    assert_eq!(error.why, format!("failed to get disk format of disk {device}: exit status 8"));
    lab.machine.state.lock().unwrap().formats.insert(device.clone(), "ext4".into());
    lab.machine.trouble("fsck", Trouble::Fails(failed(4, "UNEXPECTED INCONSISTENCY")));
    let error = lab.set_up("u1", wanted()).await.unwrap_err().why;
    let expect = format!("'fsck' found errors on device {device} but could not correct them: UNEXPECTED INCONSISTENCY");
    assert_eq!(error, expect);
    lab.machine.trouble("fsck", Trouble::Fails(failed(1, "corrected")));
    lab.set_up("u1", wanted()).await.unwrap();
    lab.iscsi.release("u1").await.unwrap();
    lab.is_clean();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_only_read_is_not_written() {
    let lab = lab();
    let read = || Wanted { read_only: true, ..wanted() };
    let error = lab.set_up("u1", read()).await.unwrap_err().why;
    assert!(error.starts_with("cannot mount unformatted disk"), "{error}");
    let device = lab.machine.root.join("dev/sd1l0").display().to_string();
    lab.machine.state.lock().unwrap().formats.insert(device.clone(), "ext4".into());
    lab.machine.calls();
    lab.set_up("u1", read()).await.unwrap();
    let calls = lab.machine.calls();
    assert!(!calls.iter().any(|call| call.starts_with("fsck")), "{calls:?}");
    let global = lab.machine.mounts()[0].clone();
    assert!(calls.contains(&format!("mount -t ext4 -o ro,defaults -- {device} {global}")), "{calls:?}");
    // Another pod of this node writes.
    lab.set_up("u2", wanted()).await.unwrap();
    assert_eq!(lab.machine.calls()[0], format!("mount -o remount,rw -- {global}"));
    lab.iscsi.release("u1").await.unwrap();
    lab.iscsi.release("u2").await.unwrap();
    lab.is_clean();
}

#[tokio::test(start_paused = true)]
async fn two_disks_of_a_target_share_its_session() {
    let lab = lab();
    lab.machine.state.lock().unwrap().luns = vec![0, 1];
    lab.set_up("u1", wanted()).await.unwrap();
    lab.set_up("u2", of_lun(1)).await.unwrap();
    assert_eq!(lab.machine.sessions(), 1);
    lab.machine.calls();
    lab.iscsi.release("u1").await.unwrap();
    assert!(!lab.machine.calls().iter().any(|call| call.contains("--logout")), "the other needs it");
    let deleted = |disk: &str| {
        let path = lab.machine.root.join(format!("sys/class/block/{disk}/device/delete"));
        std::fs::read_to_string(path).unwrap() == "1"
    };
    assert!(deleted("sd1l0") && !deleted("sd1l1"));
    lab.iscsi.release("u2").await.unwrap();
    lab.is_clean();
}

#[tokio::test(start_paused = true)]
async fn a_session_of_somebody_else_stays() {
    let lab = lab();
    lab.machine.begin_session(PORTAL, IQN, "default");
    lab.set_up("u1", wanted()).await.unwrap();
    let calls = lab.machine.calls();
    assert!(!calls.iter().any(|call| call.contains("iscsiadm")), "{calls:?}");
    lab.iscsi.release("u1").await.unwrap();
    assert_eq!((lab.machine.sessions(), lab.machine.mounts()), (1, Vec::new()));
    let deleted = lab.machine.root.join("sys/class/block/sd1l0/device/delete");
    assert_eq!(std::fs::read_to_string(deleted).unwrap(), "", "nor is its disk taken away");
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_half_done_is_undone() {
    let lab = lab();
    lab.machine.trouble("--login", Trouble::DoneBut(late()));
    let error = lab.set_up("u1", wanted()).await.unwrap_err();
    assert_eq!(error.step, "MountVolume.WaitForAttach");
    let expect = "failed to get any path for iscsi disk, last err seen:\n\
         iscsi: failed to attach disk: Error:  (no answer within 150s)";
    assert_eq!(error.why, expect);
    assert_eq!(lab.machine.sessions(), 0);
    // iscsid goes on all the same, and the pod goes.
    lab.machine.begin_session(PORTAL, IQN, "default");
    lab.iscsi.release("u1").await.unwrap();
    lab.is_clean();
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_told_and_tried_again() {
    let lab = lab();
    let why = "iscsiadm: cannot make connection to 192.0.2.1";
    lab.machine.trouble("--discover", Trouble::Fails(failed(4, why)));
    let error = lab.set_up("u1", wanted()).await.unwrap_err().why;
    let expect = format!(
        "failed to get any path for iscsi disk, last err seen:\n\
         iscsi: failed to sendtargets to portal {PORTAL} output: {why}, err exit status 4"
    );
    assert_eq!(error, expect);
    let missing = Why::Missing { program: "iscsiadm".into(), package: "open-iscsi" };
    lab.machine.trouble("-o new", Trouble::Fails(Failed { why: missing.clone(), output: String::new() }));
    lab.machine.trouble("--discover", Trouble::Fails(Failed { why: missing, output: String::new() }));
    let error = lab.set_up("u1", wanted()).await.unwrap_err().why;
    assert!(error.ends_with("\"iscsiadm\": install open-iscsi on the node"), "{error}");
    lab.set_up("u1", wanted()).await.unwrap();
    // It may be busy for a while.
    let target = lab.machine.mounts()[1].clone();
    lab.machine.trouble("umount", Trouble::Fails(failed(32, "target is busy.")));
    let error = lab.iscsi.release("u1").await.unwrap_err();
    let expect = format!(
        "UnmountVolume.TearDown failed for volume \"data\" pod \"u1\": unmount failed: exit status 32\n\
         Unmounting arguments: {target}\nOutput: target is busy."
    );
    assert_eq!(error, expect);
    lab.machine.trouble("--logout", Trouble::Fails(failed(9, "internal error")));
    let error = lab.iscsi.release("u1").await.unwrap_err();
    assert!(error.ends_with("iscsi: failed to detach disk Error: internal error (exit status 9)"), "{error}");
    // Nobody has it any more: only this is left to do.
    lab.iscsi.remove_unused(|_| true);
    wait_until(|| lab.machine.sessions() == 0).await;
}

async fn wait_until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.expect("in time");
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_agent_left_is_undone_by_the_next() {
    for at in ["--discover", "--login", "blkid", "mount -t", "mount -o bind"] {
        let mut lab = lab();
        lab.machine.trouble(at, Trouble::Hangs);
        let begun = lab.set_up("u1", wanted());
        tokio::time::timeout(Duration::from_secs(5), begun).await.expect_err("it hangs");
        if at == "--login" {
            // Done by iscsid after all.
            lab.machine.begin_session(PORTAL, IQN, "default");
        }
        lab.kill();
        assert!(lab.iscsi.has_volumes("u1"), "{at}");
        let iscsi = Arc::clone(&lab.iscsi);
        iscsi.remove_unused(|uid| uid != "u1");
        let empty =
            || std::fs::read_dir(lab.root.path().join("kubelet/plugins/kubernetes.io/iscsi")).unwrap().count() == 0;
        wait_until(empty).await;
        lab.is_clean();
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_agents_volume_is_taken_over() {
    let mut lab = lab();
    lab.machine.trouble("mount -o bind", Trouble::Hangs);
    let begun = lab.set_up("u1", wanted());
    tokio::time::timeout(Duration::from_secs(5), begun).await.expect_err("it hangs");
    lab.kill();
    lab.machine.calls();
    lab.iscsi.remove_unused(|_| true);
    let target = lab.set_up("u1", wanted()).await.unwrap();
    let global = lab.machine.mounts()[0].clone();
    assert_eq!(lab.machine.calls(), [format!("mount -o bind -- {global} {}", target.display())]);
    lab.iscsi.release("u1").await.unwrap();
    lab.is_clean();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_while_it_waits_leaves_nothing() {
    let lab = lab();
    lab.machine.trouble("--login", Trouble::DoneBut(failed(15, "already present")));
    let lock = lab.iscsi.work.lock_of(&wanted().disk.key());
    let held = lock.lock().await;
    let begun = lab.set_up("u1", wanted());
    tokio::time::timeout(Duration::from_secs(1), begun).await.expect_err("it waits");
    let released = lab.iscsi.release("u1");
    drop(held);
    released.await.unwrap();
    lab.is_clean();
}

#[tokio::test(start_paused = true)]
async fn a_disk_is_looked_for_and_waited_for() {
    let lab = lab();
    lab.machine.state.lock().unwrap().luns = Vec::new();
    let error = lab.set_up("u1", of_lun(3)).await.unwrap_err().why;
    assert!(error.ends_with("Could not attach disk: Timeout after 10s"), "{error}");
    assert_eq!(std::fs::read_to_string(lab.machine.root.join("sys/class/scsi_host/host1/scan")).unwrap(), "0 0 3");
    let kernel = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        lab.machine.found(3);
    };
    let (result, ()) = tokio::join!(lab.set_up("u1", of_lun(3)), kernel);
    result.unwrap();
    lab.iscsi.release("u1").await.unwrap();
    lab.is_clean();
}

#[tokio::test(start_paused = true)]
async fn several_paths_are_one_disk() {
    let lab = lab();
    lab.machine.state.lock().unwrap().multipath = true;
    let mut wanted = wanted();
    wanted.disk.portals.extend(["192.0.2.2:3260".to_owned(), "192.0.2.3:3260".to_owned()]);
    // The third portal is away: two paths are enough, once it was tried twice.
    for _ in 0..2 {
        lab.machine.trouble("-p 192.0.2.3:3260 -I default --discover", Trouble::Fails(failed(4, "away")));
    }
    lab.set_up("u1", wanted.clone()).await.unwrap();
    assert_eq!(lab.machine.sessions(), 2);
    let calls = lab.machine.calls();
    let device = lab.machine.root.join("dev/dm-0").display().to_string();
    assert!(calls.contains(&format!("mkfs.ext4 -F -m0 {device}")), "{calls:?}");
    lab.iscsi.release("u1").await.unwrap();
    assert!(lab.machine.calls().contains(&format!("multipath -f {device}")));
    lab.is_clean();
}

#[tokio::test(start_paused = true)]
async fn an_initiator_of_its_own_has_an_interface_of_its_own() {
    let lab = lab();
    let mut wanted = wanted();
    wanted.disk.initiator = Some("iqn.2001-04.com.example:me".into());
    lab.set_up("u1", wanted).await.unwrap();
    let calls = lab.machine.calls();
    let at = "iscsiadm -m iface -I 192.0.2.1:3260:data -o";
    let expect = [
        "iscsiadm -m iface -I default -o show".to_owned(),
        format!("{at} new"),
        format!("{at} update -n iface.initiatorname -v iqn.2001-04.com.example:me"),
        format!("{at} update -n iface.transport_name -v tcp"),
    ];
    assert_eq!(calls[..4], expect);
    lab.iscsi.release("u1").await.unwrap();
    assert!(lab.machine.calls().contains(&format!("{at} delete")));
    lab.is_clean();
}

#[tokio::test(start_paused = true)]
async fn secrets_are_told_to_iscsiadm_only() {
    let lab = lab();
    let secrets = [("node.session.auth.password", "hush"), ("discovery.sendtargets.auth.password", "hush")];
    let secrets: super::Secrets = secrets.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let wanted = Wanted { chap_discovery: true, chap_session: true, ..wanted() };
    lab.machine.trouble("auth.password -v", Trouble::Fails(failed(7, "no")));
    let error = lab.iscsi.set_up(user("u1"), wanted.clone(), secrets.clone(), Group::default()).await.unwrap_err();
    assert!(error.why.contains("failed to update discoverydb") && !error.why.contains("hush"), "{error}");
    lab.iscsi.set_up(user("u1"), wanted, secrets, Group::default()).await.unwrap();
    let calls = lab.machine.calls();
    assert!(calls.contains(&format!("{NODE} -o update -n node.session.auth.password -v ***")), "{calls:?}");
    let record = walk(&lab.machine.root.join("kubelet/plugins"));
    assert!(record.contains("iqn.2001") && !record.contains("hush"), "{record}");
}

/// All that is written below a folder.
fn walk(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { std::fs::read_to_string(&path).unwrap() }).collect()
}

#[tokio::test(start_paused = true)]
async fn a_device_is_not_mounted() {
    let lab = lab();
    let mut wanted = wanted();
    wanted.disk.block = true;
    let device = lab.set_up("u1", wanted).await.unwrap();
    assert_eq!(device, lab.machine.root.join("dev/sd1l0"));
    let link = lab.machine.root.join("kubelet/pods/u1/volumeDevices/kubernetes.io~iscsi/data");
    assert_eq!(std::fs::read_link(&link).unwrap(), device);
    let calls = lab.machine.calls();
    assert!(calls.iter().all(|call| call.starts_with("iscsiadm")), "{calls:?}");
    lab.iscsi.release("u1").await.unwrap();
    assert!(!link.is_symlink());
    lab.is_clean();
}
