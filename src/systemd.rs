//! Effects: tells systemd that the service is ready (sd_notify(3)).

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// Sends `READY=1` to the socket that systemd named in `NOTIFY_SOCKET`; does nothing without one.
pub fn ready(socket: Option<&Path>) {
    let Some(socket) = socket else { return };
    let name = socket.as_os_str().as_bytes();
    // A leading @ means the abstract namespace.
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    };
    let sent = address.and_then(|a| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &a));
    if let Err(error) = sent {
        tracing::warn!(%error, socket = %socket.display(), "systemd was not told that we are ready");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        ready(Some(&path));
        let mut buffer = [0; 16];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        ready(None);
    }
}
