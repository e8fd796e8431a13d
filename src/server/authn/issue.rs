//! Decides what a service account token says and signs it: the `token` subresource of service accounts.

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Header};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::claims::{Claims, ISSUER, Kubernetes, Reference, user_name};
use super::verify::Verifier;
use crate::api::field::{FieldError, Path};
use crate::api::resource::{Resource, find};
use crate::api::status::Status;
use crate::api::user::User;
use crate::server::admission::node_restriction::token_request;

/// Seconds; what a request without `expirationSeconds` gets.
const DEFAULT_EXPIRATION: i64 = 60 * 60;
const MIN_EXPIRATION: i64 = 10 * 60;
const MAX_EXPIRATION: i64 = 1 << 32;
const MAX_AUDIENCES: usize = 64;

/// Issues tokens for service accounts.
pub struct TokenIssuer(pub Arc<Verifier>);

impl TokenIssuer {
    /// Answers a `TokenRequest` for a service account: the same object with its status.
    ///
    /// # Errors
    /// 403 when a node asks for a token that isn't for a pod on it, 404 when the service account or what the token shall be bound to doesn't exist, 422, 400 or 409 when the request
    /// asks for what can't be.
    pub fn issue(
        &self,
        user: &User,
        namespace: &str,
        name: &str,
        mut request: TokenRequest,
        now: Timestamp,
    ) -> Result<TokenRequest, Status> {
        let accounts = table("serviceaccounts")?;
        let account = self.object(accounts, namespace, name)?;
        let spec = request.spec.get_or_insert_default();
        token_request(user, self.0.objects(), namespace, name, spec)?;
        let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_EXPIRATION);
        let audiences = spec.audiences.take().filter(|a| !a.is_empty());
        let audiences = audiences.unwrap_or_else(|| self.0.default_audiences().to_vec());
        let errors = validate(seconds, &audiences);
        if !errors.is_empty() {
            return Err(invalid(name, &errors));
        }
        spec.audiences = Some(audiences.clone());
        spec.expiration_seconds = Some(seconds);
        let issued = now.as_second();
        let mut claims = Claims {
            aud: audiences,
            exp: issued + seconds,
            iat: issued,
            iss: ISSUER.into(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: Kubernetes {
                namespace: namespace.into(),
                node: None,
                pod: None,
                secret: None,
                serviceaccount: Reference { name: name.into(), uid: uid(&account) },
            },
            nbf: issued,
            sub: user_name(namespace, name),
        };
        if let Some(reference) = &spec.bound_object_ref {
            self.bind(reference, name, &mut claims.kubernetes)?;
        }
        let mut header = Header::new(Algorithm::ES256);
        // Upstream's tokens have no `typ`, and strict libraries compare.
        header.typ = None;
        header.kid = Some(self.0.keys().id().to_owned());
        let token = jsonwebtoken::encode(&header, &claims, &self.0.keys().signing)
            .map_err(|e| Status::internal(format!("failed to generate token: {e}")))?;
        let expiration = Timestamp::from_second(claims.exp).map_err(Status::internal)?;
        request.status = Some(TokenRequestStatus { expiration_timestamp: Some(Time(expiration)), token: Some(token) });
        Ok(request)
    }

    /// Ties the token to an object: it is good only while that exists.
    fn bind(&self, wanted: &BoundObjectReference, account: &str, claims: &mut Kubernetes) -> Result<(), Status> {
        let kind = wanted.kind.as_deref().unwrap_or_default();
        let version = wanted.api_version.as_deref().unwrap_or_default();
        let name = wanted.name.as_deref().unwrap_or_default();
        let namespace = claims.namespace.clone();
        let core = !version.contains('/');
        let (resource, found) = match kind {
            "Pod" if core => {
                let resource = table("pods")?;
                let pod = self.object(resource, &namespace, name)?;
                if text(&pod["spec"]["serviceAccountName"]) != account {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount \
                         name."
                    )));
                }
                let node = text(&pod["spec"]["nodeName"]);
                if !node.is_empty() {
                    let uid = self.object(table("nodes")?, "", node).map(|n| uid(&n)).unwrap_or_default();
                    claims.node = Some(Reference { name: node.into(), uid });
                }
                claims.pod = Some(Reference { name: name.into(), uid: uid(&pod) });
                (resource, pod)
            }
            "Secret" if core => {
                let resource = table("secrets")?;
                let secret = self.object(resource, &namespace, name)?;
                claims.secret = Some(Reference { name: name.into(), uid: uid(&secret) });
                (resource, secret)
            }
            "Node" if core => {
                let resource = table("nodes")?;
                let node = self.object(resource, "", name)?;
                claims.node = Some(Reference { name: name.into(), uid: uid(&node) });
                (resource, node)
            }
            _ => {
                let (group, version) = version.split_once('/').unwrap_or(("", version));
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                )));
            }
        };
        match wanted.uid.as_deref().filter(|u| !u.is_empty()) {
            Some(wanted) if wanted != uid(&found) => Err(Status::conflict(
                resource,
                name,
                &format!(
                    "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might \
                     have been deleted and then recreated"
                ),
            )),
            _ => Ok(()),
        }
    }

    fn object(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Value, Status> {
        let object = self.0.objects().get(resource.storage, namespace, name);
        object.ok_or_else(|| Status::not_found(resource, name))?.value().map_err(Status::internal)
    }
}

fn table(plural: &str) -> Result<&'static Resource, Status> {
    find("", "v1", plural).ok_or_else(Status::no_such_resource)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn uid(object: &Value) -> String {
    text(&object["metadata"]["uid"]).to_owned()
}

fn validate(seconds: i64, audiences: &[String]) -> Vec<FieldError> {
    let spec = Path::new("spec");
    let path = spec.child("expirationSeconds");
    let mut errors = Vec::new();
    if seconds < MIN_EXPIRATION {
        errors.push(FieldError::invalid(&path, &seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX_EXPIRATION {
        errors.push(FieldError::invalid(&path, &seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    if audiences.len() > MAX_AUDIENCES {
        errors.push(FieldError::too_many(&spec.child("audiences"), audiences.len(), MAX_AUDIENCES));
    }
    errors
}

/// `TokenRequest` is a kind without a resource of its own, so there is no row in the resource table for the message.
fn invalid(name: &str, errors: &[FieldError]) -> Status {
    const KIND: Resource = Resource::unstored("authentication.k8s.io", "tokenrequests", "tokenrequest", "TokenRequest");
    Status::invalid(&KIND, name, errors)
}
