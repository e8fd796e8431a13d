//! Connections that ask as quickly as they are answered: HTTP/1.1 over TLS with ready-made bytes, so that the figures
//! are the server's and not a client's.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Where the server is, and who asks.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: TlsConnector,
}

impl Target {
    pub fn new(kubeconfig: &Path) -> Self {
        let config: Value = serde_saphyr::from_str(&fs::read_to_string(kubeconfig).unwrap()).unwrap();
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let decode = |text: &Value| BASE64.decode(text.as_str().unwrap()).unwrap();
        let certificates = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect::<Vec<_>>();
        let mut roots = RootCertStore::empty();
        for ca in certificates(&decode(&cluster["certificate-authority-data"])) {
            roots.add(ca).unwrap();
        }
        let key = PrivateKeyDer::from_pem_slice(&decode(&user["client-key-data"])).unwrap();
        let own = certificates(&decode(&user["client-certificate-data"]));
        let tls = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(own, key).unwrap();
        let url: http::Uri = cluster["server"].as_str().unwrap().parse().unwrap();
        let address = url.authority().unwrap().as_str().parse().unwrap();
        Self { address, tls: TlsConnector::from(Arc::new(tls)) }
    }

    pub async fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::from(self.address.ip());
        let stream = self.tls.connect(name, stream).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Connection { sender, _driver: driver }
    }
}

pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes; ends with the connection.
    _driver: JoinSet<hyper::Result<()>>,
}

impl Connection {
    /// One request; the answer is read to its end.
    pub async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> (StatusCode, usize) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "skiff")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .unwrap();
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes().len())
    }
}
