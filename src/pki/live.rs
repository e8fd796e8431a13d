//! Effects: a certificate with its key that can be replaced while listeners and clients use it. Handshakes read the
//! current one; connections that are already open stay open.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use jiff::Timestamp;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::authority::{Authority, Leaf, RENEW_BEFORE, new_key};
use super::peer::{Facts, facts};
use super::{Error, files, tls};

/// One certificate with its key, as PEM and ready for handshakes.
pub struct Loaded {
    pub certificate_pem: String,
    pub key_pem: String,
    pub facts: Facts,
    certified: Arc<CertifiedKey>,
}

impl Loaded {
    /// # Errors
    /// When either text is malformed, or the key is another one's.
    pub fn parse(certificate_pem: String, key_pem: String) -> Result<Self, Error> {
        let bad = |e: &dyn fmt::Display| Error::Certificate(e.to_string());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| Error::Certificate(format!("{e:?}")))?;
        let first = chain.first().ok_or_else(|| Error::Certificate("no certificate in it".into()))?;
        let facts = facts(first)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|e| Error::Certificate(format!("no private key in it: {e:?}")))?;
        let certified = CertifiedKey::from_der(chain, key, &tls::provider()).map_err(|e| bad(&e))?;
        Ok(Self { certificate_pem, key_pem, facts, certified: Arc::new(certified) })
    }

    /// Less than [`RENEW_BEFORE`] is left.
    #[must_use]
    pub fn renewal_due(&self, now: Timestamp) -> bool {
        self.facts.not_after < now + RENEW_BEFORE
    }
}

/// The files of a leaf certificate.
#[derive(Clone, Debug)]
pub struct Paths {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Paths {
    /// `<directory>/<name>.crt` and `.key`.
    #[must_use]
    pub fn new(directory: &Path, name: &str) -> Self {
        Self { certificate: directory.join(format!("{name}.crt")), key: directory.join(format!("{name}.key")) }
    }

    /// `None` when there is nothing usable: no files, or two that don't belong together because a crash came
    /// between writing them.
    ///
    /// # Errors
    /// When a file can't be read or is damaged; the error names it.
    pub fn load(&self) -> Result<Option<Loaded>, Error> {
        let (Some(certificate), Some(key)) = (files::read(&self.certificate)?, files::read(&self.key)?) else {
            return Ok(None);
        };
        let damaged = |path: &Path, what: String| Error::Damaged { path: path.into(), what };
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|e| damaged(&self.certificate, format!("no certificate in it ({e:?})")))?;
        facts(&der).map_err(|e| damaged(&self.certificate, e.to_string()))?;
        super::authority::parse_key(&self.key, &key)?;
        Ok(Loaded::parse(certificate, key).ok())
    }

    /// # Errors
    /// When a file can't be written.
    pub fn save(&self, loaded: &Loaded) -> Result<(), Error> {
        files::replace(&self.key, loaded.key_pem.as_bytes(), 0o600)?;
        files::replace(&self.certificate, loaded.certificate_pem.as_bytes(), 0o644)
    }

    /// The leaf on disk when it says what `leaf` says, was signed by `authority` and isn't due; else a new one.
    ///
    /// # Errors
    /// When a file is damaged or can't be written, or signing fails.
    pub fn open(&self, authority: &Authority, leaf: &Leaf, now: Timestamp) -> Result<Loaded, Error> {
        if let Some(loaded) = self.load()? {
            let certificate = &loaded.certified.cert[0];
            if says(&loaded.facts, leaf) && !loaded.renewal_due(now) && tls::signed_by(certificate, authority.der()) {
                return Ok(loaded);
            }
        }
        let key = new_key(&leaf.common_name)?;
        let loaded = Loaded::parse(authority.sign(leaf, &key, now)?, key.serialize_pem())?;
        self.save(&loaded)?;
        Ok(loaded)
    }
}

fn says(facts: &Facts, leaf: &Leaf) -> bool {
    facts.common_name == leaf.common_name
        && facts.organizations.first() == leaf.organization.as_ref()
        && leaf.names.iter().all(|n| facts.names.contains(n))
        && leaf.addresses.iter().all(|a| facts.addresses.contains(a))
}

/// The current certificate. Cheap to share; every handshake asks it anew.
pub struct Live(RwLock<Arc<Loaded>>);

impl Live {
    #[must_use]
    pub fn new(loaded: Loaded) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(loaded))))
    }

    /// # Panics
    /// Never: no code panics while it holds the lock.
    #[must_use]
    pub fn current(&self) -> Arc<Loaded> {
        self.0.read().expect("no panic while held").clone()
    }

    /// # Panics
    /// Never: no code panics while it holds the lock.
    pub fn swap(&self, loaded: Loaded) {
        *self.0.write().expect("no panic while held") = Arc::new(loaded);
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.current().facts).finish()
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().certified.clone())
    }
}

impl ResolvesClientCert for Live {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
