//! Decides: the claims of generic ephemeral volumes, `<pod>-<volume>` (`pkg/controller/volume/ephemeral`).
//!
//! Stores keep the names of such volumes, and not what their claims are to be: that is read once, when one is missing.
//! The claims go with their pod, as its dependents.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan, Report, Write};
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;

const COMPONENT: &str = "ephemeral_volume";
const REASON: &str = "FailedBinding";

/// Keys are pods.
#[derive(Default)]
pub struct EphemeralVolumes {
    /// Pods as the server has them. Used once.
    whole: Mutex<HashMap<Name, Option<Value>>>,
}

fn claim_name(pod: &Pod, volume: &str) -> String {
    format!("{}-{volume}", pod.metadata.name())
}

/// Finished pods are done with their volumes, and what is made for a pod that is going would go with it.
fn wants_claims(pod: &Pod) -> bool {
    pods::is_active(pod) && pods::ephemeral_volumes(pod).next().is_some()
}

impl Controller for EphemeralVolumes {
    fn name(&self) -> &'static str {
        "ephemeral-volume"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        // The volumes of a pod never change.
        stores.pods.subscribe(move |change| {
            let Some(pod) = change.new else { return };
            let is_new = change.old.is_none_or(|old| old.metadata.uid != pod.metadata.uid);
            if is_new && wants_claims(pod) {
                queue.add(pod.metadata.namespace(), pod.metadata.name());
            }
        });
        let (queue, pods) = (enqueue.clone(), Arc::clone(&stores.pods));
        stores.claims.subscribe(move |change| {
            // Removed by somebody, or in the way of one that is to be made.
            let (Some(claim), None) = (change.old, change.new) else { return };
            let (space, name) = (claim.metadata.namespace(), claim.metadata.name());
            let made_for = |pod: &Pod| {
                wants_claims(pod) && pods::ephemeral_volumes(pod).any(|volume| claim_name(pod, volume) == name)
            };
            for pod in pods.find(space, made_for) {
                queue.add(space, pod.metadata.name());
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        let Some(pod) = stores.pods.get(&key.namespace, &key.name).filter(|p| wants_claims(p)) else {
            return Plan::nothing();
        };
        plan(&pod, whole.as_ref(), |name| stores.claims.get(&key.namespace, name))
    }

    fn learn(&self, key: &Name, _request: &Request, answer: Option<Value>) {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), answer);
    }
}

/// Makes the claims that are missing. `whole`: what the server said of the pod, if it was asked.
#[must_use]
pub fn plan(
    pod: &Pod,
    whole: Option<&Option<Value>>,
    claim: impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
) -> Plan {
    let mut plan = Plan::default();
    let meta = &pod.metadata;
    let regarding = owners::object_reference(row("pods"), meta);
    for volume in pods::ephemeral_volumes(pod) {
        let name = claim_name(pod, volume);
        if let Some(there) = claim(&name) {
            let ours = owners::controller_of(&there.metadata).is_some_and(|o| Some(&o.uid) == meta.uid.as_ref());
            if ours {
                continue;
            }
            let (space, pod) = (meta.namespace(), meta.name());
            let message = format!(
                "ephemeral volume {volume}: PVC {space}/{name} was not created for pod {space}/{pod} (pod is not owner)"
            );
            // Nothing to try again: when that claim goes, this is planned again.
            plan.push(Action::Event(Note {
                regarding,
                warning: true,
                reason: REASON,
                message,
                component: COMPONENT,
                action: "",
            }));
            return plan;
        }
        let Some(whole) = whole else {
            plan.push(Action::Read(Request::new(Verb::Get, row("pods"), meta.namespace(), meta.name(), Value::Null)));
            return plan;
        };
        // Gone, or another one by now, which its own event brings here.
        let Some(whole) = whole.as_ref().filter(|w| w["metadata"]["uid"] == meta.uid()) else { return plan };
        let Some(template) = template(whole, volume) else { return plan };
        let body = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name,
                "namespace": meta.namespace(),
                "labels": template["metadata"]["labels"],
                "annotations": template["metadata"]["annotations"],
                "ownerReferences": [owners::reference(row("pods"), meta)],
            },
            "spec": template["spec"],
        });
        let failed = format!("ephemeral volume {volume}: create PVC {name}: {{error}}");
        let report =
            Report { regarding: regarding.clone(), component: COMPONENT, ok: None, failed: Some((REASON, failed)) };
        let create = Request::create(row("persistentvolumeclaims"), meta.namespace(), body);
        plan.push(Write::new(create).reported(report));
    }
    plan
}

fn template<'a>(pod: &'a Value, volume: &str) -> Option<&'a Value> {
    let volumes = pod["spec"]["volumes"].as_array()?;
    volumes.iter().find(|v| v["name"] == volume)?.pointer("/ephemeral/volumeClaimTemplate")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::store::Kind as _;

    fn whole() -> Value {
        let template = |size: &str| {
            json!({ "volumeClaimTemplate": { "metadata": { "labels": { "l": "1" }, "annotations": { "a": "2" } },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": size } } } } })
        };
        json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u", "annotations": { "skiff.io/claims": "x" } },
            "spec": { "containers": [], "volumes": [
                { "name": "scratch", "ephemeral": template("1Gi") },
                { "name": "empty", "emptyDir": {} },
                { "name": "cache", "ephemeral": template("2Gi") },
            ] } })
    }

    fn claim(name: &str, owner: &str) -> Arc<PersistentVolumeClaim> {
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "ns", "ownerReferences": [
                { "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true }] } }))
            .unwrap(),
        )
    }

    /// What the plan does, in a word each.
    fn check(claims: &[(&str, &str)], whole: Option<Option<Value>>, want: &[&str]) {
        let mut pod: Pod = serde_json::from_value(self::whole()).unwrap();
        pod.trim();
        assert!(pod.spec.as_ref().unwrap().volumes.is_none(), "volumes are not kept");
        assert_eq!(pods::claims(&pod).count(), 0, "nobody else may say what claims it has");
        let there = |name: &str| claims.iter().find(|(n, _)| *n == name).map(|(n, owner)| claim(n, owner));
        let plan = plan(&pod, whole.as_ref(), there);
        let told = |action: &Action| match action {
            Action::Read(request) => format!("read {}", request.name),
            Action::Event(note) => format!("{}: {}", note.reason, note.message),
            Action::Write(write) => {
                let body = &write.request.body;
                let size = &body["spec"]["resources"]["requests"]["storage"];
                assert_eq!(body["metadata"]["labels"]["l"], "1");
                assert_eq!(body["metadata"]["annotations"]["a"], "2");
                assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "u");
                assert_eq!(body["metadata"]["ownerReferences"][0]["controller"], true);
                format!("create {} {size}", body["metadata"]["name"])
            }
            Action::SlowStart(_) => "slow start".into(),
        };
        assert_eq!(plan.actions.iter().map(told).collect::<Vec<_>>(), want, "{claims:?}");
    }

    #[test]
    fn a_claim_for_each_ephemeral_volume() {
        let made = [r#"create "p-scratch" "1Gi""#, r#"create "p-cache" "2Gi""#];
        check(&[], None, &["read p"]);
        check(&[], Some(Some(whole())), &made);
        check(&[("p-scratch", "u")], Some(Some(whole())), &made[1..]);
        check(&[("p-scratch", "u"), ("p-cache", "u")], None, &[]);
        let conflict = "FailedBinding: ephemeral volume scratch: PVC ns/p-scratch was not created for pod ns/p \
                        (pod is not owner)";
        check(&[("p-scratch", "other")], None, &[conflict]);
        check(&[], Some(None), &[]);
        let mut another = whole();
        another["metadata"]["uid"] = "v".into();
        check(&[], Some(Some(another)), &[]);
    }

    #[test]
    fn nothing_for_pods_that_are_finished_or_going() {
        let with = |more: Value| {
            let mut pod = whole();
            pod.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let mut pod: Pod = serde_json::from_value(pod).unwrap();
            pod.trim();
            pod
        };
        assert!(wants_claims(&with(json!({ "status": { "phase": "Running" } }))));
        assert!(!wants_claims(&with(json!({ "status": { "phase": "Failed" } }))));
        let mut going = with(json!({}));
        going.metadata.deletion_timestamp = Some(crate::clock::time());
        assert!(!wants_claims(&going));
        assert!(!wants_claims(&with(json!({ "spec": { "containers": [] } }))));
    }
}
