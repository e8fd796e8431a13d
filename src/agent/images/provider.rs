//! Effects: credential provider plug-ins: programs that know logins for registries
//! (`kubelet.config.k8s.io/v1` CredentialProviderConfig, `credentialprovider.kubelet.k8s.io/v1`, KEP-2133). A plug-in is
//! asked through its standard input, and says itself how long its answer holds and for which images.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::registry_auth;
use crate::clock;
use crate::cri::v1::AuthConfig;

/// How long a plug-in may take.
const PLUGIN_TIME: Duration = Duration::from_secs(60);
/// Its answer, and its complaints, in bytes.
const ANSWER_MAX: u64 = 1024 * 1024;
const COMPLAINT_MAX: u64 = 4096;
/// Answers that are kept at most, by plug-in.
const KEPT: usize = 256;
const API_VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";
const CONFIG_VERSION: &str = "kubelet.config.k8s.io/v1";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no CredentialProviderConfig: {why}")]
    Config { path: PathBuf, why: String },
    #[error("cannot run credential provider {program}")]
    Run { program: PathBuf, source: std::io::Error },
    #[error("credential provider {program} did not answer within {}s", PLUGIN_TIME.as_secs())]
    Slow { program: PathBuf },
    #[error("credential provider {program} failed ({status}): {complaint}")]
    Failed { program: PathBuf, status: String, complaint: String },
    /// What it said may hold a password.
    #[error("the answer of credential provider {program} is no CredentialProviderResponse of {API_VERSION}")]
    Answer { program: PathBuf },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    providers: Vec<Provider>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provider {
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    default_cache_duration: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    #[serde(default)]
    token_attributes: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: String,
    kind: String,
    cache_key_type: String,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Login>>,
}

#[derive(Clone, Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

type Logins = BTreeMap<String, Login>;

struct Plugin {
    provider: Provider,
    program: PathBuf,
    default_time: Duration,
    /// By image, registry or nothing, as the plug-in wants it. Held while it runs: who asks meanwhile shares the answer.
    kept: Mutex<HashMap<String, (Logins, Instant)>>,
}

/// The plug-ins of this node, in the order of their file.
#[derive(Default)]
pub struct Providers(Vec<Plugin>);

impl Providers {
    /// Reads the configuration; the programs are in `directory`.
    ///
    /// # Errors
    /// When it cannot be read, or is wrong.
    pub fn load(path: &Path, directory: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let wrong = |why: String| Error::Config { path: path.to_owned(), why };
        let config: Config = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if config.kind != "CredentialProviderConfig" || config.api_version != CONFIG_VERSION {
            return Err(wrong(format!("it must be of kind CredentialProviderConfig of {CONFIG_VERSION}")));
        }
        let mut plugins: Vec<Plugin> = Vec::new();
        for provider in config.providers {
            let name = &provider.name;
            let why = if name.is_empty() || name.contains(['/', ' ']) || name == "." || name == ".." {
                Some("is no name of a program".to_owned())
            } else if plugins.iter().any(|known| known.provider.name == *name) {
                Some("is there twice".to_owned())
            } else if provider.match_images.is_empty() {
                Some("has no matchImages".to_owned())
            } else if provider.api_version != API_VERSION {
                Some(format!("has apiVersion {:?}: it must be {API_VERSION}", provider.api_version))
            } else if provider.token_attributes.is_some() {
                Some("has tokenAttributes: service account tokens are not given to plug-ins here".to_owned())
            } else {
                None
            };
            if let Some(why) = why {
                return Err(wrong(format!("provider {name:?} {why}")));
            }
            let default_time = duration(&provider.default_cache_duration)
                .ok_or_else(|| wrong(format!("provider {name:?}: defaultCacheDuration must be like 12h or 30m")))?;
            let program = directory.join(name);
            plugins.push(Plugin { provider, program, default_time, kept: Mutex::default() });
        }
        Ok(Self(plugins))
    }

    /// Every login for an image, the closest of each plug-in first. A plug-in that fails has none.
    pub async fn logins(&self, image: &str) -> Vec<AuthConfig> {
        let mut found = Vec::new();
        for plugin in &self.0 {
            if !plugin.provider.match_images.iter().any(|pattern| registry_auth::fits_image(pattern, image)) {
                continue;
            }
            match plugin.logins(image).await {
                Ok(logins) => {
                    let login =
                        |l: Login| AuthConfig { username: l.username, password: l.password, ..AuthConfig::default() };
                    found.extend(registry_auth::closest(logins, image).into_iter().map(login));
                }
                Err(error) => {
                    let error = crate::supervisor::chain(&error);
                    tracing::warn!(error, image, "no login from a credential provider");
                }
            }
        }
        found
    }
}

impl Plugin {
    async fn logins(&self, image: &str) -> Result<Logins, Error> {
        let mut kept = self.kept.lock().await;
        let now = clock::instant();
        let registry = image.split('/').next().unwrap_or_default();
        for key in [image, registry, ""] {
            if let Some((logins, _)) = kept.get(key).filter(|(_, until)| *until > now) {
                return Ok(logins.clone());
            }
        }
        let answer = self.ask(image).await?;
        let bad = || Error::Answer { program: self.program.clone() };
        let key = match answer.cache_key_type.as_str() {
            "Image" => image,
            "Registry" => registry,
            "Global" => "",
            _ => return Err(bad()),
        };
        let time = match &answer.cache_duration {
            Some(text) => duration(text).ok_or_else(bad)?,
            None => self.default_time,
        };
        let logins = answer.auth.unwrap_or_default();
        if !time.is_zero() {
            if kept.len() >= KEPT {
                kept.retain(|_, (_, until)| *until > now);
            }
            if kept.len() >= KEPT {
                kept.clear();
            }
            kept.insert(key.to_owned(), (logins.clone(), clock::instant() + time));
        }
        Ok(logins)
    }

    async fn ask(&self, image: &str) -> Result<Answer, Error> {
        let program = || self.program.clone();
        let failed = |source| Error::Run { program: program(), source };
        let request = json!({"kind": "CredentialProviderRequest", "apiVersion": API_VERSION, "image": image});
        let mut command = Command::new(&self.program);
        command
            .args(self.provider.args.iter().flatten())
            .envs(self.provider.env.iter().flatten().map(|v| (&v.name, &v.value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let (input, output, complaints) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut input) = input {
                // One that does not care what the image is may be gone before it reads.
                let _ = input.write_all(request.to_string().as_bytes()).await;
            }
        };
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let read = async {
            match output {
                Some(output) => output.take(ANSWER_MAX).read_to_end(&mut said).await.map(drop),
                None => Ok(()),
            }
        };
        let complain = async {
            match complaints {
                Some(complaints) => complaints.take(COMPLAINT_MAX).read_to_end(&mut complained).await.map(drop),
                None => Ok(()),
            }
        };
        let ended = async {
            let ((), read, _) = tokio::join!(write, read, complain);
            read?;
            child.wait().await
        };
        let status = match tokio::time::timeout(PLUGIN_TIME, ended).await {
            Ok(status) => status.map_err(failed)?,
            Err(_) => return Err(Error::Slow { program: program() }),
        };
        if !status.success() {
            let complaint = String::from_utf8_lossy(&complained).trim().to_owned();
            return Err(Error::Failed { program: program(), status: status.to_string(), complaint });
        }
        let answer: Result<Answer, _> = serde_json::from_slice(&said);
        let answer = answer.ok().filter(|a| a.kind == "CredentialProviderResponse" && a.api_version == API_VERSION);
        answer.ok_or_else(|| Error::Answer { program: program() })
    }
}

/// Go's durations, as far as anyone writes them: `12h`, `1h30m`, `0s`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let count: f64 = rest[..end].parse().ok()?;
        let unit = &rest[end..];
        let length = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        total += count
            * match &unit[..length] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &unit[length..];
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A plug-in that counts how often it is asked.
    fn plugin(directory: &Path, key: &str, time: &str, more: &str) -> Providers {
        let script = format!(
            "#!/bin/sh\necho x >> {count}\nread request\ncase $request in *$WANTED*) ;; *) echo who is that >&2; exit 3;; esac\n{more}\n\
             echo '{{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"{API_VERSION}\",\"cacheKeyType\":\"{key}\",\
             \"cacheDuration\":\"{time}\",\"auth\":{{\"*.example.com\":{{\"username\":\"u\",\"password\":\"p\"}},\
             \"r.example.com/team\":{{\"username\":\"team\",\"password\":\"t\"}}}}}}'\n",
            count = directory.join("count").display()
        );
        let program = directory.join("helper");
        std::fs::write(&program, script).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("made executable");
        let config = format!(
            "apiVersion: {CONFIG_VERSION}\nkind: CredentialProviderConfig\nproviders:\n- name: helper\n  \
             matchImages: ['*.example.com']\n  defaultCacheDuration: 1h\n  apiVersion: {API_VERSION}\n  \
             env: [{{name: WANTED, value: example}}]\n"
        );
        let path = directory.join("config.yaml");
        std::fs::write(&path, config).expect("written");
        Providers::load(&path, directory).expect("a good configuration")
    }

    async fn check(key: &str, time: &str, images: &[(&str, &[&str])], asked: usize) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let providers = plugin(directory.path(), key, time, "");
        for (image, expect) in images {
            let users: Vec<String> = providers.logins(image).await.into_iter().map(|l| l.username).collect();
            assert_eq!(users, *expect, "{image}");
        }
        let count = std::fs::read_to_string(directory.path().join("count")).unwrap_or_default();
        assert_eq!(count.lines().count(), asked, "{key} {time}");
    }

    #[tokio::test]
    async fn answers_are_kept_as_the_plug_in_says() {
        let (a, team) = (("r.example.com/a:1", &["u"][..]), ("r.example.com/team/b:1", &["team", "u"][..]));
        let (other, none) = (("s.example.com/a:1", &["u"][..]), ("quay.io/a:1", &[][..]));
        check("Image", "1h", &[a, a, team, none], 2).await;
        check("Registry", "1h", &[a, team, other], 2).await;
        check("Global", "1h", &[a, team, other], 1).await;
        check("Global", "0s", &[a, a], 2).await;
        check("Nothing", "1h", &[("r.example.com/a:1", &[])], 1).await;
    }

    #[tokio::test]
    async fn a_plug_in_that_fails_has_no_logins() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let providers = plugin(directory.path(), "Image", "1h", "echo no idea >&2; exit 2");
        assert!(providers.logins("r.example.com/a").await.is_empty());
        let error = providers.0[0].logins("r.example.com/a").await.err().expect("it fails").to_string();
        assert!(error.ends_with("failed (exit status: 2): no idea"), "{error}");
        let providers = plugin(directory.path(), "Image", "1h", "echo secret; exit 0");
        let error = providers.0[0].logins("r.example.com/a").await.err().expect("it fails").to_string();
        assert!(!error.contains("secret"), "{error}");
        std::fs::remove_file(directory.path().join("helper")).expect("removed");
        assert!(providers.logins("r.example.com/b").await.is_empty());
    }

    #[test]
    fn wrong_configurations_are_refused() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("config.yaml");
        for provider in [
            "{name: a/b, matchImages: [x], defaultCacheDuration: 1h, apiVersion: credentialprovider.kubelet.k8s.io/v1}",
            "{name: a, matchImages: [], defaultCacheDuration: 1h, apiVersion: credentialprovider.kubelet.k8s.io/v1}",
            "{name: a, matchImages: [x], defaultCacheDuration: soon, apiVersion: credentialprovider.kubelet.k8s.io/v1}",
            "{name: a, matchImages: [x], defaultCacheDuration: 1h, apiVersion: v2}",
        ] {
            let text =
                format!("apiVersion: {CONFIG_VERSION}\nkind: CredentialProviderConfig\nproviders: [{provider}]\n");
            std::fs::write(&path, text).expect("written");
            assert!(Providers::load(&path, directory.path()).is_err(), "{provider}");
        }
        assert!(Providers::load(Path::new("/nonexistent"), directory.path()).is_err());
    }

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [("12h", 43_200), ("1h30m", 5400), ("0s", 0), ("0", 0), ("1500ms", 1)] {
            assert_eq!(duration(text).map(|d| d.as_secs()), Some(seconds), "{text}");
        }
        for bad in ["", "x", "5", "-1s", "1d"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
