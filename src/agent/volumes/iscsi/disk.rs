//! Types and decides: an iSCSI disk, as a pod or a PersistentVolume names it.

use std::net::Ipv6Addr;

use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Volume};
use serde::{Deserialize, Serialize};

use crate::agent::csi::hex;
use crate::agent::pod::namespace;

const DEFAULT_INTERFACE: &str = "default";
const PORT: &str = "3260";

/// What is remembered of it on disk; there are no secrets in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Disk {
    /// As events name it: the PersistentVolume, or the pod's volume where there is none.
    pub volume: String,
    /// With their ports; the first is the target portal.
    pub portals: Vec<String>,
    pub iqn: String,
    pub lun: i32,
    /// Of open-iscsi, as it is configured on the node.
    pub interface: String,
    /// An interface of its own then, which is a copy of `interface` with this name of the initiator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    pub block: bool,
    /// The portals at which an agent logged in, for this volume or another one: sessions of others stay.
    pub ours: Vec<String>,
}

/// One disk, as one pod wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::agent::volumes) struct Wanted {
    pub(super) disk: Disk,
    pub(super) fs_type: String,
    pub(super) mount_options: Vec<String>,
    pub(super) chap_discovery: bool,
    pub(super) chap_session: bool,
    /// Namespace and name.
    pub(super) secret: Option<(String, String)>,
    pub(in crate::agent::volumes) read_only: bool,
}

impl Wanted {
    /// As events name it.
    pub(in crate::agent::volumes) fn volume(&self) -> &str {
        &self.disk.volume
    }

    pub(in crate::agent::volumes) fn block(&self) -> bool {
        self.disk.block
    }
}

/// The disk that a pod names itself; `None` for volumes of other types.
pub(in crate::agent::volumes) fn inline(pod: &Pod, volume: &Volume) -> Option<Wanted> {
    let source = volume.iscsi.clone()?;
    Some(Wanted {
        disk: Disk {
            volume: volume.name.clone(),
            portals: portals(&source.target_portal, source.portals.as_deref()),
            iqn: source.iqn,
            lun: source.lun,
            interface: interface(source.iscsi_interface),
            initiator: source.initiator_name,
            ..Disk::default()
        },
        fs_type: source.fs_type.unwrap_or_default(),
        mount_options: Vec::new(),
        chap_discovery: source.chap_auth_discovery == Some(true),
        chap_session: source.chap_auth_session == Some(true),
        secret: source.secret_ref.map(|secret| (namespace(pod).to_owned(), secret.name)),
        read_only: source.read_only == Some(true),
    })
}

/// The disk of a PersistentVolume, which a pod may want to read only; `None` for volumes of other types.
pub(in crate::agent::volumes) fn persistent(
    pod: &Pod,
    volume: &PersistentVolume,
    mount_options: Vec<String>,
    read_only: bool,
) -> Option<Wanted> {
    let spec = volume.spec.as_ref()?;
    let source = spec.iscsi.clone()?;
    let of_pod = || namespace(pod).to_owned();
    Some(Wanted {
        disk: Disk {
            volume: volume.metadata.name.clone().unwrap_or_default(),
            portals: portals(&source.target_portal, source.portals.as_deref()),
            iqn: source.iqn,
            lun: source.lun,
            interface: interface(source.iscsi_interface),
            initiator: source.initiator_name,
            block: spec.volume_mode.as_deref() == Some("Block"),
            ours: Vec::new(),
        },
        fs_type: source.fs_type.unwrap_or_default(),
        mount_options,
        chap_discovery: source.chap_auth_discovery == Some(true),
        chap_session: source.chap_auth_session == Some(true),
        secret: source.secret_ref.and_then(|secret| {
            let namespace = secret.namespace.filter(|namespace| !namespace.is_empty()).unwrap_or_else(of_pod);
            Some((namespace, secret.name?))
        }),
        read_only: read_only || source.read_only == Some(true),
    })
}

fn interface(given: Option<String>) -> String {
    given.filter(|given| !given.is_empty()).unwrap_or_else(|| DEFAULT_INTERFACE.to_owned())
}

/// Each once, with a port.
fn portals(first: &str, others: Option<&[String]>) -> Vec<String> {
    let mut portals: Vec<String> = Vec::new();
    for given in std::iter::once(first).chain(others.into_iter().flatten().map(String::as_str)) {
        let portal = with_port(given);
        if !given.is_empty() && !portals.contains(&portal) {
            portals.push(portal);
        }
    }
    portals
}

fn with_port(portal: &str) -> String {
    if portal.parse::<Ipv6Addr>().is_ok() {
        return format!("[{portal}]:{PORT}");
    }
    match portal.ends_with(']') || !portal.contains(':') {
        true => format!("{portal}:{PORT}"),
        false => portal.to_owned(),
    }
}

/// Address and port, without what one may write or leave out.
pub(super) fn endpoint(portal: &str) -> (String, String) {
    let (address, port) = portal.rsplit_once(':').unwrap_or((portal, PORT));
    (bare(address), port.to_owned())
}

pub(super) fn bare(address: &str) -> String {
    let address = address.trim_start_matches('[').trim_end_matches(']');
    address.parse::<Ipv6Addr>().map_or_else(|_| address.to_owned(), |address| address.to_string())
}

impl Disk {
    /// The interface that its sessions go over.
    pub fn session_interface(&self) -> String {
        match (&self.initiator, self.portals.first()) {
            (Some(_), Some(portal)) => format!("{portal}:{}", self.volume),
            _ => self.interface.clone(),
        }
    }

    /// Volumes of one key are one disk on this node.
    pub fn key(&self) -> String {
        let portal = self.portals.first().map_or("", String::as_str);
        let mode = if self.block { "block" } else { "filesystem" };
        hex(&format!("{portal} {} {} {} {mode}", self.iqn, self.lun, self.session_interface()))
    }

    /// Whether the other one needs the session at the portal, too.
    pub fn shares_session(&self, portal: &str, other: &Disk) -> bool {
        let at = endpoint(portal);
        self.iqn == other.iqn
            && self.session_interface() == other.session_interface()
            && other.portals.iter().any(|portal| endpoint(portal) == at)
    }

    /// Whether the other one is the same disk to the kernel, however it is used.
    pub fn same_unit(&self, other: &Disk) -> bool {
        self.iqn == other.iqn && self.lun == other.lun
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_disk_of_a_pod() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {
            "containers": [], "volumes": [{"name": "data", "iscsi": {"targetPortal": "192.0.2.1", "lun": 3,
                "portals": ["192.0.2.2:3261", "192.0.2.1:3260", "2001:db8::1", "[2001:db8::2]"],
                "iqn": "iqn.2001-04.com.example:disk", "fsType": "xfs", "readOnly": true,
                "chapAuthSession": true, "secretRef": {"name": "chap"}, "initiatorName": "iqn.2001-04.com.example:me"}},
                {"name": "other", "emptyDir": {}}]}}))
        .unwrap();
        let volumes = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap();
        let wanted = inline(&pod, &volumes[0]).unwrap();
        let portals = ["192.0.2.1:3260", "192.0.2.2:3261", "[2001:db8::1]:3260", "[2001:db8::2]:3260"];
        assert_eq!(wanted.disk.portals, portals);
        assert_eq!((wanted.disk.lun, wanted.disk.interface.as_str()), (3, "default"));
        assert_eq!(wanted.disk.session_interface(), "192.0.2.1:3260:data");
        assert_eq!(wanted.secret, Some(("ns".into(), "chap".into())));
        assert!(wanted.read_only && wanted.chap_session && !wanted.chap_discovery && !wanted.block());
        assert_eq!(inline(&pod, &volumes[1]), None);
    }

    #[test]
    fn a_disk_of_a_persistent_volume() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}})).unwrap();
        let volume = |secret: serde_json::Value| -> PersistentVolume {
            serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": {"volumeMode": "Block", "iscsi": {
                "targetPortal": "192.0.2.1:3260", "lun": 0, "iqn": "iqn.2001-04.com.example:disk",
                "iscsiInterface": "eth1", "chapAuthDiscovery": true, "secretRef": secret}}}))
            .unwrap()
        };
        let own = volume(json!({"name": "chap", "namespace": "storage"}));
        let wanted = persistent(&pod, &own, vec!["noatime".into()], true).unwrap();
        assert_eq!((wanted.volume(), wanted.disk.session_interface().as_str()), ("pv", "eth1"));
        assert_eq!(wanted.secret, Some(("storage".into(), "chap".into())));
        assert!(wanted.block() && wanted.read_only && wanted.chap_discovery);
        let other = persistent(&pod, &volume(json!({"name": "chap"})), Vec::new(), false).unwrap();
        assert_eq!(other.secret, Some(("ns".into(), "chap".into())), "the pod's namespace");
        assert!(!other.read_only);
        assert_eq!(wanted.disk.key(), other.disk.key(), "one disk for both");
    }

    #[test]
    fn sessions_are_shared_by_target_portal_and_interface() {
        let disk = |lun, portals: &[&str], interface: &str| Disk {
            iqn: "iqn.2001-04.com.example:disk".into(),
            portals: portals.iter().map(|portal| (*portal).to_owned()).collect(),
            interface: interface.into(),
            lun,
            ..Disk::default()
        };
        let one = disk(0, &["192.0.2.1:3260", "[2001:db8::1]:3260"], "default");
        assert!(one.shares_session("192.0.2.1:3260", &disk(1, &["192.0.2.1:3260"], "default")));
        assert!(one.shares_session("[2001:db8::1]:3260", &disk(1, &["[2001:DB8:0::1]:3260"], "default")));
        assert!(!one.shares_session("192.0.2.1:3260", &disk(1, &["192.0.2.2:3260"], "default")));
        assert!(!one.shares_session("192.0.2.1:3260", &disk(1, &["192.0.2.1:3260"], "eth1")));
        assert!(one.same_unit(&disk(0, &["192.0.2.9:3260"], "eth1")) && !one.same_unit(&disk(1, &[], "default")));
        assert_eq!(endpoint("[2001:db8::1]:3260"), ("2001:db8::1".into(), "3260".into()));
    }
}
