//! Effects: the small HTTP client of probes and lifecycle hooks. Certificates are not verified, as in the kubelet: it
//! asks whether something answers, not who.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Of the answer's body, for the event's message.
const BODY_BYTES: usize = 10 * 1024;
const REDIRECTS: usize = 10;

#[derive(Clone, Debug)]
pub struct Get {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// With the query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub user_agent: &'static str,
}

impl Get {
    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}:{}{}", bracketed(&self.host), self.port, self.path)
    }
}

/// The status of the answer, after redirects on the same host. Errors are worded as Go's client words them.
pub async fn get(mut request: Get, timeout: Duration) -> Result<StatusCode, String> {
    let shown = request.url();
    let follow = async {
        for _ in 0..REDIRECTS {
            let (status, location) = once(&request).await?;
            let next = location.filter(|_| status.is_redirection()).and_then(|l| redirected(&request, &l));
            match next {
                // Elsewhere is not followed: that it redirects is good enough.
                Some(next) if next.host == request.host => request = next,
                _ => return Ok(status),
            }
        }
        Err(format!("stopped after {REDIRECTS} redirects"))
    };
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    let result = tokio::time::timeout(timeout, follow).await.unwrap_or_else(|_| Err(late.to_owned()));
    result.map_err(|error| format!("Get {shown:?}: {error}"))
}

/// Whether a connection can be made.
pub async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let address = format!("{}:{port}", bracketed(host));
    match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", go_words(&error))),
        Ok(Ok(stream)) => Ok(stream),
    }
}

fn go_words(error: &std::io::Error) -> String {
    match error.raw_os_error().map(nix::Error::from_raw) {
        Some(errno) => errno.desc().to_lowercase(),
        None => error.to_string(),
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

async fn once(get: &Get) -> Result<(StatusCode, Option<String>), String> {
    let stream = connect(&get.host, get.port, Duration::from_secs(3600)).await?;
    if !get.tls {
        return exchange(get, stream).await;
    }
    let name = get.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map_or(&get.host, |(_, v)| v);
    let name = ServerName::try_from(name.clone()).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(TLS.clone());
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(get, stream).await
}

async fn exchange(
    get: &Get,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
) -> Result<(StatusCode, Option<String>), String> {
    let text = |error: hyper::Error| match error.is_incomplete_message() {
        true => "EOF".to_owned(),
        false => error.to_string(),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let mut request = Request::get(&get.path).header(header::CONNECTION, "close");
    let has = |name: &str| get.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    if !has("host") {
        request = request.header(header::HOST, format!("{}:{}", bracketed(&get.host), get.port));
    }
    if !has("user-agent") {
        request = request.header(header::USER_AGENT, get.user_agent);
    }
    if !has("accept") {
        request = request.header(header::ACCEPT, "*/*");
    }
    for (name, value) in get.headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let found = (response.status(), location.map(str::to_owned));
        // Read so that the server is not cut off in the middle; a long body is no failure.
        let _ = Limited::new(response.into_body(), BODY_BYTES).collect().await;
        Ok(found)
    };
    tokio::pin!(answer, connection);
    let mut open = true;
    loop {
        tokio::select! {
            result = &mut answer => return result,
            _ = &mut connection, if open => open = false,
        }
    }
}

fn redirected(from: &Get, location: &str) -> Option<Get> {
    if location.starts_with('/') {
        return Some(Get { path: location.to_owned(), ..from.clone() });
    }
    let uri: http::Uri = location.parse().ok()?;
    let tls = uri.scheme_str()? == "https";
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    Some(Get { tls, host, port, path, ..from.clone() })
}

static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let anyone = Arc::new(Anyone(provider.clone()));
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    #[expect(clippy::expect_used, reason = "ring has ciphers of both versions, which every request of a test shows")]
    let builder = versions.expect("the provider supports the default versions");
    Arc::new(builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth())
});

#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection with each of `answers`.
    async fn serve(answers: Vec<String>) -> (u16, tokio::task::JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (port, tasks)
    }

    fn request(port: u16) -> Get {
        let host = "127.0.0.1".to_owned();
        Get { tls: false, host, port, path: "/ok".into(), headers: Vec::new(), user_agent: "kube-probe/1.36" }
    }

    #[tokio::test]
    async fn redirects_stay_on_the_host() {
        let to = |place: &str| format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n");
        let ok = "HTTP/1.1 204 No Content\r\n\r\n".to_owned();
        let (port, _tasks) = serve(vec![to("/there"), ok, to("http://192.0.2.1/")]).await;
        let status = get(request(port), Duration::from_secs(5)).await;
        assert_eq!(status, Ok(StatusCode::NO_CONTENT));
        let status = get(request(port), Duration::from_secs(5)).await;
        assert_eq!(status, Ok(StatusCode::FOUND), "another host is not asked");
    }

    #[tokio::test]
    async fn failures_are_worded_like_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let late = get(request(port), Duration::from_millis(50)).await;
        let shown = format!("Get \"http://127.0.0.1:{port}/ok\": ");
        let expect = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        assert_eq!(late, Err(format!("{shown}{expect}")));
        drop(listener);
        let refused = get(request(port), Duration::from_secs(5)).await;
        assert_eq!(refused, Err(format!("{shown}dial tcp 127.0.0.1:{port}: connect: connection refused")));
    }
}
