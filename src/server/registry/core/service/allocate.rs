//! Decides: cluster IPs and node ports of Services.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::pool::{Pool, lower_band};
use super::{headless, needs_cluster_ip, needs_health_check_port, needs_node_port, prepare};
use crate::api::field::{FieldError, Path};
use crate::api::status::Status;
use crate::config::{self, Cidr};
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::shown;
use crate::server::registry::strategy::Reservation;

const IP_TAKEN: &str = "provided IP is already allocated";
const PORT_TAKEN: &str = "provided port is already allocated";

/// What all Services of the cluster share.
#[derive(Clone)]
pub struct Allocations {
    pools: Arc<Mutex<Pools>>,
    service_cidr: Cidr,
    /// The first address: that of the API server.
    kubernetes: u32,
    node_ports: (u16, u16),
}

struct Pools {
    ips: Pool,
    /// A number counts once, whatever the protocol.
    ports: Pool,
    /// Number of the last reservation.
    last: u64,
}

/// Numbers that one Service holds or wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Numbers {
    ips: Vec<u32>,
    ports: Vec<u32>,
}

/// Taken while one write is under way.
struct Taken {
    of: Allocations,
    reservation: u64,
    uid: Box<str>,
    taken: Numbers,
    /// Given back when the write is done.
    surplus: Numbers,
}

impl Reservation for Taken {
    fn keep(mut self: Box<Self>) {
        let of = self.of.clone();
        let mut pools = of.lock();
        let (taken, surplus) = (std::mem::take(&mut self.taken), std::mem::take(&mut self.surplus));
        taken.ips.iter().for_each(|n| pools.ips.keep(*n, self.reservation, &self.uid));
        taken.ports.iter().for_each(|n| pools.ports.keep(*n, self.reservation, &self.uid));
        surplus.ips.iter().for_each(|n| pools.ips.release(*n, &self.uid));
        surplus.ports.iter().for_each(|n| pools.ports.release(*n, &self.uid));
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let of = self.of.clone();
        let mut pools = of.lock();
        self.taken.ips.iter().for_each(|n| pools.ips.forget(*n, self.reservation));
        self.taken.ports.iter().for_each(|n| pools.ports.forget(*n, self.reservation));
    }
}

fn address(text: &str) -> Option<u32> {
    text.parse::<Ipv4Addr>().ok().map(u32::from)
}

#[allow(clippy::cast_sign_loss, reason = "negative ones are left out")]
fn port(number: Option<i32>) -> Option<u32> {
    number.filter(|n| *n > 0).map(|n| n as u32)
}

fn numbers(spec: &ServiceSpec) -> Numbers {
    let mut numbers = Numbers::default();
    if needs_cluster_ip(spec) && !headless(spec) {
        numbers.ips = spec.cluster_ips.iter().flatten().filter_map(|ip| address(ip)).collect();
    }
    numbers.ports = spec.ports.iter().flatten().filter_map(|p| port(p.node_port)).collect();
    if needs_health_check_port(spec) {
        numbers.ports.extend(port(spec.health_check_node_port));
    }
    numbers.ports.sort_unstable();
    numbers.ports.dedup();
    numbers
}

impl Allocations {
    #[must_use]
    pub fn new(config: &config::Cluster, services: impl Iterator<Item = Service>) -> Self {
        let Cidr { address, prefix } = config.service_cidr;
        let size = 1u32.checked_shl(32 - u32::from(prefix)).unwrap_or(u32::MAX);
        let network = u32::from(address) & !(size - 1);
        // The network's own address and the broadcast address are nobody's.
        let (first, last) = (network + 1, network + size.saturating_sub(2).max(1));
        let lower = lower_band(last - first + 1, 16, 256, 16);
        let mut ips = Pool::new(first, last, lower, [first, u32::from(config.cluster_dns)]);
        let (low, high) = config.node_ports;
        let lower = lower_band(u32::from(high - low) + 1, 16, 128, 32);
        let mut ports = Pool::new(u32::from(low), u32::from(high), lower, []);
        for service in services {
            let uid = service.metadata.uid.as_deref().unwrap_or_default();
            let held = numbers(&service.spec.clone().unwrap_or_default());
            held.ips.iter().for_each(|n| ips.restore(*n, uid));
            held.ports.iter().for_each(|n| ports.restore(*n, uid));
        }
        Self {
            pools: Arc::new(Mutex::new(Pools { ips, ports, last: 0 })),
            service_cidr: config.service_cidr,
            kubernetes: first,
            node_ports: config.node_ports,
        }
    }

    /// A panic elsewhere leaves the pools whole: each change of them is one insertion or removal.
    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// 422 when an address or a port cannot be had, 500 when none is left.
    pub fn allocate(&self, new: &mut Service, old: Option<&Service>) -> Result<Option<Box<dyn Reservation>>, Status> {
        let meta = &new.metadata;
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let uid: Box<str> = meta.uid.as_deref().unwrap_or_default().into();
        let held = old.and_then(|o| o.spec.as_ref()).map(numbers).unwrap_or_default();
        let spec = new.spec.get_or_insert_default();
        prepare::families(spec);

        let reservation = {
            let mut pools = self.lock();
            pools.last += 1;
            pools.last
        };
        let mut taken =
            Taken { of: self.clone(), reservation, uid, taken: Numbers::default(), surplus: Numbers::default() };
        let api_server = namespace == "default" && name == "kubernetes";
        self.cluster_ip(&mut taken, spec, &held, &name, api_server)?;
        self.node_ports(&mut taken, spec, &held, &name)?;
        self.health_check_port(&mut taken, spec, &held)?;
        let wanted = numbers(spec);
        taken.surplus = Numbers {
            ips: held.ips.into_iter().filter(|n| !wanted.ips.contains(n)).collect(),
            ports: held.ports.into_iter().filter(|n| !wanted.ports.contains(n)).collect(),
        };
        if taken.taken == Numbers::default() && taken.surplus == Numbers::default() {
            return Ok(None);
        }
        Ok(Some(Box::new(taken)))
    }

    fn cluster_ip(
        &self,
        taken: &mut Taken,
        spec: &mut ServiceSpec,
        held: &Numbers,
        name: &str,
        api_server: bool,
    ) -> Result<(), Status> {
        if !needs_cluster_ip(spec) || headless(spec) {
            return Ok(());
        }
        let given = spec.cluster_ips.clone().unwrap_or_default();
        if given.is_empty() {
            let mut pools = self.lock();
            let chosen = pools.ips.choose(rand::random(), taken.reservation);
            let chosen = chosen.ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?;
            taken.taken.ips.push(chosen);
            let text = Ipv4Addr::from(chosen).to_string();
            spec.cluster_ip = Some(text.clone());
            spec.cluster_ips = Some(vec![text]);
            return Ok(());
        }
        for text in &given {
            // What is no IPv4 address is left to validation.
            let Some(ip) = address(text).filter(|ip| !held.ips.contains(ip)) else { continue };
            let mut pools = self.lock();
            let why = if !pools.ips.contains(ip) {
                let Cidr { address, prefix } = self.service_cidr;
                format!(
                    "the provided IP ({text}) is not in the valid range. The range of valid IPs is {address}/{prefix}"
                )
            } else if ip == self.kubernetes && !api_server {
                IP_TAKEN.to_owned()
            } else if pools.ips.reserve(ip, taken.reservation) {
                taken.taken.ips.push(ip);
                continue;
            } else {
                IP_TAKEN.to_owned()
            };
            drop(pools);
            let path = Path::new("spec").child("clusterIPs");
            let message = format!("failed to allocate IP {text}: {why}");
            let error = FieldError::invalid(&path, &shown(&given), &message);
            return Err(Status::invalid(row("v1", "Service"), name, &[error]));
        }
        Ok(())
    }

    fn node_ports(&self, taken: &mut Taken, spec: &mut ServiceSpec, held: &Numbers, name: &str) -> Result<(), Status> {
        let choose = needs_node_port(spec);
        // TCP and UDP of one port get one number, as for DNS.
        let mut of_port: Vec<(i32, u32)> = Vec::new();
        for (i, service_port) in spec.ports.iter_mut().flatten().enumerate() {
            let twin = of_port.iter().find(|(number, _)| *number == service_port.port).map(|(_, node_port)| *node_port);
            if let Some(asked) = port(service_port.node_port) {
                let mine = held.ports.contains(&asked) || taken.taken.ports.contains(&asked);
                if !mine && let Err(why) = self.take_port(taken, asked) {
                    let path = Path::new("spec").child("ports").index(i).child("nodePort");
                    let error = FieldError::invalid(&path, &asked, &why);
                    return Err(Status::invalid(row("v1", "Service"), name, &[error]));
                }
                of_port.push((service_port.port, asked));
            } else if choose {
                let number = match twin {
                    Some(number) => number,
                    None => self.choose_port(taken)?,
                };
                service_port.node_port = i32::try_from(number).ok();
                of_port.push((service_port.port, number));
            }
        }
        Ok(())
    }

    fn health_check_port(&self, taken: &mut Taken, spec: &mut ServiceSpec, held: &Numbers) -> Result<(), Status> {
        if !needs_health_check_port(spec) {
            return Ok(());
        }
        match port(spec.health_check_node_port) {
            Some(asked) if held.ports.contains(&asked) => Ok(()),
            Some(asked) => self.take_port(taken, asked).map_err(|why| {
                Status::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {why}"))
            }),
            None => {
                spec.health_check_node_port = i32::try_from(self.choose_port(taken)?).ok();
                Ok(())
            }
        }
    }

    fn take_port(&self, taken: &mut Taken, number: u32) -> Result<(), String> {
        let mut pools = self.lock();
        if !pools.ports.contains(number) {
            let (low, high) = self.node_ports;
            return Err(format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"));
        }
        if !pools.ports.reserve(number, taken.reservation) {
            return Err(PORT_TAKEN.to_owned());
        }
        taken.taken.ports.push(number);
        Ok(())
    }

    fn choose_port(&self, taken: &mut Taken) -> Result<u32, Status> {
        let chosen = self.lock().ports.choose(rand::random(), taken.reservation);
        let number = chosen.ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?;
        taken.taken.ports.push(number);
        Ok(number)
    }

    pub fn released(&self, gone: &Service) {
        let uid = gone.metadata.uid.as_deref().unwrap_or_default();
        let held = numbers(&gone.spec.clone().unwrap_or_default());
        let mut pools = self.lock();
        held.ips.iter().for_each(|n| pools.ips.release(*n, uid));
        held.ports.iter().for_each(|n| pools.ports.release(*n, uid));
    }
}
