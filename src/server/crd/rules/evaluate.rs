//! Decides: which rules an object breaks (`Validator.Validate` of apiextensions-apiserver).

use std::cell::OnceCell;

use serde_json::Value as Json;

use super::super::map_list::MapList;
use super::{Compiled, Known, Node, OLD_SELF, Rules, SELF};
use crate::api::field::{FieldError, Path};
use crate::server::cel::{Bindings, Budget, Error, Value};
use crate::server::crd::validate::MAX_ERRORS;

/// In bytes, of what a messageExpression makes.
const MAX_MESSAGE: usize = 5 * 1024;
const NO_BUDGET: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

/// What is said of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub errors: Vec<FieldError>,
    /// What would be errors had the object not been like that before.
    pub warnings: Vec<FieldError>,
}

/// The errors of an object; `old` is what it replaces.
#[must_use]
pub fn evaluate(rules: &Rules, new: &Json, old: Option<&Json>) -> Vec<FieldError> {
    check(rules, new, old).errors
}

/// The errors and warnings of an object; `old` is what it replaces. All rules share the budget of one request.
#[must_use]
pub fn check(rules: &Rules, new: &Json, old: Option<&Json>) -> Verdict {
    let mut walk = Walk { budget: Budget::default(), verdict: Verdict::default() };
    if let Some(root) = &rules.root {
        let old = old.filter(|old| !old.is_null());
        let correlation = Correlation { current: old.map(|old| Pair::new((old, new))), parent: None };
        // That nothing more can be evaluated is in the verdict.
        let _ = walk.node(root, &Path::default(), new, old, &correlation);
    }
    walk.verdict
}

/// The old and the new value of the same thing. Whether they are equal is asked for every rule below that fails.
struct Pair<'a> {
    old: &'a Json,
    new: &'a Json,
    equal: OnceCell<bool>,
}

impl<'a> Pair<'a> {
    fn new((old, new): (&'a Json, &'a Json)) -> Self {
        Self { old, new, equal: OnceCell::new() }
    }

    fn is_equal(&self) -> bool {
        *self.equal.get_or_init(|| self.old == self.new)
    }
}

/// What a value is compared with, to see whether it has changed.
#[derive(Default)]
struct Correlation<'a> {
    /// The value itself, if it can be found in the old object.
    current: Option<Pair<'a>>,
    /// Else the nearest above it that can.
    parent: Option<&'a Pair<'a>>,
}

impl Correlation<'_> {
    fn is_unchanged(&self) -> bool {
        self.current.as_ref().or(self.parent).is_some_and(Pair::is_equal)
    }

    fn key(&self, node: &Node, name: &str) -> Correlation<'_> {
        let Some(at) = &self.current else { return Correlation { current: None, parent: self.parent } };
        // These two are converted before anybody sees them.
        if self.parent.is_none() && (name == "apiVersion" || name == "kind") {
            return Correlation::default();
        }
        let known = match &node.known {
            Known::Nothing => false,
            Known::Everything => true,
            Known::Fields(names) => names.iter().any(|known| known == name),
        };
        let current = at.old.get(name).zip(at.new.get(name)).filter(|_| known);
        Correlation { current: current.map(Pair::new), parent: Some(at) }
    }

    fn item<'s>(&'s self, old: Option<&'s Json>, new: &'s Json) -> Correlation<'s> {
        match &self.current {
            Some(list) => Correlation { current: old.map(|old| Pair::new((old, new))), parent: Some(list) },
            None => Correlation { current: None, parent: self.parent },
        }
    }
}

/// Nothing more may be evaluated.
struct Stopped;

struct Walk {
    budget: Budget,
    verdict: Verdict,
}

impl Walk {
    fn node(
        &mut self,
        node: &Node,
        path: &Path,
        new: &Json,
        old: Option<&Json>,
        correlation: &Correlation<'_>,
    ) -> Result<(), Stopped> {
        if self.verdict.errors.len() >= MAX_ERRORS {
            return Err(Stopped);
        }
        // Null is for the rules of what is around it.
        if new.is_null() {
            return Ok(());
        }
        let old = old.filter(|old| !old.is_null());
        if !node.rules.is_empty() {
            self.rules(node, path, new, old, correlation)?;
        }
        for nested in &node.all_of {
            let correlation = Correlation { current: None, parent: correlation.parent };
            self.node(nested, path, new, old, &correlation)?;
        }
        match new {
            Json::Object(object) => {
                for (name, value) in object {
                    let old = old.and_then(|old| old.get(name));
                    if let Some(values) = &node.additional {
                        self.node(values, &path.key(name), value, old, &correlation.key(node, name))?;
                    }
                    if let Some(property) = node.properties.get(name) {
                        self.node(property, &path.child(name), value, old, &correlation.key(node, name))?;
                    }
                }
            }
            Json::Array(items) => {
                let Some(node_of_items) = &node.items else { return Ok(()) };
                let olds = MapList::of(old, &node.list);
                for (index, item) in items.iter().enumerate() {
                    let old = olds.get(item);
                    self.node(node_of_items, &path.index(index), item, old, &correlation.item(old, item))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rules(
        &mut self,
        node: &Node,
        path: &Path,
        new: &Json,
        old: Option<&Json>,
        correlation: &Correlation<'_>,
    ) -> Result<(), Stopped> {
        let path = &if path.to_string().is_empty() { Path::new("<nil>") } else { path.clone() };
        if self.budget.left() == 0 {
            self.fail(FieldError::invalid(path, &node.kind, NO_BUDGET));
            return Err(Stopped);
        }
        let value = Value::of(new, &node.decl);
        let old_value = old.map(|old| Value::of(old, &node.decl)).transpose();
        for compiled in &node.rules {
            if compiled.uses_old && old.is_none() && !compiled.rule.optional_old_self {
                continue;
            }
            let program = match &compiled.program {
                Ok(program) => program,
                Err(error) => {
                    self.fail(FieldError::invalid(path, &node.kind, &format!("rule compile error: {error}")));
                    continue;
                }
            };
            let (value, old_value) = match (&value, &old_value) {
                (Ok(value), Ok(old_value)) => (value.clone(), old_value.clone()),
                (Err(error), _) | (_, Err(error)) => {
                    self.broken(node, path, compiled, error)?;
                    continue;
                }
            };
            // The message is made without the optional: upstream gives it the other activation.
            let plain = match &old_value {
                Some(old_value) => Bindings::new().with(SELF, value.clone()).with(OLD_SELF, old_value.clone()),
                None => Bindings::new().with(SELF, value.clone()),
            };
            let result = if compiled.rule.optional_old_self {
                let old_value = old_value.map_or(Value::Optional(None), Value::some);
                program.evaluate(&Bindings::new().with(SELF, value).with(OLD_SELF, old_value), &mut self.budget)
            } else {
                program.evaluate(&plain, &mut self.budget)
            };
            match result {
                Ok(Value::Bool(true)) => {}
                Ok(_) => self.failed(node, path, compiled, &plain, correlation)?,
                Err(error) => self.broken(node, path, compiled, &error)?,
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: FieldError) {
        self.verdict.errors.push(error);
    }

    /// A rule that could not be evaluated.
    fn broken(&mut self, node: &Node, path: &Path, compiled: &Compiled, error: &Error) -> Result<(), Stopped> {
        let rule = shown(compiled);
        let (detail, stop) = match error {
            Error::Budget => (NO_BUDGET.to_owned(), true),
            Error::CallLimit => {
                let why = "no further validation rules will be run due to call cost exceeds limit for rule";
                (format!("'{error}': {why}: {rule}"), true)
            }
            Error::Failed(text) if text.starts_with("no such overload") => {
                let why = "call arguments did not match a supported operator, function or macro signature for rule";
                (format!("'{error}': {why}: {rule}"), false)
            }
            Error::Failed(_) => (format!("{error} evaluating rule: {rule}"), false),
        };
        self.fail(FieldError::invalid(path, &node.kind, &detail));
        if stop { Err(Stopped) } else { Ok(()) }
    }

    /// A rule that does not hold.
    fn failed(
        &mut self,
        node: &Node,
        path: &Path,
        compiled: &Compiled,
        bindings: &Bindings<'_>,
        correlation: &Correlation<'_>,
    ) -> Result<(), Stopped> {
        let at = match (compiled.path.as_str(), path.to_string().as_str()) {
            ("", _) => path.clone(),
            (field, "<nil>") => Path::new(field),
            (field, _) => path.child(field),
        };
        let made = compiled.message.as_ref().map(|program| program.evaluate(bindings, &mut self.budget));
        let mut stopped = Ok(());
        let error = match made {
            Some(Err(error)) if error.is_fatal() => {
                stopped = Err(Stopped);
                let why = "no further validation rules will be run";
                let detail = match error {
                    Error::Budget => {
                        format!("messageExpression evaluation failed due to running out of cost budget, {why}")
                    }
                    _ => {
                        let source = &compiled.rule.message_expression;
                        format!("{why} due to call cost exceeds limit for messageExpression: {source:?}")
                    }
                };
                FieldError::invalid(&at, &node.kind, &detail)
            }
            made => {
                let detail =
                    made.and_then(Result::ok).and_then(|value| usable(&value)).unwrap_or_else(|| message(compiled));
                match compiled.rule.reason.as_str() {
                    "FieldValueForbidden" => FieldError::forbidden(&at, &detail),
                    "FieldValueRequired" => FieldError::required(&at, &detail),
                    "FieldValueDuplicate" => FieldError::duplicate(&at, &node.kind),
                    _ => FieldError::invalid(&at, &node.kind, &detail),
                }
            }
        };
        if !compiled.uses_old && correlation.is_unchanged() {
            self.verdict.warnings.push(error);
        } else {
            self.fail(error);
        }
        stopped
    }
}

/// How errors name a rule.
fn shown(compiled: &Compiled) -> &str {
    match compiled.rule.message.trim() {
        "" => compiled.rule.rule.trim(),
        message => message,
    }
}

fn message(compiled: &Compiled) -> String {
    match compiled.rule.message.as_str() {
        "" => format!("failed rule: {}", shown(compiled)),
        message => message.trim().to_owned(),
    }
}

/// What a messageExpression made, if it can be a message.
fn usable(value: &Value<'_>) -> Option<String> {
    let text = value.as_str()?.trim();
    (!text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n')).then(|| text.to_owned())
}
