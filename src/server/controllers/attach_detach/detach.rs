//! Decides: what a node is told to have, and what is taken from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::{Value, json};

use super::wanted::{PLUGIN, attachment_name, csi, unique_name, used_on};
use super::{ATTACHMENTS, note};
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Plan, Write};
use crate::server::controllers::stores::{Stores, row};

/// After this a node that is not ready, or gone, loses what it may still have mounted (upstream's
/// `ReconcilerMaxWaitForUnmountDuration`).
const PATIENCE: Duration = Duration::from_mins(6);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// `since`: when it was first seen that a volume is to be detached, by unique name.
pub fn plan(stores: &Stores, name: &str, since: &mut BTreeMap<String, Timestamp>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let node = stores.nodes.get("", name);
    let listed = node.as_deref().map(listed).unwrap_or_default();
    let there = attachments(stores, name, &listed);
    if there.is_empty() && listed.is_empty() {
        since.clear();
        return plan;
    }
    let used = used_on(stores, name);
    let known: BTreeSet<&str> = there.keys().map(String::as_str).chain(listed.iter().copied()).collect();
    since.retain(|volume, _| !used.contains_key(volume) && known.contains(volume.as_str()));
    let mut leaving: BTreeSet<&str> = BTreeSet::new();
    for volume in known.into_iter().filter(|volume| !used.contains_key(*volume)) {
        let begun = *since.entry(volume.to_owned()).or_insert(now);
        match held(node.as_deref(), volume, begun, now) {
            Held::No => drop(leaving.insert(volume)),
            Held::Until(left) => plan.look_after(left),
            Held::WhileMounted => {}
        }
    }
    let attached = |a: &VolumeAttachment| a.status.as_ref().is_some_and(|s| s.attached) && !a.metadata.deleting();
    let ours = there.iter().filter(|(volume, a)| attached(a) && !leaving.contains(volume.as_str()));
    let lists: BTreeSet<&str> = ours.map(|(volume, _)| volume.as_str()).collect();
    if let Some(node) = node.as_deref().filter(|_| lists != listed) {
        plan.push(write(node, &lists));
        for used in lists.difference(&listed).filter_map(|added| used.get(*added)) {
            let text = format!("AttachVolume.Attach succeeded for volume {:?} ", used.name);
            plan.actions.extend(used.by.iter().map(|pod| note(pod, false, "SuccessfulAttachVolume", text.clone())));
        }
    }
    for attachment in leaving.iter().filter(|volume| !listed.contains(*volume)).filter_map(|v| there.get(*v)) {
        if !attachment.metadata.deleting() {
            let meta = &attachment.metadata;
            plan.push(Write::delete(Request::delete(row(ATTACHMENTS), "", meta.name(), meta.uid())));
        }
    }
    plan
}

fn listed(node: &Node) -> BTreeSet<&str> {
    let volumes = node.status.iter().flat_map(|s| s.volumes_attached.iter().flatten());
    volumes.map(|volume| volume.name.as_str()).collect()
}

/// Our attachments to a node, by the unique names of their volumes. One whose volume is gone is known by what the node
/// lists.
fn attachments(stores: &Stores, node: &str, listed: &BTreeSet<&str>) -> BTreeMap<String, Arc<VolumeAttachment>> {
    let name = |attachment: &VolumeAttachment| {
        let volume = attachment.spec.source.persistent_volume_name.as_deref()?;
        let volume = stores.volumes.get("", volume);
        let known = volume.as_deref().and_then(csi).map(unique_name);
        let mut names = known.iter().map(String::as_str).chain(listed.iter().copied());
        let named = |name: &&str| {
            let parts = name.strip_prefix(PLUGIN).and_then(|rest| rest.split_once('^'));
            parts.is_some_and(|(driver, handle)| attachment_name(handle, driver, node) == attachment.metadata.name())
        };
        names.find(named).map(ToOwned::to_owned)
    };
    let of_node = stores.attachments.all().into_iter().filter(|a| a.spec.node_name == node);
    of_node.filter_map(|a| Some((name(&a)?, a))).collect()
}

/// Whether a node still holds on to a volume.
enum Held {
    No,
    WhileMounted,
    Until(Duration),
}

fn held(node: Option<&Node>, volume: &str, begun: Timestamp, now: Timestamp) -> Held {
    let mounted = |node: &Node| {
        node.status.as_ref().and_then(|s| s.volumes_in_use.as_ref()).is_some_and(|all| all.iter().any(|v| v == volume))
    };
    // Of a node that is gone nothing is known.
    if node.is_some_and(|node| !mounted(node) || is_out_of_service(node)) {
        return Held::No;
    }
    if node.is_some_and(is_ready) {
        return Held::WhileMounted;
    }
    let waited = Duration::try_from(now.duration_since(begun)).unwrap_or_default();
    if waited >= PATIENCE { Held::No } else { Held::Until(PATIENCE - waited) }
}

pub fn is_ready(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Someone has seen to it that nothing runs there any more.
pub fn is_out_of_service(node: &Node) -> bool {
    node.spec.iter().flat_map(|s| s.taints.iter().flatten()).any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Nobody else writes that list, and this key alone does: whatever else has changed of the node is no matter.
fn write(node: &Node, lists: &BTreeSet<&str>) -> Write {
    let volumes: Vec<Value> = lists.iter().map(|name| json!({ "name": name, "devicePath": "" })).collect();
    let volumes = if volumes.is_empty() { Value::Null } else { Value::Array(volumes) };
    let body = json!({ "metadata": { "uid": node.metadata.uid }, "status": { "volumesAttached": volumes } });
    Write::new(Request::new(Verb::MergePatch, row("nodes"), "", node.metadata.name(), body).on("status"))
}
