//! Decides: Pod. What it gets by default, what may change, and how it goes away.
//!
//! - [`defaults`], [`qos`], [`label_keys`]: what is filled in
//! - [`spec`], [`containers`], [`env`], [`probes`], [`volumes`], [`security`]: what is wrong with a spec
//! - [`update`]: the few fields that may change
//! - [`ephemeral`], [`resize`]: what may change through a path of its own
//! - [`warnings`]: what works but is likely not meant

mod claims;
pub mod containers;
pub mod defaults;
pub mod env;
pub mod ephemeral;
pub mod label_keys;
pub mod probes;
pub mod qos;
pub mod resize;
pub mod security;
pub mod spec;
pub mod update;
pub mod volumes;
pub mod warnings;

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::or_default;
use crate::server::registry::request::{Context, DeleteOptions};
use crate::server::registry::strategy::{Kind, Part, Removal};

const MIRROR: &str = "kubernetes.io/config.mirror";

pub struct PodKind;

/// Whoever writes a status without saying of which generation it is leaves what was said before
/// (`preserveOldObservedGeneration`). Several conditions may have one type: each keeps its own.
fn keep_observed(status: &mut PodStatus, old: Option<&PodStatus>) {
    let unsaid = |generation: Option<i64>| generation.unwrap_or_default() == 0;
    if unsaid(status.observed_generation) {
        status.observed_generation = old.and_then(|o| o.observed_generation);
    }
    let mut before: Vec<&PodCondition> = old.iter().flat_map(|o| o.conditions.iter().flatten()).collect();
    for condition in status.conditions.iter_mut().flatten() {
        let Some(at) = before.iter().position(|b| b.type_ == condition.type_) else { continue };
        let known = before.remove(at).observed_generation;
        if unsaid(condition.observed_generation) {
            condition.observed_generation = known;
        }
    }
}

/// A path of its own leaves the rest of the metadata alone (`ResetObjectMetaForStatus`).
fn keep_metadata(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.generation = old.generation;
    new.labels.clone_from(&old.labels);
    new.annotations.clone_from(&old.annotations);
    new.finalizers.clone_from(&old.finalizers);
    new.owner_references.clone_from(&old.owner_references);
}

impl Kind for PodKind {
    type Object = Pod;

    fn resource(&self) -> &'static Resource {
        row("v1", "Pod")
    }

    fn status_resets(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]
    }

    fn defaults(&self, pod: &mut Pod) {
        let spec = pod.spec.get_or_insert_default();
        defaults::spec(spec);
        defaults::pod(spec);
        pod.status.get_or_insert_default();
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, pod: &mut Pod) {
        let spec = pod.spec.get_or_insert_default();
        label_keys::merge(spec, pod.metadata.labels.as_ref());
        let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        let waiting = PodCondition {
            type_: "PodScheduled".into(),
            status: "False".into(),
            reason: Some("SchedulingGated".into()),
            message: Some("Scheduling is blocked due to non-empty scheduling gates".into()),
            ..PodCondition::default()
        };
        pod.status = Some(PodStatus {
            phase: Some("Pending".into()),
            qos_class: Some(qos::class(spec).into()),
            conditions: gated.then(|| vec![waiting]),
            ..PodStatus::default()
        });
    }

    fn only(&self, part: Part) -> &'static [&'static [&'static str]] {
        match part {
            Part::EphemeralContainers => ephemeral::CHANGES,
            Part::Resize => resize::CHANGES,
            _ => &[],
        }
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut Pod, old: &Pod) {
        match part {
            Part::EphemeralContainers => return ephemeral::prepare(new, old),
            Part::Resize => return resize::prepare(new, old),
            Part::Status => {}
            _ => return,
        }
        new.metadata.owner_references.clone_from(&old.metadata.owner_references);
        // The class was decided when the pod was made; an agent that leaves it out means no other.
        let before = old.status.as_ref().and_then(|s| s.qos_class.clone());
        let status = new.status.get_or_insert_default();
        if status.qos_class.as_deref().unwrap_or_default().is_empty() {
            status.qos_class = before;
        }
        keep_observed(status, old.status.as_ref());
    }

    fn validate(&self, pod: &Pod) -> Vec<FieldError> {
        let spec = or_default(pod.spec.as_ref());
        let mut errors = Vec::new();
        spec::annotations(&mut errors, pod.metadata.annotations.as_ref(), &spec);
        spec::validate(&mut errors, &Path::new("spec"), &spec, true);
        spec::only_pod(&mut errors, &spec);
        errors
    }

    fn validate_create(&self, pod: &Pod) -> Vec<FieldError> {
        let mut errors = self.validate(pod);
        let spec = or_default(pod.spec.as_ref());
        let path = Path::new("spec");
        if spec.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
            errors.push(FieldError::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
        }
        let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        if gated && spec.node_name.as_ref().is_some_and(|n| !n.is_empty()) {
            let message = "cannot be set until all schedulingGates have been cleared";
            errors.push(FieldError::forbidden(&path.child("nodeName"), message));
        }
        errors
    }

    fn validate_update(&self, part: Part, new: &Pod, old: &Pod) -> Vec<FieldError> {
        match part {
            Part::Status => update::status(new, old),
            Part::Binding => Vec::new(),
            Part::EphemeralContainers => ephemeral::validate_update(self.validate(new), new, old),
            Part::Resize => resize::validate(self.validate(new), new, old),
            Part::Spec | Part::Finalize | Part::Approval => {
                let mut errors = self.validate(new);
                update::mirror(&mut errors, new, old);
                errors.extend(update::spec(new, old));
                errors
            }
        }
    }

    /// A pod that no agent runs, or that has finished, goes at once; the others get their grace period
    /// (`podStrategy.CheckGracefulDelete`).
    fn removal(&self, pod: &mut Pod, options: &DeleteOptions) -> Removal {
        let spec = pod.spec.as_ref();
        let asked = options.grace_period_seconds;
        let mut seconds = asked.or(spec.and_then(|s| s.termination_grace_period_seconds)).unwrap_or_default();
        let assigned = spec.and_then(|s| s.node_name.as_deref()).is_some_and(|n| !n.is_empty());
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if !assigned || matches!(phase, "Succeeded" | "Failed") {
            seconds = 0;
        }
        match seconds {
            0 => Removal::Now,
            negative if negative < 0 => Removal::Graceful { seconds: 1 },
            seconds => Removal::Graceful { seconds },
        }
    }

    fn update_warnings(&self, _: &Pod, _: &Pod) -> Vec<String> {
        Vec::new()
    }

    fn warnings(&self, pod: &Pod) -> Vec<String> {
        let spec = or_default(pod.spec.as_ref());
        warnings::of(&Path::default(), &spec, pod.metadata.annotations.as_ref())
    }
}
