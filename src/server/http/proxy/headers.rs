//! Decides: which headers pass a proxy (RFC 9110 section 7.6.1, Go's `httputil.ReverseProxy`). The client's credentials
//! never do: they are for this server.

use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SEC_WEBSOCKET_PROTOCOL, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Request};

use crate::server::authn::request_header;
use crate::server::http::body::Body;

/// About one connection, not about the message.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// What the other side says about cross-origin requests is said of another origin.
const CORS: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Browsers, which cannot set headers on a WebSocket, send a token as one of the protocols they speak.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

#[must_use]
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
    texts.into_iter().any(|text| text.to_ascii_lowercase().contains("upgrade"))
}

/// What the request's URL or its header calls this server; `other` when neither does.
#[must_use]
pub fn host(request: &Request<Body>, other: &str) -> String {
    let header = request.headers().get(HOST).and_then(|v| v.to_str().ok());
    header.or_else(|| request.uri().authority().map(http::uri::Authority::as_str)).unwrap_or(other).to_owned()
}

/// The headers of a request that pass.
pub fn pass(from: &HeaderMap, to: &mut HeaderMap) {
    pass_all(from, to);
    let trailers = to.get_all(TE).iter().any(|v| v.as_bytes().eq_ignore_ascii_case(b"trailers"));
    drop_hop_by_hop(to);
    if trailers {
        to.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// All but credentials, and what only a proxy may say of who asks: a handshake is about the connection.
pub fn pass_all(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        let secret =
            *name == AUTHORIZATION || name.as_str().starts_with("impersonate-") || request_header::is_one(name);
        if *name == SEC_WEBSOCKET_PROTOCOL {
            to.extend(without_token(value).map(|value| (name.clone(), value)));
        } else if !secret {
            to.append(name, value.clone());
        }
    }
}

fn without_token(value: &HeaderValue) -> Option<HeaderValue> {
    let Ok(text) = value.to_str() else { return Some(value.clone()) };
    let kept: Vec<&str> = text.split(',').map(str::trim).filter(|p| !p.starts_with(TOKEN_PROTOCOL)).collect();
    HeaderValue::from_str(&kept.join(", ")).ok().filter(|v| !v.is_empty())
}

/// Who asked, at the end of those who asked before, and by what name.
pub fn say_who(headers: &mut HeaderMap, peer: Option<&str>, host: &str) {
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
    let Some(peer) = peer else { return };
    let mut all: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
    all.push(peer);
    if let Ok(all) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(FORWARDED_FOR, all);
    }
}

/// Also what `Connection` names.
pub fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

pub fn drop_cors(headers: &mut HeaderMap) {
    for name in CORS {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut all: Vec<String> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        all.sort();
        all
    }

    #[test]
    fn credentials_and_what_is_about_the_connection_stay() {
        let given = map(&[
            ("authorization", "Bearer secret"),
            ("impersonate-user", "admin"),
            ("x-remote-user", "admin"),
            ("x-remote-extra-scopes", "all"),
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("cookie", "a=b"),
            ("accept", "*/*"),
        ]);
        let mut passed = HeaderMap::new();
        pass(&given, &mut passed);
        say_who(&mut passed, None, "server");
        assert_eq!(shown(&passed), ["accept: */*", "cookie: a=b", "host: server", "te: trailers"]);
    }

    #[test]
    fn a_handshake_passes_without_the_token() {
        let given = map(&[
            ("authorization", "Bearer secret"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.c2VjcmV0, chat"),
        ]);
        assert!(wants_upgrade(&given));
        let mut passed = HeaderMap::new();
        pass_all(&given, &mut passed);
        assert_eq!(shown(&passed), ["connection: Upgrade", "sec-websocket-protocol: chat", "upgrade: websocket"]);
    }

    #[test]
    fn who_asked_comes_last() {
        let mut headers = map(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]);
        say_who(&mut headers, Some("3.3.3.3"), "h");
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 3.3.3.3");
    }
}
