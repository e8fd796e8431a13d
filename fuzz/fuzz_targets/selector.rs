//! Label and field selectors: what is read is written so that it is read as the same; quantities likewise.

#![no_main]

use libfuzzer_sys::fuzz_target;
use skiff::api::quantity::Quantity;
use skiff::api::selector::{FieldSelector, LabelSelector};
use skiff_fuzz::Draw;

const PARTS: &[&str] = &[
    "a", "b.c/d", "=", "==", "!=", "!", " in ", " notin ", "(", ")", ",", ">", "<", "1", " ", "é", "in", "notin", "\\",
    "",
];

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let text = if draw.one_in(3) { draw.text() } else { (0..draw.below(16)).map(|_| draw.pick(PARTS)).collect() };
    if let Ok(labels) = LabelSelector::parse(&text) {
        let shown = labels.to_string();
        let again = LabelSelector::parse(&shown);
        assert_eq!(again.as_ref().map(ToString::to_string), Ok(shown.clone()), "{text:?}");
        let again = again.expect("it was read just now");
        for value in [None, Some(""), Some("1"), Some("a")] {
            assert_eq!(labels.matches(|_| value), again.matches(|_| value), "{text:?} and {shown:?} of {value:?}");
        }
    }
    if let Ok(fields) = FieldSelector::parse(&text) {
        fields.matches(|_| None);
        fields.matches(|field| Some(if field == "a" { "1" } else { "" }));
    }
    if let Ok(quantity) = Quantity::parse(&text) {
        let shown = quantity.to_string();
        let again = Quantity::parse(&shown).unwrap_or_else(|e| panic!("{text:?} is shown as {shown:?}: {e}"));
        assert_eq!((again, again.to_string()), (quantity, shown), "{text:?}");
    }
});
