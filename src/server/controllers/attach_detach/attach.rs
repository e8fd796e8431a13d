//! Decides: what is attached where, and what the pods that wait for it are told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{CSIPersistentVolumeSource, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::json;

use super::wanted::{attachment_name, csi, users};
use super::{ATTACHMENTS, COMPONENT, note};
use crate::client::request::{Class, Request};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Plan, Report, Write};
use crate::server::controllers::owners;
use crate::server::controllers::stores::{Stores, row};

/// A driver that has said nothing for this long is told of (upstream's `csiTimeout`).
const PATIENCE: Duration = Duration::from_mins(2);
const FAILED: &str = "FailedAttachVolume";

/// `told`: what was said last, by node.
pub fn plan(stores: &Stores, volume: &str, told: &mut BTreeMap<String, String>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(volume) = stores.volumes.get("", volume) else {
        told.clear();
        return plan;
    };
    let Some(csi) = csi(&volume) else { return plan };
    let users = users(stores, &volume);
    told.retain(|node, _| users.contains_key(node));
    let there = attachments(stores, csi);
    let exclusive = !is_shared(&volume);
    // Of several, the one whose pod came first.
    let mut nodes: Vec<&String> = users.keys().collect();
    nodes.sort_by_key(|node| users[*node][0].metadata.creation_timestamp.as_ref().map(|t| t.0));
    let mut taken = false;
    for node in nodes {
        let pods = &users[node];
        match there.get(node.as_str()) {
            // It is made anew when it is gone.
            Some(attachment) if attachment.metadata.deleting() => {}
            Some(attachment) => follow(attachment, &volume, csi, pods, told, now, &mut plan),
            None if exclusive && !there.is_empty() => {
                let settled = |a: &Arc<VolumeAttachment>| {
                    let status = a.status.as_ref();
                    !a.metadata.deleting() && status.is_some_and(|s| s.attached || s.attach_error.is_some())
                };
                if there.values().any(settled) && told.insert(node.clone(), "elsewhere".into()).is_none() {
                    let others =
                        users.iter().filter(|(n, _)| there.contains_key(n.as_str())).flat_map(|(_, pods)| pods);
                    let others: Vec<&str> = others.map(|pod| pod.metadata.name()).collect();
                    elsewhere(&volume, pods, &others, &mut plan);
                }
            }
            // The next plan sees how it goes with the one that was just made.
            None if exclusive && taken => {}
            None => {
                told.remove(node);
                plan.push(create(&volume, csi, node, &pods[0]));
                taken = true;
            }
        }
    }
    plan
}

/// Those of a volume, by node. Others than ours have other names.
fn attachments(stores: &Stores, csi: &CSIPersistentVolumeSource) -> HashMap<String, Arc<VolumeAttachment>> {
    let ours = |a: &Arc<VolumeAttachment>| {
        a.spec.attacher == csi.driver
            && a.metadata.name() == attachment_name(&csi.volume_handle, &csi.driver, &a.spec.node_name)
    };
    stores.attachments.all().into_iter().filter(ours).map(|a| (a.spec.node_name.clone(), a)).collect()
}

/// Several nodes may have it. Of a volume that does not say, its driver knows.
fn is_shared(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
    modes.is_empty() || modes.iter().any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany")
}

fn create(volume: &PersistentVolume, csi: &CSIPersistentVolumeSource, node: &str, pod: &Pod) -> Write {
    let body = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "metadata": { "name": attachment_name(&csi.volume_handle, &csi.driver, node) },
        "spec": { "attacher": csi.driver, "nodeName": node,
            "source": { "persistentVolumeName": volume.metadata.name } },
    });
    let why = "kubernetes.io/csi: attacher.Attach failed: {error}";
    let mut write = Write::new(Request::create(row(ATTACHMENTS), "", body)).reported(Report {
        regarding: owners::object_reference(row("pods"), &pod.metadata),
        component: COMPONENT,
        ok: None,
        failed: Some((FAILED, failure(volume, why))),
    });
    write.fine = &[Class::AlreadyExists];
    write
}

fn failure(volume: &PersistentVolume, why: &str) -> String {
    format!("AttachVolume.Attach failed for volume {:?} : {why}", volume.metadata.name())
}

/// Tells each error of the driver once, and each time that its patience is over.
fn follow(
    attachment: &VolumeAttachment,
    volume: &PersistentVolume,
    csi: &CSIPersistentVolumeSource,
    pods: &[Arc<Pod>],
    told: &mut BTreeMap<String, String>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let node = &attachment.spec.node_name;
    let status = attachment.status.clone().unwrap_or_default();
    if status.attached {
        told.remove(node);
        return;
    }
    let (mark, why) = if let Some(error) = status.attach_error {
        let why = error.message.unwrap_or_default();
        (format!("{:?} {why}", error.time), why)
    } else {
        let made = attachment.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
        let waited = Duration::try_from(now.duration_since(made)).unwrap_or_default();
        let times = waited.as_secs() / PATIENCE.as_secs();
        plan.look_after(PATIENCE.saturating_sub(Duration::from_secs(waited.as_secs() % PATIENCE.as_secs())));
        if times == 0 {
            return;
        }
        let why = format!(
            "timed out waiting for external-attacher of {} CSI driver to attach volume {}",
            csi.driver, csi.volume_handle
        );
        (times.to_string(), why)
    };
    if told.insert(node.clone(), mark.clone()) != Some(mark) {
        plan.actions.extend(pods.iter().map(|pod| note(pod, true, FAILED, failure(volume, &why))));
    }
}

/// Only one node can have it, and another has: with which pods, if any are left.
fn elsewhere(volume: &PersistentVolume, pods: &[Arc<Pod>], others: &[&str], plan: &mut Plan) {
    let why = if others.is_empty() {
        "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
    } else {
        format!("Volume is already used by pod(s) {}", others.join(", "))
    };
    let text = format!("Multi-Attach error for volume {:?} {why}", volume.metadata.name());
    plan.actions.extend(pods.iter().map(|pod| note(pod, true, FAILED, text.clone())));
}
