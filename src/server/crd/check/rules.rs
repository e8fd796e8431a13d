//! Decides: what is said of rules (`x-kubernetes-validations`) before anybody reads their CEL, and where they all are.

use serde_json::Value;

use super::props::Props;
use crate::api::field::{FieldError, Path};
use crate::server::crd::compile;
use crate::server::crd::field_path;
use crate::server::crd::shown::Text;
use crate::server::crd::structural::{ListType, Structural};

const KEY: &str = "x-kubernetes-validations";
const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// A schema with rules.
pub struct Site<'a> {
    /// That of `x-kubernetes-validations`; a rule is at its index below.
    pub path: Path,
    pub schema: &'a Structural,
    /// The list around this that makes it unknown which old value belongs to a new one, so that rules may not ask for
    /// `oldSelf`.
    pub uncorrelatable: Option<Path>,
}

/// Visits the schemas that have rules, in the order in which upstream reports what is wrong with them: what is inside
/// comes first. Only for a schema in which [`super::check`] found nothing.
pub fn visit_rules<'a>(schema: &'a Structural, path: &Path, visit: &mut dyn FnMut(&Site<'a>)) {
    walk(schema, path, None, visit);
}

fn walk<'a>(schema: &'a Structural, path: &Path, list: Option<&Path>, visit: &mut dyn FnMut(&Site<'a>)) {
    if let Some(additional) = &schema.additional {
        walk(additional, &path.child("additionalProperties"), list, visit);
    }
    for (name, property) in &schema.properties {
        walk(property, &path.child("properties").key(name), list, visit);
    }
    if let Some(items) = &schema.items {
        let list = if matches!(schema.list, ListType::Map(_)) { list } else { list.or(Some(path)) };
        walk(items, &path.child("items"), list, visit);
    }
    if !schema.rules.is_empty() {
        visit(&Site { path: path.child(KEY), schema, uncorrelatable: list.cloned() });
    }
}

pub(super) fn check(schema: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let Some(props) = Props::of(schema) else { return };
    // Made for the first rule that needs it. A schema that upstream cannot convert is not asked.
    let mut tree = None;
    for (i, rule) in props.many(KEY).enumerate() {
        let path = path.child(KEY).index(i);
        texts(rule, &path, errors);
        let at = path.child("fieldPath");
        let field_path = rule.text("fieldPath");
        let mut wrong = |detail: &str| errors.push(FieldError::invalid(&at, &Text(field_path), detail));
        if field_path.is_empty() {
            continue;
        }
        if field_path.trim().is_empty() {
            wrong("must be non-empty if specified");
        }
        if has_line_breaks(field_path) {
            wrong("must not contain line breaks");
        }
        let tree = tree.get_or_insert_with(|| compile::unsupported(schema).is_none().then(|| compile::lenient(schema)));
        if tree.as_ref().is_some_and(|tree| field_path::resolve(field_path, tree, true).is_err()) {
            wrong("must be a valid path");
        }
    }
}

fn texts(rule: Props, path: &Path, errors: &mut Vec<FieldError>) {
    let (text, message) = (rule.text("rule").trim(), rule.text("message"));
    let at = path.child("message");
    if text.is_empty() {
        errors.push(FieldError::required(&path.child("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(FieldError::invalid(&at, &Text(message), "must be non-empty if specified"));
    } else if has_line_breaks(message.trim()) {
        errors.push(FieldError::invalid(&at, &Text(message), "must not contain line breaks"));
    } else if has_line_breaks(text) && message.is_empty() {
        errors.push(FieldError::required(&at, "message must be specified if rule contains line breaks"));
    }
    let expression = rule.text("messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(&path.child("messageExpression"), detail));
    }
    if rule.given("reason").is_some() && !REASONS.contains(&rule.text("reason")) {
        errors.push(FieldError::not_supported(&path.child("reason"), &Text(rule.text("reason")), REASONS));
    }
}

fn has_line_breaks(text: &str) -> bool {
    text.contains(['\n', '\r'])
}
