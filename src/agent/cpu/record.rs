//! Types: who has which CPUs, as it is kept in `cpu_manager_state` in the kubelet's folder, in upstream's form. Written when
//! it changes, read when the agent starts. Nothing is refused that says that nobody has any.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::policy::{Assignments, State};
use crate::config::cpu_set::CpuSet;
use crate::pki::files;

const NAME: &str = "cpu_manager_state";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Checkpoint {
    policy_name: String,
    default_cpu_set: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, BTreeMap<String, String>>,
    checksum: u32,
}

impl Checkpoint {
    fn of(policy: &str, state: &State) -> Checkpoint {
        let texts = |containers: &BTreeMap<String, CpuSet>| {
            containers.iter().map(|(name, cpus)| (name.clone(), cpus.to_string())).collect()
        };
        let mut checkpoint = Checkpoint {
            policy_name: policy.to_owned(),
            default_cpu_set: state.shared.to_string(),
            entries: state.pods.iter().map(|(pod, containers)| (pod.clone(), texts(containers))).collect(),
            checksum: 0,
        };
        checkpoint.checksum = checkpoint.sum();
        checkpoint
    }

    /// FNV-1a of what is said; upstream's is of how Go prints its own types.
    fn sum(&self) -> u32 {
        let bare = Checkpoint { checksum: 0, ..self.clone() };
        let bytes = serde_json::to_vec(&bare).unwrap_or_default();
        bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }

    fn state(&self) -> Result<State, String> {
        let mut pods = Assignments::new();
        for (pod, containers) in &self.entries {
            for (container, cpus) in containers {
                let cpus = cpus.parse().map_err(|error| format!("pod: {pod}, container: {container}: {error}"))?;
                pods.entry(pod.clone()).or_default().insert(container.clone(), cpus);
            }
        }
        Ok(State { shared: self.default_cpu_set.parse()?, pods })
    }
}

/// What was left cannot be gone on with.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not restore state from checkpoint: {why}, please drain this node and delete the CPU manager checkpoint file \
     {path:?} before restarting skiff"
)]
pub struct Unfit {
    path: PathBuf,
    why: String,
}

#[derive(Debug)]
pub struct Record {
    path: PathBuf,
}

impl Record {
    #[must_use]
    pub fn new(kubelet_dir: &Path) -> Record {
        Record { path: kubelet_dir.join(NAME) }
    }

    /// What was left by an agent with this policy; `None` when nobody has anything.
    ///
    /// # Errors
    /// It is damaged, or of another policy.
    pub fn read(&self, policy: &str) -> Result<Option<State>, Unfit> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unfit(error.to_string())),
        };
        let checkpoint: Checkpoint = serde_json::from_slice(&bytes).map_err(|error| self.unfit(error.to_string()))?;
        if checkpoint.entries.values().all(BTreeMap::is_empty) {
            return Ok(None);
        }
        if checkpoint.sum() != checkpoint.checksum {
            return Err(self.unfit("checkpoint is corrupted".to_owned()));
        }
        if checkpoint.policy_name != policy {
            let left = &checkpoint.policy_name;
            return Err(
                self.unfit(format!("configured policy \"{policy}\" differs from state checkpoint policy \"{left}\""))
            );
        }
        checkpoint.state().map(Some).map_err(|error| self.unfit(error))
    }

    #[must_use]
    pub fn unfit(&self, why: String) -> Unfit {
        Unfit { path: self.path.clone(), why }
    }

    /// # Errors
    /// When the disk refuses; what was there stays.
    pub fn write(&self, policy: &str, state: &State) -> Result<(), String> {
        let bytes = serde_json::to_vec(&Checkpoint::of(policy, state)).map_err(|error| error.to_string())?;
        files::replace(&self.path, &bytes, 0o600).map_err(|error| crate::supervisor::chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_remembered_and_checked() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let record = Record::new(directory.path());
        assert_eq!(record.read("static").expect("nothing is fine"), None);
        let set = |text: &str| text.parse::<CpuSet>().expect("a list");
        let mut state = State { shared: set("0-1"), pods: Assignments::new() };
        state.pods.entry("u1".into()).or_default().insert("web".into(), set("2-3"));
        record.write("static", &state).expect("written");
        assert_eq!(record.read("static").expect("as it was"), Some(state.clone()));
        let mode = std::fs::metadata(&record.path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&record.path).expect("a file");
        let form = r#"{"policyName":"static","defaultCpuSet":"0-1","entries":{"u1":{"web":"2-3"}},"checksum":"#;
        assert!(text.starts_with(form), "{text}");

        let unfit = |policy: &str| record.read(policy).expect_err("refused").to_string();
        let path = record.path.display();
        assert_eq!(
            unfit("none"),
            format!(
                "could not restore state from checkpoint: configured policy \"none\" differs from state checkpoint \
                 policy \"static\", please drain this node and delete the CPU manager checkpoint file \"{path}\" \
                 before restarting skiff"
            )
        );
        std::fs::write(&record.path, text.replace("2-3", "1-3")).expect("written");
        assert!(unfit("static").contains("checkpoint is corrupted"));
        std::fs::write(&record.path, "{").expect("written");
        assert!(unfit("static").contains("delete the CPU manager checkpoint file"));
        // Nobody has anything: any policy can go on with that.
        state.pods.clear();
        record.write("static", &state).expect("written");
        assert_eq!(record.read("none").expect("no matter"), None);
    }
}
