//! Effects and decides: pods that lie as manifests in a folder of this node and run whatever the API says. The folder is
//! watched, never polled. A manifest that makes no sense is named in the log, and the others run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Toleration};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::mirror::{HASH, SEEN, SOURCE};
use super::objects::Kind;
use super::pod::{containers, env, pod_spec};
use crate::clock;
use crate::inotify::{Flags, Watcher};

/// A writer that is still at work sends several events; the folder is read when they pause.
const SETTLE: Duration = Duration::from_millis(200);
/// A manifest may be this large, in bytes, as an object in the API may.
const MANIFEST_BYTES: u64 = 1_500_000;

pub struct StaticPods {
    directory: PathBuf,
    node_name: String,
    /// `None` when there is no folder to watch.
    watcher: Option<Watcher>,
    settled_at: Option<Instant>,
    /// What was complained of, by file: it is said once.
    problems: BTreeMap<PathBuf, String>,
}

impl StaticPods {
    /// Makes the folder when there is none.
    #[must_use]
    pub fn new(directory: &Path, node_name: &str) -> StaticPods {
        let watch = || -> std::io::Result<Watcher> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let watcher = Watcher::new()?;
            let changes = Flags::IN_CLOSE_WRITE | Flags::IN_MOVED_TO | Flags::IN_MOVED_FROM | Flags::IN_DELETE;
            watcher.add(directory, changes)?;
            Ok(watcher)
        };
        let watcher = watch();
        if let Err(error) = &watcher {
            tracing::warn!(%error, directory = %directory.display(), "no static pods: the folder cannot be watched");
        }
        StaticPods {
            directory: directory.to_owned(),
            node_name: node_name.to_owned(),
            watcher: watcher.ok(),
            settled_at: None,
            problems: BTreeMap::new(),
        }
    }

    /// Ends when the folder should be read again. May be dropped and called again.
    pub async fn changed(&mut self) {
        let Some(watcher) = &self.watcher else { return std::future::pending().await };
        if self.settled_at.is_none() {
            if let Err(error) = watcher.changed().await {
                tracing::warn!(%error, directory = %self.directory.display(), "static pods are not followed any more");
                self.watcher = None;
                return;
            }
            self.settled_at = Some(clock::instant() + SETTLE);
        }
        if let Some(at) = self.settled_at {
            tokio::time::sleep_until(at).await;
        }
        self.settled_at = None;
    }

    /// The pods that lie there now. Of two of the same name the one of the first file runs.
    pub fn read(&mut self) -> Vec<Pod> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.is_file() && !is_hidden(file));
        files.sort();
        let (mut pods, mut names, mut problems) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        for file in files {
            match read(&file, &self.node_name) {
                Ok(pod) if names.insert((pod.metadata.namespace.clone(), pod.metadata.name.clone())) => pods.push(pod),
                Ok(pod) => {
                    let name = pod.metadata.name.unwrap_or_default();
                    problems.insert(file, format!("another manifest has a pod {name:?} already"));
                }
                Err(problem) => {
                    problems.insert(file, problem);
                }
            }
        }
        for (file, problem) in problems.iter().filter(|(file, problem)| self.problems.get(*file) != Some(*problem)) {
            tracing::error!(file = %file.display(), problem, "static pod not run: could not process manifest file");
        }
        self.problems = problems;
        pods
    }
}

fn is_hidden(file: &Path) -> bool {
    file.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'))
}

fn read(file: &Path, node_name: &str) -> Result<Pod, String> {
    let mut text = String::new();
    let open = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let read = open.take(MANIFEST_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if read as u64 > MANIFEST_BYTES {
        return Err(format!("larger than {MANIFEST_BYTES} bytes"));
    }
    parse(&text, file, node_name)
}

/// A manifest as the pod that runs on this node.
fn parse(text: &str, file: &Path, node_name: &str) -> Result<Pod, String> {
    // JSON is YAML.
    let mut manifest: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if manifest["apiVersion"] != "v1" || manifest["kind"] != "Pod" {
        return Err("not a Pod of apiVersion v1".into());
    }
    if let Some(pod) = manifest.as_object_mut() {
        pod.remove("status");
    }
    let written = manifest.to_string();
    let mut pod: Pod = serde_json::from_value(manifest).map_err(|error| error.to_string())?;
    check(&pod)?;
    let own = pod.metadata.uid.take().filter(|uid| !uid.is_empty());
    let hash = own.unwrap_or_else(|| {
        let digest = Sha256::digest(format!("host:{node_name}\0file:{}\0{written}", file.display()));
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    });
    default(&mut pod);
    let metadata = &mut pod.metadata;
    metadata.name = metadata.name.as_ref().map(|name| format!("{name}-{}", node_name.to_lowercase()));
    metadata.namespace.get_or_insert_with(|| "default".into());
    metadata.uid = Some(hash.clone());
    (metadata.resource_version, metadata.creation_timestamp, metadata.deletion_timestamp) = (None, None, None);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(HASH.into(), hash);
    annotations.insert(SOURCE.into(), "file".into());
    annotations.insert(SEEN.into(), clock::now().to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    // Whatever is wrong with the node, it stays.
    let stays =
        Toleration { operator: Some("Exists".into()), effect: Some("NoExecute".into()), ..Toleration::default() };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&stays) {
        tolerations.push(stays);
    }
    Ok(pod)
}

/// What the API would refuse, as far as running the pod depends on it.
fn check(pod: &Pod) -> Result<(), String> {
    if pod.metadata.name.as_deref().unwrap_or_default().is_empty() {
        return Err("invalid pod: name is needed for the pod".into());
    }
    let spec = pod_spec(pod);
    if spec.containers.is_empty() {
        return Err("invalid pod: spec.containers: Required value".into());
    }
    let mut names = BTreeSet::new();
    for (_, container) in containers(pod) {
        let name = &container.name;
        let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 63 || !name.chars().all(is_label) {
            return Err(format!("invalid pod: {name:?} is not a name for a container"));
        }
        if !names.insert(name) {
            return Err(format!("invalid pod: two containers are called {name:?}"));
        }
        if container.image.as_deref().unwrap_or_default().is_empty() {
            return Err(format!("invalid pod: container {name:?} has no image"));
        }
    }
    match api_reference(pod) {
        Some(resource) => Err(format!("static pods may not reference {resource}")),
        None => Ok(()),
    }
}

/// Objects of the API that the pod needs: it must run without.
fn api_reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod_spec(pod);
    let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if is_set(&spec.service_account_name) || is_set(&spec.service_account) {
        return Some("serviceaccounts");
    }
    let of_env = containers(pod).flat_map(|(_, container)| env::references(container)).map(|(kind, _)| match kind {
        Kind::Secret => "secrets",
        Kind::ConfigMap => "configmaps",
    });
    let of_volumes = spec.volumes.iter().flatten().filter_map(|volume| {
        let sources = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
        let mut sources = sources.into_iter().flatten();
        match volume {
            v if v.secret.is_some() => Some("secrets"),
            v if v.config_map.is_some() => Some("configmaps"),
            v if v.persistent_volume_claim.is_some() || v.ephemeral.is_some() => Some("persistentvolumeclaims"),
            _ => sources.find_map(|source| match source {
                s if s.secret.is_some() => Some("secrets"),
                s if s.config_map.is_some() => Some("configmaps"),
                s if s.service_account_token.is_some() => Some("serviceaccounts"),
                s if s.cluster_trust_bundle.is_some() => Some("clustertrustbundles"),
                _ => None,
            }),
        }
    });
    let pulls = spec.image_pull_secrets.as_ref().is_some_and(|secrets| !secrets.is_empty());
    let claims = spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty());
    let others = [pulls.then_some("secrets"), claims.then_some("resourceclaims")].into_iter().flatten();
    of_env.chain(of_volumes).chain(others).next()
}

/// What the API sets where a manifest says nothing, as far as the agent looks at it.
fn default(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".into());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_default();
    let host_network = spec.host_network == Some(true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
        container.termination_message_policy.get_or_insert_with(|| "File".into());
        for port in container.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".into());
            if host_network {
                port.host_port.get_or_insert(port.container_port);
            }
        }
        let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
        for probe in probes.into_iter().flatten() {
            probe.timeout_seconds.get_or_insert(1);
            probe.period_seconds.get_or_insert(10);
            probe.success_threshold.get_or_insert(1);
            probe.failure_threshold.get_or_insert(3);
        }
        if let Some(resources) = &mut container.resources {
            let mut requests = resources.limits.clone().unwrap_or_default();
            requests.extend(resources.requests.take().unwrap_or_default());
            resources.requests = (!requests.is_empty()).then_some(requests);
        }
    }
}

/// For tests here and of the mirrors.
#[cfg(test)]
pub(super) fn manifest(name: &str, image: &str) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "web", "image": image}]}})
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(manifest: &Value) -> Result<Pod, String> {
        parse(&manifest.to_string(), Path::new("/m/web.yaml"), "Node1")
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let pod = parsed(&manifest("web", "a:1")).expect("valid");
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node1"));
        let uid = pod.metadata.uid.clone().expect("made");
        assert_eq!(uid.len(), 32);
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        assert_eq!((annotations[HASH].as_str(), annotations[SOURCE].as_str()), (uid.as_str(), "file"));
        let spec = pod.spec.expect("there");
        assert_eq!((spec.node_name.as_deref(), spec.restart_policy.as_deref()), (Some("Node1"), Some("Always")));
        assert_eq!(spec.tolerations.map(|all| all.len()), Some(1));
        assert_ne!(parsed(&manifest("web", "a:2")).expect("valid").metadata.uid, Some(uid), "another one");
    }

    #[test]
    fn what_cannot_run_by_itself_is_refused() {
        let with = |path: &str, value: Value| {
            let mut pod = manifest("web", "a:1");
            *pod.pointer_mut(path).expect("there") = value;
            parsed(&pod).expect_err("refused")
        };
        assert_eq!(with("/kind", json!("Deployment")), "not a Pod of apiVersion v1");
        assert_eq!(with("/metadata/name", json!("")), "invalid pod: name is needed for the pod");
        assert_eq!(with("/spec/containers", json!([])), "invalid pod: spec.containers: Required value");
        assert_eq!(
            with("/spec/containers/0/name", json!("../x")),
            "invalid pod: \"../x\" is not a name for a container"
        );
        assert_eq!(with("/spec/containers/0/image", json!("")), "invalid pod: container \"web\" has no image");
        let container = |env: Value| json!([{"name": "c", "image": "i", "envFrom": [env]}]);
        let secret = with("/spec/containers", container(json!({"secretRef": {"name": "s"}})));
        assert_eq!(secret, "static pods may not reference secrets");
        let volumes = |volume: Value| json!({"containers": [{"name": "c", "image": "i"}], "volumes": [volume]});
        let claim = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
        assert_eq!(with("/spec", volumes(claim)), "static pods may not reference persistentvolumeclaims");
        let account = json!({"serviceAccountName": "x", "containers": [{"name": "c", "image": "i"}]});
        assert_eq!(with("/spec", account), "static pods may not reference serviceaccounts");
        assert!(parse("a: [", Path::new("/m"), "n").is_err());
    }

    #[tokio::test]
    async fn the_folder_is_made_read_and_watched() {
        let root = tempfile::tempdir().expect("temporary directory");
        let directory = root.path().join("agent/pod-manifests");
        let mut pods = StaticPods::new(&directory, "n1");
        assert_eq!(pods.read().len(), 0);
        std::fs::write(directory.join("a.json"), manifest("web", "a:1").to_string()).expect("written");
        pods.changed().await;
        std::fs::write(directory.join("b.yaml"), "kind: Pod\n").expect("written");
        std::fs::write(directory.join("c.yaml"), manifest("web", "another:1").to_string()).expect("written");
        std::fs::write(directory.join(".hidden"), manifest("hidden", "a:1").to_string()).expect("written");
        let found = pods.read();
        assert_eq!(found.len(), 1, "the first of two of the same name");
        assert_eq!(pod_spec(&found[0]).containers[0].image.as_deref(), Some("a:1"));
        assert_eq!(pods.problems.len(), 2);
        pods.changed().await;
        std::fs::remove_file(directory.join("a.json")).expect("removed");
        pods.changed().await;
        assert_eq!(pod_spec(&pods.read()[0]).containers[0].image.as_deref(), Some("another:1"));
    }
}
