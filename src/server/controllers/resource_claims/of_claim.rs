//! Decides: who still uses a claim, and what becomes of it when nobody does.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use serde_json::{Value, json};

use super::{CLAIMS, FINALIZER, is_done, is_of};
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Action, Plan, Write};
use crate::server::controllers::owners;
use crate::server::controllers::stores::row;

/// `answers`: pods as the server has them, by name. `released`: its uid once its allocation was removed here.
pub fn plan(
    claim: &ResourceClaim,
    pod: impl Fn(&str) -> Option<Arc<Pod>>,
    answers: &HashMap<String, Option<Value>>,
    released: &mut Option<String>,
) -> Plan {
    let mut plan = Plan::default();
    let (meta, uid) = (&claim.metadata, claim.metadata.uid());
    let status = claim.status.clone().unwrap_or_default();
    let reserved = status.reserved_for.unwrap_or_default();
    let (mut valid, mut unknown) = (Vec::new(), Vec::new());
    for one in &reserved {
        // Of other users nothing is known: such a claim is left alone, as upstream.
        if one.api_group.as_deref().is_some_and(|g| !g.is_empty()) || one.resource != "pods" {
            return plan;
        }
        match holds(one, &pod, answers) {
            Some(true) => valid.push(one),
            Some(false) => {}
            None => unknown.push(one),
        }
    }
    if !unknown.is_empty() {
        // A pod that the scheduler knows may not be here yet. All at once: what is learned is used once.
        for one in reserved.iter().filter(|one| pod(&one.name).is_none()) {
            let get = Request::new(Verb::Get, row("pods"), meta.namespace(), &one.name, Value::Null);
            plan.push(Action::Read(get));
        }
        return plan;
    }
    let allocated = status.allocation.is_some();
    let protected = meta.finalizers().iter().any(|f| f == FINALIZER);
    let unused = valid.is_empty();
    if valid.len() < reserved.len() || (unused && allocated && protected && meta.deletion_timestamp.is_some()) {
        let mut wanted = json!({ "reservedFor": (!unused).then_some(&valid) });
        // So that it can be allocated elsewhere for whoever comes next.
        if unused && protected {
            wanted["allocation"] = Value::Null;
            *released = Some(uid.to_owned());
        }
        plan.push(Write::status(row(CLAIMS), meta, wanted));
    } else if allocated {
        // By the scheduler again.
        *released = None;
    } else if unused && protected && (released.as_deref() == Some(uid) || meta.deletion_timestamp.is_some()) {
        // Only then: the scheduler sets the finalizer before it allocates.
        let others: Vec<&String> = meta.finalizers().iter().filter(|f| *f != FINALIZER).collect();
        let body =
            json!({ "metadata": { "uid": uid, "resourceVersion": meta.resource_version, "finalizers": others } });
        plan.push(Request::new(Verb::MergePatch, row(CLAIMS), meta.namespace(), meta.name(), body));
    } else {
        *released = None;
    }
    // A claim made for a pod goes with it; the pod may be kept long after it has finished.
    if unused && meta.deletion_timestamp.is_none() {
        let owner = owners::controller_named(meta, "", "Pod").and_then(&pod);
        if owner.is_some_and(|owner| !is_of(claim, &owner) || is_done(&owner)) {
            plan.push(Write::delete(Request::delete(row(CLAIMS), meta.namespace(), meta.name(), uid)));
        }
    }
    plan
}

/// Whether the pod still needs its reservation; `None` when the server has to be asked.
fn holds(
    one: &ResourceClaimConsumerReference,
    pod: &impl Fn(&str) -> Option<Arc<Pod>>,
    answers: &HashMap<String, Option<Value>>,
) -> Option<bool> {
    match (pod(&one.name), answers.get(&one.name)) {
        (Some(pod), _) => Some(pod.metadata.uid() == one.uid && !is_done(&pod)),
        (None, Some(answer)) => Some(answer.as_ref().is_some_and(|pod| pod["metadata"]["uid"] == *one.uid)),
        (None, None) => None,
    }
}
