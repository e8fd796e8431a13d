//! Decides: the claims that a pod's templates ask for, their names in its status, and its reservations.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::{Value, json};

use super::{CLAIMS, Named, POD_CLAIM, TEMPLATES, claims_of, is_of, made_for, named};
use crate::client::request::{Class, Request, Verb};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Action, Note, Plan, Report, Write};
use crate::server::controllers::stores::row;
use crate::server::controllers::{owners, pods};

const COMPONENT: &str = "resource_claim";
const FAILED: &str = "FailedResourceClaimCreation";
/// Of a name, without the hyphen and five letters that the server adds.
const LONGEST_BASE: usize = 57;

/// `made`: what was made for the pod's claims, their names recorded or not. `answers`: templates, by name.
pub fn plan(
    pod: &Pod,
    claim: impl Fn(&str) -> Option<Arc<ResourceClaim>>,
    made: &[Arc<ResourceClaim>],
    answers: &HashMap<String, Option<Value>>,
) -> Plan {
    let mut plan = Plan::default();
    let (mut recorded, mut to_make) = (Vec::new(), Vec::new());
    for wanted in claims_of(pod) {
        match named(pod, wanted) {
            Named::NotNeeded => continue,
            Named::Claim { name, own } if claim(name).is_some_and(|c| !own || is_of(&c, pod)) => continue,
            Named::Claim { .. } | Named::NotYet => {}
        }
        // Without a template somebody else makes it.
        let Some(template) = wanted.resource_claim_template_name.as_deref() else { continue };
        match made.iter().find(|c| made_for(c) == Some(&*wanted.name)) {
            Some(there) => recorded.push(json!({ "name": wanted.name, "resourceClaimName": there.metadata.name })),
            None => to_make.push((wanted, template)),
        }
    }
    // All at once: what is learned of them is used once.
    let templates: BTreeSet<&str> = to_make.iter().map(|(_, template)| *template).collect();
    if templates.iter().any(|t| !answers.contains_key(*t)) {
        let get = |t: &&str| Request::new(Verb::Get, row(TEMPLATES), pod.metadata.namespace(), t, Value::Null);
        plan.actions.extend(templates.iter().map(get).map(Action::Read));
        return plan;
    }
    for (wanted, name) in to_make {
        match answers.get(name).and_then(Option::as_ref) {
            Some(template) => plan.push(create(pod, wanted, template)),
            None => plan.push(missing(pod, wanted, name)),
        }
    }
    if !recorded.is_empty() {
        let meta = &pod.metadata;
        let body = json!({ "metadata": { "uid": meta.uid }, "status": { "resourceClaimStatuses": recorded } });
        let patch = Request::new(Verb::StrategicPatch, row("pods"), meta.namespace(), meta.name(), body).on("status");
        plan.push(Write { fine: &[Class::NotFound, Class::Conflict], ..Write::new(patch) });
    }
    // The scheduler reserves for those that it places.
    if !pods::node_name(pod).is_empty() {
        let used = claims_of(pod).iter().filter_map(|wanted| match named(pod, wanted) {
            Named::Claim { name, own } => claim(name).filter(|c| !own || is_of(c, pod)),
            Named::NotNeeded | Named::NotYet => None,
        });
        plan.actions.extend(used.filter_map(|c| reserve(pod, &c)).map(Action::from));
    }
    plan
}

fn create(pod: &Pod, wanted: &PodResourceClaim, template: &Value) -> Write {
    let (meta, spec) = (&pod.metadata, &template["spec"]);
    let mut annotations = spec["metadata"]["annotations"].clone();
    if !annotations.is_object() {
        annotations = json!({});
    }
    annotations[POD_CLAIM] = json!(wanted.name);
    let body = json!({
        "apiVersion": row(CLAIMS).api_version(), "kind": "ResourceClaim",
        "metadata": {
            "generateName": base_name(meta.name(), &wanted.name),
            "namespace": meta.namespace(),
            "labels": spec["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [owners::reference(row("pods"), meta)],
        },
        "spec": spec["spec"],
    });
    let failed = format!("PodResourceClaim {}: create ResourceClaim : {{error}}", wanted.name);
    Write::new(Request::create(row(CLAIMS), meta.namespace(), body)).reported(Report {
        regarding: owners::object_reference(row("pods"), meta),
        component: COMPONENT,
        ok: None,
        failed: Some((FAILED, failed)),
    })
}

/// `<pod>-<claim>-`; of names that are too long, of both the same share.
fn base_name(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= LONGEST_BASE {
        return whole;
    }
    let cut = |name: &str| name.get(..name.len() * LONGEST_BASE / whole.len()).unwrap_or_default().to_owned();
    format!("{}-{}", cut(pod), cut(claim))
}

/// When the template comes, this is planned again.
fn missing(pod: &Pod, wanted: &PodResourceClaim, template: &str) -> Action {
    let name = &wanted.name;
    Action::Event(Note {
        regarding: owners::object_reference(row("pods"), &pod.metadata),
        warning: true,
        reason: FAILED,
        message: format!(
            "PodResourceClaim {name}: resource claim template {template:?}: \
             resourceclaimtemplate.resource.k8s.io {template:?} not found"
        ),
        component: COMPONENT,
        action: "",
    })
}

fn reserve(pod: &Pod, claim: &ResourceClaim) -> Option<Write> {
    let status = claim.status.as_ref().filter(|s| s.allocation.is_some())?;
    let mut reserved = status.reserved_for.clone().unwrap_or_default();
    let (name, uid) = (pod.metadata.name(), pod.metadata.uid());
    if reserved.iter().any(|r| r.uid == uid) {
        return None;
    }
    let ours = serde_json::from_value(json!({ "resource": "pods", "name": name, "uid": uid })).ok()?;
    reserved.push(ours);
    Some(Write::status(row(CLAIMS), &claim.metadata, json!({ "reservedFor": reserved })))
}
