//! Decides: whether a text is a request for a certificate, signed by the key that it names, or a chain of certificates.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

const REQUEST: &str = "CERTIFICATE REQUEST";
const CERTIFICATE: &str = "CERTIFICATE";

/// The blocks of a text; what is around them does not matter, and neither does a block that cannot be read.
fn blocks(text: &[u8]) -> impl Iterator<Item = Pem> {
    Pem::iter_from_buffer(text).filter_map(Result::ok)
}

/// A PKCS#10 request (RFC 2986).
///
/// # Errors
/// What is wrong with it. Keys that `ring` does not know (P-224, P-521, RSA below 2048 bits) are refused.
pub fn request(text: &[u8]) -> Result<(), String> {
    let Some(block) = blocks(text).next().filter(|block| block.label == REQUEST) else {
        return Err(format!("PEM block type must be {REQUEST}"));
    };
    let Ok((rest, request)) = X509CertificationRequest::from_der(&block.contents) else {
        return Err("asn1: structure error: not a certificate request".into());
    };
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".into());
    }
    request.verify_signature().map_err(|error| format!("x509: {error}"))
}

/// What a signer issued: one certificate or more, the first of which is the one that was asked for.
///
/// # Errors
/// What is wrong with it.
pub fn certificates(text: &[u8]) -> Result<(), String> {
    if has_headers(text) {
        return Err("no PEM block headers are permitted".into());
    }
    let mut any = false;
    for block in blocks(text) {
        any = true;
        if block.label != CERTIFICATE {
            return Err(format!("only {CERTIFICATE} PEM blocks are allowed, found {:?}", block.label));
        }
        if block.contents.is_empty() {
            return Err(format!("found {CERTIFICATE} PEM block containing 0 certificates"));
        }
        let mut rest = block.contents.as_slice();
        while !rest.is_empty() {
            (rest, _) = X509Certificate::from_der(rest).map_err(|_| "x509: malformed certificate")?;
        }
    }
    if any { Ok(()) } else { Err(format!("must contain at least one {CERTIFICATE} PEM block")) }
}

/// Whether a block has lines such as `Proc-Type: 4,ENCRYPTED`.
fn has_headers(text: &[u8]) -> bool {
    let mut inside = false;
    for line in String::from_utf8_lossy(text).lines() {
        if line.starts_with("-----BEGIN ") {
            inside = true;
        } else if line.starts_with("-----END ") {
            inside = false;
        } else if inside && line.contains(':') {
            return true;
        }
    }
    false
}
