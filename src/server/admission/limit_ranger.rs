//! Decides what the containers of a namespace ask for when they don't say, and that nothing there asks for more, or less,
//! than its LimitRanges allow.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::{Value, json};

use super::pod_resources::{self, Amounts, Of};
use super::{Attributes, Operation, Plugin};
use crate::api::quantity::Quantity;
use crate::api::status::Status;
use crate::server::objects::SharedObjects;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub struct LimitRanger {
    objects: SharedObjects,
}

impl LimitRanger {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    /// By name. What is on its way out is not held up.
    fn ranges(&self, a: &Attributes<'_>) -> Vec<LimitRange> {
        let going = a.old.is_some_and(|old| old["metadata"]["deletionTimestamp"].is_string());
        if going || !about(a) {
            return Vec::new();
        }
        let stored = self.objects.list("limitranges", Some(a.namespace));
        stored.iter().filter_map(|o| o.typed().ok()).collect()
    }
}

/// The containers of a pod can't be changed later, so it is looked at once.
fn about(a: &Attributes<'_>) -> bool {
    match a.operation {
        Operation::Create => a.is("pods") || a.is("persistentvolumeclaims"),
        Operation::Update => a.is("persistentvolumeclaims"),
        Operation::Delete | Operation::Connect => false,
    }
}

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn changes(&self) -> &'static [&'static str] {
        &["pods"]
    }

    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if !attributes.is("pods") || !object["spec"].is_object() {
            return Ok(());
        }
        for range in self.ranges(attributes) {
            let items = range.spec.unwrap_or_default().limits;
            items.iter().filter(|i| i.type_ == "Container").for_each(|item| fill(object, item));
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        for range in self.ranges(attributes) {
            let items = range.spec.unwrap_or_default().limits;
            let errors = match attributes.resource.storage {
                "pods" => typed::<Pod>(object).map(|pod| of_pod(&items, &pod)),
                _ => typed::<PersistentVolumeClaim>(object).map(|claim| of_claim(&items, &claim)),
            };
            if let Some(why) = aggregate(errors.unwrap_or_default()) {
                return Err(attributes.forbidden(Some(object), &why));
            }
        }
        Ok(())
    }
}

fn typed<T: serde::de::DeserializeOwned>(object: &Value) -> Option<T> {
    T::deserialize(object).ok()
}

/// Several errors as `utilerrors.NewAggregate` writes them.
fn aggregate(mut errors: Vec<String>) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    errors.retain(|e| seen.insert(e.clone()));
    match errors.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

/// Writes the defaults of a range into the containers that say nothing, and into an annotation what was written.
fn fill(pod: &mut Value, item: &LimitRangeItem) {
    let mut told = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|c| c.is_object()) {
            let limits = fill_list(container, "limits", item.default.as_ref());
            let requests = fill_list(container, "requests", item.default_request.as_ref());
            let name = container["name"].as_str().unwrap_or_default();
            for (names, what) in [(requests, "request"), (limits, "limit")] {
                if !names.is_empty() {
                    told.push(format!("{} {what} for {word} {name}", names.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", told.join("; ")).into();
    }
}

/// The resources that got a value.
fn fill_list(container: &mut Value, list: &str, defaults: Option<&BTreeMap<String, Text>>) -> Vec<String> {
    let mut set = Vec::new();
    for (resource, value) in defaults.into_iter().flatten() {
        if container["resources"][list][resource].is_null() {
            if !container["resources"].is_object() {
                container["resources"] = json!({});
            }
            container["resources"][list][resource] = value.0.as_str().into();
            set.push(resource.clone());
        }
    }
    set
}

fn of_pod(items: &[LimitRangeItem], pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut errors = Vec::new();
    for item in items {
        let bounds = Bounds::of(item);
        match item.type_.as_str() {
            "Container" => {
                for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                    let of = |kind| pod_resources::of_container(container as &Container, kind);
                    bounds.check(&mut errors, &of(Of::Requests), &of(Of::Limits));
                }
            }
            "Pod" => {
                let (requests, limits) =
                    (pod_resources::of_pod(spec, Of::Requests), pod_resources::of_pod(spec, Of::Limits));
                bounds.check(&mut errors, &requests, &limits);
            }
            _ => {}
        }
    }
    errors
}

/// Claims have requests only.
fn of_claim(items: &[LimitRangeItem], claim: &PersistentVolumeClaim) -> Vec<String> {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    let requests = pod_resources::parse(resources.and_then(|r| r.requests.as_ref()));
    let mut errors = Vec::new();
    for item in items.iter().filter(|i| i.type_ == "PersistentVolumeClaim") {
        let bounds = Bounds::of(item);
        for (name, least) in &bounds.min {
            errors.extend(bounds.least(name, *least, requests.get(name), None));
        }
        for (name, most) in &bounds.max {
            errors.extend(bounds.most_requested(name, *most, requests.get(name)));
        }
    }
    errors
}

/// What one item of a range allows.
struct Bounds<'a> {
    kind: &'a str,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
}

impl<'a> Bounds<'a> {
    fn of(item: &'a LimitRangeItem) -> Self {
        Self {
            kind: &item.type_,
            min: pod_resources::parse(item.min.as_ref()),
            max: pod_resources::parse(item.max.as_ref()),
            ratio: pod_resources::parse(item.max_limit_request_ratio.as_ref()),
        }
    }

    fn check(&self, errors: &mut Vec<String>, requests: &Amounts, limits: &Amounts) {
        for (name, least) in &self.min {
            errors.extend(self.least(name, *least, requests.get(name), limits.get(name)));
        }
        for (name, most) in &self.max {
            errors.extend(self.most(name, *most, requests.get(name), limits.get(name)));
        }
        for (name, ratio) in &self.ratio {
            errors.extend(self.within(name, *ratio, requests.get(name), limits.get(name)));
        }
    }

    fn least(
        &self,
        name: &str,
        least: Quantity,
        request: Option<&Quantity>,
        limit: Option<&Quantity>,
    ) -> Option<String> {
        let said = format!("minimum {name} usage per {} is {least}", self.kind);
        match (request, limit) {
            (None, _) => Some(format!("{said}.  No request is specified")),
            (Some(r), _) if *r < least => Some(format!("{said}, but request is {r}")),
            (_, Some(l)) if *l < least => Some(format!("{said}, but limit is {l}")),
            _ => None,
        }
    }

    fn most(&self, name: &str, most: Quantity, request: Option<&Quantity>, limit: Option<&Quantity>) -> Option<String> {
        let said = format!("maximum {name} usage per {} is {most}", self.kind);
        match (request, limit) {
            (_, None) => Some(format!("{said}.  No limit is specified")),
            (_, Some(l)) if *l > most => Some(format!("{said}, but limit is {l}")),
            (Some(r), _) if *r > most => Some(format!("{said}, but request is {r}")),
            _ => None,
        }
    }

    fn most_requested(&self, name: &str, most: Quantity, request: Option<&Quantity>) -> Option<String> {
        let said = format!("maximum {name} usage per {} is {most}", self.kind);
        match request {
            None => Some(format!("{said}.  No request is specified")),
            Some(r) if *r > most => Some(format!("{said}, but request is {r}")),
            Some(_) => None,
        }
    }

    fn within(
        &self,
        name: &str,
        ratio: Quantity,
        request: Option<&Quantity>,
        limit: Option<&Quantity>,
    ) -> Option<String> {
        let said = format!("{name} max limit to request ratio per {} is {ratio}", self.kind);
        let Some(request) = request.filter(|r| !r.is_zero()) else {
            return Some(format!("{said}, but no request is specified or request is 0"));
        };
        let Some(limit) = limit.filter(|l| !l.is_zero()) else {
            return Some(format!("{said}, but no limit is specified or limit is 0"));
        };
        let given = limit.ratio(*request);
        (given > ratio.ratio(Quantity::from_milli(1000))).then(|| format!("{said}, but provided ratio is {given:.6}"))
    }
}
