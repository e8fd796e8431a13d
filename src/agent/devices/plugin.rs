//! Loop: one device plugin: what it says of its devices, for as long as its stream lasts, and the grace after it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::protocol::{self, DevicePluginOptions, Empty, ListAndWatchResponse};
use super::select::Ids;
use super::{Devices, Offer, near};
use crate::agent::plugins::grpc;

/// A plugin that went away has this long to come back before its devices count no more.
const GRACE: Duration = Duration::from_secs(300);
const OPTIONS_DEADLINE: Duration = Duration::from_secs(10);

/// One registered plugin, for as long as its stream lasts and the grace after it.
pub(super) struct Plugin {
    pub devices: Devices,
    pub resource: String,
    pub serial: u64,
    pub channel: Channel,
    pub gone: CancellationToken,
}

impl Plugin {
    pub async fn run(self) {
        let ended = tokio::select! {
            ended = self.follow() => ended,
            () = self.gone.cancelled() => "it registered again, or went".to_owned(),
        };
        let mut replaced = true;
        self.update(|offer| {
            replaced = false;
            offer.plugin = None;
            let healthy = std::mem::take(&mut offer.healthy);
            offer.unhealthy.extend(healthy);
        });
        if replaced {
            return;
        }
        tracing::warn!(resource = self.resource, why = ended, "device plugin is gone: its devices cannot be given");
        tokio::time::sleep(GRACE).await;
        self.update(|offer| offer.unhealthy.clear());
    }

    /// Says why the stream ended.
    async fn follow(&self) -> String {
        let options: Result<DevicePluginOptions, _> =
            grpc::call(&self.channel, protocol::OPTIONS, Empty {}, OPTIONS_DEADLINE).await;
        match options {
            Ok(options) => self.update(|offer| {
                if let Some(plugin) = &mut offer.plugin {
                    plugin.options = options;
                }
            }),
            Err(error) => tracing::info!(%error, resource = self.resource, "device plugin did not tell its options"),
        }
        let stream = grpc::stream::<_, ListAndWatchResponse>(&self.channel, protocol::LIST_AND_WATCH, Empty {}).await;
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        loop {
            let list = match stream.message().await {
                Ok(Some(list)) => list.devices,
                Ok(None) => return "its stream ended".into(),
                Err(status) => return grpc::Error::from(status).to_string(),
            };
            let nodes = near::told(&list);
            let (healthy, unhealthy): (Vec<_>, Vec<_>) = list.into_iter().partition(|d| d.health == protocol::HEALTHY);
            let ids = |devices: Vec<protocol::Device>| devices.into_iter().map(|device| device.id).collect::<Ids>();
            let (healthy, unhealthy) = (ids(healthy), ids(unhealthy));
            tracing::info!(resource = self.resource, healthy = healthy.len(), unhealthy = unhealthy.len(), "devices");
            self.update(|offer| (offer.healthy, offer.unhealthy, offer.nodes) = (healthy, unhealthy, nodes));
        }
    }

    /// Changes the offer, unless another plugin has come to make it.
    fn update(&self, change: impl FnOnce(&mut Offer)) {
        self.devices.update(|inner| {
            if let Some(offer) = inner.offers.get_mut(&self.resource).filter(|offer| offer.serial == self.serial) {
                change(offer);
            }
        });
    }
}
