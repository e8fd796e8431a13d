//! Effects: makes sure that a container's image is on the node, by its pull policy.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::Semaphore;

use super::events::{Kind as EventKind, Recorder};
use super::objects::{self, Objects};
use super::pod::{Role, field_path, namespace, pod_spec, uid};
use super::registry_auth;
use crate::cri::{self, v1};
use crate::{clock, cri::Image};

/// Pulls under way at once: a small machine's disk and network do no more in parallel.
const PARALLEL_PULLS: usize = 3;

pub struct Puller {
    images: Arc<dyn cri::Images>,
    pulls: Semaphore,
}

/// `reason()` is what `state.waiting.reason` shows.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("Failed to apply default image tag {0:?}: couldn't parse image name {0:?}: invalid reference format")]
    Name(String),
    #[error("Failed to inspect image {image:?}: {message}")]
    Inspect { image: String, message: String },
    #[error("Container image {0:?} is not present with pull policy of Never")]
    NeverPull(String),
    #[error("{message}")]
    Pull { message: String },
}

impl Error {
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Name(_) => "InvalidImageName",
            Error::Inspect { .. } => "ImageInspectError",
            Error::NeverPull(_) => "ErrImageNeverPull",
            Error::Pull { .. } => "ErrImagePull",
        }
    }
}

/// Which pod's container the image is for.
pub struct Wanted<'a> {
    pub pod: &'a Pod,
    pub role: Role,
    pub container: &'a Container,
    pub sandbox: &'a v1::PodSandboxConfig,
}

impl Puller {
    #[must_use]
    pub fn new(images: Arc<dyn cri::Images>) -> Puller {
        Puller { images, pulls: Semaphore::new(PARALLEL_PULLS) }
    }

    /// Every image on the node.
    pub async fn list(&self) -> cri::Result<Vec<Image>> {
        self.images.images().await
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
                Error::Name(_) => event(EventKind::Warning, "InspectFailed", error.to_string()),
                Error::Inspect { .. } => event(EventKind::Warning, "InspectFailed", error.to_string()),
                Error::NeverPull(_) => event(EventKind::Warning, "ErrImageNeverPull", error.to_string()),
                Error::Pull { message } => {
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
        if !is_reference(image) {
            return Err(Error::Name(image.to_owned()));
        }
        let policy = pull_policy(wanted.container, image);
        if policy != "Always" {
            let found = self.inspect(image).await?;
            match (found, policy) {
                (Some(found), _) => {
                    let message =
                        format!("Container image {image:?} already present on machine and can be accessed by the pod");
                    event(EventKind::Normal, "Pulled", message);
                    return Ok(found);
                }
                (None, "Never") => return Err(Error::NeverPull(image.to_owned())),
                (None, _) => {}
            }
        }
        event(EventKind::Normal, "Pulling", format!("Pulling image {image:?}"));
        let asked = clock::instant();
        let _turn = self.pulls.acquire().await;
        let began = clock::instant();
        let reference = self.pull(wanted, objects, image).await?;
        let found = self.inspect(&reference).await?;
        let found = found.ok_or_else(|| Error::Pull { message: format!("image {image:?} vanished after its pull") })?;
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

    async fn pull(&self, wanted: &Wanted<'_>, objects: &Objects, image: &str) -> Result<String, Error> {
        let mut last = None;
        for auth in self.credentials(wanted, objects, image).await {
            match self.images.pull(image, auth, Some(wanted.sandbox)).await {
                Ok(reference) => return Ok(if reference.is_empty() { image.to_owned() } else { reference }),
                Err(error) => last = Some(error),
            }
        }
        Err(Error::Pull { message: last.map_or_else(String::new, |error| error.to_string()) })
    }

    /// Every login of the pod's pull secrets that fits the image; none at all is one try without.
    async fn credentials(&self, wanted: &Wanted<'_>, objects: &Objects, image: &str) -> Vec<Option<v1::AuthConfig>> {
        let mut found = Vec::new();
        for secret in pod_spec(wanted.pod).image_pull_secrets.iter().flatten() {
            let data = objects.get(objects::Kind::Secret, namespace(wanted.pod), &secret.name, uid(wanted.pod)).await;
            match data {
                Ok(data) => found.extend(registry_auth::matching(&data, image).into_iter().map(Some)),
                Err(error) => tracing::debug!(%error, secret = secret.name, "image pull secret not usable"),
            }
        }
        if found.is_empty() { vec![None] } else { found }
    }
}

fn pull_policy<'a>(container: &'a Container, image: &str) -> &'a str {
    match container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if !image.contains('@') && !last_part(image).contains(':') || image.ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    }
}

fn last_part(image: &str) -> &str {
    image.rsplit('/').next().unwrap_or(image)
}

/// Roughly the grammar of distribution references: a name in lower case, then a tag or digest.
fn is_reference(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or_default();
    let last = last_part(name);
    let repository = last.split(':').next().unwrap_or_default();
    let printable = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]".contains(c);
    !repository.is_empty() && image.chars().all(printable) && !repository.chars().any(|c| c.is_ascii_uppercase())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let container = |policy: &str| Container { image_pull_policy: Some(policy.into()), ..Container::default() };
        assert_eq!(pull_policy(&container("Never"), "a"), "Never");
        for (image, expect) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("localhost:5000/busybox", "Always"),
            ("localhost:5000/busybox:1", "IfNotPresent"),
            ("busybox@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(&container(""), image), expect, "{image}");
        }
    }

    #[test]
    fn references() {
        for good in ["busybox", "docker.io/library/busybox:1.36", "r:5000/a/b@sha256:ab"] {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", "a b", "Busybox", "x/", "a$b"] {
            assert!(!is_reference(bad), "{bad}");
        }
    }

    #[test]
    fn durations() {
        let found = [393, 1000, 1230, 62_500].map(|millis| go_millis(Duration::from_millis(millis)));
        assert_eq!(found, ["393ms", "1s", "1.23s", "1m2.5s"]);
    }
}
