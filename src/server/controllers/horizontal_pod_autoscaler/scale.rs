//! Decides: what a HorizontalPodAutoscaler scales, by the `scale` subresource that its target has.

use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use serde_json::Value;

use super::asked::{Asked, kind_of};
use crate::api::query::encode;
use crate::api::resource::Resource;
use crate::client::request::{Request, Verb};
use crate::server::controllers::stores::Stores;

/// As the server answered it.
pub struct Scale {
    resource: &'static Resource,
    body: Value,
}

impl Scale {
    /// # Errors
    /// When there is no such kind, it has no scale, or there is no such object.
    pub fn of(
        stores: &Stores,
        asked: &Asked<'_>,
        namespace: &str,
        target: &CrossVersionObjectReference,
    ) -> Result<Self, String> {
        let resource = kind_of(stores, target.api_version.as_deref(), &target.kind)?;
        if resource.subresource("scale").is_none() || !resource.namespaced {
            return Err("the server could not find the requested resource".into());
        }
        let path = format!("{}/{}/scale", resource.path(Some(namespace)), encode(&target.name));
        Ok(Self { resource, body: asked.get(path)?.clone() })
    }

    fn number(&self, pointer: &str) -> i32 {
        let number = self.body.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        i32::try_from(number).unwrap_or(i32::MAX)
    }

    /// How many there should be.
    pub fn wanted(&self) -> i32 {
        self.number("/spec/replicas")
    }

    /// How many there are.
    pub fn existing(&self) -> i32 {
        self.number("/status/replicas")
    }

    pub fn selector(&self) -> &str {
        self.body.pointer("/status/selector").and_then(Value::as_str).unwrap_or_default()
    }

    /// Fails when somebody else has changed the target meanwhile.
    pub fn to(&self, replicas: i32) -> Request {
        let mut body = self.body.clone();
        body["spec"]["replicas"] = replicas.into();
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        Request::new(Verb::Update, self.resource, &namespace, &name, body).on("scale")
    }
}
