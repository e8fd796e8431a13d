//! Tables of messages and what they become, those of kubectl among them; golden: the two forms of the reference objects;
//! properties: no bytes make the reader panic.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::decode::{self, Expected, FieldValidation};
use crate::api::resource::{RESOURCES, Resource, find};
use crate::api::schema;

/// A field that holds bytes: a string, or a message made of the parts.
fn bytes(number: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = varint(usize::from(number) << 3 | 2);
    out.extend(varint(content.len()));
    out.extend(content);
    out
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap());
    out
}

fn text(number: u8, content: &str) -> Vec<u8> {
    bytes(number, &[content.as_bytes()])
}

fn small(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn body(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let meta = bytes(1, &[&text(1, api_version), &text(2, kind)]);
    [PREFIX, &meta, &bytes(2, &[object]), &text(3, ""), &text(4, "")].concat()
}

fn resource(group: &str, plural: &str) -> &'static Resource {
    find(group, "v1", plural).unwrap()
}

fn read(body: &[u8], resource: &Resource) -> Value {
    let (value, warnings) = decode::object(body, MEDIA_TYPE, resource, FieldValidation::Strict).unwrap();
    assert!(warnings.is_empty());
    value
}

/// What kubectl 1.36 sends, byte by byte, for `create secret generic x --from-literal=a=b`,
/// `create deployment web --image=nginx --replicas=0 --port=80`, `create service clusterip s --tcp=80` and
/// `create token default`.
#[test]
fn bodies_of_kubectl() {
    let secret = b"k8s\x00\n\x0c\n\x02v1\x12\x06Secret\x12\x1d\n\x11\n\x01x\x12\x00\x1a\x00\"\x00*\x002\x00\
        8\x00B\x00\x12\x06\n\x01a\x12\x01b\x1a\x00\x1a\x00\"\x00";
    assert_eq!(
        read(secret, resource("", "secrets")),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": {"a": "Yg=="}})
    );
    let deployment = b"k8s\x00\n\x15\n\x07apps/v1\x12\nDeployment\x12\xb8\x01\n\x1f\n\x03web\x12\x00\x1a\x00\"\
        \x00*\x002\x008\x00B\x00Z\n\n\x03app\x12\x03web\x12\x86\x01\x08\x00\x12\x0c\n\n\n\x03app\
        \x12\x03web\x1al\n\x1c\n\x00\x12\x00\x1a\x00\"\x00*\x002\x008\x00B\x00Z\n\n\x03app\x12\
        \x03web\x12L\x12.\n\x05nginx\x12\x05nginx*\x002\n\n\x00\x10\x00\x18P\"\x00*\x00B\x00j\
        \x00r\x00\x80\x01\x00\x88\x01\x00\x90\x01\x00\xa2\x01\x00\x1a\x002\x00B\x00J\x00R\x00X\
        \x00`\x00h\x00\x82\x01\x00\x8a\x01\x00\x9a\x01\x00\xc2\x01\x00\"\x02\n\x00(\x008\x00\x1a\
        \x0c\x08\x00\x10\x00\x18\x00 \x00(\x008\x00\x1a\x00\"\x00";
    assert_eq!(
        read(deployment, resource("apps", "deployments")),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
            "status": {}, "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "strategy": {},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "nginx",
                    "image": "nginx", "ports": [{"containerPort": 80}], "resources": {}}]}}}})
    );
    let service = b"k8s\x00\n\r\n\x02v1\x12\x07Service\x12]\n\x1b\n\x01s\x12\x00\x1a\x00\"\x00*\x002\x008\
        \x00B\x00Z\x08\n\x03app\x12\x01s\x12:\n\x15\n\x0280\x12\x03TCP\x18P\"\x06\x08\x00\x10P\
        \x1a\x00(\x00\x12\x08\n\x03app\x12\x01s\x1a\x00\"\tClusterIP:\x00B\x00R\x00Z\x00`\x00h\
        \x00\x1a\x02\n\x00\x1a\x00\"\x00";
    assert_eq!(
        read(service, resource("", "services")),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "labels": {"app": "s"}},
            "status": {"loadBalancer": {}}, "spec": {"type": "ClusterIP", "selector": {"app": "s"},
                "ports": [{"name": "80", "protocol": "TCP", "port": 80, "targetPort": 80}]}})
    );
    let token = b"k8s\x00\n(\n\x18authentication.k8s.io/v1\x12\x0cTokenRequest\x12\x1a\n\x10\n\x00\x12\x00\
        \x1a\x00\"\x00*\x002\x008\x00B\x00\x12\x00\x1a\x04\n\x00\x12\x00\x1a\x00\"\x00";
    let expected = Expected::at(resource("", "serviceaccounts"), "token");
    assert_eq!(
        decode::kind(token, MEDIA_TYPE, expected, FieldValidation::Strict).unwrap().0,
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {},
            "status": {"token": ""}})
    );
}

/// Pointers to zero are kept, plain zeros vanish where JSON has no word for them, structs stay.
#[test]
fn zeros_of_a_deployment() {
    let resources = bytes(8, &[]);
    let probe = bytes(
        10,
        &[
            &bytes(1, &[&bytes(3, &[&bytes(1, &[&small(1, 0), &small(2, 80), &text(3, "")])])]),
            &[2 << 3, 0, 6 << 3, 0, 7 << 3, 0],
        ],
    );
    let container = bytes(2, &[&text(1, ""), &text(2, "nginx"), &text(5, ""), &resources, &probe]);
    let template = bytes(3, &[&bytes(1, &[&text(1, "")]), &bytes(2, &[&container, &small(11, 0), &text(3, "")])]);
    let spec =
        bytes(2, &[&small(1, 0), &template, &bytes(4, &[&text(1, "")]), &small(5, 0), &small(7, 0), &small(6, 0)]);
    let object = [bytes(1, &[&text(1, "web")]), spec, bytes(3, &[&small(1, 0), &small(2, 0)])].concat();
    assert_eq!(
        read(&body("apps/v1", "Deployment", &object), resource("apps", "deployments")),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {}, "spec": {
            "replicas": 0, "revisionHistoryLimit": 0, "strategy": {}, "template": {"metadata": {}, "spec": {
                "containers": [{"name": "", "image": "nginx", "resources": {}, "livenessProbe": {
                    "tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 0}}]}}}})
    );
}

/// Numbers in lists come one by one or packed; entries of maps may lack what is zero.
#[test]
fn lists_and_maps() {
    let context = bytes(14, &[&small(4, 1), &small(4, 2), &[4 << 3 | 2, 3, 3, 0xac, 2]]);
    let pod = bytes(2, &[&context, &bytes(7, &[&text(1, "disk")])]);
    assert_eq!(
        read(&body("v1", "Pod", &pod), resource("", "pods"))["spec"],
        json!({"securityContext": {"supplementalGroups": [1, 2, 3, 300]}, "nodeSelector": {"disk": ""}})
    );
    let extra = bytes(5, &[&text(1, "k"), &bytes(2, &[&text(1, "v"), &text(1, "w")])]);
    let review = bytes(2, &[&extra, &bytes(5, &[&text(1, "none")])]);
    let reviews = resource("authorization.k8s.io", "subjectaccessreviews");
    assert_eq!(
        read(&body("authorization.k8s.io/v1", "SubjectAccessReview", &review), reviews)["spec"],
        json!({"extra": {"k": ["v", "w"], "none": []}})
    );
    let negative = [2 << 3 | 2, 11, 8, 0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let scale = Expected { group: "autoscaling", version: "v1", kind: "Scale" };
    let (scale, _) =
        decode::kind(&body("autoscaling/v1", "Scale", &negative), MEDIA_TYPE, scale, FieldValidation::Strict).unwrap();
    assert_eq!(scale["spec"]["replicas"], -5);
}

#[test]
fn what_is_malformed_is_refused() {
    let pods = resource("", "pods");
    let check = |body: &[u8], message: &str| {
        let status = decode::object(body, MEDIA_TYPE, pods, FieldValidation::Ignore).unwrap_err();
        assert_eq!((status.code(), status.message()), (400, message));
    };
    let must = "the object provided is unrecognized (must be of type Pod): ";
    check(b"", &format!("{must}empty data (<empty>)"));
    check(
        b"{}",
        &format!(
            "{must}provided data does not appear to be a protobuf message, expected prefix [107, 56, 115, 0] ({{}})"
        ),
    );
    check(b"k8s\0", &format!("{must}empty body (6b387300)"));
    check(b"k8s\0\x0a\x05", &format!("{must}unexpected EOF (6b3873000a05)"));
    let cannot = r#"Pod in version "v1" cannot be handled as a Pod: "#;
    let inside = |object: &[u8], why: &str| check(&body("v1", "Pod", object), &format!("{cannot}{why}"));
    inside(&small(1, 1), "proto: wrong wireType = 0 for field metadata");
    inside(&bytes(1, &[&bytes(1, &[&[0xff]])]), "proto: field name is not valid UTF-8");
    inside(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "unexpected EOF");
    inside(&[0x08 + 7, 1], "proto: illegal wireType 7");
    inside(&[0, 1], "proto: illegal tag 0");
    inside(&[99 << 1 | 1; 12], "proto: integer overflow");
    inside(&[0x64], "proto: unexpected end of group");
    let out_of_range = bytes(1, &[&bytes(8, &[&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]])]);
    inside(&out_of_range, "proto: value of field creationTimestamp is out of range");
    check(
        &body("v1", "Service", &[]),
        r#"Service in version "v1" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion"#,
    );
}

#[test]
fn unknown_fields_are_skipped() {
    // A group in a group, numbers beyond any table, every layout.
    let unknown = [0x63, 0x6b, 0x08, 1, 0x6c, 0x64, 0xf8, 0xff, 0xff, 0xff, 0x0f, 1, 0x61, 0, 0, 0, 0, 0, 0, 0, 0];
    let pod = [&unknown[..], &[0x65, 0, 0, 0, 0], &bytes(1, &[&text(1, "a")]), &text(12, "x")].concat();
    assert_eq!(read(&body("v1", "Pod", &pod), resource("", "pods"))["metadata"], json!({"name": "a"}));
}

/// Both forms of an object of the reference; `None` without the reference.
fn reference(expected: Expected) -> Option<(Vec<u8>, Value)> {
    let Expected { group, version, kind } = expected;
    let folder = crate::api::reference::folder()?;
    let group = if group.is_empty() { "core" } else { group };
    let file = |end: &str| std::fs::read(folder.join(format!("roundtrip/{group}.{version}.{kind}.{end}")));
    let json = match file("json") {
        Err(_) if ELSEWHERE.contains(&group) => return None,
        json => json.unwrap_or_else(|e| panic!("{group}/{kind}: {e}")),
    };
    Some((file("pb").unwrap(), serde_json::from_slice(&json).unwrap()))
}

/// Groups whose kinds are not in `k8s.io/api`, and so may not be in the reference.
const ELSEWHERE: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

/// Every kind that can be a body.
fn bodies() -> Vec<Expected> {
    let subresources = RESOURCES.iter().flat_map(|r| r.subresources.iter().map(|s| Expected::at(r, s.name)));
    let mut kinds: Vec<Expected> = RESOURCES.iter().map(Expected::of).chain(subresources).collect();
    kinds.push(Expected::DELETE_OPTIONS);
    kinds.retain(|k| schema::find(k.group, k.version, k.kind).is_some());
    kinds
}

/// The objects of the reference have every field filled: both forms of each are the same.
#[test]
fn the_reference_objects_are_the_same_in_both_forms() {
    let bodies = bodies();
    assert!(bodies.len() >= 25, "{}", bodies.len());
    for expected in bodies {
        let Some((body, json)) = reference(expected) else {
            if ELSEWHERE.contains(&expected.group) {
                continue;
            }
            return;
        };
        let (value, _) = decode::kind(&body, MEDIA_TYPE, expected, FieldValidation::Strict)
            .unwrap_or_else(|e| panic!("{expected:?}: {e}"));
        assert_eq!(value, json, "{expected:?}");
        let back = encode::object(&json).unwrap_or_else(|| panic!("{expected:?} has no protobuf form"));
        assert_eq!(back, body, "{expected:?}");
    }
}

/// `{schema=1, jSONSchemas=2}`, `{allows=1, schema=2}`, `{schema=1, property=2}` and `{raw=1}`.
#[test]
fn a_schema_or_something_else() {
    let table = schema::named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    // A schema that is nothing but a type, with the zeros of everything that is no pointer.
    let schema = |kind: &str| {
        let texts = [text(1, ""), text(2, ""), text(4, ""), text(5, kind), text(6, ""), text(7, "")].concat();
        let flags = |numbers: &[u8]| {
            numbers.iter().flat_map(|n| [varint(usize::from(*n) << 3), vec![0]].concat()).collect::<Vec<u8>>()
        };
        [texts, flags(&[10, 12]), text(15, ""), flags(&[18, 37, 39, 40])].concat()
    };
    let check = |value: Value, field: Vec<u8>| {
        assert_eq!(decode(&field, table).unwrap(), value);
        let object = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": {
            "versions": [{"schema": {"openAPIV3Schema": value}}]}});
        let written = encode::object(&object).unwrap();
        assert!(written.windows(field.len()).any(|w| w == field), "{value}");
    };
    let (a, b) = (schema("a"), schema("b"));
    check(json!({"items": {"type": "a"}}), bytes(24, &[&bytes(1, &[&a])]));
    check(json!({"items": [{"type": "b"}, {"type": "a"}]}), bytes(24, &[&bytes(2, &[&b]), &bytes(2, &[&a])]));
    check(json!({"additionalProperties": true}), bytes(30, &[&small(1, 1)]));
    check(json!({"additionalItems": false}), bytes(33, &[&small(1, 0)]));
    check(json!({"additionalProperties": {"type": "a"}}), bytes(30, &[&small(1, 1), &bytes(2, &[&a])]));
    let names = bytes(2, &[&text(2, "b"), &text(2, "c")]);
    check(json!({"dependencies": {"a": ["b", "c"]}}), bytes(32, &[&text(1, "a"), &names]));
    let one = bytes(2, &[&bytes(1, &[&b])]);
    check(json!({"dependencies": {"a": {"type": "b"}}}), bytes(32, &[&text(1, "a"), &one]));
    check(json!({"default": {"a": 1}}), bytes(8, &[&text(1, r#"{"a":1}"#)]));
    check(json!({"enum": ["x", 2]}), [bytes(20, &[&text(1, r#""x""#)]), bytes(20, &[&text(1, "2")])].concat());
}

/// What kubectl wrote and was read comes out again as it was: zeros of what is no pointer, in every struct.
#[test]
fn zeros_are_written_as_go_does() {
    let service = b"k8s\x00\n\r\n\x02v1\x12\x07Service\x12]\n\x1b\n\x01s\x12\x00\x1a\x00\"\x00*\x002\x008\
        \x00B\x00Z\x08\n\x03app\x12\x01s\x12:\n\x15\n\x0280\x12\x03TCP\x18P\"\x06\x08\x00\x10P\
        \x1a\x00(\x00\x12\x08\n\x03app\x12\x01s\x1a\x00\"\tClusterIP:\x00B\x00R\x00Z\x00`\x00h\
        \x00\x1a\x02\n\x00\x1a\x00\"\x00";
    let read = read(service, resource("", "services"));
    assert_eq!(encode::object(&read).unwrap(), service);
    let partial = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "x"}});
    let meta = [&text(1, "x")[..], &text(2, ""), &text(3, ""), &text(4, ""), &text(5, ""), &text(6, "")].concat();
    let meta = [meta, small(7, 0), bytes(8, &[])].concat();
    let expect = body("meta.k8s.io/v1", "PartialObjectMetadata", &bytes(1, &[&meta]));
    assert_eq!(encode::object(&partial).unwrap(), expect);
    assert_eq!(encode::object(&json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table"})), None);
    let event = encode::watch_event("ADDED", b"object");
    assert_eq!(event, [&[0, 0, 0, 17][..], &text(1, "ADDED"), &bytes(2, &[&bytes(1, &[b"object"])])].concat());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(noise in proptest::collection::vec(any::<u8>(), 0..96)) {
        for r in RESOURCES {
            let _ = decode::object(&body(&r.api_version(), r.kind, &noise), MEDIA_TYPE, r, FieldValidation::Strict);
            let _ = decode::object(&noise, MEDIA_TYPE, r, FieldValidation::Strict);
        }
    }

    /// Cut off, or with some bytes changed.
    #[test]
    fn damaged_bodies_are_read_or_refused(
        cut in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let Some((mut body, _)) = reference(Expected::of(resource("", "pods"))) else { return Ok(()) };
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let _ = decode::object(&body, MEDIA_TYPE, resource("", "pods"), FieldValidation::Strict);
        body.truncate(cut.index(body.len()));
        let _ = decode::object(&body, MEDIA_TYPE, resource("", "pods"), FieldValidation::Strict);
    }
}
