//! Tests: whatever happened, a watch that goes on from a revision tells exactly what was missed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use serde_json::json;

use super::watch::{BOOKMARK_INTERVAL, Event, Filter, Start, Watch};
use super::window::{MAX_AGE, MAX_EVENTS};
use super::*;
use crate::api::encode::Draft;
use crate::api::selector::{FieldSelector, LabelSelector, Requirement};
use crate::clock;

/// Pods can be selected by the node they are on.
const FIELDS: &[&str] = &["spec.nodeName"];

fn object(name: &str, node: &str, revision: u64) -> ObjectRef {
    let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"node": node}},
        "spec": {"nodeName": node}});
    let (namespace, name) = name.split_once('.').unwrap_or(("ns", name));
    Arc::new(Draft::new(Key::new("pods", namespace, name), &value, FIELDS).at(Revision(revision)))
}

fn put(name: &str, revision: u64) -> Change {
    Change::Put(object(name, "n", revision))
}

fn loaded(revision: u64) -> Arc<Cache> {
    let cache = Cache::new();
    cache.load(Loaded { revision: Revision(revision), ..Loaded::default() });
    cache
}

/// What a watch gives without waiting; `true` when it ended.
fn drain(watch: &mut Watch) -> (Vec<Event>, bool) {
    let mut events = Vec::new();
    loop {
        match watch.next().now_or_never() {
            None => return (events, false),
            Some(None) => return (events, true),
            Some(Some(event)) => events.push(event.unwrap()),
        }
    }
}

fn on(node: &str) -> FieldSelector {
    FieldSelector::parse(&format!("spec.nodeName={node}")).unwrap()
}

#[test]
fn a_list_is_the_state_of_its_revision() {
    let cache = loaded(5);
    assert_eq!(cache.list("pods", None).1, Revision(5));
    cache.publish(vec![put("a", 6), put("b", 8)]);
    let (items, revision) = cache.list("pods", Some("ns"));
    assert_eq!((items.len(), revision), (2, Revision(8)));
    assert_eq!(cache.list_at("pods", None, Revision(6)).unwrap().len(), 1);
    assert_eq!(cache.list_at("pods", None, Revision(4)), None);
    let changed = |storage| cache.changed(storage).load(std::sync::atomic::Ordering::Acquire);
    assert_eq!((changed("pods"), changed("nodes")), (8, 5));
    assert_eq!(cache.list("nodes", None).1, Revision(8), "a quiet resource is up to date too");
}

#[test]
fn what_was_loaded_is_listed_in_order() {
    let cache = Cache::new();
    // Someone asks before the store was opened.
    assert_eq!(cache.list("pods", None).0.len(), 0);
    let objects = ["b.x", "a.z", "a.y"].map(|n| object(n, "n", 3)).to_vec();
    cache.load(Loaded { objects, revision: Revision(7), ..Loaded::default() });
    let (items, revision) = cache.list("pods", None);
    let names: Vec<_> = items.iter().map(|o| format!("{}.{}", o.key.namespace, o.key.name)).collect();
    assert_eq!((names, revision), (vec!["a.y".into(), "a.z".into(), "b.x".to_owned()], Revision(7)));
    assert_eq!(cache.count("pods"), 3);
    let mut old = cache.watch("pods", Filter::default(), Start::After(Revision(6)), false);
    let error = old.next().now_or_never().unwrap().unwrap().unwrap_err();
    assert_eq!((error.code(), error.message()), (410, "too old resource version: 6 (7)"));
    assert!(old.next().now_or_never().unwrap().is_none());
}

#[tokio::test]
async fn a_watch_of_the_state_begins_with_it() {
    let cache = loaded(1);
    cache.publish(vec![put("a", 2), put("other.b", 3)]);
    let filter = || Filter { namespace: Some("ns".into()), ..Filter::default() };
    let mut state = cache.watch("pods", filter(), Start::State { end: true }, true);
    let mut now = cache.watch("pods", filter(), Start::Now, false);
    let end = Event::Bookmark { revision: Revision(3), initial_end: true };
    let a = object("a", "n", 2);
    assert_eq!(drain(&mut state), (vec![Event::Added(a.clone()), end], false));
    assert_eq!(drain(&mut now), (vec![], false));
    cache.publish(vec![put("other.c", 4), put("a", 5), Change::Delete(object("a", "n", 6))]);
    let expect = vec![Event::Modified(object("a", "n", 5)), Event::Deleted(object("a", "n", 6))];
    assert_eq!(drain(&mut state), (expect.clone(), false));
    assert_eq!(drain(&mut now), (expect, false));
}

#[test]
fn entering_and_leaving_a_selection_is_being_created_and_deleted() {
    let cache = loaded(1);
    let selected = Filter { fields: on("n1"), selectable: FIELDS, ..Filter::default() };
    let mut watch = cache.watch("pods", selected, Start::Now, false);
    cache.publish(vec![Change::Put(object("a", "", 2))]);
    assert_eq!(drain(&mut watch).0, []);
    cache.publish(vec![Change::Put(object("a", "n1", 3)), Change::Put(object("a", "n1", 4))]);
    assert_eq!(drain(&mut watch).0, [Event::Added(object("a", "n1", 3)), Event::Modified(object("a", "n1", 4))]);
    cache.publish(vec![Change::Put(object("a", "n2", 5))]);
    // The state that was known, at the revision at which it left.
    assert_eq!(drain(&mut watch).0, [Event::Deleted(object("a", "n1", 5))]);
    cache.publish(vec![Change::Delete(object("a", "n2", 6))]);
    assert_eq!(drain(&mut watch).0, []);
}

#[test]
fn a_watch_that_is_too_slow_ends() {
    let cache = loaded(1);
    let mut slow = cache.watch("pods", Filter::default(), Start::Now, false);
    let mut fast = cache.watch("pods", Filter::default(), Start::Now, false);
    let last = MAX_EVENTS as u64 + 2;
    let mut seen = 0;
    for revision in 2..=last {
        cache.publish(vec![put("a", revision)]);
        seen += drain(&mut fast).0.len() as u64;
    }
    assert_eq!(seen, last - 1);
    assert_eq!(drain(&mut slow), (vec![], true));
}

#[tokio::test(start_paused = true)]
async fn bookmarks_tell_how_far_a_quiet_watch_has_come() {
    let cache = loaded(1);
    let mut watch = cache.watch("pods", Filter::default(), Start::Now, true);
    let mut without = cache.watch("pods", Filter::default(), Start::Now, false);
    let began = clock::instant();
    // Of another resource, so there is no event for this watch.
    let node = Draft::new(Key::new("nodes", "", "x"), &json!({"metadata": {"name": "x"}}), &[]);
    cache.publish(vec![Change::Put(Arc::new(node.at(Revision(9))))]);
    let event = watch.next().await.unwrap().unwrap();
    assert_eq!(event, Event::Bookmark { revision: Revision(9), initial_end: false });
    assert_eq!(clock::instant() - began, BOOKMARK_INTERVAL);
    assert_eq!(watch.next().await.unwrap().unwrap(), event, "and again a minute later");
    assert_eq!(drain(&mut without), (vec![], false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_watchers_see_every_change_in_order() {
    const LAST: u64 = 5_000;
    let cache = loaded(1);
    let mut watchers = tokio::task::JoinSet::new();
    for i in 0..8 {
        let mut watch = cache.watch("pods", Filter::default(), Start::After(Revision(1)), i % 2 == 0);
        watchers.spawn(async move {
            let mut next = 2;
            while next <= LAST {
                let (Event::Added(o) | Event::Modified(o)) = watch.next().await.expect("not too slow").unwrap() else {
                    panic!("nothing was deleted")
                };
                assert_eq!(o.revision, Revision(next));
                next += 1;
            }
        });
    }
    let writer = tokio::task::spawn_blocking(move || {
        let mut next = 2;
        while next <= LAST {
            let batch = (next..=LAST).take(1 + next as usize % 9).map(|r| put(&format!("p{}", r % 50), r));
            let batch: Vec<_> = batch.collect();
            next += batch.len() as u64;
            cache.publish(batch);
        }
    });
    writer.await.unwrap();
    while let Some(done) = watchers.join_next().await {
        done.unwrap();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        name: u8,
        node: u8,
    },
    Delete {
        name: u8,
    },
    /// A change of another resource.
    Elsewhere,
    /// Long enough for the window to forget.
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..5u8, 0..3u8).prop_map(|(name, node)| Step::Put { name, node }),
        3 => (0..5u8).prop_map(|name| Step::Delete { name }),
        1 => Just(Step::Elsewhere),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..80)
}

type State = BTreeMap<String, ObjectRef>;

/// Applies events as a client does, and checks that each makes sense to it.
fn replay(mut state: State, events: Vec<Event>) -> State {
    for event in events {
        match event {
            Event::Added(o) => {
                let name = o.key.name.to_string();
                assert!(state.insert(name, o).is_none(), "added what was known");
            }
            Event::Modified(o) => {
                let before = state.insert(o.key.name.to_string(), o.clone()).expect("modified what was known");
                assert!(before.revision < o.revision);
            }
            Event::Deleted(o) => {
                let before = state.remove(&*o.key.name).expect("deleted what was known");
                assert!(before.revision < o.revision);
            }
            Event::Bookmark { .. } => panic!("none was asked for"),
        }
    }
    state
}

async fn missed_events(steps: Vec<Step>) {
    let cache = loaded(10);
    // The state after every revision, of all pods.
    let mut history: BTreeMap<u64, State> = BTreeMap::from([(10, State::new())]);
    let mut revision = 10;
    for step in steps {
        let mut state = history.last_key_value().unwrap().1.clone();
        match step {
            Step::Wait => {
                tokio::time::advance(MAX_AGE + Duration::from_secs(1)).await;
                continue;
            }
            Step::Elsewhere => {
                revision += 1;
                let node = Draft::new(Key::new("nodes", "", "x"), &json!({"metadata": {"name": "x"}}), &[]);
                cache.publish(vec![Change::Put(Arc::new(node.at(Revision(revision))))]);
            }
            Step::Put { name, node } => {
                revision += 2;
                let put = object(&format!("p{name}"), &format!("n{node}"), revision);
                state.insert(put.key.name.to_string(), put.clone());
                cache.publish(vec![Change::Put(put)]);
            }
            Step::Delete { name } => {
                let Some(last) = state.remove(&format!("p{name}")) else { continue };
                revision += 1;
                cache.publish(vec![Change::Delete(Arc::new(last.at(Revision(revision))))]);
            }
        }
        history.insert(revision, state);
    }
    let filters = [
        Filter::default(),
        Filter { fields: on("n1"), selectable: FIELDS, ..Filter::default() },
        Filter {
            labels: LabelSelector(vec![Requirement::NotIn("node".into(), vec!["n1".into(), "n2".into()])]),
            ..Filter::default()
        },
    ];
    let now = history.last_key_value().unwrap().1;
    let mut reachable = 0;
    for at in 9..=revision {
        // The state at a revision that was skipped is that of the one before.
        let then = history.range(..=at).next_back().map(|(_, s)| s.clone());
        let listed = cache.list_at("pods", None, Revision(at));
        for filter in &filters {
            let mut watch = cache.watch("pods", filter.clone(), Start::After(Revision(at)), false);
            let selected = |s: &State| -> State {
                s.iter().filter(|(_, o)| filter.matches(o)).map(|(k, o)| (k.clone(), o.clone())).collect()
            };
            match &listed {
                None => {
                    let error = watch.next().await.unwrap().unwrap_err();
                    assert_eq!((error.code(), error.reason()), (410, "Expired"));
                }
                Some(items) => {
                    let then = then.as_ref().expect("nothing before the load can be reached");
                    assert!(items.iter().eq(then.values()), "the list at {at}");
                    let (events, ended) = drain(&mut watch);
                    assert!(!ended);
                    assert_eq!(replay(selected(then), events), selected(now), "from {at}");
                    reachable += 1;
                }
            }
        }
    }
    assert!(reachable > 0, "the present can always be reached");
}

proptest! {
    #[test]
    fn going_on_from_any_revision_gives_exactly_what_was_missed(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(missed_events(steps));
    }
}

/// Pages, of what is there and of what was, are pieces of the whole.
#[test]
fn pages_fit_together() {
    let cache = Cache::new();
    let keys = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "3"), ("c", "0")];
    cache.publish(keys.iter().zip(1..).map(|((ns, name), at)| put(&format!("{ns}.{name}"), at)).collect());
    let then = cache.revision();
    cache.publish(vec![put("a.0", 6), Change::Delete(object("b.1", "n", 7)), put("b.2", 8), put("c.0", 9)]);
    let place = |o: &ObjectRef| (o.key.namespace.to_string(), o.key.name.to_string());
    for at in [None, Some(then)] {
        for namespace in [None, Some("a"), Some("b"), Some("x")] {
            let take = |page: Page<'_>| match at {
                None => (cache.page("pods", page).0, cache.page("pods", page).1),
                Some(at) => cache.page_at("pods", page, at).unwrap(),
            };
            let (whole, none) = take(Page::all(namespace));
            assert_eq!(none, 0);
            for limit in 1..=whole.len() + 1 {
                let (mut got, mut after): (Vec<ObjectRef>, Option<(String, String)>) = Default::default();
                loop {
                    let after_it = after.as_ref().map(|(ns, name)| (&**ns, &**name));
                    let (items, rest) = take(Page { namespace, after: after_it, limit });
                    assert_eq!(rest, whole.len() - got.len() - items.len(), "{at:?} {namespace:?} {limit}");
                    after = items.last().map(place);
                    got.extend(items);
                    if rest == 0 {
                        break;
                    }
                }
                assert_eq!(got.iter().map(place).collect::<Vec<_>>(), whole.iter().map(place).collect::<Vec<_>>());
            }
        }
        // A place of another namespace is before all of this one, or after.
        let elsewhere = |place| Page { namespace: Some("b"), after: Some((place, "9")), limit: 9 };
        assert_eq!(cache.page("pods", elsewhere("a")).0.len(), 2);
        assert_eq!(cache.page("pods", elsewhere("c")).0.len(), 0);
    }
    assert_eq!(cache.page_at("pods", Page::all(None), then).unwrap().0.len(), keys.len());
}
