//! Bodies in JSON: what was decoded is in the form that decoding gives, so that decoding it again changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use skiff::api::decode::{self, Expected, FieldValidation};
use skiff_fuzz::{Draw, kind, object};

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let schema = kind(&mut draw);
    let (group, version, kind) = schema.gvk.expect("a whole object");
    let expected = Expected { group, version, kind };
    let body = if draw.one_in(4) { draw.rest().to_vec() } else { object(&mut draw, schema).to_string().into_bytes() };
    let read = |body: &[u8], how| decode::kind(body, "application/json", expected, how);
    let lenient = read(&body, FieldValidation::Warn);
    let strict = read(&body, FieldValidation::Strict);
    let Ok((value, warnings)) = lenient else {
        assert!(strict.is_err(), "what is refused is refused more strictly too");
        return;
    };
    assert_eq!(strict.is_ok(), warnings.is_empty(), "{warnings:?}");
    let again = read(value.to_string().as_bytes(), FieldValidation::Strict);
    assert_eq!(again, Ok((value, Vec::new())), "decoded twice");
});
