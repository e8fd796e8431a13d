//! What users, disks and dead processes do to a cluster, and what it says then.

use std::fs;
use std::process::{Command, Stdio};

use crate::lab::{Lab, binary, condition, wait_for};
use crate::support::skip;

fn fails(arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn unknown_flags_and_keys_are_all_named() {
    let text = fails(&["server", "--nope", "--data-dir=/tmp/x", "--also=1"]);
    assert!(text.contains("unknown flag: --nope") && text.contains("unknown flag: --also"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    fs::write(&file, "tokn: x\nfoo: 1\ncluster-cidr: nonsense\n").unwrap();
    let text = fails(&["server", &format!("--config={}", file.display())]);
    assert!(text.contains("tokn") && text.contains("foo"), "{text}");
}

#[test]
fn a_damaged_or_newer_database_is_left_alone() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::new(1);
    lab.launch_server_with(&["--disable-agent"]);
    wait_for("the server", || lab.json(&["get", "namespace", "default"]).ok());
    lab.machines[0].stop();
    let db = lab.machines[0].data_dir.join("server/db/state.db");
    let good = fs::read(&db).unwrap();

    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle..].fill(0x5a);
    fs::write(&db, &bad).unwrap();
    let says = |lab: &Lab| {
        let mut command = lab.machines[0].command(&binary());
        let data_dir = format!("--data-dir={}", lab.machines[0].data_dir.display());
        let kubeconfig = format!("--write-kubeconfig={}", lab.kubeconfig().display());
        let output = command.args(["server", "--disable-agent", &data_dir, &kubeconfig]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = says(&lab);
    assert!(text.contains("state.db") && text.contains("corrupt"), "{text}");
    assert_eq!(fs::read(&db).unwrap(), bad, "a corrupt database is not touched");

    // `user_version` is at offset 60 of the header (SQLite's file format), big-endian.
    let mut newer = good.clone();
    newer[60..64].copy_from_slice(&9999_u32.to_be_bytes());
    fs::write(&db, &newer).unwrap();
    let text = says(&lab);
    assert!(text.contains("state.db") && text.contains("newer version"), "{text}");
    assert_eq!(fs::read(&db).unwrap(), newer);
    fs::write(&db, &good).unwrap();
    lab.machines[0].restart();
    wait_for("the server with its database back", || lab.json(&["get", "namespace", "default"]).ok());
}

#[test]
fn a_full_disk_refuses_writes_and_recovers() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::new(1);
    let data_dir = lab.machines[0].data_dir.display().to_string();
    let mount =
        lab.machines[0].command("mount".as_ref()).args(["-t", "tmpfs", "-o", "size=24m", "tmpfs", &data_dir]).status();
    assert!(mount.unwrap().success());
    lab.launch_server_with(&["--disable-agent"]);
    wait_for("the server", || lab.json(&["get", "namespace", "default"]).ok());
    lab.kubectl(&["create", "configmap", "before", "--from-literal=a=b"]);
    let fill = format!("dd if=/dev/zero of={data_dir}/fill bs=4096 2>/dev/null; true");
    lab.machines[0].command("sh".as_ref()).args(["-c", &fill]).status().unwrap();

    let big = lab.dir.join("big");
    fs::write(&big, "x".repeat(200_000)).unwrap();
    let from_file = format!("--from-file={}", big.display());
    let mut count = 0;
    let refused = wait_for("a refused write", || {
        count += 1;
        let name = format!("big-{count}");
        let output = lab.kubectl_output(&["create", "configmap", &name, &from_file]);
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    });
    assert!(refused.contains("no space left"), "{refused}");
    assert!(lab.json(&["get", "configmap", "before"]).is_ok(), "reads go on");

    let fill = format!("{data_dir}/fill");
    lab.machines[0].command("rm".as_ref()).arg(&fill).status().unwrap();
    wait_for("writes again", || {
        lab.kubectl_output(&["create", "configmap", "after", "--from-literal=a=b"]).status.success().then_some(())
    });
}

#[test]
fn no_acknowledged_write_is_lost_by_a_kill() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::new(1);
    lab.launch_server_with(&["--disable-agent"]);
    wait_for("the server", || lab.json(&["get", "namespace", "default"]).ok());
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        for n in 0..5 {
            let name = format!("c{round}-{n}");
            if lab.kubectl_output(&["create", "configmap", &name, "--from-literal=a=b"]).status.success() {
                acknowledged.push(name);
            }
        }
        lab.machines[0].kill();
        lab.machines[0].restart();
        wait_for("the server", || lab.json(&["get", "namespace", "default"]).ok());
    }
    assert_eq!(acknowledged.len(), 15);
    let list = lab.json(&["get", "configmaps"]).unwrap().to_string();
    for name in acknowledged {
        assert!(list.contains(&format!("\"{name}\"")), "{name} was acknowledged and is gone");
    }
}

#[test]
fn a_dead_containerd_makes_the_node_not_ready_and_comes_back() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let lab = Lab::with_server(1);
    lab.kubectl(&["run", "sleeper", "--image=test.local/busybox:1"]);
    let running = |lab: &Lab| lab.json(&["get", "pod", "sleeper"]).is_ok_and(|p| p["status"]["phase"] == "Running");
    wait_for("the pod", || running(&lab).then_some(()));

    // It stops answering: the node says so, containerd is replaced, the pod never stopped.
    let pid_file = lab.machines[0].data_dir.join("agent/run/containerd.pid");
    let pid = fs::read_to_string(&pid_file).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    wait_for("NotReady", || {
        let node = lab.json(&["get", "node", "m1"]).ok()?;
        condition(&node, "Ready").is_some_and(|s| s == "False").then_some(())
    });
    let described = lab.kubectl(&["describe", "node", "m1"]);
    assert!(described.contains("KubeletNotReady"), "{described}");
    lab.node_ready("m1");
    let pod = lab.json(&["get", "pod", "sleeper"]).unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    assert!(running(&lab));
}

#[test]
fn uninstalling_takes_everything_away() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_server(2);
    lab.join(2);
    let inside = |lab: &Lab, script: &str| {
        let output = lab.machines[0].command("sh".as_ref()).args(["-c", script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let before = inside(&lab, "ls /run/netns");
    lab.kubectl(&["run", "sleeper", "--image=test.local/busybox:1"]);
    wait_for("the pod", || {
        lab.json(&["get", "pod", "sleeper"]).is_ok_and(|p| p["status"]["phase"] == "Running").then_some(())
    });
    // An agent that runs is ended with the rest.
    let data_dir = lab.machines[1].data_dir.clone();
    let arguments = ["uninstall", &format!("--data-dir={}", data_dir.display()), "--write-kubeconfig=/nonexistent"];
    let output = lab.machines[1].command(&binary()).args(arguments).output().unwrap();
    assert!(output.status.success() && !data_dir.exists(), "{output:?}");
    let agent = lab.machines[1].skiff.as_mut().unwrap();
    assert!(agent.try_wait().unwrap().is_some(), "the agent still runs");
    // Killed with its pod running, as by a power cut.
    lab.machines[0].kill();
    let data_dir = lab.machines[0].data_dir.clone();
    let arguments =
        [format!("--data-dir={}", data_dir.display()), format!("--write-kubeconfig={}", lab.kubeconfig().display())];
    let output = lab.machines[0].command(&binary()).arg("uninstall").args(&arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!data_dir.exists() && !lab.kubeconfig().exists());
    assert_eq!(inside(&lab, "ls /run/netns"), before);
    assert_eq!(inside(&lab, "nft list tables"), "");
    assert_eq!(inside(&lab, "ip -o link | grep -c -e cni0 -e vxlan -e veth").trim(), "0");
    let mark = data_dir.display().to_string();
    assert_eq!(inside(&lab, &format!("grep -c '{mark}' /proc/self/mountinfo")).trim(), "0");
    let processes = inside(&lab, &format!("pgrep -fc '[c]ontainerd.*{mark}'"));
    assert_eq!(processes.trim(), "0");
    let again = lab.machines[0].command(&binary()).arg("uninstall").args(&arguments).output().unwrap();
    assert!(again.status.success(), "a second time is harmless: {again:?}");
}
