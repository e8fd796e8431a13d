//! Random clusters against a checker that knows nothing of the scheduler: what is placed keeps every hard constraint,
//! and nobody waits although a node would do.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodAffinityTerm, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::dice::Dice;
use super::*;
use crate::server::scheduler::filter::{node_allowed, tolerated};

const RUNS: u64 = 300;
const EVENTS: usize = 8;
/// The longest back-off is over.
const ROUND: Duration = Duration::from_millis(10_001);

fn random_node(dice: &mut Dice, name: &str) -> Node {
    let mut change = json!({ "metadata": { "labels": {} }, "spec": { "taints": [] } });
    if dice.one_in(3) {
        change["metadata"]["labels"]["disk"] = "ssd".into();
    }
    if dice.one_in(4) {
        let effect = dice.of(&["NoSchedule", "NoExecute", "PreferNoSchedule"]);
        change["spec"]["taints"] = json!([{ "key": "k", "effect": effect }]);
    }
    change["spec"]["unschedulable"] = dice.one_in(6).into();
    node(name, dice.of(&["z0", "z1", "z2", ""]), dice.of(&["1", "2", "4"]), change)
}

fn random_pod(dice: &mut Dice, name: &str) -> Pod {
    let of = dice.of(&["a", "b", "c"]);
    let mut change = both(cpu(dice.of(&["100m", "500m", "900m"])), &app(of));
    change["spec"]["priority"] = dice.of(&[0, 0, 0, 10]).into();
    if dice.one_in(6) {
        change["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 80, "hostPort": 80 }]);
    }
    if dice.one_in(6) {
        change["spec"]["nodeSelector"] = json!({ "disk": "ssd" });
    }
    if dice.one_in(3) {
        change["spec"]["tolerations"] = json!([{ "key": "k", "operator": "Exists" }]);
    }
    let key = dice.of(&[HOSTNAME, ZONE]);
    if dice.one_in(4) {
        merge(&mut change, &near(dice.of(&["a", "b", "c"]), key));
    }
    if dice.one_in(4) {
        merge(&mut change, &apart(dice.of(&["a", "b", "c"]), dice.of(&[HOSTNAME, ZONE])));
    }
    if dice.one_in(3) {
        let policy = json!({ "maxSkew": dice.of(&[1, 2]), "minDomains": dice.of(&[1, 2]),
            "nodeAffinityPolicy": dice.of(&["Honor", "Ignore"]), "nodeTaintsPolicy": dice.of(&["Honor", "Ignore"]) });
        merge(&mut change, &spread(dice.of(&["a", "b", "c"]), key, policy));
    }
    pod(name, change)
}

/// The checker: every rule as the API reference words it, with no thought of speed.
mod naive {
    use super::*;

    fn label<'a>(node: &'a Node, key: &str) -> Option<&'a String> {
        node.metadata.labels.as_ref()?.get(key)
    }

    fn name(node: &Node) -> &str {
        node.metadata.name.as_deref().unwrap()
    }

    fn selects(selector: Option<&LabelSelector>, pod: &Pod) -> bool {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        selector.is_some_and(|s| s.match_labels.iter().flatten().all(|(k, v)| labels.get(k) == Some(v)))
    }

    fn millis(pod: &Pod) -> i64 {
        let requests = pod.spec.as_ref().unwrap().containers[0].resources.as_ref().unwrap().requests.clone().unwrap();
        requests["cpu"].0.strip_suffix('m').unwrap().parse().unwrap()
    }

    fn host_port(pod: &Pod) -> bool {
        pod.spec.as_ref().unwrap().containers[0].ports.is_some()
    }

    fn terms(pod: &Pod, anti: bool) -> Vec<PodAffinityTerm> {
        let Some(affinity) = pod.spec.as_ref().unwrap().affinity.clone() else { return Vec::new() };
        let required = if anti {
            affinity.pod_anti_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution)
        } else {
            affinity.pod_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution)
        };
        required.unwrap_or_default()
    }

    /// The node of each placed pod that is in the same domain.
    fn same<'a>(key: &str, node: &Node, nodes: &'a [Node], pod: &Pod) -> Option<&'a Node> {
        let of = pod.spec.as_ref().unwrap().node_name.as_deref();
        let there = nodes.iter().find(|n| Some(name(n)) == of)?;
        (label(node, key).is_some() && label(there, key) == label(node, key)).then_some(there)
    }

    pub fn fits(pod: &Pod, node: &Node, nodes: &[Node], placed: &[Pod]) -> bool {
        let spec = pod.spec.as_ref().unwrap();
        let tolerations = spec.tolerations.clone().unwrap_or_default();
        let node_spec = node.spec.clone().unwrap_or_default();
        let hard = |n: &Node| {
            let taints = n.spec.clone().unwrap_or_default().taints.unwrap_or_default();
            taints.iter().any(|t| t.effect != "PreferNoSchedule" && !tolerated(t, &tolerations))
        };
        let allowed = |n: &Node| node_allowed(spec, name(n), &n.metadata.labels.clone().unwrap_or_default());
        if node_spec.unschedulable == Some(true) || hard(node) || !allowed(node) {
            return false;
        }
        let here: Vec<&Pod> =
            placed.iter().filter(|p| p.spec.as_ref().unwrap().node_name.as_deref() == Some(name(node))).collect();
        let cores: i64 = node.status.as_ref().unwrap().allocatable.as_ref().unwrap()["cpu"].0.parse().unwrap();
        if here.iter().map(|p| millis(p)).sum::<i64>() + millis(pod) > cores * 1000 {
            return false;
        }
        if host_port(pod) && here.iter().any(|p| host_port(p)) {
            return false;
        }
        near_and_far(pod, node, nodes, placed)
            && spec.topology_spread_constraints.iter().flatten().all(|c| {
                let part = |n: &Node| {
                    label(n, &c.topology_key).is_some()
                        && (c.node_affinity_policy.as_deref() == Some("Ignore") || allowed(n))
                        && (c.node_taints_policy.as_deref() != Some("Honor") || !hard(n))
                };
                is_even(c, pod, node, nodes, placed, &part)
            })
    }

    fn near_and_far(pod: &Pod, node: &Node, nodes: &[Node], placed: &[Pod]) -> bool {
        let selects = |t: &PodAffinityTerm, p: &Pod| selects(t.label_selector.as_ref(), p);
        let near = terms(pod, false);
        if near.iter().any(|t| label(node, &t.topology_key).is_none()) {
            return false;
        }
        let wanted: Vec<&Pod> = placed.iter().filter(|p| near.iter().all(|t| selects(t, p))).collect();
        let all_near = near.iter().all(|t| wanted.iter().any(|p| same(&t.topology_key, node, nodes, p).is_some()));
        // Pods on nodes without the label are in no domain.
        let in_domains = wanted.iter().any(|p| {
            let of = p.spec.as_ref().unwrap().node_name.as_deref();
            let there = nodes.iter().find(|n| Some(name(n)) == of);
            there.is_some_and(|n| near.iter().any(|t| label(n, &t.topology_key).is_some()))
        });
        let first = !in_domains && near.iter().all(|t| selects(t, pod));
        let far = terms(pod, true)
            .iter()
            .all(|t| !placed.iter().any(|p| selects(t, p) && same(&t.topology_key, node, nodes, p).is_some()));
        let left_alone = placed.iter().all(|p| {
            !terms(p, true).iter().any(|t| selects(t, pod) && same(&t.topology_key, node, nodes, p).is_some())
        });
        (all_near || first) && far && left_alone
    }

    fn is_even(
        c: &TopologySpreadConstraint,
        pod: &Pod,
        node: &Node,
        nodes: &[Node],
        placed: &[Pod],
        part: &dyn Fn(&Node) -> bool,
    ) -> bool {
        let Some(domain) = label(node, &c.topology_key) else { return false };
        let mut counts: BTreeMap<&String, i32> = BTreeMap::new();
        for n in nodes.iter().filter(|n| part(n)) {
            let here = |p: &&Pod| p.spec.as_ref().unwrap().node_name.as_deref() == Some(name(n));
            let matching = placed.iter().filter(here).filter(|p| selects(c.label_selector.as_ref(), p)).count();
            *counts.entry(label(n, &c.topology_key).unwrap()).or_insert(0) += i32::try_from(matching).unwrap();
        }
        let few = counts.len() < usize::try_from(c.min_domains.unwrap_or(1)).unwrap();
        let least = if few { 0 } else { counts.values().min().copied().unwrap_or(0) };
        let own = i32::from(selects(c.label_selector.as_ref(), pod));
        counts.get(domain).copied().unwrap_or(0) + own - least <= c.max_skew
    }
}

/// The cluster as the API would have it, next to the scheduler's.
struct Truth {
    world: World,
    nodes: Vec<Node>,
    placed: Vec<Pod>,
    waiting: Vec<Pod>,
    /// By name of the pod.
    nominated: BTreeMap<String, String>,
    seed: u64,
}

fn name_of(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap()
}

fn bound(pod: &Pod, node: &str) -> Pod {
    let mut pod = pod.clone();
    pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
    pod
}

impl Truth {
    fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|n| n.metadata.name.as_deref() == Some(name)).unwrap()
    }

    fn add(&mut self, pod: Pod) {
        self.world.pod(pod.clone());
        self.waiting.push(pod);
    }

    fn delete(&mut self, name: &str) {
        self.placed.retain(|p| name_of(p) != name);
        self.world.state.forget_pod(name, self.world.now);
    }

    fn attempts(&mut self) {
        while let Some(attempt) = self.world.attempt() {
            match attempt {
                Attempt::Place { pod, node, .. } => {
                    let at = self.waiting.iter().position(|p| name_of(p) == pod.name).unwrap();
                    let pod = self.waiting.remove(at);
                    let fits = naive::fits(&pod, self.node(&node), &self.nodes, &self.placed);
                    assert!(fits, "seed {}: {} is on {node} against its constraints", self.seed, name_of(&pod));
                    self.nominated.remove(&name_of(&pod));
                    let pod = bound(&pod, &node);
                    self.world.pod(pod.clone());
                    self.placed.push(pod);
                }
                other @ (Attempt::Promise { .. } | Attempt::Unbindable { .. }) => panic!("{other:?}"),
                Attempt::Refused(refused) => {
                    if let Some(node) = refused.nominate {
                        self.nominated.insert(refused.pod.name.clone(), node);
                    }
                    for other in refused.displaced {
                        self.nominated.remove(&other.name);
                    }
                    for victim in &refused.victims {
                        assert!(victim.priority < refused.pod.priority, "seed {}", self.seed);
                        self.delete(&victim.name);
                    }
                    if !refused.victims.is_empty() {
                        self.world.state.preempted(&refused.pod.uid, true);
                    }
                }
            }
        }
    }

    /// Lets the back-offs pass until nothing is left but the five minutes.
    fn settle(&mut self) {
        self.attempts();
        for _ in 0..3 {
            self.world.later(ROUND);
            self.attempts();
            if self.world.state.deadline().is_none_or(|at| at > self.world.now + ROUND) {
                break;
            }
        }
        self.nobody_waits_in_vain();
    }

    fn nobody_waits_in_vain(&self) {
        let priority = |p: &Pod| p.spec.as_ref().unwrap().priority.unwrap_or(0);
        for pod in &self.waiting {
            // Nominated pods hold their room against those that are not more important.
            let mut held = self.placed.clone();
            for (other, node) in self.nominated.iter().filter(|(n, node)| **n != name_of(pod) && !node.is_empty()) {
                let other = self.waiting.iter().find(|p| name_of(p) == *other);
                held.extend(other.filter(|o| priority(o) >= priority(pod)).map(|o| bound(o, node)));
            }
            for node in &self.nodes {
                let fits =
                    naive::fits(pod, node, &self.nodes, &self.placed) && naive::fits(pod, node, &self.nodes, &held);
                let (pod, node) = (name_of(pod), node.metadata.name.as_deref().unwrap());
                assert!(!fits, "seed {}: {pod} waits although it fits {node}", self.seed);
            }
        }
    }
}

fn run(seed: u64) -> usize {
    let mut dice = Dice(seed);
    let count = 2 + dice.below(6);
    let nodes: Vec<Node> = (0..count).map(|i| random_node(&mut dice, &format!("n{i}"))).collect();
    let world = World::new(&nodes, &[]);
    let mut truth = Truth { world, nodes, placed: Vec::new(), waiting: Vec::new(), nominated: BTreeMap::new(), seed };
    for i in 0..6 + dice.below(14) {
        truth.add(random_pod(&mut dice, &format!("p{i}")));
    }
    truth.settle();
    for event in 0..EVENTS {
        match dice.below(4) {
            0 => truth.add(random_pod(&mut dice, &format!("later{event}"))),
            1 => {
                let name = dice.below(count);
                let node = random_node(&mut dice, &format!("n{name}"));
                truth.nodes[usize::try_from(name).unwrap()] = node.clone();
                truth.world.node(node);
            }
            _ if truth.placed.is_empty() => {}
            2 => {
                let at = usize::try_from(dice.below(truth.placed.len() as u64)).unwrap();
                let labels = Some([("app".to_owned(), dice.of(&["a", "b", "c"]).to_owned())].into());
                truth.placed[at].metadata.labels = labels;
                truth.world.pod(truth.placed[at].clone());
            }
            _ => {
                let at = usize::try_from(dice.below(truth.placed.len() as u64)).unwrap();
                let name = name_of(&truth.placed[at]);
                truth.delete(&name);
            }
        }
        truth.settle();
    }
    truth.placed.len()
}

#[test]
fn constraints_are_kept_and_nobody_waits_in_vain() {
    let placed: usize = (0..RUNS).map(run).sum();
    assert!(placed > usize::try_from(RUNS).unwrap() * 3, "so few were placed that nothing was tried: {placed}");
}
