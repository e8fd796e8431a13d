//! Effects: `projected` volumes: several sources in one directory, the service account token among them.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, PodSpec, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::{Api, PostParams};

use super::atomic::{File, Payload};
use super::{Failure, config_map, downward, fields, mode};
use crate::agent::context::NodeContext;
use crate::agent::objects::Kind;
use crate::agent::pod::{name, namespace, pod_spec, uid};
use crate::clock;

/// Tokens of a pod, by volume and path, kept so that a refresh of other files asks for no new ones.
pub type Tokens = std::sync::Mutex<std::collections::HashMap<(String, String, String), Arc<Token>>>;

pub struct Token {
    text: String,
    expires_at: Timestamp,
    refresh_at: Timestamp,
}

/// The files, and when the first token in them must be replaced.
pub(super) async fn fetch(
    cx: &NodeContext,
    pod: &Pod,
    volume: &str,
    source: &ProjectedVolumeSource,
    node: &fields::Allocatable,
) -> Result<(Payload, Option<Timestamp>), Failure> {
    let default_mode = source.default_mode;
    let mut payload = Payload::new();
    let mut refresh_at: Option<Timestamp> = None;
    for part in source.sources.iter().flatten() {
        if let Some(map) = &part.config_map {
            let items = map.items.as_deref().unwrap_or_default();
            payload.extend(
                config_map::object(cx, pod, Kind::ConfigMap, &map.name, items, default_mode, map.optional).await?,
            );
        }
        if let Some(secret) = &part.secret {
            let items = secret.items.as_deref().unwrap_or_default();
            payload.extend(
                config_map::object(cx, pod, Kind::Secret, &secret.name, items, default_mode, secret.optional).await?,
            );
        }
        if let Some(fields) = &part.downward_api {
            let items = fields.items.as_deref().unwrap_or_default();
            payload.extend(downward::payload(pod, items, default_mode, node)?);
        }
        if let Some(projection) = &part.service_account_token {
            let token = token(cx, pod, volume, projection).await?;
            refresh_at = Some(refresh_at.map_or(token.refresh_at, |at| at.min(token.refresh_at)));
            let file = File { bytes: token.text.clone().into_bytes(), mode: mode(None, default_mode) };
            payload.insert(projection.path.clone(), file);
        }
    }
    Ok((payload, refresh_at))
}

/// The account that a pod runs as.
#[must_use]
pub fn account(spec: &PodSpec) -> &str {
    spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default")
}

/// A token of the pod's account for the driver of a volume, as a `TokenRequestStatus`; the same one until it is to be
/// replaced.
///
/// # Errors
/// The API's answer.
pub async fn account_token(
    cx: &NodeContext,
    pod: &Pod,
    volume: &str,
    audience: &str,
    expiration_seconds: Option<i64>,
) -> Result<serde_json::Value, Failure> {
    let projection = ServiceAccountTokenProjection {
        audience: Some(audience.to_owned()),
        expiration_seconds,
        // No file: what keeps the audiences of a volume apart.
        path: format!("..{audience}"),
    };
    let token = token(cx, pod, volume, &projection).await?;
    Ok(serde_json::json!({"token": token.text, "expirationTimestamp": token.expires_at.to_string()}))
}

async fn token(
    cx: &NodeContext,
    pod: &Pod,
    volume: &str,
    projection: &ServiceAccountTokenProjection,
) -> Result<Arc<Token>, Failure> {
    let key = (uid(pod).to_owned(), volume.to_owned(), projection.path.clone());
    let known = cx.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&key).cloned();
    let now = clock::now();
    if let Some(token) = known.as_ref().filter(|token| now < token.refresh_at) {
        return Ok(token.clone());
    }
    match request(cx, pod, projection, now).await {
        Ok(token) => {
            let token = Arc::new(token);
            cx.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key, token.clone());
            Ok(token)
        }
        // The server is away: the old one is good for a while yet, the next try comes soon.
        Err(error) => match known.filter(|token| now < token.expires_at) {
            Some(token) => {
                let soon = now.checked_add(SignedDuration::from_secs(30)).unwrap_or(now);
                Ok(Arc::new(Token { text: token.text.clone(), refresh_at: soon, ..*token }))
            }
            None => Err(error),
        },
    }
}

async fn request(
    cx: &NodeContext,
    pod: &Pod,
    projection: &ServiceAccountTokenProjection,
    now: Timestamp,
) -> Result<Token, Failure> {
    let account = account(pod_spec(pod));
    let body = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: projection.audience.clone().filter(|audience| !audience.is_empty()).map(|one| vec![one]),
            expiration_seconds: projection.expiration_seconds,
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(name(pod).to_owned()),
                uid: Some(uid(pod).to_owned()),
            }),
        }),
        ..TokenRequest::default()
    };
    let api = Api::<ServiceAccount>::namespaced(cx.client.clone(), namespace(pod));
    let answer = api.create_token_request(account, &PostParams::default(), &body).await;
    let answer = answer.map_err(|error| Failure::Token(error.to_string()))?;
    let status = answer.status.ok_or_else(|| Failure::Token("the answer has no status".into()))?;
    let (Some(text), Some(expires)) = (status.token, status.expiration_timestamp) else {
        return Err(Failure::Token("the answer has no token".into()));
    };
    let expires_at = expires.0;
    Ok(Token { text, expires_at, refresh_at: refresh_at(now, expires_at) })
}

/// At 80 % of the token's life, and at the latest after a day, as the kubelet's token manager has it.
fn refresh_at(issued: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(issued);
    let wait = SignedDuration::from_secs(life.as_secs() * 8 / 10).min(SignedDuration::from_hours(24));
    issued.checked_add(wait).unwrap_or(expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_replaced_at_four_fifths_of_their_life() {
        let at = |second| Timestamp::from_second(second).expect("small number");
        assert_eq!(refresh_at(at(0), at(3600)), at(2880));
        assert_eq!(refresh_at(at(0), at(31_536_000)), at(86_400));
    }
}
