//! Types: every setting there is, in one table. A row is a flag of the command line, an environment variable
//! (`SKIFF_` and the name in capitals) and a key of `config.yaml`. Names and meanings are k3s's where it has them.

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing on the command line; true or false elsewhere.
    Switch,
    Text,
    /// May be given several times, and with commas; a list in the file.
    List,
    /// May be given several times, each with commas of its own; a list in the file.
    Each,
}

#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub short: Option<char>,
    pub takes: Takes,
    /// Shown in the help; empty where the value is found out.
    pub default: &'static str,
    pub help: &'static str,
    /// Which commands have it.
    pub server: bool,
    pub agent: bool,
}

const fn both(name: &'static str, takes: Takes, default: &'static str, help: &'static str) -> Setting {
    Setting { name, short: None, takes, default, help, server: true, agent: true }
}

const fn server(name: &'static str, takes: Takes, default: &'static str, help: &'static str) -> Setting {
    Setting { agent: false, ..both(name, takes, default, help) }
}

const fn short(letter: char, setting: Setting) -> Setting {
    Setting { short: Some(letter), ..setting }
}

use Takes::{Each, List, Switch, Text};

pub const DEFAULT_CONFIG: &str = "/etc/skiff/config.yaml";
pub const DEFAULT_DATA_DIR: &str = "/var/lib/skiff";
pub const DEFAULT_KUBECONFIG: &str = "/etc/skiff/skiff.yaml";

pub const DEFAULT_REGISTRIES: &str = "/etc/skiff/registries.yaml";
pub const DEFAULT_PROVIDERS: &str = "/var/lib/skiff/credentialprovider/bin";
pub const DEFAULT_PROVIDER_CONFIG: &str = "/var/lib/skiff/credentialprovider/config.yaml";

pub static SETTINGS: &[Setting] = &[
    short('c', both("config", Text, DEFAULT_CONFIG, "Configuration file; every flag is a key of it")),
    short('d', both("data-dir", Text, DEFAULT_DATA_DIR, "Folder that holds everything")),
    both("debug", Switch, "false", "Log one line per decision"),
    short('t', both("token", Text, "", "Shared secret that lets nodes join")),
    both("token-file", Text, "", "File that holds the token"),
    server("bind-address", Text, "0.0.0.0", "Address to listen on"),
    server("https-listen-port", Text, "6443", "Port to listen on"),
    server(
        "advertise-address",
        Text,
        "",
        "Address that others reach the API at (default: the machine's, as it changes)",
    ),
    server("tls-san", List, "", "More names and addresses for the server's certificate"),
    short('o', server("write-kubeconfig", Text, DEFAULT_KUBECONFIG, "Where the admin kubeconfig is written")),
    server("write-kubeconfig-mode", Text, "600", "Its mode, octal"),
    server("cluster-cidr", Text, "10.42.0.0/16", "Network of the pods"),
    server("service-cidr", Text, "10.43.0.0/16", "Network of the Services"),
    server("service-node-port-range", Text, "30000-32767", "Ports for NodePort Services"),
    server("cluster-dns", Text, "10.43.0.10", "Address of the cluster's DNS, in the Service network"),
    server("cluster-domain", Text, "cluster.local", "Domain of the cluster"),
    server(
        "max-requests-inflight",
        Text,
        "400",
        "Requests that run at once, with those of the next flag; a board of 512 MB is well off with 100 and 50",
    ),
    server("max-mutating-requests-inflight", Text, "200", "Added to the flag above; priority levels share the sum"),
    server("kube-scheduler-arg", List, "", "Flag for the scheduler: config=<KubeSchedulerConfiguration>"),
    server("disable", List, "", "Leave out a part: local-storage"),
    server("disable-agent", Switch, "false", "Run no pods on this machine"),
    short('s', Setting { server: false, ..both("server", Text, "", "Server to join, such as https://10.0.0.1:6443") }),
    both("node-name", Text, "", "Name of the node (default: the host's)"),
    short('i', both("node-ip", Text, "", "Address of the node (default: that of the default route)")),
    both("node-label", List, "", "Labels to register the node with: key=value"),
    both("node-taint", List, "", "Taints to register the node with: key=value:effect"),
    both("container-runtime-endpoint", Text, "", "Socket of a running CRI runtime (default: a containerd of our own)"),
    both(
        "private-registry",
        Text,
        DEFAULT_REGISTRIES,
        "Mirrors and logins of registries; containerd is told at its start",
    ),
    both(
        "image-credential-provider-config",
        Text,
        DEFAULT_PROVIDER_CONFIG,
        "Which plug-ins know logins for registries",
    ),
    both("image-credential-provider-bin-dir", Text, DEFAULT_PROVIDERS, "Folder of these plug-ins"),
    both("resolv-conf", Text, "", "The host's resolvers (default: /etc/resolv.conf, or systemd-resolved's)"),
    both("default-local-storage-path", Text, "", "Folder for local-path volumes (default: storage in the data folder)"),
    both("kubelet-dir", Text, "", "Folder of pods and plugins (default: /var/lib/kubelet, which their manifests name)"),
    both("kubelet-port", Text, "10250", "Port of the node's own endpoint"),
    both("max-pods", Text, "110", "Pods that the node takes at most"),
    both("pod-manifest-path", Text, "", "Folder of static pods (default: agent/pod-manifests in the data folder)"),
    both("kubelet-arg", Each, "", "A setting of the kubelet: name=value"),
];

#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}
