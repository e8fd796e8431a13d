//! Decides the IngressClass of an Ingress that names none: the one that is marked as the default.

use serde_json::Value;

use super::{Attributes, Operation, Plugin, newest};
use crate::api::status::Status;
use crate::server::objects::SharedObjects;

const STORAGE: &str = "networking.k8s.io/ingressclasses";
const IS_DEFAULT: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
/// What names the class in the Ingresses of old.
const NAMED: &str = "kubernetes.io/ingress.class";

pub struct DefaultIngressClass {
    objects: SharedObjects,
}

impl DefaultIngressClass {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }
}

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn changes(&self) -> &'static [&'static str] {
        &["networking.k8s.io/ingresses"]
    }

    fn mutate(&self, attributes: &Attributes<'_>, ingress: &mut Value) -> Result<(), Status> {
        if !attributes.is("networking.k8s.io/ingresses") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let named =
            ingress["metadata"]["annotations"][NAMED].is_string() || ingress["spec"]["ingressClassName"].is_string();
        if !named
            && ingress["spec"].is_object()
            && let Some(class) = newest(&*self.objects, STORAGE, &IS_DEFAULT)
        {
            ingress["spec"]["ingressClassName"] = class.into();
        }
        Ok(())
    }
}
