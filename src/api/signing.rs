//! Types: what a signer is asked for, by whoever has no key.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// A certificate that somebody approved.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// `kubernetes.io/kube-apiserver-client`
    pub signer: &'a str,
    /// PEM.
    pub request: &'a [u8],
    /// By the names of certificates.k8s.io.
    pub usages: &'a [String],
    pub life: Option<Duration>,
    pub now: Timestamp,
}

type Ask = dyn Fn(&Order<'_>) -> Result<String, String> + Send + Sync;

/// Makes certificates (PEM) in the name of the signers of the cluster.
#[derive(Clone)]
pub struct Sign(Arc<Ask>);

impl Sign {
    pub fn new(ask: impl Fn(&Order<'_>) -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// # Errors
    /// What keeps the signer from it.
    pub fn sign(&self, order: &Order<'_>) -> Result<String, String> {
        (self.0)(order)
    }
}

impl fmt::Debug for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sign")
    }
}
