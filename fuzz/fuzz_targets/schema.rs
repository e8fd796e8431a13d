//! Schemas of custom resources with objects: a schema that is accepted can be used; an object is in form after it was put
//! in form; what has not changed is no reason to refuse an update.

#![no_main]

use libfuzzer_sys::fuzz_target;
use skiff::api::field::Path;
use skiff::server::crd::{check, compile, default, embedded, prune, rules, validate};
use skiff_fuzz::{Draw, structural};

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let schema = if draw.one_in(16) { draw.json(0) } else { structural::root(&mut draw) };
    let path = Path::new("spec");
    if !check::check(&schema, &path).is_empty() {
        // Whatever is wrong with it, it can be walked: a definition may have been stored by an older server.
        let _ = compile::lenient(&schema);
        return;
    }
    let tree = compile::compile(&schema).unwrap_or_else(|e| panic!("accepted, and no schema: {e:?}: {schema}"));
    let (rules, wrong) = rules::compile(&tree, &path);
    let mut object = structural::near(&mut draw, &schema, 0);
    if !object.is_object() {
        return;
    }
    let _ = embedded::coerce(&mut object, &tree, true);
    prune::prune(&mut object, &tree, true);
    let pruned = object.clone();
    assert!(prune::prune(&mut object, &tree, true).is_empty() && object == pruned, "{schema}: {pruned}");

    default::prune_nulls(&mut object, &tree);
    default::default(&mut object, &tree);
    let completed = object.clone();
    default::prune_nulls(&mut object, &tree);
    default::default(&mut object, &tree);
    assert_eq!(object, completed, "completed twice: {schema}");

    let errors = validate::validate(&object, None, &tree);
    assert_eq!(validate::validate(&object, None, &tree), errors);
    for error in &errors {
        assert!(!error.message.is_empty(), "{schema}: {object}");
    }
    let unchanged = validate::keywords(None, &object, Some(&object), &tree);
    for error in &unchanged {
        assert!(errors.contains(error), "found only beside what was there: {error:?}: {schema}: {object}");
    }
    // Fields that no schema names, and items that nothing tells apart, count as changed: as upstream.
    let text = schema.to_string();
    if !["preserve-unknown-fields", "list-map-keys", "additionalProperties"].iter().any(|word| text.contains(word)) {
        assert_eq!(unchanged, [], "of what is as it was: {schema}: {object}");
    }
    if wrong.is_empty() {
        let verdict = rules::check(&rules, &object, None);
        assert_eq!(rules::check(&rules, &object, None), verdict);
        let _ = rules::check(&rules, &object, Some(&pruned));
    }
});
