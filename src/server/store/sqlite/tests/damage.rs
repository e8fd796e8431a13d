//! Tests: files that are corrupt, foreign, newer, in use; a disk that is full.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::api::key::Key;
use crate::server::store::Unreadable;

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

#[tokio::test]
async fn one_server_at_a_time() {
    let folder = folder();
    let path = folder.path().join("state.db");
    let (store, _) = open(&folder);
    let second = Sqlite::open(&path).err().unwrap();
    assert_eq!(
        second.to_string(),
        format!("{} is in use by another server: stop that one, or choose another --data-dir", path.display())
    );
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
async fn objects_that_cannot_be_read_are_left_out_by_name() {
    let folder = folder();
    let (store, _) = open(&folder);
    let broken = store.commit(create("broken", "")).await.unwrap();
    store.commit(create("whole", "")).await.unwrap();
    store.close().await.unwrap();
    let path = folder.path().join("state.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE objects SET json = CAST('{\"apiVersion\":' AS BLOB) WHERE name = 'broken'", []).unwrap();
    db.close().unwrap();

    let (store, sink) = open(&folder);
    let names = |sink: &Recorder| sink.read(|r| r.objects.keys().map(Key::to_string).collect::<Vec<_>>());
    assert_eq!(names(&sink), ["d/ns/whole"]);
    let reason = "it is no JSON: EOF while parsing a value at line 1 column 14".to_owned();
    let unreadable = Unreadable { key: broken.key.clone(), revision: broken.revision, reason };
    sink.read(|r| assert_eq!(r.unreadable, [unreadable]));
    // Its name is taken until it is deleted.
    let conflict = Err(Error::Conflict { current: Some(broken.revision) });
    assert_eq!(store.commit(create("broken", "")).await, conflict);
    store.commit(durable(Intent::Delete(draft("d", "broken", ""), broken.revision))).await.unwrap();
    store.commit(create("broken", "")).await.unwrap();
    store.close().await.unwrap();
    let (_store, sink) = open(&folder);
    assert_eq!(names(&sink), ["d/ns/broken", "d/ns/whole"]);
}

#[tokio::test]
async fn a_heartbeat_that_cannot_be_read_is_made_again() {
    let folder = folder();
    let (store, _) = open(&folder);
    let beat = || contract::volatile(Intent::Create(draft("coordination.k8s.io/leases", "m1", "")));
    store.commit(beat()).await.unwrap();
    store.close().await.unwrap();
    let path = folder.path().join("state.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE objects SET json = x'00'", []).unwrap();
    db.close().unwrap();
    let (store, sink) = open(&folder);
    sink.read(|r| assert_eq!((r.objects.len(), r.unreadable.len()), (0, 0)));
    store.commit(beat()).await.unwrap();
    store.close().await.unwrap();
    let (_store, sink) = open(&folder);
    sink.read(|r| assert_eq!((r.objects.len(), r.unreadable.len()), (1, 0)));
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
        return crate::api::reference::skip("mounting a small file system needs root");
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
