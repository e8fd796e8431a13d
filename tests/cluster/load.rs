//! Connections that ask as quickly as they are answered: HTTP/1.1 over TLS with ready-made bytes, so that the figures
//! are the server's and not a client's.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Where the server is, and who asks.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
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
        Self { address, tls: Arc::new(tls) }
    }

    pub fn connect(&self) -> Connection {
        Connection { stream: self.stream(&[]), buffer: vec![0; 65_536] }
    }

    /// `None` while nobody listens there.
    pub fn try_connect(&self) -> Option<Connection> {
        TcpStream::connect(self.address).ok().map(|_| self.connect())
    }

    /// For one of these protocols (ALPN).
    pub fn stream(&self, protocols: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        StreamOwned::new(ClientConnection::new(Arc::new(tls), self.address.ip().into()).unwrap(), stream)
    }
}

/// What is asked.
pub struct Ask {
    pub method: &'static str,
    pub path: String,
    pub content_type: &'static str,
    pub body: String,
}

impl Ask {
    pub fn new(method: &'static str, path: impl Into<String>, body: impl Into<String>) -> Self {
        Self { method, path: path.into(), content_type: "application/json", body: body.into() }
    }
}

/// One connection, one thread: nothing of a client library's comes between.
pub struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// What was read last.
    buffer: Vec<u8>,
}

impl Connection {
    /// One request; the answer is read to its end. Returns its status and its length in bytes, head included.
    pub fn ask(&mut self, ask: &Ask) -> (u16, usize) {
        let Ask { method, path, content_type, body } = ask;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: skiff\r\nuser-agent: bench\r\ncontent-type: {content_type}\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut filled = 0;
        let head = loop {
            filled += self.read(filled);
            if let Some(at) = self.buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = std::str::from_utf8(&self.buffer[..head]).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let announced = text.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|n| n.parse::<usize>());
        match announced {
            Some(length) => {
                let total = head + length.unwrap();
                while filled < total {
                    filled += self.read(filled);
                }
            }
            // In chunks, of which the last one is empty.
            None => {
                while !self.buffer[..filled].ends_with(b"\r\n0\r\n\r\n") {
                    filled += self.read(filled);
                }
            }
        }
        (status, filled)
    }

    fn read(&mut self, filled: usize) -> usize {
        if self.buffer.len() - filled < 16_384 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let count = self.stream.read(&mut self.buffer[filled..]).unwrap();
        assert_ne!(count, 0, "the server closed the connection");
        count
    }
}
