//! Effects: what the runtime is told of a container: environment, mounts with their files, devices.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;

use super::{Operation, Start};
use crate::agent::devices::record::Additions;
use crate::agent::dra::cdi;
use crate::agent::mirror::is_static;
use crate::agent::objects;
use crate::agent::pod::{env, ephemeral, host_network, hosts, name, namespace, security, spec, uid};
use crate::agent::volumes::{self, Mounted, subpath};
use crate::cri::{self, v1};

/// How long a start waits for the first list of Services.
const SERVICES_LIMIT: Duration = Duration::from_secs(5);
/// The kubelet's file mode for termination messages: any user of the container may write it.
const TERMINATION_MODE: u32 = 0o666;

impl Operation {
    pub(super) async fn configure(
        &self,
        start: &Start,
        container: &Container,
        image: &cri::Image,
        sandbox: &cri::Sandbox,
        mounted: &Mounted,
    ) -> Result<v1::ContainerConfig, String> {
        let mut additions = self.additions(container).await?;
        let mut env = std::mem::take(&mut additions.env);
        env.extend(self.environment(container, sandbox).await?);
        let asks = container.volume_mounts.iter().flatten().any(|mount| mount.recursive_read_only.is_some());
        let recursion = asks
            && self
                .cx
                .runtime
                .health()
                .await
                .is_ok_and(|health| health.default_handler().is_some_and(|handler| handler.recursive_read_only));
        let mounts = self.mounts(start, container, sandbox, mounted, (&env, recursion)).await?;
        let logs = self.cx.paths.pod_logs(namespace(&self.pod), name(&self.pod), uid(&self.pod));
        let directory = logs.join(&container.name);
        std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let parts = spec::Parts {
            container,
            attempt: start.attempt,
            image: &image.id,
            image_user: security::ImageUser { uid: image.uid, name: &image.username },
            env,
            mounts,
            additions,
            node_memory_bytes: self.cx.memory_bytes,
        };
        let mut config = spec::container(&self.cx, &self.pod, parts).map_err(|error| error.to_string())?;
        ephemeral::aim(&self.pod, &self.observed, &mut config)?;
        config.devices.extend(volumes::devices(container, mounted)?);
        Ok(config)
    }

    /// What its devices bring along.
    async fn additions(&self, container: &Container) -> Result<Additions, String> {
        let mut additions = self.cx.devices.additions(&self.pod, container).await?;
        additions.cdi.extend(self.cx.drivers.cdi_devices(&self.pod, container)?);
        if !additions.cdi.is_empty() {
            let version = self.cx.runtime.version().await.map_err(|error| error.to_string())?;
            if !cdi::runtime_knows(&version) {
                cdi::inject(&mut additions, &cdi::read())?;
            }
        }
        Ok(additions)
    }

    pub(super) fn pod_ips(&self, sandbox: &cri::Sandbox) -> Vec<String> {
        match host_network(&self.pod) {
            true => vec![self.cx.node_ip().to_string()],
            false => sandbox.ips.clone(),
        }
    }

    async fn environment(
        &self,
        container: &Container,
        sandbox: &cri::Sandbox,
    ) -> Result<Vec<(String, String)>, String> {
        let mut services = self.cx.services.clone();
        // A static pod waits for no server.
        let needed = !is_static(&self.pod);
        let services =
            match tokio::time::timeout(SERVICES_LIMIT, services.wait_for(|view| view.complete || !needed)).await {
                Ok(Ok(view)) => Arc::clone(&view),
                _ => return Err("services have not yet been read at least once, cannot construct envvars".to_owned()),
            };
        let mut known = HashMap::new();
        for (kind, object) in env::references(container) {
            let data = match self.cx.objects.get(kind, namespace(&self.pod), &object, uid(&self.pod)).await {
                Ok(data) => Some(data),
                Err(objects::Error::NotFound { .. }) => None,
                Err(error) => return Err(error.to_string()),
            };
            known.insert((kind, object), data);
        }
        let sources = env::Sources {
            pod: &self.pod,
            services: &services,
            objects: &known,
            node_name: &self.cx.config.node_name,
            host_ips: &[self.cx.node_ip().to_string()],
            pod_ips: &self.pod_ips(sandbox),
            allocatable: &self.cx.allocatable,
        };
        env::environment(container, &sources).map_err(|error| error.to_string())
    }

    async fn mounts(
        &self,
        start: &Start,
        container: &Container,
        sandbox: &cri::Sandbox,
        mounted: &Mounted,
        (env, recursion): (&[(String, String)], bool),
    ) -> Result<Vec<v1::Mount>, String> {
        let scope: HashMap<String, String> = env.iter().cloned().collect();
        let mut mounts = Vec::new();
        for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
            let volume = mounted.volumes.get(&wanted.name);
            let volume = volume.ok_or_else(|| {
                format!("cannot find volume \"{}\" to mount into container \"{}\"", wanted.name, container.name)
            })?;
            let sub_path = volumes::mounts::sub_path(wanted, &scope)?;
            if let Some(image) = &volume.image {
                mounts.push(volumes::mounts::image(absolute(&wanted.mount_path), image, &sub_path)?);
                continue;
            }
            let host_path = if sub_path.is_empty() {
                volume.path.clone()
            } else {
                let place = self.cx.paths.pod(uid(&self.pod)).join("volume-subpaths");
                let target = place.join(&wanted.name).join(&container.name).join(index.to_string());
                let at = (wanted.name.clone(), container.name.clone());
                subpath::bind_patiently(at, volume.path.clone(), sub_path, target).await?
            };
            mounts.push(v1::Mount {
                container_path: absolute(&wanted.mount_path),
                host_path: spec::text(&host_path),
                readonly: volume.read_only || wanted.read_only == Some(true),
                recursive_read_only: volumes::mounts::recursive_read_only(wanted, recursion)?,
                propagation: match wanted.mount_propagation.as_deref() {
                    Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer as i32,
                    Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional as i32,
                    _ => v1::MountPropagation::PropagationPrivate as i32,
                },
                ..v1::Mount::default()
            });
        }
        self.own_files(start, container, sandbox, &mut mounts).map_err(|error| error.to_string())?;
        Ok(mounts)
    }

    /// `/etc/hosts` and the termination message, which the agent keeps for the container.
    fn own_files(
        &self,
        start: &Start,
        container: &Container,
        sandbox: &cri::Sandbox,
        mounts: &mut Vec<v1::Mount>,
    ) -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let directory = self.cx.paths.pod(uid(&self.pod));
        if !mounts.iter().any(|mount| mount.container_path == "/etc/hosts") {
            let host_file = match host_network(&self.pod) {
                true => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
                false => String::new(),
            };
            let domain = &self.cx.cluster.cluster_domain;
            let text = hosts::hosts_file(&self.pod, &self.pod_ips(sandbox), domain, &host_file);
            let path = directory.join("etc-hosts");
            std::fs::create_dir_all(&directory)?;
            std::fs::write(&path, text)?;
            let root = container.security_context.as_ref().and_then(|sc| sc.read_only_root_filesystem);
            mounts.push(v1::Mount {
                container_path: "/etc/hosts".into(),
                host_path: spec::text(&path),
                readonly: root == Some(true),
                ..v1::Mount::default()
            });
        }
        let target = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        if !target.is_empty() {
            let path = spec::termination_file(&self.cx, uid(&self.pod), &container.name, start.attempt);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&path, b"")?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(TERMINATION_MODE))?;
            mounts.push(v1::Mount {
                container_path: absolute(target),
                host_path: spec::text(&path),
                ..v1::Mount::default()
            });
        }
        Ok(())
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}
