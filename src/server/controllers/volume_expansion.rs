//! Decides: what is said of a claim that asks for more than its volume has (`pkg/controller/volume/expand`). Volumes are
//! enlarged by their drivers' own resizers, which look at the claim itself; none is by this controller.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan};
use super::owners;
use super::stores::{Stores, row};
use crate::api::quantity;
use crate::client::store::Meta as _;

/// Keys are claims.
pub struct VolumeExpansion;

impl Controller for VolumeExpansion {
    fn name(&self) -> &'static str {
        "volume-expansion"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.claims.subscribe(move |change| {
            let Some(claim) = change.new.filter(|claim| has_outgrown(claim)) else { return };
            // Once for each larger size.
            if change.old.is_none_or(|old| bytes(requested(old)) < bytes(requested(claim)) || !has_outgrown(old)) {
                queue.add(claim.metadata.namespace(), claim.metadata.name());
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = stores.claims.get(&key.namespace, &key.name).filter(|c| has_outgrown(c)) else { return plan };
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        let of = stores.volumes.get("", name).and_then(|v| v.spec.as_ref()?.claim_ref.as_ref()?.uid.clone());
        if of.as_deref() == Some(claim.metadata.uid()) {
            plan.push(Action::Event(Note {
                regarding: owners::object_reference(row("persistentvolumeclaims"), &claim.metadata),
                warning: false,
                reason: "ExternalExpanding",
                message: "waiting for an external controller to expand this PVC".to_owned(),
                component: "volume_expand",
                action: "",
            }));
        }
        plan
    }
}

fn requested(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")
}

fn bytes(quantity: Option<&Quantity>) -> i64 {
    quantity.and_then(|q| quantity::Quantity::parse(&q.0).ok()).map_or(0, |q| q.value())
}

fn has_outgrown(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| {
        let capacity = status.capacity.as_ref().and_then(|c| c.get("storage"));
        status.phase.as_deref() == Some("Bound") && bytes(requested(claim)) > bytes(capacity)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(what: &str, phase: &str, size: &str, bound_to: &str, want: &[&str]) {
        let stores = Stores::new();
        let typed = |value: Value| serde_json::from_value(value).unwrap();
        stores.claims.put(typed(json!({
            "metadata": { "name": "data", "namespace": "ns", "uid": "c" },
            "spec": { "volumeName": "v", "resources": { "requests": { "storage": size } } },
            "status": { "phase": phase, "capacity": { "storage": "1Gi" } },
        })));
        stores.volumes.put(
            serde_json::from_value(json!({ "metadata": { "name": "v" },
            "spec": { "claimRef": { "namespace": "ns", "name": "data", "uid": bound_to } } }))
            .unwrap(),
        );
        let moment = Moment { now: "2026-01-02T00:00:00Z".parse().unwrap(), failure: None };
        let plan = VolumeExpansion.plan(&stores, &Name::new("ns", "data"), moment);
        let told = |action: &Action| match action {
            Action::Event(note) => format!("{}: {}", note.reason, note.message),
            other => panic!("{other:?}"),
        };
        assert_eq!(plan.actions.iter().map(told).collect::<Vec<_>>(), want, "{what}");
    }

    #[test]
    fn a_claim_that_has_outgrown_its_volume_waits_for_the_resizer() {
        let waits = ["ExternalExpanding: waiting for an external controller to expand this PVC"];
        check("larger", "Bound", "2Gi", "c", &waits);
        check("as it is", "Bound", "1Gi", "c", &[]);
        check("in other words", "Bound", "1024Mi", "c", &[]);
        check("not bound yet", "Pending", "2Gi", "c", &[]);
        check("bound to another", "Bound", "2Gi", "other", &[]);
    }
}
