//! Loop: starts containerd, watches it, starts it again. Containers outlive it (each has its own shim), so killing a
//! containerd that hangs is safe.
//!
//! ```text
//! write config ▶ end a left-over ▶ spawn ▶ wait for the socket ▶ import pause ▶ ready ─┐
//!      ▲                                                                              │
//!      └──────────── back-off ◀── exited, or did not answer in time ◀─────────────────┘
//! ```
//!
//! While it is not ready, [`Supervised::problem`] says why: that is what the Node's Ready condition shows.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Runtime as _;
use super::client::Client;
pub use super::containerd_config::Layout;
use super::containerd_config::{Machine, render};
use super::image_import::Importer;
use super::pause;
use super::registries::{self, Registries};
use crate::supervisor::chain;

/// From spawn to an answer of the CRI plug-in; a slow card with many images needs a while.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at the socket while it starts.
const START_STEP: Duration = Duration::from_millis(10);
/// How often a running containerd is asked whether it is alive.
const ALIVE_PERIOD: Duration = Duration::from_secs(20);
/// So many unanswered questions in a row are a hang.
const ALIVE_MISSES: u32 = 3;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// A run of this length resets the back-off.
const STABLE: Duration = Duration::from_secs(60);
/// From SIGTERM to SIGKILL at a stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// The log starts anew when it is larger than this (bytes).
const LOG_LIMIT: u64 = 4 * 1024 * 1024;
/// `CAP_SYS_RESOURCE` (capabilities(7)).
const CAP_SYS_RESOURCE: u64 = 1 << 24;

#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    #[error(
        "containerd not found in {path}: install it (apt-get install containerd runc) or set --container-runtime-endpoint"
    )]
    Missing { path: String },
    #[error("cannot prepare {path} for containerd")]
    Prepare {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start {binary}")]
    Spawn {
        binary: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("containerd ended ({status}); its last words: {log}")]
    Exited { status: String, log: String },
    #[error("containerd did not answer within {}s of its start; see {log}", START_DEADLINE.as_secs())]
    NeverReady { log: PathBuf },
    #[error("containerd did not answer {ALIVE_MISSES} times in a row and was killed")]
    Hung,
    #[error(transparent)]
    Registries(#[from] registries::Error),
    #[error("cannot import the pause image: {0}")]
    Pause(#[from] super::image_import::ImportError),
}

/// A containerd of our own.
pub struct Containerd {
    layout: Layout,
    /// `registries.yaml`, where there is one.
    registries: Option<PathBuf>,
    /// Directories to find containerd, its shim and runc in, as `PATH` writes them.
    search_path: String,
    problem: watch::Sender<Option<String>>,
}

/// What others see of it.
#[derive(Clone)]
pub struct Supervised {
    pub socket: PathBuf,
    /// `None` while it works, else why it does not.
    pub problem: watch::Receiver<Option<String>>,
}

impl Containerd {
    #[must_use]
    pub fn new(layout: Layout, search_path: String) -> (Self, Supervised) {
        let (sender, receiver) = watch::channel(Some("containerd is starting".to_owned()));
        let supervised = Supervised { socket: layout.socket(), problem: receiver };
        (Self { layout, registries: None, search_path, problem: sender }, supervised)
    }

    /// With mirrors and logins of registries, read anew whenever containerd starts.
    #[must_use]
    pub fn with_registries(self, path: &Path) -> Self {
        Self { registries: Some(path.to_owned()), ..self }
    }

    /// Runs until `stop`; never gives up. containerd ends with us, the containers go on.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = BACKOFF_FIRST;
        while !stop.is_cancelled() {
            let started = crate::clock::instant();
            let Err(error) = self.once(&stop).await else { break };
            let text = chain(&error);
            tracing::error!(error = text, retry_in = ?backoff, "containerd is down");
            self.problem.send_replace(Some(text));
            if started.elapsed() > STABLE {
                backoff = BACKOFF_FIRST;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = stop.cancelled() => break,
            }
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }

    /// One life of the daemon. `Ok` only when stopped.
    async fn once(&self, stop: &CancellationToken) -> Result<(), ContainerdError> {
        let binary = find("containerd", &self.search_path)
            .ok_or_else(|| ContainerdError::Missing { path: self.search_path.clone() })?;
        self.prepare()?;
        self.end_left_over();
        let mut child = self.spawn(&binary)?;
        let ended = tokio::select! {
            result = self.serve() => result,
            status = child.wait() => Err(self.exited(status)),
            () = stop.cancelled() => Ok(()),
        };
        terminate(&mut child).await;
        let _ = fs::remove_file(self.layout.pid());
        ended
    }

    fn prepare(&self) -> Result<(), ContainerdError> {
        let fail = |path: PathBuf| move |source| ContainerdError::Prepare { path, source };
        let l = &self.layout;
        for dir in [l.root(), l.state(), l.registries(), l.cni_conf(), l.cni_bin(), l.images()] {
            fs::create_dir_all(&dir).map_err(fail(dir))?;
        }
        let config = l.config();
        let machine = Machine { may_lower_oom_score: may_lower_oom_score(), overlayfs: overlay_works(&l.root()) };
        let registries = self.registries.as_deref().map(Registries::load).transpose()?.unwrap_or_default();
        write_hosts(&l.registries(), &registries.hosts()).map_err(fail(l.registries()))?;
        let text = render(l, machine, pause::NAME) + &registries.logins();
        write_private(&config, &text).map_err(fail(config))
    }

    /// A killed agent leaves its containerd behind: two of them would fight over one root.
    fn end_left_over(&self) {
        let Some(pid) = fs::read_to_string(self.layout.pid()).ok().and_then(|t| t.trim().parse::<i32>().ok()) else {
            return;
        };
        // The number may have been given to another process since.
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let config = self.layout.config();
        if !command.split(|b| *b == 0).any(|argument| argument == config.as_os_str().as_encoded_bytes()) {
            return;
        }
        tracing::info!(pid, "ending the containerd of an earlier run; containers go on");
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        for _ in 0..200 {
            if !Path::new(&format!("/proc/{pid}")).exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn spawn(&self, binary: &Path) -> Result<Child, ContainerdError> {
        let fail = |path: PathBuf| move |source| ContainerdError::Prepare { path, source };
        let log = self.layout.log();
        let truncate = fs::metadata(&log).is_ok_and(|m| m.len() > LOG_LIMIT);
        let mut options = fs::OpenOptions::new();
        options.create(true).write(true).append(!truncate).truncate(truncate);
        let output = options.open(&log).map_err(fail(log.clone()))?;
        let errors = output.try_clone().map_err(fail(log))?;
        let child = Command::new(binary)
            .arg("--config")
            .arg(self.layout.config())
            .env("PATH", &self.search_path)
            // What systemd is told is ours to tell.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // A signal to our process group (Ctrl-C) is for us: containerd is stopped last, in order.
            .process_group(0)
            .spawn()
            .map_err(|source| ContainerdError::Spawn { binary: binary.to_owned(), source })?;
        if let Some(pid) = child.id() {
            let path = self.layout.pid();
            fs::File::create(&path).and_then(|mut f| writeln!(f, "{pid}")).map_err(fail(path))?;
        }
        Ok(child)
    }

    /// Waits until it answers, then asks now and then whether it still does.
    async fn serve(&self) -> Result<(), ContainerdError> {
        let socket = self.layout.socket();
        let client = Client::new(&socket);
        let ready = async {
            while !socket.exists() || client.version().await.is_err() {
                tokio::time::sleep(START_STEP).await;
            }
        };
        tokio::time::timeout(START_DEADLINE, ready)
            .await
            .map_err(|_| ContainerdError::NeverReady { log: self.layout.log() })?;
        Importer::new(&socket).pause().await?;
        self.problem.send_replace(None);
        tracing::info!(socket = %socket.display(), "containerd is ready");
        let mut misses = 0;
        while misses < ALIVE_MISSES {
            tokio::time::sleep(ALIVE_PERIOD).await;
            misses = if client.version().await.is_ok() { 0 } else { misses + 1 };
        }
        Err(ContainerdError::Hung)
    }

    fn exited(&self, status: std::io::Result<std::process::ExitStatus>) -> ContainerdError {
        let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
        let log = fs::read_to_string(self.layout.log()).unwrap_or_default();
        let last = log.lines().rev().find(|l| !l.is_empty()).unwrap_or("none").to_owned();
        ContainerdError::Exited { status, log: last }
    }
}

/// Nothing is written when nothing changed. There may be logins in it.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    if fs::read_to_string(path).ok().as_deref() == Some(text) {
        return fs::set_permissions(path, fs::Permissions::from_mode(0o600));
    }
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

/// Makes our files in `certs.d` these. What a user put there stays.
fn write_hosts(directory: &Path, files: &BTreeMap<String, String>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)?.filter_map(Result::ok) {
        let wanted = entry.file_name().to_str().is_some_and(|name| files.contains_key(name));
        let text = fs::read_to_string(entry.path().join("hosts.toml")).unwrap_or_default();
        if !wanted && text.lines().next() == Some(registries::HEADER) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    for (name, text) in files {
        fs::create_dir_all(directory.join(name))?;
        write_private(&directory.join(name).join("hosts.toml"), text)?;
    }
    Ok(())
}

/// SIGTERM, then SIGKILL.
async fn terminate(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|p| i32::try_from(p).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(STOP_DEADLINE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Finds a program as a shell would.
#[must_use]
pub fn find(program: &str, search_path: &str) -> Option<PathBuf> {
    search_path.split(':').filter(|d| !d.is_empty()).map(|d| Path::new(d).join(program)).find(|p| p.is_file())
}

/// Containers in a container, and some systemd units, lack the capability; runc then fails to start any pod unless
/// containerd is told.
fn may_lower_oom_score() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|caps| caps & CAP_SYS_RESOURCE != 0)
}

/// Tries it: an overlay on an overlay, or on a file system without `d_type`, is refused by the kernel.
fn overlay_works(root: &Path) -> bool {
    let base = root.join(".overlay-check");
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|d| base.join(d));
    if [&lower, &upper, &work, &merged].into_iter().any(|d| fs::create_dir_all(d).is_err()) {
        return false;
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let mounted = mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str())).is_ok();
    if mounted {
        let _ = umount2(&merged, MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_dir_all(&base);
    mounted
}
