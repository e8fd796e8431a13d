//! Bodies in YAML: what can be read is the same in JSON, which is YAML too.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use skiff::api::decode;
use skiff_fuzz::Draw;

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let text = if draw.one_in(2) { draw.json(0).to_string() } else { draw.text() };
    let Ok((value, _)) = decode::document(text.as_bytes()) else { return };
    let json = value.to_string();
    let read = |text: &str| decode::document(text.as_bytes()).map(|(value, _)| value);
    assert_eq!(read(&json), Ok(value.clone()), "as JSON");
    // Anything before the brace makes it YAML.
    // YAML has no control characters, not even in quotes.
    if json.chars().any(|c| matches!(c, '\x7f'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' | '\u{feff}')) {
        return;
    }
    let yaml = read(&format!(" {json}")).unwrap_or_else(|e| panic!("{e}: {json}"));
    assert!(same(&yaml, &value), "{json} is {yaml}");
    assert_eq!(read(&format!(" {yaml}")), Ok(yaml.clone()), "as YAML twice");
});

/// YAML's whole numbers are written without a point.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}
