//! Decides: which of the free CPUs are taken: as few sockets, NUMA nodes and cores as can be, filling up what others have
//! begun to use (`pkg/kubelet/cm/cpumanager/cpu_assignment.go`: same input, same CPUs).

use crate::agent::topology::machine::{Level, Topology};
use crate::config::cpu_set::CpuSet;

/// So many CPUs of those that are free. `by_cache` prefers those that share a cache.
///
/// # Errors
/// There are not so many.
pub fn packed(topology: &Topology, free: &CpuSet, count: usize, by_cache: bool) -> Result<CpuSet, String> {
    enough(free, count)?;
    let mut taking = Taking { topology, free: free.clone(), needed: count, taken: CpuSet::default() };
    let [outer, inner] = outside_in(topology);
    taking.take_whole(&[outer]);
    taking.take_whole(&[outer, inner]);
    if by_cache {
        taking.take_by_cache();
    }
    taking.take_whole(&[outer, inner, Level::Core]);
    taking.take_rest();
    Ok(taking.taken)
}

/// # Errors
/// There are not so many.
pub(super) fn enough(free: &CpuSet, count: usize) -> Result<(), String> {
    if count > free.len() {
        let available = free.len();
        return Err(format!("not enough cpus available to satisfy request: requested={count}, available={available}"));
    }
    Ok(())
}

/// A socket may have several nodes, a node several sockets: the larger of them first.
fn outside_in(topology: &Topology) -> [Level; 2] {
    match topology.count(Level::Socket) >= topology.count(Level::Node) {
        true => [Level::Node, Level::Socket],
        false => [Level::Socket, Level::Node],
    }
}

/// The free CPUs of each node, the order being that in which they are used.
pub(super) fn nodes(topology: &Topology, free: &CpuSet) -> Vec<CpuSet> {
    let [outer, inner] = outside_in(topology);
    match outer {
        Level::Node => split(topology, free, &[outer]),
        _ => split(topology, free, &[outer, inner]),
    }
}

/// Groups by the last level, within those of the levels before.
fn split(topology: &Topology, free: &CpuSet, path: &[Level]) -> Vec<CpuSet> {
    path.iter().fold(vec![free.clone()], |groups, level| {
        groups.iter().flat_map(|group| topology.split(group, *level)).collect()
    })
}

struct Taking<'a> {
    topology: &'a Topology,
    free: CpuSet,
    needed: usize,
    taken: CpuSet,
}

impl Taking<'_> {
    fn take(&mut self, cpus: &CpuSet) {
        self.free = self.free.without(cpus);
        self.taken = self.taken.or(cpus);
        self.needed -= cpus.len();
    }

    /// Those of which nothing is in use, while they are needed as a whole.
    fn take_whole(&mut self, path: &[Level]) {
        let Some(level) = path.last() else { return };
        for group in split(self.topology, &self.free, path) {
            if self.needed >= group.len() && self.topology.whole(&group, *level) == group {
                self.take(&group);
            }
        }
    }

    fn take_by_cache(&mut self) {
        let usual = self.topology.cpus_per(Level::Cache);
        let nodes = nodes(self.topology, &self.free);
        let caches: Vec<CpuSet> = nodes.iter().flat_map(|node| self.topology.split(node, Level::Cache)).collect();
        for cache in &caches {
            if self.needed >= usual {
                for whole in caches.iter().filter(|group| self.topology.whole(group, Level::Cache) == **group) {
                    if self.needed >= whole.len() && whole.is_within(&self.free) {
                        self.take(whole);
                    }
                }
            }
            if self.needed == 0 {
                return;
            }
            self.take_part(&cache.and(&self.free));
        }
    }

    /// All that is needed from one cache, if it has it, in whole cores but for the last CPU.
    fn take_part(&mut self, cache: &CpuSet) {
        let threads = self.topology.cpus_per(Level::Core).max(1);
        let mut cores = self.topology.split(cache, Level::Core);
        cores.sort_by_key(CpuSet::first);
        cores.truncate(self.needed.div_ceil(threads));
        let mut cpus: Vec<u32> = cores.iter().flat_map(CpuSet::iter).collect();
        cpus.sort_unstable();
        if !self.needed.is_multiple_of(2) && threads > 1 && cpus.len() > self.needed {
            cpus.pop();
        }
        if cpus.len() == self.needed {
            self.take(&cpus.into_iter().collect());
        }
    }

    fn take_rest(&mut self) {
        let [outer, inner] = outside_in(self.topology);
        let cores = split(self.topology, &self.free, &[outer, inner, Level::Core]);
        let cpus: CpuSet = cores.iter().flat_map(CpuSet::iter).take(self.needed).collect();
        self.take(&cpus);
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::agent::topology::machine::tests::{hybrid, machine};

    #[must_use]
    pub fn set(text: &str) -> CpuSet {
        text.parse().expect("a list of CPUs")
    }

    fn check(topology: &Topology, free: &str, count: usize, by_cache: bool, expect: &str) {
        let found = packed(topology, &set(free), count, by_cache);
        let found = found.unwrap_or_else(|error| panic!("{count} of {free}: {error}"));
        assert_eq!(found, set(expect), "{count} of {free}");
    }

    /// The machines of upstream's `cpu_assignment_test.go`.
    #[must_use]
    pub fn one_socket() -> Topology {
        machine(1, 1, 4, 2, false, 4)
    }

    #[must_use]
    pub fn two_sockets() -> Topology {
        machine(2, 2, 6, 2, true, 6)
    }

    #[must_use]
    pub fn four_nodes() -> Topology {
        machine(2, 4, 40, 2, false, 10)
    }

    /// Cases and results as in upstream's tests.
    #[test]
    fn whole_cores_of_few_sockets() {
        for (free, count, expect) in [
            ("0-7", 0, ""),
            ("0-7", 1, "0"),
            ("0-7", 2, "0,4"),
            ("0-7", 8, "0-7"),
            ("1,3-7", 1, "4"),
            ("1,3,5-7", 2, "1,5"),
            ("0,2-7", 3, "0,4-5"),
        ] {
            check(&one_socket(), free, count, false, expect);
        }
        for (free, count, expect) in [
            ("0-11", 1, "0"),
            ("1-5,7-11", 1, "2"),
            ("0-11", 2, "0,6"),
            ("0-11", 6, "0,2,4,6,8,10"),
            ("0-11", 8, "0-2,4,6-8,10"),
            ("0-11", 12, "0-11"),
            // The half-used socket first.
            ("1-5,7-11", 4, "2,4,8,10"),
        ] {
            check(&two_sockets(), free, count, false, expect);
        }
        for (free, count, expect) in [
            ("0-79", 20, "0-9,40-49"),
            ("0-79", 40, "0-19,40-59"),
            ("0-79", 60, "0-29,40-69"),
            ("1-39,41-79", 60, "10-39,50-79"),
            ("0-79", 64, "0-31,40-71"),
        ] {
            check(&four_nodes(), free, count, false, expect);
        }
        // A Raspberry Pi: four cores, no threads.
        check(&machine(1, 1, 4, 1, false, 4), "1-3", 2, false, "1-2");
    }

    #[test]
    fn cpus_that_share_a_cache() {
        let one = machine(1, 1, 16, 1, false, 4);
        check(&one, "1-15", 10, true, "1-2,4-11");
        check(&two_sockets(), "1-5,7-11", 1, true, "2");
        let two = machine(2, 2, 16, 1, false, 4);
        check(&two, "0-15", 4, true, "0-3");
        check(&two, "2-15", 6, true, "2-7");
        check(&two, "8-15", 4, true, "8-11");
        check(&machine(1, 2, 16, 1, false, 4), "3-8,12", 2, true, "4-5");
        let threads = machine(1, 1, 8, 2, false, 4);
        check(&threads, "2-7,10-15", 6, true, "4-6,12-14");
        check(&threads, "1-7,9-15", 10, true, "1,4-7,9,12-15");
    }

    #[test]
    fn what_is_not_free_is_not_taken() {
        assert_eq!(
            packed(&one_socket(), &set("0,2,4,6"), 5, false),
            Err("not enough cpus available to satisfy request: requested=5, available=4".to_owned())
        );
        // One thread of a fast core is in use: the other one counts, the core does not.
        check(&hybrid(), "1-7", 2, false, "4-5");
        check(&hybrid(), "1-7", 6, false, "2-7");
        check(&hybrid(), "0-3", 3, false, "0-2");
        // Whatever is free, as many as were asked for are taken, and all of them were free.
        for topology in [one_socket(), two_sockets(), four_nodes(), hybrid(), machine(4, 2, 8, 2, false, 2)] {
            let all: Vec<u32> = topology.all().iter().collect();
            for step in 1..5 {
                let free: CpuSet = all.iter().copied().filter(|cpu| cpu % 5 >= step % 4).collect();
                for (count, by_cache) in (0..=free.len()).flat_map(|count| [(count, false), (count, true)]) {
                    let taken = packed(&topology, &free, count, by_cache).expect("enough");
                    assert!(taken.len() == count && taken.is_within(&free), "{count} of {free}: {taken}");
                }
            }
        }
    }
}
