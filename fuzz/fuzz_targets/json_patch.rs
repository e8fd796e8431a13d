//! JSON patches and merge patches: applied or refused; the difference of two documents makes one of the other.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use skiff::api::patch;
use skiff_fuzz::Draw;

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let (from, to) = (draw.json(0), draw.json(0));
    let patch = json_patch::diff(&from, &to);
    assert_eq!(patch::json(&from, &patch), Ok(to.clone()), "{from} to {to}");

    let (mut merged, document) = (from.clone(), to);
    patch::merge(&mut merged, &document);
    let mut twice = merged.clone();
    patch::merge(&mut twice, &document);
    assert_eq!(merged, twice, "{from} + {document}");

    let operations: Vec<Value> = (0..draw.below(6)).map(|_| operation(&mut draw)).collect();
    let body = if draw.one_in(4) { draw.rest().to_vec() } else { Value::from(operations).to_string().into_bytes() };
    let Ok(patch) = patch::parse_json(&body) else { return };
    let mut place = from.clone();
    let in_place = patch::apply(&mut place, &patch).map(|()| place);
    assert_eq!(patch::json(&from, &patch).ok(), in_place.ok());
});

fn operation(draw: &mut Draw) -> Value {
    let path = |draw: &mut Draw| (0..draw.below(4)).map(|_| format!("/{}", draw.word())).collect::<String>();
    let name = draw.pick(&["add", "remove", "replace", "move", "copy", "test"]);
    json!({"op": name, "path": path(draw), "from": path(draw), "value": draw.json(4)})
}
