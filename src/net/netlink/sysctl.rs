//! Effects: kernel settings of the calling thread's network namespace, under `/proc/sys/net`.

use super::{Error, Result};

/// Writes `value` unless it is there already. `key` is a path such as `net/ipv4/ip_forward`.
///
/// `/proc/sys/net` shows the namespace of the thread that opens the file, so several nodes on one machine do not
/// disturb each other. A read-only `/proc/sys` is no error where the value is already right.
pub fn set(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    if std::fs::read_to_string(&path).is_ok_and(|found| found.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| Error::File { step: "write", path, source })
}
