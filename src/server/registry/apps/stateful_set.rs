//! Decides: StatefulSet.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{at_most, at_most_all, int_or_percent, not_decremented, number, runs_forever};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::core::pod::defaults::{self, fill};
use crate::server::registry::core::pod::{spec as pod_spec, warnings};
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{self, Errors, invalid, not_negative, or_default, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, NameRule, Part};

const HISTORY: i32 = 10;
const RETENTION: [&str; 2] = ["Delete", "Retain"];

pub struct StatefulSetKind;

impl Kind for StatefulSetKind {
    type Object = StatefulSet;

    fn resource(&self) -> &'static Resource {
        row("apps/v1", "StatefulSet")
    }

    /// The names of its pods are host names, and begin with its own.
    fn name_rule(&self) -> NameRule {
        NameRule::DnsLabel
    }

    fn defaults(&self, set: &mut StatefulSet) {
        let spec = set.spec.get_or_insert_default();
        defaults::template(&mut spec.template);
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(HISTORY);
        fill(&mut spec.pod_management_policy, "OrderedReady");
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.as_deref().unwrap_or_default().is_empty() {
            strategy.type_ = Some("RollingUpdate".into());
            strategy.rolling_update.get_or_insert_default();
        }
        if let (Some("RollingUpdate"), Some(rolling)) = (strategy.type_.as_deref(), &mut strategy.rolling_update) {
            rolling.partition.get_or_insert(0);
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        fill(&mut retention.when_deleted, "Retain");
        fill(&mut retention.when_scaled, "Retain");
        spec.volume_claim_templates.iter_mut().flatten().for_each(claim);
        set.status.get_or_insert_default();
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, set: &mut StatefulSet) {
        set.status = Some(StatefulSetStatus::default());
    }

    fn validate(&self, set: &StatefulSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check(&mut errors, &Path::new("spec"), &or_default(set.spec.as_ref()));
        errors
    }

    fn validate_update(&self, part: Part, new: &StatefulSet, old: &StatefulSet) -> Vec<FieldError> {
        if part == Part::Status {
            return status(new, old);
        }
        let mut errors = self.validate(new);
        let (Some(after), Some(before)) = (&new.spec, &old.spec) else { return errors };
        // What may change is taken from the old one: what differs then may not.
        let frozen = StatefulSetSpec {
            replicas: before.replicas,
            template: before.template.clone(),
            update_strategy: before.update_strategy.clone(),
            min_ready_seconds: before.min_ready_seconds,
            ordinals: before.ordinals.clone(),
            revision_history_limit: before.revision_history_limit,
            persistent_volume_claim_retention_policy: before.persistent_volume_claim_retention_policy.clone(),
            ..after.clone()
        };
        if frozen != *before {
            let message = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                           'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                           'minReadySeconds' are forbidden";
            errors.push(FieldError::forbidden(&Path::new("spec"), message));
        }
        errors
    }

    fn warnings(&self, set: &StatefulSet) -> Vec<String> {
        let Some(spec) = &set.spec else { return Vec::new() };
        warnings::of_template(&Path::new("spec").child("template"), &spec.template)
    }
}

/// A claim as it is made from the template.
fn claim(claim: &mut PersistentVolumeClaim) {
    fill(&mut claim.spec.get_or_insert_default().volume_mode, "Filesystem");
    fill(&mut claim.status.get_or_insert_default().phase, "Pending");
}

fn check(errors: &mut Errors, path: &Path, spec: &StatefulSetSpec) {
    let at = path.child("podManagementPolicy");
    match spec.pod_management_policy.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&at, "")),
        "OrderedReady" | "Parallel" => {}
        other => errors.push(FieldError::invalid(&at, &other, "must be 'OrderedReady' or 'Parallel'")),
    }
    strategy(errors, &path.child("updateStrategy"), spec);
    let retention = spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let at = path.child("persistentVolumeClaimRetentionPolicy");
    for (field, value) in [("whenDeleted", retention.when_deleted), ("whenScaled", retention.when_scaled)] {
        let value = value.unwrap_or_default();
        if !RETENTION.contains(&value.as_str()) {
            errors.push(FieldError::not_supported(&at.child(field), &value, &RETENTION));
        }
    }
    not_negative(errors, &path.child("replicas"), i64::from(spec.replicas.unwrap_or_default()));
    not_negative(errors, &path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or_default()));
    if let Some(ordinals) = &spec.ordinals {
        let start = i64::from(ordinals.start.unwrap_or_default());
        not_negative(errors, &path.child("ordinals").child("start"), start);
    }
    if let Some(name) = spec.service_name.as_deref().filter(|n| !n.is_empty()) {
        invalid(errors, &path.child("serviceName"), &name, format::dns_label(name));
    }
    let limit = i64::from(spec.revision_history_limit.unwrap_or_default());
    not_negative(errors, &path.child("revisionHistoryLimit"), limit);
    template(errors, path, spec);
}

fn strategy(errors: &mut Errors, path: &Path, spec: &StatefulSetSpec) {
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    let at = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        ("", _) => errors.push(FieldError::required(path, "")),
        ("OnDelete", None) | ("RollingUpdate", None) => {}
        ("OnDelete", Some(rolling)) => {
            let message = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(&at, &shown(rolling), message));
        }
        ("RollingUpdate", Some(rolling)) => {
            not_negative(errors, &at.child("partition"), i64::from(rolling.partition.unwrap_or_default()));
            if let Some(unavailable) = &rolling.max_unavailable {
                let at = at.child("maxUnavailable");
                int_or_percent(errors, &at, unavailable);
                if number(unavailable) == 0 {
                    errors.push(FieldError::invalid(&at, &shown(unavailable), "cannot be 0"));
                }
                at_most_all(errors, &at, unavailable);
            }
        }
        _ => {
            let message = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid(path, &shown(&strategy), message));
        }
    }
}

/// Upstream does not check the pod of the template: its volumes come from the claims too.
fn template(errors: &mut Errors, path: &Path, spec: &StatefulSetSpec) {
    let at = path.child("selector");
    metadata::selector(errors, &at, Some(&spec.selector));
    let empty = metadata::selects_everything(&spec.selector);
    if empty {
        let message = "empty selector is invalid for statefulset";
        errors.push(FieldError::invalid(&at, &shown(&spec.selector), message));
    }
    let path = path.child("template");
    let meta = or_default(spec.template.metadata.as_ref());
    if !empty && !metadata::matches(&spec.selector, meta.labels.as_ref()) {
        let at = path.child("metadata").child("labels");
        let message = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&at, &shown(&meta.labels), message));
    }
    metadata::labels(errors, &path.child("labels"), meta.labels.as_ref());
    metadata::annotations(errors, &path.child("annotations"), meta.annotations.as_ref());
    if let Some(pod) = &spec.template.spec {
        pod_spec::annotations(errors, meta.annotations.as_ref(), pod);
    }
    runs_forever(errors, &path, &spec.template, "StatefulSet");
}

fn status(new: &StatefulSet, old: &StatefulSet) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("status");
    let status = or_default(new.status.as_ref());
    let parts = [
        ("readyReplicas", status.ready_replicas),
        ("currentReplicas", status.current_replicas),
        ("updatedReplicas", status.updated_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    not_negative(&mut errors, &path.child("replicas"), i64::from(status.replicas));
    for (field, value) in parts.into_iter().chain([("collisionCount", status.collision_count)]) {
        not_negative(&mut errors, &path.child(field), i64::from(value.unwrap_or_default()));
    }
    not_negative(&mut errors, &path.child("observedGeneration"), status.observed_generation.unwrap_or_default());
    for (field, value) in parts {
        at_most(&mut errors, &path, field, value, Some(status.replicas), "cannot be greater than status.replicas");
    }
    let message = "cannot be greater than status.readyReplicas";
    at_most(&mut errors, &path, "availableReplicas", status.available_replicas, status.ready_replicas, message);
    let before = old.status.as_ref().and_then(|s| s.collision_count);
    not_decremented(&mut errors, &path.child("collisionCount"), status.collision_count, before);
    errors
}
