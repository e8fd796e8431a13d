//! Decides and effects: lets a node in. Whoever shows the join token, or is the node already, gets certificates for a
//! name; a name belongs to the machine that took it first, by a password that only that machine knows.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};

use crate::api::status::Status;
use crate::api::user::{SYSTEM_BOOTSTRAPPERS, SYSTEM_NODES, User};
use crate::clock;
use crate::config::Cluster;
use crate::pki::authority::{Leaf, random_hex};
use crate::pki::join::{ClusterFacts, JoinAnswer, JoinRequest, MAX_BODY};
use crate::pki::server::ServerPki;
use crate::pki::token::{authority_hash as sha256, same_secret};
use crate::server::authz::node::identity;

const NAMESPACE: &str = "kube-system";
/// Key in the Secret: `<salt>:<hash>`. The password is 128 random bits, so a plain hash is as good as a slow one.
const HASH: &str = "hash";
const MAX_ADDRESSES: usize = 16;
const MAX_PASSWORD: usize = 256;

/// Answers `/cacerts` and `/v1-skiff/join`.
pub struct JoinServer {
    pki: Arc<ServerPki>,
    cluster: ClusterFacts,
    client: Client,
}

impl JoinServer {
    /// `client` may read Nodes, and read and write Secrets in kube-system.
    #[must_use]
    pub fn new(pki: Arc<ServerPki>, cluster: &Cluster, client: Client) -> Self {
        Self { pki, cluster: cluster.into(), client }
    }

    /// For anyone: the authority that a token's hash is compared with.
    #[must_use]
    pub fn cacerts(&self) -> Response<Bytes> {
        respond(StatusCode::OK, "text/plain", Bytes::copy_from_slice(self.pki.server_ca.pem().as_bytes()))
    }

    /// `user` is who authentication says it is; `body` is a [`JoinRequest`] of at most [`MAX_BODY`] bytes.
    pub async fn join(&self, user: &User, body: &[u8]) -> Response<Bytes> {
        let answer = self.answer(user, body).await.and_then(|a| serde_json::to_vec(&a).map_err(Status::internal));
        match answer {
            Ok(json) => respond(StatusCode::OK, "application/json", json.into()),
            Err(status) => {
                let code = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                respond(code, "application/json", status.to_json().to_string().into())
            }
        }
    }

    async fn answer(&self, user: &User, body: &[u8]) -> Result<JoinAnswer, Status> {
        if body.len() > MAX_BODY {
            return Err(Status::too_large(MAX_BODY));
        }
        let request: JoinRequest =
            serde_json::from_slice(body).map_err(|e| Status::bad_request(format!("not a join request: {e}")))?;
        may_join(user, &request.node_name)?;
        check(&request)?;
        self.pin(&request.node_name, &request.node_password).await?;
        let name = &request.node_name;
        let client = Leaf::client(&format!("system:node:{name}"), SYSTEM_NODES);
        let serving = Leaf::server(&format!("system:node:{name}"), vec![name.clone()], request.addresses.clone());
        let now = clock::now();
        let bad = |e: crate::pki::Error| Status::bad_request(e.to_string());
        let answer = JoinAnswer {
            server_ca: self.pki.server_ca.pem().to_owned(),
            client_ca: self.pki.client_ca.pem().to_owned(),
            client_certificate: self.pki.client_ca.sign_request(&client, &request.client_request, now).map_err(bad)?,
            serving_certificate: self
                .pki
                .kubelet_ca
                .sign_request(&serving, &request.serving_request, now)
                .map_err(bad)?,
            cluster: self.cluster.clone(),
        };
        tracing::info!(node = %name, "signed certificates for a node");
        Ok(answer)
    }

    /// The name is free, or taken by whoever knows the password.
    async fn pin(&self, node: &str, password: &str) -> Result<(), Status> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let name = format!("{node}.node-password.skiff");
        let fail = |e: kube::Error| Status::internal(format!("cannot look up the password of node {node:?}: {e}"));
        let Some(mut stored) = secrets.get_opt(&name).await.map_err(fail)? else {
            match secrets.create(&PostParams::default(), &secret(&name, password)?).await {
                // Another request for the same name was quicker. The node tries again and finds out whose it was.
                Err(kube::Error::Api(s)) if s.code == 409 => {
                    return Err(Status::unavailable(format!("node {node:?} is joining at this moment"), 1));
                }
                other => return other.map(|_| ()).map_err(fail),
            }
        };
        if matches(&stored, password) {
            return Ok(());
        }
        // Deleting the Node is how an administrator gives its name to a new machine.
        let nodes: Api<Node> = Api::all(self.client.clone());
        if nodes.get_opt(node).await.map_err(fail)?.is_some() {
            return Err(Status::new(
                403,
                "Forbidden",
                format!(
                    "the name {node:?} belongs to another machine (its node password differs): choose another --node-name, \
                     or delete the Node object first if that machine is gone"
                ),
            ));
        }
        stored.data = secret(&name, password)?.data;
        secrets.replace(&name, &PostParams::default(), &stored).await.map(|_| ()).map_err(fail)
    }
}

/// The join token opens every name, a node's certificate only its own.
fn may_join(user: &User, node: &str) -> Result<(), Status> {
    if user.in_group(SYSTEM_BOOTSTRAPPERS) || identity(user) == Some(node) {
        return Ok(());
    }
    if user.name == crate::api::user::SYSTEM_ANONYMOUS {
        return Err(Status::unauthorized());
    }
    Err(Status::new(403, "Forbidden", format!("User {:?} cannot join as node {node:?}", user.name)))
}

fn check(request: &JoinRequest) -> Result<(), Status> {
    let name = &request.node_name;
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    if name.len() > 253 || !bytes.iter().all(|b| inner(*b)) || !edge(bytes.first()) || !edge(bytes.last()) {
        return Err(Status::bad_request(format!(
            "node name {name:?} is not a lowercase RFC 1123 subdomain: choose another with --node-name"
        )));
    }
    if request.addresses.len() > MAX_ADDRESSES {
        return Err(Status::bad_request(format!("more than {MAX_ADDRESSES} addresses")));
    }
    if request.node_password.len() < 16 || request.node_password.len() > MAX_PASSWORD {
        return Err(Status::bad_request("the node password must be 16 to 256 characters"));
    }
    Ok(())
}

fn secret(name: &str, password: &str) -> Result<Secret, Status> {
    let salt = random_hex(8).map_err(Status::internal)?;
    let text = format!("{salt}:{}", sha256(&format!("{salt}{password}")));
    Ok(Secret {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: Some([(HASH.to_owned(), k8s_openapi::ByteString(text.into_bytes()))].into()),
        immutable: Some(false),
        ..Secret::default()
    })
}

fn matches(secret: &Secret, password: &str) -> bool {
    let text = secret.data.as_ref().and_then(|d| d.get(HASH)).and_then(|h| std::str::from_utf8(&h.0).ok());
    let Some((salt, hash)) = text.and_then(|t| t.split_once(':')) else { return false };
    same_secret(hash, &sha256(&format!("{salt}{password}")))
}

fn respond(code: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
