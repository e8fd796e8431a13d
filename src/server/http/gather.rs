//! Effects: what one HTTP/2 connection writes close together goes out together.
//!
//! An event for fifty watches of one connection is fifty frames, written by fifty tasks, and h2 flushes after each frame
//! of some size: fifty TLS records and fifty system calls. Here small writes are held until the task of the connection is
//! polled the next time, which it asks for at once: by then the other tasks that were ready have written too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is held at most, in bytes.
const HELD_MAX: usize = 64 * 1024;
/// Writes of this size go out by themselves: there is nothing to be gained, and a copy to be lost.
const LARGE: usize = 8 * 1024;

/// Counts how often the task of a connection was polled.
#[derive(Clone, Default)]
pub struct Polls(Arc<AtomicU64>);

impl Polls {
    /// To be called before the connection is polled.
    pub fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream that holds small writes until the next poll.
pub struct Gather<T> {
    io: T,
    held: BytesMut,
    /// The poll in which the first of them was written.
    since: u64,
    /// `None`: nothing is held.
    polls: Option<Polls>,
}

impl<T: AsyncWrite + Unpin> Gather<T> {
    /// Without `polls` it holds nothing: an HTTP/1.1 connection writes one response at a time.
    pub fn new(io: T, polls: Option<Polls>) -> Self {
        Self { io, held: BytesMut::new(), since: 0, polls }
    }

    /// Whether a write of so many bytes is to be held.
    fn holds(&self, bytes: usize) -> bool {
        self.polls.is_some() && bytes < LARGE && self.held.len() + bytes <= HELD_MAX
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.held.is_empty() {
            self.since = self.polls.as_ref().map_or(0, Polls::now);
        }
        self.held.extend_from_slice(bytes);
    }

    fn poll_let_go(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(written);
        }
        // An idle connection holds no memory.
        self.held = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.holds(buf.len()) {
            self.hold(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(self.poll_let_go(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|b| b.len()).sum();
        if self.holds(length) {
            bufs.iter().for_each(|b| self.hold(b));
            return Poll::Ready(Ok(length));
        }
        ready!(self.poll_let_go(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// Says that it is done when what is held was written in this very poll, and sees to it that there is another.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() && self.polls.as_ref().is_some_and(|polls| polls.now() == self.since) {
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_let_go(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_let_go(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What was written in the first poll goes out with what is written in the second.
    #[tokio::test]
    async fn small_writes_wait_for_the_next_poll() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let polls = Polls::default();
        let mut gather = Gather::new(near, Some(polls.clone()));
        polls.begin();
        for text in [&b"a"[..], b"b"] {
            gather.write_all(text).await.unwrap();
            gather.flush().await.unwrap();
        }
        let mut got = [0; 8];
        let waits =
            poll_fn(|cx| Poll::Ready(Pin::new(&mut far).poll_read(cx, &mut ReadBuf::new(&mut got)).is_pending()));
        assert!(waits.await);
        polls.begin();
        gather.write_all(b"c").await.unwrap();
        gather.flush().await.unwrap();
        assert_eq!(far.read(&mut got).await.unwrap(), 3);
        assert_eq!(&got[..3], b"abc");
        // What is left at the end is not lost.
        polls.begin();
        gather.write_all(b"d").await.unwrap();
        gather.shutdown().await.unwrap();
        assert_eq!(far.read(&mut got).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn order_is_kept_and_what_is_held_is_bounded() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let polls = Polls::default();
        let mut gather = Gather::new(near, Some(polls.clone()));
        polls.begin();
        gather.write_all(b"small").await.unwrap();
        gather.write_all(&[b'x'; LARGE]).await.unwrap();
        gather.flush().await.unwrap();
        let mut got = vec![0; 5 + LARGE];
        far.read_exact(&mut got).await.unwrap();
        assert!(got.starts_with(b"smallx") && gather.held.is_empty());
        let piece = [b'y'; LARGE / 2];
        for _ in 0..=HELD_MAX / piece.len() {
            gather.write_all(&piece).await.unwrap();
            assert!(gather.held.len() <= HELD_MAX);
        }
        let (near, _far) = tokio::io::duplex(16);
        let mut plain = Gather::new(near, None);
        plain.write_all(b"z").await.unwrap();
        assert!(plain.held.is_empty());
    }
}
