//! Decides: what a pod asks for altogether, as limits of namespaces count it: containers and sidecars together, or the
//! largest step of its initialization, whichever is more; what the pod says for itself instead of that.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::api::quantity::Quantity;
pub use crate::api::quota::Amounts;

/// Which of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Requests,
    Limits,
}

/// What can't be read is left out: validation has seen it.
#[must_use]
pub fn parse(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    list.into_iter().flatten().filter_map(|(name, q)| Some((name.clone(), Quantity::parse(&q.0).ok()?))).collect()
}

#[must_use]
pub fn of_container(container: &Container, of: Of) -> Amounts {
    listed(container.resources.as_ref(), of)
}

/// Without overhead.
#[must_use]
pub fn of_pod(spec: &PodSpec, of: Of) -> Amounts {
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &of_container(container, of));
    }
    let (mut sidecars, mut steps) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut step = of_container(container, of);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut total, &step);
            add(&mut sidecars, &step);
            step.clone_from(&sidecars);
        } else {
            add(&mut step, &sidecars);
        }
        raise(&mut steps, &step);
    }
    raise(&mut total, &steps);
    let own = listed(spec.resources.as_ref(), of);
    total.extend(own.into_iter().filter(|(name, _)| for_pods(name)));
    total
}

/// Resources that a pod may name for all its containers together.
fn for_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, quantity) in more {
        total.entry(name.clone()).and_modify(|q| *q += *quantity).or_insert(*quantity);
    }
}

fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, quantity) in other {
        total.entry(name.clone()).and_modify(|q| *q = (*q).max(*quantity)).or_insert(*quantity);
    }
}

fn listed(resources: Option<&ResourceRequirements>, of: Of) -> Amounts {
    let list = resources.and_then(|r| match of {
        Of::Requests => r.requests.as_ref(),
        Of::Limits => r.limits.as_ref(),
    });
    parse(list)
}
