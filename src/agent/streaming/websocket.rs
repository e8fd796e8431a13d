//! Decides: the server's side of a WebSocket handshake (RFC 6455), and the limits and the end of what comes after it.

use futures::{Stream, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::header::{HeaderName, SEC_WEBSOCKET_VERSION};
use http::{Request, Response, StatusCode};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::splice::SILENCE;

/// Largest message from a client, in bytes; kubectl sends at most 32 KiB.
const MESSAGE_MAX: usize = 1024 * 1024;
/// How much is read at once, in bytes.
pub const BUFFER: usize = 32 * 1024;

/// Messages go out at once: someone may sit at the other end and type.
#[must_use]
pub fn limits() -> WebSocketConfig {
    let mut limits = WebSocketConfig::default();
    limits.read_buffer_size = BUFFER;
    limits.write_buffer_size = 0;
    limits.max_message_size = Some(MESSAGE_MAX);
    limits.max_frame_size = Some(MESSAGE_MAX);
    limits
}

/// Reads, once everything is said, until the client has ended as well. Were the connection dropped before, the client's
/// next ping would find it closed, and what it has not read by then would be lost (see [`crate::splice`]).
pub async fn farewell<S, E>(from_client: &mut S)
where
    S: Stream<Item = Result<Message, E>> + Unpin,
{
    while let Ok(Some(Ok(_))) = tokio::time::timeout(SILENCE, from_client.next()).await {}
}

/// The first protocol that the client offers and `knows` accepts. `None` when this is no WebSocket, or of none of them.
pub fn protocol<B>(request: &Request<B>, knows: impl Fn(&str) -> Option<u8>) -> Option<String> {
    let header = |name: HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !header(UPGRADE).eq_ignore_ascii_case("websocket") || header(SEC_WEBSOCKET_VERSION) != "13" {
        return None;
    }
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let offered = offered.flat_map(|line| line.split(',')).map(str::trim);
    let ranked = offered.filter_map(|p| knows(p).map(|rank| (rank, p)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, p)| p.to_owned())
}

/// The answer to a handshake.
///
/// # Errors
/// When the protocol is not one that a header can hold.
pub fn accepted<B>(request: &Request<B>, protocol: &str) -> http::Result<Response<()>> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map_or(&b""[..], |v| v.as_bytes());
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key))
        .header(SEC_WEBSOCKET_PROTOCOL, protocol)
        .body(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(protocols: &[&str]) -> Request<()> {
        let mut request = Request::get("/exec/a/b/c")
            .header("upgrade", "websocket")
            .header("connection", "Upgrade")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        for protocol in protocols {
            request = request.header("sec-websocket-protocol", *protocol);
        }
        request.body(()).expect("a request")
    }

    fn check(protocols: &[&str], expect: Option<&str>) {
        let ranks =
            |p: &str| ["better", "good"].iter().position(|known| *known == p).and_then(|n| u8::try_from(n).ok());
        assert_eq!(protocol(&asking(protocols), ranks).as_deref(), expect, "{protocols:?}");
    }

    #[test]
    fn the_best_common_protocol_is_picked() {
        check(&["good"], Some("good"));
        check(&["good, better"], Some("better"));
        check(&["other", "good"], Some("good"));
        check(&["other"], None);
        check(&[], None);
        let spdy = Request::post("/exec").header("upgrade", "SPDY/3.1").body(()).expect("a request");
        assert_eq!(protocol(&spdy, |_| Some(0)), None);
    }

    #[test]
    fn the_key_is_answered() {
        let response = accepted(&asking(&[]), "good").expect("a handshake");
        // The example of RFC 6455.
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "good");
    }
}
