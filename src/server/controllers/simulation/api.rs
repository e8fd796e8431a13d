//! Types: what simulations of controllers share: an API in memory whose changes the stores see late, and plans that are
//! cut off half-way.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::client::reflector::Event;
use crate::client::request::{Answer, AnswerMeta, Request};
use crate::server::controllers::action::{Action, Controller, Moment, Name, Write};
use crate::server::controllers::driver::apply::{Unseen, unseen};
use crate::server::controllers::stores::Stores;

pub struct Rng(pub u64);

impl Rng {
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % n.max(1)
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Names the seed when anything inside fails.
pub struct Named(pub u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

/// Revision, name, object.
type Seen = (u64, String, Option<Value>);

/// Everything is in the namespace `ns`.
pub struct Api {
    pub rng: Rng,
    pub now: Timestamp,
    revision: u64,
    objects: BTreeMap<(&'static str, String), Value>,
    /// Changes that each store has yet to see: revision, name, object (`None`: removed).
    lag: HashMap<&'static str, VecDeque<Seen>>,
    pub stores: Stores,
    unseen: HashMap<(usize, String), Vec<Unseen>>,
}

impl Api {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::seeded(seed),
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            revision: 0,
            objects: BTreeMap::new(),
            lag: HashMap::new(),
            stores: Stores::new(),
            unseen: HashMap::new(),
        }
    }

    pub fn set(&mut self, storage: &'static str, name: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.objects.insert((storage, name.to_owned()), object.clone());
        self.lag.entry(storage).or_default().push_back((self.revision, name.to_owned(), Some(object)));
    }

    pub fn unset(&mut self, storage: &'static str, name: &str) {
        self.revision += 1;
        self.objects.remove(&(storage, name.to_owned()));
        self.lag.entry(storage).or_default().push_back((self.revision, name.to_owned(), None));
    }

    pub fn get(&self, storage: &'static str, name: &str) -> Option<Value> {
        self.objects.get(&(storage, name.to_owned())).cloned()
    }

    pub fn of(&self, storage: &'static str) -> Vec<Value> {
        self.objects.iter().filter(|((s, _), _)| *s == storage).map(|(_, v)| v.clone()).collect()
    }

    /// One store sees its next change.
    pub fn deliver(&mut self, storage: &'static str) {
        let Some((revision, name, object)) = self.lag.get_mut(storage).and_then(VecDeque::pop_front) else { return };
        macro_rules! put {
            ($store:ident) => {
                match object {
                    Some(object) => self.stores.$store.put(serde_json::from_value(object).unwrap()),
                    None => self.stores.$store.take("ns", &name),
                }
            };
        }
        match storage {
            "pods" => put!(pods),
            "apps/replicasets" => put!(replica_sets),
            "apps/deployments" => put!(deployments),
            "apps/statefulsets" => put!(stateful_sets),
            "apps/controllerrevisions" => put!(controller_revisions),
            "batch/jobs" => put!(jobs),
            other => panic!("{other}"),
        }
        let sink = self.stores.fed().into_iter().find(|f| f.source.resource.storage == storage).unwrap().sink;
        sink.observe(Event::Bookmark(revision));
    }

    pub fn deliver_all(&mut self) {
        let storages: Vec<&'static str> = self.lag.keys().copied().collect();
        for storage in storages {
            while self.lag.get(storage).is_some_and(|l| !l.is_empty()) {
                self.deliver(storage);
            }
        }
    }

    pub fn all_delivered(&self) -> bool {
        self.lag.values().all(VecDeque::is_empty)
    }

    /// The process of the controllers is another one: it has listed everything, and remembers nothing.
    pub fn restart(&mut self) {
        self.deliver_all();
        self.unseen.clear();
    }

    /// Makes an object; `None` when there is one of that name.
    pub fn create(&mut self, request: &Request, status: Value) -> Option<(String, Value)> {
        let mut object = request.body.clone();
        let storage = request.resource.storage;
        let name = match object["metadata"]["name"].as_str() {
            Some(name) => name.to_owned(),
            None => format!("{}{}", object["metadata"]["generateName"].as_str().unwrap(), self.revision),
        };
        if self.objects.contains_key(&(storage, name.clone())) {
            return None;
        }
        object["metadata"]["name"] = name.clone().into();
        object["metadata"]["uid"] = format!("{name}-{}", self.revision).into();
        object["metadata"]["generation"] = 1.into();
        self.now += SignedDuration::from_secs(1);
        object["metadata"]["creationTimestamp"] = self.now.to_string().into();
        object["status"] = status;
        self.set(storage, &name, object.clone());
        Some((name, object))
    }

    /// A merge patch; `None` for a conflict or an absent object. True when it changed something.
    pub fn patch(&mut self, request: &Request) -> Option<bool> {
        let storage = request.resource.storage;
        let before = self.get(storage, &request.name)?;
        let wanted = &request.body["metadata"]["resourceVersion"];
        if wanted.is_string() && *wanted != before["metadata"]["resourceVersion"] {
            return None;
        }
        let mut after = before.clone();
        json_patch::merge(&mut after, &request.body);
        if request.subresource == "status" {
            after["spec"] = before["spec"].clone();
        } else {
            after["status"] = before["status"].clone();
            if after["spec"] != before["spec"] {
                after["metadata"]["generation"] = (before["metadata"]["generation"].as_i64().unwrap() + 1).into();
            }
        }
        let changed = after != before;
        if changed {
            self.set(storage, &request.name, after);
        }
        Some(changed)
    }

    /// Marks an object as being deleted.
    pub fn mark_deleted(&mut self, storage: &'static str, name: &str, grace: i64) {
        let Some(mut object) = self.get(storage, name) else { return };
        object["metadata"]["deletionTimestamp"] = self.now.to_string().into();
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.set(storage, name, object);
    }

    /// What the server answers to a write: the object as it is, or the revision at which it went.
    pub fn answer(&self, storage: &'static str, name: &str) -> Answer {
        let object = self.get(storage, name);
        let known = object.and_then(|o| o["metadata"]["resourceVersion"].as_str().map(str::to_owned));
        let resource_version = known.unwrap_or_else(|| self.revision.to_string());
        Answer { metadata: AnswerMeta { name: name.to_owned(), uid: String::new(), resource_version } }
    }
}

/// What a simulation does with the writes of its controllers.
pub trait World {
    fn api(&mut self) -> &mut Api;

    /// `None` for a conflict or an absent object.
    fn execute(&mut self, request: &Request) -> Option<Answer>;
}

/// Plans for a key as the driver does, and carries out a part of it. `which`: the number of the controller. True when
/// there was something to do.
pub fn plan(world: &mut impl World, which: usize, controller: &dyn Controller, name: &str) -> bool {
    let key = (which, name.to_owned());
    let api = world.api();
    let stores = &api.stores;
    if let Some(writes) = api.unseen.get_mut(&key) {
        writes.retain(|w| !w.seen(&*stores.view(w.storage()).unwrap()));
        if !writes.is_empty() {
            return false;
        }
    }
    let moment = Moment { now: api.now, failure: None };
    let plan = controller.plan(stores, &Name::new("ns", name), moment);
    let did = !plan.actions.is_empty();
    let mut seen_later = Vec::new();
    'plan: for action in plan.actions {
        let writes: Vec<Write> = match action {
            Action::Write(write) => vec![write],
            Action::SlowStart(writes) => writes,
            _ => continue,
        };
        for write in writes {
            // The server was killed, or the request was refused.
            if world.api().rng.chance(5) {
                break 'plan;
            }
            match world.execute(&write.request) {
                Some(answer) => seen_later.extend(unseen(&write.request, &answer)),
                None if write.fine.is_empty() => break 'plan,
                None => {}
            }
        }
    }
    world.api().unseen.insert(key, seen_later);
    did
}
