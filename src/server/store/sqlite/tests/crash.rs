//! Tests: power cuts, torn logs, killed processes.

use super::*;

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
            .args(["--exact", "--ignored", "--nocapture", "server::store::sqlite::tests::crash::child_that_writes"])
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
