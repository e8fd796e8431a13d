//! Decides which pods a namespace lets in: the Pod Security Standards, by the labels of the namespace.
//!
//! ```text
//! pod-security.kubernetes.io/enforce          privileged (the default), baseline or restricted: refuses pods
//! pod-security.kubernetes.io/warn             the same, with a warning; about templates of pods, too
//! pod-security.kubernetes.io/…-version        latest, or v1.N: the standards as they were then
//! ```
//!
//! `audit` is read and checked like the others; there is nothing that would be told.
//!
//! - [`policy`]: what the labels say
//! - [`baseline`], [`restricted`]: the checks

mod baseline;
mod policy;
mod restricted;

use std::collections::BTreeMap;

use serde_json::Value;

use self::policy::{Level, Standard};
use super::{Attributes, Operation, Plugin};
use crate::api::status::Status;
use crate::server::objects::SharedObjects;

/// Pods that are looked at when a namespace becomes stricter.
const MAX_PODS: usize = 3000;
/// What does not change what a pod may do.
const HARMLESS: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

pub struct PodSecurity {
    objects: SharedObjects,
}

/// A pod, or a template of one.
struct Pod<'a> {
    annotations: &'a Value,
    spec: &'a Value,
}

/// Why a pod is not of a standard.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    reason: &'static str,
    /// May be empty.
    detail: String,
}

impl PodSecurity {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    fn policy(&self, namespace: &str) -> policy::Policy {
        let stored = self.objects.get("namespaces", "", namespace);
        policy::read(|label| stored.as_ref().and_then(|n| n.label(label))).0
    }

    fn pod(&self, a: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
        if HARMLESS.contains(&a.subresource) {
            return Ok(());
        }
        let policy = self.policy(a.namespace);
        if policy.enforce.level == Level::Privileged && policy.warn.level == Level::Privileged {
            return Ok(());
        }
        if a.operation == Operation::Update && a.old.is_some_and(|old| !is_significant(pod, old)) {
            return Ok(());
        }
        let checked = Pod { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] };
        let violations = checked.violations(policy.enforce);
        if !violations.is_empty() {
            let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&violations));
            return Err(a.forbidden(Some(pod), &why));
        }
        warn(a, policy.warn, &checked);
        Ok(())
    }

    fn template(&self, a: &Attributes<'_>, object: &Value) {
        let policy = self.policy(a.namespace);
        let template = match a.resource.plural {
            "podtemplates" => &object["template"],
            "cronjobs" => &object["spec"]["jobTemplate"]["spec"]["template"],
            _ => &object["spec"]["template"],
        };
        if policy.warn.level != Level::Privileged && template.is_object() {
            let annotations = &template["metadata"]["annotations"];
            warn(a, policy.warn, &Pod { annotations, spec: &template["spec"] });
        }
    }

    fn namespace(&self, a: &Attributes<'_>, new: &Value) -> Result<(), Status> {
        let of = |n: &Value| policy::read(|label| n["metadata"]["labels"][label].as_str());
        let (policy, errors) = of(new);
        let name = new["metadata"]["name"].as_str().unwrap_or_default();
        let Some(old) = a.old.filter(|_| a.operation == Operation::Update) else {
            return if errors.is_empty() { Ok(()) } else { Err(Status::invalid(a.resource, name, &errors)) };
        };
        let (before, known) = of(old);
        if !errors.is_empty() && errors != known {
            return Err(Status::invalid(a.resource, name, &errors));
        }
        let (enforce, before) = (policy.enforce, before.enforce);
        let stricter = enforce.version != before.version || enforce.level > before.level;
        if enforce != before && enforce.level != Level::Privileged && stricter {
            self.warn_of_pods(a, name, enforce);
        }
        Ok(())
    }

    /// What is there stays, yet would not be let in again.
    fn warn_of_pods(&self, a: &Attributes<'_>, namespace: &str, enforce: Standard) {
        let pods = self.objects.list("pods", Some(namespace));
        // The first pod by name with these violations, and how many have them.
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for stored in pods.iter().take(MAX_PODS) {
            let Ok(pod) = stored.value() else { continue };
            let checked = Pod { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] };
            let violations = checked.violations(enforce);
            if !violations.is_empty() {
                let reasons: Vec<_> = violations.iter().map(|v| v.reason).collect();
                let first = || (stored.key.name.to_string(), 0);
                found.entry(reasons.join(", ")).or_insert_with(first).1 += 1;
            }
        }
        if pods.len() > MAX_PODS {
            a.cx.warn(format!(
                "new PodSecurity enforce level only checked against the first {MAX_PODS} of {} existing pods",
                pods.len()
            ));
        }
        if !found.is_empty() {
            a.cx.warn(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
            ));
        }
        let mut lines: Vec<String> = found
            .into_iter()
            .map(|(reasons, (pod, count))| match count {
                1 => format!("{pod}: {reasons}"),
                2 => format!("{pod} (and 1 other pod): {reasons}"),
                n => format!("{pod} (and {} other pods): {reasons}", n - 1),
            })
            .collect();
        lines.sort();
        lines.into_iter().for_each(|line| a.cx.warn(line));
    }
}

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        let Some(object) = object.filter(|_| writes) else { return Ok(()) };
        match (attributes.resource.storage, attributes.subresource) {
            ("pods", _) => self.pod(attributes, object),
            ("namespaces", "") => self.namespace(attributes, object),
            (
                "replicationcontrollers"
                | "podtemplates"
                | "apps/replicasets"
                | "apps/deployments"
                | "apps/statefulsets"
                | "apps/daemonsets"
                | "batch/jobs"
                | "batch/cronjobs",
                "",
            ) => {
                self.template(attributes, object);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn warn(a: &Attributes<'_>, standard: Standard, pod: &Pod<'_>) {
    let violations = pod.violations(standard);
    if !violations.is_empty() {
        a.cx.warn(format!("would violate PodSecurity \"{standard}\": {}", details(&violations)));
    }
}

fn details(violations: &[Violation]) -> String {
    let text = |v: &Violation| {
        if v.detail.is_empty() { v.reason.to_owned() } else { format!("{} ({})", v.reason, v.detail) }
    };
    violations.iter().map(text).collect::<Vec<_>>().join(", ")
}

impl<'a> Pod<'a> {
    fn violations(&self, standard: Standard) -> Vec<Violation> {
        let version = standard.version.number();
        let is_restricted = standard.level == Level::Restricted;
        if standard.level == Level::Privileged {
            return Vec::new();
        }
        let stays = |replaced: Option<u32>| !is_restricted || replaced.is_none_or(|since| version < since);
        let kept = baseline::CHECKS.iter().filter(|(_, replaced)| stays(*replaced)).map(|(check, _)| check);
        let more = if is_restricted { restricted::CHECKS } else { &[] };
        kept.chain(more).filter_map(|check| check(self, version)).collect()
    }

    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        CONTAINERS.into_iter().flat_map(move |list| spec[list].as_array().into_iter().flatten())
    }

    /// The names of containers with something wrong.
    fn bad_containers(&self, bad: impl FnMut(&&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(bad).map(|c| c["name"].as_str().unwrap_or_default()).collect()
    }

    /// Kubernetes says so itself since v1.25: what these standards are about does not exist there.
    fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// Root inside is nobody outside.
    fn has_user_namespace(&self) -> bool {
        self.spec["hostUsers"] == false
    }
}

/// Of an update only these matter; everything else that could is immutable.
fn is_significant(new: &Value, old: &Value) -> bool {
    let annotation = |pod: &Value, key: &str| pod["metadata"]["annotations"][key].clone();
    if annotation(new, SECCOMP_POD) != annotation(old, SECCOMP_POD) {
        return true;
    }
    let count = |pod: &Value, list: &str| pod["spec"][list].as_array().map_or(0, Vec::len);
    if ["containers", "initContainers"].iter().any(|list| count(new, list) != count(old, list)) {
        return true;
    }
    CONTAINERS.iter().any(|list| {
        let listed = |pod: &'_ Value| pod["spec"][*list].as_array().cloned().unwrap_or_default();
        let known = listed(old);
        listed(new).iter().enumerate().any(|(i, container)| {
            let name = container["name"].as_str().unwrap_or_default();
            let before =
                if *list == "ephemeralContainers" { known.iter().find(|c| c["name"] == name) } else { known.get(i) };
            let key = format!("{SECCOMP_CONTAINER}{name}");
            before.is_none_or(|b| b["image"] != container["image"] || annotation(new, &key) != annotation(old, &key))
        })
    })
}

/// `"a", "b"`
fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let all: Vec<String> = names.iter().map(|n| format!("\"{}\"", n.as_ref())).collect();
    all.join(", ")
}

fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// `container "a"` or `containers "a", "b"`
fn named(containers: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", containers.len()), quoted(containers))
}

/// The pod itself, its containers, or both; `None` when neither.
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    match (pod, containers.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".into()),
        (false, false) => Some(named(containers)),
        (true, false) => Some(format!("pod and {}", named(containers))),
    }
}

#[cfg(test)]
mod tests;
