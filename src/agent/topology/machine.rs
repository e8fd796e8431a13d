//! Decides: how the machine's CPUs lie to each other: cores, sockets, NUMA nodes and caches, as `/sys/devices/system` tells
//! it (`Documentation/admin-guide/cputopology.rst`, `Documentation/ABI/stable/sysfs-devices-node`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::config::cpu_set::CpuSet;

/// Caches of a CPU that are looked at.
const CACHES: u32 = 16;

/// Where a CPU is. Cores and caches go by their lowest CPU, as their own numbers are not unique on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub core: u32,
    pub socket: u32,
    pub node: u32,
    pub cache: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Core,
    Socket,
    Node,
    Cache,
}

impl Place {
    fn at(&self, level: Level) -> u32 {
        match level {
            Level::Core => self.core,
            Level::Socket => self.socket,
            Level::Node => self.node,
            Level::Cache => self.cache,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    pub cpus: BTreeMap<u32, Place>,
    /// Every NUMA node, also those without CPUs, with its distance to each of them in their order.
    pub nodes: BTreeMap<u32, Vec<u64>>,
}

impl Topology {
    /// Reads it below `/sys/devices/system`.
    ///
    /// # Errors
    /// When it cannot be told which CPUs there are.
    pub fn read(root: &Path) -> Result<Topology, String> {
        parse(|file| std::fs::read_to_string(root.join(file)).ok())
    }

    #[must_use]
    pub fn all(&self) -> CpuSet {
        self.cpus.keys().copied().collect()
    }

    /// Of these CPUs those that are at the same core, socket, node or cache, the fewest first, then the lowest number.
    #[must_use]
    pub fn split(&self, cpus: &CpuSet, level: Level) -> Vec<CpuSet> {
        let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for cpu in cpus.iter() {
            if let Some(place) = self.cpus.get(&cpu) {
                groups.entry(place.at(level)).or_default().push(cpu);
            }
        }
        let mut groups: Vec<CpuSet> = groups.into_values().map(|cpus| cpus.into_iter().collect()).collect();
        // Stable: those of one size stay in the order of their numbers.
        groups.sort_by_key(CpuSet::len);
        groups
    }

    /// All CPUs of the core, socket, node or cache that the first of these belongs to.
    #[must_use]
    pub fn whole(&self, cpus: &CpuSet, level: Level) -> CpuSet {
        let at = cpus.first().and_then(|cpu| self.cpus.get(&cpu)).map(|place| place.at(level));
        self.cpus.iter().filter(|(_, place)| Some(place.at(level)) == at).map(|(cpu, _)| *cpu).collect()
    }

    /// The CPUs of NUMA nodes.
    pub fn of_nodes(&self, is_wanted: impl Fn(u32) -> bool) -> CpuSet {
        self.cpus.iter().filter(|(_, place)| is_wanted(place.node)).map(|(cpu, _)| *cpu).collect()
    }

    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.cpus.values().map(|place| place.at(level)).collect::<BTreeSet<u32>>().len()
    }

    /// On a machine whose cores differ: rounded down.
    #[must_use]
    pub fn cpus_per(&self, level: Level) -> usize {
        self.cpus.len() / self.count(level).max(1)
    }
}

/// `file` reads one below `/sys/devices/system`; `None` where there is none.
///
/// # Errors
/// When it cannot be told which CPUs there are.
pub fn parse(file: impl Fn(&str) -> Option<String>) -> Result<Topology, String> {
    let list = |path: &str| file(path).and_then(|text| text.parse::<CpuSet>().ok()).filter(|set| !set.is_empty());
    let online = list("cpu/online").ok_or("/sys/devices/system/cpu/online does not say which CPUs there are")?;
    // A kernel without NUMA has no such folder: one node.
    let nodes = list("node/online").unwrap_or_else(|| CpuSet::from_iter([0]));
    let mut of_node = BTreeMap::new();
    let mut distances = BTreeMap::new();
    for node in nodes.iter() {
        for cpu in list(&format!("node/node{node}/cpulist")).iter().flat_map(CpuSet::iter) {
            of_node.insert(cpu, node);
        }
        let row = file(&format!("node/node{node}/distance")).unwrap_or_default();
        distances.insert(node, row.split_whitespace().filter_map(|number| number.parse().ok()).collect());
    }
    let first_node = nodes.first().unwrap_or(0);
    let place = |cpu: u32| {
        let at = format!("cpu/cpu{cpu}/topology");
        let siblings = list(&format!("{at}/core_cpus_list")).or_else(|| list(&format!("{at}/thread_siblings_list")));
        // Some kernels say -1 where nobody knows.
        let socket = file(&format!("{at}/physical_package_id")).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let caches = (0..CACHES).map(|index| format!("cpu/cpu{cpu}/cache/index{index}"));
        let third = caches
            .take_while(|cache| file(&format!("{cache}/level")).is_some())
            .find(|cache| file(&format!("{cache}/level")).is_some_and(|level| level.trim() == "3"));
        let shared = third.and_then(|cache| list(&format!("{cache}/shared_cpu_list")));
        Place {
            core: siblings.and_then(|cpus| cpus.first()).unwrap_or(cpu),
            socket,
            node: of_node.get(&cpu).copied().unwrap_or(first_node),
            cache: shared.and_then(|cpus| cpus.first()).unwrap_or(u32::MAX - socket),
        }
    };
    Ok(Topology { cpus: online.iter().map(|cpu| (cpu, place(cpu))).collect(), nodes: distances })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A machine of `sockets` with `nodes` altogether and `cores` altogether. Its CPUs are numbered core by core over all
    /// sockets in turn where `turns`, else socket after socket; second threads come after all the first ones. Each `cache`
    /// cores share one.
    #[must_use]
    pub fn machine(sockets: u32, nodes: u32, cores: u32, threads: u32, turns: bool, cache: u32) -> Topology {
        let mut topology = Topology::default();
        for cpu in 0..cores * threads {
            let core = cpu % cores;
            let (socket, node) = match turns {
                true => (core % sockets, core % nodes),
                false => (core * sockets / cores, core * nodes / cores),
            };
            let place = Place { core, socket, node, cache: core / cache * cache };
            topology.cpus.insert(cpu, place);
        }
        for node in 0..nodes {
            topology.nodes.insert(node, (0..nodes).map(|other| if other == node { 10 } else { 20 }).collect());
        }
        topology
    }

    fn parsed(files: &[(&str, &str)]) -> Result<Topology, String> {
        let files: BTreeMap<&str, &str> = files.iter().copied().collect();
        parse(|file| files.get(file).map(|text| format!("{text}\n")))
    }

    fn show(topology: &Topology) -> Vec<String> {
        let all = topology.all();
        let groups = |level| topology.split(&all, level).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        [Level::Core, Level::Socket, Level::Node, Level::Cache].map(groups).to_vec()
    }

    #[test]
    fn a_raspberry_pi_4() {
        let mut files = vec![("cpu/online", "0-3")];
        let names: Vec<[String; 4]> = (0..4)
            .map(|cpu| {
                let at = format!("cpu/cpu{cpu}");
                [
                    format!("{at}/topology/physical_package_id"),
                    format!("{at}/topology/core_cpus_list"),
                    format!("{at}/cache/index0/level"),
                    format!("{at}/cache/index1/level"),
                ]
            })
            .collect();
        for (cpu, [package, core, first, second]) in names.iter().enumerate() {
            files.extend([(package.as_str(), "0"), (core, ["0", "1", "2", "3"][cpu]), (first, "1"), (second, "2")]);
        }
        let topology = parsed(&files).expect("a machine");
        assert_eq!(show(&topology), ["0 1 2 3", "0-3", "0-3", "0-3"], "no NUMA, no third level");
        assert_eq!((topology.cpus_per(Level::Core), topology.nodes.len()), (1, 1));
    }

    #[test]
    fn two_sockets_with_a_node_each() {
        let mut files = vec![
            ("cpu/online".to_owned(), "0-7".to_owned()),
            ("node/online".into(), "0-2".into()),
            ("node/node0/cpulist".into(), "0-1,4-5".into()),
            ("node/node1/cpulist".into(), "2-3,6-7".into()),
            // Memory without CPUs.
            ("node/node2/cpulist".into(), String::new()),
            ("node/node0/distance".into(), "10 21 17".into()),
            ("node/node1/distance".into(), "21 10 17".into()),
            ("node/node2/distance".into(), "17 17 10".into()),
        ];
        for cpu in 0..8 {
            let core = cpu % 4;
            let at = |name: &str| format!("cpu/cpu{cpu}/{name}");
            files.push((at("topology/physical_package_id"), (core / 2).to_string()));
            // As older kernels name it.
            files.push((at("topology/thread_siblings_list"), format!("{core},{}", core + 4)));
            for (index, level) in ["1", "1", "2", "3"].iter().enumerate() {
                files.push((at(&format!("cache/index{index}/level")), (*level).to_owned()));
            }
            let shared = if core < 2 { "0-1,4-5" } else { "2-3,6-7" };
            files.push((at("cache/index3/shared_cpu_list"), shared.to_owned()));
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let topology = parsed(&files).expect("a machine");
        let halves = "0-1,4-5 2-3,6-7";
        assert_eq!(show(&topology), ["0,4 1,5 2,6 3,7", halves, halves, halves]);
        assert_eq!(topology.cpus_per(Level::Core), 2);
        assert_eq!(topology.nodes[&0], [10, 21, 17]);
        assert_eq!(topology.nodes.len(), 3);
        assert_eq!(topology.of_nodes(|node| node == 1).to_string(), "2-3,6-7");
    }

    /// Fast cores with two threads, and slow ones with one.
    #[must_use]
    pub fn hybrid() -> Topology {
        let mut files = vec![("cpu/online".to_owned(), "0-7".to_owned()), ("node/online".into(), "0".into())];
        files.push(("node/node0/cpulist".into(), "0-7".into()));
        for (cpu, siblings) in ["0-1", "0-1", "2-3", "2-3", "4", "5", "6", "7"].iter().enumerate() {
            files.push((format!("cpu/cpu{cpu}/topology/core_cpus_list"), (*siblings).to_owned()));
            files.push((format!("cpu/cpu{cpu}/topology/physical_package_id"), "0".to_owned()));
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        parsed(&files).expect("a machine")
    }

    #[test]
    fn cores_that_differ() {
        let topology = hybrid();
        assert_eq!(show(&topology), ["4 5 6 7 0-1 2-3", "0-7", "0-7", "0-7"]);
        assert_eq!(topology.cpus_per(Level::Core), 1);
    }

    #[test]
    fn a_machine_that_tells_next_to_nothing() {
        let topology = parsed(&[("cpu/online", "0,2"), ("cpu/cpu0/topology/physical_package_id", "-1")]);
        assert_eq!(show(&topology.expect("a machine")), ["0 2", "0,2", "0,2", "0,2"]);
        assert!(parsed(&[]).is_err());
        assert!(parsed(&[("cpu/online", "nonsense")]).is_err());
        let here = Topology::read(Path::new("/sys/devices/system")).expect("this machine");
        assert!(!here.all().is_empty());
    }
}
