//! Decides: PodTemplate: a template that is kept on its own.

use k8s_openapi::api::core::v1::PodTemplate;

use super::pod::{defaults, spec, warnings};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::strategy::Kind;

pub struct PodTemplateKind;

impl Kind for PodTemplateKind {
    type Object = PodTemplate;

    fn resource(&self) -> &'static Resource {
        row("v1", "PodTemplate")
    }

    fn defaults(&self, template: &mut PodTemplate) {
        defaults::template(template.template.get_or_insert_default());
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/template"]
    }

    fn validate(&self, template: &PodTemplate) -> Vec<FieldError> {
        let mut errors = Vec::new();
        spec::template(&mut errors, &Path::new("template"), &template.template.clone().unwrap_or_default());
        errors
    }

    fn warnings(&self, template: &PodTemplate) -> Vec<String> {
        template.template.as_ref().map(|t| warnings::of_template(&Path::new("template"), t)).unwrap_or_default()
    }
}
