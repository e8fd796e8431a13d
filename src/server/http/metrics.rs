//! Effects: the server's counters, in Prometheus' text format. Names and labels are upstream's, so that existing
//! dashboards work.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::request_info::RequestInfo;
use crate::api::resource::Resource;
use crate::clock;
use crate::server::flow;

/// Upper bounds of `apiserver_request_duration_seconds`, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 5.0, 15.0, 60.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    verb: String,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: String,
    scope: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Timed {
    verb: String,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InFlight {
    request_kind: &'static str,
}

/// Cheap to clone: everything inside is shared.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Request, Counter>,
    durations: Family<Timed, Histogram, fn() -> Histogram>,
    watchers: Family<Kind, Gauge>,
    in_flight: Family<InFlight, Gauge>,
    flow: flow::metrics::Metrics,
    started: f64,
}

/// Counts something while it lives.
pub struct Guard(Gauge);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::default();
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let watchers = Family::default();
        let in_flight = Family::default();
        let flow = flow::metrics::Metrics::default();
        let mut registry = Registry::default();
        let help = "Counter of apiserver requests broken out for each verb, group, version, resource, scope and HTTP response code";
        // The encoder appends `_total` to counters.
        registry.register("apiserver_request", help, requests.clone());
        let help = "Response latency distribution in seconds for each verb, group, version, resource and subresource";
        registry.register("apiserver_request_duration_seconds", help, durations.clone());
        let help = "Number of currently registered watchers for a given resource";
        registry.register("apiserver_registered_watchers", help, watchers.clone());
        let help = "Maximal number of currently used inflight request limit of this apiserver per request kind";
        registry.register("apiserver_current_inflight_requests", help, in_flight.clone());
        flow.register(&mut registry);
        #[allow(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in a double")]
        let started = clock::now().as_millisecond() as f64 / 1000.0;
        Self { registry: Arc::new(registry), requests, durations, watchers, in_flight, flow, started }
    }
}

impl Metrics {
    /// Unknown resources share one label, so that clients cannot make up time series.
    pub fn answered(
        &self,
        info: &RequestInfo,
        row: Option<&'static Resource>,
        code: u16,
        took: Duration,
        long_running: bool,
    ) {
        let (group, version, resource) = row.map_or(("", "", ""), |r| (r.group, r.version, r.plural));
        let subresource = row.and_then(|r| r.subresource(&info.subresource)).map_or("", |s| s.name).to_owned();
        let verb = match &*info.verb {
            verb @ ("get" | "list" | "watch" | "create" | "update" | "patch" | "delete" | "deletecollection"
            | "post" | "put") => verb.to_ascii_uppercase(),
            _ => "other".to_owned(),
        };
        let scope = match (row, info.named, info.namespace.is_empty()) {
            (None, ..) => "",
            (_, true, _) => "resource",
            (_, _, true) => "cluster",
            (_, _, false) => "namespace",
        };
        if !long_running {
            let timed = Timed { verb: verb.clone(), group, version, resource, subresource: subresource.clone() };
            self.durations.get_or_create(&timed).observe(took.as_secs_f64());
        }
        let request = Request { verb, group, version, resource, subresource, scope, code };
        self.requests.get_or_create(&request).inc();
    }

    #[must_use]
    pub fn watching(&self, resource: &'static Resource) -> Guard {
        let kind = Kind { group: resource.group, version: resource.version, kind: resource.kind };
        Self::held(self.watchers.get_or_create(&kind).clone())
    }

    #[must_use]
    pub fn in_flight(&self, mutating: bool) -> Guard {
        let request_kind = if mutating { "mutating" } else { "readOnly" };
        Self::held(self.in_flight.get_or_create(&InFlight { request_kind }).clone())
    }

    /// Where fair use counts.
    #[must_use]
    pub fn flow(&self) -> flow::metrics::Metrics {
        self.flow.clone()
    }

    fn held(gauge: Gauge) -> Guard {
        gauge.inc();
        Guard(gauge)
    }

    /// The whole exposition, with what the kernel knows of this process.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)?;
        text.push_str(&process(self.started));
        prometheus_client::encoding::text::encode_eof(&mut text)?;
        Ok(text)
    }
}

/// `process_*` as every Prometheus client library reports them, read from `/proc/self` (proc(5)).
fn process(started: f64) -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the command name, which is in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // utime and stime in clock ticks, which Linux shows as hundredths of a second; vsize in bytes; rss in pages.
    let cpu = (field(11) + field(12)) / 100.0;
    let statm = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let resident = statm.lines().find_map(|l| l.strip_prefix("Rss:")).and_then(|l| l.split_whitespace().next());
    let resident = resident.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024;
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    format!(
        "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {cpu}\n\
         # TYPE process_open_fds gauge\nprocess_open_fds {files}\n\
         # TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {resident}\n\
         # TYPE process_virtual_memory_bytes gauge\nprocess_virtual_memory_bytes {}\n\
         # TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {started}\n",
        field(20)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::query::Query;
    use crate::api::resource::find;

    #[test]
    fn requests_are_counted_by_what_they_were_about() {
        let metrics = Metrics::default();
        let info = RequestInfo::parse(&http::Method::GET, "/api/v1/namespaces/a/pods", &Query::default());
        metrics.answered(&info, find("", "v1", "pods"), 200, Duration::from_millis(3), false);
        let odd = RequestInfo::parse(&http::Method::GET, "/api/v1/namespaces/a/made-up", &Query::default());
        metrics.answered(&odd, None, 404, Duration::from_millis(3), false);
        let held = metrics.in_flight(true);
        let text = metrics.encode().expect("text");
        assert!(text.contains(r#"apiserver_request_total{verb="LIST",group="",version="v1",resource="pods",subresource="",scope="namespace",code="200"} 1"#), "{text}");
        assert!(!text.contains("made-up"));
        assert!(text.contains(r#"apiserver_current_inflight_requests{request_kind="mutating"} 1"#));
        assert!(text.contains("process_open_fds "));
        drop(held);
        assert!(metrics.encode().expect("text").contains(r#"{request_kind="mutating"} 0"#));
    }
}
