//! Effects: `pods/binding`: the scheduler's decision becomes `spec.nodeName`, once.

use serde_json::{Value, json};

use super::managed::Ownership;
use super::request::{Context, Target, WriteOptions};
use super::strategy::Part;
use super::{Failed, MAX_ATTEMPTS, Registry, attributes, meta, value};
use crate::api::field::{FieldError, Path};
use crate::api::object::ObjectRef;
use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::server::admission::Operation;
use crate::server::admission::webhooks::Options;

/// What error messages call it.
static RESOURCE: Resource = Resource::unstored("", "bindings", "binding", "Binding");

/// Conflicts are worded about this, as upstream.
static POD_BINDING: Resource = Resource::unstored("", "pods/binding", "pod", "Pod");

impl Registry {
    pub(super) async fn bind(
        &self,
        cx: &Context,
        t: &Target,
        binding: &Value,
        o: &WriteOptions,
    ) -> Result<ObjectRef, Status> {
        let entry = &*self.entry(t)?;
        let name = meta::text(binding, "name");
        let t = &Target { name: if t.name.is_empty() { name.to_owned() } else { t.name.clone() }, ..t.clone() };
        if !name.is_empty() && name != t.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                t.name
            )));
        }
        let errors = validate(binding);
        if !errors.is_empty() {
            return Err(Status::invalid(&RESOURCE, name, &errors));
        }
        for _ in 0..MAX_ATTEMPTS {
            let old = self.find(entry, t)?;
            let attributes = attributes(cx, t, Operation::Create, None, o.dry_run);
            let admitted = self.admit_document(t, attributes, Options::Write(o), binding.clone()).await?;
            let before = value(&old)?;
            let new = bound(t, &before, &admitted)?;
            // The write itself is the server's own: admission has seen the binding.
            match self.replace(cx, t, entry, (Part::Binding, Ownership::Kept), (&old, before), new, o).await {
                Err(Failed::Conflict) => {}
                Err(Failed::Refused(status)) => return Err(status),
                Ok(pod) => return Ok(pod),
            }
        }
        Err(Status::modified(t.resource, &t.name))
    }
}

fn validate(binding: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let target = Path::new("target");
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&target.child("kind"), &kind, &["Node", "<empty>"]));
    }
    if binding["target"]["name"].as_str().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    errors
}

/// The pod on its node, or why it cannot be (`assignPod` of upstream's pod storage).
fn bound(t: &Target, pod: &Value, binding: &Value) -> Result<Value, Status> {
    let name = &t.name;
    let refuse = |why: String| Err(Status::conflict(&POD_BINDING, name, &why));
    meta::check_uid(t, meta::text(binding, "uid"), pod)?;
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !node.is_empty() {
        return refuse(format!("pod {name} is already assigned to node {node:?}"));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for field in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
            pod["metadata"][field][key] = value.clone();
        }
    }
    // It has served (v1.35, `ClearingNominatedNodeNameAfterBinding`).
    if let Some(status) = pod["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    scheduled(&mut pod);
    Ok(pod)
}

/// Sets the condition `PodScheduled=True`.
fn scheduled(pod: &mut Value) {
    let generation = pod["metadata"]["generation"].clone();
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    let mut condition = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": meta::now()});
    if generation.is_i64() {
        condition["observedGeneration"] = generation;
    }
    match conditions.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(old) if old["status"] == "True" => {}
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}
