//! Strategic merge patches: any patch is applied or refused; what is applied again and again settles.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use skiff::api::decode::{self, Expected, FieldValidation};
use skiff::api::{schema::Type, strategic};
use skiff_fuzz::{Draw, api_version, fields, kind};

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let schema: &'static Type = kind(&mut draw);
    let (original, patch) = (fields(&mut draw, schema, 0), fields(&mut draw, schema, 0));
    assert_eq!(strategic::merge(&original, &json!({}), schema), Ok(original.clone()), "nothing changes nothing");
    let merge = |to| strategic::merge(&to, &patch, schema);
    // What was not there is taken as it is, and seen as a list with keys, directives and doubles by the next patch: as
    // upstream. From then on nothing more happens.
    let Ok(twice) = merge(original.clone()).and_then(merge) else { return };
    let thrice = merge(twice.clone());
    // An item that has an object where its key should be is a new one each time; no such object is ever stored.
    assert!(thrice.as_ref() == Ok(&twice) || !is_one(&twice, schema), "{original} + {patch}: {twice}, then {thrice:?}");
});

/// Whether a document can be read as one of this kind.
fn is_one(document: &Value, schema: &'static Type) -> bool {
    let (group, version, kind) = schema.gvk.expect("a whole object");
    let mut document = document.clone();
    document["apiVersion"] = api_version(schema).into();
    document["kind"] = kind.into();
    let (body, expected) = (document.to_string(), Expected { group, version, kind });
    decode::kind(body.as_bytes(), "application/json", expected, FieldValidation::Ignore).is_ok()
}
