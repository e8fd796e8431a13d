//! Decides: what the runtime says of sandboxes, containers and images, in our words.

use std::collections::HashMap;

use crate::cri::{Container, Image, Sandbox, State, v1};

/// Label that the kubelet puts on sandboxes and containers; pods are found by it.
const POD_UID: &str = "io.kubernetes.pod.uid";

fn timestamp(nanoseconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// CRI says "not yet" by 0.
fn optional_timestamp(nanoseconds: i64) -> Option<jiff::Timestamp> {
    (nanoseconds != 0).then(|| timestamp(nanoseconds))
}

pub(super) fn pod_selector(pod_uid: Option<&str>) -> HashMap<String, String> {
    pod_uid.map(|uid| (POD_UID.to_owned(), uid.to_owned())).into_iter().collect()
}

fn state(code: i32) -> State {
    match v1::ContainerState::try_from(code) {
        Ok(v1::ContainerState::ContainerCreated) => State::Created,
        Ok(v1::ContainerState::ContainerRunning) => State::Running,
        Ok(v1::ContainerState::ContainerExited) => State::Exited,
        _ => State::Unknown,
    }
}

pub(super) fn sandbox(id: String, metadata: Option<v1::PodSandboxMetadata>, state: i32, created_at: i64) -> Sandbox {
    let metadata = metadata.unwrap_or_default();
    Sandbox {
        id,
        pod_uid: metadata.uid,
        namespace: metadata.namespace,
        name: metadata.name,
        attempt: metadata.attempt,
        ready: state == v1::PodSandboxState::SandboxReady as i32,
        created_at: timestamp(created_at),
        ips: Vec::new(),
    }
}

/// What a list knows of a container.
pub(super) fn listed(c: v1::Container) -> Container {
    let metadata = c.metadata.unwrap_or_default();
    Container {
        id: c.id,
        sandbox_id: c.pod_sandbox_id,
        pod_uid: c.labels.get(POD_UID).cloned().unwrap_or_default(),
        name: metadata.name,
        attempt: metadata.attempt,
        state: state(c.state),
        image: c.image.map(|i| i.image).unwrap_or_default(),
        image_ref: c.image_ref,
        created_at: timestamp(c.created_at),
        annotations: c.annotations.into_iter().collect(),
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        log_path: String::new(),
        image_mounts: Vec::new(),
    }
}

/// What the status of a container knows: all that a list does but its sandbox, and more.
pub(super) fn described(c: v1::ContainerStatus) -> Container {
    let known = v1::Container {
        id: c.id,
        metadata: c.metadata,
        image: c.image,
        image_ref: c.image_ref,
        state: c.state,
        created_at: c.created_at,
        labels: c.labels,
        annotations: c.annotations,
        ..v1::Container::default()
    };
    Container {
        started_at: optional_timestamp(c.started_at),
        finished_at: optional_timestamp(c.finished_at),
        exit_code: c.exit_code,
        reason: c.reason,
        message: c.message,
        log_path: c.log_path,
        image_mounts: c.mounts.into_iter().filter_map(|mount| Some(mount.image?.image)).collect(),
        ..listed(known)
    }
}

pub(super) fn image(i: v1::Image) -> Image {
    Image {
        id: i.id,
        tags: i.repo_tags,
        digests: i.repo_digests,
        size_bytes: i.size,
        uid: i.uid.map(|u| u.value),
        username: i.username,
        pinned: i.pinned,
    }
}
