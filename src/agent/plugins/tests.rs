//! Tests: plugins that appear, vanish, are replaced, refuse and hang, against the registry.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::registry::{Handlers, Registry};
use super::v1::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use super::{Handler, Plugin, grpc};

/// What happened, in order, at all handlers and plugins of a test.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn add(&self, line: String) {
        self.0.lock().expect("no panic while held").push(line);
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic while held").clone()
    }

    pub async fn until(&self, line: &str, times: usize) {
        for _ in 0..2000 {
            if self.lines().iter().filter(|l| *l == line).count() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not seen {times} times: {line}\n{:#?}", self.lines());
    }
}

struct Driver(Log);

#[async_trait]
impl Handler for Driver {
    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        self.0.add(format!("register {} {}", plugin.name, plugin.versions.join(",")));
        if plugin.name == "bad" { Err("no such version".into()) } else { Ok(()) }
    }

    async fn deregister(&self, plugin: &Plugin) {
        self.0.add(format!("deregister {}", plugin.name));
    }
}

/// A plugin of any type. Dropped, it leaves its socket behind as one that crashed does.
pub struct FakePlugin {
    _tasks: JoinSet<()>,
}

impl FakePlugin {
    pub fn start(socket: &Path, kind: &str, name: &str, log: &Log) -> FakePlugin {
        let info = PluginInfo {
            r#type: kind.into(),
            name: name.into(),
            endpoint: String::new(),
            supported_versions: vec!["1.0".into()],
        };
        let log = log.clone();
        let service: grpc::Service = Arc::new(move |request| {
            let (info, log) = (info.clone(), log.clone());
            async move {
                match request.uri().path() {
                    "/pluginregistration.Registration/GetInfo" => {
                        grpc::unary(request, |_: InfoRequest| async { Ok(info) }).await
                    }
                    "/pluginregistration.Registration/NotifyRegistrationStatus" => {
                        let answer = |status: RegistrationStatus| async move {
                            log.add(format!("notified {} {}", status.plugin_registered, status.error).trim().into());
                            Ok(RegistrationStatusResponse {})
                        };
                        grpc::unary(request, answer).await
                    }
                    _ => grpc::unknown(),
                }
            }
            .boxed()
        });
        let listener = UnixListener::bind(socket).expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(grpc::serve(listener, service, CancellationToken::new()));
        FakePlugin { _tasks: tasks }
    }
}

struct Watched {
    directory: tempfile::TempDir,
    log: Log,
    _tasks: JoinSet<()>,
}

fn watched() -> Watched {
    let directory = tempfile::tempdir().expect("temporary directory");
    let log = Log::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(registry(directory.path(), &log).run(CancellationToken::new()));
    Watched { directory, log, _tasks: tasks }
}

fn registry(directory: &Path, log: &Log) -> Registry {
    let handlers = Handlers::from([("Driver", Arc::new(Driver(log.clone())) as Arc<dyn Handler>)]);
    Registry { directory: directory.join("registry"), handlers }
}

impl Watched {
    async fn socket(&self, name: &str) -> PathBuf {
        let registry = self.directory.path().join("registry");
        while !registry.is_dir() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        registry.join(name)
    }
}

#[tokio::test]
async fn a_socket_is_registered_while_it_is_there() {
    let watched = watched();
    let socket = watched.socket("one.sock").await;
    let plugin = FakePlugin::start(&socket, "Driver", "one", &watched.log);
    watched.log.until("notified true", 1).await;
    drop(plugin);
    std::fs::remove_file(&socket).unwrap();
    watched.log.until("deregister one", 1).await;
    assert_eq!(watched.log.lines(), ["register one 1.0", "notified true", "deregister one"]);
}

#[tokio::test]
async fn a_socket_that_is_replaced_is_registered_again() {
    let watched = watched();
    let socket = watched.socket("one.sock").await;
    let plugin = FakePlugin::start(&socket, "Driver", "one", &watched.log);
    watched.log.until("notified true", 1).await;
    drop(plugin);
    std::fs::remove_file(&socket).unwrap();
    let _plugin = FakePlugin::start(&socket, "Driver", "one", &watched.log);
    watched.log.until("notified true", 2).await;
    let expected = ["register one 1.0", "notified true", "deregister one", "register one 1.0", "notified true"];
    assert_eq!(watched.log.lines(), expected);
}

#[tokio::test]
async fn plugins_that_nobody_takes_are_told_why() {
    let watched = watched();
    let _bad = FakePlugin::start(&watched.socket("bad.sock").await, "Driver", "bad", &watched.log);
    let socket = watched.socket("other.sock").await;
    let _other = FakePlugin::start(&socket, "Toaster", "other", &watched.log);
    let told = |why: &str| format!("notified false RegisterPlugin error -- {why}");
    watched.log.until(&told("plugin registration failed with err: no such version"), 2).await;
    let nobody = format!("no handler registered for plugin type: Toaster at socket {}", socket.display());
    watched.log.until(&told(&nobody), 2).await;
}

#[tokio::test]
async fn one_that_hangs_keeps_nobody_waiting() {
    let watched = watched();
    let socket = watched.socket("hangs.sock").await;
    // Connections are made, and nobody answers.
    let _hangs = UnixListener::bind(&socket).expect("bound");
    let below = socket.with_file_name("below");
    std::fs::create_dir(&below).unwrap();
    let _plugin = FakePlugin::start(&below.join("one.sock"), "Driver", "one", &watched.log);
    watched.log.until("notified true", 1).await;
}

#[tokio::test]
async fn what_is_no_socket_is_passed_by() {
    let watched = watched();
    let socket = watched.socket(".hidden.sock").await;
    let _hidden = FakePlugin::start(&socket, "Driver", "hidden", &watched.log);
    std::fs::write(socket.with_file_name("file.sock"), "").unwrap();
    symlink("/nowhere", socket.with_file_name("link.sock")).unwrap();
    let _plugin = FakePlugin::start(&socket.with_file_name("one.sock"), "Driver", "one", &watched.log);
    watched.log.until("notified true", 1).await;
    assert_eq!(watched.log.lines(), ["register one 1.0", "notified true"]);
}

#[tokio::test]
async fn an_agent_that_starts_finds_who_is_there() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let log = Log::default();
    std::fs::create_dir(directory.path().join("registry")).unwrap();
    let _plugin = FakePlugin::start(&directory.path().join("registry/one.sock"), "Driver", "one", &log);
    for times in 1..=2 {
        let mut tasks = JoinSet::new();
        let stop = CancellationToken::new();
        tasks.spawn(registry(directory.path(), &log).run(stop.clone()));
        log.until("notified true", times).await;
        stop.cancel();
        tasks.join_all().await;
    }
    assert!(!log.lines().contains(&"deregister one".to_owned()), "it is still there: {:?}", log.lines());
}

#[tokio::test]
async fn the_directory_may_be_removed_and_made_again() {
    let watched = watched();
    let socket = watched.socket("one.sock").await;
    let plugin = FakePlugin::start(&socket, "Driver", "one", &watched.log);
    watched.log.until("notified true", 1).await;
    drop(plugin);
    std::fs::remove_dir_all(socket.parent().unwrap()).unwrap();
    watched.log.until("deregister one", 1).await;
    let _plugin = FakePlugin::start(&watched.socket("one.sock").await, "Driver", "one", &watched.log);
    watched.log.until("notified true", 2).await;
}
