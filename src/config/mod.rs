//! Types: what will be used, after flags, environment and file were merged ([`source`]) and checked ([`check`]).
//! Nothing else reads the environment.

pub mod check;
pub mod cpu_set;
pub mod eviction;
pub mod kubelet;
pub mod placement;
pub mod scheduler;
pub mod settings;
pub mod source;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// The bridge that the pods of a node are attached to.
pub const BRIDGE: &str = "cni0";
/// The device that packets to pods of other nodes go out by.
pub const TUNNEL: &str = "skiff.vxlan";

/// An IPv4 network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: Ipv4Addr,
    /// Prefix length in bits.
    pub prefix: u8,
}

impl Cidr {
    /// Whether `ip` lies in the network.
    #[must_use]
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        let mask = self.mask();
        u32::from(ip) & mask == u32::from(self.address) & mask
    }

    /// The `n`th address, 0 being the network itself.
    #[must_use]
    pub fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from((u32::from(self.address) & self.mask()).wrapping_add(n))
    }

    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not an IPv4 network such as 10.42.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().ok().filter(|p| *p <= 32).ok_or_else(bad)?;
        let cidr = Self { address, prefix };
        if cidr.nth(0) == address {
            Ok(cidr)
        } else {
            Err(format!("{text:?} has host bits set; did you mean {}/{prefix}?", cidr.nth(0)))
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
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
    /// It is the machine's, as nobody gave one: another one of the machine takes its place.
    pub follow_address: bool,
    /// `--tls-san`
    pub tls_san: Vec<String>,
    /// `--write-kubeconfig`, mode `--write-kubeconfig-mode`.
    pub kubeconfig: PathBuf,
    pub kubeconfig_mode: u32,
    /// `--token`; made at first start when absent.
    pub token: Option<String>,
    /// The server runs an agent too unless `--disable-agent`.
    pub agent: Option<Agent>,
    /// Unless `--disable local-storage`: volumes on the nodes' own disks, and a default class for them.
    pub local_storage: bool,
    /// `--max-requests-inflight` and `--max-mutating-requests-inflight` together: what the priority levels share.
    pub seats: u32,
    /// `--kube-scheduler-arg=config=<file>`
    pub scheduler: scheduler::Scheduler,
    /// Where systemd wants to hear that we are ready.
    pub notify_socket: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Agent {
    /// `--data-dir`; the agent's files are under `<data_dir>/agent`.
    pub data_dir: PathBuf,
    /// Where containerd, runc and nft are found, as `PATH` writes it.
    pub search_path: String,
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
    /// Nobody gave it: it changes with the machine's.
    pub follow_address: bool,
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
    /// `--default-local-storage-path`, `<data_dir>/storage`: holds the volumes of the class `local-path`.
    pub local_storage: PathBuf,
    pub images: ImageSettings,
    /// `--pod-manifest-path`, `<data_dir>/agent/pod-manifests`: pods that run whatever the API says.
    pub pod_manifests: PathBuf,
    /// `--kubelet-arg`
    pub kubelet: kubelet::Kubelet,
    /// `--kubelet-dir`: pods and the sockets of plugins; `None` is where upstream's kubelet has them, if that is free.
    pub kubelet_dir: Option<PathBuf>,
    /// As [`Server::notify_socket`]; absent for the agent of a server.
    pub notify_socket: Option<PathBuf>,
}

/// A small machine's disk and network do no more in parallel.
const PARALLEL_PULLS: usize = 3;

/// Where images may come from, and how they are pulled.
#[derive(Clone, Debug)]
pub struct ImageSettings {
    /// `--private-registry`: mirrors and logins, in the format of k3s.
    pub registries: PathBuf,
    /// `--image-credential-provider-config`: the default one only where it is.
    pub provider_config: Option<PathBuf>,
    /// `--image-credential-provider-bin-dir`
    pub provider_directory: PathBuf,
    /// Pulls under way at once; `None` is no limit.
    pub max_parallel_pulls: Option<usize>,
}

impl Default for ImageSettings {
    fn default() -> Self {
        Self {
            registries: settings::DEFAULT_REGISTRIES.into(),
            provider_config: None,
            provider_directory: settings::DEFAULT_PROVIDERS.into(),
            max_parallel_pulls: Some(PARALLEL_PULLS),
        }
    }
}
