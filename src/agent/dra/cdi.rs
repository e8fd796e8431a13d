//! Decides: what CDI names stand for: variables, mounts and device nodes, as the specifications in `/etc/cdi` and
//! `/var/run/cdi` say. containerd does this from 1.7 on; for an older one, which several distributions still ship, it is
//! done here. Hooks are only for a runtime: a device that has some is refused.
//!
//! See the Container Device Interface specification, `cncf-tags/container-device-interface`.

use std::path::Path;

use serde::Deserialize;

use crate::agent::devices::protocol::{DeviceSpec, Mount};
use crate::agent::devices::record::Additions;
use crate::cri;

/// In order; the last one that knows a device is right.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Longer specifications are somebody's mistake. In bytes.
const LONGEST: u64 = 4 << 20;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Such as `vendor.com/gpu`.
    kind: String,
    devices: Vec<Device>,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    hooks: Vec<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: String,
    permissions: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Bind {
    host_path: String,
    container_path: String,
    options: Vec<String>,
}

/// Whether the runtime does this itself.
#[must_use]
pub fn runtime_knows(version: &cri::Version) -> bool {
    let mut numbers = version.version.trim_start_matches('v').split(['.', '-', '~', '+']).map(str::parse::<u32>);
    let (major, minor) = (numbers.next(), numbers.next());
    let (Some(Ok(major)), Some(Ok(minor))) = (major, minor) else { return true };
    version.name != "containerd" || (major, minor) >= (1, 7)
}

/// Reads what is on this machine. A file that is not understood is logged and passed by, as the runtime does.
#[must_use]
pub fn read() -> Vec<Spec> {
    DIRECTORIES.iter().flat_map(|directory| read_directory(Path::new(directory))).collect()
}

fn read_directory(directory: &Path) -> Vec<Spec> {
    let mut files: Vec<_> = std::fs::read_dir(directory).into_iter().flatten().flatten().collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    let parse = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let extension = path.extension()?.to_str()?.to_owned();
        if !entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LONGEST) {
            return None;
        }
        let text = std::fs::read_to_string(&path).ok()?;
        let parsed = match extension.as_str() {
            "json" => serde_json::from_str(&text).map_err(|error| error.to_string()),
            "yaml" => serde_saphyr::from_str(&text).map_err(|error| error.to_string()),
            _ => return None,
        };
        parsed.inspect_err(|error| tracing::warn!(error, path = %path.display(), "CDI specification not read")).ok()
    };
    files.into_iter().filter_map(parse).collect()
}

/// Replaces the names by what they stand for.
///
/// # Errors
/// When a name is not known, or the device needs a hook.
pub fn inject(additions: &mut Additions, specs: &[Spec]) -> Result<(), String> {
    let mut edited = Vec::new();
    for name in std::mem::take(&mut additions.cdi) {
        let found = specs.iter().enumerate().rev().find_map(|(index, spec)| {
            let own = name.strip_prefix(spec.kind.as_str())?.strip_prefix('=')?;
            spec.devices.iter().find(|device| device.name == own).map(|device| (index, spec, device))
        });
        let (index, spec, device) =
            found.ok_or_else(|| format!("CDI device injection failed: unresolvable CDI devices {name}"))?;
        // Once for all devices of a specification.
        if !edited.contains(&index) {
            edited.push(index);
            edit(additions, &name, &spec.container_edits)?;
        }
        edit(additions, &name, &device.container_edits)?;
    }
    Ok(())
}

fn edit(additions: &mut Additions, name: &str, edits: &Edits) -> Result<(), String> {
    if !edits.hooks.is_empty() {
        return Err(format!("CDI device injection failed: {name} has hooks, which need containerd 1.7 or later"));
    }
    additions.env.extend(edits.env.iter().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    }));
    additions.devices.extend(edits.device_nodes.iter().map(|node| DeviceSpec {
        container_path: node.path.clone(),
        host_path: if node.host_path.is_empty() { &node.path } else { &node.host_path }.clone(),
        permissions: if node.permissions.is_empty() { "rwm" } else { &node.permissions }.to_owned(),
    }));
    additions.mounts.extend(edits.mounts.iter().map(|bind| Mount {
        container_path: bind.container_path.clone(),
        host_path: bind.host_path.clone(),
        read_only: bind.options.iter().any(|option| option == "ro"),
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"{"cdiVersion": "0.5.0", "kind": "vendor.com/gpu",
        "containerEdits": {"env": ["ALL=1"], "mounts": [{"hostPath": "/h", "containerPath": "/c", "options": ["ro", "bind"]}]},
        "devices": [
            {"name": "0", "containerEdits": {"env": ["GPU=a=b"], "deviceNodes": [{"path": "/dev/g0"}]}},
            {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/g", "hostPath": "/dev/g1", "permissions": "r"}]}},
            {"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/x"}]}}]}"#;

    fn injected(names: &[&str]) -> Result<Additions, String> {
        let specs = [serde_json::from_str(SPEC).expect("a specification")];
        let cdi = names.iter().map(|name| (*name).to_owned()).collect();
        let mut additions = Additions { cdi, ..Additions::default() };
        inject(&mut additions, &specs).map(|()| additions)
    }

    #[test]
    fn names_become_what_they_stand_for() {
        let found = injected(&["vendor.com/gpu=0", "vendor.com/gpu=1"]).expect("known");
        let show = |d: &DeviceSpec| format!("{}:{}:{}", d.host_path, d.container_path, d.permissions);
        assert_eq!(found.env, [("ALL".into(), "1".into()), ("GPU".into(), "a=b".into())]);
        assert_eq!(found.devices.iter().map(show).collect::<Vec<_>>(), ["/dev/g0:/dev/g0:rwm", "/dev/g1:/dev/g:r"]);
        assert_eq!(found.mounts.len(), 1);
        assert!(found.mounts[0].read_only && found.cdi.is_empty());
    }

    #[test]
    fn what_is_not_known_or_cannot_be_done_is_told() {
        for (name, expect) in [
            ("vendor.com/gpu=2", "CDI device injection failed: unresolvable CDI devices vendor.com/gpu=2"),
            ("vendor.com/gpux=0", "CDI device injection failed: unresolvable CDI devices vendor.com/gpux=0"),
            (
                "vendor.com/gpu=hooked",
                "CDI device injection failed: vendor.com/gpu=hooked has hooks, which need containerd 1.7 or later",
            ),
        ] {
            assert_eq!(injected(&[name]).expect_err("refused"), expect);
        }
    }

    #[test]
    fn which_runtimes_need_no_help() {
        let knows =
            |name: &str, version: &str| runtime_knows(&cri::Version { name: name.into(), version: version.into() });
        let found = [knows("containerd", "1.6.20~ds1"), knows("containerd", "v1.7.2"), knows("containerd", "2.1.0")];
        assert_eq!(found, [false, true, true]);
        assert!(knows("cri-o", "1.2.3") && knows("containerd", "unknown"));
    }

    #[test]
    fn files_that_are_wrong_are_passed_by() {
        let directory = tempfile::tempdir().expect("temporary directory");
        for (name, text) in
            [("a.json", SPEC), ("b.json", "{"), ("c.yaml", "kind: v.com/x\ndevices: [{name: y}]"), ("d", "")]
        {
            std::fs::write(directory.path().join(name), text).expect("written");
        }
        let found: Vec<String> = read_directory(directory.path()).into_iter().map(|spec| spec.kind).collect();
        assert_eq!(found, ["vendor.com/gpu", "v.com/x"]);
    }
}
