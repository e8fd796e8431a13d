//! Tests: the contract, what is written and when, and rates.

mod crash;
mod damage;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::Intent;
use super::super::contract::{self, Model, Recorder, draft, durable};
use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(folder: &TempDir) -> (Arc<Sqlite>, Arc<Recorder>) {
    let store = Arc::new(Sqlite::open(&folder.path().join("state.db")).unwrap());
    let sink = Arc::new(Recorder::default());
    store.start(sink.clone()).unwrap();
    (store, sink)
}

#[tokio::test]
async fn keeps_the_contract() {
    let folder = folder();
    let (store, sink) = open(&folder);
    contract::basics(&*store, &sink).await;
    let state = sink.state();
    let revision = sink.revision();
    store.close().await.unwrap();
    let late = store.commit(durable(Intent::Create(draft("d", "z", "")))).await;
    assert_eq!(late, Err(Error::Closed));

    let (store, sink) = open(&folder);
    assert_eq!(sink.state(), state);
    assert_eq!(sink.revision(), revision, "a clean close skips no revision");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn loses_no_race() {
    let folder = folder();
    let (store, sink) = open(&folder);
    contract::races(store.clone(), sink.clone(), 8, 50).await;
    let state = sink.state();
    store.close().await.unwrap();
    let (store, sink) = open(&folder);
    assert_eq!(sink.state(), state);
    store.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn does_what_the_model_does(first in contract::steps(), second in contract::steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let folder = folder();
            let mut model = Model::default();
            let (store, sink) = open(&folder);
            model.run(&*store, &first).await;
            model.check(&sink, |_| true);
            store.close().await.unwrap();
            let (store, sink) = open(&folder);
            model.check(&sink, |_| true);
            model.run(&*store, &second).await;
            model.check(&sink, |_| true);
            store.close().await.unwrap();
            let (store, sink) = open(&folder);
            model.check(&sink, |_| true);
            store.close().await.unwrap();
        });
    }
}

fn create(name: &str, data: &str) -> Write {
    durable(Intent::Create(draft("d", name, data)))
}

/// What a power cut leaves: the files as they are, of a store that nobody closed.
fn cut(folder: &TempDir) -> TempDir {
    let left = self::folder();
    for name in ["state.db", "state.db-wal"] {
        if folder.path().join(name).exists() {
            std::fs::copy(folder.path().join(name), left.path().join(name)).unwrap();
        }
    }
    left
}

/// Name, length and digest of every file but the lock.
fn files(folder: &TempDir) -> Vec<(String, usize, u64)> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|f| f.unwrap())
        .filter(|f| !f.file_name().to_string_lossy().ends_with(".lock"))
        .map(|f| {
            let content = std::fs::read(f.path()).unwrap();
            let mut digest = DefaultHasher::new();
            content.hash(&mut digest);
            (f.file_name().to_string_lossy().into_owned(), content.len(), digest.finish())
        })
        .collect();
    files.sort();
    files
}

async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = crate::clock::instant() + Duration::from_secs(20);
    while !condition() {
        assert!(crate::clock::instant() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn volatile_writes_reach_the_disk_in_batches_and_nothing_is_written_when_idle() {
    let folder = folder();
    let path = folder.path().join("state.db");
    let store = Sqlite::open_with(&path, Duration::from_millis(150)).unwrap();
    let sink = Arc::new(Recorder::default());
    store.start(sink.clone()).unwrap();
    let idle = files(&folder);
    let mut lease = store.commit(contract::volatile(Intent::Create(draft("v", "lease", "0")))).await.unwrap();
    let marked = files(&folder);
    assert_ne!(idle, marked, "the first revision needs a mark");
    for i in 1..50 {
        let next = draft("v", "lease", &i.to_string());
        lease = store.commit(contract::volatile(Intent::Update(next, lease.revision))).await.unwrap();
    }
    let log = |files: &[(String, usize, u64)]| files.iter().map(|f| f.1).sum::<usize>();
    assert!(log(&files(&folder)) - log(&marked) < 3 * 4120, "fifty renewals are not fifty writes");

    // A crash now may lose the lease, but no revision of it comes back.
    let (after, _) = open(&cut(&folder));
    let next = after.commit(create("next", "")).await.unwrap();
    assert!(next.revision > lease.revision);
    after.close().await.unwrap();

    let on_disk = || {
        let left = cut(&folder);
        let (_store, loaded) = open(&left);
        loaded.state() == sink.state()
    };
    wait_for("the flush", on_disk).await;
    let flushed = files(&folder);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(files(&folder), flushed, "an idle store writes nothing");

    // A renewal alone waits longer; what appears or goes takes it along.
    let next = draft("v", "lease", "again");
    lease = store.commit(contract::volatile(Intent::Update(next, lease.revision))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(files(&folder), flushed, "a renewal is not worth a write of its own yet");
    store.commit(contract::volatile(Intent::Create(draft("v", "event", "")))).await.unwrap();
    wait_for("the flush of both", on_disk).await;

    let gone = draft("v", "lease", "");
    store.commit(contract::volatile(Intent::Delete(gone, lease.revision))).await.unwrap();
    wait_for("the deletion", on_disk).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_clean_close_keeps_volatile_writes() {
    let folder = folder();
    let (store, sink) = open(&folder);
    store.commit(contract::volatile(Intent::Create(draft("v", "lease", "0")))).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(files(&folder).len(), 1, "the log is folded into the database");
    let (store, loaded) = open(&folder);
    assert_eq!(loaded.state(), sink.state());
    store.close().await.unwrap();
}

#[tokio::test]
async fn opening_and_closing_writes_nothing() {
    let folder = folder();
    let (store, _) = open(&folder);
    store.commit(create("a", "")).await.unwrap();
    store.close().await.unwrap();
    let before = files(&folder);
    let (store, _) = open(&folder);
    store.close().await.unwrap();
    assert_eq!(files(&folder), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_that_wait_share_a_sync() {
    let folder = folder();
    let (store, sink) = open(&folder);
    let mut running = tokio::task::JoinSet::new();
    for i in 0..400 {
        let store = store.clone();
        running.spawn(async move { store.commit(create(&format!("n{i}"), "")).await.unwrap() });
    }
    while running.join_next().await.is_some() {}
    let batches = sink.read(|r| r.batches);
    assert!(batches < 200, "400 writes took {batches} transactions");
    store.close().await.unwrap();
}

/// Prints rates; nothing can fail. Run with `--ignored --nocapture`; `TMPDIR` on a tmpfs leaves the cost of syncs out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark that prints"]
async fn bench_creates() {
    const TASKS: usize = 16;
    const EACH: usize = 3000;
    for (what, write) in [("durable", durable as fn(Intent) -> Write), ("volatile", contract::volatile)] {
        let folder = folder();
        let store = Arc::new(Sqlite::open(&folder.path().join("state.db")).unwrap());
        let cache = crate::server::cache::Cache::new();
        store.start(cache).unwrap();
        let drafts: Vec<Vec<_>> = (0..TASKS)
            .map(|t| (0..EACH).map(|i| draft("configmaps", &format!("t{t}-{i}"), &"b".repeat(256))).collect())
            .collect();
        let began = crate::clock::instant();
        let mut running = tokio::task::JoinSet::new();
        for drafts in drafts {
            let store = store.clone();
            running.spawn(async move {
                for draft in drafts {
                    store.commit(write(Intent::Create(draft))).await.unwrap();
                }
            });
        }
        while running.join_next().await.is_some() {}
        let rate = (TASKS * EACH) as f64 / began.elapsed().as_secs_f64();
        println!("{what}: {rate:.0} creates/s, {TASKS} tasks");
        store.close().await.unwrap();
    }
}
