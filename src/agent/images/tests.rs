//! Stories of pulls, with a registry and an API in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::agent::fake_api::FakeApi;
use crate::agent::pod::table::PodTable;

const PRIVATE: &str = "r.io/team/private:1";

/// Images that are here, and those that the registry has with the password each wants.
#[derive(Default)]
struct Registry {
    here: Mutex<BTreeMap<String, Image>>,
    there: BTreeMap<&'static str, Option<&'static str>>,
    calls: Mutex<Vec<String>>,
    failure: Option<&'static str>,
    under_way: Mutex<(usize, usize)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}

#[async_trait]
impl cri::Images for Registry {
    async fn images(&self) -> cri::Result<Vec<Image>> {
        Ok(lock(&self.here).values().cloned().collect())
    }

    async fn image(&self, reference: &str) -> cri::Result<Option<Image>> {
        let here = lock(&self.here);
        Ok(here.get(reference).or_else(|| here.values().find(|image| image.id == reference)).cloned())
    }

    async fn pull(
        &self,
        reference: &str,
        auth: Option<v1::AuthConfig>,
        _sandbox: Option<&v1::PodSandboxConfig>,
    ) -> cri::Result<String> {
        let password = auth.map(|auth| auth.password);
        lock(&self.calls).push(format!("{reference} {}", password.as_deref().unwrap_or("-")));
        {
            let mut under_way = lock(&self.under_way);
            under_way.0 += 1;
            under_way.1 = under_way.1.max(under_way.0);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        lock(&self.under_way).0 -= 1;
        let failed = |message: &str| Err(cri::Error::Failed { call: "PullImage", message: message.into() });
        if let Some(failure) = self.failure {
            return failed(failure);
        }
        match self.there.get(reference) {
            None => failed("rpc error: code = NotFound desc = not found"),
            Some(wanted) if wanted.is_some() && *wanted != password.as_deref() => {
                failed("rpc error: code = Unknown desc = 401")
            }
            Some(_) => {
                let id = format!("sha256:{reference}");
                let image = Image { id: id.clone(), tags: vec![reference.into()], size_bytes: 7, ..Image::default() };
                lock(&self.here).insert(reference.into(), image);
                Ok(id)
            }
        }
    }

    async fn remove_image(&self, reference: &str) -> cri::Result<()> {
        lock(&self.here).remove(reference);
        Ok(())
    }

    async fn rename(&self, from: &str, to: &str) -> cri::Result<()> {
        let mut here = lock(&self.here);
        let image = here.remove(from).expect("it was pulled");
        here.insert(to.to_owned(), image);
        Ok(())
    }

    async fn directory(&self) -> cri::Result<std::path::PathBuf> {
        Ok("/".into())
    }

    async fn image_bytes(&self) -> cri::Result<u64> {
        Ok(0)
    }
}

struct Story {
    registry: Arc<Registry>,
    puller: Arc<Puller>,
    objects: Objects,
    api: FakeApi,
    events: Recorder,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    directory: tempfile::TempDir,
}

impl Story {
    fn new(registry: Registry, settings: ImageSettings) -> Story {
        let directory = tempfile::tempdir().expect("temporary directory");
        let api = FakeApi::default();
        let (events, writer) = crate::agent::events::new(api.client(), "n1");
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(stop.clone()));
        let registry = Arc::new(registry);
        let puller = Arc::new(Puller::new(registry.clone(), settings, directory.path()));
        Story {
            objects: Objects::new(api.client(), PodTable::default()),
            registry,
            puller,
            api,
            events,
            tasks,
            stop,
            directory,
        }
    }

    fn of(there: &[(&'static str, Option<&'static str>)]) -> Story {
        let registry = Registry { there: there.iter().copied().collect(), ..Registry::default() };
        Story::new(registry, nowhere())
    }

    fn secret(&self, name: &str, password: &str) {
        let config = json!({"auths": {"r.io": {"username": "u", "password": password}}});
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")},
            "data": {".dockerconfigjson": STANDARD.encode(config.to_string())},
        });
        self.api.put(&format!("/api/v1/namespaces/ns/secrets/{name}"), object);
    }

    async fn ensure(&self, image: &str, policy: &str, secrets: &[&str]) -> Result<Image, Error> {
        let container = json!({"name": "c", "image": image, "imagePullPolicy": policy});
        let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [container], "imagePullSecrets": secrets},
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let (container, sandbox) = (&pod_spec(&pod).containers[0], v1::PodSandboxConfig::default());
        let wanted = Wanted { pod: &pod, role: Role::App, container, sandbox: &sandbox };
        self.puller.ensure(&wanted, &self.objects, &self.events).await
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.registry.calls))
    }

    /// Everything that was told until now.
    async fn events(mut self) -> Vec<String> {
        // The writer takes what is queued before it looks at the stop.
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.api.events()
    }
}

fn nowhere() -> ImageSettings {
    ImageSettings { registries: "/nonexistent/registries.yaml".into(), ..ImageSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn policies_decide_when_to_pull() {
    let story = Story::of(&[("r.io/a:1", None)]);
    let never = story.ensure("r.io/a:1", "Never", &[]).await.expect_err("it is not here");
    assert_eq!((never.reason(), story.calls().len()), ("ErrImageNeverPull", 0));
    story.ensure("r.io/a:1", "IfNotPresent", &[]).await.expect("pulled");
    story.ensure("r.io/a:1", "IfNotPresent", &[]).await.expect("here");
    story.ensure("r.io/a:1", "Never", &[]).await.expect("here");
    assert_eq!(story.calls(), ["r.io/a:1 -"]);
    story.ensure("r.io/a:1", "Always", &[]).await.expect("pulled again");
    assert_eq!(story.calls().len(), 1);
    let bad = story.ensure("r.io/A:1", "Always", &[]).await.expect_err("no name");
    assert_eq!(bad.reason(), "InvalidImageName");
    let text = "Failed to apply default image tag \"r.io/A:1\": couldn't parse image name \"r.io/A:1\": invalid reference format: repository name (A) must be lowercase";
    assert_eq!(bad.to_string(), text);
    let told = story.events().await;
    for expect in [
        "Pulling: Pulling image \"r.io/a:1\"",
        "Pulled: Successfully pulled image \"r.io/a:1\" in 1s (1s including waiting). Image size: 7 bytes.",
        "Pulled: Container image \"r.io/a:1\" already present on machine and can be accessed by the pod",
        "ErrImageNeverPull: Container image \"r.io/a:1\" is not present with pull policy of Never",
        "Failed: Error: InvalidImageName",
    ] {
        assert!(told.iter().any(|event| event == expect), "{expect} is not in {told:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_of_somebodys_login_is_not_for_others() {
    let story = Story::of(&[(PRIVATE, Some("right"))]);
    story.secret("right", "right");
    story.secret("same", "right");
    story.secret("wrong", "wrong");
    let refused = story.ensure(PRIVATE, "IfNotPresent", &["wrong"]).await.expect_err("the wrong login");
    assert_eq!(refused.reason(), "ErrImagePull");
    story.ensure(PRIVATE, "IfNotPresent", &["wrong", "right"]).await.expect("one of them is right");
    assert_eq!(story.calls(), [format!("{PRIVATE} wrong"), format!("{PRIVATE} wrong"), format!("{PRIVATE} right")]);
    story.ensure(PRIVATE, "IfNotPresent", &["same"]).await.expect("the same login");
    assert!(story.calls().is_empty(), "it is here, and may be used");
    story.ensure(PRIVATE, "IfNotPresent", &[]).await.expect_err("without a login it cannot be pulled");
    let never = story.ensure(PRIVATE, "Never", &["wrong"]).await.expect_err("nor used");
    assert_eq!(never.reason(), "ErrImageNeverPull");
    // The next agent knows it too.
    let next = Puller::new(story.registry.clone(), nowhere(), story.directory.path());
    assert!(next.pulled.must_pull(PRIVATE, "r.io/team/private", &format!("sha256:{PRIVATE}"), &[]));
}

#[tokio::test(start_paused = true)]
async fn what_lay_here_before_is_for_all() {
    let story = Story::of(&[]);
    let image = Image { id: "sha256:x".into(), ..Image::default() };
    lock(&story.registry.here).insert("r.io/imported:1".into(), image);
    story.ensure("r.io/imported:1", "Never", &[]).await.expect("imported");
    assert!(story.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_runtimes_reasons_are_shown() {
    for (said, reason, message) in [
        (
            "rpc error: code = Unknown desc = RegistryUnavailable: pulling: connection refused",
            "RegistryUnavailable",
            "image pull failed for r.io/a:1 because the registry is unavailable: pulling: connection refused",
        ),
        (
            "SignatureValidationFailed: no signature",
            "SignatureValidationFailed",
            "image pull failed for r.io/a:1 because the signature validation failed: no signature",
        ),
        ("rpc error: code = NotFound desc = no", "ErrImagePull", "rpc error: code = NotFound desc = no"),
    ] {
        let story = Story::new(Registry { failure: Some(said), ..Registry::default() }, nowhere());
        let error = story.ensure("r.io/a:1", "Always", &[]).await.expect_err("it fails");
        assert_eq!((error.reason(), error.to_string().as_str()), (reason, message));
        assert!(is_pull_failure(error.reason()));
        let told = story.events().await;
        assert!(told.contains(&format!("Failed: Error: {reason}")), "{told:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_so_many_pulls_are_under_way() {
    for (limit, expect) in [(Some(1), 1), (Some(2), 2), (None, 5)] {
        let there = ["r.io/a:1", "r.io/b:1", "r.io/c:1", "r.io/d:1", "r.io/e:1"];
        let registry = Registry { there: there.map(|name| (name, None)).into(), ..Registry::default() };
        let story = Story::new(registry, ImageSettings { max_parallel_pulls: limit, ..nowhere() });
        let pulls = there.map(|image| story.ensure(image, "Always", &[]));
        assert!(futures::future::join_all(pulls).await.iter().all(Result::is_ok));
        assert_eq!(lock(&story.registry.under_way).1, expect, "{limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mirror_with_other_names_gives_the_image_its_own() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("registries.yaml");
    let text =
        "mirrors: {docker.io: {endpoint: ['http://away:5000', 'http://m:5000'], rewrite: {'^library/(.*)': 'hub/$1'}}}";
    std::fs::write(&file, text).expect("written");
    let registry = Registry { there: [("m:5000/hub/busybox:1", None)].into(), ..Registry::default() };
    let story = Story::new(registry, ImageSettings { registries: file, ..nowhere() });
    // The runtime knows it by its whole name, and CRI completes what pods write.
    let name = "docker.io/library/busybox:1";
    let image = story.ensure(name, "IfNotPresent", &[]).await.expect("pulled");
    assert_eq!(image.id, "sha256:m:5000/hub/busybox:1");
    assert_eq!(story.calls(), ["away:5000/hub/busybox:1 -", "m:5000/hub/busybox:1 -"]);
    assert_eq!(lock(&story.registry.here).keys().collect::<Vec<_>>(), [name]);
}

#[tokio::test]
async fn plug_ins_know_logins() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| directory.path().join(name);
    let answer = json!({
        "kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType": "Registry", "auth": {"r.io": {"username": "u", "password": "right"}},
    });
    let script = format!("#!/bin/sh\ncat > /dev/null\necho '{answer}'\n");
    std::fs::write(path("helper"), script).expect("written");
    std::fs::set_permissions(path("helper"), std::fs::Permissions::from_mode(0o755)).expect("made executable");
    let config = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: helper\n  \
                  matchImages: [r.io]\n  defaultCacheDuration: 1h\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n";
    std::fs::write(path("config.yaml"), config).expect("written");
    let settings = ImageSettings {
        provider_config: Some(path("config.yaml")),
        provider_directory: directory.path().into(),
        ..nowhere()
    };
    let registry = Registry { there: [(PRIVATE, Some("right"))].into(), ..Registry::default() };
    let story = Story::new(registry, settings);
    story.ensure(PRIVATE, "IfNotPresent", &[]).await.expect("the plug-in's login is right");
    story.ensure(PRIVATE, "IfNotPresent", &[]).await.expect("any pod of the node could have pulled it");
    assert_eq!(story.calls(), [format!("{PRIVATE} right")]);
}

#[test]
fn policies_by_name() {
    let container = |policy: &str| Container { image_pull_policy: Some(policy.into()), ..Container::default() };
    let parse = |image: &str| Reference::parse(image).expect(image);
    assert_eq!(pull_policy(&container("Never"), &parse("a")), "Never");
    let digest = format!("busybox@sha256:{}", "0".repeat(64));
    for (image, expect) in [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("localhost:5000/busybox", "Always"),
        ("localhost:5000/busybox:1", "IfNotPresent"),
        (&digest, "IfNotPresent"),
    ] {
        assert_eq!(pull_policy(&container(""), &parse(image)), expect, "{image}");
    }
}

#[test]
fn durations() {
    let found = [393, 1000, 1230, 62_500].map(|millis| go_millis(Duration::from_millis(millis)));
    assert_eq!(found, ["393ms", "1s", "1.23s", "1m2.5s"]);
}

#[test]
fn wrong_files_keep_no_pod_from_running() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("registries.yaml");
    std::fs::write(&file, "mirrors: 5").expect("written");
    let settings =
        ImageSettings { registries: file, provider_config: Some("/nonexistent".into()), ..ImageSettings::default() };
    let puller = Puller::new(Arc::new(Registry::default()), settings, Path::new("/nonexistent"));
    assert!(puller.registries.hosts().is_empty());
}
