//! Effects: the limits of a pod that runs already. Between the first and the last step both the old and the new limits of
//! its containers fit below the pod's.

use std::io;
use std::path::Path;
use std::sync::PoisonError;

use k8s_openapi::api::core::v1::Pod;

use super::{CPU_PERIOD_MICROSECONDS, Cgroups, Layout, PodResources, pod_resources, qos, uid};

/// Version 1 shows "no limit" as the largest number of whole pages.
const NO_LIMIT: i64 = i64::MAX / 2;

impl Cgroups {
    /// Sets the larger of what the pod has and what it is to have.
    ///
    /// # Errors
    /// When the kernel refuses; the message names the file.
    pub fn widen(&self, pod: &Pod) -> io::Result<()> {
        let Some(group) = self.parent(pod) else { return Ok(()) };
        let (has, wants) = (self.limits(&group), self.resources(pod));
        let larger = |a: Option<i64>, b: Option<i64>| Some(a?.max(b?));
        let known = self.requests.lock().unwrap_or_else(PoisonError::into_inner).get(uid(pod)).map(|(_, milli)| *milli);
        self.limit(
            &group,
            &PodResources {
                cpu_request_milli: wants.cpu_request_milli.max(known.unwrap_or(0)),
                cpu_limit_milli: larger(has.cpu_limit_milli, wants.cpu_limit_milli),
                memory_limit_bytes: larger(has.memory_limit_bytes, wants.memory_limit_bytes),
            },
        )
    }

    /// Sets what the pod is to have.
    ///
    /// # Errors
    /// When the kernel refuses; the message names the file.
    pub fn narrow(&self, pod: &Pod) -> io::Result<()> {
        if let Some(group) = self.parent(pod) {
            self.limit(&group, &self.resources(pod))?;
        }
        self.count(pod);
        Ok(())
    }

    /// A pod that runs since before the agent did: its class is to know what it asks for.
    pub fn count(&self, pod: &Pod) {
        let entry = (qos(pod), pod_resources(pod).cpu_request_milli);
        let requests = {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.insert(uid(pod).to_owned(), entry);
            super::burstable_milli(&requests)
        };
        self.share(requests);
    }

    /// Memory that the pod uses now, in bytes; `None` where nobody counts.
    #[must_use]
    pub fn memory_usage(&self, pod: &Pod) -> Option<i64> {
        let below = self.parent(pod)?;
        let below = below.trim_start_matches('/');
        match &self.layout {
            Layout::V1 { memory, .. } => number(&memory.join(below).join("memory.usage_in_bytes")),
            Layout::V2 { root } => number(&root.join(below).join("memory.current")),
            Layout::None => None,
        }
    }

    fn limits(&self, group: &str) -> PodResources {
        let below = group.trim_start_matches('/');
        let (quota, memory) = match &self.layout {
            Layout::V1 { cpu, memory } => (
                number(&cpu.join(below).join("cpu.cfs_quota_us")).filter(|quota| *quota > 0),
                number(&memory.join(below).join("memory.limit_in_bytes")),
            ),
            // "max" is no number, and no limit.
            Layout::V2 { root } => {
                (number(&root.join(below).join("cpu.max")), number(&root.join(below).join("memory.max")))
            }
            Layout::None => (None, None),
        };
        PodResources {
            cpu_request_milli: 0,
            cpu_limit_milli: quota.map(|quota| quota * 1000 / CPU_PERIOD_MICROSECONDS),
            memory_limit_bytes: memory.filter(|limit| *limit < NO_LIMIT),
        }
    }
}

/// The first word of a file.
fn number(file: &Path) -> Option<i64> {
    std::fs::read_to_string(file).ok()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(cpu: &str, memory: &str) -> Pod {
        let both = json!({"cpu": cpu, "memory": memory});
        let containers: Value = json!([{"name": "c", "resources": {"requests": both, "limits": both}}]);
        serde_json::from_value(json!({"metadata": {"uid": "u1"}, "spec": {"containers": containers}})).expect("valid")
    }

    fn check(version_2: bool, files: [&str; 2], expect: [[&str; 2]; 3]) {
        let root = tempfile::tempdir().expect("temporary directory");
        let at = |file: &str| root.path().join(file);
        if version_2 {
            std::fs::write(at("cgroup.controllers"), "cpu memory").expect("written");
        } else {
            std::fs::create_dir_all(at("cpu")).expect("made");
            std::fs::create_dir_all(at("memory")).expect("made");
        }
        let cgroups = Cgroups::new(root.path());
        cgroups.apply(&pod("500m", "64Mi"));
        let read = || files.map(|file| std::fs::read_to_string(at(file)).unwrap_or_default());
        assert_eq!(read(), expect[0]);
        // One grows, one shrinks: first the larger of both.
        let new = pod("1", "32Mi");
        cgroups.widen(&new).expect("written");
        assert_eq!(read(), expect[1]);
        cgroups.narrow(&new).expect("written");
        assert_eq!(read(), expect[2]);
    }

    #[test]
    fn limits_grow_before_and_shrink_after() {
        check(
            true,
            ["kubepods/podu1/cpu.max", "kubepods/podu1/memory.max"],
            [["50000 100000", "67108864"], ["100000 100000", "67108864"], ["100000 100000", "33554432"]],
        );
        check(
            false,
            ["cpu/kubepods/podu1/cpu.cfs_quota_us", "memory/kubepods/podu1/memory.limit_in_bytes"],
            [["50000", "67108864"], ["100000", "67108864"], ["100000", "33554432"]],
        );
    }
}
