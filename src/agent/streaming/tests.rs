//! Logs of a fake container: what is there, what is added, what rotation moves away, and the end.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::log_file::{self, Container};
use super::log_line::Options;
use crate::api::query::Query;
use crate::clock;
use crate::cri::fake::Fake;
use crate::cri::{Runtime as _, v1};

struct Story {
    directory: tempfile::TempDir,
    runtime: Fake,
    id: String,
}

impl Story {
    async fn new() -> Self {
        let runtime = Fake::with_images(&["image"]);
        let directory = tempfile::tempdir().unwrap();
        let metadata = v1::PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 0 };
        let sandbox = v1::PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
        let sandbox_id = runtime.run_sandbox(&sandbox, "").await.unwrap();
        let metadata = v1::ContainerMetadata { name: "c".into(), attempt: 0 };
        let image = v1::ImageSpec { image: "image".into(), ..Default::default() };
        let config = v1::ContainerConfig { metadata: Some(metadata), image: Some(image), ..Default::default() };
        let id = runtime.create_container(&sandbox_id, &config, &sandbox).await.unwrap();
        runtime.start_container(&id).await.unwrap();
        Self { directory, runtime, id }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("0.log")
    }

    async fn open(&self, query: &str) -> impl Stream<Item = std::io::Result<Bytes>> + use<> {
        let options = Options::parse(&Query::parse(query), clock::now()).unwrap();
        let container = Container { id: self.id.clone(), runtime: Arc::new(self.runtime.clone()) };
        log_file::stream(&self.path(), &options, container).await.unwrap()
    }

    async fn read(&self, query: &str) -> String {
        rest(std::pin::pin!(self.open(query).await)).await
    }
}

fn append(path: &Path, text: &str) {
    File::options().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn line(text: &str) -> String {
    format!("2026-01-01T00:00:00Z stdout F {text}\n")
}

/// The next piece, within a deadline.
async fn next(stream: &mut (impl Stream<Item = std::io::Result<Bytes>> + Unpin)) -> Option<String> {
    let piece = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("a piece in time");
    piece.map(|p| String::from_utf8(p.unwrap().to_vec()).unwrap())
}

async fn rest(mut stream: impl Stream<Item = std::io::Result<Bytes>> + Unpin) -> String {
    let mut all = String::new();
    while let Some(piece) = next(&mut stream).await {
        all.push_str(&piece);
    }
    all
}

#[tokio::test]
async fn a_log_is_read_from_its_start_or_its_tail() {
    let story = Story::new().await;
    // More than one block, so that the tail is looked for backwards across blocks.
    let lines: Vec<String> = (0..5000).map(|i| format!("line {i}")).collect();
    append(&story.path(), &lines.iter().map(|l| line(l)).collect::<String>());
    let all: String = lines.iter().map(|l| format!("{l}\n")).collect();
    assert_eq!(story.read("").await, all);
    assert_eq!(story.read("tailLines=2").await, "line 4998\nline 4999\n");
    assert_eq!(story.read("tailLines=0").await, "");
    assert_eq!(story.read("tailLines=9999").await, all);
    assert_eq!(story.read("tailLines=4000").await.lines().next(), Some("line 1000"));
    assert_eq!(story.read("limitBytes=10").await, "line 0\nlin");
    append(&story.path(), "2026-01-01T00:00:00Z stdout F cut");
    assert_eq!(story.read("tailLines=2").await, "line 4999\ncut\n");
}

#[tokio::test]
async fn a_followed_log_survives_rotation_and_ends_with_its_container() {
    let story = Story::new().await;
    let path = story.path();
    append(&path, &line("before"));
    let mut stream = Box::pin(story.open("follow=true&tailLines=1").await);
    assert_eq!(next(&mut stream).await.as_deref(), Some("before\n"));
    append(&path, &line("while"));
    assert_eq!(next(&mut stream).await.as_deref(), Some("while\n"));
    append(&path, &line("last of the old"));
    fs::rename(&path, story.directory.path().join("0.log.20260101-000000")).unwrap();
    append(&path, &line("first of the new"));
    let mut both = String::new();
    while both.lines().count() < 2 {
        both.push_str(&next(&mut stream).await.expect("goes on"));
    }
    assert_eq!(both, "last of the old\nfirst of the new\n");
    append(&path, &line("bye"));
    story.runtime.exit("u", "c", 0);
    assert_eq!(rest(stream).await, "bye\n");
    // Following a container that has ended gives what there is.
    assert_eq!(story.read("follow=true").await, "first of the new\nbye\n");
}

#[tokio::test]
async fn a_slow_reader_misses_no_rotated_file() {
    let story = Story::new().await;
    let path = story.path();
    append(&path, &line("one"));
    let mut stream = Box::pin(story.open("follow=true").await);
    assert_eq!(next(&mut stream).await.as_deref(), Some("one\n"));
    for (name, text) in [("20260101-000000", "two"), ("20260101-000100", "three"), ("20260101-000200", "four")] {
        append(&path, &line(text));
        fs::rename(&path, story.directory.path().join(format!("0.log.{name}"))).unwrap();
    }
    append(&path, &line("five"));
    story.runtime.exit("u", "c", 0);
    assert_eq!(rest(stream).await, "two\nthree\nfour\nfive\n");
}
