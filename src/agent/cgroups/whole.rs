//! Effects: the group of all pods together, and what one pod has of what is counted.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;

use super::{Cgroups, Layout, shares, weight};

impl Cgroups {
    /// How many processes and threads the pod has, where they are counted.
    #[must_use]
    pub fn processes(&self, pod: &Pod) -> Option<i64> {
        let group = self.parent(pod)?;
        let below = group.trim_start_matches('/');
        let directory = match &self.layout {
            Layout::V1 { cpu, .. } => cpu.parent()?.join("pids").join(below),
            Layout::V2 { root } => root.join(below),
            Layout::None => return None,
        };
        std::fs::read_to_string(directory.join("pids.current")).ok()?.trim().parse().ok()
    }

    /// Where the memory of all pods together is counted; `None` where it is not.
    #[must_use]
    pub fn of_all_pods(&self) -> Option<PathBuf> {
        match &self.layout {
            Layout::V1 { memory, .. } => Some(memory.join("kubepods")),
            Layout::V2 { root } => Some(root.join("kubepods")),
            Layout::None => None,
        }
    }

    /// Limits all pods together to what the node gives them.
    ///
    /// # Errors
    /// The file that could not be written: most often pods use more memory already.
    pub fn enforce(&self, cpu_milli: i64, memory_bytes: i64, processes: Option<i64>) -> std::io::Result<()> {
        let write = |file: PathBuf, value: i64| {
            let named = |error| std::io::Error::other(format!("{}: {error}", file.display()));
            std::fs::write(&file, value.to_string()).map_err(named)
        };
        match &self.layout {
            Layout::V1 { cpu, memory } => {
                write(cpu.join("kubepods/cpu.shares"), shares(cpu_milli))?;
                write(memory.join("kubepods/memory.limit_in_bytes"), memory_bytes)?;
                let Some(pids) = cpu.parent().map(|root| root.join("pids")).filter(|pids| pids.is_dir()) else {
                    return Ok(());
                };
                // The runtime makes it with the first pod, which is to find the limit there.
                std::fs::create_dir_all(pids.join("kubepods"))?;
                let pids = Some(pids.join("kubepods/pids.max")).filter(|file| file.exists());
                pids.zip(processes).map_or(Ok(()), |(file, processes)| write(file, processes))
            }
            Layout::V2 { root } => {
                let group = root.join("kubepods");
                write(group.join("cpu.weight"), weight(shares(cpu_milli)))?;
                write(group.join("memory.max"), memory_bytes)?;
                let pids = Some(group.join("pids.max")).filter(|file| file.exists());
                pids.zip(processes).map_or(Ok(()), |(file, processes)| write(file, processes))
            }
            Layout::None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    #[test]
    fn all_pods_are_limited_in_both_layouts() {
        for is_v2 in [true, false] {
            let root = tree(is_v2);
            let cgroups = Cgroups::new(root.path());
            // The kernel makes it with the group, where processes are counted.
            let pids = root.path().join(if is_v2 { "kubepods" } else { "pids/kubepods" }).join("pids.max");
            std::fs::create_dir_all(pids.parent().expect("not the root")).expect("made");
            std::fs::write(&pids, "max").expect("written");
            cgroups.enforce(1500, 1 << 30, Some(99)).expect("enforced");
            let memory = cgroups.of_all_pods().expect("counted");
            let read = |file: &str| std::fs::read_to_string(memory.join(file)).ok();
            let expect = [is_v2.then(|| "1073741824".to_owned()), (!is_v2).then(|| "1073741824".to_owned())];
            assert_eq!([read("memory.max"), read("memory.limit_in_bytes")], expect);
            let cpu = if is_v2 { "kubepods/cpu.weight" } else { "cpu/kubepods/cpu.shares" };
            let cpu = std::fs::read_to_string(root.path().join(cpu)).expect("written");
            assert_eq!(cpu, if is_v2 { weight(1536).to_string() } else { "1536".to_owned() });
            assert_eq!(std::fs::read_to_string(&pids).expect("written"), "99");
            std::fs::remove_file(&pids).expect("removed");
            cgroups.enforce(1500, 1 << 30, Some(99)).expect("processes are not counted there");
            assert!(!pids.exists());
        }
    }
}
