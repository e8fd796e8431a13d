//! Types: what will be used, after flags, file and environment were merged and checked. Nothing else reads the
//! environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// An IPv4 network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: Ipv4Addr,
    /// Prefix length in bits.
    pub prefix: u8,
}

/// What both server and agent need to know about the cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// `--cluster-cidr`, 10.42.0.0/16: each node gets a /24 of it.
    pub cluster_cidr: Cidr,
    /// `--service-cidr`, 10.43.0.0/16.
    pub service_cidr: Cidr,
    /// `--cluster-dns`, 10.43.0.10.
    pub cluster_dns: Ipv4Addr,
    /// `--cluster-domain`, cluster.local.
    pub cluster_domain: String,
    /// `--service-node-port-range`, inclusive.
    pub node_ports: (u16, u16),
}

#[derive(Clone, Debug)]
pub struct Server {
    /// `--data-dir`; the server's files are under `<data_dir>/server`.
    pub data_dir: PathBuf,
    pub cluster: Cluster,
    /// `--bind-address` and `--https-listen-port`.
    pub listen: SocketAddr,
    /// `--advertise-address`: what the `kubernetes` Service points to.
    pub advertise_address: IpAddr,
    /// `--tls-san`
    pub tls_san: Vec<String>,
    /// `--write-kubeconfig`, mode `--write-kubeconfig-mode`.
    pub kubeconfig: PathBuf,
    pub kubeconfig_mode: u32,
    /// `--token`; made at first start when absent.
    pub token: Option<String>,
    /// The server runs an agent too unless `--disable-agent`.
    pub agent: Option<Agent>,
}

#[derive(Clone, Debug)]
pub struct Agent {
    /// `--data-dir`; the agent's files are under `<data_dir>/agent`.
    pub data_dir: PathBuf,
    /// Learned from the server when joining.
    pub cluster: Option<Cluster>,
    /// `--server`, such as `https://10.0.0.1:6443`.
    pub server: String,
    /// `--token`: `K10<sha256 of the CA>::<user>:<secret>` or a bare secret.
    pub token: String,
    /// `--node-name`, the lower-cased host name.
    pub node_name: String,
    /// `--node-ip`, the address of the interface with the default route, else the first global address.
    pub node_ip: IpAddr,
    /// `--node-label`, `--node-taint`.
    pub node_labels: Vec<(String, String)>,
    pub node_taints: Vec<String>,
    /// `--container-runtime-endpoint`; containerd is supervised when absent.
    pub runtime_endpoint: Option<PathBuf>,
    /// `--resolv-conf`
    pub resolv_conf: PathBuf,
    /// Kubelet endpoint, 10250.
    pub kubelet_port: u16,
    /// `--max-pods`, 110.
    pub max_pods: u32,
}
