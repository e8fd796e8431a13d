//! Decides: what a pod's group is limited to where containers have CPUs for themselves: they may use all of these, at any time
//! (upstream's `DisableCPUQuotaWithExclusiveCPUs`).

use k8s_openapi::api::core::v1::Pod;

use super::{Cgroups, PodResources, pod_resources};
use crate::agent::cpu::policy::stays_exclusive;

impl Cgroups {
    /// Whether whole CPUs of Guaranteed pods are theirs alone.
    #[must_use]
    pub fn with_exclusive_cpus(mut self, exclusive_cpus: bool) -> Cgroups {
        self.exclusive_cpus = exclusive_cpus;
        self
    }

    pub(super) fn resources(&self, pod: &Pod) -> PodResources {
        let resources = pod_resources(pod);
        match self.exclusive_cpus && stays_exclusive(pod) {
            true => PodResources { cpu_limit_milli: None, ..resources },
            false => resources,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn quota(exclusive_cpus: bool, cpu: &str) -> String {
        let root = tempfile::tempdir().expect("temporary directory");
        std::fs::write(root.path().join("cgroup.controllers"), "cpu memory").expect("written");
        let both = json!({"cpu": cpu, "memory": "64Mi"});
        let containers: Value = json!([{"name": "c", "resources": {"requests": both, "limits": both}}]);
        let pod = json!({"metadata": {"uid": "u1"}, "spec": {"containers": containers}});
        let cgroups = Cgroups::new(root.path()).with_exclusive_cpus(exclusive_cpus);
        cgroups.apply(&serde_json::from_value(pod).expect("valid"));
        std::fs::read_to_string(root.path().join("kubepods/podu1/cpu.max")).unwrap_or_default()
    }

    #[test]
    fn no_quota_where_cpus_are_its_own() {
        assert_eq!(quota(false, "2"), "200000 100000");
        assert_eq!(quota(true, "2"), "");
        assert_eq!(quota(true, "1500m"), "150000 100000");
    }
}
