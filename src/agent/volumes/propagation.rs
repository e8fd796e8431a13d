//! Effects: mounts that a container makes in the folders of pods and plug-ins are seen by the node, and those of the node
//! by containers: the folders are on a shared mount, as upstream's kubelet has it (`MakeRShared`). Under systemd
//! everything is; elsewhere each folder is mounted on itself.

use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::agent::context::Paths;

/// Makes the folders, and their mounts where they need one. What fails keeps drivers from mounting, and nothing else.
pub fn prepare(paths: &Paths) {
    if let Err(error) = paths.claim() {
        return tracing::warn!(%error, path = %paths.kubelet.display(), "folder for pods not made");
    }
    for folder in [&paths.pods, &paths.kubelet.join("plugins")] {
        if let Err(error) = share(folder) {
            let path = folder.display();
            tracing::warn!(%error, %path, "mounts of containers are not seen by the node: volume drivers cannot work");
        }
    }
}

fn share(folder: &Path) -> std::io::Result<()> {
    let real = std::fs::canonicalize(folder)?;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    if is_shared(&table, &real) {
        return Ok(());
    }
    let none = None::<&str>;
    mount(Some(&real), &real, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    mount(none, &real, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none)?;
    Ok(())
}

/// Whether the mount that has the folder is shared: by the optional fields of its line (proc(5)).
fn is_shared(table: &str, folder: &Path) -> bool {
    let rows = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        let point = Path::new(fields.next()?);
        let shared = fields.skip(1).take_while(|field| *field != "-").any(|field| field.starts_with("shared:"));
        folder.starts_with(point).then_some((point.components().count(), shared))
    });
    // Of two on the same folder, the later one covers the other.
    rows.max_by_key(|(depth, _)| *depth).is_some_and(|(_, shared)| shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_mount_decides() {
        let table = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            28 27 0:1 / /var rw,relatime shared:7 - ext4 /dev/vdb rw\n\
            29 28 0:1 / /var/lib rw,relatime master:3 - ext4 /dev/vdb rw\n\
            30 29 0:1 / /var/lib/x rw,relatime shared:9 master:3 - ext4 /dev/vdb rw\n";
        for (folder, expect) in [
            ("/etc", false),
            ("/var/log", true),
            ("/var/lib/y", false),
            ("/var/lib/x/pods", true),
            ("/variable", false),
        ] {
            assert_eq!(is_shared(table, Path::new(folder)), expect, "{folder}");
        }
        let again = format!("{table}31 28 0:1 / /var rw,relatime - tmpfs x rw\n");
        assert!(!is_shared(&again, Path::new("/var/log")), "covered");
    }
}
