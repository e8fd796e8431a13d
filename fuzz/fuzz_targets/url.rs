//! Paths and queries: what authorization judges is what was asked for, however it is written.

#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use skiff::api::query::{Query, decode};
use skiff::server::http::request_info::RequestInfo;
use skiff_fuzz::Draw;

const PARTS: &[&str] = &[
    "/",
    "api",
    "apis",
    "v1",
    "apps",
    "namespaces",
    "default",
    "pods",
    "watch",
    "status",
    "proxy",
    "%2F",
    "..",
    ".",
    "%zz",
    "é",
    "%C3%A9",
    "a",
    "finalize",
    "//",
    "%00",
    "%25",
];

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let method =
        draw.pick(&[Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD].each_ref());
    let path: String = match draw.below(3) {
        0 => (0..draw.below(4)).map(|_| format!("/{}", draw.word())).collect(),
        _ => (0..draw.below(16)).map(|_| draw.pick(PARTS)).collect(),
    };
    let text = draw.text();
    let query = Query::parse(&text);
    let info = RequestInfo::parse(method, &path, &query);
    assert_eq!(info.is_resource, !info.version.is_empty() || info.is_resource && info.path.contains("//"), "{path:?}");
    if !info.is_resource {
        assert!(info.resource.is_empty() && info.name.is_empty() && info.namespace.is_empty(), "{path:?}: {info:?}");
    }
    // Written with every byte escaped it is the same.
    if let Some(plain) = decode(&path, false) {
        let escaped: String = plain.bytes().map(|b| if b == b'/' { "/".into() } else { format!("%{b:02X}") }).collect();
        assert_eq!(RequestInfo::parse(method, &escaped, &query), info, "{path:?}");
    }
    // Slashes at the ends do not count.
    let same = RequestInfo { path: info.path.clone(), ..RequestInfo::parse(method, &format!("/{path}/"), &query) };
    assert_eq!(same, info, "{path:?}");
    for (key, value) in [("watch", query.flag("watch").is_some()), ("limit", query.integer("limit") != Ok(None))] {
        assert_eq!(query.first(key).is_some(), value, "{text:?}");
        assert_eq!(query.all(key).next(), query.first(key));
    }
});
