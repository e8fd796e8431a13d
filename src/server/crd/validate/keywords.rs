//! Decides: the keywords of one schema, and those of what is inside (`kube-openapi/pkg/validation/validate`).

use serde_json::{Map, Value};

use super::MAX_ERRORS;
use super::number;
use super::ratchet::unchanged;
use crate::api::field::{BadValue, FieldError, Path, Reason};
use crate::api::trail::{Step, Trail, nowhere};
use crate::server::crd::map_list::MapList;
use crate::server::crd::prune::inside;
use crate::server::crd::shown::{Shown, Text, Verbatim, json, quoted};
use crate::server::crd::structural::{Kind, Limits, Structural};

/// What validating a value against a schema comes to.
#[derive(Default)]
pub(super) struct Outcome {
    /// Whether errors are only counted. Most objects are valid, and of alternatives only those of one are shown.
    pub quiet: bool,
    pub errors: Vec<FieldError>,
    pub failures: usize,
    /// How many checks there were and passed, counted as upstream does: of the alternatives of `anyOf` and `oneOf`, the
    /// one with the most is the one whose errors are reported.
    pub matches: usize,
}

impl Outcome {
    pub fn quiet() -> Self {
        Self { quiet: true, ..Self::default() }
    }

    pub fn push(&mut self, error: impl FnOnce() -> FieldError) {
        self.failures += 1;
        if !self.quiet && self.errors.len() < MAX_ERRORS {
            self.errors.push(error());
        }
    }
}

pub(super) struct Walk<'a> {
    pub base: Option<&'a Path>,
}

impl Walk<'_> {
    pub fn value(&self, value: &Value, schema: &Structural, at: &Trail, old: Option<&Value>, out: &mut Outcome) {
        let (errors, failures) = (out.errors.len(), out.failures);
        self.keywords(value, schema, at, old, out);
        if out.failures > failures && old.is_some_and(|old| unchanged(value, old, schema)) {
            out.errors.truncate(errors);
            out.failures = failures;
        }
    }

    fn keywords(&self, value: &Value, schema: &Structural, at: &Trail, old: Option<&Value>, out: &mut Outcome) {
        let limits = schema.limits.as_deref();
        let format = limits.and_then(|l| l.checked);
        if value.is_null() {
            if schema.kind == Kind::Any || schema.nullable {
                out.matches += 1;
            } else {
                out.push(|| self.wrong_type(at, type_names(schema.kind), "null"));
            }
            self.enumeration(value, limits, at, out);
            return;
        }
        if schema.kind != Kind::Any || format.is_some() {
            out.matches += 1;
            match type_error(value, schema.kind, limits.filter(|_| format.is_some())) {
                Some((expected, found)) => out.push(|| self.wrong_type(at, expected, found)),
                None => out.matches += 1,
            }
        }
        if let Some(limits) = limits {
            self.junctors(value, limits, at, out);
        }
        // The alternatives, their own check, the values that are allowed, and the whole.
        out.matches += 4;
        match value {
            Value::String(text) => {
                out.matches += 1;
                if let Some(limits) = limits {
                    self.text(text, limits, at, out);
                }
            }
            Value::Number(n) => {
                out.matches += 2;
                if limits.is_some() || schema.kind == Kind::Integer {
                    number::check(self, n, schema.kind, limits, at, out);
                }
            }
            Value::Array(list) => {
                out.matches += 2;
                self.list(list, schema, at, old, out);
            }
            _ => {}
        }
        self.enumeration(value, limits, at, out);
        if let Value::Object(map) = value {
            out.matches += 1;
            self.object(map, schema, at, old, out);
        }
    }

    fn text(&self, text: &str, limits: &Limits, at: &Trail, out: &mut Outcome) {
        let longer = |max: &u64| text.len() as u64 > *max && text.chars().count() as u64 > *max;
        let shorter = |min: &u64| (text.chars().count() as u64) < *min;
        // Of these only the first is reported.
        if let Some(max) = limits.max_length.filter(longer) {
            out.push(|| {
                let bytes = if max == 1 { "byte" } else { "bytes" };
                let message = format!("Too long: may not be more than {max} {bytes}");
                FieldError { reason: Reason::TooLong, path: self.path(&at.dotted()), message }
            });
        } else if let Some(min) = limits.min_length.filter(shorter) {
            out.push(|| self.invalid(at, &Text(text), &format!("should be at least {min} chars long")));
        } else if limits.regex.as_ref().is_some_and(|r| !r.matches(text)) {
            out.push(|| self.invalid(at, &Text(text), &format!("should match '{}'", limits.pattern)));
        }
        if let Some(format) = limits.checked.filter(|f| f.checks_text()) {
            out.matches += 1;
            if !format.accepts(text) {
                out.push(|| {
                    let name = at.dotted();
                    let detail = format!("{name} in body must be of type {}: {}", limits.format, quoted(text));
                    FieldError::type_invalid(&self.path(&name), &Text(text), &detail)
                });
            }
        }
    }

    fn list(&self, list: &[Value], schema: &Structural, at: &Trail, old: Option<&Value>, out: &mut Outcome) {
        if let Some(items) = &schema.items {
            let olds = MapList::of(old, &schema.list);
            for (i, item) in list.iter().enumerate() {
                let old = olds.get(item);
                self.value(item, items, &at.index(i), old, out);
            }
        }
        let Some(limits) = schema.limits.as_deref() else { return };
        let count = list.len() as u64;
        if let Some(min) = limits.min_items.filter(|min| count < *min) {
            out.push(|| self.invalid(at, &count, &format!("should have at least {min} items")));
        }
        if let Some(max) = limits.max_items.filter(|max| count > *max) {
            out.push(|| self.too_many(at, count, max));
        }
    }

    fn object(
        &self,
        map: &Map<String, Value>,
        schema: &Structural,
        at: &Trail,
        old: Option<&Value>,
        out: &mut Outcome,
    ) {
        let limits = schema.limits.as_deref();
        let count = map.len() as u64;
        if let Some(min) = limits.and_then(|l| l.min_properties).filter(|min| count < *min) {
            out.push(|| self.invalid(at, &count, &format!("should have at least {min} properties")));
        }
        if let Some(max) = limits.and_then(|l| l.max_properties).filter(|max| count > *max) {
            out.push(|| self.too_many(at, count, max));
        }
        let closed = limits.is_some_and(|l| l.closed);
        for (key, value) in map {
            match inside(schema, key) {
                Some((_, Step::Key(_))) if closed => out.push(|| {
                    let name = at.dotted();
                    let detail = format!("{name}.{key} in body is a forbidden property");
                    FieldError::invalid(&self.path(&name), &Text(key), &detail)
                }),
                Some((inner, Step::Key(_))) if inner.is_anything() => {}
                Some((inner, step)) => {
                    // The version and kind of an old object are always those of the new one.
                    let told = at.is_root() && matches!(key.as_str(), "apiVersion" | "kind");
                    let old = old.filter(|_| !told).and_then(|o| o.get(key));
                    self.value(value, inner, &at.then(step), old, out);
                }
                None => {}
            }
        }
        for name in limits.iter().flat_map(|l| &l.required).filter(|name| !map.contains_key(*name)) {
            out.push(|| FieldError::required(&self.path(&at.then(Step::Key(name)).dotted()), ""));
        }
    }

    /// Null is never among the values, also where the list has it.
    fn enumeration(&self, value: &Value, limits: Option<&Limits>, at: &Trail, out: &mut Outcome) {
        let Some(limits) = limits.filter(|l| !l.enumeration.is_empty()) else { return };
        if !value.is_null() && limits.enumeration.iter().any(|allowed| same(value, allowed)) {
            return;
        }
        out.push(|| {
            let text = |v: &Value| match v {
                Value::String(text) => quoted(text),
                other => quoted(&json(other)),
            };
            let allowed: Vec<String> = limits.enumeration.iter().map(text).collect();
            let message =
                format!("Unsupported value: {}: supported values: {}", Shown(value).shown(), allowed.join(", "));
            FieldError { reason: Reason::NotSupported, path: self.path(&at.dotted()), message }
        });
    }

    fn wrong_type(&self, at: &Trail, expected: &str, found: &str) -> FieldError {
        let name = at.dotted();
        let detail = format!("{name} in body must be of type {expected}: {found:?}");
        FieldError::type_invalid(&self.path(&name), &found, &detail)
    }

    fn too_many(&self, at: &Trail, count: u64, max: u64) -> FieldError {
        let items = if max == 1 { "item" } else { "items" };
        let message = format!("Too many: {count}: must have at most {max} {items}");
        FieldError { reason: Reason::TooMany, path: self.path(&at.dotted()), message }
    }

    /// `spec.a in body …`
    pub fn invalid(&self, at: &Trail, value: &dyn BadValue, detail: &str) -> FieldError {
        let name = at.dotted();
        let detail = format!("{name} in body {detail}");
        FieldError::invalid(&self.path(&name), value, &detail)
    }

    /// An error that upstream has no place for.
    pub fn somewhere(&self, message: &str) -> FieldError {
        FieldError::invalid(&self.path(""), &Verbatim("\"\""), message)
    }

    pub fn path(&self, name: &str) -> Path {
        let name = name.strip_prefix('.').unwrap_or(name);
        match self.base {
            Some(base) if name.is_empty() => base.clone(),
            Some(base) => base.child(name),
            None if name.is_empty() => nowhere(),
            None => Path::new(name),
        }
    }
}

fn same(value: &Value, allowed: &Value) -> bool {
    match (value, allowed) {
        // Numbers are compared by value: 1 is 1.0.
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => value == allowed,
    }
}

fn type_names(kind: Kind) -> &'static str {
    match kind {
        Kind::Any => "",
        Kind::Object => "object",
        Kind::Array => "array",
        Kind::String => "string",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
        Kind::IntOrString => "integer,string",
    }
}

/// The type that was expected and the one that was found, unless they are the same. `limits` are there when the schema
/// has a format that is checked: then it stands for the type in some messages, and lists pass for text, as upstream.
fn type_error<'a>(value: &Value, kind: Kind, limits: Option<&'a Limits>) -> Option<(&'a str, &'static str)> {
    let (found, format) = match value {
        Value::Null => return None,
        Value::Bool(_) => (Kind::Boolean, ""),
        Value::String(_) => (Kind::String, ""),
        Value::Array(_) => (Kind::Array, ""),
        Value::Object(_) => (Kind::Object, ""),
        Value::Number(n) if n.as_i64().is_some() => (Kind::Integer, "int64"),
        Value::Number(_) => (Kind::Number, "float64"),
    };
    let numeric = matches!(kind, Kind::Integer | Kind::Number | Kind::IntOrString);
    let fits = kind == found
        || (kind == Kind::IntOrString && matches!(found, Kind::Integer | Kind::String))
        || (kind == Kind::Number && found == Kind::Integer)
        || (matches!(kind, Kind::Integer | Kind::IntOrString) && value.as_f64().is_some_and(number::is_json_integer));
    if fits {
        return None;
    }
    match limits {
        Some(limits) if !matches!(found, Kind::String | Kind::Array) => (format != limits.format)
            .then_some((limits.format.as_str(), format))
            .or(Some((type_names(kind), type_names(found)))),
        Some(_) if !numeric => None,
        _ => Some((type_names(kind), type_names(found))),
    }
}
