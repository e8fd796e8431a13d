//! Decides: what is particular to ephemeral containers (`kubectl debug`): whose processes they see, and their status.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::ephemeral;
use super::observed::Observed;
use crate::cri::{State, v1};

/// Puts a container with a `targetContainerName` into the process namespace of that container.
///
/// # Errors
/// When the target does not run.
pub fn aim(pod: &Pod, observed: &Observed, config: &mut v1::ContainerConfig) -> Result<(), String> {
    let name = config.metadata.as_ref().map(|metadata| metadata.name.as_str()).unwrap_or_default();
    let Some(added) = ephemeral(pod).find(|added| added.name == name) else { return Ok(()) };
    let Some(target) = added.target_container_name.as_deref().filter(|target| !target.is_empty()) else {
        return Ok(());
    };
    let running = observed.current(target).filter(|current| current.state == State::Running);
    let running = running.ok_or_else(|| format!("unable to find target container {target}"))?;
    let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    let namespaces = security.namespace_options.get_or_insert_default();
    // Where all see each other, or the node, they see the target anyway.
    if namespaces.pid != v1::NamespaceMode::Container as i32 {
        return Ok(());
    }
    namespaces.pid = v1::NamespaceMode::Target as i32;
    namespaces.target_id.clone_from(&running.id);
    Ok(())
}

/// They are no part of what makes a pod ready, so that nothing is said of that.
#[must_use]
pub fn status(general: ContainerStatus) -> ContainerStatus {
    ContainerStatus { ready: false, started: None, allocated_resources: None, resources: None, ..general }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::pod::plan::tests::record;

    fn check(target: Option<&str>, expect: Result<Option<&str>, &str>) {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "web"}, {"name": "done"}],
            "ephemeralContainers": [{"name": "debug", "targetContainerName": target}]}}))
        .expect("valid");
        let containers = vec![record("web 3 running"), record("done 0 exited 0")];
        let observed = Observed { sandboxes: Vec::new(), containers };
        let metadata = v1::ContainerMetadata { name: "debug".into(), attempt: 0 };
        let mut config = v1::ContainerConfig { metadata: Some(metadata), ..v1::ContainerConfig::default() };
        let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
        let alone = v1::NamespaceMode::Container as i32;
        security.namespace_options = Some(v1::NamespaceOption { pid: alone, ..v1::NamespaceOption::default() });
        let result = aim(&pod, &observed, &mut config);
        let options = config.linux.and_then(|l| l.security_context).and_then(|s| s.namespace_options);
        let seen = options.filter(|o| o.pid == v1::NamespaceMode::Target as i32).map(|o| o.target_id);
        let seen = result.map(|()| seen);
        assert_eq!(seen.as_ref().map(Option::as_deref).map_err(String::as_str), expect, "{target:?}");
    }

    #[test]
    fn a_target_must_run() {
        check(None, Ok(None));
        check(Some("web"), Ok(Some("web3")));
        check(Some("done"), Err("unable to find target container done"));
        check(Some("other"), Err("unable to find target container other"));
    }
}
