//! Decides: `registries.yaml`, in k3s' format: mirrors of registries, and how each is logged in to and trusted; rendered
//! for containerd as `certs.d/<registry>/hosts.toml`, logins apart: these only fit into its configuration.
//!
//! containerd knows no rewrites of image names. An image that one fits is pulled by its name at the mirror, and then given
//! the name it was asked for by: see [`Registries::rewritten`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;

/// First line of the files that are ours to remove.
pub const HEADER: &str = "# Written by skiff at every start from registries.yaml; changes are lost.";
/// containerd 1.6 refuses a file without this table.
const NO_HOSTS: &str = "\n[host]\n";
/// Stands for all registries.
const ANY: &str = "*";
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not what registries.yaml must be: {why}")]
    Parse { path: PathBuf, why: String },
    #[error("{path}: {what:?} of mirror {mirror:?} cannot be used: {why}")]
    Mirror { path: PathBuf, mirror: String, what: String, why: String },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    mirrors: Option<BTreeMap<String, Option<MirrorFile>>>,
    #[serde(default)]
    configs: Option<BTreeMap<String, Option<Config>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MirrorFile {
    #[serde(default)]
    endpoint: Option<Vec<String>>,
    #[serde(default)]
    rewrite: Option<BTreeMap<String, String>>,
}

/// How one registry is used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    auth: Option<Auth>,
    #[serde(default)]
    tls: Option<Tls>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, alias = "identitytoken")]
    identity_token: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Tls {
    #[serde(default)]
    ca_file: String,
    #[serde(default)]
    cert_file: String,
    #[serde(default)]
    key_file: String,
    #[serde(default)]
    insecure_skip_verify: bool,
}

#[derive(Clone, Debug)]
struct Mirror {
    endpoints: Vec<Endpoint>,
    rewrites: Vec<(Regex, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    /// As `configs` names it.
    registry: String,
    url: String,
    /// It has a path of its own, which is no name of a repository.
    own_path: bool,
}

/// What the file says.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    configs: BTreeMap<String, Config>,
}

impl Registries {
    /// No file is an empty one.
    ///
    /// # Errors
    /// When it cannot be read, or is wrong.
    pub fn load(path: &Path) -> Result<Self, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let parsed: Result<Option<File>, _> = serde_saphyr::from_str(text);
        let file = parsed.map_err(|error| {
            // Only where: what stands there may be a password.
            let place = error.location().map(|at| format!("line {}", at.line())).unwrap_or_default();
            Error::Parse { path: path.to_owned(), why: format!("{place} has an unknown key, a wrong type or no YAML") }
        })?;
        let file = file.unwrap_or_default();
        let mut mirrors = BTreeMap::new();
        for (name, mirror) in file.mirrors.into_iter().flatten() {
            let mirror = mirror.unwrap_or_default();
            let bad = |what: &str, why: String| Error::Mirror {
                path: path.to_owned(),
                mirror: name.clone(),
                what: what.to_owned(),
                why,
            };
            let mut endpoints: Vec<Endpoint> = Vec::new();
            for text in mirror.endpoint.iter().flatten() {
                let endpoint = endpoint(text).ok_or_else(|| bad(text, "it is no URL".into()))?;
                if !endpoints.contains(&endpoint) {
                    endpoints.push(endpoint);
                }
            }
            let rewrites = mirror.rewrite.iter().flatten().map(|(pattern, to)| {
                let pattern = Regex::new(pattern).map_err(|error| bad(pattern, error.to_string()))?;
                // `$1x` is the first group and then an x, as in Go only by the longer form.
                Ok((pattern, to.clone()))
            });
            mirrors.insert(name.clone(), Mirror { endpoints, rewrites: rewrites.collect::<Result<_, Error>>()? });
        }
        let configs = file.configs.into_iter().flatten().filter_map(|(name, config)| Some((name, config?))).collect();
        Ok(Self { mirrors, configs })
    }

    /// Directories below `certs.d`, and the text of their `hosts.toml`.
    #[must_use]
    pub fn hosts(&self) -> BTreeMap<String, String> {
        let names = self.mirrors.keys().chain(self.configs.keys());
        let mut files: BTreeMap<String, String> =
            names.filter_map(|name| Some((directory(name), self.file(name)?))).collect();
        // By these an image is pulled from a mirror by its name there.
        let rewriting = self.mirrors.values().filter(|mirror| !mirror.rewrites.is_empty());
        for endpoint in rewriting.flat_map(|mirror| &mirror.endpoints).filter(|endpoint| !endpoint.own_path) {
            files.entry(endpoint.registry.clone()).or_insert_with(|| {
                let mut text = format!("{HEADER}\nserver = {}\n", quoted(&endpoint.url));
                self.tls(&endpoint.registry, "", &mut text);
                text + NO_HOSTS
            });
        }
        files
    }

    fn file(&self, name: &str) -> Option<String> {
        let none = Mirror { endpoints: Vec::new(), rewrites: Vec::new() };
        let mirror = self.mirrors.get(name).unwrap_or(&none);
        let mut text = format!("{HEADER}\n");
        let own = endpoint(name).filter(|_| name != ANY);
        let mut others = mirror.endpoints.as_slice();
        if let Some(own) = &own {
            // The registry itself comes last anyway.
            if let [before @ .., last] = others
                && last.url == own.url
            {
                others = before;
            }
            let _ = writeln!(text, "server = {}", quoted(&own.url));
            text.push_str("capabilities = [\"pull\", \"resolve\", \"push\"]\n");
        }
        let said = text.len();
        self.tls(name, "", &mut text);
        if others.is_empty() && text.len() == said {
            return None;
        }
        if others.is_empty() {
            text.push_str(NO_HOSTS);
        }
        for endpoint in others {
            let _ = writeln!(text, "\n[host.{}]", quoted(&endpoint.url));
            text.push_str("  capabilities = [\"pull\", \"resolve\"]\n");
            if endpoint.own_path {
                text.push_str("  override_path = true\n");
            }
            self.tls(&endpoint.registry, "  ", &mut text);
        }
        Some(text)
    }

    fn config(&self, registry: &str) -> Option<&Config> {
        let other = if registry == HUB { HUB_HOST } else { registry };
        self.configs.get(other).or_else(|| self.configs.get(registry))
    }

    fn tls(&self, registry: &str, indent: &str, text: &mut String) {
        let Some(tls) = self.config(registry).and_then(|config| config.tls.as_ref()) else { return };
        if !tls.ca_file.is_empty() {
            let _ = writeln!(text, "{indent}ca = [{}]", quoted(&tls.ca_file));
        }
        if !tls.cert_file.is_empty() {
            let _ = writeln!(text, "{indent}client = [[{}, {}]]", quoted(&tls.cert_file), quoted(&tls.key_file));
        }
        if tls.insecure_skip_verify {
            let _ = writeln!(text, "{indent}skip_verify = true");
        }
    }

    /// Logins, as containerd's configuration has them.
    #[must_use]
    pub fn logins(&self) -> String {
        let mut text = String::new();
        for (name, config) in &self.configs {
            let Some(auth) = &config.auth else { continue };
            let hub = (name == HUB && !self.configs.contains_key(HUB_HOST)).then_some(HUB_HOST);
            for name in [Some(name.as_str()), hub].into_iter().flatten() {
                let table = format!("plugins.\"io.containerd.grpc.v1.cri\".registry.configs.{}.auth", quoted(name));
                let _ = writeln!(text, "\n[{table}]");
                let fields = [
                    ("username", &auth.username),
                    ("password", &auth.password),
                    ("auth", &auth.auth),
                    ("identitytoken", &auth.identity_token),
                ];
                for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
                    let _ = writeln!(text, "{key} = {}", quoted(value));
                }
            }
        }
        text
    }

    /// The names under which mirrors have an image, when a rewrite changes its name there; in the order to try them.
    /// `registry` and `repository` are those of the image, `rest` its tag or digest with what is before that.
    #[must_use]
    pub fn rewritten(&self, registry: &str, repository: &str, rest: &str) -> Vec<String> {
        let Some(mirror) = self.mirrors.get(registry).or_else(|| self.mirrors.get(ANY)) else { return Vec::new() };
        let Some((pattern, to)) = mirror.rewrites.iter().find(|(pattern, _)| pattern.is_match(repository)) else {
            return Vec::new();
        };
        let path = pattern.replace_all(repository, to.as_str());
        let usable = mirror.endpoints.iter().filter(|endpoint| !endpoint.own_path);
        usable.map(|endpoint| format!("{}/{path}{rest}", endpoint.registry)).collect()
    }
}

fn directory(name: &str) -> String {
    if name == ANY { "_default".into() } else { name.to_owned() }
}

/// As containerd completes it: `https` but for other ports of this machine, and `/v2`.
fn endpoint(text: &str) -> Option<Endpoint> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (Some(scheme), rest),
        Some(_) => return None,
        None => (None, text),
    };
    let (registry, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let legal = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if registry.is_empty() || !registry.chars().all(legal) || path.contains(char::is_whitespace) {
        return None;
    }
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => (host, port),
        _ => (registry, ""),
    };
    let here = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    let scheme = scheme.unwrap_or(if here && !port.is_empty() && port != "443" { "http" } else { "https" });
    let (registry, host) = match registry {
        HUB | HUB_HOST => (HUB, HUB_HOST),
        other => (other, other),
    };
    let own_path = !matches!(path, "" | "/" | "/v2");
    let path = if own_path { path } else { "/v2" };
    Some(Endpoint { registry: registry.to_owned(), url: format!("{scheme}://{host}{path}"), own_path })
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => drop(write!(out, "\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint: ["https://mirror.example.com:5000", "http://10.0.0.1/artifactory/api/docker/hub"]
    rewrite: {"^library/(.*)": "hub/$1"}
  "*":
    endpoint: [local.example.com]
  quay.io:
configs:
  "mirror.example.com:5000":
    auth: {username: u, password: 'p"w\'}
    tls: {ca_file: /ca.pem, cert_file: /c.pem, key_file: /k.pem}
  docker.io:
    auth: {auth: aGk6aG8=}
  insecure.example.com:
    tls: {insecure_skip_verify: true}
"#;

    fn parse(text: &str) -> Result<Registries, Error> {
        Registries::parse(Path::new("r.yaml"), text)
    }

    #[test]
    fn mirrors_become_hosts() {
        let hosts = parse(FILE).expect("a good file").hosts();
        let names: Vec<&str> = hosts.keys().map(String::as_str).collect();
        assert_eq!(names, ["_default", "docker.io", "insecure.example.com", "mirror.example.com:5000"]);
        let expect = format!(
            r#"{HEADER}
server = "https://registry-1.docker.io/v2"
capabilities = ["pull", "resolve", "push"]

[host."https://mirror.example.com:5000/v2"]
  capabilities = ["pull", "resolve"]
  ca = ["/ca.pem"]
  client = [["/c.pem", "/k.pem"]]

[host."http://10.0.0.1/artifactory/api/docker/hub"]
  capabilities = ["pull", "resolve"]
  override_path = true
"#
        );
        assert_eq!(hosts["docker.io"], expect);
        assert!(hosts["_default"].starts_with(&format!("{HEADER}\n\n[host.\"https://local.example.com/v2\"]\n")));
        assert!(hosts["insecure.example.com"].ends_with("skip_verify = true\n\n[host]\n"));
        assert!(hosts.values().all(|text| text.contains("\n[host")));
    }

    #[test]
    fn logins_are_quoted() {
        let logins = parse(FILE).expect("a good file").logins();
        assert!(
            logins.contains(
                "registry.configs.\"mirror.example.com:5000\".auth]\nusername = \"u\"\npassword = \"p\\\"w\\\\\"\n"
            ),
            "{logins}"
        );
        // containerd asks by the host's name.
        assert!(logins.contains("registry.configs.\"registry-1.docker.io\".auth]\nauth = \"aGk6aG8=\"\n"), "{logins}");
    }

    #[test]
    fn names_are_rewritten() {
        let registries = parse(FILE).expect("a good file");
        let found = registries.rewritten("docker.io", "library/busybox", ":1.36");
        assert_eq!(found, ["mirror.example.com:5000/hub/busybox:1.36"]);
        assert!(registries.rewritten("docker.io", "team/app", ":1").is_empty());
        assert!(registries.rewritten("ghcr.io", "library/x", ":1").is_empty(), "its mirror rewrites nothing");
    }

    #[test]
    fn a_wrong_file_is_refused_without_its_secrets() {
        for bad in [
            "mirrors: {a.io: {endpoints: [x]}}",
            "configs: {a.io: {auth: {username: [geheim]}}}",
            "mirrors: {a.io: {endpoint: ['ftp://x']}}",
            "mirrors: {a.io: {rewrite: {'(': x}}}",
            "{",
        ] {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("geheim") && error.starts_with("r.yaml"), "{error}");
        }
        assert!(parse("").expect("an empty file").hosts().is_empty());
        assert!(Registries::load(Path::new("/nonexistent/registries.yaml")).is_ok());
    }

    #[test]
    fn endpoints_are_completed_as_containerd_does() {
        let url = |text: &str| endpoint(text).map(|e| (e.url, e.own_path));
        assert_eq!(url("docker.io"), Some(("https://registry-1.docker.io/v2".into(), false)));
        assert_eq!(url("localhost:5000"), Some(("http://localhost:5000/v2".into(), false)));
        assert_eq!(url("127.0.0.1:443"), Some(("https://127.0.0.1:443/v2".into(), false)));
        assert_eq!(url("http://a/v2"), Some(("http://a/v2".into(), false)));
        assert_eq!(url("https://a/b"), Some(("https://a/b".into(), true)));
        assert_eq!(url(""), None);
    }
}
