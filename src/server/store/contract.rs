//! Tests: what every store must do, as functions that each store's tests call. [`Model`] says what is right.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::json;

use super::{Change, Class, Error, Intent, Loaded, Sink, Store, Unreadable, Write};
use crate::api::encode::Draft;
use crate::api::key::Key;
use crate::api::object::ObjectRef;
use crate::api::revision::Revision;

/// A sink that remembers what it was told and checks the order.
#[derive(Default)]
pub struct Recorder(Mutex<Recorded>);

#[derive(Default)]
pub struct Recorded {
    pub objects: BTreeMap<Key, ObjectRef>,
    pub unreadable: Vec<Unreadable>,
    pub revision: Revision,
    pub changes: Vec<Change>,
    pub batches: usize,
}

impl Recorder {
    pub fn read<T>(&self, read: impl FnOnce(&Recorded) -> T) -> T {
        read(&self.0.lock().unwrap())
    }

    pub fn revision(&self) -> Revision {
        self.read(|r| r.revision)
    }

    /// Name, revision and text of everything there.
    pub fn state(&self) -> Vec<(String, u64, String)> {
        let text = |o: &ObjectRef| String::from_utf8(o.json.to_vec()).unwrap();
        self.read(|r| r.objects.values().map(|o| (o.key.to_string(), o.revision.0, text(o))).collect())
    }
}

impl Sink for Recorder {
    fn load(&self, loaded: Loaded) {
        let mut r = self.0.lock().unwrap();
        assert!(r.revision.0 == 0, "loaded twice");
        r.revision = loaded.revision;
        r.unreadable = loaded.unreadable;
        for object in loaded.objects {
            assert!(object.revision <= loaded.revision, "{} is ahead of the store", object.key);
            r.objects.insert(object.key.clone(), object);
        }
    }

    fn publish(&self, changes: Vec<Change>) {
        let mut r = self.0.lock().unwrap();
        r.batches += 1;
        for change in changes {
            let object = change.object();
            assert!(object.revision > r.revision, "{} came after {}", object.revision, r.revision);
            r.revision = object.revision;
            match &change {
                Change::Put(object) => drop(r.objects.insert(object.key.clone(), object.clone())),
                Change::Delete(object) => {
                    let known = r.objects.remove(&object.key).is_some();
                    let key = &object.key;
                    assert!(known || r.unreadable.iter().any(|u| u.key == *key), "{key} was not there");
                }
            }
            r.changes.push(change);
        }
    }
}

pub fn draft(resource: &str, name: &str, data: &str) -> Draft {
    let value = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": name, "namespace": "ns"}, "data": data});
    Draft::new(Key::new(resource, "ns", name), &value, &[])
}

pub fn durable(intent: Intent) -> Write {
    Write { class: Class::Durable, intent }
}

pub fn volatile(intent: Intent) -> Write {
    Write { class: Class::Volatile, intent }
}

/// The rules one by one.
pub async fn basics(store: &dyn Store, sink: &Recorder) {
    for write in [durable, volatile] {
        let resource = if write(Intent::Create(draft("x", "x", ""))).class == Class::Durable { "d" } else { "v" };
        let draft = |name: &str, data: &str| draft(resource, name, data);
        let begin = sink.revision();
        let made = store.commit(write(Intent::Create(draft("a", "1")))).await.unwrap();
        assert!(made.revision > begin);
        let shown: serde_json::Value = made.value().unwrap();
        assert_eq!(shown["metadata"]["resourceVersion"], made.revision.to_string());
        assert_eq!(sink.revision(), made.revision, "the sink knows before the writer");

        let conflict = |current| Err(Error::Conflict { current });
        let again = store.commit(write(Intent::Create(draft("a", "2")))).await;
        assert_eq!(again, conflict(Some(made.revision)), "create what is there");
        let wrong = store.commit(write(Intent::Update(draft("a", "2"), begin))).await;
        assert_eq!(wrong, conflict(Some(made.revision)), "update at another revision");
        let wrong = store.commit(write(Intent::Delete(draft("a", "2"), begin))).await;
        assert_eq!(wrong, conflict(Some(made.revision)), "delete at another revision");
        let wrong = store.commit(write(Intent::Update(draft("b", "2"), made.revision))).await;
        assert_eq!(wrong, conflict(None), "update what is not there");
        let wrong = store.commit(write(Intent::Delete(draft("b", "2"), made.revision))).await;
        assert_eq!(wrong, conflict(None), "delete what is not there");
        assert_eq!(sink.revision(), made.revision, "nothing of this was published");

        let changed = store.commit(write(Intent::Update(draft("a", "2"), made.revision))).await.unwrap();
        assert!(changed.revision > made.revision);
        let gone = store.commit(write(Intent::Delete(draft("a", "3"), changed.revision))).await.unwrap();
        assert!(gone.revision > changed.revision);
        sink.read(|r| {
            let Some(Change::Delete(last)) = r.changes.last() else { panic!("no deletion was published") };
            assert_eq!(last.revision, gone.revision, "a deletion has a revision of its own");
            assert_eq!(last.value().unwrap()["data"], "3", "and shows the last state it was given");
        });
        let remade = store.commit(write(Intent::Create(draft("a", "4")))).await.unwrap();
        assert!(remade.revision > gone.revision);
        let old = store.commit(write(Intent::Update(draft("a", "5"), changed.revision))).await;
        assert_eq!(old, conflict(Some(remade.revision)), "a revision of an earlier life");
    }
    store.compact().await.unwrap();
}

/// Many tasks add one to the same few counters by read, compare and swap: no addition may be lost.
pub async fn races(store: Arc<dyn Store>, sink: Arc<Recorder>, tasks: usize, additions: usize) {
    for name in ["p", "q"] {
        store.commit(durable(Intent::Create(draft("counter", name, "0")))).await.unwrap();
    }
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let (store, sink) = (store.clone(), sink.clone());
        running.spawn(async move {
            let name = ["p", "q"][task % 2];
            let key = Key::new("counter", "ns", name);
            let mut done = 0;
            while done < additions {
                let now = sink.read(|r| r.objects[&key].clone());
                let count: u64 = now.value().unwrap()["data"].as_str().unwrap().parse().unwrap();
                let next = draft("counter", name, &(count + 1).to_string());
                match store.commit(durable(Intent::Update(next, now.revision))).await {
                    Ok(_) => done += 1,
                    Err(Error::Conflict { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let total: u64 = sink.read(|r| {
        r.objects
            .values()
            .filter(|o| *o.key.resource == *"counter")
            .map(|o| o.value().unwrap()["data"].as_str().unwrap().parse::<u64>().unwrap())
            .sum()
    });
    assert_eq!(total, (tasks * additions) as u64);
}

/// One step of a random sequence; `stale` names a revision that is not the current one.
#[derive(Clone, Debug)]
pub struct Step {
    name: u8,
    volatile: bool,
    action: u8,
    stale: bool,
    data: u8,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..6u8, any::<bool>(), 0..3u8, prop::bool::weighted(0.2), any::<u8>())
        .prop_map(|(name, volatile, action, stale, data)| Step { name, volatile, action, stale, data });
    prop::collection::vec(step, 0..60)
}

/// What the store must hold after some steps.
#[derive(Default)]
pub struct Model(HashMap<Key, (Revision, String)>);

impl Model {
    pub async fn run(&mut self, store: &dyn Store, steps: &[Step]) {
        for step in steps {
            let (resource, write): (_, fn(Intent) -> Write) =
                if step.volatile { ("v", volatile) } else { ("d", durable) };
            let draft = draft(resource, &format!("n{}", step.name), &"x".repeat(usize::from(step.data) * 20));
            let key = draft.key.clone();
            let current = self.0.get(&key).map(|(at, _)| *at);
            let at = match current {
                Some(at) if !step.stale => at,
                Some(at) => Revision(at.0 - 1),
                None => Revision(1),
            };
            let text = String::from_utf8(draft.text.to_vec()).unwrap();
            let intent = match step.action {
                0 => Intent::Create(draft),
                1 => Intent::Update(draft, at),
                _ => Intent::Delete(draft, at),
            };
            let expected = intent.expects() == current;
            let action = step.action;
            match store.commit(write(intent)).await {
                Ok(object) => {
                    assert!(expected, "{step:?} must have failed");
                    match action {
                        2 => drop(self.0.remove(&key)),
                        _ => drop(self.0.insert(key, (object.revision, text))),
                    }
                }
                Err(error) => {
                    assert!(!expected, "{step:?}: {error}");
                    assert_eq!(error, Error::Conflict { current });
                }
            }
        }
    }

    /// `also` picks the resources that must be there.
    pub fn check(&self, sink: &Recorder, also: impl Fn(&Key) -> bool) {
        let mut expect: Vec<_> = self
            .0
            .iter()
            .filter(|(key, _)| also(key))
            .map(|(key, (at, text))| {
                let json = crate::api::encode::splice(text.as_bytes(), *at);
                (key.to_string(), at.0, String::from_utf8(json.to_vec()).unwrap())
            })
            .collect();
        expect.sort();
        let state: Vec<_> = sink.state();
        let found: Vec<_> =
            state.into_iter().filter(|(name, ..)| expect.iter().any(|e| e.0 == *name) || also(&parse(name))).collect();
        assert_eq!(found, expect);
    }
}

fn parse(name: &str) -> Key {
    let mut parts = name.split('/');
    let mut next = || parts.next().unwrap_or_default();
    Key::new(next(), next(), next())
}
