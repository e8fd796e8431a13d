//! Decides: a certificate for somebody else's request, as `kubectl certificate approve` ends in one.
//!
//! The request says who it is for; what it may be used for, and how long, is said by the API object. Written byte by
//! byte (RFC 5280) because rcgen keeps one attribute of a kind: a user in two groups would lose one.

use std::time::Duration;

use base64::Engine as _;
use jiff::Timestamp;
use rcgen::SigningKey as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, Error, LEAF_VALIDITY, MAX_REQUEST};

/// As upstream's signer: clocks differ, and of a short life nothing is taken away for that.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
const SHORT: Duration = Duration::from_secs(8 * 60 * 60);
const LEAST: Duration = Duration::from_secs(10 * 60);

/// Bits of the key usage, by the API's names.
const KEY_USAGES: &[(&str, u8)] = &[
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// Object identifiers of the extended key usages, by the API's names.
const EXTENDED_KEY_USAGES: &[(&str, &[u8])] = &[
    ("any", b"\x55\x1d\x25\x00"),
    ("server auth", b"\x2b\x06\x01\x05\x05\x07\x03\x01"),
    ("client auth", b"\x2b\x06\x01\x05\x05\x07\x03\x02"),
    ("code signing", b"\x2b\x06\x01\x05\x05\x07\x03\x03"),
    ("email protection", b"\x2b\x06\x01\x05\x05\x07\x03\x04"),
    ("s/mime", b"\x2b\x06\x01\x05\x05\x07\x03\x04"),
    ("ipsec end system", b"\x2b\x06\x01\x05\x05\x07\x03\x05"),
    ("ipsec tunnel", b"\x2b\x06\x01\x05\x05\x07\x03\x06"),
    ("ipsec user", b"\x2b\x06\x01\x05\x05\x07\x03\x07"),
    ("timestamping", b"\x2b\x06\x01\x05\x05\x07\x03\x08"),
    ("ocsp signing", b"\x2b\x06\x01\x05\x05\x07\x03\x09"),
    ("microsoft sgc", b"\x2b\x06\x01\x04\x01\x82\x37\x0a\x03\x03"),
    ("netscape sgc", b"\x60\x86\x48\x01\x86\xf8\x42\x04\x01"),
];

const KEY_USAGE: u8 = 15;
const SUBJECT_ALT_NAME: u8 = 17;
const BASIC_CONSTRAINTS: u8 = 19;
const AUTHORITY_KEY_IDENTIFIER: u8 = 35;
const EXTENDED_KEY_USAGE: u8 = 37;

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const BITS: u8 = 0x03;
const OID: u8 = 0x06;

impl Authority {
    /// Signs what a request (PEM) asks for; PEM. `life` is what it asks for too, at most [`LEAF_VALIDITY`].
    ///
    /// # Errors
    /// When the request is malformed or not signed by its own key, a usage is unknown, or the authority has expired.
    pub fn issue(
        &self,
        request: &[u8],
        usages: &[String],
        life: Option<Duration>,
        now: Timestamp,
    ) -> Result<String, Error> {
        let bad = |why: &dyn std::fmt::Display| Error::Request(why.to_string());
        if request.len() > MAX_REQUEST {
            return Err(bad(&format!("larger than {MAX_REQUEST} bytes")));
        }
        if now >= self.not_after {
            return Err(Error::Certificate(format!("the signer has expired: NotAfter={}", self.not_after)));
        }
        let block = Pem::iter_from_buffer(request).find_map(Result::ok).ok_or_else(|| bad(&"not PEM"))?;
        let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(|e| bad(&e))?;
        request.verify_signature().map_err(|e| bad(&e))?;
        let (_, issuer) = X509Certificate::from_der(&self.der).map_err(|e| bad(&e))?;
        let info = &request.certification_request_info;

        let life = life.unwrap_or(LEAF_VALIDITY).clamp(LEAST, LEAF_VALIDITY);
        let end = if life < SHORT { now + life } else { now + (life - BACKDATE) };
        let validity = tlv(SEQUENCE, &[time(now - BACKDATE), time(end.min(self.not_after))].concat());
        let mut extensions = usage_extensions(usages)?;
        // Not an authority.
        extensions.push(extension(BASIC_CONSTRAINTS, true, &tlv(SEQUENCE, &[])));
        extensions.extend(authority_key(&issuer));
        let nameless = info.subject.iter().next().is_none();
        extensions.extend(alternative_names(&request)?.map(|names| extension(SUBJECT_ALT_NAME, nameless, &names)));

        let algorithm = self.algorithm()?;
        let to_be_signed = tlv(
            SEQUENCE,
            &[
                tlv(0xa0, &tlv(0x02, &[2])),
                tlv(0x02, super::serial()?.as_ref()),
                algorithm.to_vec(),
                issuer.subject().as_raw().to_vec(),
                validity,
                info.subject.as_raw().to_vec(),
                info.subject_pki.raw.to_vec(),
                tlv(0xa3, &tlv(SEQUENCE, &extensions.concat())),
            ]
            .concat(),
        );
        let sign = |source| Error::Sign { name: info.subject.to_string(), source };
        let signature = self.issuer.key().sign(&to_be_signed).map_err(sign)?;
        Ok(pem(&tlv(SEQUENCE, &[&to_be_signed, algorithm, &bits(0, &signature)].concat())))
    }

    /// The algorithm of its signatures, encoded.
    fn algorithm(&self) -> Result<&'static [u8], Error> {
        let known: [(_, &[u8]); 4] = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"),
            (&rcgen::PKCS_ED25519, b"\x30\x05\x06\x03\x2b\x65\x70"),
            (&rcgen::PKCS_RSA_SHA256, b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"),
        ];
        let ours = self.issuer.key().algorithm();
        let found = known.into_iter().find(|(algorithm, _)| *algorithm == ours);
        found
            .map(|(_, encoded)| encoded)
            .ok_or_else(|| Error::Certificate("its key signs in a way we don't know".into()))
    }
}

fn usage_extensions(usages: &[String]) -> Result<Vec<Vec<u8>>, Error> {
    let (mut key, mut extended) = (0_u16, Vec::new());
    for usage in usages {
        if let Some((_, bit)) = KEY_USAGES.iter().find(|(name, _)| name == usage) {
            key |= 0x8000_u16 >> *bit;
        } else if let Some(at) = EXTENDED_KEY_USAGES.iter().position(|(name, _)| name == usage) {
            extended.push(EXTENDED_KEY_USAGES[at].1);
        } else {
            return Err(Error::Request(format!("unrecognized usage value {usage:?}")));
        }
    }
    // In the order of the table, each once ("s/mime" is another name of "email protection").
    let mut ordered: Vec<&[u8]> =
        EXTENDED_KEY_USAGES.iter().map(|(_, oid)| *oid).filter(|o| extended.contains(o)).collect();
    ordered.dedup();
    let mut extensions = Vec::new();
    if key != 0 {
        let bytes = key.to_be_bytes();
        let bytes = if bytes[1] == 0 { &bytes[..1] } else { &bytes[..] };
        let unused = u8::try_from(bytes[bytes.len() - 1].trailing_zeros()).unwrap_or(0);
        extensions.push(extension(KEY_USAGE, true, &bits(unused, bytes)));
    }
    if !ordered.is_empty() {
        let oids: Vec<u8> = ordered.into_iter().flat_map(|oid| tlv(OID, oid)).collect();
        extensions.push(extension(EXTENDED_KEY_USAGE, false, &tlv(SEQUENCE, &oids)));
    }
    Ok(extensions)
}

/// Tells which of the authority's keys signed.
fn authority_key(issuer: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let key = issuer.extensions().iter().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0),
        _ => None,
    })?;
    Some(extension(AUTHORITY_KEY_IDENTIFIER, false, &tlv(SEQUENCE, &tlv(0x80, key))))
}

/// Names, addresses, URIs and mail addresses that it asks for; what else it asks for is not taken over.
fn alternative_names(request: &X509CertificationRequest<'_>) -> Result<Option<Vec<u8>>, Error> {
    let mut names = Vec::new();
    for asked in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(asked) = asked else { continue };
        for name in &asked.general_names {
            names.push(match name {
                GeneralName::RFC822Name(text) => tlv(0x81, text.as_bytes()),
                GeneralName::DNSName(text) => tlv(0x82, text.as_bytes()),
                GeneralName::URI(text) => tlv(0x86, text.as_bytes()),
                GeneralName::IPAddress(bytes) if matches!(bytes.len(), 4 | 16) => tlv(0x87, bytes),
                GeneralName::IPAddress(bytes) => {
                    return Err(Error::Request(format!("an IP address of {} bytes", bytes.len())));
                }
                _ => continue,
            });
        }
    }
    Ok((!names.is_empty()).then(|| tlv(SEQUENCE, &names.concat())))
}

/// One of those with the identifiers 2.5.29.x.
fn extension(id: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    tlv(SEQUENCE, &[&tlv(OID, &[0x55, 0x1d, id]), critical, &tlv(OCTETS, value)].concat())
}

fn bits(unused: u8, bytes: &[u8]) -> Vec<u8> {
    tlv(BITS, &[&[unused], bytes].concat())
}

/// With two digits for the year as long as they suffice.
fn time(at: Timestamp) -> Vec<u8> {
    let text = at.strftime("%Y%m%d%H%M%SZ").to_string();
    if text.as_str() < "2050" { tlv(0x17, &text.as_bytes()[2..]) } else { tlv(0x18, text.as_bytes()) }
}

/// Tag, length, value.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = value.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|b| *b == 0).collect();
    match (value.len(), u8::try_from(length.len())) {
        (0..0x80, _) => out.push(length.first().copied().unwrap_or(0)),
        (_, Ok(bytes)) => {
            out.push(0x80 | bytes);
            out.extend(length);
        }
        // Of eight bytes at most.
        (_, Err(_)) => unreachable!("a length has no more bytes than usize"),
    }
    out.extend_from_slice(value);
    out
}

fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::pki::authority::new_key;

    fn asked(names: &[SanType], key: &KeyPair) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "alice");
        params.distinguished_name.push(DnType::OrganizationName, "one");
        // rcgen knows each kind once, but takes the same under another name.
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), "two");
        params.subject_alt_names = names.to_vec();
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    fn owned(usages: &[&str]) -> Vec<String> {
        usages.iter().map(|u| (*u).to_owned()).collect()
    }

    #[test]
    fn a_certificate_says_what_was_asked_for_and_its_issuer_signed_it() {
        let folder = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let ca = Authority::open(folder.path(), "client-ca", now).unwrap();
        let key = new_key("alice").unwrap();
        let names = [
            SanType::DnsName("a.example".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::URI("spiffe://x/y".try_into().unwrap()),
            SanType::Rfc822Name("a@example".try_into().unwrap()),
        ];
        let usages = owned(&["client auth", "digital signature", "server auth", "decipher only"]);
        let day = Duration::from_secs(24 * 60 * 60);
        let text = ca.issue(asked(&names, &key).as_bytes(), &usages, Some(day), now).unwrap();
        let der = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
        let facts = crate::pki::peer::facts(&der).unwrap();
        assert_eq!((facts.common_name.as_str(), facts.organizations), ("alice", owned(&["one", "two"])));
        assert_eq!((facts.names, facts.addresses), (owned(&["a.example"]), vec!["10.0.0.1".parse().unwrap()]));
        assert_eq!((facts.not_before, facts.not_after), (now - BACKDATE, now + (day - BACKDATE)));

        let (rest, made) = X509Certificate::from_der(&der).unwrap();
        let (_, issuer) = X509Certificate::from_der(ca.der()).unwrap();
        assert!(rest.is_empty() && made.issuer() == issuer.subject() && !made.is_ca());
        made.verify_signature(Some(issuer.public_key())).unwrap();
        let usage = made.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature() && usage.value.decipher_only());
        assert!(!usage.value.key_encipherment() && !usage.value.encipher_only());
        let usage = made.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && usage.server_auth && !usage.any && usage.other.is_empty());
        assert_eq!(made.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 4);
        let again = ca.issue(asked(&[], &key).as_bytes(), &usages, None, now).unwrap();
        let der = CertificateDer::from_pem_slice(again.as_bytes()).unwrap();
        let (_, other) = X509Certificate::from_der(&der).unwrap();
        assert!(other.raw_serial() != made.raw_serial() && other.subject_alternative_name().unwrap().is_none());
    }

    #[test]
    fn how_long_it_lives() {
        let folder = tempfile::tempdir().unwrap();
        let made: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let ca = Authority::open(folder.path(), "client-ca", made).unwrap();
        let request = asked(&[], &new_key("alice").unwrap());
        let check = |life: Option<Duration>, now: Timestamp, until: Timestamp| {
            let text = ca.issue(request.as_bytes(), &owned(&["client auth"]), life, now).unwrap();
            let der = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(crate::pki::peer::facts(&der).unwrap().not_after, until, "{life:?} {now}");
        };
        let hour = Duration::from_secs(60 * 60);
        check(None, made, made + (LEAF_VALIDITY - BACKDATE));
        check(Some(LEAF_VALIDITY * 2), made, made + (LEAF_VALIDITY - BACKDATE));
        check(Some(hour), made, made + hour);
        check(Some(Duration::from_secs(1)), made, made + LEAST);
        check(None, ca.not_after - hour, ca.not_after);
        let late = ca.issue(request.as_bytes(), &owned(&["client auth"]), None, ca.not_after);
        assert!(late.unwrap_err().to_string().contains("expired"));
    }

    #[test]
    fn bad_requests_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let ca = Authority::open(folder.path(), "client-ca", now).unwrap();
        let request = asked(&[], &new_key("alice").unwrap());
        let check = |request: &[u8], usages: &[&str]| ca.issue(request, &owned(usages), None, now).is_ok();
        assert!(check(request.as_bytes(), &["client auth"]));
        assert!(!check(request.as_bytes(), &["client auth", "world domination"]));
        assert!(!check(b"", &["client auth"]));
        assert!(!check(ca.pem().as_bytes(), &["client auth"]));
        assert!(!check(&vec![b'x'; MAX_REQUEST + 1], &["client auth"]));
        // Signed by another key than its own.
        let mut der = Pem::iter_from_buffer(request.as_bytes()).next().unwrap().unwrap().contents;
        let last = der.len() - 1;
        der[last] ^= 1;
        let forged = pem(&der).replace("CERTIFICATE", "CERTIFICATE REQUEST");
        assert!(!check(forged.as_bytes(), &["client auth"]));
    }
}
