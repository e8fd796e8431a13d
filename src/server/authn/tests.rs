//! Tables of tokens and headers: whom they name, and why they are refused.

use std::sync::Arc;

use http::HeaderValue;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec, TokenReview};
use serde_json::json;

use super::*;
use crate::pki::service_account::Keys;
use crate::server::objects::fake::Fake;

struct Bench {
    objects: Arc<Fake>,
    verifier: Arc<verify::Verifier>,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let keys = Arc::new(Keys::open(dir.path()).unwrap());
    let objects = Fake::new([
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app", "namespace": "x", "uid": "sa1"}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "node1"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "x", "uid": "pod1"},
               "spec": {"serviceAccountName": "app", "nodeName": "n1"}}),
    ]);
    let verifier = Arc::new(verify::Verifier::new(objects.clone(), keys));
    Bench { objects, verifier, _dir: dir }
}

impl Bench {
    fn issue(&self, spec: TokenRequestSpec) -> Result<String, Status> {
        let issuer = issue::TokenIssuer(self.verifier.clone());
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        issuer.issue(&User::anonymous(), "x", "app", request, clock::now()).map(|r| r.status.unwrap().token.unwrap())
    }

    fn authenticator(&self) -> Authenticator {
        Authenticator::new(self.verifier.clone(), "join-secret".into())
    }
}

fn bound(kind: &str, name: &str, uid: Option<&str>) -> TokenRequestSpec {
    TokenRequestSpec {
        bound_object_ref: Some(BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some(kind.into()),
            name: Some(name.into()),
            uid: uid.map(str::to_owned),
        }),
        ..TokenRequestSpec::default()
    }
}

fn with_token(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap())])
}

#[test]
fn a_pod_token_names_its_pod_until_the_pod_is_gone() {
    let b = bench();
    let token = b.issue(bound("Pod", "p", None)).unwrap();
    let user = b.authenticator().authenticate(&with_token(&token), None).unwrap();
    assert_eq!(user.name, "system:serviceaccount:x:app");
    assert_eq!(user.uid, "sa1");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:x", "system:authenticated"]);
    assert_eq!(user.extra["authentication.kubernetes.io/pod-uid"], ["pod1"]);
    assert_eq!(user.extra["authentication.kubernetes.io/node-name"], ["n1"]);
    assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("JTI="));
    b.objects.remove("pods", "x", "p");
    assert_eq!(b.authenticator().authenticate(&with_token(&token), None).unwrap_err().code(), 401);
}

#[test]
fn a_token_dies_with_its_account() {
    let b = bench();
    let token = b.issue(TokenRequestSpec::default()).unwrap();
    assert!(b.authenticator().authenticate(&with_token(&token), None).is_ok());
    b.objects.put(
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app", "namespace": "x", "uid": "sa2"}}),
    );
    let refused = b.verifier.verify(&token, None, clock::now()).unwrap_err();
    assert_eq!(refused, verify::Refused::ServiceAccount("x".into(), "app".into()));
}

#[test]
fn times_audiences_and_signatures() {
    let b = bench();
    let spec =
        TokenRequestSpec { audiences: Some(vec!["vault".into()]), expiration_seconds: Some(600), ..Default::default() };
    let token = b.issue(spec).unwrap();
    let (now, vault) = (clock::now(), vec!["vault".to_owned()]);
    let code = |audiences: Option<&[String]>, at: Timestamp, token: &str| {
        b.verifier.verify(token, audiences, at).map(|v| v.audiences).map_err(|e| e.to_string())
    };
    assert_eq!(code(Some(&vault), now, &token), Ok(vault.clone()));
    assert!(code(None, now, &token).unwrap_err().contains("is invalid for the target audiences"));
    assert_eq!(code(Some(&vault), now + 11.minutes(), &token).unwrap_err(), "service account token has expired");
    assert_eq!(code(Some(&vault), now - 2.minutes(), &token).unwrap_err(), "service account token is not valid yet");
    let other = bench().issue(TokenRequestSpec::default()).unwrap();
    assert!(code(None, now, &other).unwrap_err().contains("unknown key"));
    let (head, signature) = token.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{head}.{flipped}{}", &signature[1..]);
    assert!(code(Some(&vault), now, &forged).unwrap_err().contains("unknown key"));
}

#[test]
fn unsigned_tokens_are_refused() {
    use base64::Engine;
    let b = bench();
    let token = b.issue(TokenRequestSpec::default()).unwrap();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let claims = token.split('.').nth(1).unwrap();
    for signature in ["", "AA"] {
        let forged = format!("{header}.{claims}.{signature}");
        assert_eq!(b.authenticator().authenticate(&with_token(&forged), None).unwrap_err().code(), 401);
    }
}

#[test]
fn refusals_of_token_requests() {
    let b = bench();
    let check = |spec: TokenRequestSpec, code: u16, message: &str| {
        let status = b.issue(spec).unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
    };
    check(
        TokenRequestSpec { expiration_seconds: Some(599), ..Default::default() },
        422,
        "TokenRequest.authentication.k8s.io \"app\" is invalid: spec.expirationSeconds: Invalid value: 599: may not \
         specify a duration less than 10 minutes",
    );
    check(bound("Pod", "missing", None), 404, "pods \"missing\" not found");
    check(bound("ConfigMap", "c", None), 400, "cannot bind token to object of type /v1, Kind=ConfigMap");
    check(
        bound("Pod", "p", Some("old")),
        409,
        "Operation cannot be fulfilled on pods \"p\": the UID in the bound object reference (old) does not match the UID \
         in record. The object might have been deleted and then recreated",
    );
}

#[test]
fn headers() {
    let b = bench();
    let a = b.authenticator();
    assert_eq!(a.authenticate(&HeaderMap::new(), None).unwrap(), User::anonymous());
    assert!(a.authenticate(&with_token("join-secret"), None).unwrap().in_group("system:bootstrappers"));
    for header in ["Bearer wrong", "Bearer", "Basic eDp5", "Bearer a.b.c", ""] {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(header).unwrap())]);
        assert_eq!(a.authenticate(&headers, None).unwrap_err().code(), 401, "{header:?}");
    }
    assert_eq!(a.authenticate(&with_token(&"a".repeat(MAX_TOKEN + 1)), None).unwrap_err().code(), 401);
}

#[test]
fn token_reviews() {
    let b = bench();
    let token = b.issue(TokenRequestSpec::default()).unwrap();
    let ask = |token: &str| {
        let mut request = TokenReview::default();
        request.spec.token = token.into();
        review::review(&b.verifier, request, clock::now()).map(|r| r.status.unwrap())
    };
    let good = ask(&token).unwrap();
    assert_eq!(good.authenticated, Some(true));
    assert_eq!(good.user.unwrap().username.as_deref(), Some("system:serviceaccount:x:app"));
    let bad = ask("a.b.c").unwrap();
    assert_eq!((bad.authenticated, bad.error.as_deref()), (None, Some("invalid bearer token")));
    assert_eq!(ask("").unwrap_err().code(), 400);
}

/// Whom a certificate of a proxy makes the sender of a request; `None` for 401.
fn through_proxy(front_proxy: bool, name: &str, headers: &[(&'static str, &'static str)]) -> Option<User> {
    let bench = bench();
    let not_after = clock::now() + 1.hour();
    let peer = PeerCertificate { user: User::new(name, &[]), not_after, front_proxy };
    let headers =
        headers.iter().map(|(n, v)| (http::HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
    bench.authenticator().authenticate(&headers, Some(&peer)).ok()
}

#[test]
fn a_proxy_says_who_asks_and_is_nobody_itself() {
    let alice = [("x-remote-user", "alice"), ("x-remote-group", "dev"), ("x-remote-extra-scopes", "view")];
    let user = through_proxy(true, FRONT_PROXY, &alice).unwrap();
    assert_eq!((user.name.as_str(), user.groups), ("alice", vec!["dev".to_owned(), "system:authenticated".to_owned()]));
    assert_eq!(user.extra["scopes"], ["view"]);
    assert_eq!(through_proxy(true, FRONT_PROXY, &[]), None, "it names nobody");
    assert_eq!(through_proxy(true, "system:other", &alice), None, "a name that is not allowed");
    // The certificate of a user, whatever its name and its headers.
    let user = through_proxy(false, FRONT_PROXY, &alice).unwrap();
    assert_eq!((user.name.as_str(), user.groups), (FRONT_PROXY, vec!["system:authenticated".to_owned()]));
}

#[test]
fn a_certificate_is_a_proxys_by_the_authority_that_signed_it() {
    use crate::pki::authority::{Authority, Leaf, new_key};
    use rustls_pki_types::pem::PemObject as _;
    let dir = tempfile::tempdir().unwrap();
    let now = clock::now();
    let open = |name: &str| Authority::open(dir.path(), name, now).unwrap();
    let (proxies, users) = (open("request-header-ca"), open("client-ca"));
    let authenticator = bench().authenticator().believing(proxies.der());
    for (authority, expect) in [(&proxies, true), (&users, false)] {
        let signed = authority.sign(&Leaf::client(FRONT_PROXY, ""), &new_key("p").unwrap(), now).unwrap();
        let der = CertificateDer::from_pem_slice(signed.as_bytes()).unwrap();
        assert_eq!(authenticator.peer(&der).unwrap().front_proxy, expect);
    }
}
