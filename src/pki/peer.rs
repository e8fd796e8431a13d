//! Decides: what a certificate says about its holder.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;
use super::authority::hex;
use crate::api::user::User;

/// Key of [`User::extra`] that tells audit logs which credential was used (KEP-4193).
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Common name of the certificates that may say who somebody else is (k3s: `--requestheader-allowed-names`).
pub const FRONT_PROXY: &str = "system:auth-proxy";

/// What this crate looks at in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub public_key: Vec<u8>,
}

/// # Errors
/// When the bytes are not an X.509 certificate.
pub fn facts(der: &CertificateDer<'_>) -> Result<Facts, Error> {
    let bad = |what: &dyn std::fmt::Display| Error::Certificate(what.to_string());
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| bad(&e))?;
    let subject = certificate.subject();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
    let mut facts = Facts {
        common_name: subject.iter_common_name().find_map(text).unwrap_or_default(),
        organizations: subject.iter_organization().filter_map(text).collect(),
        names: Vec::new(),
        addresses: Vec::new(),
        not_before: time(certificate.validity().not_before.timestamp())?,
        not_after: time(certificate.validity().not_after.timestamp())?,
        public_key: certificate.public_key().subject_public_key.data.to_vec(),
    };
    if let Some(san) = certificate.subject_alternative_name().map_err(|e| bad(&e))? {
        for name in &san.value.general_names {
            match name {
                GeneralName::DNSName(name) => facts.names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => facts.addresses.extend(address(bytes)),
                _ => {}
            }
        }
    }
    Ok(facts)
}

/// A client certificate that TLS has verified, with the user it stands for. Parsed once for each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Common name and organisations, before any group that authentication adds.
    pub user: User,
    pub not_after: Timestamp,
    /// Signed by the request-header authority: not a user's, and believed in what it says of others.
    pub front_proxy: bool,
}

impl PeerCertificate {
    /// # Errors
    /// When the certificate is malformed or names nobody.
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, Error> {
        let facts = facts(der)?;
        if facts.common_name.is_empty() {
            return Err(Error::Certificate("it has no common name".into()));
        }
        let fingerprint = format!("X509SHA256={}", hex(digest(&SHA256, der).as_ref()));
        let user = User {
            name: facts.common_name,
            groups: facts.organizations,
            extra: [(CREDENTIAL_ID.to_owned(), vec![fingerprint])].into(),
            ..User::default()
        };
        Ok(Self { user, not_after: facts.not_after, front_proxy: false })
    }
}

fn time(seconds: i64) -> Result<Timestamp, Error> {
    Timestamp::from_second(seconds).map_err(|e| Error::Certificate(e.to_string()))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}
