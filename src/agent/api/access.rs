//! Effects and decides: who asks the kubelet endpoint, and whether they may (`pkg/kubelet/server/auth.go`). A client
//! certificate says who; else the API server is asked about a token. What they may is asked of it too, by the
//! fine-grained subresources of `nodes` first (KEP-2862). Answers are kept for a while, as many as fit.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::answer::Refusal;
use crate::api::user::{SYSTEM_AUTHENTICATED, SYSTEM_MASTERS, User};
use crate::clock;
use crate::pki::peer::PeerCertificate;

/// `authentication.webhook.cacheTTL`
const TOKEN_TIME: Duration = Duration::from_secs(120);
/// `authorization.webhook.cacheAuthorizedTTL` and `cacheUnauthorizedTTL`
const ALLOWED_TIME: Duration = Duration::from_secs(300);
const REFUSED_TIME: Duration = Duration::from_secs(30);
/// Answers that are kept at most, of each kind.
const KEPT: usize = 512;

pub struct Access {
    client: kube::Client,
    node_name: String,
    /// By the hash of the token.
    tokens: Kept<[u8; 32], Option<User>>,
    /// By the hash of user, verb and subresource.
    decisions: Kept<[u8; 32], bool>,
}

impl Access {
    #[must_use]
    pub fn new(client: kube::Client, node_name: &str) -> Self {
        Self { client, node_name: node_name.to_owned(), tokens: Kept::default(), decisions: Kept::default() }
    }

    /// # Errors
    /// 401 for whoever does not say who it is.
    pub async fn user(&self, peer: Option<&PeerCertificate>, headers: &HeaderMap) -> Result<User, Refusal> {
        if let Some(peer) = peer.filter(|peer| peer.not_after > clock::now()) {
            let mut user = peer.user.clone();
            if !user.in_group(SYSTEM_AUTHENTICATED) {
                user.groups.push(SYSTEM_AUTHENTICATED.into());
            }
            return Ok(user);
        }
        let header = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let found = match header.and_then(bearer) {
            Some(token) => self.owner(token).await,
            None => None,
        };
        found.ok_or_else(|| Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".into()))
    }

    async fn owner(&self, token: &str) -> Option<User> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.tokens.get(&key) {
            return known;
        }
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        match reviews.create(&PostParams::default(), &review).await {
            Ok(answer) => {
                let status = answer.status.unwrap_or_default();
                let info = status.user.filter(|_| status.authenticated == Some(true));
                let user = info.map(|info| User {
                    name: info.username.unwrap_or_default(),
                    uid: info.uid.unwrap_or_default(),
                    groups: info.groups.unwrap_or_default(),
                    extra: info.extra.unwrap_or_default(),
                });
                self.tokens.put(key, user.clone(), TOKEN_TIME);
                user
            }
            Err(error) => {
                tracing::warn!(%error, "a token could not be checked: its owner is refused");
                None
            }
        }
    }

    /// # Errors
    /// 403 for who may not, 500 when it cannot be found out.
    pub async fn check(&self, user: &User, method: &Method, path: &str) -> Result<(), Refusal> {
        // What the API server would say of them without looking.
        if user.in_group(SYSTEM_MASTERS) {
            return Ok(());
        }
        let (verb, subresources) = (verb(method), subresources(path));
        for subresource in subresources {
            if self.allowed(user, verb, subresource).await? {
                return Ok(());
            }
        }
        let text = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
            user.name,
            subresources.join(" ")
        );
        Err(Refusal(StatusCode::FORBIDDEN, text))
    }

    async fn allowed(&self, user: &User, verb: &'static str, subresource: &'static str) -> Result<bool, Refusal> {
        let key: [u8; 32] = Sha256::digest(serde_json::to_vec(&(user, verb, subresource)).unwrap_or_default()).into();
        if let Some(known) = self.decisions.get(&key) {
            return Ok(known);
        }
        let attributes = ResourceAttributes {
            verb: Some(verb.into()),
            version: Some("v1".into()),
            resource: Some("nodes".into()),
            subresource: Some(subresource.into()),
            name: Some(self.node_name.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await.map_err(|error| {
            tracing::warn!(%error, user = user.name, "what a user may on this node could not be found out");
            let text = format!(
                "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                user.name
            );
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, text)
        })?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.decisions.put(key, allowed, if allowed { ALLOWED_TIME } else { REFUSED_TIME });
        Ok(allowed)
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// Any of which lets a request through.
fn subresources(path: &str) -> &'static [&'static str] {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

/// Answers with the time they are good for.
struct Kept<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key).filter(|(_, until)| *until > clock::instant()).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, time: Duration) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::instant();
        if kept.len() >= KEPT {
            kept.retain(|_, (_, until)| *until > now);
        }
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, (value, now + time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_needs_one_of_its_subresources() {
        for (path, expect) in [
            ("/pods", &["pods", "proxy"][..]),
            ("/pods/", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/healthz/syncloop", &["healthz", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/stats/summary", &["stats"]),
            ("/logs/syslog", &["log"]),
            ("/checkpoint/a/b/c", &["checkpoint"]),
            ("/exec/a/b/c", &["proxy"]),
            ("/podsy", &["proxy"]),
            ("/", &["proxy"]),
        ] {
            assert_eq!(subresources(path), expect, "{path}");
        }
    }

    #[test]
    fn tokens_are_read_from_the_header() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("Bearer "), None);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_kept_for_a_while_and_not_without_end() {
        let kept = Kept::default();
        kept.put(1, "a", Duration::from_secs(10));
        assert_eq!(kept.get(&1), Some("a"));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(kept.get(&1), None);
        for n in 0..2000 {
            kept.put(n, "b", Duration::from_secs(10));
        }
        assert!(kept.0.lock().expect("not poisoned").len() <= KEPT);
    }
}
