//! Decides: from which NUMA nodes devices come (`pkg/kubelet/cm/devicemanager/topology_hints.go`): where they could, and
//! which are taken once it is known where they should.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::protocol::Device;
use super::select::Ids;
use super::{Devices, Inner, Offer};
use crate::agent::cpu::policy::of_pod;
use crate::agent::pod::{containers, uid};
use crate::agent::topology::hint::{Hints, Mask, marked, masks};

/// By device; one whose plugin does not tell is not in it.
pub type NodesOf = BTreeMap<String, Vec<u32>>;

/// What a plugin tells.
#[must_use]
pub fn told(devices: &[Device]) -> NodesOf {
    let of = |device: &Device| {
        let nodes = device.topology.as_ref()?.nodes.iter().filter_map(|node| u32::try_from(node.id).ok());
        Some((device.id.clone(), nodes.collect()))
    };
    devices.iter().filter_map(of).collect()
}

/// Devices that are free, by whether they are where they should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    near: Ids,
    far: Ids,
    /// Nobody knows where, or it does not matter.
    anywhere: Ids,
}

impl Groups {
    #[must_use]
    pub fn of(available: &Ids, nodes: &NodesOf, affinity: Option<Mask>) -> Groups {
        let Some(mask) = affinity.filter(|_| !nodes.is_empty()) else {
            return Groups { anywhere: available.clone(), ..Groups::default() };
        };
        let mut groups = Groups::default();
        for id in available {
            let of = nodes.get(id).filter(|nodes| !nodes.is_empty());
            let group = match of {
                None => &mut groups.anywhere,
                Some(nodes) if nodes.iter().any(|node| mask.contains(*node)) => &mut groups.near,
                Some(_) => &mut groups.far,
            };
            group.insert(id.clone());
        }
        groups
    }

    /// Those among which the plugin may have favourites; `None` when it is clear which are taken.
    #[must_use]
    pub fn to_prefer(&self, more: usize) -> Option<Ids> {
        match more.cmp(&self.near.len()) {
            std::cmp::Ordering::Less => Some(self.near.clone()),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(self.all().cloned().collect()),
        }
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.near.iter().chain(&self.far).chain(&self.anywhere)
    }

    /// All of `reused`, and so many more: near ones before others, the plugin's favourites before others of a kind.
    #[must_use]
    pub fn choose(&self, reused: &Ids, more: usize, preferred: &Ids) -> Ids {
        let favourites = |of: &Ids| of.intersection(preferred).cloned().collect::<Vec<String>>();
        let first = match more < self.near.len() {
            true => favourites(&self.near),
            false => Vec::new(),
        };
        let liked = self.far.union(&self.anywhere).filter(|id| preferred.contains(*id));
        let order = first.iter().chain(&self.near).chain(liked).chain(&self.far).chain(&self.anywhere);
        let mut chosen = Ids::new();
        for id in order {
            if chosen.len() < more {
                chosen.insert(id.clone());
            }
        }
        chosen.extend(reused.iter().cloned());
        chosen
    }
}

impl Devices {
    /// Where the container's devices could be, by resource.
    #[must_use]
    pub fn hints(
        &self,
        pod: &Pod,
        container: &Container,
        reusable: &BTreeMap<String, Ids>,
        nodes: &[u32],
    ) -> Vec<Hints> {
        let none = Ids::new();
        let wanted = self.wanted(pod, container);
        let inner = self.lock();
        let of = |(resource, required): (String, usize)| {
            let has = inner.record.granted(uid(pod), &container.name, &resource).map(|grant| &grant.devices);
            inner.hints(&resource, required, has.unwrap_or(&none), reusable.get(&resource).unwrap_or(&none), nodes)
        };
        wanted.into_iter().map(of).collect()
    }

    /// Where those of all the pod's containers could be.
    #[must_use]
    pub fn pod_hints(&self, pod: &Pod, nodes: &[u32]) -> Vec<Hints> {
        let mut resources: Vec<String> = containers(pod)
            .flat_map(|(_, container)| self.wanted(pod, container))
            .map(|(resource, _)| resource)
            .collect();
        resources.sort();
        resources.dedup();
        let of = |resource: String| {
            let count = |container: &Container| {
                let mut wanted = self.wanted(pod, container).into_iter();
                wanted.find(|(name, _)| *name == resource).map_or(0, |(_, count)| count)
            };
            let required = of_pod(pod, count);
            let inner = self.lock();
            let grants = inner.record.pods.get(uid(pod)).into_iter().flat_map(BTreeMap::values);
            let has = grants.filter_map(|of| of.get(&resource)).flat_map(|grant| grant.devices.iter().cloned());
            inner.hints(&resource, required, &has.collect(), &Ids::new(), nodes)
        };
        resources.into_iter().map(of).collect()
    }
}

impl Inner {
    fn hints(&self, resource: &str, required: usize, has: &Ids, reusable: &Ids, nodes: &[u32]) -> Hints {
        let offer = self.offers.get(resource).filter(|offer| !offer.nodes.is_empty())?;
        if !has.is_empty() {
            return match has.len() == required {
                true => possible(offer, has, &Ids::new(), required, nodes),
                false => Some(Vec::new()),
            };
        }
        let mut taken = self.record.in_use(resource);
        taken.extend(self.promised.get(resource).into_iter().flatten().cloned());
        let available: Ids = offer.healthy.difference(&taken).cloned().collect();
        if available.union(reusable).count() < required {
            return Some(Vec::new());
        }
        possible(offer, &available, reusable, required, nodes)
    }
}

fn possible(offer: &Offer, available: &Ids, reusable: &Ids, required: usize, nodes: &[u32]) -> Hints {
    let mut fewest = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let mut found = Vec::new();
    for mask in masks(nodes) {
        let is_inside =
            |id: &&String| offer.nodes.get(*id).is_some_and(|nodes| nodes.iter().any(|node| mask.contains(*node)));
        let inside = offer.healthy.iter().chain(&offer.unhealthy).filter(is_inside).count();
        if inside >= required {
            fewest = fewest.min(mask.count());
        }
        // Reusable ones that are known to be somewhere have to be in it.
        let mut known = reusable.iter().filter(|id| offer.nodes.contains_key(*id));
        if !known.all(|id| is_inside(&id)) {
            continue;
        }
        let matching = reusable.iter().filter(is_inside).count() + available.iter().filter(is_inside).count();
        if matching >= required {
            found.push(mask);
        }
    }
    marked(found, fewest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Ids {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// `a0 b1 c01 d`: where they are by their digits.
    fn nodes(text: &str) -> NodesOf {
        let of = |word: &str| {
            let digits: Vec<u32> = word.chars().filter_map(|c| c.to_digit(10)).collect();
            (!digits.is_empty()).then(|| (word[..1].to_owned(), digits))
        };
        text.split_whitespace().filter_map(of).collect()
    }

    #[test]
    fn favourites_first() {
        for (reused, available, more, preferred, expect) in [
            ("", "a b c", 2, "", "a b"),
            ("", "a b c", 2, "c", "a c"),
            ("", "a b c", 1, "c b", "b"),
            // What is not to be had is not given.
            ("", "a b", 1, "z", "a"),
            ("x", "a b", 1, "b", "b x"),
        ] {
            let groups = Groups::of(&ids(available), &NodesOf::new(), None);
            assert_eq!(groups.choose(&ids(reused), more, &ids(preferred)), ids(expect), "{available} {preferred}");
        }
    }

    #[test]
    fn near_ones_before_favourites() {
        let devices = nodes("a0 b0 c1 d1 e");
        let all = ids("a b c d e");
        let near = Groups::of(&all, &devices, Some(Mask::of([1])));
        assert_eq!(near, Groups { near: ids("c d"), far: ids("a b"), anywhere: ids("e") });
        for (more, asked, preferred, expect) in [
            (1, Some("c d"), "d", "d"),
            (1, Some("c d"), "a", "c"),
            (2, None, "a b", "c d"),
            (3, Some("a b c d e"), "b", "b c d"),
            (3, Some("a b c d e"), "e", "c d e"),
            (3, Some("a b c d e"), "", "a c d"),
        ] {
            assert_eq!(near.to_prefer(more), asked.map(ids), "{more}");
            assert_eq!(near.choose(&Ids::new(), more, &ids(preferred)), ids(expect), "{more} {preferred}");
        }
    }

    fn check(devices: &str, available: &str, reusable: &str, required: usize, expect: &[(&[u32], bool)]) {
        let of = nodes(devices);
        let healthy: Ids = devices.split_whitespace().map(|word| word[..1].to_owned()).collect();
        let offer = Offer { healthy, nodes: of, ..Offer::default() };
        let found = possible(&offer, &ids(available), &ids(reusable), required, &[0, 1]).expect("hints");
        let found: Vec<_> = found.iter().map(|hint| (hint.affinity, hint.preferred)).collect();
        let expect: Vec<_> =
            expect.iter().map(|(nodes, preferred)| (Some(Mask::of(nodes.iter().copied())), *preferred)).collect();
        assert_eq!(found, expect, "{required} of {available}");
    }

    /// As in upstream's `topology_hints_test.go`.
    #[test]
    fn where_they_could_be() {
        let four = "a0 b1 c0 d1";
        check(four, "a b c d", "", 1, &[(&[0], true), (&[1], true), (&[0, 1], false)]);
        check(four, "a b c d", "", 2, &[(&[0], true), (&[1], true), (&[0, 1], false)]);
        check(four, "a b", "", 2, &[(&[0, 1], false)]);
        check(four, "a b c d", "", 3, &[(&[0, 1], true)]);
        check(four, "b c d", "a", 1, &[(&[0], true), (&[0, 1], false)]);
        check("a01 b1", "a b", "", 2, &[(&[1], true), (&[0, 1], false)]);
    }

    #[test]
    fn what_plugins_tell() {
        use crate::agent::devices::protocol::{NumaNode, TopologyInfo};
        let device = |id: &str, nodes: Option<&[i64]>| Device {
            id: id.to_owned(),
            topology: nodes.map(|ids| TopologyInfo { nodes: ids.iter().map(|id| NumaNode { id: *id }).collect() }),
            ..Device::default()
        };
        let list = [device("a", Some(&[0, 1])), device("b", None), device("c", Some(&[])), device("d", Some(&[-1]))];
        let expect = [("a".to_owned(), vec![0, 1]), ("c".to_owned(), vec![]), ("d".to_owned(), vec![])];
        assert_eq!(told(&list), expect.into());
    }
}
