//! Types: a driver that is registered on this node, and what it can.

use std::path::Path;

use tonic::Code;
use tonic::transport::Channel;

use super::call;
use super::v1::node_client::NodeClient;
use super::v1::node_service_capability::Type;
use super::v1::node_service_capability::rpc::Type as Rpc;
use super::v1::{NodeGetCapabilitiesRequest, NodeGetInfoRequest, NodeGetInfoResponse};
use crate::cri::client::channel;

/// Why a driver did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("driver name {0} not found in the list of registered CSI drivers")]
    NotRegistered(String),
    /// As gRPC clients in Go word it.
    #[error("rpc error: code = {code:?} desc = {message}")]
    Call { code: Code, message: String },
}

impl Error {
    /// Nothing is under way in the driver after this answer (`csi_client.go`, `isFinalError`).
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Error::NotRegistered(_) => true,
            Error::Call { code, .. } => {
                let open = [Code::Cancelled, Code::DeadlineExceeded, Code::Unavailable];
                ![Code::ResourceExhausted, Code::Aborted].contains(code) && !open.contains(code)
            }
        }
    }

    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::NotRegistered(_) => None,
            Error::Call { code, .. } => Some(*code),
        }
    }
}

/// What a driver says it can; asked once, at its registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub stage: bool,
    pub expand: bool,
    /// It says how full volumes are.
    pub stats: bool,
    /// It tells volumes that one pod writes from those that several pods of a node write.
    pub single_node_multi_writer: bool,
    /// It gives volumes to the group of `fsGroup` itself.
    pub mount_group: bool,
}

/// A driver that is registered.
#[derive(Clone, Debug)]
pub struct Driver {
    pub name: String,
    pub can: Capabilities,
    channel: Channel,
}

impl Driver {
    /// Asks the driver at this socket who this node is to it, and what it can.
    ///
    /// # Errors
    /// What it answered instead.
    pub async fn meet(name: &str, endpoint: &Path) -> Result<(Driver, NodeGetInfoResponse), Error> {
        let mut driver = Driver { name: name.to_owned(), can: Capabilities::default(), channel: channel(endpoint) };
        let info = driver.info().await?;
        let answer = call::within(driver.node().node_get_capabilities(NodeGetCapabilitiesRequest {})).await?;
        let can = &mut driver.can;
        for capability in answer.capabilities {
            let Some(Type::Rpc(rpc)) = capability.r#type else { continue };
            match rpc.r#type() {
                Rpc::StageUnstageVolume => can.stage = true,
                Rpc::ExpandVolume => can.expand = true,
                Rpc::GetVolumeStats => can.stats = true,
                Rpc::SingleNodeMultiWriter => can.single_node_multi_writer = true,
                Rpc::VolumeMountGroup => can.mount_group = true,
                _ => {}
            }
        }
        Ok((driver, info))
    }

    pub(super) async fn info(&self) -> Result<NodeGetInfoResponse, Error> {
        call::within(self.node().node_get_info(NodeGetInfoRequest {})).await
    }

    pub(super) fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }
}
