//! What expressions are worth, what is wrong with them and what they cost, by tables.

use serde_json::{Value as Json, json};

use super::{Bindings, Budget, Decl, Environment, Program, Type, Value, render};

mod cost;
mod devices;
mod errors;
mod hostile;
mod language;
mod libraries;
mod schemas;
mod upstream;

#[test]
fn programs_are_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Program>();
    shared::<crate::server::crd::rules::Rules>();
}

/// The JSON of a result, or what is wrong: at compilation, the messages without their lines; at run time, `! …`.
fn result(source: &str, variables: &Json) -> Result<Json, String> {
    let fields = variables.as_object().unwrap();
    let mut environment = Environment::new();
    for name in fields.keys() {
        environment = environment.with(name, super::schema::anything());
    }
    let program = Program::compile(source, &environment).map_err(|issues| {
        let messages: Vec<String> = issues.into_iter().map(|issue| issue.message).collect();
        messages.join("; ")
    })?;
    let mut bindings = Bindings::new();
    for (slot, value) in fields.values().enumerate() {
        bindings.set(slot, Value::dynamic(value));
    }
    let value = program.evaluate(&bindings, &mut Budget::default()).map_err(|error| format!("! {error}"))?;
    Ok(match value {
        Value::Optional(None) => json!("none"),
        other => other.to_json().unwrap_or_else(|| json!(other.type_name())),
    })
}

/// An expression over nothing.
#[track_caller]
fn check(source: &str, expected: Json) {
    assert_eq!(result(source, &json!({})), Ok(expected), "{source}");
}

/// An expression over variables of any type.
#[track_caller]
fn check_with(variables: Json, source: &str, expected: Json) {
    assert_eq!(result(source, &variables), Ok(expected), "{source}");
}

/// An expression that is refused, or fails (`! …`).
#[track_caller]
fn refuse(source: &str, message: &str) {
    let variables = json!({"x": 1, "m": {"a": 1}, "l": [1, 2], "s": "text"});
    assert_eq!(result(source, &variables), Err(message.to_owned()), "{source}");
}

/// Expressions that are true.
#[track_caller]
fn hold(sources: &[&str]) {
    for source in sources {
        assert_eq!(result(source, &json!({})), Ok(json!(true)), "{source}");
    }
}
