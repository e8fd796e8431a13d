//! Types: which containers have which devices, as it is kept in `<data-dir>/agent/devices.json`: written when it changes,
//! read when the agent starts, so that nobody gets what another has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::protocol::{CdiDevice, ContainerAllocateResponse, DeviceSpec, Mount};
use super::select::Ids;
use crate::pki::files;

/// The devices of one resource that a container has, and what comes with them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    pub devices: Ids,
    pub response: ContainerAllocateResponse,
}

/// By container and resource.
pub type Grants = BTreeMap<String, BTreeMap<String, Grant>>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Every resource that a plugin has offered: zero is told of it until the plugin is back.
    pub resources: BTreeSet<String>,
    /// By the pod's uid.
    pub pods: BTreeMap<String, Grants>,
}

/// What a container gets for all its devices together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Additions {
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<DeviceSpec>,
    pub annotations: Vec<(String, String)>,
    /// Such as `vendor.com/gpu=gpu1`.
    pub cdi: Vec<String>,
}

impl Record {
    #[must_use]
    pub fn granted(&self, pod: &str, container: &str, resource: &str) -> Option<&Grant> {
        self.pods.get(pod)?.get(container)?.get(resource)
    }

    /// Devices of a resource that somebody has.
    #[must_use]
    pub fn in_use(&self, resource: &str) -> Ids {
        let grants = self.pods.values().flat_map(BTreeMap::values).filter_map(|of| of.get(resource));
        grants.flat_map(|grant| grant.devices.iter().cloned()).collect()
    }

    #[must_use]
    pub fn knows(&self, resource: &str) -> bool {
        self.resources.contains(resource)
            || self.pods.values().flat_map(BTreeMap::values).any(|c| c.contains_key(resource))
    }

    /// Of two resources that set the same variable or path the first has it.
    #[must_use]
    pub fn additions(&self, pod: &str, container: &str) -> Additions {
        let mut all = Additions::default();
        let (mut env, mut annotations) = (BTreeMap::new(), BTreeMap::new());
        let (mut paths, mut targets, mut cdi) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for grant in self.pods.get(pod).and_then(|c| c.get(container)).into_iter().flat_map(BTreeMap::values) {
            let response = &grant.response;
            for (name, value) in &response.envs {
                env.entry(name.clone()).or_insert_with(|| value.clone());
            }
            for (name, value) in &response.annotations {
                annotations.entry(name.clone()).or_insert_with(|| value.clone());
            }
            all.mounts.extend(response.mounts.iter().filter(|m| paths.insert(m.container_path.clone())).cloned());
            all.devices.extend(response.devices.iter().filter(|d| targets.insert(d.container_path.clone())).cloned());
            cdi.extend(response.cdi_devices.iter().map(|CdiDevice { name }| name.clone()));
        }
        all.env = env.into_iter().collect();
        all.annotations = annotations.into_iter().collect();
        all.cdi = cdi.into_iter().collect();
        all
    }
}

/// Where a [`Record`] is kept.
#[derive(Debug)]
pub struct File {
    pub path: PathBuf,
}

impl File {
    #[must_use]
    pub fn new(path: &Path) -> File {
        File { path: path.to_owned() }
    }

    /// What was written; nothing when there is no file.
    #[must_use]
    pub fn read<T: for<'a> Deserialize<'a> + Default>(&self) -> T {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return T::default(),
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "who has which devices cannot be read");
                return T::default();
            }
        };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::error!(%error, path = %self.path.display(), "who has which devices is not readable and forgotten");
            T::default()
        })
    }

    /// # Errors
    /// When the disk refuses; what was there stays.
    pub fn write<T: Serialize>(&self, value: &T) -> Result<(), String> {
        let bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
        files::replace(&self.path, &bytes, 0o600).map_err(|error| crate::supervisor::chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_gets_of_two_resources() {
        let response = |env: &str, path: &str| ContainerAllocateResponse {
            envs: [(env.to_owned(), path.to_owned())].into(),
            devices: vec![DeviceSpec { container_path: path.into(), host_path: path.into(), permissions: "rw".into() }],
            cdi_devices: vec![CdiDevice { name: "v.com/c=1".into() }],
            ..ContainerAllocateResponse::default()
        };
        let mut record = Record::default();
        let of = record.pods.entry("u".into()).or_default().entry("c".into()).or_default();
        of.insert("a/x".into(), Grant { devices: ["1".to_owned()].into(), response: response("A", "/dev/a") });
        of.insert("b/y".into(), Grant { devices: ["2".to_owned()].into(), response: response("B", "/dev/b") });
        let found = record.additions("u", "c");
        assert_eq!(found.env, [("A".into(), "/dev/a".into()), ("B".into(), "/dev/b".into())]);
        assert_eq!(found.devices.iter().map(|d| d.host_path.as_str()).collect::<Vec<_>>(), ["/dev/a", "/dev/b"]);
        assert_eq!(found.cdi, ["v.com/c=1"]);
        assert_eq!(record.additions("u", "other"), Additions::default());
        assert!(record.knows("a/x") && !record.knows("a/z"));

        let directory = tempfile::tempdir().expect("temporary directory");
        let file = File::new(&directory.path().join("devices.json"));
        assert_eq!(file.read::<Record>(), Record::default());
        file.write(&record).expect("written");
        assert_eq!(file.read::<Record>(), record);
        std::fs::write(&file.path, "{").expect("written");
        assert_eq!(file.read::<Record>(), Record::default());
    }
}
