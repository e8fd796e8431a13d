//! Effects: the keys of service account tokens (ES256). One signs; all verify, so that tokens outlive a rotation.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use rcgen::{KeyPair, PublicKeyData};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::authority::{new_key, parse_key};
use super::{Error, files, jwt};

/// Verification keys that are kept at once.
const MAX_KEYS: usize = 16;

/// One public key, under the name that a token's header calls it by.
pub struct VerificationKey {
    /// As upstream: base64url of the SHA-256 of the public key's DER.
    pub id: String,
    pub key: DecodingKey,
    /// The uncompressed point: 0x04, x, y.
    point: Vec<u8>,
}

pub struct Keys {
    pub signing: EncodingKey,
    /// The first belongs to `signing`.
    pub verification: Vec<VerificationKey>,
}

impl Keys {
    /// Loads `service.key`, making it at first start. Every further private key in the file, and in
    /// `service-previous.key`, only verifies.
    ///
    /// # Errors
    /// When a file is damaged or can't be written.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("service.key");
        let text = match files::read(&path)? {
            Some(text) => text,
            None => {
                let text = new_key("service accounts")?.serialize_pem();
                files::replace(&path, text.as_bytes(), 0o600)?;
                text
            }
        };
        let mut pairs = parse_pairs(&path, &text)?;
        let previous = directory.join("service-previous.key");
        if let Some(text) = files::read(&previous)? {
            pairs.extend(parse_pairs(&previous, &text)?);
        }
        if pairs.len() > MAX_KEYS {
            return Err(Error::Damaged { path, what: format!("more than {MAX_KEYS} keys") });
        }
        let damaged = |what: String| Error::Damaged { path: path.clone(), what };
        let verification = pairs.iter().map(verification).collect::<Result<_, _>>().map_err(damaged)?;
        jwt::install();
        Ok(Self { signing: EncodingKey::from_ec_der(pairs[0].serialized_der()), verification })
    }

    /// The name of the key that signs.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.verification[0].id
    }

    /// The JSON Web Key Set of `/openid/v1/jwks`.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self
            .verification
            .iter()
            .map(|k| {
                let half = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&k.point[range]);
                json!({"use": "sig", "kty": "EC", "kid": k.id, "crv": "P-256", "alg": "ES256",
                       "x": half(1..33), "y": half(33..65)})
            })
            .collect();
        json!({"keys": keys})
    }
}

fn verification(pair: &KeyPair) -> Result<VerificationKey, String> {
    let point = pair.public_key_raw().to_vec();
    if point.len() != 65 {
        return Err("it must hold an ECDSA P-256 key".into());
    }
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    let key = DecodingKey::from_ec_components(&x, &y).map_err(|e| e.to_string())?;
    let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, &pair.subject_public_key_info()));
    Ok(VerificationKey { id, key, point })
}

/// All private keys of a PEM file, at least one.
fn parse_pairs(path: &Path, text: &str) -> Result<Vec<KeyPair>, Error> {
    const END: &str = "-----END PRIVATE KEY-----";
    let mut pairs = Vec::new();
    for part in text.split_inclusive(END).filter(|p| p.contains("-----BEGIN")) {
        pairs.push(parse_key(path, part)?);
    }
    if pairs.is_empty() {
        return Err(Error::Damaged { path: path.into(), what: "no private key in it".into() });
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_key_still_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let first = Keys::open(dir.path()).unwrap();
        assert_eq!(Keys::open(dir.path()).unwrap().id(), first.id());
        std::fs::rename(dir.path().join("service.key"), dir.path().join("service-previous.key")).unwrap();
        let second = Keys::open(dir.path()).unwrap();
        assert_ne!(second.id(), first.id());
        assert_eq!(second.verification.len(), 2);
        assert_eq!(second.verification[1].id, first.id());
        assert_eq!(second.jwks()["keys"][0]["crv"], "P-256");
    }

    #[test]
    fn half_a_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        Keys::open(dir.path()).unwrap();
        let path = dir.path().join("service.key");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        let error = Keys::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("service.key is damaged"), "{error}");
    }
}
