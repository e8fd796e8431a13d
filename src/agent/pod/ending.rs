//! Types: the node ends a pod for a reason of its own: it is evicted, or the machine goes down.

use std::time::Duration;

/// The pod fails, with this in its status, once its containers have stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub reason: &'static str,
    pub message: String,
    /// What its containers get, instead of what the pod asks for.
    pub grace: Duration,
    /// The pod is told to be the target of a disruption: whoever made it may start another for that.
    pub disruption: bool,
}
