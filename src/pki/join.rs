//! Types: what an agent and a server tell each other when a node joins. JSON over HTTPS.
//!
//! ```text
//! agent                                   server
//!   GET  /cacerts                  ──▶    PEM of server-ca; the token's hash must fit it
//!   POST /v1-skiff/join            ──▶    bearer token (or the node's own certificate), name, password, two requests
//!                                  ◀──    two certificates, the authorities, the cluster's settings
//! ```

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::config::{Cidr, Cluster};

pub const CACERTS_PATH: &str = "/cacerts";
pub const JOIN_PATH: &str = "/v1-skiff/join";
/// Of a join request or answer, in bytes.
pub const MAX_BODY: usize = 128 * 1024;

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRequest {
    pub node_name: String,
    /// Made by the node when it first joins: another machine can't take the name over without it.
    pub node_password: String,
    /// Addresses that the kubelet's serving certificate is valid for, besides the node's name.
    pub addresses: Vec<IpAddr>,
    /// PEM certificate requests; only their keys are used.
    pub client_request: String,
    pub serving_request: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinAnswer {
    /// What the API server's certificate is signed by.
    pub server_ca: String,
    /// What the kubelet verifies its clients by.
    pub client_ca: String,
    pub client_certificate: String,
    pub serving_certificate: String,
    pub cluster: ClusterFacts,
}

/// [`Cluster`] on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFacts {
    pub cluster_cidr: (Ipv4Addr, u8),
    pub service_cidr: (Ipv4Addr, u8),
    pub cluster_dns: Ipv4Addr,
    pub cluster_domain: String,
    pub node_ports: (u16, u16),
}

impl From<&Cluster> for ClusterFacts {
    fn from(c: &Cluster) -> Self {
        Self {
            cluster_cidr: (c.cluster_cidr.address, c.cluster_cidr.prefix),
            service_cidr: (c.service_cidr.address, c.service_cidr.prefix),
            cluster_dns: c.cluster_dns,
            cluster_domain: c.cluster_domain.clone(),
            node_ports: c.node_ports,
        }
    }
}

impl From<ClusterFacts> for Cluster {
    fn from(f: ClusterFacts) -> Self {
        let cidr = |(address, prefix)| Cidr { address, prefix };
        Self {
            cluster_cidr: cidr(f.cluster_cidr),
            service_cidr: cidr(f.service_cidr),
            cluster_dns: f.cluster_dns,
            cluster_domain: f.cluster_domain,
            node_ports: f.node_ports,
        }
    }
}
