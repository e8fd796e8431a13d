//! Effects: gives the token library its cryptography: ES256 of ring, which is here for TLS already. The library's own
//! back ends would bring thirty crates for algorithms that no token of ours has.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(SigningKey::new(*algorithm, key)?)),
    verifier_factory: |algorithm, key| Ok(Box::new(PublicKey::new(*algorithm, key)?)),
    key_utils: KeyUtils::new_unimplemented(),
};

/// Must be called before a token is made or checked. Calling it again is harmless.
pub fn install() {
    // The error says that it is installed already.
    let _ = PROVIDER.install_default();
}

struct SigningKey(EcdsaKeyPair, SystemRandom);

impl SigningKey {
    fn new(algorithm: Algorithm, key: &EncodingKey) -> Result<Self, Error> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_bytes(), &random);
        only_es256(algorithm)?;
        Ok(Self(pair.map_err(|_| Error::from(ErrorKind::InvalidEcdsaKey))?, random))
    }
}

impl Signer<Vec<u8>> for SigningKey {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let signed = self.0.sign(&self.1, message).map_err(|_| signature::Error::new())?;
        Ok(signed.as_ref().to_vec())
    }
}

impl JwtSigner for SigningKey {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

/// The uncompressed point.
struct PublicKey(UnparsedPublicKey<Vec<u8>>);

impl PublicKey {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        only_es256(algorithm)?;
        Ok(Self(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.try_get_as_bytes()?.to_vec())))
    }
}

impl Verifier<Vec<u8>> for PublicKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.0.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for PublicKey {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

fn only_es256(algorithm: Algorithm) -> Result<(), Error> {
    if algorithm == Algorithm::ES256 { Ok(()) } else { Err(ErrorKind::InvalidAlgorithm.into()) }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::Validation;
    use jsonwebtoken::crypto::{sign, verify};

    use super::*;

    /// The example of RFC 7515, appendix A.3.
    #[test]
    fn the_example_of_the_rfc_verifies() {
        install();
        let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        let key = DecodingKey::from_ec_components(x, y).unwrap();
        let message = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        assert!(verify(signature, message.as_bytes(), &key, Algorithm::ES256).unwrap());
        assert!(!verify(signature, b"another", &key, Algorithm::ES256).unwrap());
        assert!(verify(signature, message.as_bytes(), &key, Algorithm::ES384).is_err());
        let none = jsonwebtoken::decode::<serde_json::Value>("e30.e30.", &key, &Validation::new(Algorithm::ES256));
        assert!(none.is_err());
    }

    #[test]
    fn what_is_signed_verifies() {
        install();
        let pair = rcgen::KeyPair::generate().unwrap();
        let signature = sign(b"text", &EncodingKey::from_ec_der(pair.serialized_der()), Algorithm::ES256).unwrap();
        let key = DecodingKey::from_ec_der(rcgen::PublicKeyData::der_bytes(&pair));
        assert!(verify(&signature, b"text", &key, Algorithm::ES256).unwrap());
        assert!(!verify(&signature, b"test", &key, Algorithm::ES256).unwrap());
        assert!(sign(b"text", &EncodingKey::from_secret(b"x"), Algorithm::ES256).is_err());
    }
}
