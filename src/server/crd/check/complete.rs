//! Decides: whether every field that alternatives restrict is also specified outside of them. Upstream asks that only of
//! the alternatives at the root (`apiextensions-apiserver/pkg/apiserver/schema/complete.go`).

use super::props::Props;
use crate::api::field::{FieldError, Path};

pub(super) fn check(schema: Props, path: &Path, errors: &mut Vec<FieldError>) {
    alternatives(schema, schema, path, path, errors);
}

/// `nested` restricts what `schema` at `outside` specifies; it stands at `inside`.
fn alternatives(nested: Props, schema: Props, outside: &Path, inside: &Path, errors: &mut Vec<FieldError>) {
    if let Some(not) = nested.one("not") {
        restricted(not, Some(schema), outside, &inside.child("not"), errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, one) in nested.many(key).enumerate() {
            restricted(one, Some(schema), outside, &inside.child(key).index(i), errors);
        }
    }
}

fn restricted(nested: Props, schema: Option<Props>, outside: &Path, inside: &Path, errors: &mut Vec<FieldError>) {
    let Some(schema) = schema else {
        errors.push(FieldError::required(outside, &format!("because it is defined in {inside}")));
        return;
    };
    alternatives(nested, schema, outside, inside, errors);
    if let Some(items) = nested.one("items") {
        restricted(items, schema.one("items"), &outside.child("items"), &inside.child("items"), errors);
    }
    for (name, property) in nested.properties() {
        let (outside, inside) = (outside.child("properties").key(name), inside.child("properties").key(name));
        restricted(property, schema.property(name), &outside, &inside, errors);
    }
}
