//! Bodies in protobuf: any bytes are read or refused, and an object comes back as it went.

#![no_main]

use libfuzzer_sys::fuzz_target;
use skiff::api::decode::{self, Expected, FieldValidation};
use skiff::api::protobuf::{self, encode};
use skiff_fuzz::{Draw, kind, object};

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let schema = kind(&mut draw);
    let (group, version, kind) = schema.gvk.expect("a whole object");
    let expected = Expected { group, version, kind };
    let read = |body: &[u8], media: &str| decode::kind(body, media, expected, FieldValidation::Ignore).map(|(v, _)| v);
    let value = match draw.below(4) {
        0 => protobuf::decode(draw.rest(), schema).ok().and_then(|mut value| {
            value["apiVersion"] = skiff_fuzz::api_version(schema).into();
            value["kind"] = kind.into();
            read(value.to_string().as_bytes(), "application/json").ok()
        }),
        1 => read(draw.rest(), protobuf::MEDIA_TYPE).ok(),
        _ => read(object(&mut draw, schema).to_string().as_bytes(), "application/json").ok(),
    };
    let Some(value) = value else { return };
    let bytes = encode::object(&value).expect("a kind of the table has a protobuf form");
    let back = read(&bytes, protobuf::MEDIA_TYPE);
    // What Go's structs always have may be there now. Once there, it stays.
    let back = back.unwrap_or_else(|e| panic!("{}: {value}", e.message()));
    let twice = encode::object(&back).and_then(|bytes| read(&bytes, protobuf::MEDIA_TYPE).ok());
    assert_eq!(twice.as_ref(), Some(&back), "of {value}");
});
