//! Effects: which images are in use: what containers are made of, and what is mounted into them.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Error, Result, Runtime};

/// What is mounted into containers, by their ids. It never changes, and a list does not tell it: each container is asked
/// for once.
#[derive(Debug, Default)]
pub struct Mounts(HashMap<String, Vec<String>>);

impl Mounts {
    /// Names and ids of all images that containers use, exited ones too.
    ///
    /// # Errors
    /// What the runtime said: then nobody knows what is in use.
    pub async fn used(&mut self, runtime: &dyn Runtime) -> Result<BTreeSet<String>> {
        let containers = runtime.containers(None).await?;
        let there: HashSet<&str> = containers.iter().map(|container| container.id.as_str()).collect();
        self.0.retain(|id, _| there.contains(id.as_str()));
        for container in containers.iter().filter(|container| !self.0.contains_key(&container.id)).collect::<Vec<_>>() {
            let mounted = match runtime.container_status(&container.id).await {
                Ok(status) => status.image_mounts,
                // It went meanwhile.
                Err(Error::NotFound(_)) => continue,
                Err(error) => return Err(error),
            };
            self.0.insert(container.id.clone(), mounted);
        }
        let made_of = containers.into_iter().flat_map(|container| [container.image, container.image_ref]);
        Ok(made_of.chain(self.0.values().flatten().cloned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::v1;
    use super::*;

    fn spec(image: &str) -> Option<v1::ImageSpec> {
        Some(v1::ImageSpec { image: image.into(), ..v1::ImageSpec::default() })
    }

    #[tokio::test]
    async fn what_is_mounted_is_in_use_as_long_as_its_container_is_there() {
        let runtime = Fake::with_images(&["program:1", "data:1"]);
        let mounts = vec![v1::Mount { image: spec("data:1"), ..v1::Mount::default() }, v1::Mount::default()];
        let config = v1::ContainerConfig { image: spec("program:1"), mounts, ..v1::ContainerConfig::default() };
        let id = runtime.create_container("s", &config, &v1::PodSandboxConfig::default()).await.expect("made");

        let mut known = Mounts::default();
        let used = known.used(&runtime).await.expect("told");
        assert_eq!(used, ["data:1", "program:1", "sha256:program:1"].map(str::to_owned).into());
        assert_eq!(known.used(&runtime).await.expect("told"), used);
        let asked = |runtime: &Fake| runtime.calls().iter().filter(|call| call.starts_with("ContainerStatus")).count();
        assert_eq!(asked(&runtime), 1, "a container is asked for once");

        runtime.remove_container(&id).await.expect("removed");
        assert_eq!(known.used(&runtime).await.expect("told"), BTreeSet::new());
        assert!(known.0.is_empty());
    }

    #[tokio::test]
    async fn when_the_runtime_does_not_say_nothing_is_known() {
        let runtime = Fake::default();
        let config = v1::ContainerConfig { image: spec("program:1"), ..v1::ContainerConfig::default() };
        runtime.create_container("s", &config, &v1::PodSandboxConfig::default()).await.expect("made");
        runtime.fail_next("ContainerStatus", Error::Failed { call: "ContainerStatus", message: "busy".into() });
        assert!(Mounts::default().used(&runtime).await.is_err());
    }
}
