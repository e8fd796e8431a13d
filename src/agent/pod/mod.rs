//! Types: one pod on this node. `worker` owns it: it observes the runtime, `plan` decides, `apply` carries out, `status`
//! says what the API is told, `tell` tells it.

pub mod admit;
pub mod cleanup;
pub mod ending;
pub mod env;
pub mod ephemeral;
pub mod hooks;
pub mod hosts;
pub mod observed;
pub mod plan;
pub mod resize;
pub mod restart;
pub mod restart_all;
pub mod security;
pub mod spec;
pub mod start;
pub mod status;
pub mod stop;
mod sysctls;
pub mod table;
pub mod tell;
pub mod worker;

use std::borrow::Cow;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, PodStatus};

use crate::api::ephemeral::plain;

/// Which list of the pod a container is in, and what that means for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to completion before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order, then keeps running.
    Sidecar,
    App,
    /// Added to a pod that runs, to look into it; never restarted.
    Ephemeral,
}

#[must_use]
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

#[must_use]
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

#[must_use]
pub fn pod_spec(pod: &Pod) -> &PodSpec {
    static EMPTY: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// Init containers in order, then the containers: what the pod is made of. Ephemeral containers are [`apart`](ephemeral).
pub fn containers(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    let spec = pod_spec(pod);
    let init = spec.init_containers.iter().flatten().map(|container| (init_role(container), container));
    init.chain(spec.containers.iter().map(|container| (Role::App, container)))
}

#[must_use]
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Role, Cow<'a, Container>)> {
    let own = containers(pod).find(|(_, container)| container.name == name);
    let own = own.map(|(role, container)| (role, Cow::Borrowed(container)));
    own.or_else(|| {
        let added = ephemeral(pod).find(|container| container.name == name)?;
        Some((Role::Ephemeral, Cow::Owned(plain(added))))
    })
}

pub fn ephemeral(pod: &Pod) -> impl Iterator<Item = &EphemeralContainer> {
    pod_spec(pod).ephemeral_containers.iter().flatten()
}

fn init_role(container: &Container) -> Role {
    match container.restart_policy.as_deref() {
        Some("Always") => Role::Sidecar,
        _ => Role::Init,
    }
}

/// What events about a container carry: `spec.containers{web}`.
#[must_use]
pub fn field_path(role: Role, name: &str) -> String {
    match role {
        Role::App => format!("spec.containers{{{name}}}"),
        Role::Ephemeral => format!("spec.ephemeralContainers{{{name}}}"),
        Role::Init | Role::Sidecar => format!("spec.initContainers{{{name}}}"),
    }
}

#[must_use]
pub fn host_network(pod: &Pod) -> bool {
    pod_spec(pod).host_network.unwrap_or(false)
}

/// The phase was final already: nothing of the pod may run again.
#[must_use]
pub fn ended(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(is_final)
}

#[must_use]
pub fn is_final(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// `name_namespace(uid)`, as the kubelet names pods in messages.
#[must_use]
pub fn describe(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}
