//! Types: the steps of a volume that is attached to the node, in the words that events have for them, and which one failed.

/// Why a volume is not there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub struct Failure {
    /// `MountVolume.SetUp`…
    pub step: &'static str,
    pub why: String,
}

pub struct Steps {
    /// Until the node has it.
    pub attach: &'static str,
    /// Once for the node.
    pub device: &'static str,
    /// For each pod.
    pub set_up: &'static str,
}

const MOUNT: Steps =
    Steps { attach: "MountVolume.WaitForAttach", device: "MountVolume.MountDevice", set_up: "MountVolume.SetUp" };
const MAP: Steps =
    Steps { attach: "MapVolume.WaitForAttach", device: "MapVolume.SetUpDevice", set_up: "MapVolume.MapPodDevice" };

/// `block`: the pod gets the device itself.
#[must_use]
pub fn of(block: bool) -> &'static Steps {
    if block { &MAP } else { &MOUNT }
}

/// Gives an error its step.
pub fn at(step: &'static str) -> impl Fn(String) -> Failure {
    move |why| Failure { step, why }
}
