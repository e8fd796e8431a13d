//! Decides: join tokens, `K10<sha256 of the authority's certificate>::<role>:<secret>`, as k3s writes them.

use std::path::Path;

use ring::digest::{SHA256, digest};

use super::authority::{hex, random_hex};
use super::{Error, files};

const PREFIX: &str = "K10";
/// Of a whole token, in bytes.
const MAX_TOKEN: usize = 1024;

/// A token as someone typed it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the PEM text of the authority, in hexadecimal. A bare secret has none: the authority is then
    /// trusted on first use.
    pub authority: Option<String>,
    /// `server` or `node`.
    pub role: String,
    pub secret: String,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken")
            .field("authority", &self.authority)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl JoinToken {
    /// # Errors
    /// When the text is no token; says what is wrong, and never repeats the secret.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |what: &str| Error::Token(format!("invalid token: {what}"));
        let text = text.trim();
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.len() > MAX_TOKEN || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad("it must be at most 1024 printable ASCII characters"));
        }
        let Some(rest) = text.strip_prefix(PREFIX).filter(|rest| rest.contains("::")) else {
            if text.contains("::") {
                return Err(bad("it must start with K10, or be the secret alone"));
            }
            return Ok(Self { authority: None, role: "node".into(), secret: text.into() });
        };
        let (hash, credentials) = rest.split_once("::").unwrap_or_default();
        if hash.len() != 64 || !hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad("the part between K10 and :: must be 64 hexadecimal digits"));
        }
        match credentials.split_once(':') {
            Some((role @ ("server" | "node"), secret)) if !secret.is_empty() => {
                Ok(Self { authority: Some(hash.into()), role: role.into(), secret: secret.into() })
            }
            _ => Err(bad("after :: there must be server:<secret> or node:<secret>")),
        }
    }

    /// The text form, with the hash of the authority whose PEM is given.
    #[must_use]
    pub fn render(role: &str, secret: &str, authority_pem: &str) -> String {
        format!("{PREFIX}{}::{role}:{secret}", authority_hash(authority_pem))
    }

    /// This token was made for the cluster of this authority; a bare secret fits every cluster.
    #[must_use]
    pub fn trusts(&self, authority_pem: &str) -> bool {
        self.authority.as_ref().is_none_or(|hash| *hash == authority_hash(authority_pem))
    }
}

/// What a token pins: SHA-256 over the PEM text exactly as `/cacerts` sends it.
#[must_use]
pub fn authority_hash(pem: &str) -> String {
    hex(digest(&SHA256, pem.as_bytes()).as_ref())
}

/// Compares secrets by their digests: no time depends on where they differ, or on how long they are.
#[must_use]
pub fn same_secret(a: &str, b: &str) -> bool {
    let (a, b) = (digest(&SHA256, a.as_bytes()), digest(&SHA256, b.as_bytes()));
    a.as_ref().iter().zip(b.as_ref()).fold(0, |different, (x, y)| different | (x ^ y)) == 0
}

/// The server's secret: what `--token` says, else what the token file says, else a new one. Writes `token` and
/// `node-token` (what `skiff agent --token-file` is given).
///
/// # Errors
/// When a file is damaged or can't be written, or `--token` differs from the one that the cluster was made with.
pub fn open(directory: &Path, configured: Option<&str>, authority_pem: &str) -> Result<String, Error> {
    let path = directory.join("token");
    let stored = match files::read(&path)? {
        Some(text) => Some(
            JoinToken::parse(&text).map_err(|e| Error::Damaged { path: path.clone(), what: e.to_string() })?.secret,
        ),
        None => None,
    };
    let secret = match (configured, stored) {
        (Some(configured), _) => JoinToken::parse(configured)?.secret,
        (None, Some(stored)) => stored,
        (None, None) => random_hex(16)?,
    };
    let text = |role| JoinToken::render(role, &secret, authority_pem) + "\n";
    for (name, role) in [("token", "server"), ("node-token", "node")] {
        let (path, text) = (directory.join(name), text(role));
        if files::read(&path).ok().flatten().as_deref() != Some(text.as_str()) {
            files::replace(&path, text.as_bytes(), 0o600)?;
        }
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match JoinToken::parse(text) {
            Ok(t) => format!("{} {} {}", t.authority.map_or("-".into(), |h| h[..4].to_owned()), t.role, t.secret),
            Err(e) => e.to_string(),
        };
        assert_eq!(got, expect, "{text:?}");
    }

    #[test]
    fn forms() {
        let hash = "ab12".repeat(16);
        check(&format!("K10{hash}::server:s3cret"), "ab12 server s3cret");
        check(&format!(" K10{hash}::node:a:b\n"), "ab12 node a:b");
        check("s3cret", "- node s3cret");
        check("K10secret", "- node K10secret");
        check("", "invalid token: it is empty");
        check("x::node:y", "invalid token: it must start with K10, or be the secret alone");
        check("K10beef::node:y", "invalid token: the part between K10 and :: must be 64 hexadecimal digits");
        check(&format!("K10{hash}::admin:y"), "invalid token: after :: there must be server:<secret> or node:<secret>");
        check(&format!("K10{hash}::node:"), "invalid token: after :: there must be server:<secret> or node:<secret>");
        check(&"x".repeat(1025), "invalid token: it must be at most 1024 printable ASCII characters");
    }

    #[test]
    fn survives_a_restart_and_follows_the_flag() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), None, "pem").unwrap();
        assert_eq!(open(dir.path(), None, "pem").unwrap(), first);
        assert_eq!(open(dir.path(), Some("chosen"), "pem").unwrap(), "chosen");
        assert_eq!(open(dir.path(), None, "pem").unwrap(), "chosen");
        let text = std::fs::read_to_string(dir.path().join("node-token")).unwrap();
        assert!(JoinToken::parse(&text).unwrap().trusts("pem"));
        assert!(!JoinToken::parse(&text).unwrap().trusts("another"));
        std::fs::write(dir.path().join("token"), "K10zz::server:x").unwrap();
        assert!(open(dir.path(), None, "pem").unwrap_err().to_string().contains("token is damaged"));
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_parsed(secret in "[!-~]{1,64}", pem in ".{0,64}", role in "server|node") {
            let token = JoinToken::parse(&JoinToken::render(&role, &secret, &pem)).unwrap();
            prop_assert_eq!(&token.role, &role);
            prop_assert!(same_secret(&token.secret, &secret));
            prop_assert!(token.trusts(&pem));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,200}") {
            let _ = JoinToken::parse(&text);
        }
    }
}
