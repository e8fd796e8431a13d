//! Decides: CustomResourceDefinition.
//!
//! ```text
//! created ─▶ (controllers accept its names and establish it) ─▶ served
//! deleted ─▶ Terminating, with the finalizer ─▶ (controller deletes the objects, takes the finalizer away) ─▶ gone
//! ```

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinitionCondition,
};

use super::types::{CustomResourceDefinition, Status};
use super::{schema, validate};
use crate::api::field::FieldError;
use crate::api::resource::Resource;
use crate::clock;
use crate::server::registry::kinds::row;
use crate::server::registry::request::{Context, DeleteOptions};
use crate::server::registry::strategy::{Kind, Part, Removal};

/// Holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

pub struct CustomResourceDefinitionKind;

impl Kind for CustomResourceDefinitionKind {
    type Object = CustomResourceDefinition;

    fn resource(&self) -> &'static Resource {
        row("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    }

    fn defaults(&self, definition: &mut CustomResourceDefinition) {
        let (spec, status) = (&mut definition.spec, &mut definition.status);
        let names = &mut spec.names;
        if names.singular.as_ref().is_none_or(String::is_empty) {
            names.singular = Some(names.kind.to_lowercase()).filter(|s| !s.is_empty());
        }
        if names.list_kind.as_ref().is_none_or(String::is_empty) && !names.kind.is_empty() {
            names.list_kind = Some(format!("{}List", names.kind));
        }
        let none = || CustomResourceConversion { strategy: "None".into(), webhook: None };
        let conversion = spec.conversion.get_or_insert_with(none);
        let config = conversion.webhook.as_mut().and_then(|w| w.client_config.as_mut());
        if let Some(service) = config.and_then(|c| c.service.as_mut()) {
            service.port.get_or_insert(443);
        }
        if status.stored_versions.as_ref().is_none_or(Vec::is_empty) {
            status.stored_versions = spec.versions.iter().find(|v| v.storage).map(|v| vec![v.name.clone()]);
        }
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, definition: &mut CustomResourceDefinition) {
        definition.status = Status::default();
        store_version(definition);
    }

    fn prepare_update(
        &self,
        _: &Context,
        part: Part,
        new: &mut CustomResourceDefinition,
        _: &CustomResourceDefinition,
    ) {
        if part == Part::Spec {
            store_version(new);
        }
    }

    fn validate_create(&self, definition: &CustomResourceDefinition) -> Vec<FieldError> {
        validate::create(definition)
    }

    fn validate_update(
        &self,
        part: Part,
        new: &CustomResourceDefinition,
        old: &CustomResourceDefinition,
    ) -> Vec<FieldError> {
        if part == Part::Status { validate::status(new) } else { validate::update(new, old) }
    }

    fn warnings(&self, definition: &CustomResourceDefinition) -> Vec<String> {
        schema::unknown_formats(&definition.spec).iter().map(|f| format!("unrecognized format {f:?}")).collect()
    }

    /// Only of what the update brought.
    fn update_warnings(&self, new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> Vec<String> {
        let known = self.warnings(old);
        self.warnings(new).into_iter().filter(|w| !known.contains(w)).collect()
    }

    /// The first delete only marks it, whether or not there are objects.
    fn removal(&self, definition: &mut CustomResourceDefinition, _: &DeleteOptions) -> Removal {
        let finalizers = definition.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == CLEANUP) {
            finalizers.push(CLEANUP.into());
        }
        set_condition(
            definition,
            CustomResourceDefinitionCondition {
                type_: "Terminating".into(),
                status: "True".into(),
                reason: Some("InstanceDeletionPending".into()),
                message: Some(
                    "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon".into(),
                ),
                ..CustomResourceDefinitionCondition::default()
            },
        );
        Removal::Finalize
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

/// Objects may be stored in this version from now on.
fn store_version(definition: &mut CustomResourceDefinition) {
    let Some(version) = definition.spec.versions.iter().find(|v| v.storage) else { return };
    let stored = definition.status.stored_versions.get_or_insert_default();
    if !stored.contains(&version.name) {
        stored.push(version.name.clone());
    }
}

/// Adds a condition or replaces the one of its type; its time is that of the last change of its status.
pub fn set_condition(definition: &mut CustomResourceDefinition, mut new: CustomResourceDefinitionCondition) {
    let conditions = definition.status.conditions.get_or_insert_default();
    let Some(old) = conditions.iter_mut().find(|c| c.type_ == new.type_) else {
        new.last_transition_time = Some(clock::time());
        conditions.push(new);
        return;
    };
    let since = old.last_transition_time.take().filter(|_| old.status == new.status);
    new.last_transition_time = since.or_else(|| Some(clock::time()));
    new.observed_generation = old.observed_generation;
    *old = new;
}
