//! Decides: the claims of a StatefulSet's members: which are missing, and who owns them (`volumeClaimTemplates`,
//! `persistentVolumeClaimRetentionPolicy`).
//!
//! ```text
//! whenDeleted  whenScaled   owner of a member's claim      of one beyond the last ordinal
//! Retain       Retain       nobody                         nobody
//! Delete       Retain       the set                        the set
//! Retain       Delete       nobody                         its pod
//! Delete       Delete       the set                        its pod
//! ```

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use super::{Observed, PodControl, members};
use crate::client::request::{Class, Request, Verb};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Action, Report, Write};
use crate::server::controllers::owners;
use crate::server::controllers::stores::row;

pub fn templates(spec: &StatefulSetSpec) -> &[PersistentVolumeClaim] {
    spec.volume_claim_templates.as_deref().unwrap_or_default()
}

fn claim_name(template: &PersistentVolumeClaim, set: &str, ordinal: i32) -> String {
    format!("{}-{set}-{ordinal}", template.metadata.name())
}

/// Whether a claim of that name is one of the set's.
pub fn is_of(set: &StatefulSet, claim: &str) -> bool {
    let of = |t: &PersistentVolumeClaim| {
        let of_set = claim.strip_prefix(t.metadata.name()).and_then(|rest| rest.strip_prefix('-'));
        of_set.is_some_and(|pod| members::ordinal(set.metadata.name(), pod).is_some())
    };
    set.spec.as_ref().is_some_and(|s| templates(s).iter().any(of))
}

/// The volumes of the member's claims.
pub fn volumes(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Vec<Value> {
    let volume = |t: &PersistentVolumeClaim| {
        let claim = claim_name(t, set.metadata.name(), ordinal);
        json!({ "name": t.metadata.name, "persistentVolumeClaim": { "claimName": claim } })
    };
    templates(spec).iter().map(volume).collect()
}

/// Makes those of the member's claims that do not exist. `None` when one of them is being deleted, or belongs to an
/// earlier pod of the name and is going to be.
pub fn missing(observed: &Observed, control: &PodControl<'_>, ordinal: i32) -> Option<Vec<Write>> {
    let set = &observed.set;
    let spec = set.spec.as_ref()?;
    let pod = format!("{}-{ordinal}", set.metadata.name());
    let live = observed.pods.binary_search_by(|p| p.metadata.name().cmp(&pod)).ok();
    let live = live.and_then(|at| observed.pods.get(at)).map(|p| p.metadata.uid());
    let mut writes = Vec::new();
    for template in templates(spec) {
        let name = claim_name(template, set.metadata.name(), ordinal);
        match find(observed, &name) {
            Some(claim) if claim.metadata.deletion_timestamp.is_some() => return None,
            Some(claim) => {
                let stale = |o: &OwnerReference| o.kind == "Pod" && o.name == pod && Some(o.uid.as_str()) != live;
                if policy(spec).1 && claim.metadata.owners().iter().any(stale) {
                    return None;
                }
            }
            None => writes.push(create(set, spec, control, template, &name, &pod)),
        }
    }
    Some(writes)
}

fn find<'a>(observed: &'a Observed, name: &str) -> Option<&'a Arc<PersistentVolumeClaim>> {
    let at = observed.claims.binary_search_by(|c| c.metadata.name().cmp(name)).ok()?;
    observed.claims.get(at)
}

fn create(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    control: &PodControl<'_>,
    template: &PersistentVolumeClaim,
    name: &str,
    pod: &str,
) -> Write {
    let mut labels = template.metadata.labels.clone().unwrap_or_default();
    labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
    let owner = policy(spec).0.then(|| [owners::reference(control.resource, &set.metadata)]);
    let body = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": set.metadata.namespace,
            "labels": labels,
            "annotations": template.metadata.annotations,
            "ownerReferences": owner,
        },
        "spec": template.spec,
    });
    let set = set.metadata.name();
    let request = Request::create(row("persistentvolumeclaims"), control.owner.namespace(), body);
    let mut write = Write::new(request).reported(Report {
        ok: Some(("SuccessfulCreate", format!("create Claim {name} Pod {pod} in StatefulSet {set} success"))),
        failed: Some((
            "FailedCreate",
            format!("create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {{error}}"),
        )),
        ..control.report()
    });
    write.fine = &[Class::AlreadyExists];
    write
}

/// `whenDeleted` and `whenScaled`: true for Delete.
fn policy(spec: &StatefulSetSpec) -> (bool, bool) {
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |p: Option<&String>| p.is_some_and(|p| p == "Delete");
    (deletes(policy.and_then(|p| p.when_deleted.as_ref())), deletes(policy.and_then(|p| p.when_scaled.as_ref())))
}

/// Gives the claims of a pod the owners that the policy asks for. One that another controller manages is let alone,
/// and the set says so.
pub fn fix(observed: &Observed, control: &PodControl<'_>, ordinal: i32, pod: &Pod) -> Vec<Action> {
    let set = &observed.set;
    let Some(spec) = set.spec.as_ref() else { return Vec::new() };
    let mut actions = Vec::new();
    for template in templates(spec) {
        let name = claim_name(template, set.metadata.name(), ordinal);
        let Some(claim) = find(observed, &name).filter(|c| c.metadata.deletion_timestamp.is_none()) else { continue };
        let kinds = Kinds { set: (control.resource.kind, &set.metadata), pod: ("Pod", &pod.metadata) };
        let Some(owners) = kinds.wanted(spec, ordinal, claim.metadata.owners()) else { continue };
        if kinds.is_managed_otherwise(spec, claim.metadata.owners()) {
            let message = format!(
                "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a managing controller, \
                 the retention policy is ignored for this claim"
            );
            actions.push(Action::Event(control.event(true, "ConflictingController", message)));
        }
        let meta = &claim.metadata;
        let body = json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version,
            "ownerReferences": owners } });
        let claims = row("persistentvolumeclaims");
        actions.push(Request::new(Verb::MergePatch, claims, meta.namespace(), meta.name(), body).into());
    }
    actions
}

/// Who may own a claim.
struct Kinds<'a> {
    set: (&'static str, &'a ObjectMeta),
    pod: (&'static str, &'a ObjectMeta),
}

impl Kinds<'_> {
    fn is(of: (&str, &ObjectMeta), owner: &OwnerReference) -> bool {
        owner.kind == of.0 && owner.name == of.1.name()
    }

    /// Neither the set nor the pod, or an earlier one of the same name.
    fn is_managed_otherwise(&self, spec: &StatefulSetSpec, owners: &[OwnerReference]) -> bool {
        if policy(spec) == (false, false) {
            return false;
        }
        owners.iter().any(|o| match () {
            () if Self::is(self.set, o) => o.uid != self.set.1.uid(),
            () if Self::is(self.pod, o) => o.uid != self.pod.1.uid(),
            () => o.controller == Some(true),
        })
    }

    /// The owners that the claim should have; `None` when it has them, or when an earlier set or pod of the name has
    /// left its mark: the garbage collector sees to that one.
    fn wanted(&self, spec: &StatefulSetSpec, ordinal: i32, owners: &[OwnerReference]) -> Option<Vec<OwnerReference>> {
        let stale =
            |of: (&str, &ObjectMeta)| owners.iter().find(|o| Self::is(of, o)).is_some_and(|o| o.uid != of.1.uid());
        if stale(self.set) || stale(self.pod) {
            return None;
        }
        let mut wanted: Vec<OwnerReference> =
            owners.iter().filter(|o| !Self::is(self.set, o) && !Self::is(self.pod, o)).cloned().collect();
        if !self.is_managed_otherwise(spec, owners) {
            let (when_deleted, when_scaled) = policy(spec);
            let first = members::start(spec);
            let stays = (first..first.saturating_add(members::wanted(spec))).contains(&ordinal);
            if when_scaled && !stays {
                wanted.push(owners::reference(row("pods"), self.pod.1));
            } else if when_deleted {
                wanted.push(owners::reference(row("apps/statefulsets"), self.set.1));
            }
        }
        let key = |all: &[OwnerReference]| -> Vec<(String, Option<bool>)> {
            let mut keys: Vec<_> = all.iter().map(|o| (o.uid.clone(), o.controller)).collect();
            keys.sort();
            keys
        };
        (key(&wanted) != key(owners)).then_some(wanted)
    }
}
