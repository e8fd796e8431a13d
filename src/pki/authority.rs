//! Decides what is in a certificate, and signs it. Keys are ECDSA P-256: small, quick on ARM, and in every client.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{Error, files};

mod issue;

const DAY: u64 = 24 * 60 * 60;
const CA_VALIDITY: Duration = Duration::from_secs(3652 * DAY);
pub const LEAF_VALIDITY: Duration = Duration::from_secs(365 * DAY);
/// A leaf with less than this left is renewed.
pub const RENEW_BEFORE: Duration = Duration::from_secs(90 * DAY);
/// Clocks of small machines are late: an authority is valid from a little before it was made, and leaves from when
/// their authority is.
const BACKDATE: Duration = Duration::from_secs(60 * 60);
/// Kubernetes allows a node name of 253 bytes; X.509 a common name of 64 characters, which Go and we don't enforce.
const MAX_REQUEST: usize = 16 * 1024;

/// rcgen's time type comes from a crate that it doesn't re-export: reached by way of its epoch.
macro_rules! at {
    ($timestamp:expr) => {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs($timestamp.as_second().max(0).unsigned_abs())
    };
}

/// What a leaf certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
}

/// Everything that is said about the holder of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The user, for a client.
    pub common_name: String,
    /// The group, for a client.
    pub organization: Option<String>,
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub usage: Usage,
}

impl Leaf {
    #[must_use]
    pub fn client(user: &str, group: &str) -> Self {
        Self {
            common_name: user.into(),
            organization: (!group.is_empty()).then(|| group.into()),
            names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
        }
    }

    #[must_use]
    pub fn server(common_name: &str, names: Vec<String>, addresses: Vec<IpAddr>) -> Self {
        Self { common_name: common_name.into(), organization: None, names, addresses, usage: Usage::Server }
    }

    fn params(&self) -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(group) = &self.organization {
            params.distinguished_name.push(DnType::OrganizationName, group.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        for name in &self.names {
            let name = name.as_str().try_into().map_err(|_| Error::Request(format!("{name:?} is not a DNS name")))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(self.addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match self.usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        Ok(params)
    }
}

/// A certificate authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Authority {
    /// Loads the authority, or makes it when neither file exists. The key is written first: a crash in between leaves
    /// a key that the next start makes a certificate for.
    ///
    /// # Errors
    /// When a file is damaged, doesn't fit the other, or can't be written.
    pub fn open(directory: &Path, name: &str, now: Timestamp) -> Result<Self, Error> {
        let (certificate, key) = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
        let key_pem = files::read(&key)?;
        let Some(pem) = files::read(&certificate)? else {
            let pair = match key_pem {
                Some(pem) => parse_key(&key, &pem)?,
                None => {
                    let pair = new_key(name)?;
                    files::replace(&key, pair.serialize_pem().as_bytes(), 0o600)?;
                    pair
                }
            };
            let common_name = format!("skiff-{name}@{}", now.as_second());
            let made = authority_params(&common_name, now)?
                .self_signed(&pair)
                .map_err(|source| Error::Sign { name: common_name, source })?;
            files::replace(&certificate, made.pem().as_bytes(), 0o644)?;
            return Self::load(&certificate, made.pem(), pair);
        };
        let Some(key_pem) = key_pem else {
            return Err(Error::Half { present: certificate, missing: key });
        };
        Self::load(&certificate, pem, parse_key(&key, &key_pem)?)
    }

    fn load(path: &Path, pem: String, key: KeyPair) -> Result<Self, Error> {
        let damaged = |what: String| Error::Damaged { path: path.into(), what };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| damaged(format!("{e:?}")))?;
        let facts = super::peer::facts(&der).map_err(|e| damaged(e.to_string()))?;
        if facts.public_key != key.public_key_raw() {
            return Err(damaged("it belongs to another key than the one beside it".into()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| damaged(e.to_string()))?;
        Ok(Self { issuer, pem, der, not_before: facts.not_before, not_after: facts.not_after })
    }

    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Signs a leaf for a public key; PEM.
    ///
    /// # Errors
    /// When a name isn't one, or signing fails.
    pub fn sign(&self, leaf: &Leaf, key: &impl PublicKeyData, now: Timestamp) -> Result<String, Error> {
        let mut params = leaf.params()?;
        params.not_before = at!(self.not_before);
        params.not_after = at!(self.not_after.min(now + LEAF_VALIDITY));
        let signed = params.signed_by(key, &self.issuer);
        Ok(signed.map_err(|source| Error::Sign { name: leaf.common_name.clone(), source })?.pem())
    }

    /// Signs `leaf` for whoever proves to hold the key of a certificate request. Nothing else of the request is
    /// used: names are what we know, not what the request says.
    ///
    /// # Errors
    /// When the request is malformed or not signed by its own key.
    pub fn sign_request(&self, leaf: &Leaf, request_pem: &str, now: Timestamp) -> Result<String, Error> {
        if request_pem.len() > MAX_REQUEST {
            return Err(Error::Request(format!("larger than {MAX_REQUEST} bytes")));
        }
        let request =
            CertificateSigningRequestParams::from_pem(request_pem).map_err(|e| Error::Request(e.to_string()))?;
        self.sign(leaf, &request.public_key, now)
    }
}

/// A new key; `name` is for the error only.
///
/// # Errors
/// When the system has no randomness.
pub fn new_key(name: &str) -> Result<KeyPair, Error> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|source| Error::Sign { name: name.into(), source })
}

/// # Errors
/// When the text isn't a private key; the error names the file.
pub fn parse_key(path: &Path, pem: &str) -> Result<KeyPair, Error> {
    KeyPair::from_pem(pem)
        .map_err(|e| Error::Damaged { path: path.into(), what: format!("no private key in it ({e})") })
}

/// A certificate request that proves that we hold `key`; PEM.
///
/// # Errors
/// When signing fails.
pub fn request(key: &KeyPair) -> Result<String, Error> {
    let sign = |source| Error::Sign { name: "certificate request".into(), source };
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serialize_request(key).and_then(|r| r.pem()).map_err(sign)
}

/// `length` bytes that nobody can guess, in hexadecimal.
///
/// # Errors
/// When the system has no randomness.
pub fn random_hex(length: usize) -> Result<String, Error> {
    use ring::rand::SecureRandom;
    let mut bytes = vec![0; length];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(hex(&bytes))
}

#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn authority_params(common_name: &str, now: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial()?);
    params.not_before = at!(now - BACKDATE);
    params.not_after = at!(now + CA_VALIDITY);
    Ok(params)
}

/// 127 random bits: positive and never the same twice.
fn serial() -> Result<SerialNumber, Error> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
