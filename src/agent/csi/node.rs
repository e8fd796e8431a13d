//! Effects: what the cluster knows of the drivers of this node: its CSINode, and labels and an annotation of its Node
//! (`pkg/volume/csi/nodeinfomanager`).

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, VolumeNodeResources};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::v1::NodeGetInfoResponse;
use crate::agent::context::NodeContext;
use crate::client::request;

/// Drivers of the node and who it is to them, as JSON.
const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";
/// Between attempts to write what somebody else writes too.
const RETRIES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(250)];

/// A driver as it registers: `(name, what it says of the node)`; `None` when it goes.
type Change<'a> = (&'a str, Option<&'a NodeGetInfoResponse>);

/// The driver is on this node now.
pub(super) async fn install(cx: &NodeContext, driver: &str, info: &NodeGetInfoResponse) -> Result<(), String> {
    if info.node_id.is_empty() {
        return Err("error adding CSI driver node info: driverNodeID must not be empty".into());
    }
    let change = (driver, Some(info));
    retried(|| in_node(cx, change))
        .await
        .map_err(|e| format!("error updating Node object with CSI driver node info: {e}"))?;
    retried(|| in_csi_node(cx, change))
        .await
        .map_err(|e| format!("error updating CSINode object with CSI driver node info: {e}"))
}

/// The driver is gone. Its topology labels stay, as upstream's do: volumes may still be bound by them.
pub(super) async fn uninstall(cx: &NodeContext, driver: &str) -> Result<(), String> {
    let change = (driver, None);
    retried(|| in_csi_node(cx, change))
        .await
        .map_err(|e| format!("error uninstalling CSI driver from CSINode object {e}"))?;
    retried(|| in_node(cx, change))
        .await
        .map_err(|e| format!("error removing CSI driver node info from Node object {e}"))
}

async fn retried<F: Future<Output = Result<(), String>>>(attempt: impl Fn() -> F) -> Result<(), String> {
    let mut last = Ok(());
    for delay in RETRIES {
        tokio::time::sleep(delay).await;
        last = attempt().await;
        if last.is_ok() {
            break;
        }
    }
    last
}

fn text(error: kube::Error) -> String {
    request::Error::from(error).to_string()
}

async fn in_node(cx: &NodeContext, change: Change<'_>) -> Result<(), String> {
    let api: Api<Node> = Api::all(cx.client.clone());
    let name = &cx.config.node_name;
    let node = api.get(name).await.map_err(text)?;
    let Some(metadata) = node_change(&node, change)? else { return Ok(()) };
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    api.patch(name, &PatchParams::default(), &patch).await.map(drop).map_err(text)
}

/// What of the Node's metadata is to change.
fn node_change(node: &Node, (driver, info): Change<'_>) -> Result<Option<Value>, String> {
    let annotation = node.metadata.annotations.as_ref().and_then(|all| all.get(NODE_IDS)).map(String::as_str);
    let before: BTreeMap<String, String> = match annotation {
        None | Some("") => BTreeMap::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| format!("failed to parse node's {NODE_IDS:?} annotation value ({text:?}) err={error}"))?,
    };
    let mut ids = before.clone();
    match info {
        Some(info) => ids.insert(driver.to_owned(), info.node_id.clone()),
        None => ids.remove(driver),
    };
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let mut new_labels = BTreeMap::new();
    for (key, value) in info.and_then(|info| info.accessible_topology.as_ref()).iter().flat_map(|t| &t.segments) {
        match labels.get(key) {
            Some(same) if same == value => {}
            Some(other) => {
                return Err(format!(
                    "detected topology value collision: driver reported {key:?}:{value:?} but existing label is {key:?}:{other:?}"
                ));
            }
            None => drop(new_labels.insert(key, value)),
        }
    }
    if ids == before && new_labels.is_empty() {
        return Ok(None);
    }
    let ids = (!ids.is_empty()).then(|| json!(ids).to_string());
    Ok(Some(json!({"annotations": {NODE_IDS: ids}, "labels": new_labels})))
}

/// Makes the node's CSINode, which says that no driver is there until one is, unless it has one; and tells of volumes in
/// use, if the API knows of others. What fails is done with the first driver, or the next volume.
pub async fn ensure_csi_node(cx: &NodeContext) {
    let attempt = async {
        let nodes: Api<Node> = Api::all(cx.client.clone());
        let node = nodes.get(&cx.config.node_name).await.map_err(text)?;
        cx.csi.note_told(&node).await;
        super::in_use::tell(cx).await?;
        match csi_nodes(cx).get_opt(&cx.config.node_name).await.map_err(text)? {
            Some(_) => Ok(()),
            None => create(cx).await.map(drop),
        }
    };
    if let Err(error) = attempt.await {
        tracing::warn!(error, "CSINode not made");
    }
}

fn csi_nodes(cx: &NodeContext) -> Api<CSINode> {
    Api::all(cx.client.clone())
}

async fn create(cx: &NodeContext) -> Result<CSINode, String> {
    let name = &cx.config.node_name;
    let nodes: Api<Node> = Api::all(cx.client.clone());
    let uid = nodes.get(name).await.map_err(text)?.metadata.uid;
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid});
    let new = json!({"metadata": {"name": name, "ownerReferences": [owner]}, "spec": {"drivers": []}});
    let new: CSINode = serde_json::from_value(new).map_err(|error| error.to_string())?;
    csi_nodes(cx).create(&PostParams::default(), &new).await.map_err(text)
}

async fn in_csi_node(cx: &NodeContext, change: Change<'_>) -> Result<(), String> {
    let api = csi_nodes(cx);
    let name = &cx.config.node_name;
    let found = match api.get_opt(name).await.map_err(text)? {
        Some(found) => found,
        None if change.1.is_none() => return Ok(()),
        None => create(cx).await?,
    };
    let Some(drivers) = drivers_after(&found.spec.drivers, change) else { return Ok(()) };
    // A list is replaced whole: the revision keeps others' drivers from being lost.
    let patch = json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "spec": {"drivers": drivers}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop).map_err(text)
}

/// The drivers of the CSINode; `None` when they are right already.
fn drivers_after(before: &[CSINodeDriver], (name, info): Change<'_>) -> Option<Vec<CSINodeDriver>> {
    let mut drivers: Vec<CSINodeDriver> = before.iter().filter(|driver| driver.name != name).cloned().collect();
    if let Some(info) = info {
        let topology = info.accessible_topology.as_ref();
        let mut keys: Vec<String> = topology.iter().flat_map(|topology| topology.segments.keys().cloned()).collect();
        keys.sort_unstable();
        // More than the field holds is as good as the most that it holds.
        let count =
            (info.max_volumes_per_node > 0).then(|| i32::try_from(info.max_volumes_per_node).unwrap_or(i32::MAX));
        drivers.push(CSINodeDriver {
            name: name.to_owned(),
            node_id: info.node_id.clone(),
            topology_keys: (!keys.is_empty()).then_some(keys),
            allocatable: count.map(|count| VolumeNodeResources { count: Some(count) }),
        });
    }
    let same = drivers.len() == before.len() && drivers.iter().all(|driver| before.contains(driver));
    (!same).then_some(drivers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::csi::v1::Topology;

    fn info(topology: &[(&str, &str)], max: i64) -> NodeGetInfoResponse {
        let segments = topology.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        NodeGetInfoResponse {
            node_id: "id".into(),
            max_volumes_per_node: max,
            accessible_topology: Some(Topology { segments }),
        }
    }

    #[test]
    fn a_node_is_annotated_and_labelled_and_collisions_are_refused() {
        let node = |value: Value| -> Node { serde_json::from_value(json!({ "metadata": value })).unwrap() };
        let here = info(&[("zone", "a")], 0);
        let told = node_change(&node(json!({})), ("d", Some(&here))).unwrap().unwrap();
        assert_eq!(told, json!({"annotations": {NODE_IDS: "{\"d\":\"id\"}"}, "labels": {"zone": "a"}}));
        let labelled = node(json!({"labels": {"zone": "a"}, "annotations": {NODE_IDS: "{\"d\":\"id\"}"}}));
        assert_eq!(node_change(&labelled, ("d", Some(&here))), Ok(None));
        let gone = node_change(&labelled, ("d", None)).unwrap().unwrap();
        assert_eq!(gone, json!({"annotations": {NODE_IDS: null}, "labels": {}}));
        let other = node(json!({"labels": {"zone": "b"}}));
        assert!(node_change(&other, ("d", Some(&here))).unwrap_err().starts_with("detected topology value collision"));
        assert!(node_change(&node(json!({"annotations": {NODE_IDS: "no"}})), ("d", None)).is_err());
    }

    #[test]
    fn drivers_are_added_replaced_and_removed() {
        let here = info(&[("zone", "a"), ("rack", "1")], i64::from(i32::MAX) + 1);
        let one = drivers_after(&[], ("d", Some(&here))).unwrap();
        let expect = json!([{"name": "d", "nodeID": "id", "topologyKeys": ["rack", "zone"], "allocatable": {"count": i32::MAX}}]);
        assert_eq!(json!(one), expect);
        assert_eq!(drivers_after(&one, ("d", Some(&here))), None);
        assert_eq!(drivers_after(&one, ("d", None)), Some(Vec::new()));
        assert_eq!(drivers_after(&one, ("e", None)), None);
        let without = drivers_after(&one, ("d", Some(&info(&[], 0)))).unwrap();
        assert_eq!(json!(without), json!([{"name": "d", "nodeID": "id"}]));
    }
}
