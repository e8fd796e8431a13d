//! Effects: lifecycle hooks of containers.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::agent::context::NodeContext;
use crate::agent::{http_get, probes};

/// A post-start hook has no deadline of its own; this one keeps a worker from being stuck for good.
pub const POST_START_LIMIT: Duration = Duration::from_secs(3600);

/// Runs the hook; the error is what the event says.
pub async fn run(
    cx: &NodeContext,
    container: &Container,
    id: &str,
    pod_ip: &str,
    hook: &LifecycleHandler,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let result = cx.runtime.exec(id, &command, timeout).await.map_err(|error| error.to_string())?;
        return match result.exit_code {
            0 => Ok(()),
            code => {
                let output = String::from_utf8_lossy(&result.stderr).into_owned();
                Err(format!("command '{}' exited with {code}: {output}", command.join(" ")))
            }
        };
    }
    if let Some(action) = &hook.http_get {
        let get = probes::http_request(container, action, pod_ip, "kube-lifecycle/1.36")?;
        return http_get::get(get, timeout).await.map(drop);
    }
    if let Some(action) = &hook.sleep {
        let wanted = Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0));
        tokio::time::sleep(wanted.min(timeout)).await;
    }
    Ok(())
}
