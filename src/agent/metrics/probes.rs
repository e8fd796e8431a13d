//! Types: how often probes passed and failed, for `/metrics/probes` (`prober_probe_total`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use super::figures::{Figures, Kind, number};
use crate::agent::context::NodeContext;
use crate::agent::pod::{name, namespace, uid};

/// Counts until its pod is gone.
#[derive(Default)]
pub struct Counts(Mutex<BTreeMap<Row, Count>>);

/// Pod UID, container, type of probe.
type Row = (String, String, &'static str);

struct Count {
    namespace: String,
    pod: String,
    passed: u64,
    failed: u64,
}

impl Counts {
    pub fn count(&self, pod: &Pod, container: &str, probe: &'static str, passed: bool) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = rows.entry((uid(pod).to_owned(), container.to_owned(), probe)).or_insert_with(|| Count {
            namespace: namespace(pod).to_owned(),
            pod: name(pod).to_owned(),
            passed: 0,
            failed: 0,
        });
        *(if passed { &mut row.passed } else { &mut row.failed }) += 1;
    }

    pub fn forget(&self, pod_uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(uid, _, _), _| uid != pod_uid);
    }
}

#[must_use]
pub fn render(cx: &NodeContext) -> String {
    rendered(&cx.probe_counts)
}

fn rendered(counts: &Counts) -> String {
    let mut figures = Figures::default();
    let help = "Cumulative number of a liveness, readiness or startup probe for a container by result.";
    figures.family("prober_probe_total", Kind::Counter, help);
    let rows = counts.0.lock().unwrap_or_else(PoisonError::into_inner);
    for ((uid, container, probe), count) in &*rows {
        for (result, times) in [("successful", count.passed), ("failed", count.failed)] {
            if times == 0 {
                continue;
            }
            let labels = [
                ("container", container.as_str()),
                ("namespace", &count.namespace),
                ("pod", &count.pod),
                ("pod_uid", uid),
                ("probe_type", probe),
                ("result", result),
            ];
            figures.put("prober_probe_total", &labels, number(times), None);
        }
    }
    figures.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_counted_while_their_pod_is_there() {
        let meta = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        let pod: Pod = serde_json::from_value(meta).expect("a pod");
        let counts = Counts::default();
        counts.count(&pod, "c", "Liveness", true);
        counts.count(&pod, "c", "Liveness", true);
        counts.count(&pod, "c", "Readiness", false);
        let text = rendered(&counts);
        let line = |probe: &str, result: &str, times: u64| {
            format!(
                "prober_probe_total{{container=\"c\",namespace=\"n\",pod=\"p\",pod_uid=\"u\",probe_type=\"{probe}\",result=\"{result}\"}} {times}\n"
            )
        };
        assert!(text.contains(&line("Liveness", "successful", 2)), "{text}");
        assert!(text.contains(&line("Readiness", "failed", 1)), "{text}");
        counts.forget("u");
        assert!(!rendered(&counts).contains("pod_uid"));
    }
}
