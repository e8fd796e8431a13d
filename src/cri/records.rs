//! Effects: which containers containerd itself has records of. CRI tells of those only that it could make sense of.

use std::collections::BTreeSet;
use std::path::Path;

use containerd_client::services::v1::ListContainersRequest;
use containerd_client::services::v1::containers_client::ContainersClient;

use super::client::channel;
use super::image_import::in_namespace;
use super::{Error, Result};

/// Ids of all containers and sandboxes. containerd writes a record before it makes anything of a container, and removes it
/// last.
///
/// # Errors
/// When containerd does not answer.
pub async fn containers(socket: &Path) -> Result<BTreeSet<String>> {
    let mut client = ContainersClient::new(channel(socket));
    let request = in_namespace(ListContainersRequest { filters: vec![] }, None);
    let answer = client.list(request).await;
    let answer = answer.map_err(|status| Error::Failed { call: "List", message: status.message().to_owned() })?;
    Ok(answer.into_inner().containers.into_iter().map(|container| container.id).collect())
}
