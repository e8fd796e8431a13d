//! Effects: gzip for large answers, frame by frame, so that a compressed list is never whole in memory either.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;

use super::body::{Body, BoxError};

/// Smaller answers are not worth it, in bytes; upstream's limit.
const MIN: u64 = 128 * 1024;

/// Whether the client takes gzip.
#[must_use]
pub fn accepted(headers: &HeaderMap) -> bool {
    let given = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    given.flat_map(|v| v.split(',')).any(|range| {
        let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
        let refused = parameters.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// Compresses an answer that is large and says how large it is: streams are left alone.
#[must_use]
pub fn large(response: Response<Body>) -> Response<Body> {
    let worth = response.status() == StatusCode::OK
        && response.body().size_hint().exact().is_some_and(|size| size >= MIN)
        && !response.headers().contains_key(CONTENT_ENCODING);
    if !worth {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    // As upstream: the quickest level, for a link that is slower than a disk.
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    Response::from_parts(parts, Gzip { body, encoder: Some(encoder) }.boxed_unsync())
}

struct Gzip {
    body: Body,
    /// `None` once the last bytes are out.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl http_body::Body for Gzip {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let Some(encoder) = &mut self.encoder else { return Poll::Ready(None) };
            // Some frames leave all their bytes in the encoder.
            if !encoder.get_ref().is_empty() {
                let bytes = std::mem::take(encoder.get_mut());
                return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let (Some(data), Some(encoder)) = (frame.data_ref(), &mut self.encoder)
                        && let Err(e) = encoder.write_all(data)
                    {
                        return Poll::Ready(Some(Err(e.into())));
                    }
                }
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                None => {
                    let last = self.encoder.take().map(GzEncoder::finish).transpose()?;
                    return Poll::Ready(last.filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b.into()))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::server::http::body;

    #[test]
    fn clients_say_what_they_take() {
        for (given, expect) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("deflate", false), ("", false)]
        {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(given))]);
            assert_eq!(accepted(&headers), expect, "{given}");
        }
        assert!(!accepted(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn large_answers_shrink_and_come_back_whole() {
        let text: Vec<u8> = (0..40_000_u32).flat_map(|i| format!("{{\"item\":{i}}},").into_bytes()).collect();
        let parts = text.chunks(1000).map(Bytes::copy_from_slice).collect();
        let response = large(Response::new(body::Parts::body(parts)));
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(response.headers()[VARY], "Accept-Encoding");
        let packed = response.into_body().collect().await.unwrap().to_bytes();
        assert!(packed.len() < text.len() / 3, "{} of {}", packed.len(), text.len());
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&*packed).read_to_end(&mut back).unwrap();
        assert!(back == text);

        let small = large(Response::new(body::full(vec![b'x'; 1000])));
        assert!(!small.headers().contains_key(CONTENT_ENCODING));
    }
}
