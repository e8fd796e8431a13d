//! Effects: two connections joined into one. Nothing that either side has said is lost because the other has ended.
//!
//! A socket that is dropped while something is unread in it, or that is written to after it was dropped, is reset by
//! the kernel, and what was still on its way out is thrown away (tcp(7); RFC 1122, 4.2.2.13). So an end is passed on as
//! an end, and whoever is the last to speak is read until it ends as well.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::select;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

/// A side whose other side is gone may be silent for this long before it is given up. Clients of Kubernetes ask every
/// few seconds whether a stream still stands, so one that is slow to read is not silent.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Moves bytes both ways, in pieces of this many, until both sides have ended. When one side breaks off, the other still
/// gets what there was, and its end.
///
/// # Errors
/// When either side broke off.
pub async fn both<A, B>(a: A, b: B, piece: usize) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let ((mut from_a, mut to_a), (mut from_b, mut to_b)) = (split(a), split(b));
    let moved = AtomicBool::new(false);
    let there = pin!(one_way(&mut from_a, &mut to_b, piece, &moved));
    let back = pin!(one_way(&mut from_b, &mut to_a, piece, &moved));
    let (first, mut rest) = select(there, back).await.factor_first();
    if first.is_ok() {
        return rest.await;
    }
    loop {
        if tokio::time::timeout(SILENCE, &mut rest).await.is_ok() || !moved.swap(false, Ordering::Relaxed) {
            return first;
        }
    }
}

async fn one_way<R, W>(from: &mut R, to: &mut W, piece: usize, moved: &AtomicBool) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut block = vec![0; piece];
    loop {
        let count = match from.read(&mut block).await {
            Ok(0) => return to.shutdown().await,
            Ok(count) => count,
            Err(error) => {
                // What was read before is there, and no more will come.
                let _ = to.shutdown().await;
                return Err(error);
            }
        };
        moved.store(true, Ordering::Relaxed);
        let written = async {
            to.write_all(&block[..count]).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            // The other direction may still have something to say to whom we read from here.
            while matches!(tokio::time::timeout(SILENCE, from.read(&mut block)).await, Ok(Ok(count)) if count > 0) {
                moved.store(true, Ordering::Relaxed);
            }
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LONG: usize = 8_000_000;
    /// More than the client takes before it reads, and less than the kernel keeps for it.
    const ALL: usize = 600_000;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn what_was_said_arrives_though_the_listener_talks_on() {
        let ((mut client, ours), (theirs, mut server)) = (pair().await, pair().await);
        let story = async {
            // All of it is said, and the one who said it is gone, before the client reads a word.
            server.write_all(&vec![7; ALL]).await.unwrap();
            drop(server);
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                client.write_all(b"are you there?").await.unwrap();
            }
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(got.len(), ALL);
            drop(client);
        };
        let (ended, ()) = tokio::join!(both(ours, theirs, 4096), story);
        ended.unwrap_err();
    }

    #[tokio::test]
    async fn an_end_of_one_direction_is_none_of_the_other() {
        let ((mut client, ours), (theirs, mut server)) = (pair().await, pair().await);
        let story = async {
            client.write_all(b"a question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut asked = Vec::new();
            server.read_to_end(&mut asked).await.unwrap();
            assert_eq!(asked, b"a question");
            let long = vec![7; LONG];
            let answer = async move {
                server.write_all(&long).await.unwrap();
                drop(server);
            };
            let mut got = Vec::new();
            let (read, ()) = tokio::join!(client.read_to_end(&mut got), answer);
            assert_eq!(read.unwrap(), LONG);
        };
        let (ended, ()) = tokio::join!(both(ours, theirs, 4096), story);
        ended.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_stays_is_given_up_when_the_other_broke_off() {
        let ((mut client, ours), (theirs, server)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        drop(server);
        client.write_all(b"anyone?").await.unwrap();
        both(ours, theirs, 64).await.unwrap_err();
        drop(client);
    }
}
