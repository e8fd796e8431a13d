//! Fake: a machine with open-iscsi, and a target: what commands do to sysfs, devices and the table of mounts, in a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::agent::volumes::tools::{Call, Failed, Runner, Why};

const SHOWN: &str = "# BEGIN RECORD\niface.iscsi_ifacename = default\niface.transport_name = tcp\n# END RECORD\n";

/// What happens to a call instead of, or besides, what it asks for.
#[derive(Clone, Debug)]
pub enum Trouble {
    Fails(Failed),
    /// It is done, but says that it is not.
    DoneBut(Failed),
    /// It never ends.
    Hangs,
}

pub fn failed(status: i32, output: &str) -> Failed {
    Failed { why: Why::Status(status), output: output.into() }
}

#[derive(Default)]
pub struct State {
    pub calls: Vec<String>,
    /// The first call that has the text gets it, once.
    pub troubles: Vec<(String, Trouble)>,
    /// Disks that the kernel finds by itself at a login.
    pub luns: Vec<i32>,
    /// Whether multipathd joins what is one disk.
    pub multipath: bool,
    /// File systems by device.
    pub formats: BTreeMap<String, String>,
    records: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    next: u32,
}

/// A machine in a folder.
#[derive(Clone)]
pub struct Machine {
    pub root: PathBuf,
    pub state: Arc<Mutex<State>>,
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

impl Machine {
    pub fn new(root: &Path) -> Machine {
        write(&root.join("proc/self/mountinfo"), "");
        fs::create_dir_all(root.join("dev")).unwrap();
        let state = State { luns: vec![0], ..State::default() };
        Machine { root: root.to_owned(), state: Arc::new(Mutex::new(state)) }
    }

    pub fn trouble(&self, at: &str, trouble: Trouble) {
        self.state.lock().unwrap().troubles.push((at.to_owned(), trouble));
    }

    /// Those of programs that change something, since it was asked last.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    pub fn sessions(&self) -> usize {
        names(&self.root.join("sys/class/iscsi_session")).len()
    }

    pub fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string(self.root.join("proc/self/mountinfo")).unwrap();
        table.lines().map(|line| line.split(' ').nth(4).unwrap().to_owned()).collect()
    }

    /// As iscsid does it.
    pub fn begin_session(&self, portal: &str, iqn: &str, interface: &str) {
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        self.session(&mut state, portal, iqn, interface);
    }

    fn session(&self, state: &mut State, portal: &str, iqn: &str, interface: &str) {
        let (number, sys) = (state.next, self.root.join("sys"));
        let directory = sys.join(format!("devices/platform/host{number}/session{number}"));
        fs::create_dir_all(&directory).unwrap();
        let class = sys.join(format!("class/iscsi_session/session{number}"));
        write(&class.join("targetname"), &format!("{iqn}\n"));
        write(&class.join("ifacename"), &format!("{interface}\n"));
        symlink(&directory, class.join("device")).unwrap();
        let (address, port) = portal.rsplit_once(':').unwrap();
        let connection = sys.join(format!("class/iscsi_connection/connection{number}:0"));
        write(&connection.join("persistent_address"), &format!("{address}\n"));
        write(&connection.join("persistent_port"), &format!("{port}\n"));
        write(&sys.join(format!("class/scsi_host/host{number}/scan")), "");
        for lun in state.luns.clone() {
            self.unit(state, number, lun);
        }
    }

    fn unit(&self, state: &State, number: u32, lun: i32) {
        let name = format!("sd{number}l{lun}");
        let session = self.root.join(format!("sys/devices/platform/host{number}/session{number}"));
        let unit = session.join(format!("target{number}:0:0/{number}:0:0:{lun}/block/{name}"));
        fs::create_dir_all(unit).unwrap();
        let block = self.root.join("sys/class/block");
        write(&block.join(&name).join("device/delete"), "");
        write(&self.root.join("dev").join(&name), "");
        if state.multipath {
            fs::create_dir_all(block.join(&name).join("holders/dm-0")).unwrap();
            write(&block.join("dm-0/dm/uuid"), "mpath-1\n");
            write(&self.root.join("dev/dm-0"), "");
        }
    }

    /// The kernel finds a disk in the first session.
    pub fn found(&self, lun: i32) {
        self.unit(&self.state.lock().unwrap(), 1, lun);
    }

    fn log_out(&self, portal: &str, iqn: &str, interface: &str) -> Result<String, Failed> {
        let all = self.root.join("sys/class/iscsi_session");
        let read = |path: PathBuf| fs::read_to_string(path).unwrap().trim().to_owned();
        for name in names(&all) {
            let number = name.strip_prefix("session").unwrap();
            let connection = self.root.join(format!("sys/class/iscsi_connection/connection{number}:0"));
            let at = ["persistent_address", "persistent_port"].map(|file| read(connection.join(file))).join(":");
            let session = all.join(&name);
            if at == portal && read(session.join("targetname")) == iqn && read(session.join("ifacename")) == interface {
                fs::remove_dir_all(session).unwrap();
                fs::remove_dir_all(self.root.join(format!("sys/devices/platform/host{number}"))).unwrap();
                return Ok(String::new());
            }
        }
        Err(failed(21, "iscsiadm: No matching sessions found"))
    }

    fn mount(&self, arguments: &[&str]) -> Result<String, Failed> {
        let path = self.root.join("proc/self/mountinfo");
        let mut table = fs::read_to_string(&path).unwrap();
        match arguments {
            ["-t", _, "-o", options, "--", device, target] => {
                let mode = if options.split(',').any(|option| option == "ro") { "ro" } else { "rw" };
                table += &format!("1 0 8:16 / {target} {mode} - ext4 {device} {mode}\n");
            }
            ["-o", "remount,rw", "--", target] => {
                let line = table.lines().find(|line| line.contains(&format!(" {target} "))).unwrap().to_owned();
                table = table.replace(&line, &line.replace(" ro", " rw"));
            }
            ["-o", options, "--", source, target] => {
                let from = table.lines().find(|line| line.contains(&format!(" {source} "))).unwrap();
                let (_, of_disk) = from.split_once(" - ").unwrap();
                let mode = if options.ends_with("ro") { "ro" } else { "rw" };
                let line = format!("1 0 8:16 / {target} {mode} - {of_disk}\n");
                table += &line;
            }
            other => panic!("{other:?}"),
        }
        fs::write(path, table).unwrap();
        Ok(String::new())
    }

    fn unmount(&self, target: &str) -> String {
        let path = self.root.join("proc/self/mountinfo");
        let table = fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = table.split_inclusive('\n').filter(|l| l.split(' ').nth(4) != Some(target)).collect();
        fs::write(path, kept.concat()).unwrap();
        String::new()
    }

    fn carry_out(&self, call: &Call) -> Result<String, Failed> {
        let arguments: Vec<&str> = call.arguments.iter().map(String::as_str).collect();
        let mut state = self.state.lock().unwrap();
        let done = Ok(String::new());
        match (call.program.as_str(), arguments.as_slice()) {
            ("iscsiadm", ["-m", "iface", _, _, _, "show"]) => Ok(SHOWN.into()),
            ("iscsiadm", ["-m", "iface", "-I", name, "-o", "new"]) => match state.interfaces.insert((*name).to_owned())
            {
                true => done,
                false => Err(failed(15, "exists")),
            },
            ("iscsiadm", ["-m", "iface", "-I", name, "-o", "delete"]) => match state.interfaces.remove(*name) {
                true => done,
                false => Err(failed(21, "no records found")),
            },
            ("iscsiadm", ["-m", "discoverydb", "-t", _, "-p", portal, "-I", interface, "--discover"]) => {
                state.records.insert(format!("{portal} {interface}"));
                done
            }
            ("iscsiadm", ["-m", "iface" | "discoverydb", ..]) => done,
            ("iscsiadm", ["-m", "node", "-p", portal, "-T", iqn, "-I", interface, rest @ ..]) => {
                let record = format!("{portal} {interface}");
                match rest {
                    ["--logout"] => self.log_out(portal, iqn, interface),
                    _ if !state.records.contains(&record) => Err(failed(21, "iscsiadm: No records found")),
                    ["--login"] => {
                        state.next += 1;
                        self.session(&mut state, portal, iqn, interface);
                        done
                    }
                    ["-o", "delete"] => {
                        state.records.remove(&record);
                        done
                    }
                    _ => done,
                }
            }
            ("blkid", [.., device]) => match state.formats.get(*device) {
                Some(format) => Ok(format!("DEVNAME={device}\nTYPE={format}\n")),
                None => Err(failed(2, "")),
            },
            (program, [.., device]) if program.starts_with("mkfs.") => {
                state.formats.insert((*device).to_owned(), program.trim_start_matches("mkfs.").to_owned());
                done
            }
            ("fsck" | "multipath", _) => done,
            ("mount", arguments) => self.mount(arguments),
            ("umount", ["--", target]) => Ok(self.unmount(target)),
            _ => panic!("nobody knows {call:?}"),
        }
    }
}

#[async_trait]
impl Runner for Machine {
    async fn run(&self, call: &Call) -> Result<String, Failed> {
        let trouble = {
            let mut state = self.state.lock().unwrap();
            let shown = format!("{call:?}");
            let at = state.troubles.iter().position(|(at, _)| shown.contains(at.as_str()));
            state.calls.push(shown);
            at.map(|at| state.troubles.remove(at).1)
        };
        match trouble {
            None => self.carry_out(call),
            Some(Trouble::Fails(failed)) => Err(failed),
            Some(Trouble::DoneBut(failed)) => self.carry_out(call).and(Err(failed)),
            Some(Trouble::Hangs) => std::future::pending().await,
        }
    }
}
