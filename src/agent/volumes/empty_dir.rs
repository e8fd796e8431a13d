//! Effects: `emptyDir` volumes, on disk, in memory, or in huge pages (`pkg/volume/emptydir`).

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use nix::mount::{MsFlags, mount};

use super::memory::InMemory;
use super::{Failure, fields, teardown};
use crate::agent::cgroups::{self, bytes};

/// Where what is in the volume is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    Disk,
    /// At most this many bytes.
    Memory(i64),
    /// With pages of this many bytes.
    HugePages(i64),
}

/// What the volume is made of.
pub(super) fn medium(pod: &Pod, source: &EmptyDirVolumeSource, node: &fields::Allocatable) -> Result<Medium, Failure> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(Medium::Disk),
        "Memory" => Ok(Medium::Memory(memory_bytes(pod, source, node))),
        "HugePages" => match huge_pages(pod).as_slice() {
            [one] => Ok(Medium::HugePages(*one)),
            [] => Err(Failure::HugePages("no HugePages resources are requested by the pod".into())),
            _ => Err(Failure::HugePages(
                "medium `HugePages` can't be used if container requests multiple huge page sizes".into(),
            )),
        },
        other => match other.strip_prefix("HugePages-").map(bytes) {
            Some(size) if huge_pages(pod).contains(&size) => Ok(Medium::HugePages(size)),
            Some(_) => Err(Failure::HugePages(format!("medium {other} is not requested by any container"))),
            None => Err(Failure::HugePages(format!("unknown storage medium {other:?}"))),
        },
    }
}

/// No more than all pods of the node may have, than the pod may have, than the volume is to have.
fn memory_bytes(pod: &Pod, source: &EmptyDirVolumeSource, node: &fields::Allocatable) -> i64 {
    let own = source.size_limit.as_ref().map(|limit| bytes(&limit.0));
    let of_pod = cgroups::pod_resources(pod).memory_limit_bytes;
    let limits = [Some(node.memory_bytes), of_pod, own].into_iter().flatten().filter(|limit| *limit > 0);
    limits.min().unwrap_or(0)
}

/// Sizes of the huge pages that containers of the pod have.
fn huge_pages(pod: &Pod) -> Vec<i64> {
    let containers = crate::agent::pod::containers(pod);
    let resources = containers.filter_map(|(_, container)| container.resources.as_ref()?.limits.as_ref());
    let mut sizes: Vec<i64> =
        resources.flatten().filter_map(|(name, _)| name.strip_prefix("hugepages-").map(bytes)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

pub(super) fn make(
    directory: &Path,
    medium: &Medium,
    fs_group: Option<i64>,
    in_memory: InMemory,
) -> Result<(), Failure> {
    // A container may have changed owner and mode since: only a new directory gets ours.
    if directory.is_dir() && (*medium == Medium::Disk || teardown::is_mount_point(directory)) {
        return Ok(());
    }
    std::fs::create_dir_all(directory).map_err(Failure::io(directory))?;
    match medium {
        Medium::Disk => {}
        Medium::Memory(size) => in_memory.mount(directory, *size)?,
        Medium::HugePages(size) => {
            let (kind, options) = (Some("hugetlbfs"), format!("pagesize={size}"));
            let mounted = mount(kind, directory, kind, MsFlags::empty(), Some(options.as_str()));
            mounted.map_err(|errno| Failure::io(directory)(errno.into()))?;
        }
    }
    let group = fs_group.and_then(|gid| u32::try_from(gid).ok());
    if group.is_some() {
        chown(directory, None, group).map_err(Failure::io(directory))?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode)).map_err(Failure::io(directory))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(source: Value, limits: Value) -> Result<Medium, String> {
        let container = json!({"name": "c", "resources": {"limits": limits}});
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap();
        let source: EmptyDirVolumeSource = serde_json::from_value(source).unwrap();
        let node = fields::Allocatable { memory_bytes: 1000, ..fields::Allocatable::default() };
        medium(&pod, &source, &node).map_err(|error| error.to_string())
    }

    #[test]
    fn memory_is_bounded_by_the_volume_the_pod_and_the_node() {
        assert_eq!(found(json!({}), json!({})), Ok(Medium::Disk));
        for (limit, memory, expect) in [
            (Value::Null, Value::Null, 1000),
            (json!("100"), Value::Null, 100),
            (json!("5000"), Value::Null, 1000),
            (Value::Null, json!("200"), 200),
            (json!("300"), json!("200"), 200),
            (json!("100"), json!("200"), 100),
        ] {
            let limits = if memory.is_null() { json!({}) } else { json!({"memory": memory}) };
            let source = json!({"medium": "Memory", "sizeLimit": limit});
            assert_eq!(found(source.clone(), limits.clone()), Ok(Medium::Memory(expect)), "{source} {limits}");
        }
    }

    #[test]
    fn huge_pages_are_those_that_the_pod_has() {
        let two = json!({"hugepages-2Mi": "4Mi"});
        assert_eq!(found(json!({"medium": "HugePages"}), two.clone()), Ok(Medium::HugePages(2 << 20)));
        assert_eq!(found(json!({"medium": "HugePages-2Mi"}), two.clone()), Ok(Medium::HugePages(2 << 20)));
        assert!(found(json!({"medium": "HugePages-1Gi"}), two).is_err());
        assert!(found(json!({"medium": "HugePages"}), json!({})).is_err());
        assert!(found(json!({"medium": "Tape"}), json!({})).is_err());
    }
}
