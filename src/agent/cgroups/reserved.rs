//! Effects: groups that somebody else made for the system and for what serves pods, held to what is reserved for them
//! (`--system-reserved-cgroup`, `--kube-reserved-cgroup`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Cgroups, Layout, shares, weight, write};
use crate::api::quantity::Quantity;
use crate::config::kubelet::host::{Enforced, Reserved};

impl Cgroups {
    /// Sets the limits of a group that is there.
    ///
    /// # Errors
    /// It is not there, in all that it would be limited by, or a limit could not be set.
    pub fn enforce_reserved(&self, part: &Reserved, amounts: &BTreeMap<String, Quantity>) -> std::io::Result<()> {
        let all = part.enforced == Enforced::All;
        let wanted = |name: &str| amounts.get(name).filter(|_| all || name == "cpu");
        let cpu = wanted("cpu").map(|amount| shares(amount.milli()));
        let (memory, pids) =
            (wanted("memory").map(|amount| amount.value()), wanted("pid").map(|amount| amount.value()));
        let is_v2 = matches!(self.layout, Layout::V2 { .. });
        let rows = [
            ("cpu", if is_v2 { "cpu.weight" } else { "cpu.shares" }, cpu.map(|n| if is_v2 { weight(n) } else { n })),
            ("memory", if is_v2 { "memory.max" } else { "memory.limit_in_bytes" }, memory),
            ("pids", "pids.max", pids),
        ];
        let place = |controller: &str| self.controller(controller, &part.group);
        let missing: Vec<String> = rows
            .iter()
            .filter_map(|(controller, ..)| place(controller))
            .filter(|directory| !directory.is_dir())
            .map(|directory| directory.display().to_string())
            .collect();
        if !missing.is_empty() {
            let name: Vec<&str> = part.group.split('/').filter(|part| !part.is_empty()).collect();
            let text = format!("cgroup {name:?} has some missing paths: {}", missing.join(", "));
            return Err(std::io::Error::new(std::io::ErrorKind::NotFound, text));
        }
        for (controller, file, value) in rows {
            if let (Some(directory), Some(value)) = (place(controller), value) {
                write(&directory.join(file), value.to_string())?;
            }
        }
        Ok(())
    }

    fn controller(&self, controller: &str, group: &str) -> Option<PathBuf> {
        match &self.layout {
            // It may be mounted beside another one, by both names.
            Layout::V1 { cpu, .. } if controller == "cpu" => Some(cpu.join(group.trim_start_matches('/'))),
            _ => self.files(controller, group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    #[test]
    fn a_group_of_somebody_is_held_to_what_is_reserved() {
        let amounts: BTreeMap<String, Quantity> = [("cpu", "500m"), ("memory", "64Mi"), ("pid", "99")]
            .map(|(name, text)| (name.to_owned(), Quantity::parse(text).expect("a quantity")))
            .into();
        let part = |enforced| Reserved { group: "/system.slice".into(), enforced };
        for is_v2 in [true, false] {
            let root = tree(is_v2);
            let make = |path: &str| std::fs::create_dir_all(root.path().join(path)).expect("made");
            let cgroups = Cgroups::new(root.path());
            let error = cgroups.enforce_reserved(&part(Enforced::All), &amounts).expect_err("not there");
            assert!(error.to_string().starts_with("cgroup [\"system.slice\"] has some missing paths: "), "{error}");
            let groups = ["cpu/system.slice", "memory/system.slice", "pids/system.slice"];
            (if is_v2 { &["system.slice"][..] } else { &groups }).iter().for_each(|path| make(path));
            let read = |v1: &str, v2: &str| std::fs::read_to_string(root.path().join(if is_v2 { v2 } else { v1 })).ok();
            let memory = || read("memory/system.slice/memory.limit_in_bytes", "system.slice/memory.max");
            cgroups.enforce_reserved(&part(Enforced::Compressible), &amounts).expect("set");
            let expect = if is_v2 { weight(512).to_string() } else { "512".to_owned() };
            assert_eq!(read("cpu/system.slice/cpu.shares", "system.slice/cpu.weight"), Some(expect));
            assert_eq!(memory(), None, "it cannot be compressed");
            cgroups.enforce_reserved(&part(Enforced::All), &amounts).expect("set");
            assert_eq!(memory(), Some((64 << 20).to_string()));
            assert_eq!(read("pids/system.slice/pids.max", "system.slice/pids.max"), Some("99".to_owned()));
        }
    }
}
