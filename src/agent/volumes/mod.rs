//! Effects: a pod's volumes on this node. One file per type; data is fetched first, then written in one go.

mod atomic;
pub mod attached;
mod block;
mod claim;
mod config_map;
mod downward;
mod empty_dir;
pub mod fields;
mod filled;
mod host_path;
pub mod image;
pub mod iscsi;
pub mod local;
pub mod memory;
pub mod mounts;
mod nfs;
pub(super) mod ownership;
mod patience;
mod projected;
pub(super) mod propagation;
mod secret;
pub mod steps;
pub mod subpath;
pub mod teardown;
mod tools;
pub(super) mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

use super::context::NodeContext;
use super::csi;
use super::pod::{pod_spec, uid};
use crate::clock;
use atomic::Payload;
pub use block::devices;
use claim::Of;
pub use filled::{AllMeasurable, By, Filled, Measurable};
use memory::InMemory;
pub use projected::{Tokens, account, account_token};
use tools::Host;

/// Where the pod's volumes are.
#[derive(Clone, Debug, Default)]
pub struct Mounted {
    pub volumes: BTreeMap<String, MountedVolume>,
    /// When a token in one of them must be replaced.
    pub refresh_at: Option<Timestamp>,
    /// Those of which it can be said how full they are.
    pub measurable: Arc<AllMeasurable>,
}

#[derive(Clone, Debug, Default)]
pub struct MountedVolume {
    pub path: PathBuf,
    /// Written by the agent only, or meant to be only read.
    pub read_only: bool,
    /// A device, not a folder.
    pub block: bool,
    /// What the runtime knows the image as that the volume is.
    pub image: Option<String>,
    /// How to find how full it is, where that is known.
    pub by: Option<By>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As the event words it.
    #[error("{step} failed for volume \"{volume}\" : {source}")]
    SetUp {
        step: &'static str,
        volume: String,
        #[source]
        source: Failure,
    },
    /// The volume is not even known.
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process volumes=[{volume}]: {source}"
    )]
    Unknown {
        volume: String,
        #[source]
        source: Failure,
    },
    #[error("volumes could not be written: the task was cancelled")]
    Cancelled,
}

impl Error {
    fn of(volume: &str, source: Failure) -> Error {
        match source {
            Failure::Claim { .. } => Error::Unknown { volume: volume.to_owned(), source },
            Failure::Step { ref volume, why: steps::Failure { step, .. } } => {
                Error::SetUp { step, volume: volume.clone(), source }
            }
            Failure::Named { volume, why } => Error::of(&volume, *why),
            source => Error::SetUp { step: "MountVolume.SetUp", volume: volume.to_owned(), source },
        }
    }

    /// Of the event.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Error::SetUp { step, .. } if step.starts_with("MapVolume") => "FailedMapVolume",
            _ => "FailedMount",
        }
    }
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
    /// As mount(8) says it.
    #[error("{0}")]
    Mount(String),
    #[error("{0}")]
    HugePages(String),
    #[error("{0}")]
    Image(String),
    /// A volume that events name otherwise than the pod does.
    #[error("{why}")]
    Named { volume: String, why: Box<Failure> },
    /// Of a volume that takes several steps.
    #[error("{why}")]
    Step { volume: String, why: steps::Failure },
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
        medium: empty_dir::Medium,
        in_memory: InMemory,
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
        in_memory: InMemory,
    },
    /// All is there.
    Mounted {
        directory: PathBuf,
        read_only: bool,
    },
    /// Pulled when the pod starts: see [`image::complete`].
    Image,
    /// A device of this node.
    Device {
        path: PathBuf,
    },
    /// Its driver has done all of it.
    Done(csi::Published),
}

struct Fetched {
    name: String,
    job: Job,
    read_only: bool,
    refresh_at: Option<Timestamp>,
}

/// Makes all volumes of the pod, or brings them up to date; what is right already is not touched.
pub async fn prepare(cx: &Arc<NodeContext>, pod: &Pod, allocatable: fields::Allocatable) -> Result<Mounted, Error> {
    let volumes = pod_spec(pod).volumes.as_deref().unwrap_or_default();
    let fetched = try_join_all(volumes.iter().map(|volume| async move {
        let result = fetch(cx, pod, volume, allocatable).await;
        result.map_err(|source| Error::of(&volume.name, source))
    }));
    let fetched = fetched.await?;
    let fs_group = pod_spec(pod).security_context.as_ref().and_then(|sc| sc.fs_group);
    let written = tokio::task::spawn_blocking(move || write_all(fetched, fs_group));
    let mut mounted = written.await.map_err(|_| Error::Cancelled)??;
    mounted.measurable = Arc::new(filled::measurable(pod, &mounted));
    Ok(mounted)
}

async fn fetch(
    cx: &Arc<NodeContext>,
    pod: &Pod,
    volume: &Volume,
    allocatable: fields::Allocatable,
) -> Result<Fetched, Failure> {
    let place = |plugin: &str| cx.paths.volume(uid(pod), plugin, &volume.name);
    let (mut refresh_at, mut read_only, in_memory) = (None, false, cx.in_memory);
    let job = if let Some(source) = &volume.empty_dir {
        let medium = empty_dir::medium(pod, source, &allocatable)?;
        Job::EmptyDir { directory: place("empty-dir"), medium, in_memory }
    } else if let Some(source) = &volume.host_path {
        Job::HostPath { path: PathBuf::from(&source.path), kind: source.type_.clone().unwrap_or_default() }
    } else if let Some(source) = &volume.config_map {
        // No secret: on the disk, as upstream has it.
        let in_memory = InMemory::No;
        Job::Files { directory: place("configmap"), payload: config_map::fetch(cx, pod, source).await?, in_memory }
    } else if let Some(source) = &volume.secret {
        Job::Files { directory: place("secret"), payload: secret::fetch(cx, pod, source).await?, in_memory }
    } else if let Some(source) = &volume.downward_api {
        let payload =
            downward::payload(pod, source.items.as_deref().unwrap_or_default(), source.default_mode, &allocatable)?;
        Job::Files { directory: place("downward-api"), payload, in_memory }
    } else if let Some(source) = &volume.projected {
        let (payload, refresh) = projected::fetch(cx, pod, &volume.name, source, &allocatable).await?;
        refresh_at = refresh;
        Job::Files { directory: place("projected"), payload, in_memory }
    } else if volume.image.is_some() {
        Job::Image
    } else if let Some(source) = &volume.nfs {
        let share = nfs::Share {
            server: source.server.clone(),
            path: source.path.clone(),
            read_only: source.read_only == Some(true),
            options: Vec::new(),
        };
        shared(cx, share, place("nfs")).await?
    } else if let Some(wanted) = iscsi::inline(pod, volume) {
        read_only = wanted.read_only;
        disk(cx, pod, wanted).await?
    } else if let Some(source) = csi::inline(pod, volume) {
        driven(cx, pod, &volume.name, source).await?
    } else {
        match claim::fetch(cx, pod, volume).await? {
            Some(Of::Node(job, of_claim)) => {
                read_only = of_claim;
                job
            }
            Some(Of::Share(name, share)) => {
                let result = shared(cx, share, cx.paths.volume(uid(pod), "nfs", &name)).await;
                result.map_err(|why| Failure::Named { volume: name, why: Box::new(why) })?
            }
            Some(Of::Disk(wanted)) => {
                read_only = wanted.read_only;
                disk(cx, pod, *wanted).await?
            }
            Some(Of::Driver(name, source)) => driven(cx, pod, &name, *source).await?,
            None => return Err(Failure::Unsupported(volume.name.clone())),
        }
    };
    if let Job::Done(csi::Published { again_after: Some(after), .. }) = job {
        refresh_at = clock::now().checked_add(after).ok();
    }
    Ok(Fetched { name: volume.name.clone(), job, read_only, refresh_at })
}

async fn shared(cx: &NodeContext, share: nfs::Share, directory: PathBuf) -> Result<Job, Failure> {
    nfs::mount(&share, &directory, &Host { search_path: cx.config.search_path.clone() }).await?;
    Ok(Job::Mounted { directory, read_only: share.read_only })
}

/// A disk of an iSCSI target: its folder, or the device itself.
async fn disk(cx: &NodeContext, pod: &Pod, wanted: iscsi::Wanted) -> Result<Job, Failure> {
    let (volume, block, read_only) = (wanted.volume().to_owned(), wanted.block(), wanted.read_only);
    let path = iscsi::publish(cx, pod, wanted).await.map_err(|why| Failure::Step { volume, why })?;
    Ok(if block { Job::Device { path } } else { Job::Mounted { directory: path, read_only } })
}

/// A volume of a CSI driver; `name` is how events name it.
async fn driven(cx: &Arc<NodeContext>, pod: &Pod, name: &str, source: csi::Source) -> Result<Job, Failure> {
    let published = csi::publish(cx, pod, source).await;
    published.map(Job::Done).map_err(|why| Failure::Step { volume: name.to_owned(), why })
}

fn write_all(fetched: Vec<Fetched>, fs_group: Option<i64>) -> Result<Mounted, Error> {
    let mut mounted = Mounted::default();
    for Fetched { name, job, read_only, refresh_at } in fetched {
        let mut volume = write(job, fs_group).map_err(|source| Error::of(&name, source))?;
        volume.read_only |= read_only;
        mounted.volumes.insert(name, volume);
        mounted.refresh_at = [mounted.refresh_at, refresh_at].into_iter().flatten().min();
    }
    Ok(mounted)
}

fn write(job: Job, fs_group: Option<i64>) -> Result<MountedVolume, Failure> {
    let folder = |path, read_only, by| MountedVolume { path, read_only, by, ..MountedVolume::default() };
    let (files, file_system) = (Some(By::Files), Some(By::FileSystem));
    match job {
        Job::EmptyDir { directory, medium, in_memory } => {
            empty_dir::make(&directory, &medium, fs_group, in_memory)?;
            Ok(folder(directory, false, files))
        }
        Job::HostPath { path, kind } => {
            host_path::check(&path, &kind)?;
            // It may be anything, as large as the machine.
            Ok(folder(path, false, None))
        }
        Job::Local { path, always } => {
            local::give(&path, fs_group, always)?;
            Ok(folder(path, false, file_system))
        }
        Job::LocalPath { path } => {
            local::make(&path)?;
            Ok(folder(path, false, file_system))
        }
        Job::Files { directory, payload, in_memory } => {
            in_memory.prepare(&directory)?;
            atomic::write(&directory, &payload, fs_group)?;
            Ok(folder(directory, true, files))
        }
        Job::Mounted { directory, read_only } => Ok(folder(directory, read_only, file_system)),
        Job::Device { path } => {
            host_path::check(&path, "BlockDevice")?;
            Ok(MountedVolume { path, block: true, by: Some(By::Device), ..MountedVolume::default() })
        }
        Job::Image => Ok(MountedVolume { read_only: true, ..MountedVolume::default() }),
        Job::Done(csi::Published { path, read_only, block, driver, handle, .. }) => {
            let by = Some(By::Driver { driver, handle });
            Ok(MountedVolume { path, read_only, block, by, image: None })
        }
    }
}

/// Whether files of the pod's volumes say what labels or annotations it has.
#[must_use]
pub fn follow_metadata(pod: &Pod) -> bool {
    let volumes = pod_spec(pod).volumes.iter().flatten();
    let sources = |volume: &Volume| {
        volume.projected.iter().flat_map(|p| p.sources.iter().flatten()).any(|s| s.downward_api.is_some())
    };
    volumes.into_iter().any(|volume| volume.downward_api.is_some() || sources(volume))
}

/// `0644` where nothing else is said.
const DEFAULT_MODE: i32 = 0o644;

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    u32::try_from(own.or(default).unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o777
}

#[cfg(test)]
mod tests;
