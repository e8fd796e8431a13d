//! Effects: `skiff status`: whether this machine's cluster works, for people and for the installer.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, ResourceExt as _};

use crate::config::Server;

#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error("no cluster was started here yet: cannot read {path}")]
    Kubeconfig {
        path: String,
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    #[error("the API server does not answer")]
    Unreachable(#[source] Box<kube::Error>),
    #[error("no node has registered yet")]
    NoNode,
    #[error("node {name} is not Ready: {why}")]
    NotReady { name: String, why: String },
}

/// Prints a line for each node; fails when one is not Ready.
///
/// # Errors
/// What is wrong, in the order in which things start.
pub async fn run(config: Server) -> Result<(), StatusError> {
    let path = config.kubeconfig.display().to_string();
    let kubeconfig = |source| StatusError::Kubeconfig { path: path.clone(), source: Box::new(source) };
    let text = Kubeconfig::read_from(&config.kubeconfig).map_err(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let client = kube::Config::from_custom_kubeconfig(text, &options).await.map_err(kubeconfig)?;
    let unreachable = |error| StatusError::Unreachable(Box::new(error));
    let nodes: Api<Node> = Api::all(Client::try_from(client).map_err(unreachable)?);
    let nodes = nodes.list(&ListParams::default()).await.map_err(unreachable)?.items;
    if nodes.is_empty() {
        return Err(StatusError::NoNode);
    }
    for node in nodes {
        let name = node.name_any();
        let status = node.status.unwrap_or_default();
        let ready = status.conditions.unwrap_or_default().into_iter().find(|c| c.type_ == "Ready");
        let version = status.node_info.map(|i| i.kubelet_version).unwrap_or_default();
        match ready {
            Some(condition) if condition.status == "True" => println!("node {name} is Ready ({version})"),
            Some(condition) => {
                return Err(StatusError::NotReady { name, why: condition.message.unwrap_or_default() });
            }
            None => return Err(StatusError::NotReady { name, why: "it has not reported yet".to_owned() }),
        }
    }
    Ok(())
}
