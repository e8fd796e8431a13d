//! Decides: the checks of the restricted standard: pods that are hardened. Some take the place of a check of the baseline
//! that they are stricter than.

use serde_json::Value;

use super::baseline::{Check, added, any_proc_mount, bad_seccomp, is_seccomp};
use super::{Pod, Violation, named, plural, quoted, setters};

/// In the order they are told.
pub const CHECKS: &[Check] =
    &[allow_privilege_escalation, capabilities, proc_mount, restricted_volumes, run_as_non_root, run_as_user, seccomp];

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn violation(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

fn allow_privilege_escalation(pod: &Pod<'_>, version: u32) -> Option<Violation> {
    if version < 8 || (version >= 25 && pod.is_windows()) {
        return None;
    }
    let containers = pod.bad_containers(|c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    if containers.is_empty() {
        return None;
    }
    let who = named(&containers);
    violation(
        "allowPrivilegeEscalation != false",
        format!("{who} must set securityContext.allowPrivilegeEscalation=false"),
    )
}

fn capabilities(pod: &Pod<'_>, version: u32) -> Option<Violation> {
    const REASON: &str = "unrestricted capabilities";
    if version < 22 || (version >= 25 && pod.is_windows()) {
        return None;
    }
    let mut details = Vec::new();
    let containers = pod.bad_containers(|c| {
        let dropped = c["securityContext"]["capabilities"]["drop"].as_array();
        dropped.is_none_or(|d| d.iter().all(|name| name != "ALL"))
    });
    if !containers.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&containers)));
    }
    details.extend(added(pod, REASON, &["NET_BIND_SERVICE"]).map(|v| v.detail));
    if details.is_empty() { None } else { violation(REASON, details.join("; ")) }
}

/// A user namespace is no excuse here.
fn proc_mount(pod: &Pod<'_>, version: u32) -> Option<Violation> {
    if version < 35 { None } else { any_proc_mount(pod, version) }
}

fn restricted_volumes(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let (mut names, mut kinds) = (Vec::new(), std::collections::BTreeSet::new());
    for volume in pod.spec["volumes"].as_array().into_iter().flatten() {
        let sources = volume.as_object().into_iter().flatten().filter(|(k, v)| *k != "name" && !v.is_null());
        let sources: Vec<&str> = sources.map(|(kind, _)| kind.as_str()).collect();
        if !sources.iter().any(|s| VOLUMES.contains(s)) {
            names.push(volume["name"].as_str().unwrap_or_default());
            kinds.insert(sources.first().copied().unwrap_or("unknown"));
        }
    }
    if names.is_empty() {
        return None;
    }
    let kinds: Vec<&str> = kinds.into_iter().collect();
    let (volumes, verb) = (plural("volume", "volumes", names.len()), plural("uses", "use", names.len()));
    let what = plural("restricted volume type", "restricted volume types", kinds.len());
    let (names, kinds) = (quoted(&names), quoted(&kinds));
    violation("restricted volume types", format!("{volumes} {names} {verb} {what} {kinds}"))
}

/// `runAsNonRoot` of a container counts before that of the pod.
fn run_as_non_root(pod: &Pod<'_>, version: u32) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if version >= 35 && pod.has_user_namespace() {
        return None;
    }
    let said = |holder: &Value| holder["securityContext"]["runAsNonRoot"].as_bool();
    let refusing = pod.bad_containers(|c| said(c) == Some(false));
    if let Some(who) = setters(said(pod.spec) == Some(false), &refusing) {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = pod.bad_containers(|c| said(c).is_none() && said(pod.spec) != Some(true));
    if silent.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent)))
}

fn run_as_user(pod: &Pod<'_>, version: u32) -> Option<Violation> {
    if version < 23 || (version >= 35 && pod.has_user_namespace()) {
        return None;
    }
    let is_root = |holder: &Value| holder["securityContext"]["runAsUser"] == 0;
    let who = setters(is_root(pod.spec), &pod.bad_containers(|c| is_root(c)))?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn seccomp(pod: &Pod<'_>, version: u32) -> Option<Violation> {
    if version < 19 || (version >= 25 && pod.is_windows()) {
        return None;
    }
    let bad = bad_seccomp(pod);
    if bad.is_some() || is_seccomp(&pod.spec["securityContext"]["seccompProfile"]) {
        return bad;
    }
    let silent = pod.bad_containers(|c| c["securityContext"]["seccompProfile"].is_null());
    if silent.is_empty() {
        return None;
    }
    let who = named(&silent);
    let must = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    violation("seccompProfile", format!("pod or {who} {must}"))
}
