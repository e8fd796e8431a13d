//! Effects: makes sure that a container's image is on the node, and that its pod may have it, by its pull policy.
//!
//! - [`reference`]: names of images; [`registry_auth`]: logins of secrets
//! - [`provider`]: plug-ins that know logins; [`pulled`]: who may use what is here

pub mod provider;
pub mod pulled;
mod reference;
mod registry_auth;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::Semaphore;

use self::provider::Providers;
use self::pulled::{Login, Pulled, With};
use self::reference::Reference;
use super::events::{Kind as EventKind, Recorder};
use super::objects::{self, Objects};
use super::pod::{Role, field_path, namespace, pod_spec, uid};
use crate::config::ImageSettings;
use crate::cri::registries::Registries;
use crate::cri::{self, v1};
use crate::supervisor::chain;
use crate::{clock, cri::Image};

/// How long a name that was given to an image takes to be seen by the runtime, at most.
const NAMED_TIME: Duration = Duration::from_secs(10);
const NAMED_STEP: Duration = Duration::from_millis(20);

/// What runtimes say first of failures that have reasons of their own (`k8s.io/cri-api` `pkg/errors`).
const UNAVAILABLE: &str = "RegistryUnavailable";
const UNSIGNED: &str = "SignatureValidationFailed";

pub struct Puller {
    images: Arc<dyn cri::Images>,
    settings: ImageSettings,
    registries: Registries,
    providers: Providers,
    pulled: Pulled,
    pulls: Semaphore,
    changes: AtomicU64,
}

/// `reason()` is what `state.waiting.reason` shows.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {why}")]
    Name { image: String, why: String },
    #[error("Failed to inspect image {image:?}: {message}")]
    Inspect { image: String, message: String },
    #[error("Container image {0:?} is not present with pull policy of Never")]
    NeverPull(String),
    #[error("{message}")]
    Pull { reason: &'static str, message: String },
}

impl Error {
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Name { .. } => "InvalidImageName",
            Error::Inspect { .. } => "ImageInspectError",
            Error::NeverPull(_) => "ErrImageNeverPull",
            Error::Pull { reason, .. } => reason,
        }
    }

    /// What the runtime said of a pull.
    fn pull(image: &str, said: &str) -> Self {
        let words = said.split_once("desc = ").map_or(said, |(_, words)| words);
        for (reason, why) in
            [(UNAVAILABLE, "the registry is unavailable"), (UNSIGNED, "the signature validation failed")]
        {
            if let Some(rest) = words.strip_prefix(reason) {
                return Error::Pull { reason, message: format!("image pull failed for {image} because {why}{rest}") };
            }
        }
        Error::Pull { reason: "ErrImagePull", message: said.to_owned() }
    }
}

/// Whether a container that waits for this reason waits for another try to pull its image.
#[must_use]
pub fn is_pull_failure(reason: &str) -> bool {
    ["ErrImagePull", UNAVAILABLE, UNSIGNED].contains(&reason)
}

/// A login to try, and whose it is.
struct Try {
    auth: Option<v1::AuthConfig>,
    with: With,
}

/// Which pod's container the image is for.
pub struct Wanted<'a> {
    pub pod: &'a Pod,
    pub role: Role,
    pub container: &'a Container,
    pub sandbox: &'a v1::PodSandboxConfig,
}

impl Puller {
    /// Reads the settings' files. What is wrong with one is told in the log: pods whose images are here must run.
    #[must_use]
    pub fn new(images: Arc<dyn cri::Images>, settings: ImageSettings, data_dir: &Path) -> Puller {
        let registries = Registries::load(&settings.registries).unwrap_or_else(|error| {
            tracing::error!(error = chain(&error), "mirrors of registries are not used");
            Registries::default()
        });
        let providers = match &settings.provider_config {
            Some(config) => Providers::load(config, &settings.provider_directory),
            None => Ok(Providers::default()),
        };
        let providers = providers.unwrap_or_else(|error| {
            tracing::error!(error = chain(&error), "credential providers are not used");
            Providers::default()
        });
        let pulls = settings.max_parallel_pulls.unwrap_or(Semaphore::MAX_PERMITS).clamp(1, Semaphore::MAX_PERMITS);
        let pulled = Pulled::load(&data_dir.join("agent/image_manager"));
        Puller {
            images,
            settings,
            registries,
            providers,
            pulled,
            pulls: Semaphore::new(pulls),
            changes: AtomicU64::default(),
        }
    }

    #[must_use]
    pub fn settings(&self) -> &ImageSettings {
        &self.settings
    }

    /// Changes with the images that the agent brings and removes.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Where the runtime keeps images and containers.
    pub async fn directory(&self) -> cri::Result<PathBuf> {
        self.images.directory().await
    }

    /// An image with all its names.
    pub async fn remove(&self, id: &str) -> cri::Result<()> {
        let removed = self.images.remove_image(id).await;
        self.changes.fetch_add(1, Ordering::Relaxed);
        removed
    }

    /// Every image on the node.
    pub async fn list(&self) -> cri::Result<Vec<Image>> {
        self.images.images().await
    }

    /// The image of this name, if it is on the node.
    pub async fn find(&self, name: &str) -> cri::Result<Option<Image>> {
        self.images.image(name).await
    }

    /// The image, pulled if its policy says so.
    pub async fn ensure(&self, wanted: &Wanted<'_>, objects: &Objects, events: &Recorder) -> Result<Image, Error> {
        let image = wanted.container.image.clone().unwrap_or_default();
        let event = |kind, reason, message: String| {
            let field = field_path(wanted.role, &wanted.container.name);
            events.container(wanted.pod, field, kind, reason, message);
        };
        let result = self.find_or_pull(wanted, objects, &image, &event).await;
        if let Err(error) = &result {
            match error {
                Error::Name { .. } | Error::Inspect { .. } => {
                    event(EventKind::Warning, "InspectFailed", error.to_string());
                }
                Error::NeverPull(_) => event(EventKind::Warning, "ErrImageNeverPull", error.to_string()),
                Error::Pull { message, .. } => {
                    event(EventKind::Warning, "Failed", format!("Failed to pull image {image:?}: {message}"));
                }
            }
            event(EventKind::Warning, "Failed", format!("Error: {}", error.reason()));
        }
        result
    }

    async fn find_or_pull(
        &self,
        wanted: &Wanted<'_>,
        objects: &Objects,
        image: &str,
        event: &(impl Fn(EventKind, &'static str, String) + Sync),
    ) -> Result<Image, Error> {
        let reference = Reference::parse(image).map_err(|why| Error::Name { image: image.to_owned(), why })?;
        let tries = self.tries(wanted, objects, image);
        let policy = pull_policy(wanted.container, &reference);
        if policy != "Always" {
            let found = self.inspect(image).await?;
            if let Some(found) = found {
                let logins = self.logins(wanted, objects, image).await;
                let own: Vec<Login> = logins.into_iter().map(|(login, _)| login).collect();
                if !self.pulled.must_pull(image, &reference.name(), &found.id, &own) {
                    let message =
                        format!("Container image {image:?} already present on machine and can be accessed by the pod");
                    event(EventKind::Normal, "Pulled", message);
                    return Ok(found);
                }
            }
            if policy == "Never" {
                return Err(Error::NeverPull(image.to_owned()));
            }
        }
        event(EventKind::Normal, "Pulling", format!("Pulling image {image:?}"));
        let asked = clock::instant();
        let _turn = self.pulls.acquire().await;
        let began = clock::instant();
        let unrecorded = |error: std::io::Error| {
            let message = format!("failed to record image pull intent for image {image:?}: {error}");
            Error::Pull { reason: "ErrImagePull", message }
        };
        self.pulled.begin(image).map_err(unrecorded)?;
        let ending = Ending { pulled: &self.pulled, image };
        let (pulled, with) = self.pull(&reference, wanted, tries.await, image).await?;
        self.changes.fetch_add(1, Ordering::Relaxed);
        let found = self.inspect(&pulled).await?;
        let found = found.ok_or_else(|| Error::pull(image, &format!("image {image:?} vanished after its pull")))?;
        if let Err(error) = self.pulled.record(&reference.name(), &found.id, &with) {
            tracing::warn!(%error, image, "not recorded who may use an image: it is verified again next time");
        }
        drop(ending);
        self.prune().await;
        let (took, waited) = (go_millis(began.elapsed()), go_millis(asked.elapsed()));
        let message = format!(
            "Successfully pulled image {image:?} in {took} ({waited} including waiting). Image size: {} bytes.",
            found.size_bytes
        );
        event(EventKind::Normal, "Pulled", message);
        Ok(found)
    }

    async fn inspect(&self, image: &str) -> Result<Option<Image>, Error> {
        let found = self.images.image(image).await;
        found.map_err(|error| Error::Inspect { image: image.to_owned(), message: error.to_string() })
    }

    /// Returns what the image is found by, and the login that opened it.
    async fn pull(
        &self,
        reference: &Reference,
        wanted: &Wanted<'_>,
        tries: Vec<Try>,
        image: &str,
    ) -> Result<(String, With), Error> {
        let mirrored = self.registries.rewritten(&reference.registry, &reference.repository, &reference.rest());
        for name in mirrored {
            match self.pull_as(&name, reference, wanted).await {
                Ok(()) => return Ok((image.to_owned(), With::Node)),
                Err(error) => tracing::info!(image, mirror = name, %error, "not pulled from a mirror; trying the next"),
            }
        }
        let mut last = None;
        for Try { auth, with } in tries {
            match self.images.pull(image, auth, Some(wanted.sandbox)).await {
                Ok(found) => return Ok((if found.is_empty() { image.to_owned() } else { found }, with)),
                Err(error) => last = Some(error),
            }
        }
        Err(Error::pull(image, &last.map_or_else(String::new, |error| error.to_string())))
    }

    /// Pulls by the name that a mirror has for it. The mirror's login is the node's.
    async fn pull_as(&self, name: &str, reference: &Reference, wanted: &Wanted<'_>) -> cri::Result<()> {
        self.images.pull(name, None, Some(wanted.sandbox)).await?;
        let own = format!("{}{}", reference.name(), reference.rest());
        self.images.rename(name, &own).await?;
        let seen = async {
            while self.images.image(&own).await?.is_none() {
                tokio::time::sleep(NAMED_STEP).await;
            }
            Ok(())
        };
        let late = || cri::Error::TimedOut { call: "rename", after: NAMED_TIME };
        tokio::time::timeout(NAMED_TIME, seen).await.unwrap_or_else(|_| Err(late()))
    }

    /// The logins of the pod's own secrets that fit the image.
    async fn logins(&self, wanted: &Wanted<'_>, objects: &Objects, image: &str) -> Vec<(Login, v1::AuthConfig)> {
        let mut found = Vec::new();
        let namespace = namespace(wanted.pod);
        for secret in pod_spec(wanted.pod).image_pull_secrets.iter().flatten() {
            match objects.get(objects::Kind::Secret, namespace, &secret.name, uid(wanted.pod)).await {
                Ok(data) => {
                    let fitting = registry_auth::matching(&data, image).into_iter();
                    found.extend(fitting.map(|auth| (Login::new(&data.uid, namespace, &secret.name, &auth), auth)));
                }
                Err(error) => tracing::debug!(%error, secret = secret.name, "image pull secret not usable"),
            }
        }
        found
    }

    /// What to try in turn: the pod's own logins, then the node's; without one when there is none.
    async fn tries(&self, wanted: &Wanted<'_>, objects: &Objects, image: &str) -> Vec<Try> {
        let own = self.logins(wanted, objects, image).await.into_iter();
        let mut tries: Vec<Try> = own.map(|(l, auth)| Try { auth: Some(auth), with: With::Login(l) }).collect();
        let node = self.providers.logins(image).await.into_iter();
        tries.extend(node.map(|auth| Try { auth: Some(auth), with: With::Node }));
        if tries.is_empty() {
            tries.push(Try { auth: None, with: With::Node });
        }
        tries
    }

    /// Records of images that are gone are looked for when there are many.
    async fn prune(&self) {
        if self.pulled.is_crowded()
            && let Ok(images) = self.images.images().await
        {
            self.pulled.prune(&images.into_iter().map(|image| image.id).collect());
        }
    }
}

/// A pull is under way until this is dropped, also when it is given up.
struct Ending<'a> {
    pulled: &'a Pulled,
    image: &'a str,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.pulled.end(self.image);
    }
}

fn pull_policy<'a>(container: &'a Container, reference: &Reference) -> &'a str {
    match container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if reference.rest() == ":latest" => "Always",
        _ => "IfNotPresent",
    }
}

/// `393ms`, `1.234s`, `1m2.5s`: Go's duration, in whole milliseconds.
fn go_millis(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let fraction = format!("{:03}", rest % 1000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{point}{fraction}s", rest / 1000);
    if minutes > 0 { format!("{minutes}m{seconds}") } else { seconds }
}
