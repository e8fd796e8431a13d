//! Decides: whether defaults are what their schema says: without fields that it does not have, and valid
//! (`apiextensions-apiserver/pkg/apiserver/schema/defaulting/validation.go`).

use serde_json::{Value, json};

use crate::api::field::{FieldError, Path};
use crate::server::crd::embedded;
use crate::server::crd::prune::{is_meta, prune};
use crate::server::crd::shown::Shown;
use crate::server::crd::structural::Structural;
use crate::server::crd::validate;

/// The way from an object to a field in it.
#[derive(Clone, Copy)]
enum Way<'a> {
    Object,
    Field(&'a Way<'a>, &'a str),
    Item(&'a Way<'a>),
}

struct Place<'a> {
    /// The schema of the object that has metadata: the whole, or an embedded one.
    object: &'a Structural,
    way: Way<'a>,
    /// Whether this is in `apiVersion`, `kind` or `metadata` of the object.
    in_meta: bool,
}

pub(super) fn check(schema: &Structural, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let place = Place { object: schema, way: Way::Object, in_meta: false };
    one(schema, true, &place, path, &mut errors);
    errors
}

fn one(schema: &Structural, embedded: bool, place: &Place, path: &Path, errors: &mut Vec<FieldError>) {
    let own = Place { object: schema, way: Way::Object, in_meta: false };
    let place = if embedded { &own } else { place };
    if let Some(default) = &schema.default {
        let at = path.child("default");
        if place.in_meta {
            in_meta(default, schema, place, &at, errors);
        } else {
            plain(default, schema, embedded, &at, errors);
        }
    }
    if let Some(items) = &schema.items {
        let place = Place { object: place.object, way: Way::Item(&place.way), in_meta: place.in_meta };
        one(items, items.embedded, &place, &path.child("items"), errors);
    }
    for (name, property) in &schema.properties {
        let in_meta = place.in_meta || (embedded && is_meta(name));
        let place = Place { object: place.object, way: Way::Field(&place.way, name), in_meta };
        one(property, property.embedded, &place, &path.child("properties").key(name), errors);
    }
}

fn plain(default: &Value, schema: &Structural, embedded: bool, at: &Path, errors: &mut Vec<FieldError>) {
    let mut value = default.clone();
    prune(&mut value, schema, embedded);
    if value != *default {
        errors.push(FieldError::invalid(at, &Shown(default), "must not have unknown fields"));
    }
    value = default.clone();
    if let Err(error) = embedded::coerce_below(Some(at), &mut value, schema, embedded) {
        errors.push(error);
        return;
    }
    let found = embedded::check_below(Some(at), &value, schema, embedded);
    if found.is_empty() {
        errors.extend(validate::keywords(Some(at), &value, None, schema));
    }
    errors.extend(found);
}

/// A default in metadata is tried in an object that has nothing else.
fn in_meta(default: &Value, schema: &Structural, place: &Place, at: &Path, errors: &mut Vec<FieldError>) {
    let mut object = around(default.clone(), &place.way);
    object["apiVersion"] = "validation/v1".into();
    object["kind"] = "Validation".into();
    let wrong = match embedded::coerce_below(None, &mut object, place.object, true) {
        Err(error) => vec![error],
        Ok(_) => embedded::check_below(None, &object, place.object, true),
    };
    let texts: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    let aggregate = match texts.as_slice() {
        [] => {
            errors.extend(validate::keywords(Some(at), default, None, schema));
            return;
        }
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    let detail = format!("must result in valid metadata: {aggregate}");
    errors.push(FieldError::invalid(at, &Shown(default), &detail));
}

fn around(value: Value, way: &Way) -> Value {
    match way {
        Way::Object => value,
        Way::Field(outer, name) => around(json!({*name: value}), outer),
        Way::Item(outer) => around(json!([value]), outer),
    }
}
