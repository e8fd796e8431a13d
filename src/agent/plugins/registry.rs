//! Loop: the directory that plugins put their sockets in (`plugins_registry`). A socket that appears is asked what it is
//! and handed to the handler of its type; one that vanishes is taken back; one that was replaced is both.
//!
//! ```text
//! appears ─▶ GetInfo ─▶ handler ─▶ NotifyRegistrationStatus ─▶ registered ─▶ vanishes ─▶ deregistered
//!               └────────┴── fails: again, 0.5 s at first, doubling up to two minutes
//! ```
//! Each socket has a task of its own: a plugin that hangs keeps nobody else waiting.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::v1::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use super::{Handler, Plugin, grpc};
use crate::inotify::{Flags, Watcher};

/// Directories below the one that is watched.
pub const DEPTH: u32 = 3;
/// Sockets looked at; more are somebody's mistake.
const SOCKETS: usize = 256;
/// The kubelet's own limits.
const INFO_DEADLINE: Duration = Duration::from_secs(1);
const NOTIFY_DEADLINE: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(122);
/// When the kernel gives no watch.
const WATCH_RETRY: Duration = Duration::from_secs(30);

const GET_INFO: &str = "/pluginregistration.Registration/GetInfo";
const NOTIFY: &str = "/pluginregistration.Registration/NotifyRegistrationStatus";

/// Which file a socket is: a plugin that starts anew makes another one of the same name.
type Identity = (u64, u64, i64, i64);
/// By the type of plugins.
pub type Handlers = BTreeMap<&'static str, Arc<dyn Handler>>;

/// Watches one directory; see [`Registry::run`].
pub struct Registry {
    pub directory: PathBuf,
    pub handlers: Handlers,
}

/// A socket that is being looked after.
struct Known {
    identity: Identity,
    gone: CancellationToken,
    /// Ends once the plugin is deregistered.
    done: CancellationToken,
}

impl Registry {
    /// Runs until `stop`. What is registered stays so: the plugins and what they prepared outlive the agent.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut known = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            if let Err(error) = self.watch(&mut known, &mut tasks).await {
                tracing::warn!(%error, directory = %self.directory.display(), "plugins cannot be watched for");
                tokio::time::sleep(WATCH_RETRY).await;
            }
        }
    }

    /// Ends when the directory itself was removed.
    async fn watch(&self, known: &mut HashMap<PathBuf, Known>, tasks: &mut JoinSet<()>) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        let watcher = Watcher::new()?;
        let flags =
            Flags::IN_CREATE | Flags::IN_MOVED_TO | Flags::IN_DELETE | Flags::IN_MOVED_FROM | Flags::IN_DELETE_SELF;
        loop {
            // Watched before it is read, so that nothing falls between.
            watcher.add(&self.directory, flags)?;
            let mut found = BTreeMap::new();
            sockets(&self.directory, DEPTH, &mut found, &|below| {
                // One that vanished meanwhile has nothing to tell.
                let _ = watcher.add(below, flags);
            });
            self.settle(found, known, tasks);
            while tasks.try_join_next().is_some() {}
            watcher.changed().await?;
            if !self.directory.is_dir() {
                self.settle(BTreeMap::new(), known, tasks);
                return Ok(());
            }
        }
    }

    fn settle(&self, found: BTreeMap<PathBuf, Identity>, known: &mut HashMap<PathBuf, Known>, tasks: &mut JoinSet<()>) {
        let mut before = HashMap::new();
        known.retain(|path, entry| {
            let same = found.get(path) == Some(&entry.identity);
            if !same {
                entry.gone.cancel();
                before.insert(path.clone(), entry.done.clone());
            }
            same
        });
        for (socket, identity) in found {
            if known.contains_key(&socket) {
                continue;
            }
            let (gone, done) = (CancellationToken::new(), CancellationToken::new());
            let visit = Visit { socket: socket.clone(), handlers: self.handlers.clone() };
            tasks.spawn(visit.run(before.remove(&socket), gone.clone(), done.clone()));
            known.insert(socket, Known { identity, gone, done });
        }
    }
}

/// The sockets below a directory; names that begin with a dot are none.
fn sockets(directory: &Path, depth: u32, found: &mut BTreeMap<PathBuf, Identity>, entered: &dyn Fn(&Path)) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if hidden || found.len() >= SOCKETS {
            continue;
        }
        if metadata.is_dir() && depth > 0 {
            entered(&path);
            sockets(&path, depth - 1, found, entered);
        } else if metadata.file_type().is_socket() {
            // Inodes are used again; the time is that of its making, as nobody writes to a socket's file.
            let identity = (metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
            found.insert(path, identity);
        }
    }
}

/// One socket, from when it appears until it is gone.
struct Visit {
    socket: PathBuf,
    handlers: Handlers,
}

impl Visit {
    async fn run(self, before: Option<CancellationToken>, gone: CancellationToken, done: CancellationToken) {
        let _done = done.drop_guard();
        if let Some(before) = before {
            before.cancelled().await;
        }
        let mut begun = None;
        tokio::select! {
            () = gone.cancelled() => {}
            () = self.attempts(&mut begun) => gone.cancelled().await,
        }
        if let Some((plugin, handler)) = begun {
            tracing::info!(plugin = plugin.name, kind = plugin.kind, "plugin is gone");
            handler.deregister(&plugin).await;
        }
    }

    async fn attempts(&self, begun: &mut Option<(Plugin, Arc<dyn Handler>)>) {
        let mut delay = FIRST_RETRY;
        while let Err(error) = self.register(begun).await {
            tracing::warn!(error, socket = %self.socket.display(), "plugin not registered, trying again");
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_RETRY);
        }
    }

    async fn register(&self, begun: &mut Option<(Plugin, Arc<dyn Handler>)>) -> Result<(), String> {
        let channel = grpc::channel(&self.socket);
        let info: PluginInfo = grpc::call(&channel, GET_INFO, InfoRequest {}, INFO_DEADLINE)
            .await
            .map_err(|error| format!("failed to get plugin info using RPC GetInfo: {error}"))?;
        let endpoint = match info.endpoint.as_str() {
            "" => self.socket.clone(),
            path => PathBuf::from(path),
        };
        let plugin = Plugin { kind: info.r#type, name: info.name, endpoint, versions: info.supported_versions };
        let result = match self.handlers.get(plugin.kind.as_str()) {
            None => {
                let socket = self.socket.display();
                Err(format!("no handler registered for plugin type: {} at socket {socket}", plugin.kind))
            }
            Some(handler) => {
                // Before it is called: it may have got half way when it is dropped.
                *begun = Some((plugin.clone(), handler.clone()));
                let registered = handler.register(&plugin).await;
                registered.map_err(|error| format!("plugin registration failed with err: {error}"))
            }
        };
        // In the kubelet's words, which plugins log.
        let error = result.as_ref().err().map(|error| format!("RegisterPlugin error -- {error}")).unwrap_or_default();
        let status = RegistrationStatus { plugin_registered: result.is_ok(), error };
        let told: Result<RegistrationStatusResponse, _> = grpc::call(&channel, NOTIFY, status, NOTIFY_DEADLINE).await;
        result?;
        told.map_err(|error| format!("failed to send registration status: {error}"))?;
        tracing::info!(plugin = plugin.name, kind = plugin.kind, versions = ?plugin.versions, "plugin is registered");
        Ok(())
    }
}
