//! Effects: `metrics.k8s.io`: what nodes and pods use, asked of the nodes when somebody asks here (as metrics-server
//! answers it). Nothing is kept and nothing is collected by the clock. Who installs a server of their own for the group
//! has that one answer.

use std::collections::HashMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use http::header::HOST;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use super::body::{self, Body};
use super::negotiate::{self, Offer};
use super::service::Call;
use super::{options, respond};
use crate::api::object::ObjectRef;
use crate::api::resource::MEASURED_GROUP;
use crate::api::selector::LabelSelector;
use crate::api::status::Status;
use crate::server::registry::request::Target;

const VERSION: &str = "metrics.k8s.io/v1beta1";
/// A node that does not answer in this time is left out.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nodes that are asked at once.
const AT_ONCE: usize = 16;
/// The longest summary, in bytes: some hundred pods.
const SUMMARY_MAX: usize = 4 << 20;

/// `GET` of one or all.
pub(super) async fn run(call: &Call<'_>, target: &Target) -> Result<Response<Body>, Status> {
    let format = negotiate::negotiate(call.headers, call.query, Offer::Plain)?;
    let objects = call.backend.aggregator.objects();
    let pods = target.resource.plural == "pods";
    let storage = if pods { "pods" } else { "nodes" };
    let document = if target.name.is_empty() {
        let options = options::list(call.query, target.resource, false)?;
        let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
        let named = call.query.first("fieldSelector").and_then(|f| f.strip_prefix("metadata.name="));
        let mut wanted = objects.list(storage, namespace);
        wanted.retain(|o| named.is_none_or(|n| *o.key.name == *n) && selected(o, &options.labels));
        let items = measure(call, pods, &wanted).await;
        json!({ "kind": format!("{}List", target.resource.kind), "apiVersion": VERSION, "metadata": {}, "items": items })
    } else {
        let missing = || {
            let of = if pods { format!("{}/{}", target.namespace, target.name) } else { target.name.clone() };
            let resource = target.resource.kind.to_lowercase();
            Status::new(404, "NotFound", format!("{resource}.{MEASURED_GROUP} {of:?} not found"))
        };
        let found = objects.get(storage, &target.namespace, &target.name).ok_or_else(missing)?;
        let mut one = measure(call, pods, &[found]).await.pop().ok_or_else(missing)?;
        one["kind"] = target.resource.kind.into();
        one["apiVersion"] = VERSION.into();
        one
    };
    Ok(respond::document(StatusCode::OK, document.to_string(), format))
}

fn selected(object: &ObjectRef, selector: &LabelSelector) -> bool {
    if selector.is_everything() {
        return true;
    }
    let value = object.value().unwrap_or_default();
    selector.matches(|key| value["metadata"]["labels"][key].as_str())
}

/// By the nodes that are concerned; what nobody says anything of is left out.
async fn measure(call: &Call<'_>, pods: bool, wanted: &[ObjectRef]) -> Vec<Value> {
    let wanted: Vec<Value> = wanted.iter().filter_map(|o| o.value().ok()).collect();
    let node_of = |o: &Value| {
        if pods { o["spec"]["nodeName"].as_str() } else { o["metadata"]["name"].as_str() }.map(str::to_owned)
    };
    let mut nodes: Vec<String> = wanted.iter().filter_map(node_of).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let asked = stream::iter(nodes).map(|node| async move {
        let summary = tokio::time::timeout(PATIENCE, summary(call, &node)).await;
        match summary.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}"))) {
            Ok(summary) => Some((node, summary)),
            Err(error) => {
                tracing::debug!(node, error, "a node does not say what it uses");
                None
            }
        }
    });
    let summaries: HashMap<String, Value> =
        asked.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    wanted
        .iter()
        .filter_map(|object| {
            let summary = summaries.get(&node_of(object)?)?;
            if pods { of_pod(object, summary) } else { of_node(object, summary) }
        })
        .collect()
}

async fn summary(call: &Call<'_>, node: &str) -> Result<Value, String> {
    let endpoint = call.kubelet_of(node).await.map_err(|e| e.message().to_owned())?.endpoint();
    let request =
        Request::get("/stats/summary?only_cpu_and_memory=true").header(HOST, &endpoint.address).body(body::empty());
    let request = request.map_err(|e| e.to_string())?;
    let answer = call.backend.nodes.send(&endpoint, request).await.map_err(|e| e.to_string())?;
    let code = answer.status();
    let text = Limited::new(answer.into_body(), SUMMARY_MAX).collect().await.map_err(|e| e.to_string())?.to_bytes();
    if code != StatusCode::OK {
        return Err(format!("{code}: {}", String::from_utf8_lossy(&text)));
    }
    serde_json::from_slice(&text).map_err(|e| e.to_string())
}

fn of_node(node: &Value, summary: &Value) -> Option<Value> {
    let used = &summary["node"];
    let mut document = head(node, used, summary);
    document["usage"] = usage(used)?;
    Some(document)
}

fn of_pod(pod: &Value, summary: &Value) -> Option<Value> {
    let uid = &pod["metadata"]["uid"];
    let used = summary["pods"].as_array()?.iter().find(|p| p["podRef"]["uid"] == *uid)?;
    let of_container = |c: &Value| Some(json!({ "name": c["name"], "usage": usage(c)? }));
    let containers: Vec<Value> = used["containers"].as_array()?.iter().filter_map(of_container).collect();
    let mut document = head(pod, used, summary);
    document["containers"] = containers.into();
    Some(document)
}

fn head(object: &Value, used: &Value, summary: &Value) -> Value {
    let meta = &object["metadata"];
    let mut document = json!({
        "metadata": { "name": meta["name"], "creationTimestamp": used["cpu"]["time"] },
        "timestamp": used["cpu"]["time"],
        "window": format!("{:.3}s", summary["windowSeconds"].as_f64().unwrap_or_default()),
    });
    for field in ["namespace", "labels"] {
        if !meta[field].is_null() {
            document["metadata"][field] = meta[field].clone();
        }
    }
    document
}

/// As metrics-server writes amounts.
fn usage(of: &Value) -> Option<Value> {
    let (cpu, memory) = (of["cpu"]["usageNanoCores"].as_u64()?, of["memory"]["workingSetBytes"].as_u64()?);
    Some(json!({ "cpu": format!("{cpu}n"), "memory": format!("{}Ki", memory / 1024) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_becomes_the_metrics_of_nodes_and_pods() {
        let used = |cpu: u64, memory: u64| {
            json!({ "name": "c", "cpu": { "time": "2026-01-01T00:00:00Z", "usageNanoCores": cpu },
            "memory": { "workingSetBytes": memory } })
        };
        let mut pod = used(1, 2);
        pod["podRef"] = json!({ "uid": "u" });
        pod["containers"] = json!([used(250_000_000, 1 << 20), { "name": "unknown" }]);
        let summary = json!({ "node": used(1_500_000_000, 1 << 30), "pods": [pod], "windowSeconds": 10.5 });
        let node = json!({ "metadata": { "name": "n1", "labels": { "a": "b" } } });
        assert_eq!(
            of_node(&node, &summary),
            Some(
                json!({ "metadata": { "name": "n1", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": { "a": "b" } },
                "timestamp": "2026-01-01T00:00:00Z", "window": "10.500s",
                "usage": { "cpu": "1500000000n", "memory": "1048576Ki" } })
            )
        );
        let pod = |uid: &str| json!({ "metadata": { "name": "p", "namespace": "ns", "uid": uid } });
        assert_eq!(
            of_pod(&pod("u"), &summary).unwrap()["containers"],
            json!([{ "name": "c", "usage": { "cpu": "250000000n", "memory": "1024Ki" } }])
        );
        assert_eq!(of_pod(&pod("another"), &summary), None);
        assert_eq!(of_node(&node, &json!({})), None);
    }
}
