//! Effects: imports images into containerd's content store: the pause image, and the archives that a user drops into
//! the images directory. CRI has no call for it, so this one file speaks containerd's own API.
//!
//! Content is protected from containerd's garbage collector by a lease while it arrives, then by the
//! `containerd.io/gc.ref.content.*` labels of the manifest that refers to it.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteRequest, Image, InfoRequest, UpdateImageRequest, WriteAction,
    WriteContentRequest,
};
use containerd_client::types;
use futures::{StreamExt as _, stream};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::client::channel;
use super::image_archive::{self, ArchiveError, Contents, Descriptor, DockerManifest, Sink};
use super::pause::{self, Blob, hex};

/// The namespace that CRI uses in containerd.
const NAMESPACE: &str = "k8s.io";
/// Content is sent in messages of this size: below gRPC's 4 MiB.
const CHUNK: usize = 1024 * 1024;
/// Messages between the thread that reads an archive and the connection.
const CHUNKS_IN_FLIGHT: usize = 4;
/// A lease that a killed import leaves behind goes away after this.
const LEASE_HOURS: i64 = 24;

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("containerd refused {step}: {message}")]
    Containerd { step: &'static str, message: String },
    #[error("image archive {path} was read in part only")]
    Interrupted { path: PathBuf },
}

type Result<T> = std::result::Result<T, ImportError>;

fn refused(step: &'static str) -> impl Fn(tonic::Status) -> ImportError {
    move |status| ImportError::Containerd { step, message: status.message().to_owned() }
}

/// Imports into the containerd behind one socket. Cheap to clone.
#[derive(Clone)]
pub struct Importer {
    channel: Channel,
}

/// A large file of an archive, on its way from the reading thread to containerd.
enum Piece {
    Start { path: String, size: u64 },
    Data(Vec<u8>),
}

impl Importer {
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { channel: channel(socket) }
    }

    /// Imports the pause image under [`pause::NAME`], unless this very one is there.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub async fn pause(&self) -> Result<()> {
        let image = pause::image();
        let lease = self.lease().await?;
        let result = async {
            self.write_blob(&lease, &image.layer, HashMap::new()).await?;
            self.write_blob(&lease, &image.config, HashMap::new()).await?;
            let manifest: Value = serde_json::from_slice(&image.manifest.data).unwrap_or_default();
            self.write_blob(&lease, &image.manifest, references(&manifest)).await?;
            let size = i64::try_from(image.manifest.data.len()).unwrap_or_default();
            self.name(pause::NAME, &image.manifest.digest, pause::MANIFEST_TYPE, size).await
        };
        let result = result.await;
        self.release(lease).await;
        result
    }

    /// Imports every image of an archive and returns their names.
    ///
    /// # Errors
    /// When the file is no image archive, or containerd refuses it.
    pub async fn archive(&self, path: &Path) -> Result<Vec<String>> {
        let lease = self.lease().await?;
        let result = self.archive_under(&lease, path).await;
        self.release(lease).await;
        result
    }

    async fn archive_under(&self, lease: &str, path: &Path) -> Result<Vec<String>> {
        let (sender, mut pieces) = tokio::sync::mpsc::channel(CHUNKS_IN_FLIGHT);
        let file = path.to_owned();
        let reader = tokio::task::spawn_blocking(move || image_archive::read(&file, &mut Pipe(sender)));

        // Path in the archive → the descriptor of what it became, for the layers of `docker save`.
        let mut layers: HashMap<String, Descriptor> = HashMap::new();
        let mut next = pieces.recv().await;
        while let Some(piece) = next.take() {
            let Piece::Start { path: name, size } = piece else { break };
            let (descriptor, after) = self.write_large(lease, &name, size, &mut pieces).await?;
            layers.insert(name, descriptor);
            next = after;
        }
        drop(pieces);
        let contents = reader.await.map_err(|_| ImportError::Interrupted { path: path.to_owned() })??;
        if let Some(index) = contents.documents.get("index.json") {
            return self.oci(lease, path, &contents, index).await;
        }
        match contents.documents.get("manifest.json") {
            Some(manifest) => self.docker(lease, path, &contents, &layers, manifest).await,
            None => Err(format_error(path, "it has no index.json and no manifest.json")),
        }
    }

    /// An OCI layout: blobs are named by their digests; `index.json` names the images.
    async fn oci(&self, lease: &str, path: &Path, contents: &Contents, index: &[u8]) -> Result<Vec<String>> {
        // Documents that refer to others carry the references as labels; order does not matter under a lease.
        for (name, data) in &contents.documents {
            if name.starts_with("blobs/sha256/") {
                let document: Value = serde_json::from_slice(data).unwrap_or_default();
                self.write_blob(lease, &Blob::new(data.clone()), references(&document)).await?;
            }
        }
        let index: Value = serde_json::from_slice(index).map_err(|e| format_error(path, &e.to_string()))?;
        let tags = docker_tags(contents);
        let mut names = Vec::new();
        for manifest in index["manifests"].as_array().into_iter().flatten() {
            let descriptor: Descriptor =
                serde_json::from_value(manifest.clone()).map_err(|e| format_error(path, &e.to_string()))?;
            for name in image_names(&descriptor, &tags) {
                self.name(&name, &descriptor.digest, &descriptor.media_type, descriptor.size).await?;
                names.push(name);
            }
        }
        if names.is_empty() {
            return Err(format_error(path, "no image in it has a name (annotation io.containerd.image.name)"));
        }
        Ok(names)
    }

    /// The older output of `docker save`: layers by path; the OCI manifest is ours to write.
    async fn docker(
        &self,
        lease: &str,
        path: &Path,
        contents: &Contents,
        layers: &HashMap<String, Descriptor>,
        manifest: &[u8],
    ) -> Result<Vec<String>> {
        let images: Vec<DockerManifest> =
            serde_json::from_slice(manifest).map_err(|e| format_error(path, &e.to_string()))?;
        let mut names = Vec::new();
        for image in images {
            let config = contents
                .documents
                .get(&image.config)
                .ok_or_else(|| format_error(path, &format!("{} is missing", image.config)))?;
            let config = Blob::new(config.clone());
            self.write_blob(lease, &config, HashMap::new()).await?;
            let mut list = Vec::new();
            for layer in &image.layers {
                let target = contents.links.get(layer).unwrap_or(layer);
                let d = layers.get(target).ok_or_else(|| format_error(path, &format!("{layer} is missing")))?;
                list.push(serde_json::json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size}));
            }
            let manifest = serde_json::json!({
                "schemaVersion": 2, "mediaType": pause::MANIFEST_TYPE,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": config.digest, "size": config.data.len(),
                },
                "layers": list,
            });
            let blob = Blob::new(manifest.to_string().into_bytes());
            self.write_blob(lease, &blob, references(&manifest)).await?;
            for tag in image.repo_tags.into_iter().flatten() {
                let name = normalized(&tag);
                let size = i64::try_from(blob.data.len()).unwrap_or_default();
                self.name(&name, &blob.digest, pause::MANIFEST_TYPE, size).await?;
                names.push(name);
            }
        }
        Ok(names)
    }

    async fn lease(&self) -> Result<String> {
        let expiry = crate::clock::now() + jiff::SignedDuration::from_hours(LEASE_HOURS);
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expiry.to_string())]);
        let id = format!("skiff-import-{}", uuid::Uuid::new_v4());
        let request = in_namespace(CreateRequest { id: id.clone(), labels }, None);
        LeasesClient::new(self.channel.clone()).create(request).await.map_err(refused("a lease"))?;
        Ok(id)
    }

    /// A lease that cannot be deleted expires; that is not a failure of the import.
    async fn release(&self, id: String) {
        let request = in_namespace(DeleteRequest { id, sync: false }, None);
        if let Err(error) = LeasesClient::new(self.channel.clone()).delete(request).await {
            tracing::debug!(error = error.message(), "import lease left to expire");
        }
    }

    async fn write_blob(&self, lease: &str, blob: &Blob, labels: HashMap<String, String>) -> Result<()> {
        let total = i64::try_from(blob.data.len()).unwrap_or_default();
        let request = WriteContentRequest {
            action: WriteAction::Commit as i32,
            r#ref: format!("skiff-{}", blob.digest),
            total,
            expected: blob.digest.clone(),
            offset: 0,
            data: blob.data.clone(),
            labels,
        };
        if self.has(&blob.digest).await {
            return Ok(());
        }
        self.write(lease, vec![request]).await
    }

    async fn has(&self, digest: &str) -> bool {
        let request = in_namespace(InfoRequest { digest: digest.to_owned() }, None);
        ContentClient::new(self.channel.clone()).info(request).await.is_ok()
    }

    async fn write(&self, lease: &str, requests: Vec<WriteContentRequest>) -> Result<()> {
        let request = in_namespace(stream::iter(requests), Some(lease));
        let answer = ContentClient::new(self.channel.clone()).write(request).await;
        finish(answer).await
    }

    /// Streams one large file into the content store; its digest is known when it has all passed.
    /// Returns its descriptor and the piece that comes after it.
    async fn write_large(
        &self,
        lease: &str,
        name: &str,
        size: u64,
        pieces: &mut tokio::sync::mpsc::Receiver<Piece>,
    ) -> Result<(Descriptor, Option<Piece>)> {
        let total = i64::try_from(size).unwrap_or(i64::MAX);
        let reference = format!("{lease}-{name}");
        let (sender, receiver) = tokio::sync::mpsc::channel::<WriteContentRequest>(CHUNKS_IN_FLIGHT);
        let requests = stream::unfold(receiver, |mut r| async move { r.recv().await.map(|m| (m, r)) });
        let mut service = ContentClient::new(self.channel.clone());
        let request = in_namespace(requests, Some(lease));
        let upload = async move { finish(service.write(request).await).await };

        let feed = async {
            let mut hash = Sha256::new();
            let mut offset = 0;
            let mut media_type = "";
            let message = |action: WriteAction, offset: i64, data: Vec<u8>, expected: String| WriteContentRequest {
                action: action as i32,
                r#ref: reference.clone(),
                total,
                expected,
                offset,
                data,
                labels: HashMap::new(),
            };
            let after = loop {
                match pieces.recv().await {
                    Some(Piece::Data(data)) => {
                        if offset == 0 {
                            media_type = layer_type(&data);
                        }
                        hash.update(&data);
                        let length = i64::try_from(data.len()).unwrap_or_default();
                        // A closed channel means that the upload failed; its own error is the one that is told.
                        let _ = sender.send(message(WriteAction::Write, offset, data, String::new())).await;
                        offset += length;
                    }
                    other => break other,
                }
            };
            let digest = format!("sha256:{}", hex(&hash.finalize()));
            let _ = sender.send(message(WriteAction::Commit, offset, Vec::new(), digest.clone())).await;
            drop(sender);
            let media_type = media_type.to_owned();
            (Descriptor { media_type, digest, size: offset, annotations: BTreeMap::new() }, after)
        };
        let (result, fed) = futures::join!(upload, feed);
        result.map(|()| fed)
    }

    /// Points an image name at a manifest or index; replaces what the name meant before.
    async fn name(&self, name: &str, digest: &str, media_type: &str, size: i64) -> Result<()> {
        let target = types::Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_owned(),
            size,
            annotations: HashMap::new(),
        };
        let labels = HashMap::from([("io.cri-containerd.image".to_owned(), "managed".to_owned())]);
        let image = Image { name: name.to_owned(), labels, target: Some(target), created_at: None, updated_at: None };
        let mut service = ImagesClient::new(self.channel.clone());
        let create = CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
        match service.create(in_namespace(create, None)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {
                let update = UpdateImageRequest { image: Some(image), update_mask: None, source_date_epoch: None };
                service.update(in_namespace(update, None)).await.map(drop).map_err(refused("an image name"))
            }
            Err(status) => Err(refused("an image name")(status)),
        }
    }
}

/// Reads the answers of a content upload to their end. Content that is there already is a success.
async fn finish(
    answer: std::result::Result<
        tonic::Response<tonic::Streaming<containerd_client::services::v1::WriteContentResponse>>,
        tonic::Status,
    >,
) -> Result<()> {
    let outcome = match answer {
        Ok(response) => {
            let mut responses = response.into_inner();
            loop {
                match responses.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(status)) => break Err(status),
                    None => break Ok(()),
                }
            }
        }
        Err(status) => Err(status),
    };
    match outcome {
        Err(status) if status.code() != Code::AlreadyExists => Err(refused("image content")(status)),
        _ => Ok(()),
    }
}

pub(super) fn in_namespace<T>(message: T, lease: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    if let Some(lease) = lease.and_then(|l| l.parse().ok()) {
        request.metadata_mut().insert("containerd-lease", lease);
    }
    request
}

/// Sends large files through a channel, in chunks.
struct Pipe(tokio::sync::mpsc::Sender<Piece>);

impl Pipe {
    fn send(&self, piece: Piece) -> std::io::Result<()> {
        self.0.blocking_send(piece).map_err(|_| std::io::Error::other("the import was given up"))
    }
}

impl Sink for Pipe {
    fn large(&mut self, path: &str, size: u64, content: &mut dyn Read) -> std::io::Result<()> {
        self.send(Piece::Start { path: path.to_owned(), size })?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            content.take(CHUNK as u64).read_to_end(&mut chunk)?;
            if chunk.is_empty() {
                return Ok(());
            }
            self.send(Piece::Data(chunk))?;
        }
    }
}

fn format_error(path: &Path, why: &str) -> ImportError {
    ArchiveError::Format { path: path.to_owned(), why: why.to_owned() }.into()
}

/// The labels that keep alive what a manifest or an index refers to (containerd's `docs/garbage-collection.md`).
fn references(document: &Value) -> HashMap<String, String> {
    let list = |field: &str| document[field].as_array().cloned().unwrap_or_default();
    let children = document.get("config").filter(|c| c.is_object()).cloned().into_iter();
    children
        .chain(list("layers"))
        .chain(list("manifests"))
        .filter_map(|child| child["digest"].as_str().map(str::to_owned))
        .enumerate()
        .map(|(i, digest)| (format!("containerd.io/gc.ref.content.{i}"), digest))
        .collect()
}

/// Names of one entry of `index.json`, as `ctr images import` finds them.
fn image_names(descriptor: &Descriptor, docker_tags: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let get = |key: &str| descriptor.annotations.get(key).cloned();
    if let Some(name) = get("io.containerd.image.name") {
        return vec![normalized(&name)];
    }
    if let Some(tags) = docker_tags.get(&descriptor.digest) {
        return tags.iter().map(|t| normalized(t)).collect();
    }
    // A bare tag is no name.
    get("org.opencontainers.image.ref.name")
        .filter(|n| n.contains([':', '/']))
        .map(|n| normalized(&n))
        .into_iter()
        .collect()
}

/// Recent `docker save` writes both forms; its tags are found through the configuration's digest.
fn docker_tags(contents: &Contents) -> BTreeMap<String, Vec<String>> {
    let Some(images) =
        contents.documents.get("manifest.json").and_then(|m| serde_json::from_slice::<Vec<DockerManifest>>(m).ok())
    else {
        return BTreeMap::new();
    };
    let mut tags = BTreeMap::new();
    for (path, data) in &contents.documents {
        let Some(hash) = path.strip_prefix("blobs/sha256/") else { continue };
        let manifest: Value = serde_json::from_slice(data).unwrap_or_default();
        let Some(config) = manifest["config"]["digest"].as_str().and_then(|d| d.strip_prefix("sha256:")) else {
            continue;
        };
        if let Some(image) = images.iter().find(|i| i.config.ends_with(config)) {
            tags.insert(format!("sha256:{hash}"), image.repo_tags.clone().unwrap_or_default());
        }
    }
    tags
}

/// `busybox` → `docker.io/library/busybox:latest`, the form under which CRI looks an image up.
fn normalized(name: &str) -> String {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let is_host = first.contains(['.', ':']) || first == "localhost";
    let full = match (is_host, first.is_empty()) {
        (true, _) => name.to_owned(),
        (false, true) => format!("docker.io/library/{rest}"),
        (false, false) => format!("docker.io/{name}"),
    };
    let last = full.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { full } else { format!("{full}:latest") }
}

fn layer_type(start: &[u8]) -> &'static str {
    match start {
        [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => "application/vnd.oci.image.layer.v1.tar",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_cri_looks_up() {
        for (input, expect) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("user/app", "docker.io/user/app:latest"),
            ("localhost/app:1", "localhost/app:1"),
            ("registry:5000/app", "registry:5000/app:latest"),
            ("ghcr.io/a/b@sha256:00", "ghcr.io/a/b@sha256:00"),
        ] {
            assert_eq!(normalized(input), expect);
        }
    }

    #[test]
    fn a_manifest_keeps_its_configuration_and_layers() {
        let manifest = serde_json::json!({"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:l"}]});
        let labels = references(&manifest);
        assert_eq!(labels["containerd.io/gc.ref.content.0"], "sha256:c");
        assert_eq!(labels["containerd.io/gc.ref.content.1"], "sha256:l");
    }
}
