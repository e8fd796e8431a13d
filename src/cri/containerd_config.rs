//! Decides: containerd's configuration, from what the machine can do.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where everything of the supervised containerd lives, all below the agent's directory.
#[derive(Clone, Debug)]
pub struct Layout {
    /// `<data_dir>/agent`
    agent: PathBuf,
}

impl Layout {
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { agent: data_dir.join("agent") }
    }

    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.agent.join("containerd")
    }

    /// Bundles and task state. Not on a tmpfs: what a power cut leaves is found and cleaned up by containerd itself.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.agent.join("run/containerd")
    }

    /// The bundles of containers and sandboxes.
    #[must_use]
    pub fn tasks(&self) -> PathBuf {
        self.state().join("io.containerd.runtime.v2.task/k8s.io")
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state().join("containerd.sock")
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.agent.join("etc/containerd/config.toml")
    }

    #[must_use]
    pub fn registries(&self) -> PathBuf {
        self.agent.join("etc/containerd/certs.d")
    }

    #[must_use]
    pub fn cni_conf(&self) -> PathBuf {
        self.agent.join("etc/cni/net.d")
    }

    #[must_use]
    pub fn cni_bin(&self) -> PathBuf {
        self.agent.join("cni/bin")
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.agent.join("containerd.log")
    }

    #[must_use]
    pub fn pid(&self) -> PathBuf {
        self.agent.join("run/containerd.pid")
    }

    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.agent.join("images")
    }
}

/// What had to be found out about the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The process may lower OOM scores (CAP_SYS_RESOURCE).
    pub may_lower_oom_score: bool,
    /// An overlay can be mounted on the file system of the data directory.
    pub overlayfs: bool,
}

/// `config.toml`, version 2: read by containerd 1.5 and later, migrated in memory by 2.x.
#[must_use]
pub fn render(layout: &Layout, machine: Machine, sandbox_image: &str) -> String {
    let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
    let snapshotter = if machine.overlayfs { "overlayfs" } else { "native" };
    let mut text = String::from("# Written by skiff at every start; changes are lost.\nversion = 2\n");
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key} = {value}");
    };
    line("root", &quoted(layout.root()));
    line("state", &quoted(layout.state()));
    // Snapshotters and services that CRI does not need cost memory and start-up time.
    line(
        "disabled_plugins",
        r#"["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.opt"]"#,
    );
    text.push_str("\n[grpc]\n");
    let _ = writeln!(text, "address = {}", quoted(layout.socket()));
    text.push_str("\n[debug]\nlevel = \"warn\"\n");
    text.push_str("\n[plugins.\"io.containerd.grpc.v1.cri\"]\n");
    let _ = writeln!(text, "sandbox_image = {sandbox_image:?}");
    // Devices by name (CDI): on by itself from 2.0, and not known before 1.7.
    text.push_str("enable_cdi = true\n");
    let _ = writeln!(text, "restrict_oom_score_adj = {}", !machine.may_lower_oom_score);
    text.push_str("stream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n");
    text.push_str("enable_unprivileged_ports = true\nenable_unprivileged_icmp = true\n");
    text.push_str("\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n");
    let _ = writeln!(text, "bin_dir = {}", quoted(layout.cni_bin()));
    let _ = writeln!(text, "conf_dir = {}", quoted(layout.cni_conf()));
    text.push_str("\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n");
    let _ = writeln!(text, "snapshotter = {snapshotter:?}");
    text.push_str("\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n");
    text.push_str("runtime_type = \"io.containerd.runc.v2\"\n");
    text.push_str(
        "\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = false\n",
    );
    text.push_str("\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n");
    let _ = writeln!(text, "config_path = {}", quoted(layout.registries()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_below_the_data_directory() {
        let layout = Layout::new(Path::new("/data"));
        let machine = Machine { may_lower_oom_score: false, overlayfs: true };
        let text = render(&layout, machine, "p:1");
        for path in text.split('"').filter(|t| t.starts_with('/')) {
            assert!(path.starts_with("/data/agent/"), "{path}");
        }
        assert!(text.contains("restrict_oom_score_adj = true\n"));
        assert!(text.contains("snapshotter = \"overlayfs\"\n"));
    }

    #[test]
    fn a_machine_without_overlayfs_copies() {
        let machine = Machine { may_lower_oom_score: true, overlayfs: false };
        let text = render(&Layout::new(Path::new("/data")), machine, "p:1");
        assert!(text.contains("restrict_oom_score_adj = false\n"));
        assert!(text.contains("snapshotter = \"native\"\n"));
    }
}
