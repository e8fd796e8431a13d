//! Decides: who may be put out for whom: less important pods only, where a more important one is to go, when there is no
//! room otherwise, no more of them than it needs, and not against their budget when others would do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{LAG, State, is_active, is_ending, is_over, milli_cpu, name, number, text};
use crate::clock;

/// How long a binding takes at most.
const ON_ITS_WAY: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Places {
    /// Pods that were to go to a node, by uid: until when, where, priority and CPU, and whether it is tied to the node.
    nominees: BTreeMap<String, Nominee>,
    /// When other pods than victims came to a node or left it.
    churn: BTreeMap<String, Instant>,
    /// When each pod came to its node, by uid.
    since: BTreeMap<String, Instant>,
    doubts: Vec<Doubt>,
}

/// It seems that a pod was put out without need.
struct Doubt {
    since: Instant,
    /// The pod that it was put out for.
    whom: String,
    on: String,
    /// Milli-CPU that there was more than it needs.
    slack: i64,
    why: String,
}

struct Nominee {
    name: String,
    seen: Instant,
    node: String,
    priority: i64,
    cpu: i64,
    tied: bool,
}

fn priority(pod: &Value) -> i64 {
    number(pod, "/spec/priority", 0)
}

fn is_victim(pod: &Value) -> bool {
    let all = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    all.into_iter().any(|c| c["type"] == "DisruptionTarget" && c["reason"] == "PreemptionByScheduler")
}

impl State {
    /// What is left of a node's CPU.
    pub(super) fn free(&self, node: &str) -> i64 {
        let cores = self.objects.get(&("nodes".into(), node.into()));
        let cores = cores.and_then(|n| text(n, "/status/allocatable/cpu").parse::<i64>().ok()).unwrap_or(0);
        let there = self.of("pods").filter(|p| text(p, "/spec/nodeName") == node && !is_over(p));
        cores * 1000 - there.map(milli_cpu).sum::<i64>()
    }

    /// CPU that is kept for pods whose volumes are on their way to a node.
    fn reserved(&self, node: &str) -> i64 {
        let waiting = self.of("pods").filter(|p| is_active(p) && text(p, "/spec/nodeName").is_empty());
        waiting.filter(|p| self.is_expected(p, node)).map(milli_cpu).sum()
    }

    /// What of a node is neither taken nor kept.
    pub(super) fn room(&mut self, node: &str) {
        let room = self.free(node) - self.reserved(node);
        self.limit("room", node, room);
    }

    pub(super) fn node(&mut self, new: &Value) {
        self.limit("closed", name(new), i64::from(new["spec"]["unschedulable"] == true));
        let taints = new.pointer("/spec/taints").and_then(Value::as_array).map_or(0, Vec::len);
        self.limit("taints", name(new), i64::try_from(taints).unwrap());
        self.room(name(new));
    }

    pub(super) fn budget(&mut self, new: &Value) {
        self.limit("allowed", name(new), number(new, "/status/disruptionsAllowed", 0));
    }

    /// Follows who is where, and who is to go where.
    pub(super) fn places(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let now = clock::instant();
        let node = |pod: &Value| text(pod, "/spec/nodeName").to_owned();
        let on = new.or(old).map(node).unwrap_or_default();
        if !on.is_empty() {
            self.room(&on);
            let came = old.is_none_or(|old| node(old).is_empty());
            self.judge_doubts(new.filter(|_| came));
            if let Some(pod) = new.filter(|_| came) {
                self.places.since.insert(text(pod, "/metadata/uid").to_owned(), now);
            }
            let left = new.is_none_or(is_over) && old.is_some_and(|old| !is_over(old) && !is_victim(old));
            let ends = new.is_some_and(is_ending) && old.is_some_and(|old| !is_ending(old) && !is_victim(old));
            if came || left || ends {
                self.places.churn.insert(on.clone(), now);
            }
        }
        let Some(pod) = new.or(old) else { return };
        let nominated = new.map(|p| text(p, "/status/nominatedNodeName")).unwrap_or_default();
        if new.is_some() && !on.is_empty() && !nominated.is_empty() {
            return self.fail(format!("{} is on {on} and still to go to {nominated}", name(pod)));
        }
        let uid = text(pod, "/metadata/uid").to_owned();
        if nominated.is_empty() {
            return;
        }
        let nominee = Nominee {
            name: name(pod).to_owned(),
            seen: now,
            node: nominated.to_owned(),
            priority: priority(pod),
            cpu: milli_cpu(pod),
            tied: pod.pointer("/spec/volumes").is_some() || pod.pointer("/spec/affinity").is_some(),
        };
        self.places.nominees.insert(uid, nominee);
    }

    /// The scheduler says of a pod that it has to go.
    pub(super) fn chosen(&mut self, old: &Value, victim: &Value) {
        if is_victim(old) || !is_victim(victim) {
            return;
        }
        let node = text(victim, "/spec/nodeName").to_owned();
        let more = |p: &Value| priority(p) > priority(victim) && is_active(p) && !self.settled(p);
        if !self.of("pods").any(more) {
            return self.fail(format!("{} is put out on {node} for nobody", name(victim)));
        }
        let here = |n: &&Nominee| n.node == node && (n.seen.elapsed() < LAG || self.waits(&n.name));
        let for_whom: Vec<&Nominee> = self.places.nominees.values().filter(here).collect();
        let [one] = for_whom[..] else { return };
        if one.priority <= priority(victim) {
            return self.fail(format!("{} is put out on {node} for {}", name(victim), one.name));
        }
        let said = |what: &str| format!("{} is put out on {node} for {}: {what}", name(victim), one.name);
        let doubts: Vec<Doubt> = self
            .doubts(one, victim, &node)
            .into_iter()
            .map(|(on, slack, what)| Doubt {
                since: clock::instant(),
                whom: one.name.clone(),
                on,
                slack,
                why: said(&what),
            })
            .collect();
        self.places.doubts.extend(doubts);
    }

    /// It has had its place for long.
    fn settled(&self, pod: &Value) -> bool {
        let since = self.places.since.get(text(pod, "/metadata/uid"));
        !text(pod, "/spec/nodeName").is_empty() && since.is_some_and(|at| at.elapsed() >= LAG)
    }

    fn waits(&self, pod: &str) -> bool {
        let pod = self.objects.get(&("pods".into(), pod.into()));
        pod.is_some_and(|p| is_active(p) && text(p, "/spec/nodeName").is_empty())
    }

    /// Why the victim need not have gone, on which node, and by how much CPU.
    fn doubts(&self, one: &Nominee, victim: &Value, node: &str) -> Vec<(String, i64, String)> {
        let room = |node: &str| self.lately("room", node).into_iter().min().unwrap_or(0) - one.cpu;
        let mut doubts = vec![(node.to_owned(), room(node), "there is room".to_owned())];
        let never = |what, node: &str| self.lately(what, node).into_iter().all(|n| n == 0);
        let unwanted = |node: &str| !self.places.nominees.values().any(|n| n.node == node && n.seen.elapsed() < LAG);
        let nodes = self.of("nodes").map(name).filter(|n| *n != node && !one.tied);
        let open = nodes.filter(|n| never("closed", n) && never("taints", n) && unwanted(n));
        doubts.extend(open.map(|n| (n.to_owned(), room(n), format!("there is room on {n}"))));
        if self.places.churn.get(node).is_some_and(|at| at.elapsed() < LAG) {
            return doubts;
        }
        let there = || self.of("pods").filter(|p| text(p, "/spec/nodeName") == node && !is_over(p));
        let free = self.free(node) - self.reserved(node) - one.cpu;
        let others: i64 = there().filter(|p| is_victim(p) && name(p) != name(victim)).map(milli_cpu).sum();
        doubts.push((node.to_owned(), free + others, "others are enough".to_owned()));
        let spared = |p: &Value| {
            let lately = self.lately("allowed", super::app(p));
            !lately.is_empty() && lately.iter().all(|n| *n == 0)
        };
        if spared(victim) && there().all(|p| !is_ending(p)) {
            let lesser = there().filter(|p| priority(p) < one.priority && !spared(p));
            let why = "its budget spares it, and others would do";
            doubts.push((node.to_owned(), free + lesser.map(milli_cpu).sum::<i64>(), why.to_owned()));
        }
        doubts
    }

    /// Whom the scheduler had on its way then has come by now.
    fn judge_doubts(&mut self, came: Option<&Value>) {
        for doubt in &mut self.places.doubts {
            if let Some(pod) = came.filter(|p| text(p, "/spec/nodeName") == doubt.on && name(p) != doubt.whom) {
                doubt.slack -= milli_cpu(pod);
            }
        }
        let (over, open): (Vec<Doubt>, Vec<Doubt>) =
            std::mem::take(&mut self.places.doubts).into_iter().partition(|d| d.since.elapsed() >= ON_ITS_WAY);
        self.places.doubts = open;
        if let Some(doubt) = over.into_iter().find(|d| d.slack >= 0) {
            self.fail(format!("{}, {} m more than enough", doubt.why, doubt.slack));
        }
    }
}
