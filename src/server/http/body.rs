//! Effects: bodies of requests and responses: reading with a limit, and lists that are copied to the wire in
//! pieces instead of being built in memory first.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

use crate::api::status::Status;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every request and response in this layer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Largest request body, in bytes; upstream's limit for JSON.
pub const REQUEST_MAX: usize = 3 * 1024 * 1024;
/// Size of the pieces in which small parts of a list are joined, in bytes.
const PIECE: usize = 64 * 1024;

#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Reads a whole request body.
///
/// # Errors
/// 413 beyond [`REQUEST_MAX`], 400 when the client goes away in the middle.
pub async fn read(mut body: Body) -> Result<Bytes, Status> {
    let hint = body.size_hint();
    if hint.lower() > REQUEST_MAX as u64 {
        return Err(Status::too_large(REQUEST_MAX));
    }
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::bad_request(format!("error reading the request body: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > REQUEST_MAX {
            return Err(Status::too_large(REQUEST_MAX));
        }
        if all.is_empty() && hint.exact() == Some(data.len() as u64) {
            return Ok(data);
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// A body of many parts whose total length is known. Large parts go out as they are, small ones are joined.
pub struct Parts {
    parts: VecDeque<Bytes>,
    left: u64,
}

impl Parts {
    #[must_use]
    pub fn body(parts: VecDeque<Bytes>) -> Body {
        let left = parts.iter().map(|p| p.len() as u64).sum();
        Self { parts, left }.boxed_unsync()
    }
}

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(first) = self.parts.pop_front() else { return Poll::Ready(None) };
        let piece = if first.len() >= PIECE / 2 {
            first
        } else {
            let mut joined = BytesMut::with_capacity(usize::try_from(self.left).unwrap_or(PIECE).min(PIECE));
            joined.extend_from_slice(&first);
            while self.parts.front().is_some_and(|next| joined.len() + next.len() <= PIECE) {
                if let Some(next) = self.parts.pop_front() {
                    joined.extend_from_slice(&next);
                }
            }
            joined.freeze()
        };
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_arrive_whole_and_in_order() {
        let parts: VecDeque<Bytes> =
            (0..500_u32).map(|i| Bytes::from(vec![i as u8; (i as usize * 37) % 40_000])).collect();
        let expect: Vec<u8> = parts.iter().flatten().copied().collect();
        let body = Parts::body(parts);
        assert_eq!(body.size_hint().exact(), Some(expect.len() as u64));
        assert_eq!(body.collect().await.expect("no error").to_bytes(), expect);
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_413_with_or_without_a_length() {
        let long = vec![b' '; REQUEST_MAX + 1];
        assert_eq!(read(full(long.clone())).await.unwrap_err().code(), 413);
        let stream = http_body_util::StreamBody::new(futures::stream::iter(
            long.chunks(1 << 20).map(|c| Ok(Frame::data(Bytes::copy_from_slice(c)))).collect::<Vec<_>>(),
        ));
        assert_eq!(read(stream.boxed_unsync()).await.unwrap_err().code(), 413);
        assert_eq!(read(full(vec![b' '; REQUEST_MAX])).await.expect("fits").len(), REQUEST_MAX);
    }
}
