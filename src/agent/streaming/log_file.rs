//! Effects: reads a container's log file, and goes on reading while it grows: through rotation, until the container
//! has ended. Nothing is polled: inotify tells about the file, the runtime's events about the container.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};

use super::log_line::{Filter, Options};
use crate::agent::logs;
use crate::cri::{self, Runtime, RuntimeEvent, State};
use crate::inotify::{Flags, Watcher};

/// How much of the file is read at once, in bytes.
const BLOCK: usize = 128 * 1024;
/// A line longer than this is passed on in pieces; runtimes split at 16 KiB.
const LINE_MAX: usize = 256 * 1024;

/// The container whose end ends a followed log.
pub struct Container {
    pub id: String,
    pub runtime: Arc<dyn Runtime>,
}

/// The log as the client gets it.
///
/// # Errors
/// When the file cannot be opened or watched.
pub async fn stream(
    path: &Path,
    options: &Options,
    container: Container,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
    let mut reader = Reader::open(path, options, container).await?;
    if let Some(lines) = options.tail {
        reader.seek_to_tail(lines).await?;
    }
    Ok(futures::stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }))
}

struct Reader {
    path: PathBuf,
    file: File,
    /// The file that comes after this one, once there is something in it.
    next: Option<File>,
    /// Bytes read that are no whole line yet.
    pending: Vec<u8>,
    filter: Filter,
    following: Option<Following>,
}

/// What a growing log is waited for with.
struct Following {
    watcher: Watcher,
    container: Container,
    /// `None` when the runtime's events ended; only the file is watched then, until they can be had again.
    events: Option<BoxStream<'static, RuntimeEvent>>,
    ended: bool,
}

impl Reader {
    async fn open(path: &Path, options: &Options, container: Container) -> io::Result<Self> {
        let following = if options.follow { Some(Following::new(path, container).await?) } else { None };
        let file = File::open(path).await?;
        Ok(Self { path: path.into(), file, next: None, pending: Vec::new(), filter: Filter::new(options), following })
    }

    /// Goes to where the last `lines` lines start, reading backwards.
    async fn seek_to_tail(&mut self, lines: u64) -> io::Result<()> {
        let end = self.file.seek(SeekFrom::End(0)).await?;
        let (mut position, mut found) = (end, 0);
        let mut block = vec![0; BLOCK];
        while position > 0 && lines > 0 {
            let size = usize::try_from(position).unwrap_or(BLOCK).min(BLOCK);
            position -= size as u64;
            self.file.seek(SeekFrom::Start(position)).await?;
            self.file.read_exact(&mut block[..size]).await?;
            for (i, _) in block[..size].iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
                let after = position + i as u64 + 1;
                // The newline at the end closes the last line; it starts none.
                if after == end {
                    continue;
                }
                found += 1;
                if found == lines {
                    self.file.seek(SeekFrom::Start(after)).await?;
                    return Ok(());
                }
            }
        }
        self.file.seek(SeekFrom::Start(if lines == 0 { end } else { 0 })).await?;
        Ok(())
    }

    /// The next piece of output; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.filter.is_done() {
                return Ok(None);
            }
            let mut out = Vec::new();
            let start = self.pending.len();
            self.pending.resize(start + BLOCK, 0);
            let count = self.file.read(&mut self.pending[start..]).await?;
            self.pending.truncate(start + count);
            if count > 0 {
                self.take_lines(&mut out);
            } else if !self.wait().await? {
                // A last line without its newline is a line when nothing will be added to it.
                let rest = std::mem::take(&mut self.pending);
                if rest.is_empty() {
                    return Ok(None);
                }
                self.filter.push(&rest, &mut out);
            }
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
    }

    fn take_lines(&mut self, out: &mut Vec<u8>) {
        let mut start = 0;
        out.reserve(self.pending.len());
        for end in memchr::memchr_iter(b'\n', &self.pending) {
            if self.filter.is_done() {
                break;
            }
            self.filter.push(&self.pending[start..end], out);
            start = end + 1;
        }
        self.pending.drain(..start);
        if self.pending.len() > LINE_MAX {
            let rest = std::mem::take(&mut self.pending);
            self.filter.push(&rest, out);
        }
    }

    /// At the end of the file: waits until there may be more. `false` when there will be none.
    async fn wait(&mut self) -> io::Result<bool> {
        let Some(following) = &mut self.following else { return Ok(false) };
        if let Some(next) = self.next.take() {
            self.file = next;
            return Ok(true);
        }
        if let Some(next) = successor(&self.path, &self.file).await? {
            // Rotated. The old file may have grown between its end and now: once more, and then it is complete.
            self.next = Some(next);
            return Ok(true);
        }
        if following.ended {
            return Ok(false);
        }
        // It may be long until there is more.
        self.pending.shrink_to_fit();
        following.changed().await?;
        Ok(true)
    }
}

impl Following {
    async fn new(path: &Path, container: Container) -> io::Result<Self> {
        let watcher = Watcher::new()?;
        // The directory, because rotation renames the file and makes another of the same name.
        let directory = path.parent().unwrap_or(Path::new("/"));
        watcher.add(directory, Flags::IN_MODIFY | Flags::IN_CREATE | Flags::IN_MOVED_TO)?;
        let mut following = Self { watcher, container, events: None, ended: false };
        following.subscribe().await;
        Ok(following)
    }

    /// Listens first and looks then: an end in between is seen by one of the two.
    async fn subscribe(&mut self) {
        self.events = self.container.runtime.events().await.ok();
        self.ended = self.container.has_ended().await;
    }

    async fn changed(&mut self) -> io::Result<()> {
        loop {
            let event = match &mut self.events {
                Some(events) => events.next().left_future(),
                None => futures::future::pending().right_future(),
            };
            tokio::select! {
                changed = self.watcher.changed() => return changed.map(drop),
                event = event => match event {
                    Some(event) if event.id == self.container.id => {
                        self.ended = self.container.has_ended().await;
                        if self.ended {
                            // What was written last is still to be read.
                            return Ok(());
                        }
                    }
                    Some(_) => {}
                    None => {
                        self.subscribe().await;
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl Container {
    async fn has_ended(&self) -> bool {
        match self.runtime.container_status(&self.id).await {
            Ok(status) => status.state == State::Exited,
            Err(cri::Error::NotFound(_)) => true,
            Err(_) => false,
        }
    }
}

/// The file that was begun after the one we read, if there is one with something in it: until then the runtime may write
/// to the old one.
async fn successor(path: &Path, file: &File) -> io::Result<Option<File>> {
    let newest = match File::open(path).await {
        Ok(newest) => newest,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let old = file.metadata().await?;
    let is_old = |other: &Metadata| (other.ino(), other.dev()) == (old.ino(), old.dev());
    let metadata = newest.metadata().await?;
    if is_old(&metadata) {
        return Ok(None);
    }
    // A slow reader is more than one file behind.
    let rotated = logs::rotated(path);
    let ours = rotated.iter().position(|path| std::fs::metadata(path).is_ok_and(|other| is_old(&other)));
    let between = ours.and_then(|at| rotated.get(at + 1));
    if let Some(file) = between.and_then(|path| std::fs::File::open(path).ok()) {
        return Ok(Some(File::from_std(file)));
    }
    Ok((metadata.len() > 0).then_some(newest))
}
