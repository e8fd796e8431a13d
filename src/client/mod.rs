//! What controllers, scheduler and addons share to talk to the API: they are clients like any other.
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
