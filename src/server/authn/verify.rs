//! Decides whether a service account token is good: signed by us, for us, in its time, and everything that it is
//! bound to is still there.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation};
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::MAX_TOKEN;
use super::claims::{Claims, ISSUER, Reference, user_name};
use crate::api::user::User;
use crate::pki::peer::CREDENTIAL_ID;
use crate::pki::service_account::Keys;
use crate::server::objects::SharedObjects;

/// Tokens whose signature needn't be checked again. One per running pod is enough for a small machine.
const MAX_VERIFIED: usize = 512;
/// Something that is being deleted still counts for this long, as upstream: its pods may have to say goodbye. Also what
/// clocks may differ. In seconds.
const LEEWAY: i64 = 60;

/// A good token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub user: User,
    /// Those of the token that were asked for.
    pub audiences: Vec<String>,
}

/// Why a token is refused: for logs and TokenReviews; clients only see 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("invalid bearer token")]
    Malformed,
    #[error("service account token has been signed by an unknown key")]
    Signature,
    #[error("invalid bearer token, issuer is not ours")]
    Issuer,
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYet,
    #[error("service account {0}/{1} has been deleted or replaced")]
    ServiceAccount(String, String),
    #[error("{kind} {namespace}/{name} has been deleted or replaced")]
    Bound { kind: &'static str, namespace: String, name: String },
}

/// Signatures that were checked, oldest first.
#[derive(Default)]
struct Checked {
    claims: HashMap<[u8; 32], Arc<Claims>>,
    order: VecDeque<[u8; 32]>,
}

pub struct Verifier {
    objects: SharedObjects,
    keys: Arc<Keys>,
    /// What a request to us may be meant for.
    audiences: Vec<String>,
    checked: Mutex<Checked>,
}

impl Verifier {
    #[must_use]
    pub fn new(objects: SharedObjects, keys: Arc<Keys>) -> Self {
        Self { objects, keys, audiences: default_audiences(), checked: Mutex::default() }
    }

    #[must_use]
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    #[must_use]
    pub fn objects(&self) -> &SharedObjects {
        &self.objects
    }

    #[must_use]
    pub fn default_audiences(&self) -> &[String] {
        &self.audiences
    }

    /// `audiences` are those wanted: one of them must be in the token. `None` means this API server.
    ///
    /// # Errors
    /// Why the token isn't good.
    pub fn verify(&self, token: &str, audiences: Option<&[String]>, now: Timestamp) -> Result<Verified, Refused> {
        let claims = self.claims(token)?;
        if claims.iss != ISSUER {
            return Err(Refused::Issuer);
        }
        let wanted = audiences.unwrap_or(&self.audiences);
        let common: Vec<String> = wanted.iter().filter(|w| claims.aud.contains(w)).cloned().collect();
        if common.is_empty() {
            return Err(Refused::Audience(claims.aud.clone(), wanted.to_vec()));
        }
        let seconds = now.as_second();
        if seconds > claims.exp {
            return Err(Refused::Expired);
        }
        if seconds + LEEWAY < claims.nbf {
            return Err(Refused::NotYet);
        }
        self.bound(&claims, now)?;
        Ok(Verified { user: user(&claims), audiences: common })
    }

    /// The claims of a token whose signature is ours.
    fn claims(&self, token: &str) -> Result<Arc<Claims>, Refused> {
        if token.len() > MAX_TOKEN {
            return Err(Refused::Malformed);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(claims) = self.checked.lock().expect("no panic while held").claims.get(&hash) {
            return Ok(claims.clone());
        }
        let claims = Arc::new(self.check_signature(token)?);
        let mut checked = self.checked.lock().expect("no panic while held");
        if checked.claims.insert(hash, claims.clone()).is_none() {
            checked.order.push_back(hash);
            if checked.order.len() > MAX_VERIFIED
                && let Some(oldest) = checked.order.pop_front()
            {
                checked.claims.remove(&oldest);
            }
        }
        Ok(claims)
    }

    fn check_signature(&self, token: &str) -> Result<Claims, Refused> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::Malformed)?;
        // Times and audiences are checked by `verify`, which knows what time it is and what was asked for.
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.set_required_spec_claims::<&str>(&[]);
        let named = |id: &str| header.kid.as_deref().is_none_or(|kid| kid == id);
        for key in self.keys.verification.iter().filter(|k| named(&k.id)) {
            if let Ok(data) = jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                return Ok(data.claims);
            }
        }
        Err(Refused::Signature)
    }

    fn bound(&self, claims: &Claims, now: Timestamp) -> Result<(), Refused> {
        let k = &claims.kubernetes;
        let namespace = k.namespace.as_str();
        if !self.exists("serviceaccounts", namespace, &k.serviceaccount, now) {
            return Err(Refused::ServiceAccount(namespace.into(), k.serviceaccount.name.clone()));
        }
        // A pod's token also names its node, for information only: the pod is what it is bound to.
        let node = k.node.as_ref().filter(|_| k.pod.is_none());
        for (kind, storage, namespace, reference) in [
            ("pod", "pods", namespace, k.pod.as_ref()),
            ("secret", "secrets", namespace, k.secret.as_ref()),
            ("node", "nodes", "", node),
        ] {
            if let Some(r) = reference.filter(|r| !self.exists(storage, namespace, r, now)) {
                return Err(Refused::Bound { kind, namespace: namespace.into(), name: r.name.clone() });
            }
        }
        Ok(())
    }

    fn exists(&self, storage: &str, namespace: &str, wanted: &Reference, now: Timestamp) -> bool {
        let Some(object) = self.objects.get(storage, namespace, &wanted.name) else { return false };
        if *object.head.uid != *wanted.uid {
            return false;
        }
        !object.head.deleting || deleted_at(&object).is_none_or(|at| now.as_second() <= at.as_second() + LEEWAY)
    }
}

/// What tokens are for when a request for one names no audience. k3s adds its own name, we don't.
fn default_audiences() -> Vec<String> {
    vec![ISSUER.to_owned()]
}

fn deleted_at(object: &crate::api::object::Object) -> Option<Timestamp> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        deletion_timestamp: Option<Timestamp>,
    }
    #[derive(Deserialize)]
    struct WithMeta {
        metadata: Meta,
    }
    object.typed::<WithMeta>().ok()?.metadata.deletion_timestamp
}

fn user(claims: &Claims) -> User {
    let k = &claims.kubernetes;
    let mut extra = BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![format!("JTI={}", claims.jti)])]);
    for (kind, reference) in [("pod", &k.pod), ("node", &k.node)] {
        if let Some(r) = reference {
            extra.insert(format!("authentication.kubernetes.io/{kind}-name"), vec![r.name.clone()]);
            if !r.uid.is_empty() {
                extra.insert(format!("authentication.kubernetes.io/{kind}-uid"), vec![r.uid.clone()]);
            }
        }
    }
    User {
        name: user_name(&k.namespace, &k.serviceaccount.name),
        uid: k.serviceaccount.uid.clone(),
        groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{}", k.namespace)],
        extra,
    }
}
