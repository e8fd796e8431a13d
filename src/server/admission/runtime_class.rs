//! Decides what the RuntimeClass of a pod adds to it: the overhead of running it that way, and where that is possible.

use serde_json::{Map, Value};

use super::{Attributes, Operation, Plugin};
use crate::api::quantity::Quantity;
use crate::api::status::Status;
use crate::server::objects::SharedObjects;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

pub struct RuntimeClass {
    objects: SharedObjects,
}

impl RuntimeClass {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    /// The class that a pod names; null when it names none.
    fn class(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<Value, Status> {
        let Some(name) = pod["spec"]["runtimeClassName"].as_str() else { return Ok(Value::Null) };
        let stored = self.objects.get("node.k8s.io/runtimeclasses", "", name).and_then(|c| c.value().ok());
        stored.ok_or_else(|| attributes.forbidden(Some(pod), &format!("pod rejected: RuntimeClass {name:?} not found")))
    }
}

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn changes(&self) -> &'static [&'static str] {
        &["pods"]
    }

    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !attributes.is("pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let class = self.class(attributes, pod)?;
        let overhead = &class["overhead"]["podFixed"];
        if class["overhead"].is_object() {
            if !pod["spec"]["overhead"].is_null() && !same(&pod["spec"]["overhead"], overhead) {
                return Err(attributes.forbidden(Some(pod), MISMATCH));
            }
            if overhead.is_object() {
                pod["spec"]["overhead"] = overhead.clone();
            }
        }
        if class["scheduling"].is_object() {
            select(attributes, pod, &class["scheduling"]["nodeSelector"])?;
            tolerate(pod, &class["scheduling"]["tolerations"]);
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| attributes.is("pods") && attributes.operation == Operation::Create) else {
            return Ok(());
        };
        let class = self.class(attributes, pod)?;
        let overhead = &pod["spec"]["overhead"];
        if class["overhead"].is_object() {
            if !same(overhead, &class["overhead"]["podFixed"]) {
                return Err(attributes.forbidden(Some(pod), MISMATCH));
            }
        } else if !overhead.is_null() {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return Err(attributes.forbidden(Some(pod), why));
        }
        Ok(())
    }
}

/// Quantities are compared by their value.
fn same(a: &Value, b: &Value) -> bool {
    let empty = Map::new();
    let (a, b) = (a.as_object().unwrap_or(&empty), b.as_object().unwrap_or(&empty));
    let amount = |v: &Value| Quantity::parse(v.as_str().unwrap_or_default()).ok();
    a.len() == b.len() && a.iter().all(|(name, v)| b.get(name).is_some_and(|w| amount(v) == amount(w)))
}

fn select(attributes: &Attributes<'_>, pod: &mut Value, wanted: &Value) -> Result<(), Status> {
    for (key, value) in wanted.as_object().into_iter().flatten() {
        let (wanted, given) = (value.as_str().unwrap_or_default(), pod["spec"]["nodeSelector"][key].as_str());
        if let Some(given) = given.filter(|g| *g != wanted) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {given}"
            );
            return Err(attributes.forbidden(Some(pod), &why));
        }
        pod["spec"]["nodeSelector"][key] = value.clone();
    }
    if pod["spec"]["nodeSelector"].is_null()
        && let Some(spec) = pod["spec"].as_object_mut()
    {
        spec.remove("nodeSelector");
    }
    Ok(())
}

/// Adds those that the pod doesn't have.
fn tolerate(pod: &mut Value, more: &Value) {
    for toleration in more.as_array().into_iter().flatten() {
        match &mut pod["spec"]["tolerations"] {
            Value::Array(list) if list.contains(toleration) => {}
            Value::Array(list) => list.push(toleration.clone()),
            list => *list = vec![toleration.clone()].into(),
        }
    }
}
