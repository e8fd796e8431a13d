//! Decides: MutatingWebhookConfiguration.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;

use super::{static_name, webhook};
use crate::api::field::FieldError;
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::strategy::Kind;

pub struct MutatingWebhookConfigurationKind;

impl Kind for MutatingWebhookConfigurationKind {
    type Object = MutatingWebhookConfiguration;

    fn resource(&self) -> &'static Resource {
        row("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")
    }

    fn defaults(&self, configuration: &mut MutatingWebhookConfiguration) {
        for hook in configuration.webhooks.iter_mut().flatten() {
            hook.failure_policy.get_or_insert_with(|| "Fail".into());
            hook.match_policy.get_or_insert_with(|| "Equivalent".into());
            hook.namespace_selector.get_or_insert_default();
            hook.object_selector.get_or_insert_default();
            hook.timeout_seconds.get_or_insert(webhook::DEFAULT_SECONDS);
            hook.reinvocation_policy.get_or_insert_with(|| "Never".into());
            webhook::defaults(&mut hook.client_config, hook.rules.as_mut());
        }
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/webhooks"]
    }

    fn validate(&self, configuration: &MutatingWebhookConfiguration) -> Vec<FieldError> {
        webhook::check(configuration.webhooks.iter().flatten())
    }

    fn warnings(&self, configuration: &MutatingWebhookConfiguration) -> Vec<String> {
        static_name(configuration.metadata.name.as_deref())
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}
