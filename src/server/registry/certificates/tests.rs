//! Tables: requests for certificates, who may write what of them, names of signers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::signing_request::CertificateSigningRequestKind;
use super::{pem, signer};
use crate::api::apply::set::Set;
use crate::api::field::Path;
use crate::api::user::User;
use crate::pki::authority;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Part, Strategy, Typed};

const KIND: Typed<CertificateSigningRequestKind> = Typed(CertificateSigningRequestKind);

fn key() -> rcgen::KeyPair {
    rcgen::KeyPair::generate().unwrap()
}

fn request_pem() -> String {
    authority::request(&key()).unwrap()
}

fn certificate_pem() -> String {
    let params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
    params.self_signed(&key()).unwrap().pem()
}

fn request(change: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "a"},
        "spec": {"request": STANDARD.encode(request_pem()), "signerName": "example.com/s", "usages": ["client auth"]},
    });
    json_patch::merge(&mut object, change);
    object
}

fn created(change: &Value, user: User, expect: &[&str]) -> Value {
    let (mut object, cx) = (request(change), Context::new(user));
    KIND.defaults(&mut object).unwrap();
    let errors = KIND.prepare_create(&cx, &mut object).unwrap().errors;
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    object
}

fn check(spec: &Value, expect: &[&str]) {
    created(&json!({ "spec": spec }), User::default(), expect);
}

fn update(part: Part, old: &Value, change: &Value, expect: &[&str]) -> Value {
    let (mut new, cx) = (old.clone(), Context::new(User::default()));
    json_patch::merge(&mut new, change);
    KIND.defaults(&mut new).unwrap();
    let errors = KIND.prepare_update(&cx, part, &mut new, old).unwrap().errors;
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    new
}

fn conditions(kinds: &[&str]) -> Value {
    let all: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
    json!({"status": {"conditions": all}})
}

#[test]
fn who_asks_is_who_sends_it() {
    let claims = json!({
        "spec": {"username": "admin", "uid": "1", "groups": ["system:masters"], "extra": {"a": ["b"]}},
        "status": {"certificate": "Yg==", "conditions": [{"type": "Approved", "status": "True"}]},
    });
    let mut user = User::new("eve", &["system:authenticated"]);
    user.extra.insert("scope".into(), vec!["x".into()]);
    let made = created(&claims, user, &[]);
    let spec = &made["spec"];
    assert_eq!((&spec["username"], &spec["uid"]), (&json!("eve"), &Value::Null));
    assert_eq!((&spec["groups"], &spec["extra"]), (&json!(["system:authenticated"]), &json!({"scope": ["x"]})));
    assert_eq!(made["status"], json!({}));
    let new = update(Part::Spec, &made, &claims, &[]);
    assert_eq!(new, made);
    let new = update(Part::Spec, &made, &json!({"metadata": {"labels": {"a": "b"}}}), &[]);
    assert_eq!(new["metadata"]["labels"], json!({"a": "b"}));
}

#[test]
fn validation() {
    check(&json!({"expirationSeconds": 600}), &[]);
    check(
        &json!({"expirationSeconds": 599}),
        &["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)"],
    );
    check(
        &json!({"request": "Yg=="}),
        &["spec.request: Invalid value: \"Yg==\": PEM block type must be CERTIFICATE REQUEST"],
    );
    check(&json!({"usages": null}), &["spec.usages: Required value"]);
    let known = "supported values: \"any\", \"cert sign\", \"client auth\", \"code signing\", \"content commitment\", \
        \"crl sign\", \"data encipherment\", \"decipher only\", \"digital signature\", \"email protection\", \
        \"encipher only\", \"ipsec end system\", \"ipsec tunnel\", \"ipsec user\", \"key agreement\", \
        \"key encipherment\", \"microsoft sgc\", \"netscape sgc\", \"ocsp signing\", \"s/mime\", \"server auth\", \
        \"signing\", \"timestamping\"";
    check(
        &json!({"usages": ["any", "all", "any"]}),
        &[&format!("spec.usages[1]: Unsupported value: \"all\": {known}"), "spec.usages[2]: Duplicate value: \"any\""],
    );
    check(
        &json!({"signerName": "kubernetes.io/legacy-unknown"}),
        &[
            "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via \
           this API version",
        ],
    );
    check(&json!({"signerName": null}), &["spec.signerName: Required value"]);
    // Any segment of a path will do for a name.
    created(&json!({"metadata": {"name": "node:A_1"}}), User::default(), &[]);
}

#[test]
fn names_of_signers() {
    let check = |name: &str, expect: &[&str]| {
        let mut errors = Vec::new();
        signer::name(&mut errors, &Path::new("s"), name);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    };
    check("kubernetes.io/kube-apiserver-client", &[]);
    check("a.b/ns.name", &[]);
    let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    check("a", &[&format!("s: Invalid value: \"a\": {form}")]);
    check("a.b/c/d", &[&format!("s: Invalid value: \"a.b/c/d\": {form}")]);
    check("a/b", &["s: Invalid value: \"a\": should be a domain with at least two segments separated by dots"]);
    check(
        "a.B/-",
        &[
            "s: Invalid value: \"a.B\": validating label \"B\": a lowercase RFC 1123 label must consist of lower case \
             alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  \
             or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "s: Invalid value: \"-\": validating label \"-\": a lowercase RFC 1123 subdomain must consist of lower \
             case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check(&format!("{}a/b", "a.".repeat(127)), &["s: Too long: may not be more than 253 bytes"]);
    check(&format!("a.b/{}a", "a.".repeat(284)), &["s: Too long: may not be more than 571 bytes"]);
}

#[test]
fn requests_and_certificates_in_pem() {
    let wrong = |text: &str| pem::request(text.as_bytes()).unwrap_err();
    let good = request_pem();
    assert_eq!(pem::request(format!("by hand\n{good}").as_bytes()), Ok(()));
    assert_eq!(
        wrong(&good.replace("CERTIFICATE REQUEST", "CERTIFICATE")),
        "PEM block type must be CERTIFICATE REQUEST"
    );
    let armour =
        |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    let request = |der: &[u8]| armour("CERTIFICATE REQUEST", der);
    assert_eq!(wrong(&request(b"x")), "asn1: structure error: not a certificate request");
    let mut der = x509_parser::pem::parse_x509_pem(good.as_bytes()).unwrap().1.contents;
    der.push(0);
    assert_eq!(wrong(&request(&der)), "asn1: syntax error: trailing data");
    der.pop();
    // The signature is at the end.
    *der.last_mut().unwrap() ^= 1;
    assert_eq!(wrong(&request(&der)), "x509: signature verification error");

    let check = |text: &str, expect: Result<(), &str>| {
        assert_eq!(pem::certificates(text.as_bytes()), expect.map_err(str::to_owned));
    };
    let certificate = certificate_pem();
    check(&format!("a: b\n{certificate}c: d\n{certificate}"), Ok(()));
    check("b", Err("must contain at least one CERTIFICATE PEM block"));
    check(&good, Err("only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\""));
    check(&certificate.replacen('\n', "\nA: b\n\n", 1), Err("no PEM block headers are permitted"));
    check(&armour("CERTIFICATE", b"x"), Err("x509: malformed certificate"));
    check(&armour("CERTIFICATE", b""), Err("found CERTIFICATE PEM block containing 0 certificates"));
}

#[test]
fn approval() {
    let old = created(&json!({}), User::default(), &[]);
    let new = update(Part::Approval, &old, &conditions(&["Approved"]), &[]);
    let approved = &new["status"]["conditions"][0];
    assert!(approved["lastUpdateTime"].is_string() && approved["lastTransitionTime"].is_string());
    assert_eq!(new["spec"], old["spec"]);

    // Neither the request nor the certificate.
    let more = json!({"spec": {"username": "x"}, "status": {"certificate": "Yg=="}});
    assert_eq!(update(Part::Approval, &new, &more, &[]), new);

    let mut both = conditions(&["Approved", "Denied", "Denied"]);
    both["status"]["conditions"][2]["status"] = "False".into();
    update(
        Part::Approval,
        &old,
        &both,
        &[
            "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually \
             exclusive",
            "status.conditions[2].status: Unsupported value: \"False\": supported values: \"True\"",
            "status.conditions[2].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually \
             exclusive",
            "status.conditions[2].type: Duplicate value: \"Denied\"",
        ],
    );
    let odd = json!({"status": {"conditions": [{"type": "", "status": ""}, {"type": "x", "status": "Maybe"}]}});
    update(
        Part::Approval,
        &old,
        &odd,
        &[
            "status.conditions[0].type: Required value",
            "status.conditions[0].status: Required value",
            "status.conditions[1].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \
             \"Unknown\"",
        ],
    );
    let removed = "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"";
    update(Part::Approval, &new, &conditions(&[]), &[removed]);
}

#[test]
fn status() {
    let old = created(&json!({}), User::default(), &[]);
    update(
        Part::Status,
        &old,
        &conditions(&["Approved"]),
        &["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""],
    );
    let mut given = conditions(&["Approved"]);
    given["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:00Z".into();
    let approved = update(Part::Approval, &old, &given, &[]);

    let issued = json!({"spec": {"usages": ["any"]}, "status": {"certificate": STANDARD.encode(certificate_pem())}});
    let done = update(Part::Status, &approved, &issued, &[]);
    assert_eq!((&done["status"]["certificate"], &done["spec"]), (&issued["status"]["certificate"], &old["spec"]));
    let again = json!({"status": {"certificate": STANDARD.encode(certificate_pem())}});
    let message = "status.certificate: Forbidden: updates may not modify existing certificate content";
    update(Part::Status, &done, &again, &[message]);
    update(Part::Status, &done, &json!({"status": {"certificate": null}}), &[message]);
    update(
        Part::Status,
        &approved,
        &json!({"status": {"certificate": "Yg=="}}),
        &["status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"],
    );

    // What was decided comes back as it was, whatever the signer sends.
    let mut changed = conditions(&["Failed", "Approved"]);
    changed["status"]["conditions"][1]["reason"] = "Mine".into();
    let failed = update(Part::Status, &approved, &changed, &[]);
    assert_eq!(failed["status"]["conditions"][1], approved["status"]["conditions"][0]);
    assert_eq!(failed["status"]["conditions"][0]["type"], "Failed");
    update(
        Part::Status,
        &failed,
        &conditions(&["Approved"]),
        &["status.conditions: Forbidden: updates may not remove a condition of type \"Failed\""],
    );
}

#[test]
fn writers_own_what_they_can_write() {
    let check = |part: Part, paths: &[&[&str]]| {
        let mut expect = Set::default();
        paths.iter().for_each(|path| expect.insert_path(path));
        assert_eq!(KIND.resets(part), expect);
    };
    check(Part::Spec, &[&["spec"], &["status"]]);
    check(Part::Approval, &[&["spec"], &["status", "certificate"]]);
    check(Part::Status, &[&["spec"], &["status", "conditions"]]);
}
