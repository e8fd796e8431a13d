//! Effects: which of the runtime's handlers a pod's sandbox is for (`spec.runtimeClassName`).

use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::Api;

use super::Operation;
use crate::agent::pod::pod_spec;

impl Operation {
    /// The name of the handler; empty for the runtime's default.
    ///
    /// # Errors
    /// What keeps the sandbox from being made, as the event says it.
    pub(super) async fn handler(&self) -> Result<String, String> {
        let spec = pod_spec(&self.pod);
        let handler = match spec.runtime_class_name.as_deref().filter(|name| !name.is_empty()) {
            None => String::new(),
            Some(name) => {
                let classes: Api<RuntimeClass> = Api::all(self.cx.client.clone());
                let class = classes.get(name).await;
                class.map_err(|error| format!("failed to get RuntimeClass {name:?}: {error}"))?.handler
            }
        };
        // A pod that asks to be kept apart from the users of the node must not run among them.
        if spec.host_users == Some(false) {
            return Err(format!("RuntimeClass handler {handler:?} does not support user namespaces"));
        }
        Ok(handler)
    }
}
