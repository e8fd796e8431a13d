//! Loop: whether a driver can be reached: a connection that is kept to each of its plugins says so. One that cannot for
//! [`WIPE_AFTER`] has nothing here that pods could be scheduled to: its ResourceSlices go.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::api::{Api, DeleteParams, ListParams};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::protocol::Version;
use super::{Drivers, Inner, Registered};
use crate::agent::plugins::grpc;

/// Upstream's: long enough for a container to restart.
const WIPE_AFTER: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
const LONGEST_WIPE_RETRY: Duration = Duration::from_secs(300);

impl Drivers {
    /// What drivers offered through an earlier agent may not be there any more: they publish it again.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.clone().wipe(None) => {}
        }
    }

    pub(super) fn add(&self, driver: &str, endpoint: &Path, version: Version) {
        self.remove(driver, endpoint);
        let mut inner = self.lock();
        while inner.tasks.try_join_next().is_some() {}
        let task = inner.tasks.spawn(self.clone().follow(driver.to_owned(), endpoint.to_owned()));
        let (endpoint, channel) = (endpoint.to_owned(), grpc::channel(endpoint));
        let plugin = Registered { endpoint, version, channel, connected: false, task };
        inner.plugins.entry(driver.to_owned()).or_default().push(plugin);
        self.sync(&mut inner, driver);
    }

    pub(super) fn remove(&self, driver: &str, endpoint: &Path) {
        let mut inner = self.lock();
        let Some(plugins) = inner.plugins.get_mut(driver) else { return };
        plugins.retain(|plugin| {
            let stays = plugin.endpoint != endpoint;
            if !stays {
                plugin.task.abort();
            }
            stays
        });
        if plugins.is_empty() {
            inner.plugins.remove(driver);
        }
        self.sync(&mut inner, driver);
    }

    async fn follow(self, driver: String, endpoint: PathBuf) {
        let mut delay = FIRST_RETRY;
        loop {
            if let Ok(stream) = UnixStream::connect(&endpoint).await
                && let Ok((sender, connection)) =
                    http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await
            {
                delay = FIRST_RETRY;
                self.note(&driver, &endpoint, true);
                let ended = connection.await;
                drop(sender);
                tracing::info!(driver, ?ended, "connection to a DRA driver ended");
                self.note(&driver, &endpoint, false);
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_RETRY);
        }
    }

    fn note(&self, driver: &str, endpoint: &Path, connected: bool) {
        let mut inner = self.lock();
        let plugins = inner.plugins.get_mut(driver).into_iter().flatten();
        for plugin in plugins.filter(|plugin| plugin.endpoint == endpoint) {
            plugin.connected = connected;
        }
        self.sync(&mut inner, driver);
    }

    /// A removal is due exactly while the driver cannot be reached.
    fn sync(&self, inner: &mut Inner, driver: &str) {
        let usable = inner.plugins.get(driver).is_some_and(|plugins| plugins.iter().any(|plugin| plugin.connected));
        if usable {
            if let Some(wipe) = inner.wipes.remove(driver) {
                wipe.abort();
            }
            return;
        }
        if inner.wipes.contains_key(driver) {
            return;
        }
        let (drivers, name) = (self.clone(), driver.to_owned());
        let wipe = inner.tasks.spawn(async move {
            tokio::time::sleep(WIPE_AFTER).await;
            drivers.wipe(Some(name)).await;
        });
        inner.wipes.insert(driver.to_owned(), wipe);
    }

    async fn wipe(self, driver: Option<String>) {
        let api: Api<ResourceSlice> = Api::all(self.client.clone());
        let mut fields = format!("spec.nodeName={}", self.node);
        if let Some(driver) = &driver {
            fields.push_str(&format!(",spec.driver={driver}"));
        }
        let mut delay = FIRST_RETRY;
        loop {
            match api.delete_collection(&DeleteParams::default(), &ListParams::default().fields(&fields)).await {
                Ok(_) => return tracing::debug!(fields, "ResourceSlices removed"),
                Err(kube::Error::Api(status)) if status.code == 404 => return,
                Err(error) => tracing::debug!(%error, fields, "ResourceSlices not removed"),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_WIPE_RETRY);
        }
    }
}
