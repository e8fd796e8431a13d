//! Effects: how many processes and threads a pod may have. The runtime makes the containers' groups below the pod's, so
//! that they all count together.

use super::{Cgroups, Layout, write};

impl Cgroups {
    /// With so many for each pod (`--pod-max-pids`).
    #[must_use]
    pub fn with_pids(self, pids: Option<i64>) -> Cgroups {
        Cgroups { pids, ..self }
    }

    pub(super) fn limit_pids(&self, group: &str) -> std::io::Result<()> {
        let Some(pids) = self.pids else { return Ok(()) };
        let Some(directory) = self.files("pids", group) else { return Ok(()) };
        if let Layout::V1 { .. } = self.layout {
            std::fs::create_dir_all(&directory)?;
        }
        write(&directory.join("pids.max"), pids.to_string())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::super::tests::tree;
    use super::*;

    #[test]
    fn a_pod_has_so_many_processes_in_both_layouts() {
        for is_v2 in [true, false] {
            let root = tree(is_v2);
            let file = root.path().join(if is_v2 { "" } else { "pids" }).join("kubepods/besteffort/podu1/pids.max");
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {"uid": "u1"}, "spec": {"containers": [{"name": "c"}]}}))
                    .expect("valid");
            Cgroups::new(root.path()).apply(&pod);
            assert!(!file.exists(), "no limit");
            Cgroups::new(root.path()).with_pids(Some(7)).apply(&pod);
            assert_eq!(std::fs::read_to_string(file).expect("written"), "7");
        }
    }
}
