//! Effects: key material on disk. A file is written whole or not at all, and never readable by others in between.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Error;

/// No key, certificate or token file is larger; what is larger isn't one. In bytes.
const MAX_FILE: u64 = 256 * 1024;

/// Makes a directory that only we can enter.
///
/// # Errors
/// When it can't be made, or its mode can't be set.
pub fn private_dir(path: &Path) -> Result<(), Error> {
    let fail = |source| Error::File { step: "create the directory", path: path.into(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(fail)
}

/// Replaces a file in one step: a temporary file beside it, synced, renamed over it, and the directory synced.
///
/// # Errors
/// When a step fails; the old file is then still there.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let temporary = temporary(path);
    let fail = |step| move |source| Error::File { step, path: path.into(), source };
    let written = (|| {
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The umask took bits away from what `mode` asked for.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(e) = written {
        let _ = fs::remove_file(&temporary);
        return Err(fail("write")(e));
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory).and_then(|d| d.sync_all()).map_err(fail("sync the directory of"))
}

/// A text file, `None` when it does not exist.
///
/// # Errors
/// When it exists and can't be read, is too large or isn't text.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    let damaged = |what: &str| Error::Damaged { path: path.into(), what: what.into() };
    match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(m) if m.len() > MAX_FILE => return Err(damaged("it is far too large")),
        _ => {}
    }
    let bytes = fs::read(path).map_err(|source| Error::File { step: "read", path: path.into(), source })?;
    let text = String::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    if text.trim().is_empty() { Err(damaged("it is empty")) } else { Ok(Some(text)) }
}

/// In the same directory, so that the rename stays in one file system.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        replace(&path, b"one", 0o600).unwrap();
        fs::write(temporary(&path), b"left over by a crash").unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!temporary(&path).exists());
        assert_eq!(read(&dir.path().join("missing")).unwrap(), None);
    }

    #[test]
    fn an_empty_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("half.key");
        fs::write(&path, b"").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("half.key is damaged: it is empty"), "{error}");
    }
}
