//! Effects: gives an image of containerd another name. CRI has no call for it, so containerd's own API is spoken.

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, UpdateImageRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::image_import::in_namespace;

/// Makes `to` mean what `from` means, and `from` nothing.
pub(super) async fn rename(channel: Channel, from: &str, to: &str) -> Result<(), Status> {
    let mut service = ImagesClient::new(channel);
    let get = GetImageRequest { name: from.to_owned() };
    let found = service.get(in_namespace(get, None)).await?.into_inner().image;
    let found = found.ok_or_else(|| Status::not_found(format!("image {from:?}: not found")))?;
    let image = Image { name: to.to_owned(), created_at: None, updated_at: None, ..found };
    let create = CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
    match service.create(in_namespace(create, None)).await {
        Err(status) if status.code() == Code::AlreadyExists => {
            let update = UpdateImageRequest { image: Some(image), update_mask: None, source_date_epoch: None };
            service.update(in_namespace(update, None)).await.map(drop)?;
        }
        created => drop(created?),
    }
    let delete = DeleteImageRequest { name: from.to_owned(), sync: false, target: None };
    service.delete(in_namespace(delete, None)).await.map(drop)
}
