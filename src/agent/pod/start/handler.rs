//! Effects: which of the runtime's handlers a pod's sandbox is for (`spec.runtimeClassName`), and which users it has.

use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::Api;

use super::Operation;
use crate::agent::pod::{pod_spec, uid};
use crate::agent::users;
use crate::cri::containerd::Layout;
use crate::cri::v1;

impl Operation {
    /// The name of the handler; empty for the runtime's default.
    ///
    /// # Errors
    /// What keeps the sandbox from being made, as the event says it.
    pub(super) async fn handler(&self) -> Result<String, String> {
        let spec = pod_spec(&self.pod);
        match spec.runtime_class_name.as_deref().filter(|name| !name.is_empty()) {
            None => Ok(String::new()),
            Some(name) => {
                let classes: Api<RuntimeClass> = Api::all(self.cx.client.clone());
                let class = classes.get(name).await;
                Ok(class.map_err(|error| format!("failed to get RuntimeClass {name:?}: {error}"))?.handler)
            }
        }
    }

    /// Users of the pod's own, when it asks to be kept apart from those of the node: it must not run among them.
    ///
    /// # Errors
    /// There are none for it, as the event says it.
    pub(super) async fn users(&self) -> Result<Option<v1::UserNamespace>, String> {
        if pod_spec(&self.pod).host_users != Some(false) {
            return Ok(None);
        }
        let handler = self.handler().await?;
        let health = self.cx.runtime.health().await.map_err(|error| error.to_string())?;
        users::supported(&health.handlers, &handler)?;
        let config = &self.cx.config;
        if config.runtime_endpoint.is_none() {
            let state = Layout::new(&config.data_dir).state();
            users::let_through(&config.data_dir, &state).map_err(|error| format!("{}: {error}", state.display()))?;
        }
        self.cx.users.of(uid(&self.pod)).await.map(Some)
    }
}
