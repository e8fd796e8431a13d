//! Server-side apply: who applies owns what it says and finds it there; applying again changes nothing; force is never
//! refused for a conflict; owners are the same after they were stored.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use skiff::api::apply::compare::Comparison;
use skiff::api::apply::owners::Owners;
use skiff::api::apply::place::Place;
use skiff::api::apply::set::Set;
use skiff::api::apply::{Applied, Refusal, Versions, Writer};
use skiff::api::decode::{self, Expected, FieldValidation};
use skiff::api::schema::Type;
use skiff_fuzz::{Draw, api_version, kind, object};

struct One(&'static Type);

impl Versions for One {
    fn place(&self, version: &str) -> Option<Place<'_>> {
        (version == api_version(self.0)).then(|| Place::from(self.0))
    }

    fn convert(&self, object: &Value, _: &str, _: &str) -> Value {
        object.clone()
    }
}

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let schema = kind(&mut draw);
    let (group, version, kind) = schema.gvk.expect("a whole object");
    let expected = Expected { group, version, kind };
    let mut document = || {
        let body = object(&mut draw, schema).to_string();
        decode::kind(body.as_bytes(), "application/json", expected, FieldValidation::Ignore).ok().map(|(v, _)| v)
    };
    let (Some(first), Some(second), Some(written)) = (document(), document(), document()) else { return };
    let (version, nothing, versions) = (api_version(schema), Set::default(), One(schema));
    let writer = |manager| Writer {
        manager,
        api_version: &version,
        subresource: "",
        now: "2026-01-01T00:00:00Z",
        resets: &nothing,
        only: &[],
        versions: &versions,
    };
    let apply = |manager, live: &Value, document: &Value, owners: &Owners, force| {
        writer(manager).applied(live, document, owners.clone(), force)
    };

    let Ok(one) = apply("one", &json!({}), &first, &Owners::default(), false) else { return };
    settled(&apply, "one", &one, &first);
    stored(&one.owners);
    let two = match apply("two", &one.object, &second, &one.owners, false) {
        Ok(two) => two,
        Err(Refusal::Status(_)) => return,
        Err(Refusal::Conflicts(_)) => match apply("two", &one.object, &second, &one.owners, true) {
            Ok(two) => two,
            Err(refusal) => panic!("by force: {refusal:?}"),
        },
    };
    settled(&apply, "two", &two, &second);
    stored(&two.owners);
    // Somebody else writes it whole, and nobody is left with what changed by that.
    let owners = writer("three").updated(&two.object, &written, two.owners).expect("a schema");
    let changed = Comparison::of(Place::from(schema), &two.object, &written);
    for owner in owners.0.iter().filter(|o| o.manager != "three") {
        for (what, set) in [("changed", &changed.modified), ("gone", &changed.removed)] {
            let theirs = owner.fields.both(set);
            assert!(theirs.is_empty(), "{} still owns what is {what}: {:?}", owner.manager, theirs.paths());
        }
    }
    stored(&owners);
});

type Apply<'a> = dyn Fn(&'static str, &Value, &Value, &Owners, bool) -> Result<Applied, Refusal> + 'a;

fn settled(apply: &Apply<'_>, manager: &'static str, applied: &Applied, document: &Value) {
    match apply(manager, &applied.object, document, &applied.owners, false) {
        Ok(again) => {
            assert_eq!(again.object, applied.object, "applied again: {document}");
            assert_eq!(again.owners.to_json(), applied.owners.to_json(), "applied again: {document}");
        }
        Err(refusal) => panic!("applied again: {refusal:?}: {document}"),
    }
}

fn stored(owners: &Owners) {
    let json = owners.to_json();
    let read = json.as_ref().and_then(Owners::read);
    assert_eq!(read.and_then(|o| o.to_json()), json);
}
