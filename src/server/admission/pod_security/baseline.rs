//! Decides: the checks of the baseline standard: nothing that is known to lead out of a container.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Pod, SECCOMP_CONTAINER, SECCOMP_POD, Violation, named, plural, quoted, setters};

pub type Check = fn(&Pod<'_>, u32) -> Option<Violation>;

/// In the order they are told, each with the version from which on a check of the restricted standard takes its place
/// there.
pub const CHECKS: &[(Check, Option<u32>)] = &[
    (app_armor, None),
    (capabilities, Some(22)),
    (host_namespaces, None),
    (host_path_volumes, Some(0)),
    (host_ports, None),
    (host_probes, None),
    (privileged, None),
    (proc_mount, Some(35)),
    (se_linux, None),
    (seccomp, Some(19)),
    (sysctls, None),
    (windows_host_process, None),
];

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// With the version from which on they are safe.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const SE_LINUX_TYPES: [(&str, u32); 5] =
    [("", 0), ("container_t", 0), ("container_init_t", 0), ("container_kvm_t", 0), ("container_engine_t", 31)];

fn violation(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn sorted(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    texts.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// A field of the security context of the pod and of each container: who sets it badly, and the bad values.
fn in_contexts<'a>(pod: &Pod<'a>, field: &str, bad: impl Fn(&Value) -> bool) -> (Option<String>, Vec<String>) {
    let mut values = Vec::new();
    let mut check = |holder: &Value| {
        let value = &holder["securityContext"][field];
        let is_bad = !value.is_null() && bad(value);
        if is_bad {
            values.push(text(&value["type"]).to_owned());
        }
        is_bad
    };
    let own = check(pod.spec);
    let containers = pod.bad_containers(|c| check(c));
    (setters(own, &containers), sorted(values))
}

fn app_armor(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let bad = |profile: &Value| !matches!(text(&profile["type"]), "RuntimeDefault" | "Localhost");
    let (setters, mut values) = in_contexts(pod, "appArmorProfile", bad);
    let mut who: Vec<String> = setters.into_iter().collect();
    let allowed = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let annotations = pod.annotations.as_object().into_iter().flatten();
    let bad = annotations.filter(|(k, v)| k.starts_with(APP_ARMOR) && !allowed(text(v)));
    let bad = sorted(bad.map(|(k, v)| format!("{k}={:?}", text(v))));
    if !bad.is_empty() {
        who.push(plural("annotation", "annotations", bad.len()).into());
        values.extend(bad);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    violation(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values)))
}

fn capabilities(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    added(pod, "non-default capabilities", &CAPABILITIES)
}

/// Containers that add a capability that is not among these.
pub fn added(pod: &Pod<'_>, reason: &'static str, allowed: &[&str]) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let containers = pod.bad_containers(|c| {
        let added = c["securityContext"]["capabilities"]["add"].as_array().into_iter().flatten().map(text);
        let bad: Vec<&str> = added.filter(|c| !allowed.contains(c)).collect();
        found.extend(bad.iter().map(|c| (*c).to_owned()));
        !bad.is_empty()
    });
    if containers.is_empty() {
        return None;
    }
    let found: Vec<String> = found.into_iter().collect();
    let who = named(&containers);
    violation(reason, format!("{who} must not include {} in securityContext.capabilities.add", quoted(&found)))
}

fn host_namespaces(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|f| pod.spec[*f] == true);
    let shared: Vec<String> = shared.map(|f| format!("{f}=true")).collect();
    if shared.is_empty() { None } else { violation("host namespaces", shared.join(", ")) }
}

fn host_path_volumes(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
    let names: Vec<&str> = volumes.filter(|v| !v["hostPath"].is_null()).map(|v| text(&v["name"])).collect();
    if names.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
}

fn host_ports(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let containers = pod.bad_containers(|c| {
        let used = c["ports"].as_array().into_iter().flatten().filter_map(|p| p["hostPort"].as_i64());
        let used: Vec<String> = used.filter(|p| *p != 0).map(|p| p.to_string()).collect();
        ports.extend(used.iter().cloned());
        !used.is_empty()
    });
    if containers.is_empty() {
        return None;
    }
    let verb = plural("uses", "use", containers.len());
    let what = plural("hostPort", "hostPorts", ports.len());
    let ports: Vec<String> = ports.into_iter().collect();
    violation("hostPort", format!("{} {verb} {what} {}", named(&containers), ports.join(", ")))
}

fn host_probes(pod: &Pod<'_>, version: u32) -> Option<Violation> {
    const HANDLERS: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    if version < 34 {
        return None;
    }
    let mut hosts = BTreeSet::new();
    let mut containers = pod.bad_containers(|c| {
        let handlers = HANDLERS.iter().filter_map(|at| c.pointer(at));
        let named = handlers.flat_map(|h| [text(&h["httpGet"]["host"]), text(&h["tcpSocket"]["host"])]);
        let named: Vec<&str> = named.filter(|host| !host.is_empty()).collect();
        hosts.extend(named.iter().map(|h| (*h).to_owned()));
        !named.is_empty()
    });
    if containers.is_empty() {
        return None;
    }
    containers.sort_unstable();
    containers.dedup();
    let verb = plural("uses", "use", containers.len());
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    let hosts: Vec<String> = hosts.into_iter().collect();
    violation("probe or lifecycle host", format!("{} {verb} {what} {}", named(&containers), quoted(&hosts)))
}

fn privileged(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let containers = pod.bad_containers(|c| c["securityContext"]["privileged"] == true);
    if containers.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", named(&containers)))
}

fn proc_mount(pod: &Pod<'_>, version: u32) -> Option<Violation> {
    if version >= 35 && pod.has_user_namespace() { None } else { any_proc_mount(pod, version) }
}

pub fn any_proc_mount(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let containers = pod.bad_containers(|c| {
        let kind = c["securityContext"]["procMount"].as_str().filter(|k| *k != "Default");
        kinds.extend(kind.map(str::to_owned));
        kind.is_some()
    });
    if containers.is_empty() {
        return None;
    }
    let kinds: Vec<String> = kinds.into_iter().collect();
    let who = named(&containers);
    violation("procMount", format!("{who} must not set securityContext.procMount to {}", quoted(&kinds)))
}

fn se_linux(pod: &Pod<'_>, version: u32) -> Option<Violation> {
    let is_type = |t: &str| SE_LINUX_TYPES.iter().any(|(name, since)| *name == t && *since <= version);
    let mut wrong = (BTreeSet::new(), false, false);
    let mut bad = |holder: &Value| {
        let options = &holder["securityContext"]["seLinuxOptions"];
        let (kind, user, role) = (text(&options["type"]), text(&options["user"]), text(&options["role"]));
        if !is_type(kind) {
            wrong.0.insert(kind.to_owned());
        }
        wrong.1 |= !user.is_empty();
        wrong.2 |= !role.is_empty();
        !is_type(kind) || !user.is_empty() || !role.is_empty()
    };
    let own = bad(pod.spec);
    let containers = pod.bad_containers(|c| bad(c));
    let who = setters(own, &containers)?;
    let types: Vec<String> = wrong.0.into_iter().collect();
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    what.extend(wrong.1.then(|| "user may not be set".to_owned()));
    what.extend(wrong.2.then(|| "role may not be set".to_owned()));
    let what = what.join("; ");
    violation("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {what}"))
}

/// Profiles were annotations before v1.19.
fn seccomp(pod: &Pod<'_>, version: u32) -> Option<Violation> {
    if version >= 19 {
        return bad_seccomp(pod);
    }
    let containers = pod.containers().map(|c| format!("{SECCOMP_CONTAINER}{}", text(&c["name"])));
    let keys = std::iter::once(SECCOMP_POD.to_owned()).chain(containers);
    let allowed = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let bad = keys.filter_map(|key| {
        let value = pod.annotations[&key].as_str().filter(|v| !allowed(v))?;
        Some(format!("{key}={value:?}"))
    });
    let bad = sorted(bad);
    if bad.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", bad.len());
    violation("seccompProfile", format!("forbidden {word} {}", bad.join(", ")))
}

pub fn bad_seccomp(pod: &Pod<'_>) -> Option<Violation> {
    let bad = |profile: &Value| !is_seccomp(profile);
    let (who, values) = in_contexts(pod, "seccompProfile", bad);
    let who = who?;
    let values = quoted(&values);
    violation("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {values}"))
}

pub fn is_seccomp(profile: &Value) -> bool {
    matches!(text(&profile["type"]), "RuntimeDefault" | "Localhost")
}

fn sysctls(pod: &Pod<'_>, version: u32) -> Option<Violation> {
    let is_safe = |name: &str| SYSCTLS.iter().any(|(safe, since)| *safe == name && *since <= version);
    let set = pod.spec["securityContext"]["sysctls"].as_array().into_iter().flatten();
    let bad: Vec<&str> = set.map(|s| text(&s["name"])).filter(|name| !is_safe(name)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let is_set = |holder: &Value| holder["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let who = setters(is_set(pod.spec), &pod.bad_containers(|c| is_set(c)))?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
