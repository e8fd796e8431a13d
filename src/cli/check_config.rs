//! Effects: `skiff check-config`: what this machine offers, line by line, and what is missing.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Server, check::Machine};
use crate::cri::containerd::find;

enum Finding {
    Good(String),
    /// Works, with less.
    Note(String),
    Bad(String),
}

use Finding::{Bad, Good, Note};

/// Prints every finding; fails when something necessary is missing.
pub fn run(config: &Server, machine: &Machine) -> ExitCode {
    let path = config.agent.as_ref().map_or(machine.search_path.as_str(), |a| a.search_path.as_str());
    let own_containerd = config.agent.as_ref().is_some_and(|a| a.runtime_endpoint.is_none());
    let mut findings = vec![Good("the configuration is valid".to_owned())];
    findings.push(cgroups());
    if own_containerd {
        findings.extend(["containerd", "runc"].map(|program| match find(program, path) {
            Some(at) => Good(format!("{program}: {}", at.display())),
            None => Bad(format!("{program} is missing: apt-get install containerd runc")),
        }));
    }
    findings.push(match find("nft", path) {
        Some(at) => Good(format!("nft: {}", at.display())),
        None => Bad("nft is missing: apt-get install nftables".to_owned()),
    });
    findings.push(match find("conntrack", path) {
        Some(at) => Good(format!("conntrack: {}", at.display())),
        None => {
            Note("conntrack is missing: UDP clients keep to endpoints that are gone until they time out".to_owned())
        }
    });
    if own_containerd && !Path::new("/etc/hosts").exists() {
        findings.push(Bad(
            "/etc/hosts is missing, which containerd gives to pods: echo '127.0.0.1 localhost' >/etc/hosts".into(),
        ));
    }
    for (file, name) in [("overlay", "overlay"), ("br_netfilter", "bridge"), ("vxlan", "vxlan")] {
        findings.push(module(file, name));
    }
    let mut bad = false;
    for finding in findings {
        match finding {
            Good(text) => println!("ok       {text}"),
            Note(text) => println!("note     {text}"),
            Bad(text) => {
                bad = true;
                println!("missing  {text}");
            }
        }
    }
    if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn cgroups() -> Finding {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        let missing: Vec<_> = ["cpu", "memory", "pids"]
            .into_iter()
            .filter(|c| !controllers.split_whitespace().any(|w| w == *c))
            .collect();
        return if missing.is_empty() {
            Good("cgroup v2".to_owned())
        } else {
            // Raspberry Pi OS starts its kernel without the memory controller.
            Bad(format!(
                "cgroup v2 without {}: add cgroup_enable=memory cgroup_memory=1 to /boot/firmware/cmdline.txt",
                missing.join(", ")
            ))
        };
    }
    match ["cpu", "memory"].into_iter().find(|c| !Path::new("/sys/fs/cgroup").join(c).exists()) {
        None => Good("cgroup v1".to_owned()),
        Some(missing) => Bad(format!("the cgroup controller {missing} is not mounted below /sys/fs/cgroup")),
    }
}

/// Built in, loaded, or loadable. A module that is loaded on demand cannot be told from a missing one without trying.
fn module(file: &str, name: &str) -> Finding {
    let loaded = Path::new("/sys/module").join(file).exists();
    let listed = fs::read_to_string("/proc/filesystems").is_ok_and(|t| t.split_whitespace().any(|w| w == name));
    if loaded || listed {
        Good(format!("kernel: {name}"))
    } else {
        Note(format!("kernel: {name} is not loaded yet; it is when first used, where the kernel has it"))
    }
}
