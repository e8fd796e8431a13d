//! Loop: what the Node says of devices: counts of plugins, told as they change; and resources that somebody wrote into
//! its capacity by hand, which are all allocatable.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::registration::is_extended;
use super::{Count, Counts};
use crate::agent::context::NodeContext;
use crate::client::reflector::{self, Event, Source};

const RETRY: Duration = Duration::from_secs(2);

type List = BTreeMap<String, String>;

/// Follows the Node and the devices until `stop`.
pub async fn run(cx: &NodeContext, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow(cx) => {}
    }
}

async fn follow(cx: &NodeContext) {
    let name = cx.config.node_name.as_str();
    let own = Source::of("nodes").fields(format!("metadata.name={name}"));
    let mut stream = pin!(reflector::typed::<Node>(cx.client.clone(), own));
    let mut counts = cx.devices.counts();
    let mut node: Option<Node> = None;
    let api: Api<Node> = Api::all(cx.client.clone());
    loop {
        let now = counts.borrow_and_update().clone();
        let mut failed = false;
        if let Some(present) = &node
            && let Some((capacity, allocatable)) = plan(present, &now)
        {
            let patch = Patch::Merge(json!({"status": {"capacity": capacity, "allocatable": allocatable}}));
            match api.patch_status(name, &PatchParams::default(), &patch).await {
                Ok(patched) => node = Some(patched),
                Err(error) => {
                    tracing::debug!(%error, "devices of the node not told");
                    failed = true;
                }
            }
        }
        tokio::select! {
            event = stream.next() => match event {
                None => return,
                Some(Event::Replace(mut listed, _)) => node = listed.pop(),
                Some(Event::Set(changed)) => node = Some(changed),
                Some(Event::Gone(_)) => node = None,
                Some(Event::Bookmark(_)) => {}
            },
            changed = counts.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}

/// What the Node's capacity and allocatable lack; `None` when they are right.
fn plan(node: &Node, counts: &Counts) -> Option<(List, List)> {
    let status = node.status.as_ref();
    let empty = BTreeMap::new();
    let has = |list: Option<&BTreeMap<String, Quantity>>, name: &str, value: &str| {
        list.unwrap_or(&empty).get(name).is_some_and(|Quantity(text)| text == value)
    };
    let (told, given) = (status.and_then(|s| s.capacity.as_ref()), status.and_then(|s| s.allocatable.as_ref()));
    let (mut capacity, mut allocatable) = (List::new(), List::new());
    for (name, Count { capacity: all, allocatable: some }) in counts {
        for (list, wanted, found) in [(&mut capacity, all, told), (&mut allocatable, some, given)] {
            if !has(found, name, &wanted.to_string()) {
                list.insert(name.clone(), wanted.to_string());
            }
        }
    }
    let others = told.into_iter().flatten().filter(|(name, _)| is_extended(name) && !counts.contains_key(*name));
    for (name, Quantity(text)) in others {
        if !has(given, name, text) {
            allocatable.insert(name.clone(), text.clone());
        }
    }
    (!capacity.is_empty() || !allocatable.is_empty()).then_some((capacity, allocatable))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(capacity: Value, allocatable: Value, counts: &[(&str, usize, usize)], expect: Value) {
        let node = json!({"status": {"capacity": capacity, "allocatable": allocatable}});
        let node = serde_json::from_value(node).expect("a node");
        let row = |(name, capacity, allocatable): &(&str, usize, usize)| {
            ((*name).to_owned(), Count { capacity: *capacity, allocatable: *allocatable })
        };
        let found = plan(&node, &counts.iter().map(row).collect());
        assert_eq!(json!(found), expect);
    }

    #[test]
    fn what_is_told() {
        let cpu = json!({"cpu": "2"});
        check(cpu.clone(), cpu.clone(), &[], Value::Null);
        check(cpu.clone(), cpu.clone(), &[("a.b/c", 2, 1)], json!([{"a.b/c": "2"}, {"a.b/c": "1"}]));
        check(json!({"a.b/c": "2"}), json!({"a.b/c": "1"}), &[("a.b/c", 2, 1)], Value::Null);
        check(json!({"a.b/c": "2"}), json!({"a.b/c": "1"}), &[("a.b/c", 2, 0)], json!([{}, {"a.b/c": "0"}]));
        // Somebody's own.
        check(json!({"a.b/c": "5"}), json!({}), &[], json!([{}, {"a.b/c": "5"}]));
        check(json!({"a.b/c": "5"}), json!({"a.b/c": "5"}), &[], Value::Null);
        // Not an extended resource.
        check(json!({"hugepages-2Mi": "4Mi"}), json!({"hugepages-2Mi": "2Mi"}), &[], Value::Null);
    }
}
