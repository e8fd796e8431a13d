//! Decides: pods leave nodes whose NoExecute taints they do not tolerate, or no longer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use serde_json::json;

use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan, Write};
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::request::{Class, Request, Verb};
use crate::client::store::Meta as _;

/// Keys are nodes.
#[derive(Default)]
pub struct TaintEviction {
    watched: Mutex<HashMap<Box<str>, Watched>>,
}

/// What is known of a node with such taints.
#[derive(Default)]
struct Watched {
    /// Since when taints that do not say it are there, by key, value and effect.
    seen: BTreeMap<(String, String), Timestamp>,
    /// Pods that are to leave later.
    waiting: BTreeSet<Name>,
}

fn evicting(node: &Node) -> Vec<&Taint> {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|t| t.effect == "NoExecute").collect()
}

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.nodes.subscribe(move |change| {
            if change.each().any(|n| !evicting(n).is_empty())
                && let Some(node) = change.new.or(change.old)
            {
                queue.add("", node.metadata.name.as_deref().unwrap_or_default());
            }
        });
        let (queue, nodes) = (enqueue.clone(), Arc::clone(&stores.nodes));
        stores.pods.subscribe(move |change| {
            let Some(pod) = change.new.filter(|p| !pods::node_name(p).is_empty()) else { return };
            let name = pods::node_name(pod);
            let tolerations = |p: &Pod| p.spec.as_ref().and_then(|s| s.tolerations.clone());
            let moved =
                change.old.is_none_or(|old| pods::node_name(old) != name || tolerations(old) != tolerations(pod));
            if moved && nodes.get("", name).is_some_and(|n| !evicting(&n).is_empty()) {
                queue.add("", name);
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let before = watched.remove(&key.name).unwrap_or_default();
        // Pods of a node that is gone are ended elsewhere.
        let Some(node) = stores.nodes.get("", &key.name) else { return plan };
        let taints = evicting(&node);
        if taints.is_empty() && before.waiting.is_empty() {
            return plan;
        }
        let on_node: Vec<Arc<Pod>> =
            stores.pods.all().into_iter().filter(|p| pods::node_name(p) == &*key.name).collect();
        let after = self::plan(&taints, &on_node, before, moment.now, &mut plan);
        if !taints.is_empty() {
            watched.insert(key.name.clone(), after);
        }
        plan
    }
}

/// Removes the pods whose time has come, and tells of those that may stay after all.
fn plan(taints: &[&Taint], on_node: &[Arc<Pod>], before: Watched, now: Timestamp, plan: &mut Plan) -> Watched {
    let mut after = Watched::default();
    let mut since: Vec<(&Taint, Timestamp)> = Vec::new();
    for taint in taints {
        let at = taint.time_added.as_ref().map_or_else(
            || {
                let same = (taint.key.clone(), taint.value.clone().unwrap_or_default());
                let seen = before.seen.get(&same).copied().unwrap_or(now);
                after.seen.insert(same, seen);
                seen
            },
            |t| t.0,
        );
        since.push((taint, at));
    }
    for pod in on_node.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
        let name = Name::new(pod.metadata.namespace(), pod.metadata.name());
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        match stays(&since, tolerations, placed(pod), now) {
            Some(left) if left.is_zero() => evict(pod, now, plan),
            Some(left) => {
                plan.look_after(left);
                after.waiting.insert(name);
            }
            None if before.waiting.contains(&name) => plan.push(note(pod, "Cancelling deletion of Pod")),
            None => {}
        }
    }
    after
}

/// Since when the pod is on its node.
fn placed(pod: &Pod) -> Option<Timestamp> {
    let scheduled = pods::condition(pod, "PodScheduled").filter(|c| c.status == "True");
    let at = scheduled.and_then(|c| c.last_transition_time.as_ref()).or(pod.metadata.creation_timestamp.as_ref());
    at.map(|t| t.0)
}

/// How long the pod may stay; `None` for ever. Of each taint the first toleration that covers it counts, from the time
/// that both the taint and the pod are there; the shortest ends it.
fn stays(
    taints: &[(&Taint, Timestamp)],
    tolerations: &[Toleration],
    placed: Option<Timestamp>,
    now: Timestamp,
) -> Option<Duration> {
    let mut left: Option<Duration> = None;
    for (taint, since) in taints {
        let Some(covering) = tolerations.iter().find(|t| covers(t, taint)) else { return Some(Duration::ZERO) };
        let Some(seconds) = covering.toleration_seconds else { continue };
        let since = placed.map_or(*since, |placed| placed.max(*since));
        // No number of seconds that is kept is too many, but what is not to end may be written so.
        let due = since.checked_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX);
        let rest = Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO);
        left = Some(left.map_or(rest, |l| l.min(rest)));
    }
    left
}

fn covers(t: &Toleration, taint: &Taint) -> bool {
    let (effect, key) = (t.effect.as_deref().unwrap_or_default(), t.key.as_deref().unwrap_or_default());
    let exists = t.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && (exists || t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}

fn note(pod: &Pod, what: &str) -> Action {
    let meta = &pod.metadata;
    Action::Event(Note {
        regarding: owners::object_reference(row("pods"), meta),
        warning: false,
        reason: "TaintManagerEviction",
        message: format!("{what} {}/{}", meta.namespace(), meta.name()),
        component: "taint-eviction-controller",
        action: "",
    })
}

fn evict(pod: &Pod, now: Timestamp, plan: &mut Plan) {
    let meta = &pod.metadata;
    let (ns, name, uid) = (meta.namespace(), meta.name(), meta.uid());
    plan.push(note(pod, "Marking for deletion Pod"));
    let body = json!({ "metadata": { "uid": uid }, "status": { "conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": owners::whole_second(now) }] } });
    let mut write = Write::new(Request::new(Verb::StrategicPatch, row("pods"), ns, name, body).on("status"));
    write.fine = &[Class::NotFound, Class::Conflict];
    plan.push(write);
    plan.push(Write::delete(Request::delete(row("pods"), ns, name, uid)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_pod_stays() {
        let now = Timestamp::from_second(1000).unwrap();
        let taint = |key: &str, added: i64| -> Taint {
            serde_json::from_value(json!({ "key": key, "effect": "NoExecute",
                "timeAdded": Timestamp::from_second(added).unwrap().to_string() }))
            .unwrap()
        };
        let tolerate = |value| -> Toleration { serde_json::from_value(value).unwrap() };
        let (a, b) = (taint("a", 900), taint("b", 990));
        let forever = tolerate(json!({ "operator": "Exists" }));
        let a300 = tolerate(json!({ "key": "a", "operator": "Exists", "tolerationSeconds": 300 }));
        let b20 = tolerate(json!({ "key": "b", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20 }));
        let s = |n| Some(Duration::from_secs(n));
        let stays = |taints: &[&Taint], tolerations: &[&Toleration], placed: i64, now| {
            let since: Vec<_> = taints.iter().map(|t| (*t, t.time_added.as_ref().unwrap().0)).collect();
            let tolerations: Vec<_> = tolerations.iter().map(|t| (*t).clone()).collect();
            super::stays(&since, &tolerations, Timestamp::from_second(placed).ok(), now)
        };
        assert_eq!(stays(&[&a], &[], 0, now), s(0));
        assert_eq!(stays(&[&a], &[&b20], 0, now), s(0));
        assert_eq!(stays(&[&a], &[&forever], 0, now), None);
        assert_eq!(stays(&[&a], &[&forever, &a300], 0, now), None, "the first counts");
        assert_eq!(stays(&[&a], &[&a300], 0, now), s(200));
        assert_eq!(stays(&[&a], &[&a300], 950, now), s(250), "a pod that came later has its time too");
        assert_eq!(stays(&[&a, &b], &[&a300, &b20], 0, now), s(10));
        assert_eq!(stays(&[&a], &[&a300], 0, now + SignedDuration::from_secs(500)), s(0));
    }

    #[test]
    fn a_pods_time_runs_on_whatever_else_changes() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let taint: Taint = serde_json::from_value(json!({ "key": "a", "effect": "NoExecute" })).unwrap();
        let pod = |toleration: serde_json::Value| -> Vec<Arc<Pod>> {
            vec![Arc::new(
                serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
                    "spec": { "containers": [], "tolerations": [toleration] } }))
                .unwrap(),
            )]
        };
        let minute = pod(json!({ "key": "a", "operator": "Exists", "tolerationSeconds": 60 }));
        let told = |plan: &Plan| {
            let line = |action: &Action| match action {
                Action::Event(note) => note.message.clone(),
                Action::Write(write) => match &write.request.body["status"]["conditions"][0]["reason"] {
                    serde_json::Value::Null => format!("{:?}", write.request.verb),
                    reason => reason.as_str().unwrap().to_owned(),
                },
                _ => panic!("{action:?}"),
            };
            (plan.actions.iter().map(line).collect::<Vec<_>>(), plan.again.map(|d| d.as_secs()))
        };
        let step = |taints: &[&Taint], pods: &[Arc<Pod>], before, now| {
            let mut plan = Plan::default();
            let after = super::plan(taints, pods, before, at(now), &mut plan);
            (told(&plan), after)
        };
        let (first, state) = step(&[&taint], &minute, Watched::default(), 1000);
        assert_eq!(first, (vec![], Some(60)));
        let (later, state) = step(&[&taint], &minute, state, 1040);
        assert_eq!(later, (vec![], Some(20)), "a taint that does not say its age has one");
        let evicted = ["Marking for deletion Pod ns/p", "DeletionByTaintManager", "Delete"].map(str::to_owned).to_vec();
        let (due, _) = step(&[&taint], &minute, state, 1060);
        assert_eq!(due, (evicted, None));
        let (_, state) = step(&[&taint], &minute, Watched::default(), 1000);
        let (gone, state) = step(&[], &minute, state, 1030);
        assert_eq!(gone, (vec!["Cancelling deletion of Pod ns/p".to_owned()], None));
        assert!(state.waiting.is_empty() && state.seen.is_empty());
        let (again, state) = step(&[&taint], &minute, state, 1050);
        assert_eq!(again, (vec![], Some(60)), "a taint that comes back is new");
        let forever = pod(json!({ "key": "a", "operator": "Exists" }));
        assert_eq!(step(&[&taint], &forever, state, 1060).0.0, ["Cancelling deletion of Pod ns/p"]);
    }
}
