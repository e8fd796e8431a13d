//! Types: what is to be written before a placed pod can be bound.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::devices::Reservation;
use crate::client::store::Meta as _;

#[derive(Clone, Debug, PartialEq)]
pub enum Promise {
    /// The claim gets this volume, as it was at that `resourceVersion`.
    Volume { claim: ClaimId, volume: String, revision: String },
    /// A volume is to be made for the claim on this node.
    Node { claim: ClaimId, node: String },
    /// The claim gets its devices, or one more pod that uses them. It may have to be made first.
    Devices(Box<Reservation>),
}

/// Just which claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimId {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl ClaimId {
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self { namespace: meta.namespace().into(), name: meta.name().into(), uid: meta.uid().into() }
    }

    #[must_use]
    pub fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }
}
