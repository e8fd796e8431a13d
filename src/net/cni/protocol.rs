//! Types: the CNI protocol: configuration, arguments, results and failures.
//! <https://github.com/containernetworking/cni/blob/main/SPEC.md>

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ports::PortMapping;
use crate::config::Cidr;
use crate::net::netlink::Mac;

pub const DEFAULT_VERSION: &str = "1.0.0";
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Kernel limit of a device name without its NUL.
const NAME_LIMIT: usize = 15;

/// Error codes of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    IncompatibleVersion = 1,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfiguration = 7,
    /// Ours (100 and up): addresses are used up.
    Exhausted = 100,
    /// Ours: the kernel refused.
    Kernel = 101,
    /// Ours: CHECK found something missing.
    CheckFailed = 102,
}

/// What the runtime is told, and `kubectl describe` shows in the end.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    message: String,
    details: String,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>, source: &dyn std::error::Error) -> Self {
        let mut details = source.to_string();
        let mut inner = source.source();
        while let Some(error) = inner {
            details = format!("{details}: {error}");
            inner = error.source();
        }
        Self { code, message: message.into(), details }
    }

    pub fn text(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    pub fn about(code: Code, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: details.into() }
    }

    pub fn to_json(&self, version: &str) -> String {
        #[derive(Serialize)]
        struct Wire<'a> {
            #[serde(rename = "cniVersion")]
            version: &'a str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        json(&Wire { version, code: self.code as u32, msg: &self.message, details: &self.details })
    }
}

impl From<crate::net::netlink::Error> for Failure {
    fn from(error: crate::net::netlink::Error) -> Self {
        let message = error.to_string();
        match std::error::Error::source(&error) {
            Some(source) => Self::new(Code::Kernel, message, source),
            None => Self::text(Code::Kernel, message),
        }
    }
}

impl From<super::ipam::Error> for Failure {
    fn from(error: super::ipam::Error) -> Self {
        let code = match error {
            super::ipam::Error::Exhausted { .. } => Code::Exhausted,
            super::ipam::Error::File { .. } => Code::Io,
        };
        let message = error.to_string();
        match std::error::Error::source(&error) {
            Some(source) => Self::new(code, message, source),
            None => Self::text(code, message),
        }
    }
}

#[derive(Deserialize)]
pub struct VersionRequest {
    #[serde(rename = "cniVersion")]
    pub cni_version: Option<String>,
}

pub fn version_answer(version: &str) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        cni_version: &'a str,
        supported_versions: [&'a str; 5],
    }
    json(&Answer { cni_version: version, supported_versions: VERSIONS })
}

/// A checked network configuration.
#[derive(Debug)]
pub struct Conf {
    pub cni_version: String,
    pub kind: String,
    pub bridge: String,
    pub mtu: u32,
    pub subnet: Cidr,
    pub state: PathBuf,
    pub ports: Vec<PortMapping>,
    /// GC: attachments that are still wanted, as (container, interface).
    pub valid: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawConf {
    #[serde(default)]
    cni_version: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    bridge: String,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    subnet: String,
    #[serde(default)]
    state_dir: PathBuf,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid: Vec<Attachment>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    #[serde(default)]
    port_mappings: Vec<PortMapping>,
}

#[derive(Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

impl Conf {
    pub fn parse(input: &[u8]) -> Result<Self, Failure> {
        let raw: RawConf = serde_json::from_slice(input)
            .map_err(|e| Failure::new(Code::Decode, "cannot decode the network configuration", &e))?;
        let version = raw.cni_version.unwrap_or_else(|| "0.3.1".to_owned());
        let mut conf = Self {
            cni_version: version,
            kind: raw.kind,
            bridge: raw.bridge,
            mtu: raw.mtu,
            subnet: Cidr { address: Ipv4Addr::UNSPECIFIED, prefix: 0 },
            state: raw.state_dir,
            // A host port of 0 asks for none; the runtime passes all container ports of the pod.
            ports: raw.runtime_config.port_mappings.into_iter().filter(|p| p.host_port != 0).collect(),
            valid: raw.valid.into_iter().map(|a| (a.container, a.ifname)).collect(),
        };
        if conf.kind == "loopback" {
            return Ok(conf);
        }
        conf.subnet = subnet(&raw.subnet)
            .ok_or_else(|| Failure::about(Code::InvalidConfiguration, "invalid subnet", raw.subnet))?;
        if conf.bridge.is_empty() || conf.bridge.len() > NAME_LIMIT || conf.mtu < 576 || !conf.state.is_absolute() {
            return Err(Failure::text(
                Code::InvalidConfiguration,
                "bridge, mtu (at least 576) and stateDir (absolute) are required",
            ));
        }
        Ok(conf)
    }

    /// Checks the version, which VERSION and DEL of old configurations must not fail on.
    fn check_version(&self) -> Result<(), Failure> {
        if VERSIONS.contains(&self.cni_version.as_str()) {
            return Ok(());
        }
        let supported: Vec<String> = VERSIONS.iter().map(|v| format!("{v:?}")).collect();
        Err(Failure::about(
            Code::IncompatibleVersion,
            "incompatible CNI versions",
            format!("config is {:?}, plugin supports [{}]", self.cni_version, supported.join(" ")),
        ))
    }

    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet.address.to_bits() + 1)
    }
}

/// A network with room for a gateway and a pod.
fn subnet(text: &str) -> Option<Cidr> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    let aligned = prefix < 32 && address.to_bits() & (u32::MAX >> prefix) == 0;
    (aligned && (8..=30).contains(&prefix)).then_some(Cidr { address, prefix })
}

/// Arguments in the environment.
#[derive(Debug)]
pub struct Arguments {
    pub container: String,
    pub interface: String,
    /// May be absent for DEL, when the sandbox is gone.
    pub namespace: Option<PathBuf>,
}

impl Arguments {
    pub fn parse(environment: &dyn Fn(&str) -> Option<String>, needs_namespace: bool) -> Result<Self, Failure> {
        let mut missing = Vec::new();
        let mut take = |name: &str, required: bool| {
            let value = environment(name).filter(|v| !v.is_empty());
            if value.is_none() && required {
                missing.push(name.to_owned());
            }
            value
        };
        let container = take("CNI_CONTAINERID", true).unwrap_or_default();
        let namespace = take("CNI_NETNS", needs_namespace).map(PathBuf::from);
        let interface = take("CNI_IFNAME", true).unwrap_or_default();
        if !missing.is_empty() {
            let message = format!("required env variables [{}] missing", missing.join(","));
            return Err(Failure::text(Code::InvalidEnvironment, message));
        }
        let bad = |message: &str, value: &str| Err(Failure::about(Code::InvalidEnvironment, message, value));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !container.starts_with(|c: char| c.is_ascii_alphanumeric()) || !container.chars().all(plain) {
            return bad("invalid characters in containerID", &container);
        }
        if interface.len() > NAME_LIMIT {
            return bad("interface name is too long", &interface);
        }
        if interface == "." || interface == ".." {
            return bad("interface name is . or ..", &interface);
        }
        if interface.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
            return bad("interface name contains / or : or whitespace characters", &interface);
        }
        Ok(Self { container, interface, namespace })
    }
}

/// What ADD made.
pub struct Attached<'a> {
    pub bridge: (&'a str, Mac),
    pub host: (&'a str, Mac),
    pub pod: (&'a str, Mac),
    pub namespace: &'a str,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
}

/// The answer to ADD.
pub fn result(conf: &Conf, made: &Attached) -> Result<String, Failure> {
    conf.check_version()?;
    let mut ip = serde_json::json!({
        "address": format!("{}/32", made.address), "gateway": made.gateway, "interface": 2,
    });
    if conf.cni_version.starts_with("0.") {
        ip["version"] = "4".into();
    }
    Ok(serde_json::json!({
        "cniVersion": conf.cni_version,
        "interfaces": [
            { "name": made.bridge.0, "mac": made.bridge.1.to_string() },
            { "name": made.host.0, "mac": made.host.1.to_string() },
            { "name": made.pod.0, "mac": made.pod.1.to_string(), "sandbox": made.namespace },
        ],
        "ips": [ip],
        "routes": [{ "dst": "0.0.0.0/0", "gw": made.gateway }],
        "dns": {},
    })
    .to_string())
}

/// The answer of the loopback plugin.
pub fn loopback_result(conf: &Conf, namespace: &str) -> Result<String, Failure> {
    conf.check_version()?;
    let mut ip = serde_json::json!({ "address": "127.0.0.1/8", "interface": 0 });
    if conf.cni_version.starts_with("0.") {
        ip["version"] = "4".into();
    }
    Ok(serde_json::json!({
        "cniVersion": conf.cni_version,
        "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": namespace }],
        "ips": [ip],
        "dns": {},
    })
    .to_string())
}

/// ADD refuses a version before it makes anything.
pub fn require_version(conf: &Conf) -> Result<(), Failure> {
    conf.check_version()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
