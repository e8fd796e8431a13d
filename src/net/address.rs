//! Loop: the machine's address, as the kernel has it. It is looked for again when the kernel says that addresses or routes
//! changed, and told to all who use it when it is another one.

use std::io::{Error, ErrorKind};
use std::net::IpAddr;
use std::time::Duration;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV4_ROUTE` (rtnetlink(7)): an address alone does not say which one is the machine's.
const GROUPS: [u32; 2] = [5, 7];
/// A new lease takes the old address away, brings the new one and then its routes: one change.
const SETTLE: Duration = Duration::from_millis(500);
/// After a socket that failed.
const RETRY: Duration = Duration::from_secs(30);

/// Follows it until `stop`; `look` says what it is now. A machine that has none for a while keeps the one it had.
pub async fn run(tell: watch::Sender<IpAddr>, look: impl Fn() -> Option<IpAddr>, stop: CancellationToken) {
    let follow = async {
        loop {
            if let Err(error) = changes(&tell, &look).await {
                tracing::warn!(%error, "changes of the machine's address are not followed for a while");
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow => {}
    }
}

async fn changes(tell: &watch::Sender<IpAddr>, look: &impl Fn() -> Option<IpAddr>) -> std::io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    socket.set_non_blocking(true)?;
    #[allow(
        deprecated,
        reason = "its successor is unsafe to call, for sockets that others may close; this one is ours"
    )]
    let socket = AsyncFd::new(socket)?;
    loop {
        // What changed before the socket was there is seen too.
        take(tell, look());
        let mut ready = socket.readable().await?;
        tokio::time::sleep(SETTLE).await;
        drain(socket.get_ref())?;
        ready.clear_ready();
    }
}

/// What the messages say does not matter: the machine is looked at again.
fn drain(socket: &Socket) -> std::io::Result<()> {
    loop {
        match socket.recv_from_full() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // More changed than the buffer holds.
            Err(error) if is_overrun(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_overrun(error: &Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32)
}

fn take(tell: &watch::Sender<IpAddr>, found: Option<IpAddr>) {
    let Some(found) = found else { return };
    tell.send_if_modified(|known| {
        let changed = *known != found;
        if changed {
            tracing::info!(before = %known, address = %found, "the machine has another address");
            *known = found;
        }
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_address_is_told() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (tell, mut told) = watch::channel(ip("192.0.2.1"));
        told.mark_unchanged();
        for (found, changed) in [(None, false), (Some("192.0.2.1"), false), (Some("192.0.2.7"), true)] {
            take(&tell, found.map(ip));
            assert_eq!(told.has_changed().expect("open"), changed, "{found:?}");
        }
        assert_eq!(*told.borrow(), ip("192.0.2.7"));
    }
}
