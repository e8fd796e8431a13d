//! Fake: a DRA driver, for tests: it prepares every claim with one device.

use std::path::Path;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::protocol::{
    Device, NodePrepareResourceResponse, NodePrepareResourcesResponse, NodeUnprepareResourceResponse,
    NodeUnprepareResourcesResponse, Request, VERSIONS,
};
use crate::agent::plugins::v1::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::agent::plugins::{DRA, grpc};

/// Calls that a test has not looked at yet.
const CALLS: usize = 64;

/// Runs while it is kept; its socket stays, as that of one which was killed.
pub struct FakeDriver {
    /// What it was asked: `prepare ns/claim`.
    pub calls: mpsc::Receiver<String>,
    _tasks: JoinSet<()>,
}

impl FakeDriver {
    /// Serves at a socket in the registry. Every device is `cdi`. Within a runtime.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(registry: &Path, driver: &str, cdi: &str) -> std::io::Result<FakeDriver> {
        let socket = registry.join(format!("{driver}-reg.sock"));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        let (log, calls) = mpsc::channel(CALLS);
        let info = PluginInfo {
            r#type: DRA.into(),
            name: driver.into(),
            endpoint: String::new(),
            supported_versions: vec![VERSIONS[0].name.into()],
        };
        let cdi = cdi.to_owned();
        let service: grpc::Service =
            Arc::new(move |request| answer(request, info.clone(), cdi.clone(), log.clone()).boxed());
        let mut tasks = JoinSet::new();
        tasks.spawn(grpc::serve(listener, service, CancellationToken::new()));
        Ok(FakeDriver { calls, _tasks: tasks })
    }
}

async fn answer(
    request: grpc::HttpRequest,
    info: PluginInfo,
    cdi: String,
    log: mpsc::Sender<String>,
) -> grpc::HttpResponse {
    let note = move |verb: &str, asked: &Request| {
        for claim in &asked.claims {
            let _ = log.try_send(format!("{verb} {}/{}", claim.namespace, claim.name));
        }
    };
    match request.uri().path() {
        "/pluginregistration.Registration/GetInfo" => {
            grpc::unary(request, |_: InfoRequest| async move { Ok(info) }).await
        }
        "/pluginregistration.Registration/NotifyRegistrationStatus" => {
            grpc::unary(request, |_: RegistrationStatus| async { Ok(RegistrationStatusResponse {}) }).await
        }
        path if path == VERSIONS[0].prepare => {
            let prepare = |asked: Request| async move {
                note("prepare", &asked);
                let claims = asked.claims.into_iter().map(|claim| {
                    let device = Device { cdi_device_ids: vec![cdi.clone()], ..Device::default() };
                    let broken = claim.name.contains("broken");
                    let error = if broken { "the device does not answer" } else { "" }.to_owned();
                    (claim.uid, NodePrepareResourceResponse { devices: vec![device], error })
                });
                Ok(NodePrepareResourcesResponse { claims: claims.collect() })
            };
            grpc::unary(request, prepare).await
        }
        path if path == VERSIONS[0].unprepare => {
            let unprepare = |asked: Request| async move {
                note("unprepare", &asked);
                let done = |claim: super::protocol::Claim| (claim.uid, NodeUnprepareResourceResponse::default());
                Ok(NodeUnprepareResourcesResponse { claims: asked.claims.into_iter().map(done).collect() })
            };
            grpc::unary(request, unprepare).await
        }
        _ => grpc::unknown(),
    }
}
