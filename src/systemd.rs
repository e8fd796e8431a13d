//! Effects: tells systemd how the service is (sd_notify(3)), by the socket that it named in `NOTIFY_SOCKET`. Without one
//! nothing is told.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

pub fn ready(socket: Option<&Path>) {
    tell(socket, "READY=1");
}

/// It may take so long: systemd would end it after `TimeoutStopSec`, which knows nothing of our settings, and takes this
/// instead where it is longer.
pub fn stopping(socket: Option<&Path>, longest: Duration) {
    tell(socket, &format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", longest.as_micros()));
}

fn tell(socket: Option<&Path>, state: &str) {
    let Some(socket) = socket else { return };
    let name = socket.as_os_str().as_bytes();
    // A leading @ means the abstract namespace.
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    };
    let sent = address.and_then(|a| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &a));
    if let Err(error) = sent {
        tracing::warn!(%error, socket = %socket.display(), state, "systemd was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let told = || {
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        ready(Some(&path));
        assert_eq!(told(), "READY=1");
        stopping(Some(&path), Duration::from_secs(320));
        assert_eq!(told(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=320000000");
        ready(None);
        stopping(None, Duration::ZERO);
    }
}
