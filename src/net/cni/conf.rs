//! Effects: what the container runtime finds: the configuration and the plugin's names.

use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::config::{BRIDGE, Cidr};

/// Name of the plugin, of its `type` and of the symlink to the binary.
pub const PLUGIN: &str = "skiff-cni";

/// Makes `<data_dir>/agent/cni/bin` with the names under which the runtime starts plugins, as symlinks to `binary`.
/// Returns the directory.
pub fn install(data_dir: &Path, binary: &Path) -> std::io::Result<PathBuf> {
    let directory = data_dir.join("agent/cni/bin");
    std::fs::create_dir_all(&directory)?;
    for name in [PLUGIN, "loopback"] {
        let path = directory.join(name);
        if std::fs::read_link(&path).is_ok_and(|target| target == binary) {
            continue;
        }
        // By rename: the runtime may start the plugin at any time.
        let draft = directory.join(format!(".{name}.new"));
        match std::fs::remove_file(&draft) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        symlink(binary, &draft)?;
        std::fs::rename(&draft, &path)?;
    }
    Ok(directory)
}

/// Writes `<data_dir>/agent/etc/cni/net.d/10-skiff.conflist` when it is not that already; says whether it did.
/// The runtime watches the directory and reports its network ready from then on.
pub fn write_conf(data_dir: &Path, pod_cidr: Cidr, mtu: u32) -> std::io::Result<bool> {
    let directory = data_dir.join("agent/etc/cni/net.d");
    let path = directory.join("10-skiff.conflist");
    let text = render(&data_dir.join("agent/cni/ipam"), pod_cidr, mtu);
    if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
        return Ok(false);
    }
    std::fs::create_dir_all(&directory)?;
    // Not `*.conflist`: the runtime must not read it half written.
    let draft = directory.join(".10-skiff.new");
    std::fs::write(&draft, text)?;
    std::fs::rename(&draft, &path)?;
    Ok(true)
}

fn render(state: &Path, pod_cidr: Cidr, mtu: u32) -> String {
    let conf = serde_json::json!({
        "cniVersion": super::protocol::DEFAULT_VERSION,
        "name": "skiff",
        "plugins": [{
            "type": PLUGIN,
            "bridge": BRIDGE,
            "mtu": mtu,
            "subnet": format!("{}/{}", pod_cidr.address, pod_cidr.prefix),
            "stateDir": state,
            "capabilities": { "portMappings": true },
        }],
    });
    format!("{conf:#}\n")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_configuration_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let cidr = Cidr { address: Ipv4Addr::new(10, 42, 3, 0), prefix: 24 };
        assert!(write_conf(directory.path(), cidr, 1450).unwrap());
        assert!(!write_conf(directory.path(), cidr, 1450).unwrap());
        assert!(write_conf(directory.path(), cidr, 1400).unwrap());
        let text = std::fs::read_to_string(directory.path().join("agent/etc/cni/net.d/10-skiff.conflist")).unwrap();
        let conf: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(conf["plugins"][0]["subnet"], "10.42.3.0/24");
        assert_eq!(conf["plugins"][0]["type"], "skiff-cni");
        assert_eq!(std::fs::read_dir(directory.path().join("agent/etc/cni/net.d")).unwrap().count(), 1);
    }

    #[test]
    fn the_plugin_is_linked_and_relinked() {
        let directory = tempfile::tempdir().unwrap();
        install(directory.path(), Path::new("/old/skiff")).unwrap();
        let bin = install(directory.path(), Path::new("/usr/local/bin/skiff")).unwrap();
        assert_eq!(std::fs::read_link(bin.join("skiff-cni")).unwrap(), Path::new("/usr/local/bin/skiff"));
        assert_eq!(std::fs::read_dir(bin).unwrap().count(), 2);
    }
}
