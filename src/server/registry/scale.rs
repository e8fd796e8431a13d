//! Effects: the `scale` subresource: `autoscaling/v1` Scale as a view of an object's replicas.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::managed::Ownership;
use super::request::{Context, Target, WriteOptions, Written};
use super::strategy::Part;
use super::{Entry, Failed, MAX_ATTEMPTS, Registry, meta};
use crate::api::encode::Draft;
use crate::api::field::{FieldError, Path};
use crate::api::object::ObjectRef;
use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::server::crd::definition::ScalePaths;
use crate::server::crd::strategy::Custom;

/// What error messages call it; it is never stored.
pub static RESOURCE: Resource = Resource::unstored("autoscaling", "scales", "scale", "Scale");

impl Registry {
    pub(super) async fn update_scale(
        &self,
        cx: &Context,
        t: &Target,
        body: Value,
        o: &WriteOptions,
    ) -> Result<Written, Status> {
        let entry = &*self.entry(t)?;
        meta::check_name(t, &body)?;
        for _ in 0..MAX_ATTEMPTS {
            let old = self.find(entry, t)?;
            let before = entry.live(&old).await?;
            match self.rescale(cx, t, entry, (&old, before), &body, o).await {
                Err(Failed::Conflict) => {}
                Err(Failed::Refused(status)) => return Err(status),
                Ok(object) => return Ok(Written { object, created: false }),
            }
        }
        Err(Status::modified(t.resource, &t.name))
    }

    /// One attempt to write the replicas of a Scale; answers with the Scale after it.
    pub(super) async fn rescale(
        &self,
        cx: &Context,
        t: &Target,
        entry: &Entry,
        (old, before): (&ObjectRef, Value),
        scale: &Value,
        o: &WriteOptions,
    ) -> Result<ObjectRef, Failed> {
        meta::check_preconditions(t, scale, &before, old.revision, true)?;
        let replicas = &scale["spec"]["replicas"];
        let path = Path::new("spec").child("replicas");
        let count = match replicas {
            Value::Null => 0,
            other => other.as_i64().filter(|n| i32::try_from(*n).is_ok()).ok_or_else(|| {
                Status::bad_request(format!(
                    "Scale in version \"v1\" cannot be handled as a Scale: {path}: not an int32"
                ))
            })?,
        };
        if count < 0 {
            let error = FieldError::invalid(&path, &count, "must be greater than or equal to 0");
            return Err(Status::invalid(&RESOURCE, &t.name, &[error]).into());
        }
        let mut new = before.clone();
        put_replicas(entry.custom.as_ref(), &mut new, count.into());
        let writer = Ownership::Changed { manager: &o.field_manager };
        let written = self.replace(cx, t, entry, (Part::Spec, writer), (old, before), new, o).await?;
        Ok(of(t, entry, &written).await?)
    }
}

/// An applied Scale as a document of the object that it scales: whoever applies it owns the replicas there.
pub fn as_parent(t: &Target, custom: Option<&Custom>, scale: &Value) -> Result<Value, Status> {
    let given = scale["apiVersion"].as_str().unwrap_or_default();
    if given != "autoscaling/v1" {
        return Err(Status::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {given}, expected: autoscaling/v1"
        )));
    }
    let mut metadata = json!({"name": t.name});
    for field in ["namespace", "uid", "resourceVersion"] {
        if !scale["metadata"][field].is_null() {
            metadata[field] = scale["metadata"][field].clone();
        }
    }
    let mut document = json!({"apiVersion": t.resource.api_version(), "kind": t.resource.kind, "metadata": metadata});
    if !scale["spec"]["replicas"].is_null() {
        put_replicas(custom, &mut document, scale["spec"]["replicas"].clone());
    }
    Ok(document)
}

/// The Scale of an object.
pub(super) async fn of(t: &Target, entry: &Entry, object: &ObjectRef) -> Result<ObjectRef, Status> {
    let document = document(t, entry.custom.as_ref(), &entry.live(object).await?);
    let draft = Draft::new(object.key.clone(), &document, &[]);
    Ok(Arc::new(draft.at(object.revision)))
}

pub fn document(t: &Target, custom: Option<&Custom>, value: &Value) -> Value {
    let paths = paths(custom);
    let from = &value["metadata"];
    let mut metadata = json!({"name": t.name});
    for field in ["namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !from[field].is_null() {
            metadata[field] = from[field].clone();
        }
    }
    let mut scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": {},
        "status": {"replicas": at(value, &paths.status_replicas).as_i64().unwrap_or_default()},
    });
    // As the typed struct encodes it: no field for 0.
    if let Some(replicas) = at(value, &paths.replicas).as_i64().filter(|n| *n != 0) {
        scale["spec"]["replicas"] = replicas.into();
    }
    // The selector of a ReplicationController is a plain map, that of a custom resource is text already.
    let selector = at(value, &paths.selector);
    let selector = match selector {
        Value::String(text) => text.clone(),
        _ if t.resource.kind == "ReplicationController" => selector_text(&json!({"matchLabels": selector})),
        _ => selector_text(selector),
    };
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// Where a kind has what a Scale shows.
fn paths(custom: Option<&Custom>) -> Cow<'_, ScalePaths> {
    match custom.and_then(|c| c.version.scale.as_ref()) {
        Some(paths) => Cow::Borrowed(paths),
        None => Cow::Owned(ScalePaths::default()),
    }
}

fn at<'a>(value: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(value, |v, name| &v[name.as_str()])
}

/// Sets what a Scale sets in an object.
pub fn put_replicas(custom: Option<&Custom>, object: &mut Value, replicas: Value) {
    let mut place = object;
    for name in &paths(custom).replicas {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[name.as_str()];
    }
    *place = replicas;
}

/// A label selector as the query string writes it, in the order upstream sorts requirements: by key.
fn selector_text(selector: &Value) -> String {
    let mut terms: Vec<(String, String)> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        terms.push((key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for requirement in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = requirement["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> =
            requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match requirement["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => continue,
        };
        terms.push((key.to_owned(), term));
    }
    terms.sort();
    terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().join(",")
}
