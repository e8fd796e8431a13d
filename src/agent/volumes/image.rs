//! Effects: `image` volumes: what is in an image. The agent pulls it, the runtime mounts it, where it can.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Pod};

use super::{Error, Failure, Mounted};
use crate::agent::context::NodeContext;
use crate::agent::images::Wanted;
use crate::agent::pod::{Role, pod_spec};
use crate::cri::{Image, Version, v1};

/// containerd mounts images since this release; before, it makes nothing of such a mount.
const CONTAINERD: (u32, u32) = (2, 1);

/// Why the runtime cannot mount images.
fn cannot(runtime: &Version) -> Option<String> {
    if runtime.name != "containerd" {
        return None;
    }
    let mut parts = runtime.version.trim_start_matches('v').split('.').map_while(|part| part.parse().ok());
    let version: (u32, u32) = (parts.next()?, parts.next()?);
    let (major, minor) = CONTAINERD;
    (version < CONTAINERD).then(|| {
        format!("image volumes need containerd {major}.{minor}, and this node has containerd {}", runtime.version)
    })
}

/// Pulls the images that volumes of the pod are and that are not known yet.
///
/// # Errors
/// The runtime cannot mount images, or one cannot be had.
pub async fn complete(cx: &Arc<NodeContext>, pod: &Pod, mounted: &mut Mounted) -> Result<(), Error> {
    for volume in pod_spec(pod).volumes.iter().flatten() {
        let (Some(source), Some(found)) = (&volume.image, mounted.volumes.get_mut(&volume.name)) else { continue };
        if found.image.is_none() {
            let image = pull(cx, pod, &volume.name, source).await.map_err(|why| Error::of(&volume.name, why))?;
            found.image = Some(image);
        }
    }
    Ok(())
}

/// What the runtime knows the image as.
async fn pull(cx: &Arc<NodeContext>, pod: &Pod, volume: &str, source: &ImageVolumeSource) -> Result<String, Failure> {
    let runtime = cx.runtime.version().await.map_err(|error| Failure::Image(error.to_string()))?;
    if let Some(why) = cannot(&runtime) {
        return Err(Failure::Image(why));
    }
    // Policies, secrets, back-off and events are those of containers.
    let container = Container {
        name: volume.to_owned(),
        image: source.reference.clone(),
        image_pull_policy: source.pull_policy.clone(),
        ..Container::default()
    };
    let sandbox = v1::PodSandboxConfig::default();
    let wanted = Wanted { pod, role: Role::App, container: &container, sandbox: &sandbox };
    let found = cx.images.ensure(&wanted, &cx.objects, &cx.events).await;
    found.map(named).map_err(|error| Failure::Image(format!("{}: {error}", error.reason())))
}

/// containerd mounts an image by its name: by its id it finds only those that it has pulled itself.
fn named(image: Image) -> String {
    image.tags.into_iter().chain(image.digests).next().unwrap_or(image.id)
}

impl Mounted {
    /// All images are known.
    #[must_use]
    pub fn is_complete(&self, pod: &Pod) -> bool {
        let images = pod_spec(pod).volumes.iter().flatten().filter(|volume| volume.image.is_some());
        images.into_iter().all(|volume| self.volumes.get(&volume.name).is_some_and(|known| known.image.is_some()))
    }

    /// Images that were pulled before stay: they are not looked for at each change of another volume.
    #[must_use]
    pub fn with_images(mut self, before: Option<&Mounted>) -> Mounted {
        for (name, known) in before.iter().flat_map(|before| &before.volumes) {
            if let Some(volume) = self.volumes.get_mut(name).filter(|volume| volume.image.is_none()) {
                volume.image.clone_from(&known.image);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_runtimes_are_told_apart() {
        let runtime = |name: &str, version: &str| Version { name: name.into(), version: version.into() };
        for (name, version, expect) in [
            ("containerd", "1.6.20~ds1", false),
            ("containerd", "v1.7.27", false),
            ("containerd", "2.0.5", false),
            ("containerd", "2.1.0", true),
            ("containerd", "v2.2.1", true),
            ("containerd", "3.0.0-rc.1", true),
            ("cri-o", "1.34.0", true),
        ] {
            assert_eq!(cannot(&runtime(name, version)).is_none(), expect, "{name} {version}");
        }
        let why = cannot(&runtime("containerd", "1.6.20")).unwrap();
        assert_eq!(why, "image volumes need containerd 2.1, and this node has containerd 1.6.20");
    }
}
