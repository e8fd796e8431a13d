//! Decides: raw values → configuration, with every problem reported together.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::kubelet::{self, Kubelet};
use super::scheduler::{self, Scheduler};
use super::settings::{DEFAULT_PROVIDER_CONFIG, DEFAULT_PROVIDERS, DEFAULT_REGISTRIES, find};
use super::source::{Problems, Values};
use super::{Agent, BRIDGE, Cidr, Cluster, ImageSettings, PARALLEL_PULLS, Server, TUNNEL};

/// What was found out about the machine, for settings that nobody gave.
#[derive(Clone, Debug)]
pub struct Machine {
    pub host_name: String,
    /// The address of the default route's interface, else the first global one.
    pub address: Option<IpAddr>,
    pub resolv_conf: PathBuf,
    /// `PATH`
    pub search_path: String,
    /// `NOTIFY_SOCKET`
    pub notify_socket: Option<PathBuf>,
}

/// Requests in flight that nobody means: each may hold a body of 3 MiB.
const SEATS_MAX: u32 = 100_000;

/// Directories where Debian, Fedora and Alpine put daemons; a unit's `PATH` may lack some.
const SBIN: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct Reader {
    values: Values,
    kubelet: Kubelet,
    problems: Vec<String>,
}

impl Reader {
    fn new(values: &Values) -> Reader {
        let (mut values, mut problems) = (values.clone(), Vec::new());
        let given = values.get("kubelet-arg").cloned().unwrap_or_default();
        let kubelet = kubelet::parse(&given, &mut values, &mut problems);
        Reader { values, kubelet, problems }
    }

    fn text(&self, name: &'static str) -> Option<String> {
        let given = self.values.get(name).and_then(|v| v.last()).filter(|v| !v.is_empty()).cloned();
        given.or_else(|| find(name).map(|s| s.default.to_owned()).filter(|d| !d.is_empty()))
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name)?;
        text.parse().map_err(|e| self.problems.push(format!("--{name}={text}: {e}"))).ok()
    }

    fn switch(&mut self, name: &'static str) -> bool {
        self.parsed(name).unwrap_or(false)
    }

    fn list(&self, name: &'static str) -> Vec<String> {
        let given = self.values.get(name).into_iter().flatten();
        given.flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    }

    fn done<T>(self, config: Option<T>) -> Result<T, Problems> {
        match config {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => Err(Problems(self.problems)),
        }
    }

    /// `--token`, or the first line of `--token-file`.
    fn token(&mut self) -> Option<String> {
        if let Some(token) = self.text("token") {
            return Some(token);
        }
        let path = self.text("token-file")?;
        match std::fs::read_to_string(&path) {
            Ok(text) => text.lines().next().map(str::trim).map(str::to_owned).filter(|t| !t.is_empty()),
            Err(error) => {
                self.problems.push(format!("--token-file={path}: {error}"));
                None
            }
        }
    }

    fn cluster(&mut self) -> Option<Cluster> {
        let cluster_cidr: Option<Cidr> = self.parsed("cluster-cidr");
        let service_cidr: Option<Cidr> = self.parsed("service-cidr");
        let cluster_dns: Option<Ipv4Addr> = self.parsed("cluster-dns");
        let node_ports = self.node_ports();
        let cluster = Cluster {
            cluster_cidr: cluster_cidr?,
            service_cidr: service_cidr?,
            cluster_dns: cluster_dns?,
            cluster_domain: self.text("cluster-domain")?,
            node_ports: node_ports?,
        };
        if cluster.cluster_cidr.prefix > 24 {
            self.problems.push(format!("--cluster-cidr={}: each node needs a /24 of it", cluster.cluster_cidr));
        }
        if !cluster.service_cidr.contains(cluster.cluster_dns) {
            let (dns, cidr) = (cluster.cluster_dns, cluster.service_cidr);
            self.problems.push(format!("--cluster-dns={dns} is not in --service-cidr={cidr}"));
        }
        let overlap = cluster.service_cidr.contains(cluster.cluster_cidr.address)
            || cluster.cluster_cidr.contains(cluster.service_cidr.address);
        if overlap {
            let (pods, services) = (cluster.cluster_cidr, cluster.service_cidr);
            self.problems.push(format!("--cluster-cidr={pods} and --service-cidr={services} overlap"));
        }
        Some(cluster)
    }

    fn seats(&mut self) -> Option<u32> {
        let reading: Option<u32> = self.parsed("max-requests-inflight");
        let writing: Option<u32> = self.parsed("max-mutating-requests-inflight");
        let seats = reading?.saturating_add(writing?);
        if !(1..=SEATS_MAX).contains(&seats) {
            self.problems.push(format!(
                "--max-requests-inflight and --max-mutating-requests-inflight are {seats} together: from 1 to \
                 {SEATS_MAX}"
            ));
        }
        Some(seats)
    }

    /// Of the flags of upstream's scheduler there is one.
    fn scheduler(&mut self) -> Scheduler {
        let (mut read, flag) = (Scheduler::default(), "--kube-scheduler-arg");
        for argument in self.list("kube-scheduler-arg") {
            let Some(path) = argument.trim_start_matches("--").strip_prefix("config=") else {
                self.problems.push(format!("{flag}={argument}: not a flag of this scheduler; there is config=<file>"));
                continue;
            };
            let document = std::fs::read_to_string(path).map_err(|error| error.to_string()).and_then(|text| {
                serde_saphyr::from_str::<serde_json::Value>(&text).map_err(|error| format!("not YAML: {error}"))
            });
            match document.map_err(|why| vec![why]).and_then(|document| scheduler::parse(&document)) {
                Ok(scheduler) => read = scheduler,
                Err(problems) => self.problems.extend(problems.iter().map(|p| format!("{flag}={argument}: {p}"))),
            }
        }
        read
    }

    fn node_ports(&mut self) -> Option<(u16, u16)> {
        let text = self.text("service-node-port-range")?;
        let range = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let range = range.filter(|(first, last)| *first > 0 && first <= last);
        if range.is_none() {
            self.problems.push(format!("--service-node-port-range={text}: not a range such as 30000-32767"));
        }
        range
    }

    fn agent(&mut self, machine: &Machine, server: String, token: String) -> Option<Agent> {
        let node_name = self.text("node-name").unwrap_or_else(|| machine.host_name.to_lowercase());
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if node_name.is_empty() || node_name.len() > 253 || !node_name.chars().all(valid) {
            self.problems.push(format!("--node-name={node_name}: use lower-case letters, digits, '-' and '.'"));
        }
        let given = self.parsed("node-ip");
        let node_ip = given.or(machine.address);
        if node_ip.is_none() {
            self.problems.push("this machine has no address that others could reach: set --node-ip".to_owned());
        }
        let mut node_labels = Vec::new();
        for label in self.list("node-label") {
            match label.split_once('=') {
                Some((key, value)) => node_labels.push((key.to_owned(), value.to_owned())),
                None => self.problems.push(format!("--node-label={label}: not key=value")),
            }
        }
        for taint in self.list("node-taint") {
            let effect = taint.rsplit_once(':').map(|(_, effect)| effect);
            if !effect.is_some_and(|effect| ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)) {
                let effects = "NoSchedule, PreferNoSchedule or NoExecute";
                self.problems.push(format!("--node-taint={taint}: not key=value:effect with an effect of {effects}"));
            }
        }
        let kubelet_port = self.parsed("kubelet-port");
        let max_pods = self.parsed("max-pods");
        let data_dir = PathBuf::from(self.text("data-dir")?);
        let local_storage = self.text("default-local-storage-path").map(PathBuf::from);
        let local_storage = local_storage.unwrap_or_else(|| data_dir.join("storage"));
        if !local_storage.is_absolute() {
            let given = local_storage.display();
            self.problems.push(format!("--default-local-storage-path={given}: must start with /"));
        }
        let images = self.images();
        let pod_manifests = self.text("pod-manifest-path").map(PathBuf::from);
        let kubelet_dir = self.text("kubelet-dir").map(PathBuf::from);
        if let Some(given) = kubelet_dir.as_ref().filter(|given| !given.is_absolute()) {
            self.problems.push(format!("--kubelet-dir={}: must start with /", given.display()));
        }
        Some(Agent {
            pod_manifests: pod_manifests.unwrap_or_else(|| data_dir.join("agent/pod-manifests")),
            kubelet: self.kubelet.clone(),
            data_dir,
            search_path: search_path(&machine.search_path),
            cluster: None,
            server,
            token,
            node_name,
            node_ip: node_ip?,
            follow_address: given.is_none(),
            node_labels,
            node_taints: self.list("node-taint"),
            runtime_endpoint: self.text("container-runtime-endpoint").as_deref().map(socket_path),
            resolv_conf: self.text("resolv-conf").map_or_else(|| machine.resolv_conf.clone(), PathBuf::from),
            kubelet_port: kubelet_port?,
            max_pods: max_pods?,
            local_storage,
            images,
            kubelet_dir,
            notify_socket: machine.notify_socket.clone(),
        })
    }

    fn images(&mut self) -> ImageSettings {
        let given = |name| self.values.get(name).is_some_and(|values| values.iter().any(|value| !value.is_empty()));
        let path = |name, other: &str| PathBuf::from(self.text(name).unwrap_or_else(|| other.to_owned()));
        let config = path("image-credential-provider-config", DEFAULT_PROVIDER_CONFIG);
        let wanted = given("image-credential-provider-config") || config.exists();
        ImageSettings {
            registries: path("private-registry", DEFAULT_REGISTRIES),
            provider_config: wanted.then_some(config),
            provider_directory: path("image-credential-provider-bin-dir", DEFAULT_PROVIDERS),
            max_parallel_pulls: Some(self.kubelet.parallel_pulls.unwrap_or(PARALLEL_PULLS)),
        }
    }
}

/// What `--disable` knows.
const LOCAL_STORAGE: &str = "local-storage";

/// A socket's path, with or without `unix://`.
fn socket_path(text: &str) -> PathBuf {
    PathBuf::from(text.strip_prefix("unix://").unwrap_or(text))
}

fn search_path(given: &str) -> String {
    let mut path = given.to_owned();
    for dir in SBIN.split(':').filter(|d| !given.split(':').any(|g| g == *d)) {
        if !path.is_empty() {
            path.push(':');
        }
        path.push_str(dir);
    }
    path
}

/// # Errors
/// Everything that is wrong.
pub fn server(values: &Values, machine: &Machine) -> Result<Server, Problems> {
    let mut r = Reader::new(values);
    let address: Option<IpAddr> = r.parsed("bind-address");
    let port: Option<u16> = r.parsed("https-listen-port");
    let advertise: Option<IpAddr> = r.parsed("advertise-address");
    let node_ip: Option<IpAddr> = r.parsed("node-ip");
    let mode = r.text("write-kubeconfig-mode").unwrap_or_default();
    let kubeconfig_mode = u32::from_str_radix(&mode, 8).ok().filter(|m| *m <= 0o777);
    if kubeconfig_mode.is_none() {
        r.problems.push(format!("--write-kubeconfig-mode={mode}: not an octal mode such as 600"));
    }
    let cluster = r.cluster();
    let seats = r.seats();
    let scheduler = r.scheduler();
    let token = r.token();
    let disabled = r.list("disable");
    for part in disabled.iter().filter(|p| *p != LOCAL_STORAGE) {
        r.problems.push(format!("--disable={part}: not a part that can be left out; there is {LOCAL_STORAGE}"));
    }
    let disable_agent = r.switch("disable-agent");
    let agent = if disable_agent {
        None
    } else {
        let url = format!("https://127.0.0.1:{}", port.unwrap_or_default());
        r.agent(machine, url, token.clone().unwrap_or_default())
    };
    let config = (|| {
        Some(Server {
            data_dir: r.text("data-dir")?.into(),
            cluster: cluster?,
            listen: SocketAddr::new(address?, port?),
            advertise_address: advertise.or(node_ip).or(machine.address).unwrap_or(Ipv4Addr::LOCALHOST.into()),
            follow_address: advertise.is_none() && node_ip.is_none(),
            tls_san: r.list("tls-san"),
            kubeconfig: r.text("write-kubeconfig")?.into(),
            kubeconfig_mode: kubeconfig_mode?,
            token,
            agent: agent.map(|a| Agent { notify_socket: None, ..a }),
            local_storage: !disabled.iter().any(|p| p == LOCAL_STORAGE),
            seats: seats?,
            scheduler,
            notify_socket: machine.notify_socket.clone(),
        })
    })();
    r.done(config)
}

/// # Errors
/// Everything that is wrong.
pub fn agent(values: &Values, machine: &Machine) -> Result<Agent, Problems> {
    let mut r = Reader::new(values);
    let server = r.text("server").unwrap_or_default();
    if server.is_empty() {
        r.problems.push("--server is required: the address of the server to join, https://…:6443".to_owned());
    } else if !server.starts_with("https://") {
        r.problems.push(format!("--server={server}: must start with https://"));
    }
    let token = r.token().unwrap_or_default();
    if token.is_empty() {
        r.problems.push("--token is required: on the server it is in <data-dir>/server/node-token".to_owned());
    }
    let config = r.agent(machine, server, token);
    r.done(config)
}

/// For commands that speak to this machine's runtime, and to no server.
///
/// # Errors
/// Everything that is wrong.
pub fn images(values: &Values, machine: &Machine) -> Result<Agent, Problems> {
    let mut r = Reader::new(values);
    let config = r.agent(machine, String::new(), String::new());
    r.done(config)
}

/// What the environment says of the machine.
#[must_use]
pub fn machine(environment: &BTreeMap<String, String>) -> Machine {
    let host_name = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_default();
    // systemd-resolved's stub listens on loopback, which no pod can reach.
    let resolved = PathBuf::from("/run/systemd/resolve/resolv.conf");
    let etc = PathBuf::from("/etc/resolv.conf");
    let stub = std::fs::read_to_string(&etc).is_ok_and(|t| t.contains("nameserver 127.0.0.53"));
    Machine {
        host_name,
        address: address(),
        resolv_conf: if stub && resolved.exists() { resolved } else { etc },
        search_path: environment.get("PATH").cloned().unwrap_or_default(),
        notify_socket: environment.get("NOTIFY_SOCKET").map(PathBuf::from),
    }
}

/// The source address towards a public one (nothing is sent), else the first address that is neither loopback nor
/// link-local: a machine with no default route has a node address too.
#[must_use]
pub fn address() -> Option<IpAddr> {
    let routed = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let first = || {
        let addresses = nix::ifaddrs::getifaddrs().ok()?;
        let mut v4 = addresses.filter_map(|a| Some((a.address?.as_sockaddr_in()?.ip(), a.interface_name)));
        v4.find(|(ip, device)| is_of_machine(*ip, device)).map(|(ip, _)| ip.into())
    };
    routed().filter(|ip| !ip.is_loopback()).or_else(first)
}

/// What an earlier run left is not the machine's: `lo` has the address of the cluster DNS, our devices those of pods.
fn is_of_machine(ip: Ipv4Addr, device: &str) -> bool {
    !ip.is_link_local() && !["lo", BRIDGE, TUNNEL].contains(&device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&'static str, &str)]) -> Values {
        pairs.iter().map(|(k, v)| (*k, vec![(*v).to_owned()])).collect()
    }

    fn a_machine() -> Machine {
        Machine {
            host_name: "Pi".into(),
            address: Some(Ipv4Addr::new(10, 0, 0, 1).into()),
            resolv_conf: "/etc/resolv.conf".into(),
            search_path: "/bin".into(),
            notify_socket: None,
        }
    }

    #[test]
    fn defaults_are_a_whole_configuration() {
        let config = server(&Values::new(), &a_machine()).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:6443");
        assert_eq!(config.cluster.cluster_cidr.to_string(), "10.42.0.0/16");
        assert_eq!(config.seats, 600);
        let agent = config.agent.unwrap();
        assert_eq!((agent.node_name.as_str(), agent.server.as_str()), ("pi", "https://127.0.0.1:6443"));
        assert!(agent.search_path.starts_with("/bin:") && agent.search_path.contains("/usr/sbin"));
    }

    #[test]
    fn the_scheduler_is_configured_by_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let argument = format!("config={}", file.path().display());
        let check = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            server(&given(&[("kube-scheduler-arg", &argument)]), &a_machine()).map(|c| c.scheduler.profiles)
        };
        let start = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        let profiles = check(&format!("{start}profiles: [{{schedulerName: a}}, {{schedulerName: b}}]")).unwrap();
        assert_eq!(profiles.len(), 2);
        let problems = check(&format!("{start}parallelism: -1\nnonsense: 1")).unwrap_err();
        let flag = format!("--kube-scheduler-arg={argument}");
        let invalid = "parallelism: Invalid value: -1: should be an integer value greater than zero";
        assert_eq!(problems.0, [format!("{flag}: {invalid}"), format!("{flag}: unknown field \"nonsense\"")]);
        assert!(check("{").unwrap_err().0[0].starts_with(&format!("{flag}: not YAML")));
        let other = server(&given(&[("kube-scheduler-arg", "v=4,config=/nonexistent/x")]), &a_machine()).unwrap_err();
        assert_eq!(
            other.0,
            [
                "--kube-scheduler-arg=v=4: not a flag of this scheduler; there is config=<file>",
                "--kube-scheduler-arg=config=/nonexistent/x: No such file or directory (os error 2)",
            ]
        );
    }

    #[test]
    fn a_runtime_is_named_with_or_without_its_scheme() {
        for text in ["unix:///run/containerd/containerd.sock", "/run/containerd/containerd.sock"] {
            let agent = server(&given(&[("container-runtime-endpoint", text)]), &a_machine()).unwrap().agent.unwrap();
            assert_eq!(agent.runtime_endpoint.unwrap(), std::path::Path::new("/run/containerd/containerd.sock"));
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let values = given(&[
            ("cluster-cidr", "10.42.0.1/16"),
            ("https-listen-port", "x"),
            ("write-kubeconfig-mode", "9"),
            ("service-node-port-range", "5-1"),
            ("max-requests-inflight", "0"),
            ("max-mutating-requests-inflight", "0"),
            ("node-taint", "a=b:Never"),
            ("kubelet-arg", "nothing=1"),
        ]);
        let problems = server(&values, &a_machine()).unwrap_err().0;
        assert_eq!(problems.len(), 7, "{problems:?}");
        assert!(problems.iter().any(|p| p.contains("did you mean 10.42.0.0/16?")), "{problems:?}");
    }

    #[test]
    fn what_an_earlier_run_left_is_not_the_address_of_the_machine() {
        let found = [
            (Ipv4Addr::new(127, 0, 0, 1), "lo"),
            (Ipv4Addr::new(10, 43, 0, 10), "lo"),
            (Ipv4Addr::new(10, 42, 0, 0), TUNNEL),
            (Ipv4Addr::new(10, 42, 0, 1), BRIDGE),
            (Ipv4Addr::new(169, 254, 7, 7), "eth1"),
            (Ipv4Addr::new(10, 0, 0, 1), "eth0"),
        ];
        let own: Vec<&str> = found.iter().filter(|(ip, d)| is_of_machine(*ip, d)).map(|(_, d)| *d).collect();
        assert_eq!(own, ["eth0"]);
    }

    #[test]
    fn an_agent_needs_a_server_and_a_token() {
        let problems = agent(&Values::new(), &a_machine()).unwrap_err().0;
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
