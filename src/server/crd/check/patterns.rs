//! Decides: which patterns are regular expressions that upstream would use and we cannot. Each is compiled once, however
//! often it is there.

use std::collections::HashSet;

use super::props::Props;
use crate::api::field::{FieldError, Path};
use crate::server::crd::pattern::Pattern;
use crate::server::crd::shown::Text;

pub(super) fn check<'a>(schema: Props<'a>, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    one(schema, path, &mut HashSet::new(), &mut errors);
    errors
}

fn one<'a>(schema: Props<'a>, path: &Path, fine: &mut HashSet<&'a str>, errors: &mut Vec<FieldError>) {
    let text = schema.text("pattern");
    if !text.is_empty() && !fine.contains(text) {
        match Pattern::parse(text).ok().and_then(|p| p.problem()) {
            None => {
                fine.insert(text);
            }
            Some(problem) => {
                let detail =
                    format!("must be a valid regular expression, but isn't: error parsing regexp: {problem}: `{text}`");
                errors.push(FieldError::invalid(&path.child("pattern"), &Text(text), &detail));
            }
        }
    }
    for key in ["items", "additionalProperties", "not"] {
        if let Some(inner) = schema.one(key) {
            one(inner, &path.child(key), fine, errors);
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, inner) in schema.many(key).enumerate() {
            one(inner, &path.child(key).index(i), fine, errors);
        }
    }
    for (name, inner) in schema.properties() {
        one(inner, &path.child("properties").key(name), fine, errors);
    }
}
