//! Decides: what the server is asked in a round, and what its answers say. Who wants an answer that is not there yet gets
//! an error and leaves a note: the plan asks, and is made again from the beginning.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::calculator::{Measured, PodMetrics};
use crate::api::duration;
use crate::api::quantity::Quantity;
use crate::api::query::encode;
use crate::api::resource::{RESOURCES, Resource};
use crate::api::selector::LabelSelector;
use crate::client::store::View as _;
use crate::server::controllers::stores::{Stores, row};

const CUSTOM: &str = "custom.metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";
/// Of the metrics of pods, the better one first.
const CUSTOM_VERSIONS: &[&str] = &["v1beta2", "v1beta1"];
/// What a custom metric is measured over when it does not say so.
const CUSTOM_WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// By path: an object, or why there is none.
pub type Answers = BTreeMap<String, Result<Value, String>>;

pub struct Asked<'a> {
    answers: &'a Answers,
    missing: RefCell<BTreeSet<String>>,
}

impl<'a> Asked<'a> {
    pub fn of(answers: &'a Answers) -> Self {
        Self { answers, missing: RefCell::default() }
    }

    /// What has to be asked before anything can be decided.
    pub fn missing(self) -> BTreeSet<String> {
        self.missing.into_inner()
    }

    /// # Errors
    /// What the server says instead of an answer. Of no consequence while something is missing.
    pub fn get(&self, path: String) -> Result<&'a Value, String> {
        match self.answers.get(&path) {
            Some(answer) => answer.as_ref().map_err(Clone::clone),
            None => {
                self.missing.borrow_mut().insert(path);
                Err(String::new())
            }
        }
    }
}

/// The row of a kind that is named with a version that need not be ours.
///
/// # Errors
/// When nobody serves such a kind.
pub fn kind_of(stores: &Stores, api_version: Option<&str>, kind: &str) -> Result<&'static Resource, String> {
    let api_version = api_version.unwrap_or_default();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let same = |row: &&'static Resource| row.group == group && row.kind == kind;
    let other = || {
        let custom = stores.custom();
        RESOURCES.iter().find(same).or_else(|| custom.iter().map(|s| s.resource()).find(same))
    };
    stores
        .kind(api_version, kind)
        .or_else(other)
        .ok_or_else(|| format!("no matches for kind {kind:?} in group {group:?}"))
}

/// `a=b&c=d` of what is not empty.
fn query(parameters: &[(&str, String)]) -> String {
    let said = parameters.iter().filter(|(_, value)| !value.is_empty());
    let parts: Vec<String> = said.map(|(name, value)| format!("{name}={}", encode(value))).collect();
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

/// The whole pods that a selector selects.
pub fn pods(asked: &Asked<'_>, namespace: &str, selector: &LabelSelector) -> Result<Vec<Arc<Pod>>, String> {
    let path = row("pods").path(Some(namespace));
    let list = asked.get(format!("{path}{}", query(&[("labelSelector", selector.to_string())])))?;
    let pods = items(list).iter().map(|pod| serde_json::from_value(pod.clone()).map(Arc::new));
    pods.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

/// What the pods use of a resource, all their containers or one of them.
///
/// # Errors
/// In upstream's words.
pub fn of_resource(
    asked: &Asked<'_>,
    namespace: &str,
    selector: &LabelSelector,
    resource: &str,
    container: Option<&str>,
) -> Result<PodMetrics, String> {
    let selector = query(&[("labelSelector", selector.to_string())]);
    let list = asked
        .get(format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods{selector}"))
        .map_err(|error| format!("unable to fetch metrics from resource metrics API: {error}"))?;
    if items(list).is_empty() {
        return Err("no metrics returned from resource metrics API".into());
    }
    let mut metrics = PodMetrics::new();
    for pod in items(list) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let containers = pod["containers"].as_array().map_or(&[][..], Vec::as_slice);
        let of = |c: &Value| milli(&c["usage"][resource]);
        let used = match container {
            Some(wanted) => {
                let found = containers.iter().find(|c| c["name"] == wanted).ok_or_else(|| {
                    format!(
                        "failed to get container metrics: container {wanted} not present in metrics for pod {namespace}/{name}"
                    )
                })?;
                of(found)
            }
            None if containers.is_empty() => None,
            None => containers.iter().map(of).try_fold(0_i64, |sum, n| Some(sum.saturating_add(n?))),
        };
        if let Some(used) = used {
            let window = pod["window"].as_str().and_then(|w| duration::parse(w).ok()).unwrap_or_default();
            metrics.insert(name.to_owned(), measured(used, &pod["timestamp"], SignedDuration::from_nanos(window)));
        }
    }
    Ok(metrics)
}

fn milli(quantity: &Value) -> Option<i64> {
    Quantity::parse(quantity.as_str()?).ok().map(Quantity::milli)
}

fn measured(milli: i64, at: &Value, window: SignedDuration) -> Measured {
    let at = at.as_str().and_then(|t| t.parse().ok()).unwrap_or(Timestamp::MIN);
    Measured { milli, at, window }
}

/// A metric that an extension server has of objects of this cluster.
pub struct Custom<'a> {
    pub stores: &'a Stores,
    pub namespace: &'a str,
    pub metric: &'a str,
    /// Of the metric, as text.
    pub selector: String,
}

impl Custom<'_> {
    /// What the pods have of it.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn of_pods(&self, asked: &Asked<'_>, pods: &LabelSelector) -> Result<PodMetrics, String> {
        let query = query(&[("labelSelector", pods.to_string()), ("metricLabelSelector", self.selector.clone())]);
        let list = self
            .base()
            .and_then(|base| asked.get(format!("{base}/pods/*/{}{query}", encode(self.metric))))
            .map_err(|error| format!("unable to fetch metrics from custom metrics API: {error}"))?;
        if items(list).is_empty() {
            return Err("no metrics returned from custom metrics API".into());
        }
        let of = |item: &Value| {
            let name = item["describedObject"]["name"].as_str()?.to_owned();
            // `window` is what `v1beta1` calls it.
            let seconds = item["windowSeconds"].as_i64().or_else(|| item["window"].as_i64());
            let window = seconds.map_or(CUSTOM_WINDOW, SignedDuration::from_secs);
            Some((name, measured(milli(&item["value"])?, &item["timestamp"], window)))
        };
        Ok(items(list).iter().filter_map(of).collect())
    }

    /// What an object has of it, in thousandths.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn of_object(&self, asked: &Asked<'_>, object: &CrossVersionObjectReference) -> Result<i64, String> {
        let path = || -> Result<String, String> {
            let base = self.base()?;
            let (metric, query) = (encode(self.metric), query(&[("metricLabelSelector", self.selector.clone())]));
            let group = object.api_version.as_deref().and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
            // Of its own namespace, whatever name it gives.
            if object.kind == "Namespace" && group.is_empty() {
                return Ok(format!("{base}/metrics/{metric}{query}"));
            }
            let dot = if group.is_empty() { "" } else { "." };
            let row = kind_of(self.stores, object.api_version.as_deref(), &object.kind)
                .map_err(|error| format!("unable to map kind {}{dot}{group} to resource: {error}", object.kind))?;
            Ok(format!("{base}/{}{dot}{group}/{}/{metric}{query}", row.plural, encode(&object.name)))
        };
        let single = || {
            let list = items(asked.get(path()?)?);
            let [only] = list else {
                let count = list.len();
                return Err(format!(
                    "the custom metrics API server returned {count} results when we asked for exactly one"
                ));
            };
            milli(&only["value"]).ok_or_else(|| format!("the value of {} is no quantity", self.metric))
        };
        single().map_err(|error| format!("unable to fetch metrics from custom metrics API: {error}"))
    }

    /// By what is registered: upstream asks discovery for the same.
    fn base(&self) -> Result<String, String> {
        let all = self.stores.api_services.all();
        let has = |version: &str| all.iter().any(|s| s.spec.group == CUSTOM && s.spec.version == version);
        let version = CUSTOM_VERSIONS.iter().find(|version| has(version));
        let version = version.ok_or_else(|| format!("no custom metrics API ({CUSTOM}) registered"))?;
        Ok(format!("/apis/{CUSTOM}/{version}/namespaces/{}", self.namespace))
    }
}

/// The sum of what somebody else measures, in thousandths.
///
/// # Errors
/// In upstream's words.
pub fn of_external(asked: &Asked<'_>, namespace: &str, metric: &str, selector: String) -> Result<i64, String> {
    let (metric, query) = (encode(metric), query(&[("labelSelector", selector)]));
    let list = asked
        .get(format!("/apis/{EXTERNAL}/v1beta1/namespaces/{namespace}/{metric}{query}"))
        .map_err(|error| format!("unable to fetch metrics from external metrics API: {error}"))?;
    if items(list).is_empty() {
        return Err("no metrics returned from external metrics API".into());
    }
    Ok(items(list).iter().filter_map(|item| milli(&item["value"])).fold(0, i64::saturating_add))
}
