//! Decides: what a PersistentVolume gets when it does not say (`SetDefaults_*` of `pkg/apis/core/v1/defaults.go`).

use k8s_openapi::api::core::v1::PersistentVolumeSpec;

use crate::server::registry::core::pod::defaults::fill;
use crate::server::registry::quantity;

/// The spec of an object of its own.
pub fn volume(spec: &mut PersistentVolumeSpec) {
    fill(&mut spec.persistent_volume_reclaim_policy, "Retain");
    spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    self::spec(spec);
}

/// Any spec, that of an inline volume too.
pub fn spec(spec: &mut PersistentVolumeSpec) {
    quantity::canonical_list(&mut spec.capacity);
    if let Some(path) = &mut spec.host_path {
        path.type_.get_or_insert_default();
    }
    if let Some(rbd) = &mut spec.rbd {
        fill(&mut rbd.pool, "rbd");
        fill(&mut rbd.user, "admin");
        fill(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(iscsi) = &mut spec.iscsi {
        fill(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(disk) = &mut spec.azure_disk {
        disk.caching_mode.get_or_insert_with(|| "ReadWrite".into());
        disk.kind.get_or_insert_with(|| "Shared".into());
        disk.fs_type.get_or_insert_with(|| "ext4".into());
        disk.read_only.get_or_insert(false);
    }
    if let Some(scale) = &mut spec.scale_io {
        fill(&mut scale.storage_mode, "ThinProvisioned");
        fill(&mut scale.fs_type, "xfs");
    }
}
