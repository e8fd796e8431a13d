//! Decides: how the objects of a definition are written: the [`Strategy`] of custom resources, driven by their schema
//! (`apiextensions-apiserver/pkg/registry/customresource`).
//!
//! Unlike a built-in kind, a custom resource is worked on in the version of the request, for each version has a schema of
//! its own; it is converted when it is read from the store and before it is written to it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::definition::{Definition, Version};
use super::{embedded, rules, validate};
use crate::api::field::{FieldError, Path, Reason};
use crate::api::object::Object;
use crate::api::resource::Resource;
use crate::api::revision::Revision;
use crate::api::status::Status;
use crate::api::trail::nowhere;
use crate::server::registry::metadata;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{NameRule, Part, Prepared, Strategy};

/// The objects of a definition, in one version. Cheap to clone.
#[derive(Clone)]
pub struct Custom {
    pub definition: Arc<Definition>,
    pub version: Arc<Version>,
    /// How the text of an object in this version begins.
    begins: Arc<str>,
}

impl Custom {
    #[must_use]
    pub fn new(definition: Arc<Definition>, version: Arc<Version>) -> Self {
        let begins = format!(r#"{{"apiVersion":"{}","#, version.api_version).into();
        Self { definition, version, begins }
    }

    /// Whether a stored object is what a client of this version is to see, as it is.
    #[must_use]
    pub fn is_current(&self, object: &Object) -> bool {
        object.revision > self.definition.since && object.json.starts_with(self.begins.as_bytes())
    }

    /// A stored object in this version.
    ///
    /// # Errors
    /// What kept it from being converted.
    pub async fn read(&self, value: Value, at: Revision) -> Result<Value, Status> {
        Ok(self.read_all(vec![(value, at)]).await?.pop().unwrap_or_default())
    }

    /// The same for several. Those that are stored in one version are converted together.
    ///
    /// # Errors
    /// As [`Custom::read`].
    pub async fn read_all(&self, stored: Vec<(Value, Revision)>) -> Result<Vec<Value>, Status> {
        let mut out = Vec::with_capacity(stored.len());
        let mut others: BTreeMap<String, Vec<(usize, Value)>> = BTreeMap::new();
        for (i, (mut value, at)) in stored.into_iter().enumerate() {
            let found = value["apiVersion"].as_str().unwrap_or_default().to_owned();
            if at <= self.definition.since
                && let Some(version) = self.definition.version(&found)
            {
                version.prune(&mut value);
                version.complete(&mut value);
            }
            if found == self.version.api_version {
                out.push(value);
            } else {
                out.push(Value::Null);
                others.entry(found).or_default().push((i, value));
            }
        }
        for objects in others.into_values() {
            let (places, objects): (Vec<usize>, Vec<Value>) = objects.into_iter().unzip();
            for (i, value) in places.into_iter().zip(self.convert(objects, &self.version).await?) {
                out[i] = value;
            }
        }
        Ok(out)
    }

    /// An object of this version as it is stored.
    ///
    /// # Errors
    /// What kept it from being converted.
    pub async fn stored<'v>(&self, value: &'v Value) -> Result<Cow<'v, Value>, Status> {
        let stored = self.definition.stored().filter(|s| s.api_version != self.version.api_version);
        let Some(stored) = stored else { return Ok(Cow::Borrowed(value)) };
        let mut value = self.convert(vec![value.clone()], stored).await?.pop().unwrap_or_default();
        stored.complete(&mut value);
        Ok(Cow::Owned(value))
    }

    async fn convert(&self, objects: Vec<Value>, to: &Version) -> Result<Vec<Value>, Status> {
        let mut objects = self.definition.conversion.convert(objects, &to.api_version).await?;
        for object in &mut objects {
            to.prune(object);
        }
        Ok(objects)
    }

    fn has_status(&self) -> bool {
        self.version.row.subresource("status").is_some()
    }

    /// In upstream's order. Who writes the status is held to the schema of the status alone, but for the rules.
    fn check(&self, part: Part, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let (row, schema) = (self.version.row, self.version.schema());
        let meta = |object: &Value| ObjectMeta::deserialize(&object["metadata"]).unwrap_or_default();
        let mut errors = match old {
            None => metadata::validate(row, NameRule::DnsSubdomain, &meta(new)),
            Some(old) => metadata::validate_update(row, &meta(new), &meta(old)),
        };
        if part == Part::Status {
            if let Some(schema) = schema.properties.get("status") {
                let before = old.map(|old| &old["status"]);
                errors.extend(validate::keywords(Some(&Path::new("status")), &new["status"], before, schema));
            }
        } else {
            errors.extend(validate::keywords(None, new, old, schema));
            errors.extend(self.check_scale(new));
            errors.extend(embedded::check(new, schema));
        }
        errors.extend(validate::lists(new, old, schema));
        if errors.iter().any(blocks_rules) {
            if !self.version.rules().is_empty() {
                let why = "some validation rules were not checked because the object was invalid; correct the existing \
                           errors to complete validation";
                errors.push(FieldError::invalid(&nowhere(), &"null", why));
            }
        } else {
            errors.extend(rules::evaluate(self.version.rules(), new, old));
        }
        errors
    }

    /// Replicas that a Scale shows are counts.
    fn check_scale(&self, object: &Value) -> Option<FieldError> {
        let names = &self.version.scale.as_ref()?.replicas;
        let replicas = names.iter().fold(object, |v, name| &v[name.as_str()]).as_i64().filter(|n| *n < 0)?;
        let mut path = Path::default();
        for name in names {
            path = path.child(name);
        }
        Some(FieldError::invalid(&path, &replicas, "should be a non-negative integer"))
    }
}

/// A value that is not of its type, or too large, is not shown to the rules.
fn blocks_rules(error: &FieldError) -> bool {
    matches!(
        error.reason,
        Reason::NotSupported | Reason::Required | Reason::TooLong | Reason::TooMany | Reason::TypeInvalid
    )
}

impl Strategy for Custom {
    fn resource(&self) -> &'static Resource {
        self.version.row
    }

    fn defaults(&self, object: &mut Value) -> Result<(), Status> {
        self.version.complete(object);
        Ok(())
    }

    fn prepare_create(&self, _: &Context, object: &mut Value) -> Result<Prepared, Status> {
        if self.has_status()
            && let Some(object) = object.as_object_mut()
        {
            object.remove("status");
        }
        object["metadata"]["generation"] = 1.into();
        Ok(Prepared { errors: self.check(Part::Spec, object, None), ..Prepared::default() })
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut Value, old: &Value) -> Result<Prepared, Status> {
        match part {
            Part::Status => {
                let status = new.as_object_mut().and_then(|n| n.remove("status"));
                *new = old.clone();
                put_or_remove(new, "status", status);
            }
            _ => {
                if self.has_status() {
                    put_or_remove(new, "status", old.get("status").cloned());
                }
                if self.wants_other(new, old) {
                    let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
                    new["metadata"]["generation"] = (generation + 1).into();
                }
            }
        }
        Ok(Prepared { errors: self.check(part, new, Some(old)), ..Prepared::default() })
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

impl Custom {
    /// Whether anything but the metadata (and the status, where that is written apart) differs.
    fn wants_other(&self, new: &Value, old: &Value) -> bool {
        let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
        let counts = |name: &&String| name.as_str() != "metadata" && !(self.has_status() && name.as_str() == "status");
        let names = new.keys().chain(old.keys());
        names.filter(counts).any(|name| new.get(name) != old.get(name))
    }
}

fn put_or_remove(object: &mut Value, name: &str, value: Option<Value>) {
    let Some(object) = object.as_object_mut() else { return };
    match value {
        Some(value) => object.insert(name.into(), value),
        None => object.remove(name),
    };
}
