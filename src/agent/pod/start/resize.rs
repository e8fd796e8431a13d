//! Effects: gives containers that run other resources, and the pod's control group with them.

use super::{Operation, Progress};
use crate::agent::cgroups::{self, bytes, pod_resources};
use crate::agent::limits;
use crate::agent::pod::container;
use crate::agent::pod::resize::Update;

impl Operation {
    pub(super) async fn resize(&self, updates: Vec<Update>) {
        let done = match self.update(updates).await {
            Ok(()) => Progress::PodResized(pod_resources(&self.pod)),
            Err(error) => Progress::ResizeFailed(error),
        };
        self.report(done).await;
    }

    async fn update(&self, updates: Vec<Update>) -> Result<(), String> {
        self.fits(&updates).await?;
        self.cx.cgroups.widen(&self.pod).map_err(|error| error.to_string())?;
        for update in updates {
            let Some((_, spec)) = container(&self.pod, &update.name) else { continue };
            let resources = cgroups::container_resources(&self.pod, &spec, self.cx.memory_bytes);
            let resources = limits::complete(resources, (&self.pod, &spec), &self.cx.kernel);
            let resources = self.cx.exclusive.complete(&self.pod, &spec, resources);
            let updated = self.cx.runtime.update_container(&update.id, resources).await;
            updated.map_err(|error| format!("failed to update resources for container {:?}: {error}", update.name))?;
            self.report(Progress::ContainerResized(update)).await;
        }
        self.cx.cgroups.narrow(&self.pod).map_err(|error| error.to_string())
    }

    /// A limit below what is used would end processes: it waits until they use less.
    async fn fits(&self, updates: &[Update]) -> Result<(), String> {
        if let (Some(limit), Some(used)) =
            (pod_resources(&self.pod).memory_limit_bytes, self.cx.cgroups.memory_usage(&self.pod))
            && limit < used
        {
            return Err(format!("attempting to set pod memory limit ({limit}) below current usage ({used})"));
        }
        if !updates.iter().any(|update| update.shrinks) {
            return Ok(());
        }
        let usage = self.cx.runtime.usage().await.map_err(|error| error.to_string())?;
        for update in updates.iter().filter(|update| update.shrinks) {
            let limit = update.resources.limits.as_ref().and_then(|limits| limits.get("memory"));
            let limit = limit.map_or(i64::MAX, |quantity| bytes(&quantity.0));
            let used = usage.iter().find(|usage| usage.container_id == update.id).map_or(0, |usage| usage.memory_bytes);
            if u64::try_from(limit).is_ok_and(|limit| limit < used) {
                let name = &update.name;
                return Err(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                ));
            }
        }
        Ok(())
    }
}
