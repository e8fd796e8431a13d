//! A webhook server: real HTTPS in this process, which mutates, denies, hangs or takes its time, and how it is registered.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::Server;

/// What a webhook makes of a request: the `response` of the review, or nothing at all, ever.
type Behaviour = dyn Fn(&Value) -> Option<Value> + Send + Sync;

/// A webhook server, which stops when it is dropped.
pub struct Hook {
    pub port: u16,
    pub ca_bundle: String,
    /// Every request that it was sent, in order.
    seen: Arc<Mutex<Vec<Value>>>,
    pub task: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    pub async fn new(behaviour: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static) -> Self {
        Self::slow(Duration::ZERO, behaviour).await
    }

    /// Takes its time for each answer.
    pub async fn slow(takes: Duration, behaviour: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static) -> Self {
        let names = vec!["hook.default.svc".to_owned(), "127.0.0.1".to_owned()];
        let pair = rcgen::generate_simple_self_signed(names).unwrap();
        let certificate = pair.cert.der().clone();
        let key = rustls_pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(skiff::pki::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let acting = Acting { takes, behaviour: Arc::new(behaviour), seen: seen.clone() };
        let serving = serve(listener, TlsAcceptor::from(Arc::new(config)), acting);
        #[allow(clippy::disallowed_methods, reason = "a test's server, which its owner ends")]
        let task = tokio::spawn(serving);
        Self { port, ca_bundle: STANDARD.encode(pair.cert.pem()), seen, task }
    }

    /// A webhook about config maps, named `h.example.com` in a configuration of its own.
    pub fn webhook(&self, extra: &Value) -> Value {
        let mut webhook = json!({
            "name": "h.example.com",
            "clientConfig": {"url": format!("https://127.0.0.1:{}/hook", self.port), "caBundle": self.ca_bundle},
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
        });
        webhook.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        webhook
    }

    pub fn requests(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct Acting {
    takes: Duration,
    behaviour: Arc<Behaviour>,
    seen: Arc<Mutex<Vec<Value>>>,
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, acting: Acting) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (tls, acting) = (tls.clone(), acting.clone());
        connections.spawn(async move {
            let Ok(stream) = tls.accept(socket).await else { return };
            let service = service_fn(|request| answer(request, acting.clone()));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, acting: Acting) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let asked = review["request"].clone();
    acting.seen.lock().unwrap().push(asked.clone());
    if !acting.takes.is_zero() {
        tokio::time::sleep(acting.takes).await;
    }
    let Some(mut response) = (acting.behaviour)(&asked) else { return std::future::pending().await };
    if response.get("uid").is_none() {
        response["uid"] = asked["uid"].clone();
    }
    let document = json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response});
    Ok(Response::new(Full::from(document.to_string())))
}

pub fn patch(operations: &Value) -> Option<Value> {
    Some(json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())}))
}

pub fn allow(_: &Value) -> Option<Value> {
    Some(json!({"allowed": true}))
}

pub async fn configure(server: &Server, kind: &str, name: &str, webhooks: &[Value]) {
    let plural = format!("{}s", kind.to_lowercase());
    let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "webhooks": webhooks});
    let made = server.post(&format!("/apis/admissionregistration.k8s.io/v1/{plural}"), &body).await;
    assert_eq!(made.code, 201, "{}", made.text);
}

pub async fn mutating(server: &Server, name: &str, webhooks: &[Value]) {
    configure(server, "MutatingWebhookConfiguration", name, webhooks).await;
}

pub async fn validating(server: &Server, name: &str, webhooks: &[Value]) {
    configure(server, "ValidatingWebhookConfiguration", name, webhooks).await;
}
