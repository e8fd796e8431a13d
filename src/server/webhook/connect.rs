//! Effects: a connection to a webhook: TCP, then TLS. Every failure is worded as Go words it, because these words reach
//! the client of the server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use rustls::{CertificateError, ClientConfig, Error as Tls, InvalidMessage};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{ServiceTarget, Target, resolve};
use crate::pki::client::Stream;
use crate::server::objects::SharedObjects;

/// How long the other side may take to accept a connection (Go's default for proxies).
const DIAL_TIME: Duration = Duration::from_secs(30);

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoConnection(String);

#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    /// `None` when the URL says where to connect to.
    service: Option<Arc<(ServiceTarget, SharedObjects)>>,
    /// What the certificate must be for, when that is not the host of the URL.
    name: Option<ServerName<'static>>,
}

impl Connector {
    pub fn new(tls: Arc<ClientConfig>, target: &Target, objects: SharedObjects) -> Self {
        let service = match target {
            Target::Url(_) => None,
            Target::Service(service) => Some(Arc::new((service.clone(), objects))),
        };
        Self { tls: TlsConnector::from(tls), service, name: None }
    }

    /// To the hosts of URLs, whose certificates must be for `name`.
    pub fn named(tls: Arc<ClientConfig>, name: &str) -> Result<Self, String> {
        let name = ServerName::try_from(name.to_owned()).map_err(|e| e.to_string())?;
        Ok(Self { tls: TlsConnector::from(tls), service: None, name: Some(name) })
    }

    async fn connect(self, uri: Uri) -> Result<Stream, NoConnection> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let (address, port) = match &self.service {
            Some(service) => resolve::endpoint(&*service.1, &service.0).map_err(NoConnection)?,
            None => (host.clone(), uri.port_u16().unwrap_or(443)),
        };
        let tcp = tokio::time::timeout(DIAL_TIME, TcpStream::connect((address.as_str(), port))).await;
        let tcp = tcp.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let tcp = tcp.map_err(|e| NoConnection(undialed(&address, port, &e)))?;
        // Small requests and small answers: waiting for more to send would only make them late.
        let _ = tcp.set_nodelay(true);
        let name = match self.name {
            Some(name) => name,
            None => ServerName::try_from(host).map_err(|e| NoConnection(e.to_string()))?,
        };
        let stream = self.tls.connect(name, tcp).await.map_err(|e| NoConnection(untrusted(&e)))?;
        Ok(Stream::from(stream))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = NoConnection;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, NoConnection>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoConnection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// What broke an exchange, looked for from the outside in.
pub fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(known) = error.downcast_ref::<NoConnection>() {
            return known.to_string();
        }
        if let Some(http) = error.downcast_ref::<hyper::Error>()
            && (http.is_incomplete_message() || http.is_closed())
        {
            return "EOF".into();
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::UnexpectedEof => "EOF".into(),
                io::ErrorKind::ConnectionReset => "read: connection reset by peer".into(),
                _ => untrusted(io),
            };
        }
        text = error.to_string();
        next = error.source();
    }
    text
}

fn undialed(host: &str, port: u16, error: &io::Error) -> String {
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused",
        io::ErrorKind::HostUnreachable => "connect: no route to host",
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable",
        io::ErrorKind::TimedOut => "connect: connection timed out",
        io::ErrorKind::ConnectionReset => "connect: connection reset by peer",
        _ if host.parse::<std::net::IpAddr>().is_err() => return format!("dial tcp: lookup {host}: no such host"),
        _ => return format!("dial tcp {address}: {error}"),
    };
    format!("dial tcp {address}: {why}")
}

fn untrusted(error: &io::Error) -> String {
    let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<Tls>()) else {
        return if error.kind() == io::ErrorKind::UnexpectedEof { "EOF".into() } else { error.to_string() };
    };
    let x509 = |why: String| format!("tls: failed to verify certificate: x509: {why}");
    match tls {
        Tls::InvalidCertificate(why) => x509(match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "certificate signed by unknown authority".into()
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                let expected = expected.to_str();
                let names: Vec<&str> = presented.iter().map(|n| bare(n)).collect();
                match names.as_slice() {
                    [] => format!("certificate is not valid for any names, but wanted to match {expected}"),
                    names => format!("certificate is valid for {}, not {expected}", names.join(", ")),
                }
            }
            CertificateError::ExpiredContext { time, not_after } => out_of_time(*time, "after", *not_after),
            CertificateError::NotValidYetContext { time, not_before } => out_of_time(*time, "before", *not_before),
            other => other.to_string(),
        }),
        // What answers speaks no TLS.
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "http: server gave HTTP response to HTTPS client".into()
        }
        Tls::AlertReceived(alert) => format!("remote error: tls: {alert:?}"),
        other => format!("tls: {other}"),
    }
}

/// rustls shows a name with the type that it has: `DnsName("a")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')'));
    inner.trim_matches('"')
}

fn out_of_time(now: UnixTime, side: &str, limit: UnixTime) -> String {
    let text = |t: UnixTime| {
        let seconds = i64::try_from(t.as_secs()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |t| t.to_string())
    };
    format!("certificate has expired or is not yet valid: current time {} is {side} {}", text(now), text(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_in_gos_words() {
        let io = |kind: io::ErrorKind| io::Error::from(kind);
        let tls = |e: Tls| untrusted(&io::Error::new(io::ErrorKind::InvalidData, e));
        let at = |s| UnixTime::since_unix_epoch(std::time::Duration::from_secs(s));
        for (got, expect) in [
            (
                undialed("10.0.0.1", 443, &io(io::ErrorKind::ConnectionRefused)),
                "dial tcp 10.0.0.1:443: connect: connection refused",
            ),
            (
                undialed("fd00::1", 443, &io(io::ErrorKind::HostUnreachable)),
                "dial tcp [fd00::1]:443: connect: no route to host",
            ),
            (undialed("a.example", 443, &io(io::ErrorKind::Other)), "dial tcp: lookup a.example: no such host"),
            (
                tls(Tls::InvalidCertificate(CertificateError::UnknownIssuer)),
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
            (
                tls(Tls::InvalidCertificate(CertificateError::NotValidForNameContext {
                    expected: ServerName::try_from("hook.x.svc").unwrap(),
                    presented: vec!["DnsName(\"a\")".into(), "DnsName(\"b\")".into()],
                })),
                "tls: failed to verify certificate: x509: certificate is valid for a, b, not hook.x.svc",
            ),
            (
                tls(Tls::InvalidCertificate(CertificateError::ExpiredContext { time: at(86400), not_after: at(0) })),
                "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time \
                 1970-01-02T00:00:00Z is after 1970-01-01T00:00:00Z",
            ),
            (
                tls(Tls::InvalidMessage(InvalidMessage::InvalidContentType)),
                "http: server gave HTTP response to HTTPS client",
            ),
            (words(&io(io::ErrorKind::UnexpectedEof)), "EOF"),
        ] {
            assert_eq!(got, expect);
        }
    }
}
