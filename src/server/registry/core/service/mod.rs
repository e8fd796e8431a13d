//! Decides: Service.
//!
//! - [`prepare`]: defaults, and what an update inherits or loses with a change of type
//! - [`allocate`]: cluster IPs and node ports, from the [`pool`]s
//! - [`validate`]: what is wrong with it

pub mod allocate;
pub mod pool;
pub mod prepare;
pub mod validate;

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};

use self::allocate::Allocations;
use crate::api::field::FieldError;
use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::config;
use crate::server::registry::kinds::row;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, NameRule, Part, Reservation};

pub struct ServiceKind {
    allocations: Allocations,
}

impl ServiceKind {
    /// `services` are those that exist: what they hold is taken.
    #[must_use]
    pub fn new(config: &config::Cluster, services: impl Iterator<Item = Service>) -> Self {
        Self { allocations: Allocations::new(config, services) }
    }
}

impl Kind for ServiceKind {
    type Object = Service;

    fn resource(&self) -> &'static Resource {
        row("v1", "Service")
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Dns1035Label
    }

    fn defaults(&self, service: &mut Service) {
        prepare::defaults(service);
    }

    fn prepare_create(&self, _: &Context, service: &mut Service) {
        service.status = Some(ServiceStatus { load_balancer: Some(Default::default()), conditions: None });
        prepare::create(service.spec.get_or_insert_default());
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut Service, old: &Service) {
        if part == Part::Status {
            return;
        }
        prepare::update(new.spec.get_or_insert_default(), &old.spec.clone().unwrap_or_default());
        if new.spec.as_ref().is_some_and(|s| kind(s) != "LoadBalancer") {
            let status = new.status.get_or_insert_default();
            status.load_balancer = Some(Default::default());
        }
    }

    fn validate(&self, service: &Service) -> Vec<FieldError> {
        validate::service(service)
    }

    fn validate_update(&self, part: Part, new: &Service, old: &Service) -> Vec<FieldError> {
        match part {
            Part::Status => validate::status(new),
            _ => validate::update(new, old),
        }
    }

    fn allocates(&self) -> bool {
        true
    }

    fn allocate(&self, new: &mut Service, old: Option<&Service>) -> Result<Option<Box<dyn Reservation>>, Status> {
        self.allocations.allocate(new, old)
    }

    fn released(&self, gone: &Service) {
        self.allocations.released(gone);
    }

    fn create_on_update(&self) -> bool {
        true
    }
}

fn kind(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or_default()
}

/// `clusterIP: None`: no address, DNS names the endpoints.
fn headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ips.as_deref() == Some(&["None".to_owned()])
}

fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    matches!(kind(spec), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_port(spec: &ServiceSpec) -> bool {
    match kind(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn needs_health_check_port(spec: &ServiceSpec) -> bool {
    kind(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

fn externally_accessible(spec: &ServiceSpec) -> bool {
    match kind(spec) {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}
