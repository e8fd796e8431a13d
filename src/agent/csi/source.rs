//! Decides: what a CSI volume is, from its PersistentVolume or from the pod itself, and what its driver is told of it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, SecretReference, Volume};
use k8s_openapi::api::storage::v1::CSIDriver;

use super::driver::Capabilities;
use super::paths::hex;
use super::v1::VolumeCapability;
use super::v1::volume_capability::access_mode::Mode;
use super::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use crate::agent::pod::{namespace, uid};

/// A Secret, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Secret {
    pub namespace: String,
    pub name: String,
}

/// A claim with the volume that it is bound to.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub claim: PersistentVolumeClaim,
    pub volume: PersistentVolume,
    /// As the pod asks for it.
    pub read_only: bool,
}

/// One volume of a driver, as one pod wants it.
#[derive(Clone, Debug, Default)]
pub struct Source {
    pub(super) driver: String,
    pub(super) handle: String,
    /// Of the PersistentVolume, or of the pod's volume where there is none.
    pub(super) name: String,
    pub(super) ephemeral: bool,
    pub(super) block: bool,
    pub(super) fs_type: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) access_modes: Vec<String>,
    pub(super) mount_options: Vec<String>,
    pub(super) read_only: bool,
    pub(super) stage_secret: Option<Secret>,
    pub(super) publish_secret: Option<Secret>,
    pub(super) expand_secret: Option<Secret>,
    /// `None` for volumes without a claim.
    pub(super) claimed: Option<Box<Claimed>>,
}

/// The volume of a claim; `None` when it is of no driver.
#[must_use]
pub fn persistent(claimed: Claimed) -> Option<Source> {
    let spec = claimed.volume.spec.clone()?;
    let csi = spec.csi?;
    let secret = |reference: Option<SecretReference>| {
        let SecretReference { name, namespace } = reference?;
        Some(Secret { namespace: namespace.unwrap_or_default(), name: name? })
    };
    Some(Source {
        driver: csi.driver,
        handle: csi.volume_handle,
        name: claimed.volume.metadata.name.clone().unwrap_or_default(),
        ephemeral: false,
        block: spec.volume_mode.as_deref() == Some("Block"),
        fs_type: csi.fs_type.unwrap_or_default(),
        attributes: csi.volume_attributes.unwrap_or_default(),
        access_modes: spec.access_modes.unwrap_or_default(),
        mount_options: spec.mount_options.unwrap_or_default(),
        read_only: claimed.read_only,
        stage_secret: secret(csi.node_stage_secret_ref),
        publish_secret: secret(csi.node_publish_secret_ref),
        expand_secret: secret(csi.node_expand_secret_ref),
        claimed: Some(Box::new(claimed)),
    })
}

/// A volume that lives with the pod; `None` for volumes of other types.
#[must_use]
pub fn inline(pod: &Pod, volume: &Volume) -> Option<Source> {
    let csi = volume.csi.clone()?;
    let secret = |name: String| Secret { namespace: namespace(pod).to_owned(), name };
    Some(Source {
        handle: format!("csi-{}", hex(&format!("{}{}", uid(pod), volume.name))),
        driver: csi.driver,
        name: volume.name.clone(),
        ephemeral: true,
        fs_type: csi.fs_type.unwrap_or_default(),
        attributes: csi.volume_attributes.unwrap_or_default(),
        access_modes: vec!["ReadWriteOnce".into()],
        read_only: csi.read_only == Some(true),
        publish_secret: csi.node_publish_secret_ref.map(|reference| secret(reference.name)),
        ..Source::default()
    })
}

impl Source {
    /// `Persistent` or `Ephemeral`.
    pub(super) fn lifecycle(&self) -> &'static str {
        if self.ephemeral { "Ephemeral" } else { "Persistent" }
    }

    /// Whether the driver has volumes of this kind.
    pub(super) fn check_lifecycle(&self, driver: Option<&CSIDriver>) -> Result<(), String> {
        let (mode, name) = (self.lifecycle(), &self.driver);
        let Some(driver) = driver else {
            return match self.ephemeral {
                true => Err(format!("volume mode {mode:?} not supported by driver {name} (no CSIDriver object)")),
                false => Ok(()),
            };
        };
        let modes = driver.spec.volume_lifecycle_modes.as_deref().unwrap_or_default();
        let listed = modes.iter().any(|listed| listed == mode) || (modes.is_empty() && !self.ephemeral);
        if listed {
            return Ok(());
        }
        let only = if modes.is_empty() { vec!["Persistent".to_owned()] } else { modes.to_vec() };
        let only = only.iter().map(|mode| format!("{mode:?}")).collect::<Vec<_>>().join(" ");
        Err(format!("volume mode {mode:?} not supported by driver {name} (only supports [{only}])"))
    }

    /// How the volume is used. `mount_group`: the driver gives it to this group.
    pub(super) fn capability(&self, can: Capabilities, mount_group: Option<i64>) -> VolumeCapability {
        let mode = access_mode(self.access_modes.first().map(String::as_str), can);
        let access_type = match self.block {
            true => AccessType::Block(BlockVolume {}),
            false => AccessType::Mount(MountVolume {
                fs_type: self.fs_type.clone(),
                mount_flags: self.mount_options.clone(),
                volume_mount_group: mount_group.map(|group| group.to_string()).unwrap_or_default(),
            }),
        };
        VolumeCapability { access_mode: Some(AccessMode { mode: mode.into() }), access_type: Some(access_type) }
    }

    /// Whether the agent gives what is in the volume to the pod's `fsGroup`.
    pub(super) fn takes_group(&self, policy: Option<&str>) -> bool {
        if self.block || self.read_only {
            return false;
        }
        match policy {
            Some("None") => false,
            Some("File") => true,
            _ => !self.fs_type.is_empty() && self.access_modes.iter().any(|mode| mode.starts_with("ReadWriteOnce")),
        }
    }
}

fn access_mode(mode: Option<&str>, can: Capabilities) -> Mode {
    match (mode, can.single_node_multi_writer) {
        (None | Some("ReadWriteOnce"), true) => Mode::SingleNodeMultiWriter,
        (Some("ReadWriteOncePod"), true) => Mode::SingleNodeSingleWriter,
        (None | Some("ReadWriteOnce" | "ReadWriteOncePod"), false) => Mode::SingleNodeWriter,
        (Some("ReadOnlyMany"), _) => Mode::MultiNodeReaderOnly,
        (Some("ReadWriteMany"), _) => Mode::MultiNodeMultiWriter,
        (Some(_), _) => Mode::Unknown,
    }
}

/// What a driver with `podInfoOnMount` is told of the pod.
pub(super) fn pod_information(pod: &Pod, account: &str, ephemeral: bool) -> BTreeMap<String, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let facts = [
        ("pod.name", name),
        ("pod.namespace", namespace(pod)),
        ("pod.uid", uid(pod)),
        ("serviceAccount.name", account),
        ("ephemeral", if ephemeral { "true" } else { "false" }),
    ];
    facts.into_iter().map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn access_modes_are_those_of_upstream() {
        let old = Capabilities::default();
        let new = Capabilities { single_node_multi_writer: true, ..old };
        for (mode, before, after) in [
            (None, Mode::SingleNodeWriter, Mode::SingleNodeMultiWriter),
            (Some("ReadWriteOnce"), Mode::SingleNodeWriter, Mode::SingleNodeMultiWriter),
            (Some("ReadWriteOncePod"), Mode::SingleNodeWriter, Mode::SingleNodeSingleWriter),
            (Some("ReadOnlyMany"), Mode::MultiNodeReaderOnly, Mode::MultiNodeReaderOnly),
            (Some("ReadWriteMany"), Mode::MultiNodeMultiWriter, Mode::MultiNodeMultiWriter),
        ] {
            assert_eq!((access_mode(mode, old), access_mode(mode, new)), (before, after), "{mode:?}");
        }
    }

    #[test]
    fn the_group_policy_decides_with_the_volume() {
        let source = |fs_type: &str, mode: &str| Source {
            fs_type: fs_type.into(),
            access_modes: vec![mode.into()],
            ..Source::default()
        };
        let (disk, shared, bare) =
            (source("ext4", "ReadWriteOnce"), source("ext4", "ReadWriteMany"), source("", "ReadWriteOnce"));
        for (policy, expect) in [
            (None, [true, false, false]),
            (Some("ReadWriteOnceWithFSType"), [true, false, false]),
            (Some("File"), [true, true, true]),
            (Some("None"), [false, false, false]),
        ] {
            assert_eq!([&disk, &shared, &bare].map(|source| source.takes_group(policy)), expect, "{policy:?}");
        }
        let read_only = Source { read_only: true, ..disk.clone() };
        let device = Source { block: true, ..disk };
        assert!(!read_only.takes_group(Some("File")) && !device.takes_group(Some("File")));
    }

    #[test]
    fn a_driver_has_the_kinds_of_volumes_that_it_names() {
        let driver = |modes: &[&str]| -> CSIDriver {
            serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {"volumeLifecycleModes": modes}})).unwrap()
        };
        let lasting = Source { driver: "d".into(), ..Source::default() };
        let passing = Source { ephemeral: true, ..lasting.clone() };
        let ok = |source: &Source, modes: &[&str]| source.check_lifecycle(Some(&driver(modes))).is_ok();
        assert!(ok(&lasting, &[]) && ok(&lasting, &["Persistent"]) && !ok(&lasting, &["Ephemeral"]));
        assert!(!ok(&passing, &[]) && ok(&passing, &["Persistent", "Ephemeral"]));
        assert!(lasting.check_lifecycle(None).is_ok() && passing.check_lifecycle(None).is_err());
        let why = passing.check_lifecycle(Some(&driver(&["Persistent"]))).unwrap_err();
        assert_eq!(why, "volume mode \"Ephemeral\" not supported by driver d (only supports [\"Persistent\"])");
    }
}
