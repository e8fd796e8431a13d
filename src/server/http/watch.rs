//! Effects: a watch as the body of a response: one JSON document a line or one protobuf message a frame, until the
//! client goes away, the time is up, the server stops, or the watcher is too slow and the cache closes it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, future};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rand::RngExt;
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::negotiate::Shape;
use super::render::Renderer;
use crate::api::protobuf::encode;
use crate::api::query::Query;
use crate::api::status::Status;
use crate::server::flow::Turn;
use crate::server::registry::request::Event;

/// Watches without `timeoutSeconds` end after this, or up to twice as long, so that not all come back at once
/// (`--min-request-timeout` of upstream).
const WATCH_MIN: Duration = Duration::from_secs(1800);
/// Events that are ready together go out in one piece, up to this many.
const BATCH_MAX: usize = 64;

/// # Errors
/// 400 when `timeoutSeconds` is not a number.
pub fn duration(query: &Query) -> Result<Duration, Status> {
    let asked = query.integer("timeoutSeconds").map_err(Status::bad_request)?;
    Ok(match asked.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0) {
        Some(seconds) => Duration::from_secs(seconds),
        None => WATCH_MIN.mul_f64(rand::rng().random_range(1.0..2.0)),
    })
}

/// The events of a watch, and its turn until what was there at its start is on its way: the rest is cheap.
pub struct Started<S> {
    pub events: S,
    pub turn: Option<Turn>,
}

impl<S: Stream + Unpin> Stream for Started<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let next = self.events.poll_next_unpin(cx);
        if next.is_pending() {
            self.turn = None;
        }
        next
    }
}

/// How the events of one watch are written.
pub struct Writer {
    pub renderer: Renderer,
    pub protobuf: bool,
}

impl Writer {
    fn event(&self, event: &Event, headers: bool, out: &mut Vec<u8>) -> Result<(), Status> {
        let (kind, object) = self.renderer.event(event, headers)?;
        self.put(kind, &object, out)
    }

    fn put(&self, kind: &str, object: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
        if self.protobuf {
            let value = serde_json::from_slice(object).map_err(Status::internal)?;
            let object = encode::object(&value).ok_or_else(|| Status::internal("the kind has no protobuf form"))?;
            out.extend_from_slice(&encode::watch_event(kind, &object));
            return Ok(());
        }
        out.extend_from_slice(br#"{"type":""#);
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(br#"","object":"#);
        out.extend_from_slice(object);
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// `held` lives as long as the stream.
pub fn body<S, H>(events: S, writer: Writer, lasts: Duration, stop: CancellationToken, held: H) -> Body
where
    S: Stream<Item = Result<Event, Status>> + Send + Unpin + 'static,
    H: Send + 'static,
{
    let end = future::select(Box::pin(tokio::time::sleep(lasts)), Box::pin(stop.cancelled_owned()));
    let mut headers = matches!(writer.renderer.shape, Shape::Table(_));
    let lines = events.take_until(end).ready_chunks(BATCH_MAX).map(move |batch| {
        let _ = &held;
        let mut out = Vec::new();
        let mut failed = false;
        for event in batch {
            let written = event.and_then(|event| {
                writer.event(&event, headers, &mut out)?;
                headers &= matches!(event, Event::Bookmark { .. });
                Ok(())
            });
            if let Err(status) = written {
                let _ = writer.put("ERROR", status.to_json().to_string().as_bytes(), &mut out);
                failed = true;
                break;
            }
        }
        (Bytes::from(out), failed)
    });
    // An error is the last line.
    let lines = lines.scan(false, |ended, (bytes, failed)| {
        future::ready((!std::mem::replace(ended, failed)).then(|| Ok(Frame::data(bytes))))
    });
    StreamBody::new(lines).boxed_unsync()
}
