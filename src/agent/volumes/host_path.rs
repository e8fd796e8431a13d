//! Effects: `hostPath` volumes: what the type asks for is checked, or made.

use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::Failure;

pub(super) fn check(path: &Path, kind: &str) -> Result<(), Failure> {
    let found = std::fs::metadata(path);
    let fail = |what: &str| Err(Failure::HostPath(format!("{} is not {what}", path.display())));
    match (kind, found) {
        ("DirectoryOrCreate", Err(_)) => {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o755).create(path).map_err(Failure::io(path))
        }
        ("FileOrCreate", Err(_)) => {
            let mut options = std::fs::OpenOptions::new();
            options.create(true).append(true).mode(0o644).open(path).map(drop).map_err(Failure::io(path))
        }
        // No check; the runtime makes a directory where nothing is.
        ("", Err(_)) => std::fs::create_dir_all(path).map_err(Failure::io(path)),
        ("", Ok(_)) => Ok(()),
        ("Directory" | "DirectoryOrCreate", found) if !found.as_ref().is_ok_and(|m| m.is_dir()) => fail("a directory"),
        ("File" | "FileOrCreate", found) if !found.as_ref().is_ok_and(|m| m.is_file()) => fail("a file"),
        ("Socket", found) if !found.as_ref().is_ok_and(|m| m.file_type().is_socket()) => fail("a socket file"),
        ("CharDevice", found) if !found.as_ref().is_ok_and(|m| m.file_type().is_char_device()) => {
            fail("a character device")
        }
        ("BlockDevice", found) if !found.as_ref().is_ok_and(|m| m.file_type().is_block_device()) => {
            fail("a block device")
        }
        ("Directory" | "DirectoryOrCreate" | "File" | "FileOrCreate" | "Socket" | "CharDevice" | "BlockDevice", _) => {
            Ok(())
        }
        (other, _) => Err(Failure::HostPath(format!("{other} is an invalid volume type"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_or_made() {
        let root = tempfile::tempdir().expect("temporary directory");
        let file = root.path().join("f");
        let directory = root.path().join("a/b");
        let ok = |path: &Path, kind: &str| check(path, kind).is_ok();
        assert!(!ok(&file, "File"));
        assert!(ok(&file, "FileOrCreate") && ok(&file, "File") && ok(&file, ""));
        assert!(!ok(&directory, "Directory"));
        assert!(ok(&directory, "DirectoryOrCreate") && ok(&directory, "Directory"));
        assert!(!ok(&directory, "File") && !ok(&file, "Socket") && !ok(&file, "Pipe"));
        let message = check(&file, "Directory").expect_err("a file").to_string();
        assert_eq!(message, format!("hostPath type check failed: {} is not a directory", file.display()));
    }
}
