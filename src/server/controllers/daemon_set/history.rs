//! Decides: the revision that pods are made from now, and which old ones go.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::{HASH, Observed, label, status};
use crate::client::request::{Class, Request, Verb};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Plan, Write};
use crate::server::controllers::revisions::{self, Current};
use crate::server::controllers::stores::row;

/// The history as this plan finds it.
pub struct History {
    /// Of the template as it is now.
    pub hash: String,
    /// Old revisions that go.
    pub surplus: Vec<Write>,
}

/// Adopts, numbers and labels revisions. `None` when the plan must end there.
pub fn plan(observed: &Observed, spec: &DaemonSetSpec, owned: &[&Arc<Pod>], plan: &mut Plan) -> Option<History> {
    let set = &observed.set;
    let history = revisions::History {
        resource: row("apps/daemonsets"),
        owner: &set.metadata,
        selector: &spec.selector,
        template: &spec.template,
        label: HASH,
        collisions: set.status.as_ref().and_then(|s| s.collision_count),
    };
    let all = history.owned(&observed.revisions, plan);
    for nameless in all.iter().filter(|r| label(&r.metadata).is_none()) {
        plan.push(relabel("apps/controllerrevisions", &nameless.metadata, nameless.metadata.name()));
    }
    if !plan.actions.is_empty() {
        // What is adopted counts once that is seen.
        return None;
    }
    let (current, hash) = match history.current(&observed.revisions, &all) {
        Current::Known(known) => {
            if unite(&known, &all, owned, plan) {
                return None;
            }
            (known.metadata.name().to_owned(), label(&known.metadata)?.to_owned())
        }
        Current::Write(write) => {
            let made = &write.request.body["metadata"];
            let again = all.iter().find(|r| r.metadata.name() == write.request.name);
            let name = again.map(|r| r.metadata.name()).or(made["name"].as_str())?.to_owned();
            let hash = again.and_then(|r| label(&r.metadata)).or(made["labels"][HASH].as_str())?.to_owned();
            plan.push(*write);
            (name, hash)
        }
        Current::Taken => {
            plan.push(status::collision(set));
            return None;
        }
    };
    let lives = |r: &ControllerRevision| owned.iter().any(|pod| label(&pod.metadata) == label(&r.metadata));
    let old: Vec<_> = all.into_iter().filter(|r| r.metadata.name() != current).collect();
    // Those that live count against the limit although they stay.
    let living = i32::try_from(old.iter().filter(|r| lives(r)).count()).unwrap_or(i32::MAX);
    let limit = spec.revision_history_limit.unwrap_or(10).saturating_sub(living);
    Some(History { hash, surplus: revisions::surplus(&old, Some(limit), lives) })
}

/// Others may have made revisions of the same template: one stays, and their pods become its pods.
fn unite(current: &ControllerRevision, all: &[Arc<ControllerRevision>], owned: &[&Arc<Pod>], plan: &mut Plan) -> bool {
    let Some(hash) = label(&current.metadata) else { return false };
    let same = |r: &&Arc<ControllerRevision>| r.data == current.data && r.metadata.name() != current.metadata.name();
    let twins: Vec<_> = all.iter().filter(same).collect();
    for pod in owned {
        let theirs = |r: &&Arc<ControllerRevision>| label(&r.metadata) == label(&pod.metadata);
        if label(&pod.metadata) != Some(hash) && twins.iter().any(theirs) {
            plan.push(relabel("pods", &pod.metadata, hash));
        }
    }
    for twin in &twins {
        let meta = &twin.metadata;
        let request = Request::delete(row("apps/controllerrevisions"), meta.namespace(), meta.name(), meta.uid());
        plan.push(Write::delete(request));
    }
    !twins.is_empty()
}

fn relabel(storage: &str, meta: &ObjectMeta, hash: &str) -> Write {
    let body = json!({ "metadata": { "uid": meta.uid, "labels": { HASH: hash } } });
    let mut write = Write::new(Request::new(Verb::MergePatch, row(storage), meta.namespace(), meta.name(), body));
    // Gone, or another object by now.
    write.fine = &[Class::NotFound, Class::Conflict];
    write
}
