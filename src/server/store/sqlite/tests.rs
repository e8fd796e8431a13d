use std::os::unix::fs::PermissionsExt;

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

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let folder = folder();
    let (store, _) = open(&folder);
    store.commit(durable(Intent::Create(draft("d", "a", "")))).await.unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
    store.close().await.unwrap();
}
