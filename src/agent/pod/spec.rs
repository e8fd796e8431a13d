//! Decides: a pod and its containers as the runtime's configuration messages.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest, Sha256};

use super::{containers, host_network, hosts, name, namespace, pod_spec, resize, security, uid};
use crate::agent::context::NodeContext;
use crate::agent::devices::protocol;
use crate::agent::devices::record::Additions;
use crate::agent::mirror::SOURCE;
use crate::agent::{cgroups, limits};
use crate::cri::v1;

pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Longest host name Linux takes, less one.
const HOSTNAME_BYTES: usize = 63;

/// Changes when the container must be replaced: the kubelet's choice of fields, as nothing else may be updated.
#[must_use]
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{}\0{image}", container.name));
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// The pod's own host name, before any domain.
#[must_use]
pub fn hostname(pod: &Pod) -> String {
    let spec = pod_spec(pod);
    let chosen = spec.hostname_override.as_deref().or(spec.hostname.as_deref()).filter(|name| !name.is_empty());
    let hostname = chosen.unwrap_or_else(|| name(pod));
    let end = hostname.len().min(HOSTNAME_BYTES);
    hostname.get(..end).unwrap_or(hostname).trim_end_matches(['-', '.']).to_owned()
}

/// `host.subdomain.namespace.svc.domain` for a pod with a subdomain.
#[must_use]
pub fn fqdn(pod: &Pod, domain: &str) -> Option<String> {
    let subdomain = pod_spec(pod).subdomain.as_deref().filter(|name| !name.is_empty())?;
    Some(format!("{}.{subdomain}.{}.svc.{domain}", hostname(pod), namespace(pod)))
}

#[must_use]
pub fn sandbox(cx: &NodeContext, pod: &Pod, attempt: u32, host_resolv: &str) -> v1::PodSandboxConfig {
    let spec = pod_spec(pod);
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(pod_labels(pod));
    let mut annotations: HashMap<String, String> =
        pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    annotations.entry(SOURCE.into()).or_insert_with(|| "api".into());
    let hostname = match (host_network(pod), fqdn(pod, &cx.cluster.cluster_domain)) {
        (true, _) => String::new(),
        (_, Some(full)) if spec.set_hostname_as_fqdn == Some(true) => full,
        _ => hostname(pod),
    };
    let sysctls = spec.security_context.iter().flat_map(|sc| sc.sysctls.iter().flatten());
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name(pod).to_owned(),
            uid: uid(pod).to_owned(),
            namespace: namespace(pod).to_owned(),
            attempt,
        }),
        hostname,
        log_directory: text(&cx.paths.pod_logs(namespace(pod), name(pod), uid(pod))),
        dns_config: Some(hosts::dns_config(pod, &cx.cluster, host_resolv)),
        port_mappings: port_mappings(pod),
        labels,
        annotations,
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: cx.cgroups.parent(pod).unwrap_or_default(),
            security_context: Some(security::sandbox(pod, &cx.paths.seccomp)),
            sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
            overhead: None,
            resources: None,
        }),
        windows: None,
    }
}

/// What [`container`] is made from, beside the pod.
pub struct Parts<'a> {
    pub container: &'a Container,
    pub attempt: u32,
    /// What the runtime knows the image as.
    pub image: &'a str,
    pub image_user: security::ImageUser<'a>,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<v1::Mount>,
    /// Of its devices.
    pub additions: Additions,
    pub node_memory_bytes: i64,
}

pub fn container(cx: &NodeContext, pod: &Pod, parts: Parts) -> Result<v1::ContainerConfig, security::Error> {
    let container = parts.container;
    let scope: HashMap<String, String> = parts.env.iter().cloned().collect();
    let expand = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| super::env::expand(text, &scope)).collect()
    };
    let mut labels = pod_labels(pod);
    labels.insert("io.kubernetes.container.name".into(), container.name.clone());
    let Additions { mounts: of_devices, devices, annotations: more, cdi, .. } = parts.additions;
    let own = [
        (CONTAINER_HASH.to_owned(), container_hash(container)),
        (RESTART_COUNT.to_owned(), parts.attempt.to_string()),
        (TERMINATION_PATH.to_owned(), container.termination_message_path.clone().unwrap_or_default()),
        (TERMINATION_POLICY.to_owned(), container.termination_message_policy.clone().unwrap_or_default()),
        (GRACE_PERIOD.to_owned(), grace_seconds(pod).to_string()),
        (resize::MADE_WITH.to_owned(), resize::made_with(container)),
    ];
    let own_resources = cgroups::container_resources(pod, container, parts.node_memory_bytes);
    let user = container.image.clone().unwrap_or_default();
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: parts.attempt }),
        image: Some(v1::ImageSpec {
            image: parts.image.to_owned(),
            user_specified_image: user,
            ..v1::ImageSpec::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: parts.env.into_iter().map(|(key, value)| v1::KeyValue { key, value }).collect(),
        mounts: of_devices.into_iter().map(device_mount).chain(parts.mounts).collect(),
        devices: devices.into_iter().map(device).collect(),
        cdi_devices: cdi.into_iter().map(|name| v1::CdiDevice { name }).collect(),
        labels,
        annotations: more.into_iter().chain(own).collect(),
        log_path: log_path(&container.name, parts.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(cx.exclusive.complete(
                pod,
                container,
                limits::complete(own_resources, (pod, container), &cx.kernel),
            )),
            security_context: Some(security::container(pod, container, parts.image_user, &cx.paths.seccomp)?),
        }),
        ..v1::ContainerConfig::default()
    })
}

fn device_mount(mount: protocol::Mount) -> v1::Mount {
    let protocol::Mount { container_path, host_path, read_only: readonly } = mount;
    v1::Mount { container_path, host_path, readonly, ..v1::Mount::default() }
}

fn device(device: protocol::DeviceSpec) -> v1::Device {
    let protocol::DeviceSpec { container_path, host_path, permissions } = device;
    v1::Device { container_path, host_path, permissions }
}

/// Relative to the pod's log directory.
#[must_use]
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

#[must_use]
pub fn grace_seconds(pod: &Pod) -> i64 {
    pod_spec(pod).termination_grace_period_seconds.unwrap_or(30)
}

/// The number of a container's port given by number or by name.
#[must_use]
pub fn port_number(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            match named {
                Some(port) => u16::try_from(port.container_port).ok(),
                None => name.parse().ok(),
            }
        }
    }
}

fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    HashMap::from([
        ("io.kubernetes.pod.name".into(), name(pod).to_owned()),
        ("io.kubernetes.pod.namespace".into(), namespace(pod).to_owned()),
        ("io.kubernetes.pod.uid".into(), uid(pod).to_owned()),
    ])
}

fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    if host_network(pod) {
        return Vec::new();
    }
    let ports = containers(pod).flat_map(|(_, container)| container.ports.iter().flatten());
    ports.filter(|port| port.host_port.unwrap_or(0) > 0).map(port_mapping).collect()
}

fn port_mapping(port: &ContainerPort) -> v1::PortMapping {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => v1::Protocol::Udp,
        Some("SCTP") => v1::Protocol::Sctp,
        _ => v1::Protocol::Tcp,
    };
    v1::PortMapping {
        protocol: protocol as i32,
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    }
}

/// The file on the node that a container's termination message is written to.
#[must_use]
pub fn termination_file(cx: &NodeContext, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
    cx.paths.pod(pod_uid).join("containers").join(container).join(attempt.to_string())
}

#[must_use]
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
