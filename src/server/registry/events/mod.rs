//! Decides: Event, which both `v1` and `events.k8s.io/v1` serve. It is stored as `v1`; the other group renames fields.

use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid};
use crate::server::registry::strategy::{Kind, Part};

/// `v1` on the left, `events.k8s.io/v1` on the right.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];
const GROUP: &str = "events.k8s.io/v1";
const MAX_TEXT: usize = 128;
const MAX_NOTE: usize = 1024;

/// Event as one of the two groups serves it.
pub enum EventKind {
    Core,
    Events,
}

impl EventKind {
    fn new_style(&self) -> bool {
        matches!(self, Self::Events)
    }
}

impl Kind for EventKind {
    type Object = Event;

    fn resource(&self) -> &'static Resource {
        row(if self.new_style() { GROUP } else { "v1" }, "Event")
    }

    fn defaults(&self, event: &mut Event) {
        event.source.get_or_insert_default();
        event.reporting_component.get_or_insert_default();
        event.reporting_instance.get_or_insert_default();
    }

    fn validate(&self, event: &Event) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.new_style() && event.event_time.is_none() {
            errors.push(FieldError::required(&Path::new("eventTime"), ""));
        }
        legacy(&mut errors, event, self.new_style());
        errors
    }

    fn validate_create(&self, event: &Event) -> Vec<FieldError> {
        let mut errors = self.validate(event);
        if self.new_style() {
            series(&mut errors, event);
            let kind = event.type_.as_deref().unwrap_or_default();
            if !matches!(kind, "Normal" | "Warning") {
                let message = format!("has invalid value: {kind}");
                errors.push(FieldError::invalid(&Path::new("type"), &"", &message));
            }
            let unset = "needs to be unset";
            let count = event.count.unwrap_or_default();
            for (field, set) in [
                ("firstTimestamp", event.first_timestamp.is_some()),
                ("lastTimestamp", event.last_timestamp.is_some()),
                ("count", count != 0),
            ] {
                if set {
                    errors.push(FieldError::invalid(&Path::new(field), &"", unset));
                }
            }
        }
        errors
    }

    fn validate_update(&self, _: Part, new: &Event, _: &Event) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        if self.new_style() {
            series(&mut errors, new);
        }
        errors
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn storage_form(&self, object: Value) -> Value {
        if self.new_style() { rename(object, "v1", |&(core, events)| (events, core)) } else { object }
    }

    fn wire_form(&self, object: Value) -> Value {
        if self.new_style() { rename(object, GROUP, |&pair| pair) } else { object }
    }
}

fn rename(
    mut object: Value,
    version: &str,
    pair: impl Fn(&(&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".into(), version.into());
        for (from, to) in RENAMED.iter().map(pair) {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.into(), value);
            }
        }
    }
    object
}

fn series(errors: &mut Errors, event: &Event) {
    let Some(series) = &event.series else { return };
    if series.count.unwrap_or_default() < 2 {
        errors.push(FieldError::invalid(&Path::new("series.count"), &"", "should be at least 2"));
    }
    if series.last_observed_time.is_none() {
        errors.push(FieldError::required(&Path::new("series.lastObservedTime"), ""));
    }
}

fn legacy(errors: &mut Errors, event: &Event, new_style: bool) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let about = event.involved_object.namespace.as_deref().unwrap_or_default();
    let mismatch = match (event.event_time.is_some(), about) {
        (false, "") => !matches!(namespace, "" | "default"),
        (false, about) => about != namespace,
        (true, "") => !matches!(namespace, "default" | "kube-system"),
        (true, _) => false,
    };
    if mismatch {
        let path = Path::new("involvedObject").child("namespace");
        errors.push(FieldError::invalid(&path, &about, "does not match event.namespace"));
    }
    if event.event_time.is_some() {
        let controller = event.reporting_component.as_deref().unwrap_or_default();
        let path = Path::new(if new_style { "reportingController" } else { "reportingComponent" });
        if controller.is_empty() {
            errors.push(FieldError::required(&path, ""));
        }
        invalid(errors, &path, &controller, format::qualified_name(controller));
        for (field, text) in
            [("reportingInstance", &event.reporting_instance), ("action", &event.action), ("reason", &event.reason)]
        {
            let text = text.as_deref().unwrap_or_default();
            if text.is_empty() {
                errors.push(FieldError::required(&Path::new(field), ""));
            }
            if text.len() > MAX_TEXT {
                errors.push(FieldError::invalid(&Path::new(field), &"", "can have at most 128 characters"));
            }
        }
        if event.message.as_deref().unwrap_or_default().len() > MAX_NOTE {
            errors.push(FieldError::invalid(&Path::new("message"), &"", "can have at most 1024 characters"));
        }
    }
    invalid(errors, &Path::new("namespace"), &namespace, format::dns_subdomain(namespace));
}

#[cfg(test)]
mod tests;
