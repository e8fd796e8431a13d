//! A CSI driver of folders on this machine, as small as the protocol allows: what the tests need of a real one, with the
//! same messages on the same sockets. Volumes are folders of `root`, devices are files with a loop device.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use http::{Request as HttpRequest, Response as HttpResponse};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tonic::{Request, Response, Status};
use tower::ServiceExt as _;

use super::protocol::csi::node_server::{Node, NodeServer};
use super::protocol::csi::node_service_capability::{Rpc, Type, rpc};
use super::protocol::csi::volume_capability::AccessType;
use super::protocol::csi::*;
use super::protocol::registration::registration_server::{Registration, RegistrationServer};
use super::protocol::registration::*;

pub const NAME: &str = "hostpath.csi.test";
pub const TOPOLOGY: &str = "topology.hostpath.csi.test/node";

#[derive(Clone)]
pub struct Driver {
    root: PathBuf,
    socket: PathBuf,
    node: String,
    /// Otherwise folders stand for what would be mounted.
    mounts: bool,
    faults: Arc<Mutex<VecDeque<(&'static str, Status)>>>,
}

impl Driver {
    pub fn new(root: &Path, socket: &Path, node: &str, mounts: bool) -> Driver {
        fs::create_dir_all(root).unwrap();
        Driver {
            root: root.to_owned(),
            socket: socket.to_owned(),
            node: node.to_owned(),
            mounts,
            faults: Arc::default(),
        }
    }

    /// The next call of that name is answered so.
    #[allow(dead_code, reason = "not every test has faults")]
    pub fn fail(&self, call: &'static str, status: Status) {
        self.faults.lock().unwrap().push_back((call, status));
    }

    /// Serves until it is dropped. The socket is removed then.
    pub async fn serve(self) {
        struct Gone(PathBuf);
        impl Drop for Gone {
            fn drop(&mut self) {
                let _ = fs::remove_file(&self.0);
            }
        }
        let _ = fs::remove_file(&self.socket);
        fs::create_dir_all(self.socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&self.socket).unwrap();
        let _gone = Gone(self.socket.clone());
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let driver = self.clone();
            let service = hyper::service::service_fn(move |request| driver.clone().answer(request));
            connections.spawn(async move {
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = http2.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(self, request: HttpRequest<Incoming>) -> Result<HttpResponse<tonic::body::Body>, Infallible> {
        match request.uri().path().starts_with("/csi.v1.Node/") {
            true => NodeServer::new(self).oneshot(request).await,
            false => RegistrationServer::new(self).oneshot(request).await,
        }
    }

    fn called(&self, call: &'static str, what: String) -> Result<(), Status> {
        let mut log = fs::OpenOptions::new().create(true).append(true).open(calls_of(&self.root)).unwrap();
        writeln!(log, "{call} {what}").unwrap();
        let mut faults = self.faults.lock().unwrap();
        match faults.iter().position(|(name, _)| *name == call) {
            Some(at) => Err(faults.remove(at).unwrap().1),
            None => Ok(()),
        }
    }

    /// Makes `target` show what is in `from`; fine when it does.
    fn show(&self, from: &Path, target: &Path) -> Result<(), Status> {
        if from.is_dir() {
            fs::create_dir_all(target)?;
        } else if !target.exists() {
            fs::File::create(target)?;
        }
        if self.mounts && !run("mountpoint", &["-q", &text(target)]) && !is_device(target) {
            check("mount", &["--bind", &text(from), &text(target)])?;
        }
        Ok(())
    }

    fn hide(&self, target: &Path) -> Result<(), Status> {
        if self.mounts {
            while run("mountpoint", &["-q", &text(target)]) || is_device(target) {
                check("umount", &[&text(target)])?;
            }
        }
        match fs::symlink_metadata(target) {
            Ok(found) if found.is_dir() => fs::remove_dir(target)?,
            Ok(_) => fs::remove_file(target)?,
            Err(_) => {}
        }
        Ok(())
    }

    /// The loop device of a volume's file.
    fn device(&self, volume: &str) -> Result<PathBuf, Status> {
        let file = self.root.join(format!("{volume}.img"));
        if !file.exists() {
            fs::File::create(&file)?.set_len(8 << 20)?;
        }
        let loops = |arguments: &[&str]| {
            let output = Command::new("losetup").args(arguments).arg(&file).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok::<_, std::io::Error>(text.split([':', '\n']).next().unwrap_or_default().to_owned())
        };
        let known = loops(&["-j"])?;
        let device = if known.is_empty() { loops(&["--show", "-f"])? } else { known };
        Ok(device.into())
    }
}

/// The file with one line for each call.
pub fn calls_of(root: &Path) -> PathBuf {
    root.join("calls")
}

/// The calls so far, oldest first.
pub fn calls(root: &Path) -> Vec<String> {
    fs::read_to_string(calls_of(root)).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

fn check(program: &str, arguments: &[&str]) -> Result<(), Status> {
    match run(program, arguments) {
        true => Ok(()),
        false => Err(Status::internal(format!("{program} {}", arguments.join(" ")))),
    }
}

fn is_block(capability: Option<&VolumeCapability>) -> bool {
    matches!(capability.and_then(|c| c.access_type.as_ref()), Some(AccessType::Block(_)))
}

fn sorted(map: &std::collections::HashMap<String, String>) -> String {
    let sorted: std::collections::BTreeMap<_, _> = map.iter().collect();
    sorted.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[tonic::async_trait]
impl Registration for Driver {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        let endpoint = text(&self.socket);
        let supported_versions = vec!["1.0.0".into()];
        Ok(Response::new(PluginInfo { r#type: "CSIPlugin".into(), name: NAME.into(), endpoint, supported_versions }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let told = request.into_inner();
        self.called("NotifyRegistrationStatus", format!("{} {}", told.plugin_registered, told.error))?;
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[tonic::async_trait]
impl Node for Driver {
    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        self.called("NodeGetInfo", String::new())?;
        let segments = [(TOPOLOGY.to_owned(), self.node.clone())].into();
        let accessible_topology = Some(Topology { segments });
        let node_id = self.node.clone();
        Ok(Response::new(NodeGetInfoResponse { node_id, max_volumes_per_node: 7, accessible_topology }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let one = |kind: rpc::Type| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })) };
        let capabilities = [rpc::Type::StageUnstageVolume, rpc::Type::ExpandVolume, rpc::Type::GetVolumeStats];
        let capabilities = capabilities.map(one).to_vec();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let asked = request.into_inner();
        let known = (sorted(&asked.publish_context), sorted(&asked.secrets));
        self.called("NodeStageVolume", format!("{} context:{} secrets:{}", asked.volume_id, known.0, known.1))?;
        if is_block(asked.volume_capability.as_ref()) {
            if self.mounts {
                self.device(&asked.volume_id)?;
            }
        } else {
            let folder = self.root.join(&asked.volume_id);
            fs::create_dir_all(&folder)?;
            self.show(&folder, asked.staging_target_path.as_ref())?;
        }
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let asked = request.into_inner();
        self.called("NodeUnstageVolume", asked.volume_id.clone())?;
        let file = self.root.join(format!("{}.img", asked.volume_id));
        if self.mounts && file.exists() {
            let device = self.device(&asked.volume_id)?;
            check("losetup", &["-d", &text(&device)])?;
        }
        self.hide(asked.staging_target_path.as_ref())?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let asked = request.into_inner();
        let (context, secrets) = (sorted(&asked.volume_context), sorted(&asked.secrets));
        let line = format!("{} readonly:{} context:{context} secrets:{secrets}", asked.volume_id, asked.readonly);
        self.called("NodePublishVolume", line)?;
        let target = Path::new(&asked.target_path);
        if is_block(asked.volume_capability.as_ref()) {
            let from = if self.mounts { self.device(&asked.volume_id)? } else { calls_of(&self.root) };
            self.show(&from, target)?;
        } else {
            let from = match asked.staging_target_path.as_str() {
                "" => self.root.join(&asked.volume_id),
                staging => staging.into(),
            };
            fs::create_dir_all(&from)?;
            self.show(&from, target)?;
        }
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let asked = request.into_inner();
        self.called("NodeUnpublishVolume", asked.volume_id.clone())?;
        self.hide(asked.target_path.as_ref())?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let asked = request.into_inner();
        self.called("NodeGetVolumeStats", format!("{} {}", asked.volume_id, asked.volume_path))?;
        if !Path::new(&asked.volume_path).exists() {
            return Err(Status::not_found(asked.volume_path));
        }
        let usage = |unit: volume_usage::Unit, total, used| VolumeUsage {
            available: total - used,
            total,
            used,
            unit: unit.into(),
        };
        let usage = vec![usage(volume_usage::Unit::Bytes, 1 << 30, 4096), usage(volume_usage::Unit::Inodes, 100, 3)];
        Ok(Response::new(NodeGetVolumeStatsResponse { usage }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let asked = request.into_inner();
        let capacity_bytes = asked.capacity_range.map_or(0, |range| range.required_bytes);
        self.called("NodeExpandVolume", format!("{} {capacity_bytes}", asked.volume_id))?;
        if !Path::new(&asked.volume_path).exists() {
            return Err(Status::not_found(asked.volume_path));
        }
        Ok(Response::new(NodeExpandVolumeResponse { capacity_bytes }))
    }
}
