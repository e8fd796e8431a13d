//! What everything of ours shares to talk to the API (controllers, scheduler, agent, network): a client like any other.
//!
//! - [`request`]: the verbs over a `kube::Client`, untyped, one instantiation for all kinds
//! - [`reflector`]: list and watch of one resource into a sink
//! - [`store`]: the typed objects of one resource, as last observed
//! - [`correlator`] and [`recorder`]: Events, folded and bounded

pub mod correlator;
pub mod recorder;
pub mod reflector;
pub mod request;
pub mod store;
