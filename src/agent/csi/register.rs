//! Effects: drivers that put their socket into `plugins_registry` (`csi_plugin.go`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::Api;

use super::{Driver, node};
use crate::agent::context::NodeContext;
use crate::agent::plugins::{Handler, Plugin};

/// What the API takes, too.
const SHORTEST_PERIOD: Duration = Duration::from_secs(10);

/// Registers drivers on this node.
pub struct Register(pub Arc<NodeContext>);

#[async_trait]
impl Handler for Register {
    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        check_versions(plugin)?;
        let cx = &self.0;
        let met = Driver::meet(&plugin.name, &plugin.endpoint).await;
        let (driver, info) = met.map_err(|error| format!("error during CSI NodeGetInfo() call: {error}"))?;
        node::install(cx, &plugin.name, &info).await?;
        let driver = Arc::new(driver);
        cx.csi.drivers.send_modify(|drivers| drop(drivers.insert(plugin.name.clone(), driver.clone())));
        if let Some(period) = room_period(cx, &plugin.name).await {
            cx.csi.begin(follow_room(cx.clone(), driver, period));
        }
        Ok(())
    }

    async fn deregister(&self, plugin: &Plugin) {
        self.0.csi.drivers.send_modify(|drivers| drop(drivers.remove(&plugin.name)));
        if let Err(error) = node::uninstall(&self.0, &plugin.name).await {
            tracing::warn!(error, driver = plugin.name, "CSI driver is gone, but the node still names it");
        }
    }
}

/// How often the driver wants to be asked how many volumes the node takes (`nodeAllocatableUpdatePeriodSeconds`).
async fn room_period(cx: &NodeContext, driver: &str) -> Option<Duration> {
    let api: Api<CSIDriver> = Api::all(cx.client.clone());
    let found = api.get_opt(driver).await.ok().flatten()?;
    let seconds = found.spec.node_allocatable_update_period_seconds?;
    u64::try_from(seconds).ok().map(|seconds| Duration::from_secs(seconds).max(SHORTEST_PERIOD))
}

/// Until the driver goes, or registers anew.
async fn follow_room(cx: Arc<NodeContext>, driver: Arc<Driver>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        let is_current = cx.csi.drivers.borrow().get(&driver.name).is_some_and(|known| Arc::ptr_eq(known, &driver));
        if !is_current {
            return;
        }
        let told = match driver.info().await {
            Ok(info) => node::install(&cx, &driver.name, &info).await,
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = told {
            tracing::info!(error, driver = driver.name, "volumes that the node takes are not known anew");
        }
    }
}

/// Version 1 of the interface is spoken.
fn check_versions(plugin: &Plugin) -> Result<(), String> {
    let Plugin { name, endpoint, versions, .. } = plugin;
    let failed = |why: String| {
        let endpoint = endpoint.display();
        Err(format!(
            "kubernetes.io/csi: ValidatePlugin for CSI driver {name:?} at endpoint \"{endpoint}\" failed. {why}"
        ))
    };
    if versions.is_empty() {
        return failed("Plugin returned an empty list for supported versions".into());
    }
    let major = |version: &String| version.trim_start_matches('v').split('.').next()?.parse::<u32>().ok();
    if versions.iter().any(|version| major(version) == Some(1)) {
        return Ok(());
    }
    failed(format!("None of the versions specified {versions:?} are supported."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_one_is_spoken() {
        let plugin = |versions: &[&str]| Plugin {
            kind: "CSIPlugin".into(),
            name: "d".into(),
            endpoint: "/s".into(),
            versions: versions.iter().map(|version| (*version).to_owned()).collect(),
        };
        for good in [&["1.0.0"][..], &["v1.9.0"], &["0.3.0", "1.2.3"]] {
            assert_eq!(check_versions(&plugin(good)), Ok(()), "{good:?}");
        }
        for bad in [&[][..], &["0.3.0"], &["2.0.0"], &["one"]] {
            assert!(check_versions(&plugin(bad)).is_err(), "{bad:?}");
        }
    }
}
