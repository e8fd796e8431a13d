//! Effects and loop: makes this machine a node: fetches the authority that the token names, has certificates signed,
//! keeps them under `<data_dir>/agent`, and renews them while the node runs.
//!
//! ```text
//! files complete and good ─────────────────────────────▶ Joined      (no server needed to restart)
//! else: /cacerts ─▶ token's hash fits? ─▶ /v1-skiff/join ─▶ Joined
//!          ▲ unreachable: back off │ no: stop    │ 401, 403, 400: stop
//!          └───────────────────────┴─────────────┘ 5xx: back off
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use jiff::Timestamp;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::{self, Cluster};
use crate::pki::authority::{RENEW_BEFORE, new_key, random_hex, request};
use crate::pki::join::{CACERTS_PATH, ClusterFacts, JOIN_PATH, JoinAnswer, JoinRequest, MAX_BODY};
use crate::pki::live::{Live, Loaded, Paths};
use crate::pki::token::JoinToken;
use crate::pki::{self, client, files, tls};

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Of one request to the server.
const TIMEOUT: Duration = Duration::from_secs(20);
/// See `pki::server`: the clock may be set while we sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(12 * 60 * 60);
const RENEWAL_RETRY: Duration = Duration::from_secs(10 * 60);
/// Until there is a certificate for a new address nobody is sure of this node there.
const ADDRESS_RETRY: Duration = Duration::from_secs(10);

/// Why this machine can't be a node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Pki(#[from] pki::Error),
    #[error(
        "the server at {server} has another certificate authority than the token says: it is not the cluster that the token was made for"
    )]
    WrongAuthority { server: String },
    #[error("the server at {server} refuses the token")]
    WrongToken { server: String },
    #[error("the server at {server} refuses this node: {message}")]
    Refused { server: String, message: String },
    #[error("--server {server:?} is not an https:// URL")]
    Address { server: String },
}

/// A failed try: worth another, or not.
enum Failure {
    Retry(String),
    Stop(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Stop(error.into())
    }
}

/// A node of the cluster, with what it needs to talk to the rest of it.
#[derive(Debug)]
pub struct Joined {
    /// `https://host:port`
    pub server: String,
    /// PEM; signs what the API server shows.
    pub server_ca: String,
    /// Signs what clients of the kubelet show.
    client_ca: CertificateDer<'static>,
    pub cluster: Cluster,
    pub node_name: String,
    /// User `system:node:<name>` in group `system:nodes`.
    pub client_certificate: Arc<Live>,
    pub serving_certificate: Arc<Live>,
    directory: PathBuf,
    token: JoinToken,
}

/// Waits as long as the server can't be reached.
///
/// # Errors
/// When the token is wrong, the server isn't the one that the token names, the node's name is taken, or a file is damaged
/// or can't be written.
pub async fn join(config: &config::Agent) -> Result<Joined, Error> {
    let directory = config.data_dir.join("agent");
    files::private_dir(&directory)?;
    let token = JoinToken::parse(&config.token)?;
    let server = address(&config.server)?;
    let addresses = addresses(config.node_ip);
    if let Some(joined) = reuse(config, &directory, &server, &token, &addresses, clock::now())? {
        tracing::debug!(node = %joined.node_name, "using the certificates of an earlier start");
        return Ok(joined);
    }
    let asker = Asker { directory: &directory, server: &server, token: &token, node: &config.node_name };
    let mut delay = FIRST_DELAY;
    loop {
        match asker.ask(&addresses, None).await {
            Ok(answer) => return joined(config, directory, server, token, answer),
            Err(Failure::Stop(error)) => return Err(error),
            Err(Failure::Retry(why)) => {
                tracing::warn!(server, why, retry_seconds = delay.as_secs(), "cannot join the cluster yet");
            }
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

impl Joined {
    /// The API, as this node. Follows renewals.
    ///
    /// # Errors
    /// When the server's URL or authority can't be used.
    pub fn client(&self) -> Result<kube::Client, Error> {
        let ca = parse_ca(&self.server_ca)?;
        let config = tls::client(Some(self.client_certificate.clone()), &ca, &[b"h2", b"http/1.1"])?;
        Ok(client::kube(&self.server, config)?)
    }

    /// For the kubelet's listener: asks for client certificates, and verifies those that it gets.
    ///
    /// # Errors
    /// When rustls can't be set up.
    pub fn kubelet_tls(&self) -> Result<ServerConfig, Error> {
        let mut config = tls::server(self.serving_certificate.clone(), std::slice::from_ref(&self.client_ca))?;
        // Streams are upgraded connections, which HTTP/2 does not have.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Renews the certificates until stopped.
    pub async fn run(self: Arc<Self>, mut address: watch::Receiver<IpAddr>, stop: CancellationToken) {
        loop {
            let now = clock::now();
            let current = *address.borrow_and_update();
            let is_known = self.serving_certificate.current().facts.addresses.contains(&current);
            let retry = if is_known { RENEWAL_RETRY } else { ADDRESS_RETRY };
            let sleep = if self.due(now) || !is_known {
                match self.renew(&addresses(current)).await {
                    Ok(()) => {
                        tracing::info!(node = %self.node_name, "renewed the node's certificates");
                        self.next(clock::now())
                    }
                    Err(Failure::Stop(error)) => {
                        tracing::error!(error = %error, "cannot renew the node's certificates");
                        retry
                    }
                    Err(Failure::Retry(why)) => {
                        tracing::warn!(why, "cannot renew the node's certificates yet");
                        retry
                    }
                }
            } else {
                self.next(now)
            };
            tokio::select! {
                () = stop.cancelled() => return,
                // Another address needs another certificate.
                Ok(()) = address.changed() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn due(&self, now: Timestamp) -> bool {
        self.client_certificate.current().renewal_due(now) || self.serving_certificate.current().renewal_due(now)
    }

    fn next(&self, now: Timestamp) -> Duration {
        let ends = [&self.client_certificate, &self.serving_certificate].map(|c| c.current().facts.not_after);
        let due = ends[0].min(ends[1]) - RENEW_BEFORE;
        Duration::try_from(due.duration_since(now)).unwrap_or(RENEWAL_RETRY).clamp(RENEWAL_RETRY, LONGEST_SLEEP)
    }

    async fn renew(&self, addresses: &[IpAddr]) -> Result<(), Failure> {
        let (directory, server) = (self.directory.as_path(), self.server.as_str());
        let asker = Asker { directory, server, token: &self.token, node: &self.node_name };
        // The token may have been changed since; a certificate that is still good needs none.
        let good = self.client_certificate.current().facts.not_after > clock::now();
        let identity = good.then(|| self.client_certificate.clone());
        let answer = asker.ask(addresses, identity).await?;
        self.client_certificate.swap(answer.client);
        self.serving_certificate.swap(answer.serving);
        Ok(())
    }
}

/// What a successful exchange leaves; everything is on disk already.
struct Answer {
    server_ca: String,
    client_ca: String,
    client: Loaded,
    serving: Loaded,
    cluster: Cluster,
}

struct Asker<'a> {
    directory: &'a Path,
    server: &'a str,
    token: &'a JoinToken,
    node: &'a str,
}

impl Asker<'_> {
    /// One try.
    async fn ask(&self, addresses: &[IpAddr], identity: Option<Arc<Live>>) -> Result<Answer, Failure> {
        let server_ca = self.authority().await?;
        let (client_key, serving_key) = (new_key("kubelet")?, new_key("kubelet")?);
        let body = JoinRequest {
            node_name: self.node.into(),
            node_password: password(self.directory)?,
            addresses: addresses.to_vec(),
            client_request: request(&client_key)?,
            serving_request: request(&serving_key)?,
        };
        let body = serde_json::to_vec(&body).map_err(|e| Failure::Retry(e.to_string()))?;
        let mut post = Request::post(format!("{}{JOIN_PATH}", self.server)).header("content-type", "application/json");
        if identity.is_none() {
            post = post.header("authorization", format!("Bearer {}", self.token.secret));
        }
        let post = post.body(Full::new(Bytes::from(body))).map_err(|_| self.bad_address())?;
        let (code, body) = send(tls::client(identity, &parse_ca(&server_ca)?, &[b"http/1.1"])?, post).await?;
        let message = || {
            let status: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
            let message = status.and_then(|s| s["message"].as_str().map(str::to_owned));
            message.unwrap_or_else(|| format!("HTTP status {code}"))
        };
        let server = || self.server.to_owned();
        match code {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(Error::WrongToken { server: server() }.into()),
            c if c.is_client_error() && c != StatusCode::TOO_MANY_REQUESTS => {
                return Err(Error::Refused { server: server(), message: message() }.into());
            }
            _ => return Err(Failure::Retry(message())),
        }
        let answer: JoinAnswer = serde_json::from_slice(&body)
            .map_err(|e| Failure::Retry(format!("the server's answer makes no sense: {e}")))?;
        let client = Loaded::parse(answer.client_certificate, client_key.serialize_pem())?;
        let serving = Loaded::parse(answer.serving_certificate, serving_key.serialize_pem())?;
        let file = |name: &str| self.directory.join(name);
        files::replace(&file("server-ca.crt"), server_ca.as_bytes(), 0o644)?;
        files::replace(&file("client-ca.crt"), answer.client_ca.as_bytes(), 0o644)?;
        let facts = serde_json::to_vec_pretty(&answer.cluster).map_err(|e| Failure::Retry(e.to_string()))?;
        files::replace(&file("cluster.json"), &facts, 0o644)?;
        client_paths(self.directory).save(&client)?;
        serving_paths(self.directory).save(&serving)?;
        let cluster = answer.cluster.into();
        Ok(Answer { server_ca, client_ca: answer.client_ca, client, serving, cluster })
    }

    /// The authority to verify the server by: the stored one while it fits the token, else the server's own, which must
    /// have the hash that the token names. A bare secret trusts the first one it sees, and that one from then on.
    async fn authority(&self) -> Result<String, Failure> {
        if let Some(stored) = files::read(&self.directory.join("server-ca.crt"))?.filter(|s| self.token.trusts(s)) {
            return Ok(stored);
        }
        let get = Request::get(format!("{}{CACERTS_PATH}", self.server)).body(Full::default());
        let (code, body) = send(tls::unverified()?, get.map_err(|_| self.bad_address())?).await?;
        if code != StatusCode::OK {
            return Err(Failure::Retry(format!("{CACERTS_PATH} answers {code}")));
        }
        let pem = String::from_utf8_lossy(&body).into_owned();
        if !self.token.trusts(&pem) {
            return Err(Error::WrongAuthority { server: self.server.into() }.into());
        }
        parse_ca(&pem)?;
        Ok(pem)
    }

    fn bad_address(&self) -> Error {
        Error::Address { server: self.server.into() }
    }
}

async fn send(config: ClientConfig, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure> {
    let retry = |e: &dyn std::error::Error| Failure::Retry(crate::supervisor::chain(e));
    let exchange = async {
        let response = client::https(config).request(request).await.map_err(|e| retry(&e))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(|e| retry(&*e))?;
        Ok((code, body.to_bytes()))
    };
    let late = |_| Failure::Retry(format!("no answer within {} s", TIMEOUT.as_secs()));
    tokio::time::timeout(TIMEOUT, exchange).await.map_err(late)?
}

fn joined(
    config: &config::Agent,
    directory: PathBuf,
    server: String,
    token: JoinToken,
    answer: Answer,
) -> Result<Joined, Error> {
    Ok(Joined {
        server,
        client_ca: parse_ca(&answer.client_ca)?,
        server_ca: answer.server_ca,
        cluster: answer.cluster,
        node_name: config.node_name.clone(),
        client_certificate: Live::new(answer.client),
        serving_certificate: Live::new(answer.serving),
        directory,
        token,
    })
}

/// What an earlier start left, when it is complete, still good for a while, and for this name, addresses and cluster.
fn reuse(
    config: &config::Agent,
    directory: &Path,
    server: &str,
    token: &JoinToken,
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<Option<Joined>, Error> {
    let file = |name: &str| files::read(&directory.join(name));
    let (Some(server_ca), Some(client_ca), Some(cluster)) =
        (file("server-ca.crt")?, file("client-ca.crt")?, file("cluster.json")?)
    else {
        return Ok(None);
    };
    let (Some(client), Some(serving)) = (client_paths(directory).load()?, serving_paths(directory).load()?) else {
        return Ok(None);
    };
    let Ok(facts) = serde_json::from_str::<ClusterFacts>(&cluster) else { return Ok(None) };
    let same_node = client.facts.common_name == format!("system:node:{}", config.node_name);
    let same_addresses = addresses.iter().all(|a| serving.facts.addresses.contains(a));
    let ends = client.facts.not_after.min(serving.facts.not_after);
    // Due is fine: `run` renews while the node works. Expired isn't.
    if !token.trusts(&server_ca) || !same_node || !same_addresses || ends <= now {
        return Ok(None);
    }
    let answer = Answer { server_ca, client_ca, client, serving, cluster: facts.into() };
    joined(config, directory.into(), server.into(), token.clone(), answer).map(Some)
}

/// Made once for this machine, and never shown to anyone but the server.
fn password(directory: &Path) -> Result<String, pki::Error> {
    let path = directory.join("node-password");
    if let Some(text) = files::read(&path)? {
        return Ok(text.trim().to_owned());
    }
    let text = random_hex(16)?;
    files::replace(&path, text.as_bytes(), 0o600)?;
    Ok(text)
}

fn client_paths(directory: &Path) -> Paths {
    Paths::new(directory, "client-kubelet")
}

fn serving_paths(directory: &Path) -> Paths {
    Paths::new(directory, "serving-kubelet")
}

fn parse_ca(pem: &str) -> Result<CertificateDer<'static>, pki::Error> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| pki::Error::Certificate(format!("the cluster's authority: {e:?}")))
}

/// What others reach the kubelet endpoint by, and what this machine does.
fn addresses(node_ip: IpAddr) -> Vec<IpAddr> {
    vec![node_ip, Ipv4Addr::LOCALHOST.into()]
}

/// Scheme, host and port, without a path.
fn address(server: &str) -> Result<String, Error> {
    let bad = || Error::Address { server: server.into() };
    let uri: http::Uri = server.trim().parse().map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?;
    if uri.scheme_str() != Some("https") || uri.path().len() > 1 {
        return Err(bad());
    }
    Ok(format!("https://{authority}"))
}
