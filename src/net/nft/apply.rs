//! Effects: one transaction through `nft -f -`. nft runs in the network namespace of the calling thread.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where distributions put it; services often run with a PATH that leaves out `sbin`.
const PLACES: [&str; 6] =
    ["/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft", "/usr/bin/nft", "/bin/nft", "/usr/local/bin/nft"];
/// Longest part of nft's message that is kept, bytes.
const MESSAGE_LIMIT: usize = 2000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nft is not installed (looked in /usr/sbin, /sbin, /usr/local/sbin, /usr/bin, /bin)")]
    NotInstalled,
    #[error("cannot run nft")]
    Run(#[source] std::io::Error),
    #[error("nft refused the transaction: {0}")]
    Refused(String),
}

/// Applies all of it or nothing. Blocks until the kernel has it.
pub fn apply(transaction: &str) -> Result<(), Error> {
    if transaction.is_empty() {
        return Ok(());
    }
    let nft = PLACES.iter().map(PathBuf::from).find(|path| path.exists()).ok_or(Error::NotInstalled)?;
    let mut child = Command::new(nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::Run)?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(transaction.as_bytes()));
    let output = child.wait_with_output().map_err(Error::Run)?;
    if output.status.success() {
        return written.map_err(Error::Run);
    }
    let mut message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let end = message.floor_char_boundary(MESSAGE_LIMIT);
    message.truncate(end);
    Err(Error::Refused(message))
}

/// Removes a table if it is there.
pub fn delete_table(name: &str) -> Result<(), Error> {
    apply(&format!("add table ip {name}\ndelete table ip {name}\n"))
}
