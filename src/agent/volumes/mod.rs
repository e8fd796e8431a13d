//! Effects: a pod's volumes on this node. One file per type; data is fetched first, then written in one go.

mod atomic;
mod claim;
mod config_map;
mod downward;
mod empty_dir;
pub mod fields;
mod host_path;
pub mod local;
mod projected;
mod secret;
pub mod subpath;
pub mod teardown;

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

use super::context::NodeContext;
use super::pod::{pod_spec, uid};
use atomic::Payload;
pub use projected::Tokens;

/// Where the pod's volumes are.
#[derive(Clone, Debug, Default)]
pub struct Mounted {
    pub volumes: BTreeMap<String, MountedVolume>,
    /// When a token in one of them must be replaced.
    pub refresh_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub struct MountedVolume {
    pub path: PathBuf,
    /// Written by the agent only, or meant to be only read.
    pub read_only: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As the `FailedMount` event words it.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    SetUp {
        volume: String,
        #[source]
        source: Failure,
    },
    #[error("volumes could not be written: the task was cancelled")]
    Cancelled,
}

/// Why one volume could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Object(#[from] super::objects::Error),
    #[error("references non-existent {kind} key: {key}")]
    NoKey { kind: &'static str, key: String },
    #[error(transparent)]
    Field(#[from] fields::Error),
    #[error("failed to fetch token: {0}")]
    Token(String),
    #[error("hostPath type check failed: {0}")]
    HostPath(String),
    #[error("invalid path {0:?}")]
    Path(String),
    #[error("no volume plugin matched name: {0}")]
    Unsupported(String),
    #[error("error processing PVC {claim}: {why}")]
    Claim { claim: String, why: String },
    #[error("{path}: {source}", path = path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl Failure {
    fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Failure {
        let path = path.to_owned();
        move |source| Failure::Io { path, source }
    }
}

/// One volume with everything fetched, ready to be written without asking anybody.
enum Job {
    EmptyDir {
        directory: PathBuf,
        memory: bool,
        size_bytes: Option<i64>,
    },
    HostPath {
        path: PathBuf,
        kind: String,
    },
    /// `always`: the group is given everything although the folder itself is right.
    Local {
        path: PathBuf,
        always: bool,
    },
    LocalPath {
        path: PathBuf,
    },
    Files {
        directory: PathBuf,
        payload: Payload,
    },
}

struct Fetched {
    name: String,
    job: Job,
    read_only: bool,
    refresh_at: Option<Timestamp>,
}

/// Makes all volumes of the pod, or brings them up to date; what is right already is not touched.
pub async fn prepare(cx: &NodeContext, pod: &Pod, allocatable: fields::Allocatable) -> Result<Mounted, Error> {
    let volumes = pod_spec(pod).volumes.as_deref().unwrap_or_default();
    let fetched = try_join_all(volumes.iter().map(|volume| async move {
        let result = fetch(cx, pod, volume, allocatable).await;
        result.map_err(|source| Error::SetUp { volume: volume.name.clone(), source })
    }));
    let fetched = fetched.await?;
    let fs_group = pod_spec(pod).security_context.as_ref().and_then(|sc| sc.fs_group);
    let written = tokio::task::spawn_blocking(move || write_all(fetched, fs_group));
    written.await.map_err(|_| Error::Cancelled)?
}

async fn fetch(
    cx: &NodeContext,
    pod: &Pod,
    volume: &Volume,
    allocatable: fields::Allocatable,
) -> Result<Fetched, Failure> {
    let place = |plugin: &str| cx.paths.volume(uid(pod), plugin, &volume.name);
    let (mut refresh_at, mut read_only) = (None, false);
    let job = if let Some(source) = &volume.empty_dir {
        let limit = source.size_limit.as_ref().map(|limit| super::cgroups::bytes(&limit.0)).filter(|size| *size > 0);
        let memory = source.medium.as_deref() == Some("Memory");
        Job::EmptyDir { directory: place("empty-dir"), memory, size_bytes: limit }
    } else if let Some(source) = &volume.host_path {
        Job::HostPath { path: PathBuf::from(&source.path), kind: source.type_.clone().unwrap_or_default() }
    } else if let Some(source) = &volume.config_map {
        Job::Files { directory: place("configmap"), payload: config_map::fetch(cx, pod, source).await? }
    } else if let Some(source) = &volume.secret {
        Job::Files { directory: place("secret"), payload: secret::fetch(cx, pod, source).await? }
    } else if let Some(source) = &volume.downward_api {
        let payload =
            downward::payload(pod, source.items.as_deref().unwrap_or_default(), source.default_mode, &allocatable)?;
        Job::Files { directory: place("downward-api"), payload }
    } else if let Some(source) = &volume.projected {
        let (payload, refresh) = projected::fetch(cx, pod, &volume.name, source, &allocatable).await?;
        refresh_at = refresh;
        Job::Files { directory: place("projected"), payload }
    } else if let Some((job, of_claim)) = claim::fetch(cx, pod, volume).await? {
        read_only = of_claim;
        job
    } else {
        return Err(Failure::Unsupported(volume.name.clone()));
    };
    Ok(Fetched { name: volume.name.clone(), job, read_only, refresh_at })
}

fn write_all(fetched: Vec<Fetched>, fs_group: Option<i64>) -> Result<Mounted, Error> {
    let mut mounted = Mounted::default();
    for Fetched { name, job, read_only, refresh_at } in fetched {
        let mut volume = write(job, fs_group).map_err(|source| Error::SetUp { volume: name.clone(), source })?;
        volume.read_only |= read_only;
        mounted.volumes.insert(name, volume);
        mounted.refresh_at = [mounted.refresh_at, refresh_at].into_iter().flatten().min();
    }
    Ok(mounted)
}

fn write(job: Job, fs_group: Option<i64>) -> Result<MountedVolume, Failure> {
    match job {
        Job::EmptyDir { directory, memory, size_bytes } => {
            empty_dir::make(&directory, memory, size_bytes, fs_group)?;
            Ok(MountedVolume { path: directory, read_only: false })
        }
        Job::HostPath { path, kind } => {
            host_path::check(&path, &kind)?;
            Ok(MountedVolume { path, read_only: false })
        }
        Job::Local { path, always } => {
            local::give(&path, fs_group, always)?;
            Ok(MountedVolume { path, read_only: false })
        }
        Job::LocalPath { path } => {
            local::make(&path)?;
            Ok(MountedVolume { path, read_only: false })
        }
        Job::Files { directory, payload } => {
            atomic::write(&directory, &payload, fs_group)?;
            Ok(MountedVolume { path: directory, read_only: true })
        }
    }
}

/// `0644` where nothing else is said.
const DEFAULT_MODE: i32 = 0o644;

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    u32::try_from(own.or(default).unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o777
}
