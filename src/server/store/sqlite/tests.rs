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
async fn a_power_cut_loses_no_acknowledged_write() {
    let folder = folder();
    let (store, sink) = open(&folder);
    for i in 0..40 {
        let made = store.commit(create(&format!("n{i}"), &"x".repeat(i * 100))).await.unwrap();
        if i % 3 == 0 {
            let next = draft("d", &format!("n{i}"), "changed");
            store.commit(durable(Intent::Update(next, made.revision))).await.unwrap();
        } else if i % 3 == 1 {
            let last = draft("d", &format!("n{i}"), "gone");
            store.commit(durable(Intent::Delete(last, made.revision))).await.unwrap();
        }
        if i % 8 == 7 {
            let left = cut(&folder);
            let (after, loaded) = open(&left);
            assert_eq!(loaded.state(), sink.state(), "after {i}");
            assert!(loaded.revision() >= sink.revision());
            let next = after.commit(create("next", "")).await.unwrap();
            assert!(next.revision > sink.revision(), "a revision was given out twice");
            after.close().await.unwrap();
        }
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_torn_log_leaves_a_state_that_was() {
    let folder = folder();
    let (store, sink) = open(&folder);
    let mut states = vec![sink.state()];
    for i in 0..30_usize {
        let name = format!("n{}", i % 7);
        let key = crate::api::key::Key::new("d", "ns", &name);
        let there = sink.read(|r| r.objects.get(&key).map(|o| o.revision));
        let draft = draft("d", &name, &"y".repeat((i * 977) % 9000));
        let intent = match there {
            None => Intent::Create(draft),
            Some(at) if i % 5 == 4 => Intent::Delete(draft, at),
            Some(at) => Intent::Update(draft, at),
        };
        store.commit(durable(intent)).await.unwrap();
        states.push(sink.state());
    }
    let log = std::fs::metadata(folder.path().join("state.db-wal")).unwrap().len();
    for part in 0..40 {
        let left = cut(&folder);
        let file = std::fs::OpenOptions::new().write(true).open(left.path().join("state.db-wal")).unwrap();
        file.set_len(log * part / 40).unwrap();
        let (after, loaded) = open(&left);
        assert!(states.contains(&loaded.state()), "{part}/40 of the log");
        after.close().await.unwrap();
    }
    store.close().await.unwrap();
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

#[tokio::test]
async fn one_server_at_a_time() {
    let folder = folder();
    let path = folder.path().join("state.db");
    let (store, _) = open(&folder);
    let second = Sqlite::open(&path).err().unwrap();
    assert_eq!(second.to_string(), format!("{} is in use by another server", path.display()));
    store.commit(create("a", "")).await.unwrap();
    store.close().await.unwrap();
    Sqlite::open(&path).unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let folder = folder();
    let path = folder.path().join("state.db");
    let (store, _) = open(&folder);
    store.close().await.unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 7).unwrap();
    db.close().unwrap();
    let before = files(&folder);
    let error = Sqlite::open(&path).err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 7, .. }), "{error}");
    assert!(error.to_string().contains(&path.display().to_string()));
    assert_eq!(files(&folder), before);
}

#[tokio::test]
async fn someone_elses_database_is_refused() {
    let folder = folder();
    let path = folder.path().join("state.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE t (x)").unwrap();
    db.close().unwrap();
    let before = files(&folder);
    let error = Sqlite::open(&path).err().unwrap();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert_eq!(files(&folder), before);
}

#[tokio::test]
async fn a_corrupt_database_is_refused_and_left_alone() {
    let folder = folder();
    let (store, _) = open(&folder);
    for i in 0..300 {
        store.commit(create(&format!("n{i}"), &"z".repeat(500))).await.unwrap();
    }
    store.compact().await.unwrap();
    // So that there is a log beside it.
    store.commit(create("last", "")).await.unwrap();
    let size = std::fs::metadata(folder.path().join("state.db")).unwrap().len() as usize;
    assert!(size > 30 * 4096);
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 5] = [
        ("header", |b| b[..16].fill(b'!')),
        ("all of it", |b| b.fill(0x5a)),
        ("a page in the middle", |b| b[20 * 4096..21 * 4096].fill(0xff)),
        ("a page of zeros", |b| b[20 * 4096..21 * 4096].fill(0)),
        ("second half", |b| b.truncate(b.len() / 2)),
    ];
    for (what, damage) in damages {
        for with_log in [true, false] {
            let left = cut(&folder);
            let path = left.path().join("state.db");
            if !with_log {
                std::fs::remove_file(left.path().join("state.db-wal")).unwrap();
            }
            let mut content = std::fs::read(&path).unwrap();
            damage(&mut content);
            std::fs::write(&path, content).unwrap();
            let before = files(&left);
            let opened = Sqlite::open(&path).and_then(|store| store.start(Arc::new(Recorder::default())));
            let error = opened.err().unwrap_or_else(|| panic!("{what}: was opened"));
            assert!(matches!(error, OpenError::Corrupt { .. }), "{what}: {error:?}");
            assert!(error.to_string().starts_with(&path.display().to_string()), "{what}: {error}");
            assert_eq!(files(&left), before, "{what} (log: {with_log}): something was changed");
        }
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn objects_that_are_no_json_are_refused_by_name() {
    let folder = folder();
    let (store, _) = open(&folder);
    store.commit(create("broken", "")).await.unwrap();
    store.close().await.unwrap();
    let path = folder.path().join("state.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE objects SET json = CAST('{\"apiVersion\":' AS BLOB)", []).unwrap();
    db.close().unwrap();
    let error = Sqlite::open(&path).unwrap().start(Arc::new(Recorder::default())).err().unwrap();
    assert!(error.to_string().contains("d/ns/broken is not JSON"), "{error}");
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

/// A small file system of its own, where the machine lets us.
struct Small(TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = folder();
        let flags = nix::mount::MsFlags::empty();
        let mounted = nix::mount::mount(Some("tmpfs"), folder.path(), Some("tmpfs"), flags, Some("size=1m"));
        mounted.is_ok().then_some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers() {
    let Some(small) = Small::mount() else {
        println!("skipped: mounting a small file system needs root");
        return;
    };
    let ballast = small.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 400 * 1024]).unwrap();
    let (store, sink) = open(&small.0);
    let mut lease = store.commit(contract::volatile(Intent::Create(draft("v", "lease", "0")))).await.unwrap();
    let mut made = 0;
    let error = loop {
        match store.commit(create(&format!("n{made}"), &"f".repeat(8000))).await {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 1000, "the disk never was full");
    };
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!((error.status().code(), error.status().reason()), (507, "InsufficientStorage"));
    let there = sink.state();
    assert_eq!(there.len(), made + 1);
    let again = store.commit(create("again", &"f".repeat(8000))).await;
    assert!(matches!(again, Err(Error::Full { .. })), "{again:?}");
    assert_eq!(sink.state(), there, "a refused write was seen");
    // Heartbeats do not need the disk.
    lease = store.commit(contract::volatile(Intent::Update(draft("v", "lease", "1"), lease.revision))).await.unwrap();

    std::fs::remove_file(&ballast).unwrap();
    let made = store.commit(create("again", "")).await.unwrap();
    assert!(made.revision > lease.revision);
    let state = sink.state();
    store.close().await.unwrap();
    let (store, loaded) = open(&small.0);
    assert_eq!(loaded.state(), state);
    store.close().await.unwrap();
}

/// Not a test: what [`a_killed_server_loses_no_acknowledged_write`] starts and kills. Writes until it dies and says
/// which writes were acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test, in a folder that it marked"]
async fn child_that_writes() {
    if !Path::new("crash-child").exists() {
        return;
    }
    let store = Arc::new(Sqlite::open(Path::new("state.db")).unwrap());
    store.start(Arc::new(Recorder::default())).unwrap();
    let mut running = tokio::task::JoinSet::new();
    for task in 0..8 {
        let store = store.clone();
        running.spawn(async move {
            for i in 0.. {
                let made = store.commit(create(&format!("t{task}-{i}"), &"k".repeat(i % 3000))).await.unwrap();
                println!("made {} {}", made.key.name, made.revision);
            }
        });
    }
    running.join_next().await;
}

#[tokio::test]
async fn a_killed_server_loses_no_acknowledged_write() {
    use std::io::BufRead;
    let folder = folder();
    std::fs::write(folder.path().join("crash-child"), "").unwrap();
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    for round in 0..3 {
        // Names start over in each round, so each round has a database of its own to begin with.
        let _ = std::fs::remove_file(folder.path().join("state.db"));
        let _ = std::fs::remove_file(folder.path().join("state.db-wal"));
        acknowledged.clear();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "server::store::sqlite::tests::child_that_writes"])
            .current_dir(folder.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut read = |line: String| {
            let mut words = line.split(' ').skip_while(|w| !w.ends_with("made")).skip(1);
            if let (Some(name), Some(revision)) = (words.next(), words.next()) {
                acknowledged.push((name.to_owned(), revision.parse().unwrap()));
            }
        };
        for line in lines.by_ref().take(500 + round * 700) {
            read(line.unwrap());
        }
        child.kill().unwrap();
        // What was printed before the kill counts, but for a line that was cut short.
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        rest.iter().take(rest.len().saturating_sub(1)).for_each(|line| read(line.clone()));
        child.wait().unwrap();

        let (store, loaded) = open(&folder);
        assert!(acknowledged.len() > 400);
        for (name, revision) in &acknowledged {
            let key = crate::api::key::Key::new("d", "ns", name);
            let found = loaded.read(|r| r.objects.get(&key).map(|o| o.revision.0));
            assert_eq!(found, Some(*revision), "{name}");
        }
        store.close().await.unwrap();
    }
}

/// Prints rates; nothing can fail. Run with `--ignored --nocapture`.
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
