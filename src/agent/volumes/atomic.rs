//! Effects: writes a set of files so that a reader sees all of the old or all of the new ones.
//!
//! ```text
//! <volume>/key      → ..data/key
//! <volume>/..data   → ..2026_11_21_23_59_59.123456789     replaced by rename(2)
//! ```
//! The layout is the kubelet's: programs watch `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use super::Failure;
use crate::clock;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Relative paths to contents and permission bits.
pub(super) type Payload = BTreeMap<String, File>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
}

pub(super) fn write(directory: &Path, payload: &Payload, fs_group: Option<i64>) -> Result<(), Failure> {
    if let Some(bad) = payload.keys().find(|path| !is_clean(path)) {
        return Err(Failure::Path(bad.clone()));
    }
    std::fs::create_dir_all(directory).map_err(Failure::io(directory))?;
    let permissions = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(directory, permissions).map_err(Failure::io(directory))?;
    let current = std::fs::read_link(directory.join(DATA)).ok();
    if current.is_some() && same(&directory.join(DATA), payload) {
        return link_names(directory, payload);
    }
    let version = PathBuf::from(format!("..{}", clock::now().strftime("%Y_%m_%d_%H_%M_%S.%N")));
    let target = directory.join(&version);
    write_version(&target, payload, fs_group)?;
    let new = directory.join(DATA_NEW);
    remove(&new)?;
    symlink(&version, &new).map_err(Failure::io(&new))?;
    std::fs::rename(&new, directory.join(DATA)).map_err(Failure::io(&new))?;
    link_names(directory, payload)?;
    if let Some(old) = current.filter(|old| *old != version) {
        let old = directory.join(old);
        std::fs::remove_dir_all(&old).map_err(Failure::io(&old))?;
    }
    Ok(())
}

/// Whether there are files.
pub(super) fn is_written(directory: &Path) -> bool {
    directory.join(DATA).exists()
}

/// Relative, no `..`, nothing that could leave the directory.
fn is_clean(path: &str) -> bool {
    let parts = Path::new(path).components();
    !path.is_empty() && !path.starts_with("..") && parts.into_iter().all(|part| matches!(part, Component::Normal(_)))
}

fn write_version(target: &Path, payload: &Payload, fs_group: Option<i64>) -> Result<(), Failure> {
    std::fs::create_dir_all(target).map_err(Failure::io(target))?;
    let group = fs_group.and_then(|gid| u32::try_from(gid).ok());
    let mut directories = BTreeSet::from([target.to_owned()]);
    for (name, file) in payload {
        let path = target.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Failure::io(parent))?;
            directories.extend(parent.ancestors().take_while(|p| p.starts_with(target)).map(Path::to_owned));
        }
        std::fs::write(&path, &file.bytes).map_err(Failure::io(&path))?;
        // A volume with a group is readable by it, whatever the mode says.
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(Failure::io(&path))?;
        if group.is_some() {
            chown(&path, None, group).map_err(Failure::io(&path))?;
        }
    }
    for directory in directories {
        let mode = if group.is_some() { 0o2775 } else { 0o755 };
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(mode)).map_err(Failure::io(&directory))?;
        if group.is_some() {
            chown(&directory, None, group).map_err(Failure::io(&directory))?;
        }
    }
    Ok(())
}

fn same(data: &Path, payload: &Payload) -> bool {
    let mut present = Vec::new();
    list(data, data, &mut present);
    present.len() == payload.len()
        && payload.iter().all(|(name, file)| std::fs::read(data.join(name)).is_ok_and(|bytes| bytes == file.bytes))
}

fn list(root: &Path, directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(root, &entry.path(), found),
            _ => found.extend(entry.path().strip_prefix(root).map(Path::to_owned)),
        }
    }
}

/// Makes the visible names and removes those of files that are gone.
fn link_names(directory: &Path, payload: &Payload) -> Result<(), Failure> {
    let tops: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in std::fs::read_dir(directory).map_err(Failure::io(directory))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !tops.contains(name.as_ref()) {
            remove(&entry.path())?;
        }
    }
    for top in tops {
        let link = directory.join(top);
        match symlink(Path::new(DATA).join(top), &link) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(Failure::io(&link)(error)),
            _ => {}
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { bytes: text.into(), mode: 0o640 };
        files.iter().map(|(name, text)| ((*name).to_owned(), file(text))).collect()
    }

    fn read(directory: &Path, name: &str) -> Option<String> {
        std::fs::read_to_string(directory.join(name)).ok()
    }

    #[test]
    fn files_are_replaced_together() {
        let root = tempfile::tempdir().expect("temporary directory");
        let directory = root.path().join("volume");
        write(&directory, &payload(&[("a", "1"), ("sub/b", "2")]), None).expect("written");
        assert_eq!((read(&directory, "a"), read(&directory, "sub/b")), (Some("1".into()), Some("2".into())));
        let first = std::fs::read_link(directory.join(DATA)).expect("a link");
        let mode = std::fs::metadata(directory.join("a")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);

        write(&directory, &payload(&[("a", "1"), ("sub/b", "2")]), None).expect("written");
        assert_eq!(std::fs::read_link(directory.join(DATA)).expect("a link"), first, "unchanged, not rewritten");

        write(&directory, &payload(&[("a", "new")]), None).expect("written");
        assert_eq!((read(&directory, "a"), read(&directory, "sub/b")), (Some("new".into()), None));
        assert!(!directory.join("sub").is_symlink(), "the name is gone");
        assert!(!directory.join(first).exists(), "the old version is gone");
    }

    #[test]
    fn paths_stay_inside() {
        let root = tempfile::tempdir().expect("temporary directory");
        for bad in ["../x", "/etc/x", "..x", "a/../../x", ""] {
            let result = write(root.path(), &payload(&[(bad, "1")]), None);
            assert!(matches!(result, Err(Failure::Path(_))), "{bad}");
        }
    }
}
