//! Decides: the `APIService`s of what this server has itself: one for each built-in version, made at start, and one for
//! each version of a custom resource, kept (`kube-aggregator/pkg/controllers/autoregister`, `status/local`).
//!
//! ```text
//!                      wanted once (built in)    wanted always (custom)    not wanted
//! none there           made, once per start      made                      -
//! there, not ours      left alone                left alone                left alone
//! there, "onstart"     corrected, once           corrected, once           removed, once
//! there, "true"        corrected, once           corrected                 removed
//! ```

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::action::{Controller, Enqueue, Moment, Name, Plan, Write};
use super::stores::{ApiService, Stores, row};
use crate::api::resource::priority::{self, CUSTOM, Priority, REGISTRATION_GROUP};
use crate::api::resource::{MEASURED, RESOURCES, Resource};
use crate::client::request::{Class, Request, Verb};

pub const API_SERVICES: &str = "apiregistration.k8s.io/apiservices";
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const ON_START: &str = "onstart";
const ALWAYS: &str = "true";

/// Keys are names of `APIService`s.
#[derive(Default)]
pub struct ApiServices {
    /// Those whose turn at start is over.
    done: Mutex<HashSet<Box<str>>>,
}

/// One that this server has something behind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    group: String,
    version: String,
    priority: Priority,
    managed: &'static str,
}

impl Controller for ApiServices {
    fn name(&self) -> &'static str {
        "api-services"
    }

    fn yields(&self) -> bool {
        true
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        for row in RESOURCES.iter().chain(MEASURED).filter(|r| r.group != REGISTRATION_GROUP) {
            enqueue.add("", &name(row.group, row.version));
        }
        let queue = enqueue.clone();
        stores.api_services.subscribe(move |change| {
            for service in change.each() {
                queue.add("", service.metadata.name.as_deref().unwrap_or_default());
            }
        });
        let queue = enqueue.clone();
        stores.definitions.subscribe(move |change| {
            for definition in change.each() {
                for version in &definition.spec.versions {
                    queue.add("", &name(&definition.spec.group, &version.name));
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let wanted = wanted(stores, &key.name);
        let there = stores.api_services.get("", &key.name);
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !done.contains(&key.name);
        let mut plan = register(wanted.as_ref(), there.as_deref(), first);
        if plan.actions.is_empty() {
            // Only now, for what was planned may fail and is then planned again.
            if first {
                done.insert(key.name.clone());
            }
            if let Some(write) = there.and_then(|s| local(&s, moment.now)) {
                plan.push(write);
            }
        }
        plan
    }
}

fn name(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

fn wanted(stores: &Stores, name: &str) -> Option<Wanted> {
    let (version, group) = name.split_once('.')?;
    let of = |priority, managed| Wanted { group: group.into(), version: version.into(), priority, managed };
    if group == REGISTRATION_GROUP {
        return None;
    }
    let is_it = |r: &&Resource| r.group == group && r.version == version;
    if let Some(priority) =
        RESOURCES.iter().chain(MEASURED).find(is_it).and_then(|r| priority::built_in(r.group, r.version))
    {
        return Some(of(priority, ON_START));
    }
    let definitions = stores.definitions.all();
    let mut served = definitions.iter().filter(|d| d.spec.group == group).flat_map(|d| &d.spec.versions);
    served.any(|v| v.served && v.name == version).then(|| of(CUSTOM, ALWAYS))
}

fn register(wanted: Option<&Wanted>, there: Option<&ApiService>, first: bool) -> Plan {
    let mut plan = Plan::default();
    let managed = |s: &ApiService| s.metadata.labels.as_ref().and_then(|l| l.get(MANAGED)).cloned();
    let once = |kind: &str| kind == ON_START && !first;
    match (wanted, there) {
        (None, None) => {}
        (Some(wanted), _) if once(wanted.managed) => {}
        (Some(wanted), None) => {
            let mut write = Write::new(Request::create(row(API_SERVICES), "", body(wanted)));
            write.fine = &[Class::AlreadyExists];
            plan.push(write);
        }
        (wanted, Some(there)) => {
            let kind = managed(there).unwrap_or_default();
            if !matches!(kind.as_str(), ON_START | ALWAYS) || once(&kind) {
                return plan;
            }
            let meta = &there.metadata;
            let at = meta.name.as_deref().unwrap_or_default();
            match wanted {
                None => {
                    let uid = meta.uid.as_deref().unwrap_or_default();
                    plan.push(Write::delete(Request::delete(row(API_SERVICES), "", at, uid)));
                }
                Some(wanted) if !says(there, wanted) => {
                    // Null takes away what a service of another server had.
                    let mut spec = body(wanted)["spec"].take();
                    for field in ["service", "caBundle", "insecureSkipTLSVerify"] {
                        spec[field] = Value::Null;
                    }
                    let body =
                        json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}, "spec": spec});
                    plan.push(Request::new(Verb::MergePatch, row(API_SERVICES), "", at, body));
                }
                Some(_) => {}
            }
        }
    }
    plan
}

fn says(there: &ApiService, wanted: &Wanted) -> bool {
    let spec = &there.spec;
    let priority = Priority { group: spec.group_priority_minimum, version: spec.version_priority };
    let same_version = spec.group == wanted.group && spec.version == wanted.version;
    same_version && priority == wanted.priority && spec.service.is_none()
}

fn body(wanted: &Wanted) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name(&wanted.group, &wanted.version), "labels": {MANAGED: wanted.managed}},
        "spec": {"group": wanted.group, "version": wanted.version,
            "groupPriorityMinimum": wanted.priority.group, "versionPriority": wanted.priority.version},
    })
}

/// One that was another server's may still say that it is gone.
fn local(there: &ApiService, now: Timestamp) -> Option<Write> {
    if there.spec.service.is_some() {
        return None;
    }
    let mut conditions = there.status.conditions.clone();
    let old = conditions.iter().position(|c| c["type"] == "Available");
    let mut new = json!({"type": "Available", "status": "True", "reason": "Local",
        "message": "Local APIServices are always available",
        "lastTransitionTime": format!("{:.0}", now.strftime("%Y-%m-%dT%H:%M:%SZ"))});
    match old {
        Some(at) => {
            let old = &mut conditions[at];
            if old["status"] == "True" {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            if *old == new {
                return None;
            }
            *old = new;
        }
        None => conditions.push(new),
    }
    let meta = &there.metadata;
    let body = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": {"conditions": conditions}});
    let at = meta.name.as_deref().unwrap_or_default();
    let mut write = Write::new(Request::new(Verb::MergePatch, row(API_SERVICES), "", at, body).on("status"));
    write.fine = &[Class::NotFound];
    Some(write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::controllers::action::Action;

    fn there(managed: &str, more: Value) -> ApiService {
        let mut service = json!({"metadata": {"name": "v1.apps", "uid": "u", "resourceVersion": "7", "labels": {MANAGED: managed}},
            "spec": {"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15}});
        service["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(service).unwrap()
    }

    fn wanted(managed: &'static str) -> Wanted {
        let priority = priority::built_in("apps", "v1").unwrap();
        Wanted { group: "apps".into(), version: "v1".into(), priority, managed }
    }

    fn done(plan: &Plan) -> Option<Verb> {
        match plan.actions.as_slice() {
            [] => None,
            [Action::Write(write)] => Some(write.request.verb),
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn the_table_of_upstream() {
        use Verb::{Create, Delete, MergePatch};
        let (once, always) = (wanted(ON_START), wanted(ALWAYS));
        let other = json!({"versionPriority": 3});
        for (wanted, there, first, expect) in [
            (None, None, true, None),
            (Some(&once), None, true, Some(Create)),
            (Some(&once), None, false, None),
            (Some(&always), None, false, Some(Create)),
            (Some(&once), Some(there("", other.clone())), true, None),
            (None, Some(there("", json!({}))), true, None),
            (None, Some(there(ON_START, json!({}))), true, Some(Delete)),
            (None, Some(there(ON_START, json!({}))), false, None),
            (None, Some(there(ALWAYS, json!({}))), false, Some(Delete)),
            (Some(&once), Some(there(ON_START, json!({}))), true, None),
            (Some(&once), Some(there(ON_START, other.clone())), true, Some(MergePatch)),
            (Some(&once), Some(there(ON_START, other.clone())), false, None),
            (Some(&always), Some(there(ALWAYS, json!({}))), false, None),
            (Some(&always), Some(there(ALWAYS, other)), false, Some(MergePatch)),
            (
                Some(&always),
                Some(there(ALWAYS, json!({"service": {"namespace": "n", "name": "s"}}))),
                false,
                Some(MergePatch),
            ),
        ] {
            let plan = register(wanted, there.as_ref(), first);
            assert_eq!(done(&plan), expect, "{wanted:?} {there:?} {first}");
        }
    }

    #[test]
    fn a_local_one_is_available() {
        let now = Timestamp::UNIX_EPOCH;
        let mut service = there("", json!({}));
        let write = local(&service, now).unwrap();
        let conditions = write.request.body["status"]["conditions"].clone();
        assert_eq!((&conditions[0]["reason"], &conditions[0]["status"]), (&json!("Local"), &json!("True")));
        service.status.conditions = serde_json::from_value(conditions).unwrap();
        assert_eq!(local(&service, Timestamp::MAX), None, "nothing new, nothing written");
        let remote = there("", json!({"service": {"namespace": "n", "name": "s"}}));
        assert_eq!(local(&remote, now), None);
    }
}
