//! Effects: calls of the kernel that do not come back while a server is away: each in a thread of its own, for so long.
//!
//! Not in tokio's: those that stay would use them up, and the process waits for them when it ends.

use std::io::Result;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

/// `None` when it takes longer; it may still be done then, whenever.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Option<Result<T>> {
    let (tell, told) = mpsc::sync_channel(1);
    let started = std::thread::Builder::new().name("patience".into()).spawn(move || {
        // Nobody may be left to hear it.
        let _ = tell.send(call());
    });
    match started {
        Ok(_) => told.recv_timeout(limit).ok(),
        Err(error) => Some(Err(error)),
    }
}

/// The same, without holding up anybody else.
pub(super) async fn wait_within<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Option<Result<T>> {
    let (tell, told) = oneshot::channel();
    let started = std::thread::Builder::new().name("patience".into()).spawn(move || {
        let _ = tell.send(call());
    });
    match started {
        Ok(_) => tokio::time::timeout(limit, told).await.ok().and_then(|answer| answer.ok()),
        Err(error) => Some(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const NOW: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn what_does_not_come_back_is_given_up() {
        let (end, ended) = mpsc::channel::<()>();
        let hangs = move || {
            let _ = ended.recv();
            Ok(1)
        };
        assert!(within(NOW, hangs).is_none());
        drop(end);
        assert_eq!(within(SOON, || Ok(2)).unwrap().unwrap(), 2);
        assert_eq!(wait_within(SOON, || Ok(3)).await.unwrap().unwrap(), 3);
        let (end, ended) = mpsc::channel::<()>();
        let hangs = move || {
            let _ = ended.recv();
            Ok(4)
        };
        assert!(wait_within(NOW, hangs).await.is_none());
        drop(end);
    }
}
