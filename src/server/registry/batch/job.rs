//! Decides: Job. What it selects, which is generated, and the little that may change.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{Affinity, PodSpec, PodTemplateSpec};

use super::{condition_patterns, is_indexed, spec, status, warn};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::core::pod::defaults;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{self, Errors, immutable, or_default, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// What both were called before they had a prefix.
const LEGACY_CONTROLLER_UID: &str = "controller-uid";
const LEGACY_JOB_NAME: &str = "job-name";
const BACKOFF_LIMIT: i32 = 6;

pub struct JobKind;

impl Kind for JobKind {
    type Object = Job;

    fn resource(&self) -> &'static Resource {
        row("batch/v1", "Job")
    }

    fn defaults(&self, job: &mut Job) {
        let spec = job.spec.get_or_insert_default();
        defaults::template(&mut spec.template);
        condition_patterns(spec);
        if spec.parallelism.is_none() {
            // Without either there is one pod; with completions left out, a queue of work.
            spec.completions.get_or_insert(1);
            spec.parallelism = Some(1);
        }
        // With a limit for each index, the limit of the whole is none.
        let limit = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { BACKOFF_LIMIT };
        spec.backoff_limit.get_or_insert(limit);
        spec.completion_mode.get_or_insert_with(|| "NonIndexed".into());
        spec.suspend.get_or_insert(false);
        spec.manual_selector.get_or_insert(false);
        let policy = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
        spec.pod_replacement_policy.get_or_insert_with(|| policy.into());
        job.status.get_or_insert_default();
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, job: &mut Job) {
        job.status = Some(JobStatus::default());
        if !is_manual(job.spec.as_ref()) {
            generate_selector(job);
        }
        inherit_labels(job);
    }

    fn prepare_update(&self, _: &Context, _: Part, new: &mut Job, _: &Job) {
        inherit_labels(new);
    }

    fn validate(&self, job: &Job) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (path, spec) = (Path::new("spec"), or_default(job.spec.as_ref()));
        if !is_manual(Some(&spec)) {
            generated_selector(&mut errors, job, &spec);
        }
        spec::validate(&mut errors, &path, &spec);
        let at = path.child("selector");
        let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
        match &spec.selector {
            None => errors.push(FieldError::required(&at, "")),
            Some(_) => metadata::selector(&mut errors, &at, spec.selector.as_ref()),
        }
        if !spec.selector.as_ref().is_some_and(|s| metadata::matches(s, labels)) {
            let at = path.child("template").child("metadata").child("labels");
            let message = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid(&at, &shown(&labels), message));
        }
        spec::host_names(&mut errors, job.metadata.name.as_deref().unwrap_or_default(), &spec);
        errors
    }

    fn validate_update(&self, part: Part, new: &Job, old: &Job) -> Vec<FieldError> {
        if part == Part::Status {
            return status::validate(new, old);
        }
        let mut errors = self.validate(new);
        let (spec, before) = (or_default(new.spec.as_ref()), or_default(old.spec.as_ref()));
        let path = Path::new("spec");
        completions(&mut errors, &path.child("completions"), &spec, &before);
        immutable(&mut errors, &path.child("selector"), &spec.selector, &before.selector);
        template(&mut errors, &path.child("template"), &spec.template, old);
        let at = |field: &str| path.child(field);
        immutable(&mut errors, &at("completionMode"), &spec.completion_mode, &before.completion_mode);
        immutable(&mut errors, &at("podFailurePolicy"), &spec.pod_failure_policy, &before.pod_failure_policy);
        let limit = (spec.backoff_limit_per_index, before.backoff_limit_per_index);
        immutable(&mut errors, &at("backoffLimitPerIndex"), &limit.0, &limit.1);
        immutable(&mut errors, &at("managedBy"), &spec.managed_by, &before.managed_by);
        immutable(&mut errors, &at("successPolicy"), &spec.success_policy, &before.success_policy);
        errors
    }

    fn orphans(&self) -> bool {
        true
    }

    fn warnings(&self, job: &Job) -> Vec<String> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        warn(&Path::new("spec"), name, &or_default(job.spec.as_ref()))
    }
}

fn is_manual(spec: Option<&JobSpec>) -> bool {
    spec.is_some_and(|s| s.manual_selector == Some(true))
}

/// Labels that only the pods of this Job have, and a selector for them. What is there already stays: validation
/// finds what does not fit.
fn generate_selector(job: &mut Job) {
    let name = job.metadata.name.clone().unwrap_or_default();
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let spec = job.spec.get_or_insert_default();
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (key, value) in
        [(LEGACY_JOB_NAME, &name), (JOB_NAME, &name), (LEGACY_CONTROLLER_UID, &uid), (CONTROLLER_UID, &uid)]
    {
        labels.entry(key.into()).or_insert_with(|| value.clone());
    }
    let selector = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    selector.entry(CONTROLLER_UID.into()).or_insert(uid);
}

/// A Job without labels has those of its pods. Upstream does this in its defaults, so that the generated ones are among
/// them from the first read on.
fn inherit_labels(job: &mut Job) {
    if job.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty) {
        let template = job.spec.as_ref().and_then(|s| s.template.metadata.as_ref());
        job.metadata.labels = template.and_then(|m| m.labels.clone());
    }
}

fn generated_selector(errors: &mut Errors, job: &Job, spec: &JobSpec) {
    let Some(selector) = &spec.selector else { return };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    if uid.is_empty() {
        errors.push(FieldError::required(&Path::new("metadata").child("uid"), ""));
    }
    let expected = [(LEGACY_CONTROLLER_UID, uid), (LEGACY_JOB_NAME, name), (CONTROLLER_UID, uid), (JOB_NAME, name)];
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    let path = Path::new("spec");
    for (key, value) in expected {
        let at = path.child("template").child("metadata").child("labels").key(key);
        let message = format!("must be '{value}'");
        match labels.and_then(|l| l.get(key)) {
            None => errors.push(FieldError::required(&at, &message)),
            Some(found) if found != value => errors.push(FieldError::invalid(&at, &shown(&labels), &message)),
            Some(_) => {}
        }
    }
    let expected: BTreeMap<String, String> = expected.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    if !metadata::matches(selector, Some(&expected)) {
        errors.push(FieldError::invalid(&path.child("selector"), &shown(selector), "`selector` not auto-generated"));
    }
}

/// An indexed Job is scaled by changing completions and parallelism together.
fn completions(errors: &mut Errors, path: &Path, new: &JobSpec, old: &JobSpec) {
    if !is_indexed(new) {
        immutable(errors, path, &new.completions, &old.completions);
    } else if let Some(completions) = new.completions
        && new.completions != old.completions
        && new.completions != new.parallelism
    {
        let message = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid(path, &completions, message));
    }
}

/// A template changes only while the Job is suspended and none of its pods runs, and then only in where its pods may
/// run and in what they need.
fn template(errors: &mut Errors, path: &Path, new: &PodTemplateSpec, old: &Job) {
    let spec = or_default(old.spec.as_ref());
    let status = or_default(old.status.as_ref());
    let stopped = status.start_time.is_none() || status::is(&status, "Suspended");
    if spec.suspend != Some(true) || status.active.unwrap_or_default() != 0 || !stopped {
        immutable(errors, path, new, &spec.template);
        return;
    }
    let (new, mut old) = (or_default(new.spec.as_ref()), spec.template.spec.clone().unwrap_or_default());
    allow_placement(&new, &mut old);
    allow_resources(&new, &mut old);
    immutable(errors, &path.child("spec"), &*new, &old);
}

/// Takes over what says where pods may run. Labels and annotations, which belong to it, are outside of the pod's spec.
fn allow_placement(new: &PodSpec, old: &mut PodSpec) {
    let node_affinity = new.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    if new.affinity.is_some() {
        old.affinity.get_or_insert_default();
    }
    if let Some(affinity) = &mut old.affinity {
        affinity.node_affinity = node_affinity;
    }
    if new.affinity.is_none() && old.affinity.as_ref().is_some_and(|a| *a == Affinity::default()) {
        old.affinity = None;
    }
    old.node_selector.clone_from(&new.node_selector);
    old.tolerations.clone_from(&new.tolerations);
    old.scheduling_gates.clone_from(&new.scheduling_gates);
}

/// Takes over what containers ask for, where they are the same containers.
fn allow_resources(new: &PodSpec, old: &mut PodSpec) {
    let containers = old.containers.iter_mut().zip(&new.containers);
    let init = old.init_containers.iter_mut().flatten().zip(new.init_containers.iter().flatten());
    for (old, new) in containers.chain(init).filter(|(old, new)| old.name == new.name) {
        old.resources.clone_from(&new.resources);
    }
}
