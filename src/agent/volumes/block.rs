//! Decides: `volumeDevices`: volumes that containers get as devices.

use k8s_openapi::api::core::v1::Container;

use super::Mounted;
use crate::cri::v1;

/// The devices of a container.
///
/// # Errors
/// The pod has no such volume, or it is a folder.
pub fn devices(container: &Container, mounted: &Mounted) -> Result<Vec<v1::Device>, String> {
    let wanted = container.volume_devices.iter().flatten();
    let devices = wanted.map(|wanted| {
        let volume = mounted.volumes.get(&wanted.name).filter(|volume| volume.block);
        let volume = volume.ok_or_else(|| {
            format!("cannot find volume \"{}\" to pass into container \"{}\"", wanted.name, container.name)
        })?;
        Ok(v1::Device {
            container_path: wanted.device_path.clone(),
            host_path: volume.path.display().to_string(),
            permissions: if volume.read_only { "r" } else { "mrw" }.into(),
        })
    });
    devices.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::volumes::MountedVolume;

    #[test]
    fn only_devices_are_passed() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "volumeDevices": [{"name": "v", "devicePath": "/dev/xvda"}]}))
        .unwrap();
        let mounted = |block, read_only| {
            let volume = MountedVolume { path: "/p".into(), read_only, block, ..MountedVolume::default() };
            Mounted { volumes: [("v".to_owned(), volume)].into(), ..Mounted::default() }
        };
        let one = devices(&container, &mounted(true, false)).unwrap();
        assert_eq!(
            (one[0].container_path.as_str(), one[0].host_path.as_str(), one[0].permissions.as_str()),
            ("/dev/xvda", "/p", "mrw")
        );
        assert_eq!(devices(&container, &mounted(true, true)).unwrap()[0].permissions, "r");
        let why = devices(&container, &mounted(false, false)).unwrap_err();
        assert_eq!(why, "cannot find volume \"v\" to pass into container \"c\"");
    }
}
