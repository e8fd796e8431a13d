//! Decides who sends a request: a verified client certificate, a service account's token, the join token, or nobody.
//!
//! [`claims`] is what our tokens say, [`verify`] checks one, [`issue`] makes one, [`review`] answers TokenReviews,
//! [`impersonate`] lets one user act as another, [`request_header`] lets a proxy in front of us say who asks,
//! [`join`] lets nodes in.

pub mod claims;
pub mod impersonate;
pub mod issue;
pub mod join;
pub mod request_header;
pub mod review;
pub mod verify;

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls_pki_types::CertificateDer;

use crate::api::status::Status;
use crate::api::user::{SYSTEM_ANONYMOUS, SYSTEM_AUTHENTICATED, SYSTEM_BOOTSTRAPPERS, SYSTEM_UNAUTHENTICATED, User};
use crate::clock;
use crate::pki::peer::FRONT_PROXY;
pub use crate::pki::peer::PeerCertificate;
use crate::pki::token::{JoinToken, same_secret};
use crate::pki::{self, tls};

/// Of a bearer token, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Tells who a request comes from.
pub struct Authenticator {
    verifier: Arc<verify::Verifier>,
    join_secret: String,
    /// Whoever shows a certificate of this authority may say who a request is from.
    front_proxies: Option<CertificateDer<'static>>,
}

impl Authenticator {
    #[must_use]
    pub fn new(verifier: Arc<verify::Verifier>, join_secret: String) -> Self {
        Self { verifier, join_secret, front_proxies: None }
    }

    /// The same, which also believes proxies whose certificates `authority` has signed.
    #[must_use]
    pub fn believing(self, authority: &CertificateDer<'static>) -> Self {
        Self { front_proxies: Some(authority.clone()), ..self }
    }

    /// What a client certificate stands for that TLS has verified.
    ///
    /// # Errors
    /// When it is malformed or names nobody.
    pub fn peer(&self, der: &CertificateDer<'_>) -> Result<PeerCertificate, pki::Error> {
        let mut peer = PeerCertificate::parse(der)?;
        peer.front_proxy = self.front_proxies.as_ref().is_some_and(|authority| tls::signed_by(der, authority));
        Ok(peer)
    }

    /// A certificate counts before a token, as upstream. Who presents nothing is anonymous; who presents something
    /// wrong is refused.
    ///
    /// # Errors
    /// 401.
    pub fn authenticate(&self, headers: &HeaderMap, peer: Option<&PeerCertificate>) -> Result<User, Status> {
        // TLS checked the dates at the handshake; a connection may live longer than its certificate.
        if let Some(peer) = peer.filter(|p| p.not_after >= clock::now()) {
            if !peer.front_proxy {
                let mut user = peer.user.clone();
                user.groups.push(SYSTEM_AUTHENTICATED.into());
                return Ok(user);
            }
            if let Some(user) = said(peer, headers) {
                return Ok(user);
            }
        }
        match bearer(headers)? {
            Some(token) => self.token(token).ok_or_else(Status::unauthorized),
            None if peer.is_some() => Err(Status::unauthorized()),
            None => Ok(User::anonymous()),
        }
    }

    /// The holder of the join token is a bootstrapper: allowed to join, and nothing else.
    fn token(&self, token: &str) -> Option<User> {
        if self.is_join_token(token) {
            return Some(User::new("system:bootstrap:join", &[SYSTEM_BOOTSTRAPPERS, SYSTEM_AUTHENTICATED]));
        }
        let mut user = self.verifier.verify(token, None, clock::now()).ok()?.user;
        user.groups.push(SYSTEM_AUTHENTICATED.into());
        Some(user)
    }

    fn is_join_token(&self, token: &str) -> bool {
        JoinToken::parse(token).is_ok_and(|t| same_secret(&t.secret, &self.join_secret))
    }
}

/// Whom a proxy names. Its certificate alone makes it nobody.
fn said(peer: &PeerCertificate, headers: &HeaderMap) -> Option<User> {
    let mut user = (peer.front_proxy && peer.user.name == FRONT_PROXY).then(|| request_header::read(headers))??;
    let known = [SYSTEM_AUTHENTICATED, SYSTEM_UNAUTHENTICATED];
    if user.name != SYSTEM_ANONYMOUS && !user.groups.iter().any(|g| known.contains(&g.as_str())) {
        user.groups.push(SYSTEM_AUTHENTICATED.into());
    }
    Some(user)
}

/// # Errors
/// 401 when the header isn't a bearer token that could be one.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = header.to_str().map_err(|_| Status::unauthorized())?;
    let (scheme, token) = text.trim().split_once(' ').unwrap_or((text, ""));
    let token = token.trim();
    let bounded = !token.is_empty() && token.len() <= MAX_TOKEN;
    if scheme.eq_ignore_ascii_case("bearer") && bounded { Ok(Some(token)) } else { Err(Status::unauthorized()) }
}

#[cfg(test)]
mod tests;
