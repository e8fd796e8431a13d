//! Decides: security contexts of pods and containers.

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext};

use super::volumes::descending;
use crate::api::field::{FieldError, Path};
use crate::server::registry::format::between;
use crate::server::registry::metadata::{Errors, shown};

const MAX_ID: i64 = i32::MAX as i64;
const MAX_PROFILE: usize = 4095;
const MAX_SYSCTL: usize = 253;
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

fn id(errors: &mut Errors, path: &Path, id: Option<i64>) {
    if let Some(id) = id.filter(|id| !(0..=MAX_ID).contains(id)) {
        errors.push(FieldError::invalid(path, &id, &between(0, MAX_ID)));
    }
}

fn one_of(errors: &mut Errors, path: &Path, value: Option<&str>, known: &[&str]) {
    if let Some(value) = value.filter(|v| !known.contains(v)) {
        errors.push(FieldError::not_supported(path, &value, known));
    }
}

/// `path` is that of the spec.
pub fn pod(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let Some(context) = &spec.security_context else { return };
    let at = path.child("securityContext");
    id(errors, &at.child("fsGroup"), context.fs_group);
    id(errors, &at.child("runAsUser"), context.run_as_user);
    id(errors, &at.child("runAsGroup"), context.run_as_group);
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(errors, &at.child("supplementalGroups").index(i), Some(*group));
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let message = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&at.child("shareProcessNamespace"), &true, message));
    }
    let sysctls = context.sysctls.as_deref().unwrap_or_default();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let name = at.child("sysctls").index(i).child("name");
        if sysctl.name.is_empty() {
            errors.push(FieldError::required(&name, ""));
        } else if !is_sysctl(&sysctl.name) {
            let message = format!("must have at most {MAX_SYSCTL} characters and match regex {SYSCTL}");
            errors.push(FieldError::invalid(&name, &sysctl.name, &message));
        } else if sysctls[..i].iter().any(|s| s.name == sysctl.name) {
            errors.push(FieldError::duplicate(&name, &sysctl.name));
        }
        host_sysctl(errors, &name, &sysctl.name, spec);
    }
    let (change, supplemental) = (&context.fs_group_change_policy, &context.supplemental_groups_policy);
    one_of(errors, &at.child("fsGroupChangePolicy"), change.as_deref(), &["Always", "OnRootMismatch"]);
    seccomp(errors, &at.child("seccompProfile"), context.seccomp_profile.as_ref());
    app_armor(errors, &at.child("appArmorProfile"), context.app_armor_profile.as_ref());
    one_of(errors, &at.child("supplementalGroupsPolicy"), supplemental.as_deref(), &["Merge", "Strict"]);
    let relabel = context.se_linux_change_policy.as_deref();
    one_of(errors, &at.child("seLinuxChangePolicy"), relabel, &["MountOption", "Recursive"]);
    if spec.host_users == Some(false) {
        for (field, set) in [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)]
        {
            if set == Some(true) {
                errors.push(FieldError::forbidden(&path.child(field), "when `hostUsers` is false"));
            }
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |s: &str| {
        let bytes = s.as_bytes();
        bytes.first().is_some_and(|&b| letter(b))
            && bytes.last().is_some_and(|&b| letter(b))
            && bytes.iter().all(|&b| letter(b) || b == b'-' || b == b'_')
    };
    name.len() <= MAX_SYSCTL && name.split(['.', '/']).all(segment)
}

/// A sysctl of a namespace that the pod shares with the host would change the host.
fn host_sysctl(errors: &mut Errors, path: &Path, name: &str, spec: &PodSpec) {
    let name_dotted = name.replace('/', ".");
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name_dotted.starts_with(p))
        || name_dotted == "kernel.sem";
    if spec.host_network == Some(true) && name_dotted.starts_with("net.") {
        errors.push(FieldError::invalid(path, &name, "may not be specified when 'hostNetwork' is true"));
    } else if spec.host_ipc == Some(true) && ipc {
        errors.push(FieldError::invalid(path, &name, "may not be specified when 'hostIPC' is true"));
    }
}

pub fn container(errors: &mut Errors, path: &Path, context: Option<&SecurityContext>, host_users: bool) {
    let Some(context) = context else { return };
    id(errors, &path.child("runAsUser"), context.run_as_user);
    id(errors, &path.child("runAsGroup"), context.run_as_group);
    if let Some(mount) = &context.proc_mount {
        let at = path.child("procMount");
        one_of(errors, &at, Some(mount), &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            errors.push(FieldError::invalid(&at, mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, &shown(context), message));
        }
        let added = context.capabilities.as_ref().and_then(|c| c.add.as_ref());
        if added.is_some_and(|a| a.iter().any(|c| c == "CAP_SYS_ADMIN")) {
            let message = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, &shown(context), message));
        }
    }
    app_armor(errors, &path.child("appArmorProfile"), context.app_armor_profile.as_ref());
}

fn seccomp(errors: &mut Errors, path: &Path, profile: Option<&SeccompProfile>) {
    let Some(profile) = profile else { return };
    match profile.type_.as_str() {
        "" => errors.push(FieldError::required(&path.child("type"), "type is required when seccompProfile is set")),
        kind => one_of(errors, &path.child("type"), Some(kind), PROFILES),
    }
    let at = path.child("localhostProfile");
    match (profile.type_ == "Localhost", &profile.localhost_profile) {
        (true, None) => errors.push(FieldError::required(&at, "must be set when seccomp type is Localhost")),
        (true, Some(file)) => descending(errors, &at, file),
        (false, Some(_)) => {
            let message = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(&at, &shown(profile), message));
        }
        (false, None) => {}
    }
}

fn app_armor(errors: &mut Errors, path: &Path, profile: Option<&AppArmorProfile>) {
    let Some(profile) = profile else { return };
    let at = path.child("localhostProfile");
    let missing = "must be set when AppArmor type is Localhost";
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => errors.push(FieldError::required(&at, missing)),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.push(FieldError::invalid(&at, name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                errors.push(FieldError::required(&at, missing));
            }
            if name.len() > MAX_PROFILE {
                errors.push(FieldError::too_long(&at, MAX_PROFILE));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.push(FieldError::invalid(&at, name, "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.push(FieldError::required(&path.child("type"), "type is required when appArmorProfile is set"));
        }
        (other, _) => errors.push(FieldError::not_supported(&path.child("type"), &other, PROFILES)),
    }
}
