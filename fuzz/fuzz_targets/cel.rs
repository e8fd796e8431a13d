//! CEL: any text is compiled or refused; what is compiled ends within its budget, costs the same each time, and has the
//! same result; nothing that ended well cost more than was estimated.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value as Json, json};
use skiff::server::cel::{self, Bindings, Budget, Environment, Program, Value, render};
use skiff::server::crd::compile::compile;
use skiff_fuzz::{Draw, cel::expression};

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let source = if draw.one_in(4) { draw.text() } else { expression(&mut draw) };
    let schema = json!({"type": "object", "properties": {
        "x": {"type": "integer"},
        "s": {"type": "string", "maxLength": 8},
        "l": {"type": "array", "maxItems": 4, "items": {"type": "integer"}},
        "m": {"type": "object", "maxProperties": 4, "additionalProperties": {"type": "string", "maxLength": 8}},
        "self": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 4}}},
    }});
    let schema = compile(&schema).expect("a schema that is written here");
    let values = json!({"x": 7, "s": "te\u{1f600}xt", "l": [1, 2, 3], "m": {"a": "x", "b": "y"}, "self": {"a": "aa"}});
    let decls: Vec<(&str, cel::Decl, &Json)> = schema
        .properties
        .iter()
        .map(|(name, property)| {
            let decl = cel::schema::declare(property, false, name).expect("a type");
            (name.as_str(), decl, &values[name])
        })
        .collect();
    let environment = decls.iter().fold(Environment::new(), |e, (name, decl, _)| e.with(name, decl.clone()));
    let program = match Program::compile(&source, &environment) {
        Ok(program) => program,
        Err(issues) => {
            assert!(!issues.is_empty() && !render(&source, &issues).is_empty());
            return;
        }
    };
    let mut bindings = Bindings::new();
    for (slot, (_, decl, value)) in decls.iter().enumerate() {
        bindings.set(slot, Value::of(value, decl).expect("a value of its type"));
    }
    let run = || {
        let mut budget = Budget::new(cel::CALL_LIMIT * 2);
        let result = program.evaluate(&bindings, &mut budget);
        (result.map(|v| v.to_json()).map_err(|e| e.to_string()), cel::CALL_LIMIT * 2 - budget.left())
    };
    let (result, cost) = run();
    assert!(result.is_err() || cost <= cel::CALL_LIMIT, "{source} cost {cost}");
    assert_eq!(run(), (result.clone(), cost), "{source}");
    // Upstream guesses nothing for comparing objects either.
    if result.is_ok() && !source.contains("self") {
        assert!(cost <= program.estimated_cost(), "{source} cost {cost}, not {}", program.estimated_cost());
    }
});
