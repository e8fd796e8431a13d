//! Decides: after every commit, whether it may be so. Stands between the store and the watch cache, so nothing passes
//! unseen, and knows who wrote.
//!
//! Controllers decide upon what they have seen, which is older than what is here: a limit is what it was at any time of
//! the last [`LAG`]. What nobody planned (a crash, a node that is lost, an answer that is) excuses as long.

mod cron_jobs;
mod preemption;
mod tests;
mod volumes;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::weather::{Weather, actor};
use crate::clock;
use crate::server::cache::Cache;
use crate::server::store::{Change, Loaded, Sink};

/// How old what is decided upon may be.
pub const LAG: Duration = Duration::from_secs(45);
/// Commits that are told of when something is wrong.
const TOLD: usize = 200;

pub const CONTROLLERS: &str = "system:kube-controller-manager";
pub const SCHEDULER: &str = "system:kube-scheduler";
pub const DRAINER: &str = "drainer";

pub struct Checks {
    cache: Arc<Cache>,
    weather: Arc<Weather>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    began: Option<Instant>,
    /// By storage and name, of the namespace of the workloads and of no namespace.
    objects: BTreeMap<(Arc<str>, Arc<str>), Value>,
    /// What numbers were, and since when.
    limits: BTreeMap<(&'static str, String), VecDeque<(Instant, i64)>>,
    /// When pods of an application were lost that nobody planned to take, or were taken by other than an eviction.
    disturbed: BTreeMap<String, Instant>,
    taken: BTreeMap<String, Instant>,
    started: cron_jobs::Started,
    places: preemption::Places,
    wrong: Option<String>,
    history: VecDeque<String>,
    digest: u64,
    /// The last one that was no renewal and no Event, and who made it.
    last: Option<(Instant, Arc<str>)>,
    of_others: u64,
}

impl Checks {
    pub fn new(cache: Arc<Cache>, weather: Arc<Weather>) -> Arc<Self> {
        let state = Mutex::new(State { began: Some(clock::instant()), ..State::default() });
        Arc::new(Self { cache, weather, state })
    }

    pub fn wrong(&self) -> Option<String> {
        let state = self.state.lock().unwrap();
        let wrong = state.wrong.as_ref()?;
        let history = state.history.iter().fold(String::new(), |all, line| all + "\n  " + line);
        Some(format!("{history}\n{wrong}"))
    }

    pub fn fail(&self, why: String) {
        self.state.lock().unwrap().fail(why);
    }

    /// One number for all that was committed, by whom and when.
    pub fn digest(&self) -> u64 {
        self.state.lock().unwrap().digest
    }

    /// How long nothing was written but what nodes tell again and again.
    pub fn quiet(&self) -> Duration {
        self.state.lock().unwrap().last.as_ref().map_or(Duration::MAX, |(at, _)| at.elapsed())
    }

    pub fn get(&self, storage: &str, name: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(&(storage.into(), name.into())).cloned()
    }

    pub fn of(&self, storage: &str) -> Vec<Value> {
        self.state.lock().unwrap().of(storage).cloned().collect()
    }

    /// Milli-CPU of a node that nobody has.
    pub fn free(&self, node: &str) -> i64 {
        self.state.lock().unwrap().free(node)
    }

    /// Paths of the folders that the volumes of a pod are.
    pub fn folders_of(&self, pod: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let pod = state.objects.get(&("pods".into(), pod.into()));
        pod.map_or_else(Vec::new, |pod| state.folders_of(pod))
    }

    /// Takes what the store would publish.
    pub fn write(&self, who: &str, storage: &str, object: Value) {
        let named = name(&object).to_owned();
        self.state.lock().unwrap().apply(who, storage, &named, Some(object), &self.weather);
    }

    pub fn remove(&self, who: &str, storage: &str, name: &str) {
        self.state.lock().unwrap().apply(who, storage, name, None, &self.weather);
    }

    /// The clock was set.
    pub fn jumped(&self) {
        self.state.lock().unwrap().started.jumps += 1;
    }
}

impl Sink for Checks {
    fn load(&self, loaded: Loaded) {
        self.cache.load(loaded);
    }

    fn publish(&self, changes: Vec<Change>) {
        self.cache.publish(changes.clone());
        let mut state = self.state.lock().unwrap();
        for change in &changes {
            state.take(change, &self.weather);
        }
    }
}

pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn number(object: &Value, pointer: &str, otherwise: i64) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(otherwise)
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn app(object: &Value) -> &str {
    text(object, "/metadata/labels/app")
}

pub fn is_ending(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let all = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    all.filter(|c| c["type"] == kind).map(|c| text(c, "/status")).next().unwrap_or_default()
}

pub fn is_active(pod: &Value) -> bool {
    !is_ending(pod) && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

pub fn is_ready(pod: &Value) -> bool {
    is_active(pod) && condition(pod, "Ready") == "True"
}

pub fn owner<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    let first = &pod["metadata"]["ownerReferences"][0];
    (first["kind"] == kind).then(|| text(first, "/name"))
}

pub fn is_finished(job: &Value) -> bool {
    ["Complete", "Failed"].iter().any(|how| condition(job, how) == "True")
}

/// Why the scheduler has no place for it.
fn waits_for(pod: &Value) -> &str {
    let all = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    all.filter(|c| c["type"] == "PodScheduled").map(|c| text(c, "/message")).next().unwrap_or_default()
}

/// The node a pod is on, or is meant for.
fn place(pod: &Value) -> &str {
    let on = text(pod, "/spec/nodeName");
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0";
    if on.is_empty() { text(pod, &format!("{terms}/matchFields/0/values/0")) } else { on }
}

pub fn milli_cpu(pod: &Value) -> i64 {
    let all = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let milli = |text: &str| match text.strip_suffix('m') {
        Some(milli) => milli.parse::<i64>().unwrap_or(0),
        None => 1000 * text.parse::<i64>().unwrap_or(0),
    };
    all.map(|c| milli(text(c, "/resources/requests/cpu"))).sum()
}

impl State {
    fn of(&self, storage: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |((s, _), _)| **s == *storage).map(|(_, v)| v)
    }

    fn count(&self, storage: &str, which: impl Fn(&Value) -> bool) -> i64 {
        i64::try_from(self.of(storage).filter(|o| which(o)).count()).unwrap()
    }

    fn fail(&mut self, why: String) {
        self.wrong.get_or_insert(why);
    }

    fn limit(&mut self, what: &'static str, of: &str, is: i64) {
        let all = self.limits.entry((what, of.to_owned())).or_default();
        if all.back().is_none_or(|(_, was)| *was != is) {
            all.push_back((clock::instant(), is));
        }
        // What was replaced so long ago is of no consequence.
        while all.get(1).is_some_and(|(at, _)| at.elapsed() >= LAG) {
            all.pop_front();
        }
    }

    /// The values that a number had lately.
    fn lately(&self, what: &'static str, of: &str) -> Vec<i64> {
        let Some(all) = self.limits.get(&(what, of.to_owned())) else { return Vec::new() };
        let old = all.iter().take_while(|(at, _)| at.elapsed() >= LAG).count();
        all.iter().skip(old.saturating_sub(1)).map(|(_, n)| *n).collect()
    }

    fn is_disturbed(&self, app: &str) -> bool {
        self.disturbed.get(app).is_some_and(|at| at.elapsed() < LAG)
    }

    fn take(&mut self, change: &Change, weather: &Weather) {
        let object = change.object();
        let (who, key) = (actor(), &object.key);
        let gone = matches!(change, Change::Delete(_));
        let told = matches!(&*key.resource, "coordination.k8s.io/leases" | "events" | "nodes");
        if !told {
            self.last = Some((clock::instant(), who.clone()));
        }
        self.of_others += u64::from(!told);
        if key.namespace.is_empty() || &*key.namespace == "default" {
            let new = (!gone).then(|| object.value().expect("the registry writes JSON"));
            self.apply(&who, &key.resource, &key.name, new, weather);
        }
        let passed = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        let mut line =
            format!("{:9.3} {who} {} {}/{}", passed.as_secs_f64(), object.revision.0, key.resource, key.name);
        if gone {
            line.push_str(" gone");
        } else if &*key.resource == "pods"
            && let Some(pod) = self.objects.get(&(key.resource.clone(), key.name.clone()))
        {
            let (node, phase) = (text(pod, "/spec/nodeName"), text(pod, "/status/phase"));
            let _ = write!(line, " on {node:?} {phase}{}", if is_ready(pod) { " ready" } else { "" });
            line.push_str(if is_ending(pod) { " ending" } else { "" });
            if node.is_empty() {
                line.push_str(waits_for(pod));
            }
        }
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.wrong.is_none() && &*key.resource != "events" && &*key.resource != "coordination.k8s.io/leases" {
            self.history.push_back(line);
            if self.history.len() > TOLD {
                self.history.pop_front();
            }
        }
    }

    fn apply(&mut self, who: &str, storage: &str, name: &str, new: Option<Value>, weather: &Weather) {
        let at = (storage.into(), name.into());
        let old = match &new {
            Some(new) => self.objects.insert(at, new.clone()),
            None => self.objects.remove(&at),
        };
        self.check(who, storage, old.as_ref(), new.as_ref(), weather);
    }

    fn check(&mut self, who: &str, storage: &str, old: Option<&Value>, new: Option<&Value>, weather: &Weather) {
        match (storage, new) {
            ("apps/deployments", Some(new)) => {
                let replicas = number(new, "/spec/replicas", 1);
                let rolling = "/spec/strategy/rollingUpdate";
                self.limit("most", app(new), replicas + number(new, &format!("{rolling}/maxSurge"), 0));
                self.limit("least", app(new), replicas - number(new, &format!("{rolling}/maxUnavailable"), 0));
            }
            ("apps/replicasets", Some(new)) => {
                let size = number(new, "/spec/replicas", 1);
                let grown = old.is_none_or(|old| number(old, "/spec/replicas", 1) < size);
                self.limit("size", name(new), size);
                if grown {
                    self.sizes(app(new));
                }
            }
            ("batch/jobs", Some(new)) => {
                self.limit("parallelism", name(new), number(new, "/spec/parallelism", 1));
                self.job(old, new);
            }
            ("batch/cronjobs", Some(new)) => self.cron_job(old, new),
            ("apps/statefulsets", Some(new)) => self.set(new),
            ("policy/poddisruptionbudgets", Some(new)) => self.budget(new),
            ("persistentvolumeclaims", _) => self.claim(who, old, new),
            ("persistentvolumes", _) => self.volume(old, new),
            ("nodes", Some(new)) => self.node(new),
            ("pods", _) => self.pod(who, old, new, weather),
            _ => {}
        }
    }

    /// The sizes of all sets of a Deployment are within its replicas and surge.
    fn sizes(&mut self, of: &str) {
        let sum: i64 =
            self.of("apps/replicasets").filter(|s| app(s) == of).map(|s| number(s, "/spec/replicas", 1)).sum();
        let most = self.lately("most", of).into_iter().max().unwrap_or(0);
        if sum > most {
            self.fail(format!("ReplicaSets of {of} ask for {sum} pods, {most} are the limit"));
        }
    }

    fn pod(&mut self, who: &str, old: Option<&Value>, new: Option<&Value>, weather: &Weather) {
        self.judge(who, old, new, weather);
        self.places(old, new);
        let of = new.or(old).map(app).unwrap_or_default().to_owned();
        let ready = self.count("pods", |p| app(p) == of && is_ready(p));
        self.limit("ready", &of, ready);
    }

    fn judge(&mut self, who: &str, old: Option<&Value>, new: Option<&Value>, weather: &Weather) {
        if let (None, Some(new)) = (old, new) {
            if !weather.lost_lately(who, LAG) {
                self.created(new);
            }
            return;
        }
        let Some(old) = old else { return };
        let bound = |pod: &Value| text(pod, "/spec/nodeName").to_owned();
        if let Some(new) = new
            && bound(old) != bound(new)
        {
            self.bound(old, new, weather.lost_lately(SCHEDULER, LAG));
            self.bound_with_volumes(new);
        }
        if let Some(new) = new.filter(|_| who == SCHEDULER) {
            self.chosen(old, new);
        }
        let ending = !is_ending(old) && new.is_none_or(is_ending);
        let planned = ending && who == CONTROLLERS && condition(old, "DisruptionTarget").is_empty();
        if planned {
            self.planned(old);
        }
        if is_ready(old) && !new.is_some_and(is_ready) {
            if ending && who == DRAINER {
                self.evicted(old);
            } else {
                self.taken.insert(app(old).to_owned(), clock::instant());
            }
            if !planned {
                self.disturbed.insert(app(old).to_owned(), clock::instant());
            }
        }
    }

    fn created(&mut self, pod: &Value) {
        let of = |kind: &'static str, named: &str| {
            let named = named.to_owned();
            move |other: &Value| is_active(other) && owner(other, kind) == Some(&named)
        };
        if let Some(set) = owner(pod, "ReplicaSet") {
            let (are, most) = (self.count("pods", of("ReplicaSet", set)), self.lately("size", set).into_iter().max());
            if Some(are) > most {
                self.fail(format!("{are} pods of {set}, which asked for {most:?}"));
            }
        }
        if let Some(job) = owner(pod, "Job") {
            let (are, most) = (self.count("pods", of("Job", job)), self.lately("parallelism", job).into_iter().max());
            if Some(are) > most {
                self.fail(format!("{are} pods of {job}, which asked for {most:?}"));
            }
        }
        if let Some(set) = owner(pod, "DaemonSet") {
            let surge = self.objects.get(&("apps/daemonsets".into(), set.into()));
            let surge = surge.map_or(0, |s| number(s, "/spec/updateStrategy/rollingUpdate/maxSurge", 0));
            let same = of("DaemonSet", set);
            let are = self.count("pods", |p| same(p) && place(p) == place(pod));
            if are > 1 + surge {
                self.fail(format!("{are} pods of {set} on {}", place(pod)));
            }
        }
    }

    fn bound(&mut self, old: &Value, new: &Value, lost: bool) {
        let (before, node) = (text(old, "/spec/nodeName"), text(new, "/spec/nodeName").to_owned());
        if !before.is_empty() {
            return self.fail(format!("{} was on {before} and is on {node:?}", name(new)));
        }
        let used: i64 =
            self.of("pods").filter(|p| text(p, "/spec/nodeName") == node).filter(|p| !is_over(p)).map(milli_cpu).sum();
        let cores = self.objects.get(&("nodes".into(), node.as_str().into()));
        let cores = cores.and_then(|n| text(n, "/status/allocatable/cpu").parse::<i64>().ok());
        if let Some(cores) = cores.filter(|cores| !lost && used > cores * 1000) {
            self.fail(format!("pods on {node} ask for {used} m of {cores} cores"));
        }
        let closed = self.lately("closed", &node);
        if !closed.is_empty() && closed.iter().all(|c| *c == 1) && owner(new, "DaemonSet").is_none() {
            self.fail(format!("{} was put on {node}, which takes no pods", name(new)));
        }
    }

    /// A controller takes a pod away, and nothing has happened to it.
    fn planned(&mut self, pod: &Value) {
        if pod["metadata"]["ownerReferences"].is_null() && !is_over(pod) {
            return self.fail(format!("{} is nobody's, and was deleted", name(pod)));
        }
        let of = app(pod).to_owned();
        if !is_ready(pod) || self.is_disturbed(&of) {
            return;
        }
        // The one that goes is among them no more, for it is ending by now.
        let left = self.count("pods", |p| app(p) == of && is_ready(p));
        if owner(pod, "ReplicaSet").is_some() {
            let least = self.lately("least", &of).into_iter().min().unwrap_or(0);
            // Until lately there were too few anyway, and the one that goes may be among them for all that is known.
            let enough = self.lately("ready", &of).into_iter().min().unwrap_or(0) >= least;
            if left < least && enough {
                self.fail(format!("{left} pods of {of} are left, at least {least} must be: {} goes", name(pod)));
            }
        }
    }

    fn evicted(&mut self, pod: &Value) {
        let of = app(pod).to_owned();
        if self.taken.get(&of).is_some_and(|at| at.elapsed() < LAG) {
            return;
        }
        let Some(budget) = self.objects.get(&("policy/poddisruptionbudgets".into(), of.as_str().into())) else {
            return;
        };
        let least = number(budget, "/spec/minAvailable", 0);
        let left = self.count("pods", |p| app(p) == of && is_ready(p));
        if left < least {
            self.fail(format!("{left} pods of {of} are left after {} was evicted, budget {least}", name(pod)));
        }
    }
}

fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}
