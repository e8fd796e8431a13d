//! Loop: asks the extension servers that can be reached what they have. Without any, it waits for an `APIService`.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::resource::Resource;
use crate::api::resource::custom;
use crate::client::request::Request;
use crate::server::controllers::stores::{ApiService, Remote, Stores};

/// Nothing tells when an extension server has something new (upstream's garbage collector asks every 30 seconds).
const AGAIN: Duration = Duration::from_secs(60);
/// One that hangs keeps nobody from the others.
const PATIENCE: Duration = Duration::from_secs(10);
/// Resources of one group and version that are followed.
const MOST: usize = 256;

/// Until `stop`. Tells `changed` when there is something new.
pub async fn follow(client: kube::Client, stores: Arc<Stores>, changed: watch::Sender<()>, stop: CancellationToken) {
    let (woken, mut wake) = watch::channel(());
    stores.api_services.subscribe(move |_| woken.send_modify(|()| {}));
    let ask = async {
        loop {
            wake.mark_unchanged();
            let services = stores.api_services.all();
            let reachable = services.iter().filter(|s| s.is_reachable());
            let known: Remote =
                join_all(reachable.map(|s| resources(&client, s))).await.into_iter().flatten().collect();
            if stores.set_remote(known) {
                changed.send_modify(|()| {});
            }
            let any = services.iter().any(|s| s.spec.service.is_some());
            let again = async { if any { tokio::time::sleep(AGAIN).await } else { std::future::pending().await } };
            tokio::select! {
                () = again => {}
                woken = wake.changed() => if woken.is_err() { return },
            }
        }
    };
    stop.run_until_cancelled(ask).await;
}

async fn resources(client: &kube::Client, service: &ApiService) -> Option<(String, Vec<&'static Resource>)> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let (group, version) = (&*service.spec.group, &*service.spec.version);
    let request = Request::at(format!("/apis/{group}/{version}"));
    match tokio::time::timeout(PATIENCE, request.read(client)).await {
        Ok(Ok(list)) => {
            let entries = list["resources"].as_array().into_iter().flatten();
            Some((name, entries.filter_map(|e| custom::remote(group, version, e)).take(MOST).collect()))
        }
        Ok(Err(error)) => {
            tracing::debug!(apiservice = name, %error, "an extension server does not say what it has");
            None
        }
        Err(_) => {
            tracing::debug!(apiservice = name, after = ?PATIENCE, "an extension server does not say what it has");
            None
        }
    }
}
