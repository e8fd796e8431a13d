//! Decides: what of the node's resources is given to which pod: whether there is room for one more, and for one that
//! wants to grow (`pkg/kubelet/allocation`). One ledger per node; a pod that waits for room is granted it here as soon as
//! another leaves or shrinks, and its worker woken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Pod, PodStatus, ResourceRequirements};

use super::cgroups::{Qos, milli, qos};
use super::pod::{Role, containers, pod_spec, uid};
use crate::api::amounts::{Amounts, requests};

/// What a pod was given, which may be less than its spec asks for by now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// `spec.resources`
    pod: Option<ResourceRequirements>,
    containers: BTreeMap<String, ResourceRequirements>,
}

impl Allocation {
    /// All that the spec asks for.
    #[must_use]
    pub fn of(pod: &Pod) -> Allocation {
        let own = containers(pod).map(|(_, c)| (c.name.clone(), c.resources.clone().unwrap_or_default()));
        Allocation { pod: pod_spec(pod).resources.clone(), containers: own.collect() }
    }

    /// What the pod had when its status was told last: the API remembers it, so that this node writes nothing to its disk.
    /// A resize that came since, or that still waits, is not in it.
    #[must_use]
    pub fn told(pod: &Pod) -> Allocation {
        let mut found = Allocation::of(pod);
        let none = PodStatus::default();
        let status = pod.status.as_ref().unwrap_or(&none);
        let told = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        for told in told {
            if let (Some(mine), Some(had)) = (found.containers.get_mut(&told.name), &told.resources) {
                keep(mine, had);
            }
        }
        if let (Some(mine), Some(had)) = (&mut found.pod, &status.resources) {
            keep(mine, had);
        }
        found
    }

    /// The pod with these resources instead of what its spec asks for.
    #[must_use]
    pub fn apply(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if *self == Allocation::of(pod) {
            return pod.clone();
        }
        let mut changed = (**pod).clone();
        let spec = changed.spec.get_or_insert_default();
        spec.resources.clone_from(&self.pod);
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            if let Some(given) = self.containers.get(&container.name) {
                container.resources = Some(given.clone());
            }
        }
        Arc::new(changed)
    }
}

/// Takes CPU and memory from what was told: nothing else can be resized.
fn keep(mine: &mut ResourceRequirements, had: &ResourceRequirements) {
    for (list, told) in [(&mut mine.requests, &had.requests), (&mut mine.limits, &had.limits)] {
        for name in ["cpu", "memory"] {
            match told.as_ref().and_then(|told| told.get(name)) {
                Some(value) => drop(list.get_or_insert_default().insert(name.to_owned(), value.clone())),
                None => drop(list.as_mut().map(|list| list.remove(name))),
            }
        }
        if list.as_ref().is_some_and(BTreeMap::is_empty) {
            *list = None;
        }
    }
}

/// Why a resource is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    pub resource: String,
    pub requested: i64,
    pub used: i64,
    pub capacity: i64,
}

impl std::fmt::Display for Lacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Lacking { resource, requested, used, capacity } = self;
        write!(
            f,
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        )
    }
}

/// Why a resize is not granted, as the condition `PodResizePending` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred`: not now; `Infeasible`: never on this node.
    pub reason: &'static str,
    pub message: String,
    /// Of the pod whose resize it is.
    pub generation: Option<i64>,
}

/// What became of a pod's wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has what it asks for.
    Same,
    /// It had less, or more, until now.
    Granted,
    Pending(Pending),
}

pub struct Ledger {
    capacity: Amounts,
    /// Guaranteed pods keep the CPU time that they have.
    fixed_cpus: bool,
    rows: Mutex<BTreeMap<String, Row>>,
}

struct Row {
    /// As it was given.
    pod: Arc<Pod>,
    given: Allocation,
    /// As it was asked for, while that is not granted; with the order in which they began to wait.
    waiting: Option<(Arc<Pod>, u64)>,
    /// Granted while its worker did not look.
    granted: bool,
    /// It ends to make room: what it has is promised to others.
    leaves: bool,
}

impl Ledger {
    /// `capacity` is what the node has for pods, with `pods`.
    #[must_use]
    pub fn new(capacity: Amounts) -> Ledger {
        Ledger { capacity, fixed_cpus: false, rows: Mutex::default() }
    }

    /// Whether CPUs are given to containers for themselves, so that nothing can be resized about them.
    #[must_use]
    pub fn with_fixed_cpus(mut self, fixed_cpus: bool) -> Ledger {
        self.fixed_cpus = fixed_cpus;
        self
    }

    /// Takes a pod in; returns it with what it was given.
    ///
    /// # Errors
    /// All that is lacking, as upstream counts: pods first, then CPU, memory and the rest.
    pub fn admit(&self, pod: &Arc<Pod>) -> Result<Arc<Pod>, Vec<Lacking>> {
        let mut rows = self.lock();
        let given = Allocation::told(pod);
        let as_given = given.apply(pod);
        let lacking = self.lacking(&rows, &as_given, |_| true);
        if lacking.is_empty() {
            insert(&mut rows, pod, as_given.clone(), given);
            return Ok(as_given);
        }
        Err(lacking)
    }

    /// Takes in a pod that runs here already, whatever there is room for.
    pub fn adopt(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let given = Allocation::told(pod);
        let as_given = given.apply(pod);
        insert(&mut self.lock(), pod, as_given.clone(), given);
        as_given
    }

    /// What the pod will lack once all that make room have ended.
    #[must_use]
    pub fn lacking_later(&self, pod: &Arc<Pod>) -> Vec<Lacking> {
        self.lacking(&self.lock(), &Allocation::told(pod).apply(pod), |row| !row.leaves)
    }

    /// The pod ends to make room. It is counted until it has ended.
    pub fn leaves(&self, uid: &str) {
        if let Some(row) = self.lock().get_mut(uid) {
            row.leaves = true;
        }
    }

    /// The pods that make room and have not ended, and the others.
    #[must_use]
    pub fn leaving_and_staying(&self) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
        let rows = self.lock();
        let (leaving, staying): (Vec<&Row>, Vec<&Row>) = rows.values().partition(|row| row.leaves);
        let pods = |rows: Vec<&Row>| rows.into_iter().map(|row| row.pod.clone()).collect();
        (pods(leaving), pods(staying))
    }

    /// The pods that are in.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.lock().values().map(|row| row.pod.clone()).collect()
    }

    /// The pod as its spec is now: returns it with what it is given, and what that is.
    pub fn want(&self, pod: &Arc<Pod>) -> (Arc<Pod>, Answer) {
        let mut rows = self.lock();
        let order = rows.values().filter_map(|row| row.waiting.as_ref()).map(|(_, order)| order + 1).max().unwrap_or(0);
        let Some(row) = rows.get_mut(uid(pod)) else { return (pod.clone(), Answer::Same) };
        let wanted = Allocation::of(pod);
        if wanted == row.given {
            (row.pod, row.waiting) = (pod.clone(), None);
            let answer = if std::mem::take(&mut row.granted) { Answer::Granted } else { Answer::Same };
            return (pod.clone(), answer);
        }
        let refused = self.refused(&rows, pod);
        let Some(row) = rows.get_mut(uid(pod)) else { return (pod.clone(), Answer::Same) };
        match refused {
            None => {
                *row = Row { pod: pod.clone(), given: wanted, waiting: None, granted: false, leaves: row.leaves };
                (pod.clone(), Answer::Granted)
            }
            Some(refused) => {
                let since = row.waiting.as_ref().map_or(order, |(_, since)| *since);
                row.waiting = Some((pod.clone(), since));
                row.pod = row.given.apply(pod);
                (row.pod.clone(), Answer::Pending(refused))
            }
        }
    }

    /// The pod has left, or nothing of it runs any more.
    pub fn release(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Gives what there is room for to those that wait, in upstream's order; returns whose workers are to look.
    pub fn grant_waiting(&self) -> BTreeSet<String> {
        let mut rows = self.lock();
        let mut waiting: Vec<(_, Arc<Pod>)> = rows
            .values()
            .filter_map(|row| row.waiting.as_ref().map(|(pod, since)| (rank(row, pod, *since), pod.clone())))
            .collect();
        waiting.sort_by_key(|(rank, _)| *rank);
        let mut granted = BTreeSet::new();
        for (_, pod) in waiting {
            if self.refused(&rows, &pod).is_some() {
                continue;
            }
            if let Some(row) = rows.get_mut(uid(&pod)) {
                let given = Allocation::of(&pod);
                *row = Row { given, pod: pod.clone(), waiting: None, granted: true, leaves: row.leaves };
                granted.insert(uid(&pod).to_owned());
            }
        }
        granted
    }

    fn refused(&self, rows: &BTreeMap<String, Row>, pod: &Pod) -> Option<Pending> {
        let refused = |reason, message| Some(Pending { reason, message, generation: pod.metadata.generation });
        if self.fixed_cpus && qos(pod) == Qos::Guaranteed && resizes_cpus(rows, pod) {
            let message = "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"";
            return refused("Infeasible", message.to_owned());
        }
        let asked = requests(pod_spec(pod));
        for (name, asked, all) in
            [("memory", asked.memory, self.capacity.memory), ("cpu", asked.cpu, self.capacity.cpu)]
        {
            if asked > all {
                let message = format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {all}");
                return refused("Infeasible", message);
            }
        }
        match self.lacking(rows, pod, |_| true).first() {
            Some(first) => refused("Deferred", first.to_string()),
            None => None,
        }
    }

    /// What is not there for the pod beside the others that count. One that asks for nothing of a resource lacks none of it.
    fn lacking(&self, rows: &BTreeMap<String, Row>, pod: &Pod, counts: impl Fn(&Row) -> bool) -> Vec<Lacking> {
        let others = rows.iter().filter(|(id, row)| id.as_str() != uid(pod) && counts(row));
        let mut used = Amounts::default();
        for (_, row) in others {
            used.add(&requests(pod_spec(&row.pod)));
            used.pods += 1;
        }
        let asked = Amounts { pods: 1, ..requests(pod_spec(pod)) };
        let known = self.capacity.others.keys().map(String::as_str);
        let names = ["pods", "cpu", "memory", "ephemeral-storage"].into_iter().chain(known);
        let short = names.filter_map(|resource| {
            let (requested, used) = (asked.get(resource), used.get(resource));
            let capacity = self.capacity.get(resource);
            let lacks = requested > 0 && requested > capacity - used;
            lacks.then(|| Lacking { resource: resource.to_owned(), requested, used, capacity })
        });
        short.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a container that can be resized asks for other CPU time than it was given.
fn resizes_cpus(rows: &BTreeMap<String, Row>, pod: &Pod) -> bool {
    let Some(row) = rows.get(uid(pod)) else { return false };
    let cpu = |resources: Option<&ResourceRequirements>| {
        let list = resources.and_then(|resources| resources.requests.as_ref())?;
        list.get("cpu").map(|quantity| milli(&quantity.0))
    };
    let mut resizable = containers(pod).filter(|(role, _)| *role != Role::Init);
    resizable.any(|(_, asks)| cpu(asks.resources.as_ref()) != cpu(row.given.containers.get(&asks.name)))
}

fn insert(rows: &mut BTreeMap<String, Row>, pod: &Pod, as_given: Arc<Pod>, given: Allocation) {
    rows.insert(uid(pod).to_owned(), Row { pod: as_given, given, waiting: None, granted: false, leaves: false });
}

/// Those that ask for no more first, then by priority, by class, by how long they have waited.
fn rank(row: &Row, pod: &Pod, since: u64) -> (bool, std::cmp::Reverse<i32>, bool, u64) {
    let (asked, given) = (requests(pod_spec(pod)), requests(pod_spec(&row.pod)));
    let grows = asked.cpu > given.cpu || asked.memory > given.memory;
    let priority = pod_spec(pod).priority.unwrap_or(0);
    (grows, std::cmp::Reverse(priority), qos(pod) != Qos::Guaranteed, since)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, cpu: &str, more: Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": name, "uid": name, "generation": 2}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}}]}});
        merge(&mut pod, &more);
        Arc::new(serde_json::from_value(pod).expect("valid"))
    }

    fn merge(into: &mut Value, from: &Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                from.iter().for_each(|(key, value)| merge(into.entry(key.clone()).or_insert(Value::Null), value));
            }
            (into, from) => into.clone_from(from),
        }
    }

    fn ledger() -> Ledger {
        Ledger::new(Amounts { cpu: 2000, memory: 1 << 30, pods: 3, ..Amounts::default() })
    }

    fn cpu(pod: &Pod) -> String {
        pod_spec(pod).containers[0].resources.clone().unwrap().requests.unwrap()["cpu"].0.clone()
    }

    #[test]
    fn there_is_room_until_there_is_none() {
        let ledger = ledger();
        ledger.admit(&pod("a", "1500m", json!({}))).expect("room");
        let lacking = ledger.admit(&pod("b", "501m", json!({}))).expect_err("no room");
        let text = "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000";
        assert_eq!(lacking.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
        ledger.admit(&pod("b", "500m", json!({}))).expect("room");
        ledger.admit(&pod("c", "0", json!({}))).expect("asks for no CPU");
        let lacking = ledger.admit(&pod("d", "0", json!({}))).expect_err("too many pods");
        assert_eq!((lacking[0].resource.as_str(), lacking[0].used, lacking[0].capacity), ("pods", 3, 3));
        ledger.release("a");
        ledger.admit(&pod("d", "1", json!({}))).expect("one has left");
        // One that runs already is counted, whatever there is.
        ledger.adopt(&pod("e", "2", json!({})));
        assert!(ledger.admit(&pod("f", "1m", json!({}))).is_err());
    }

    #[test]
    fn a_resize_is_granted_deferred_or_infeasible() {
        let ledger = ledger();
        ledger.admit(&pod("a", "1", json!({}))).expect("room");
        ledger.admit(&pod("b", "500m", json!({}))).expect("room");
        let (given, answer) = ledger.want(&pod("a", "1500m", json!({})));
        assert_eq!((cpu(&given).as_str(), answer), ("1500m", Answer::Granted));
        assert_eq!(ledger.want(&pod("a", "1500m", json!({}))).1, Answer::Same);

        let (given, answer) = ledger.want(&pod("b", "600m", json!({})));
        let message = "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000".to_owned();
        assert_eq!(answer, Answer::Pending(Pending { reason: "Deferred", message, generation: Some(2) }));
        assert_eq!(cpu(&given), "500m", "it keeps what it has");

        let (given, answer) = ledger.want(&pod("b", "3", json!({})));
        let message = "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000".to_owned();
        assert_eq!(answer, Answer::Pending(Pending { reason: "Infeasible", message, generation: Some(2) }));
        assert_eq!(cpu(&given), "500m");
        // Taken back: as if nothing had been.
        assert_eq!(ledger.want(&pod("b", "500m", json!({}))).1, Answer::Same);
    }

    #[test]
    fn those_that_wait_are_served_in_order_once_there_is_room() {
        let ledger = ledger();
        for name in ["a", "b", "c"] {
            ledger.admit(&pod(name, "600m", json!({}))).expect("room");
        }
        let important = json!({"spec": {"priority": 10}});
        assert!(matches!(ledger.want(&pod("b", "1", json!({}))).1, Answer::Pending(_)));
        assert!(matches!(ledger.want(&pod("c", "1", important.clone())).1, Answer::Pending(_)));
        assert!(ledger.grant_waiting().is_empty(), "nothing has changed");
        ledger.want(&pod("a", "300m", json!({})));
        assert_eq!(ledger.grant_waiting(), BTreeSet::from(["c".to_owned()]), "the more important one");
        assert_eq!(ledger.want(&pod("c", "1", important.clone())).1, Answer::Granted, "as its worker sees it");
        assert_eq!(ledger.want(&pod("c", "1", important)).1, Answer::Same);
        ledger.release("a");
        assert_eq!(ledger.grant_waiting(), BTreeSet::from(["b".to_owned()]));
    }

    #[test]
    fn cpus_of_its_own_are_not_resized() {
        let guaranteed = |cpu: &str, memory: &str| {
            let both = json!({"cpu": cpu, "memory": memory});
            let containers = json!([{"name": "c", "resources": {"requests": both, "limits": both}}]);
            pod("a", cpu, json!({"spec": {"containers": containers}}))
        };
        let ledger = ledger().with_fixed_cpus(true);
        ledger.admit(&guaranteed("1", "1Mi")).expect("room");
        let message = "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"".to_owned();
        let expect = Answer::Pending(Pending { reason: "Infeasible", message, generation: Some(2) });
        assert_eq!(ledger.want(&guaranteed("2", "1Mi")).1, expect);
        assert_eq!(ledger.want(&guaranteed("1", "2Mi")).1, Answer::Granted, "memory can be");
        ledger.admit(&pod("b", "100m", json!({}))).expect("room");
        assert_eq!(ledger.want(&pod("b", "200m", json!({}))).1, Answer::Granted, "it shares");
    }

    #[test]
    fn what_was_told_is_what_a_pod_had() {
        let told = |resources: Value| {
            let status = json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "",
                "ready": true, "restartCount": 0, "resources": resources}]}});
            let wanted = pod("a", "1", status);
            Allocation::told(&wanted).apply(&wanted)
        };
        assert_eq!(cpu(&told(json!({"requests": {"cpu": "300m", "memory": "1Mi"}}))), "300m");
        assert_eq!(cpu(&told(Value::Null)), "1", "nothing was told");
        // A limit that came since was not there.
        let mut wanted = (*pod("a", "1", json!({}))).clone();
        let container = &mut wanted.spec.as_mut().unwrap().containers[0];
        let limits = serde_json::from_value(json!({"cpu": "2"})).unwrap();
        container.resources.as_mut().unwrap().limits = Some(limits);
        wanted.status = told(json!({"requests": {"cpu": "1", "memory": "1Mi"}})).status.clone();
        let had = Allocation::told(&wanted).apply(&Arc::new(wanted));
        assert_eq!(pod_spec(&had).containers[0].resources.as_ref().unwrap().limits, None);
    }
}
