//! Tests: turns are waited for, given back however a request ends, and lent from level to level.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::classify::{asked, bootstrapped, fairness, schema};
use crate::api::user::User;
use crate::clock;
use crate::server::flow::config::Schema;
use crate::server::flow::gate::Fairness;
use crate::server::flow::metrics::Metrics;
use crate::server::flow::work::Work;
use crate::server::flow::{Turn, dump};
use crate::server::objects::SharedObjects;
use crate::server::objects::fake::Fake;

const MINUTE: Duration = Duration::from_secs(60);

fn level(name: &str, shares: u32, lendable: u32, borrowing: Option<u32>) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": name},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "borrowingLimitPercent": borrowing, "limitResponse": {"type": "Queue",
                "queuing": {"queues": 8, "handSize": 2, "queueLengthLimit": 5}}}}})
}

fn of_user(name: &str, level: &str) -> Value {
    let rule = json!({"subjects": [{"kind": "User", "user": {"name": name}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]});
    schema(name, 10, level, &rule)
}

/// Two levels of 5 seats each that lend nothing, for two users.
fn apart() -> Vec<Value> {
    vec![level("a", 5, 0, Some(0)), level("b", 5, 0, Some(0)), of_user("ann", "a"), of_user("bob", "b")]
}

fn classified(fairness: &Fairness, user: &User) -> Arc<Schema> {
    fairness.classify(&asked(user, "get v1/pods x"))
}

async fn take(fairness: &Fairness, name: &str, allowed: Duration) -> Option<Turn> {
    let user = User::new(name, &[]);
    let schema = classified(fairness, &user);
    fairness.turn(&schema, &asked(&user, "get v1/pods x"), clock::instant(), allowed, |_| Work::ONE).await
}

/// Running and waiting, by the dump: one path for operators and for this test.
fn state(fairness: &Fairness, level: &str) -> (u32, usize) {
    let levels = fairness.levels();
    let (level, _) = levels.iter().find(|(l, _)| &*l.name == level).expect("a level");
    level.queues().map_or_else(|| (level.exempt().0, 0), |q| (q.running(), q.waiting()))
}

#[tokio::test(start_paused = true)]
async fn a_quarter_of_the_time_is_for_waiting() {
    // 15 shares of 15 seats: catch-all has 5.
    let fairness = fairness(&apart(), 15);
    let mut turns = Vec::new();
    for _ in 0..5 {
        turns.push(take(&fairness, "ann", MINUTE).await.expect("a seat"));
    }
    let before = clock::instant();
    assert!(take(&fairness, "ann", MINUTE).await.is_none());
    assert_eq!(clock::instant() - before, MINUTE / 4);
    assert!(take(&fairness, "ann", Duration::from_secs(4)).await.is_none());
    assert_eq!(clock::instant() - before, MINUTE / 4 + Duration::from_secs(1));
    assert!(take(&fairness, "bob", MINUTE).await.is_some(), "another level is not concerned");
    let waits = take(&fairness, "ann", MINUTE);
    tokio::pin!(waits);
    assert!(futures::poll!(&mut waits).is_pending());
    assert_eq!(state(&fairness, "a"), (5, 1));
    let text = dump::requests(&fairness, true, (clock::now(), clock::instant()));
    assert!(text.contains("ann,") && text.lines().count() == 2, "{text}");
    turns.pop();
    assert!(waits.await.is_some());
    drop(turns);
    assert_eq!(state(&fairness, "a"), (0, 0));
}

/// However a request ends, its seat or its place is there for others.
#[tokio::test(start_paused = true)]
async fn what_is_dropped_gives_back() {
    let fairness = fairness(&apart(), 15);
    let mut turns = Vec::new();
    for _ in 0..5 {
        turns.push(take(&fairness, "ann", MINUTE).await);
    }
    let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(take(&fairness, "ann", MINUTE))).collect();
    for one in &mut waiting {
        assert!(futures::poll!(one).is_pending());
    }
    assert_eq!(state(&fairness, "a"), (5, 4));
    // One that waits goes away; one is given its seat and goes away without having looked.
    waiting.pop();
    assert_eq!(state(&fairness, "a"), (5, 3));
    turns.pop();
    assert_eq!(state(&fairness, "a"), (5, 2));
    drop(waiting.remove(0));
    assert!(state(&fairness, "a").0 <= 5);
    drop(waiting);
    drop(turns);
    assert_eq!(state(&fairness, "a"), (0, 0));
    // All five are there again.
    for _ in 0..5 {
        let turn = take(&fairness, "ann", Duration::ZERO).await;
        assert!(turn.is_some());
        std::mem::forget(turn);
    }
    assert!(take(&fairness, "ann", Duration::ZERO).await.is_none());
}

/// Seats that lie idle are lent, and come back within a period when their level asks for them.
#[tokio::test(start_paused = true)]
async fn idle_seats_are_lent_and_come_back() {
    let objects = [level("a", 5, 100, None), level("b", 5, 100, None), of_user("ann", "a"), of_user("bob", "b")];
    let fairness = fairness(&objects, 15);
    let mut turns = Vec::new();
    while let Some(turn) = take(&fairness, "ann", Duration::from_secs(44)).await {
        turns.push(turn);
        assert!(turns.len() <= 20, "more than there are");
    }
    assert!(turns.len() > 6, "{} of 5 and what is lent", turns.len());
    let bobs = take(&fairness, "bob", MINUTE);
    tokio::pin!(bobs);
    let before = clock::instant();
    assert!(bobs.await.is_some());
    assert!(clock::instant() - before <= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn the_exempt_do_not_wait() {
    let fairness = fairness(&bootstrapped(), 1);
    let admin = User::new("admin", &["system:masters"]);
    let mut turns = Vec::new();
    for _ in 0..100 {
        let schema = fairness.classify(&asked(&admin, "get v1/pods x"));
        let asked = asked(&admin, "get v1/pods x");
        let work = |_| panic!("the work of the exempt is not looked at");
        turns.push(fairness.turn(&schema, &asked, clock::instant(), Duration::ZERO, work).await.expect("a turn"));
    }
    assert_eq!(state(&fairness, "exempt").0, 100);
    drop(turns);
    assert_eq!(state(&fairness, "exempt").0, 0);
    let text = dump::levels(&fairness);
    let row = text.lines().find(|l| l.starts_with("exempt,")).expect("a row");
    let columns: Vec<&str> = row.split(',').map(str::trim).collect();
    assert_eq!(columns, ["exempt", "0", "true", "false", "0", "0", "100", "0", "0", "0"], "{text}");
}

/// An edit holds for the next request; what waits and runs stays. A level that goes drains, and comes back as it was.
#[tokio::test(start_paused = true)]
async fn edits_are_live() {
    let objects = Fake::new(apart());
    let shared: SharedObjects = objects.clone();
    let fairness = Fairness::new(&shared, 15, Metrics::default());
    let mut turns = Vec::new();
    for _ in 0..5 {
        turns.push(take(&fairness, "ann", MINUTE).await.expect("a seat"));
    }
    let waits = take(&fairness, "ann", MINUTE);
    tokio::pin!(waits);
    assert!(futures::poll!(&mut waits).is_pending());
    objects.put(level("a", 40, 0, Some(0)));
    turns.extend(take(&fairness, "bob", MINUTE).await);
    assert!(waits.await.is_some(), "there are more seats now");
    objects.remove("flowcontrol.apiserver.k8s.io/prioritylevelconfigurations", "", "a");
    let ann = User::new("ann", &[]);
    assert_eq!(classified(&fairness, &ann).name, "catch-all", "what dangles is passed over");
    assert!(dump::levels(&fairness).lines().any(|l| l.starts_with("a, ") && l.contains("true, ")), "it drains");
    objects.put(level("a", 5, 0, Some(0)));
    assert_eq!(classified(&fairness, &ann).name, "ann");
    assert_eq!(state(&fairness, "a").0, 5);
    objects.remove("flowcontrol.apiserver.k8s.io/prioritylevelconfigurations", "", "a");
    drop(turns);
    assert!(fairness.levels().iter().all(|(l, _)| &*l.name != "a"));
}
