//! Effects: how device plugins are heard of: they call `Register` at `device-plugins/kubelet.sock`, or put a socket into
//! the registry as others do. A plugin watches for `kubelet.sock` to appear and registers again when it does.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Devices;
use super::protocol::{self, Empty, RegisterRequest, VERSION};
use crate::agent::plugins::{Handler, Plugin, grpc};

/// The name that plugins know it by.
const SOCKET: &str = "kubelet.sock";

/// Serves `Register` in the directory until `stop`.
pub async fn run(devices: Devices, directory: PathBuf, stop: CancellationToken) {
    let path = directory.join(SOCKET);
    remove_sockets(&directory);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "device plugins cannot register");
            return;
        }
    };
    let service: grpc::Service = Arc::new(move |request| {
        let (devices, directory) = (devices.clone(), directory.clone());
        async move {
            match request.uri().path() {
                protocol::REGISTER => grpc::unary(request, |asked| register(devices, directory, asked)).await,
                _ => grpc::unknown(),
            }
        }
        .boxed()
    });
    grpc::serve(listener, service, stop).await;
    // So that nobody takes it for an agent that runs.
    let _ = std::fs::remove_file(&path);
}

/// Sockets of an earlier agent's plugins: a plugin that finds its own gone makes it anew and registers, as it would with
/// a kubelet.
fn remove_sockets(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

async fn register(devices: Devices, directory: PathBuf, asked: RegisterRequest) -> Result<Empty, Status> {
    let RegisterRequest { version, endpoint, resource_name, options } = asked;
    check(&resource_name, &[version]).map_err(Status::unknown)?;
    let socket = Path::new(&endpoint).file_name().map(|name| directory.join(name));
    let socket = socket.ok_or_else(|| Status::unknown(format!("{endpoint:?} is not the name of a socket")))?;
    if let Err(error) = UnixStream::connect(&socket).await {
        tracing::warn!(%error, resource = resource_name, socket = %socket.display(), "device plugin cannot be reached");
        return Err(Status::unknown(format!("failed to dial device plugin {}: {error}", socket.display())));
    }
    tracing::info!(resource = resource_name, "device plugin is registered");
    devices.connect(&resource_name, &socket, options);
    Ok(Empty {})
}

/// Whether we speak with the plugin.
fn check(resource: &str, versions: &[String]) -> Result<(), String> {
    if !versions.iter().any(|version| version == VERSION) {
        let asked = versions.join(" ");
        return Err(format!(
            "requested API version {asked:?} is not supported by kubelet. Supported version is [\"{VERSION}\"]"
        ));
    }
    if !is_extended(resource) {
        return Err(format!("the ResourceName {resource:?} is invalid"));
    }
    Ok(())
}

/// `domain/name`, of a domain that is not Kubernetes' own.
#[must_use]
pub fn is_extended(resource: &str) -> bool {
    let Some((domain, name)) = resource.split_once('/') else { return false };
    let part = |text: &str, limit: usize, more: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.len() <= limit && text.chars().all(inner) && ends(text.chars().next()) && ends(text.chars().last())
    };
    let own = resource.contains("kubernetes.io/") || resource.starts_with("requests.");
    !own && part(domain, 253, "-.") && domain == domain.to_lowercase() && part(name, 63, "-_.")
}

#[async_trait]
impl Handler for Devices {
    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        check(&plugin.name, &plugin.versions)?;
        self.connect(&plugin.name, &plugin.endpoint, None);
        Ok(())
    }

    async fn deregister(&self, plugin: &Plugin) {
        self.disconnect(&plugin.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions() {
        let table = [
            ("nvidia.com/gpu", "v1beta1", ""),
            ("gpu", "v1beta1", "the ResourceName \"gpu\" is invalid"),
            ("kubernetes.io/gpu", "v1beta1", "the ResourceName \"kubernetes.io/gpu\" is invalid"),
            ("a.kubernetes.io/gpu", "v1beta1", "the ResourceName \"a.kubernetes.io/gpu\" is invalid"),
            ("a.b/c/d", "v1beta1", "the ResourceName \"a.b/c/d\" is invalid"),
            ("a.b/", "v1beta1", "the ResourceName \"a.b/\" is invalid"),
            (
                "nvidia.com/gpu",
                "v1alpha",
                "requested API version \"v1alpha\" is not supported by kubelet. Supported version is [\"v1beta1\"]",
            ),
        ];
        for (resource, version, expect) in table {
            assert_eq!(check(resource, &[version.to_owned()]).err().unwrap_or_default(), expect, "{resource}");
        }
    }
}
