//! Decides: security contexts of pods and containers as the runtime takes them.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};

use super::{pod_spec, uid};
use crate::cri::v1;

/// Who the image wants to run as.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImageUser<'a> {
    pub uid: Option<i64>,
    pub name: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    RootUser { pod: String, container: String },
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    RootImage { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    NamedUser { user: String, pod: String, container: String },
}

/// Hidden from containers that are not privileged.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[must_use]
pub fn sandbox(pod: &Pod, seccomp_root: &Path) -> v1::LinuxSandboxSecurityContext {
    let none = PodSecurityContext::default();
    let sc = pod_spec(pod).security_context.as_ref().unwrap_or(&none);
    let ephemeral = super::ephemeral(pod).map(|added| added.security_context.as_ref());
    let all = super::containers(pod).map(|(_, container)| container.security_context.as_ref()).chain(ephemeral);
    // Asked with each container: a runtime refuses privileged ones where the sandbox is not.
    let privileged = all.flatten().any(|sc| sc.privileged == Some(true));
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        // The pause process needs no user of the pod's; it runs as root like the kubelet's unless one is named.
        run_as_user: sc.run_as_user.map(|value| v1::Int64Value { value }),
        run_as_group: sc.run_as_user.and(sc.run_as_group).map(|value| v1::Int64Value { value }),
        supplemental_groups: groups(sc),
        privileged,
        seccomp: Some(seccomp(sc.seccomp_profile.as_ref(), privileged, seccomp_root)),
        ..v1::LinuxSandboxSecurityContext::default()
    }
}

pub fn container(
    pod: &Pod,
    container: &Container,
    image: ImageUser,
    seccomp_root: &Path,
) -> Result<v1::LinuxContainerSecurityContext, Error> {
    let (no_pod, none) = (PodSecurityContext::default(), SecurityContext::default());
    let of_pod = pod_spec(pod).security_context.as_ref().unwrap_or(&no_pod);
    let own = container.security_context.as_ref().unwrap_or(&none);
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        verify_non_root(pod, container, run_as_user, image)?;
    }
    let privileged = is_privileged(container);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() };
    let uid = run_as_user.or(image.uid).or_else(|| image.name.is_empty().then_some(0));
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let selinux = own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref());
    Ok(v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|caps| v1::Capability {
            add_capabilities: caps.add.clone().unwrap_or_default(),
            drop_capabilities: caps.drop.clone().unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux.map(|options| v1::SeLinuxOption {
            user: options.user.clone().unwrap_or_default(),
            role: options.role.clone().unwrap_or_default(),
            r#type: options.type_.clone().unwrap_or_default(),
            level: options.level.clone().unwrap_or_default(),
        }),
        run_as_user: uid.map(|value| v1::Int64Value { value }),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(|value| v1::Int64Value { value }),
        run_as_username: if uid.is_none() { image.name.to_owned() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(of_pod),
        supplemental_groups_policy: match of_pod.supplemental_groups_policy.as_deref() {
            Some("Strict") => v1::SupplementalGroupsPolicy::Strict as i32,
            _ => v1::SupplementalGroupsPolicy::Merge as i32,
        },
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(profile, privileged, seccomp_root)),
        ..v1::LinuxContainerSecurityContext::default()
    })
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|sc| sc.privileged).unwrap_or(false)
}

fn verify_non_root(pod: &Pod, container: &Container, user: Option<i64>, image: ImageUser) -> Result<(), Error> {
    let pod = format!("{}_{}({})", super::name(pod), super::namespace(pod), uid(pod));
    let container = container.name.clone();
    match (user, image) {
        (Some(0), _) => Err(Error::RootUser { pod, container }),
        (Some(_), _) => Ok(()),
        (None, ImageUser { uid: Some(0), .. }) => Err(Error::RootImage { pod, container }),
        (None, ImageUser { uid: Some(_), .. }) => Ok(()),
        (None, ImageUser { name: "", .. }) => Err(Error::RootImage { pod, container }),
        (None, ImageUser { name, .. }) => Err(Error::NamedUser { user: name.to_owned(), pod, container }),
    }
}

fn namespaces(pod: &Pod) -> v1::NamespaceOption {
    let spec = pod_spec(pod);
    let mode = |host: Option<bool>, otherwise: v1::NamespaceMode| match host {
        Some(true) => v1::NamespaceMode::Node as i32,
        _ => otherwise as i32,
    };
    let shared = spec.share_process_namespace == Some(true);
    let pid = if shared { v1::NamespaceMode::Pod } else { v1::NamespaceMode::Container };
    v1::NamespaceOption {
        network: mode(spec.host_network, v1::NamespaceMode::Pod),
        pid: mode(spec.host_pid, pid),
        ipc: mode(spec.host_ipc, v1::NamespaceMode::Pod),
        ..v1::NamespaceOption::default()
    }
}

fn groups(sc: &PodSecurityContext) -> Vec<i64> {
    let mut groups: Vec<i64> = sc.supplemental_groups.clone().unwrap_or_default();
    groups.extend(sc.fs_group);
    groups
}

/// Nothing asked means unconfined, as in a kubelet without `--seccomp-default`.
fn seccomp(profile: Option<&SeccompProfile>, privileged: bool, root: &Path) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let (kind, localhost_ref) = match profile.map(|profile| profile.type_.as_str()) {
        _ if privileged => (ProfileType::Unconfined, String::new()),
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, String::new()),
        Some("Localhost") => {
            let file = profile.and_then(|profile| profile.localhost_profile.as_deref()).unwrap_or_default();
            (ProfileType::Localhost, root.join(file).to_string_lossy().into_owned())
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    v1::SecurityProfile { profile_type: kind as i32, localhost_ref }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pod_sc: serde_json::Value, own: serde_json::Value, image: ImageUser, expect: Result<i64, &str>) {
        let container: Container =
            serde_json::from_value(serde_json::json!({"name": "c", "securityContext": own})).expect("valid");
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        pod.metadata.uid = Some("u".into());
        pod.spec.get_or_insert_default().security_context = serde_json::from_value(pod_sc).expect("valid");
        let found = super::container(&pod, &container, image, Path::new("/"));
        let found = found.map(|sc| sc.run_as_user.map_or(-1, |user| user.value)).map_err(|error| error.to_string());
        assert_eq!(found.as_ref().map_err(String::as_str).copied(), expect);
    }

    #[test]
    fn users() {
        use serde_json::json;
        let root = ImageUser::default();
        let named = ImageUser { uid: None, name: "app" };
        let number = ImageUser { uid: Some(7), name: "" };
        check(json!({}), json!({}), root, Ok(0));
        check(json!({}), json!({}), named, Ok(-1));
        check(json!({"runAsUser": 5}), json!({}), named, Ok(5));
        check(json!({"runAsUser": 5}), json!({"runAsUser": 6}), number, Ok(6));
        check(json!({"runAsNonRoot": true}), json!({}), number, Ok(7));
        check(
            json!({"runAsNonRoot": true}),
            json!({}),
            root,
            Err("container has runAsNonRoot and image will run as root (pod: \"p_default(u)\", container: c)"),
        );
        check(
            json!({}),
            json!({"runAsNonRoot": true, "runAsUser": 0}),
            number,
            Err("container's runAsUser breaks non-root policy (pod: \"p_default(u)\", container: c)"),
        );
        check(
            json!({"runAsNonRoot": true}),
            json!({}),
            named,
            Err(
                "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root (pod: \"p_default(u)\", container: c)",
            ),
        );
    }
}
