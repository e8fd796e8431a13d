//! Tables of what classes and signers add and refuse.

use super::*;
use crate::server::admission::certificates::*;
use crate::server::admission::default_ingress_class::DefaultIngressClass;
use crate::server::admission::default_storage_class::DefaultStorageClass;
use crate::server::admission::persistent_volume_claim_resize::PersistentVolumeClaimResize;
use crate::server::admission::runtime_class::RuntimeClass;
use crate::server::admission::storage_object_in_use_protection::StorageObjectInUseProtection;

fn class(api_version: &str, kind: &str, name: &str, made: &str, annotation: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "creationTimestamp": made, "annotations": {annotation: "true"}}})
}

fn claim(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "x"}, "spec": spec})
}

#[test]
fn a_claim_without_a_class_gets_the_newest_default() {
    let key = "storageclass.kubernetes.io/is-default-class";
    let class = |name, made| class("storage.k8s.io/v1", "StorageClass", name, made, key);
    let (old, new) = (class("a", "2026-01-01T00:00:00Z"), class("c", "2026-02-01T00:00:00Z"));
    let plain = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "z"}});
    let plugin = DefaultStorageClass::new(Fake::new([old, new, class("b", "2026-02-01T00:00:00Z"), plain]));
    for (spec, expect) in [(json!({}), json!("b")), (json!({"storageClassName": ""}), json!(""))] {
        let got = ask(&plugin, &create(admin()), &claim(spec)).unwrap();
        assert_eq!(got["spec"]["storageClassName"], expect);
    }
    let none = DefaultStorageClass::new(Fake::new([]));
    assert_eq!(ask(&none, &create(admin()), &claim(json!({}))).unwrap()["spec"].get("storageClassName"), None);
}

#[test]
fn an_ingress_without_a_class_gets_the_default() {
    let key = "ingressclass.kubernetes.io/is-default-class";
    let class = class("networking.k8s.io/v1", "IngressClass", "a", "2026-01-01T00:00:00Z", key);
    let plugin = DefaultIngressClass::new(Fake::new([class]));
    let ingress = |annotations: Value| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "spec": {},
               "metadata": {"name": "i", "namespace": "x", "annotations": annotations}})
    };
    let got = |annotations| ask(&plugin, &create(admin()), &ingress(annotations)).unwrap()["spec"].clone();
    assert_eq!(got(json!({})), json!({"ingressClassName": "a"}));
    assert_eq!(got(json!({"kubernetes.io/ingress.class": "nginx"})).get("ingressClassName"), None);
}

#[test]
fn claims_grow_when_they_are_bound_and_their_class_lets_them() {
    let class = |name: &str, grows: bool| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
               "allowVolumeExpansion": grows})
    };
    let plugin = PersistentVolumeClaimResize::new(Fake::new([class("grows", true), class("stays", false)]));
    let sized = |class: &str, size: &str, phase: &str| {
        let mut claim = claim(json!({"storageClassName": class, "resources": {"requests": {"storage": size}}}));
        claim["status"] = json!({"phase": phase});
        claim
    };
    let refused = |why: &str| Err(format!("persistentvolumeclaims \"c\" is forbidden: {why}"));
    let unsupported = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                       support resize";
    for (class, to, phase, expect) in [
        ("grows", "2Gi", "Bound", Ok(())),
        ("stays", "1024Mi", "Pending", Ok(())),
        ("grows", "2Gi", "Pending", refused("Only bound persistent volume claims can be expanded")),
        ("stays", "2Gi", "Bound", refused(unsupported)),
        ("", "2Gi", "Bound", refused(unsupported)),
    ] {
        let old = sized(class, "1Gi", phase);
        let got = ask(&plugin, &update(admin(), "", &old), &sized(class, to, phase));
        assert_eq!(got.map(drop), expect, "{class} {to} {phase}");
    }
}

#[test]
fn what_is_in_use_is_protected() {
    let finalizers = |object: Value| {
        ask(&StorageObjectInUseProtection, &create(admin()), &object).unwrap()["metadata"]["finalizers"].clone()
    };
    assert_eq!(finalizers(claim(json!({}))), json!(["kubernetes.io/pvc-protection"]));
    let mut held = claim(json!({}));
    held["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection", "a/b"]);
    assert_eq!(finalizers(held.clone()), held["metadata"]["finalizers"]);
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}});
    assert_eq!(finalizers(volume), json!(["kubernetes.io/pv-protection"]));
    assert_eq!(finalizers(config_map("x")), Value::Null);
}

#[test]
fn a_runtime_class_adds_its_overhead_and_where_it_is_possible() {
    let plugin = RuntimeClass::new(Fake::new([
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata"}, "handler": "kata",
            "overhead": {"podFixed": {"memory": "120Mi"}},
            "scheduling": {"nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata", "operator": "Exists"}]}}),
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "runc"}, "handler": "runc"}),
    ]));
    let made = |spec: Value| ask(&plugin, &create(admin()), &pod("x", spec)).map(|p| p["spec"].clone());
    let class = json!({"runtimeClassName": "kata", "overhead": {"memory": "120Mi"}, "nodeSelector": {"kata": "yes"},
        "tolerations": [{"key": "kata", "operator": "Exists"}]});
    assert_eq!(made(json!({"runtimeClassName": "kata"})), Ok(class.clone()));
    assert_eq!(made(class.clone()), Ok(class));
    assert_eq!(made(json!({"runtimeClassName": "runc"})), Ok(json!({"runtimeClassName": "runc"})));
    for (spec, why) in [
        (json!({"runtimeClassName": "none"}), "pod rejected: RuntimeClass \"none\" not found"),
        (
            json!({"runtimeClassName": "kata", "overhead": {"memory": "1Gi"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            json!({"overhead": {"memory": "1Gi"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            json!({"runtimeClassName": "kata", "nodeSelector": {"kata": "no"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no",
        ),
    ] {
        assert_eq!(made(spec), Err(format!("pods \"web\" is forbidden: {why}")));
    }
}

fn signing_request(signer: &str, request: &str, status: Value) -> Value {
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "r"},
        "spec": {"signerName": signer, "request": request}, "status": status})
}

#[test]
fn signers_are_approved_and_signed_for_by_those_who_may() {
    let objects = objects();
    for object in [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "signer"},
            "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve", "sign"],
                       "resourceNames": ["example.com/*"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "signer"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "signer"},
            "subjects": [{"kind": "User", "name": "bob"}]}),
    ] {
        objects.put(object);
    }
    let authorizer = Arc::new(Authorizer::new(objects));
    let (approval, signing) = (CertificateApproval(authorizer.clone()), CertificateSigning(authorizer));
    let bob = || User::new("bob", &[SYSTEM_AUTHENTICATED]);
    let refused = |why: &str| Err(format!("certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: {why}"));
    for (signer, expect) in [
        ("example.com/a", Ok(())),
        ("other.com/a", refused("user not permitted to approve requests with signerName \"other.com/a\"")),
    ] {
        let request = signing_request(signer, "", json!({}));
        assert_eq!(ask(&approval, &update(bob(), "approval", &request), &request).map(drop), expect);
        // Whoever only changes the labels approves nothing.
        assert_eq!(ask(&approval, &update(bob(), "", &request), &request).map(drop), Ok(()));
    }
    let (old, new) = (
        signing_request("other.com/a", "", json!({})),
        signing_request("other.com/a", "", json!({"certificate": "LS0t"})),
    );
    let why = "user not permitted to sign requests with signerName \"other.com/a\"";
    assert_eq!(ask(&signing, &update(bob(), "status", &old), &new).map(drop), refused(why));
    assert_eq!(ask(&signing, &update(bob(), "status", &old), &old).map(drop), Ok(()));
    assert_eq!(ask(&signing, &update(admin(), "status", &old), &new).map(drop), Ok(()));
}

#[test]
fn nobody_asks_for_the_rights_of_masters() {
    use base64::Engine as _;
    let request = |group: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        base64::engine::general_purpose::STANDARD.encode(pem)
    };
    let asked = |signer: &str, text: &str| {
        ask(&CertificateSubjectRestriction, &create(admin()), &signing_request(signer, text, json!({}))).map(drop)
    };
    let client = "kubernetes.io/kube-apiserver-client";
    assert_eq!(asked(client, &request("devs")), Ok(()));
    assert_eq!(asked("example.com/a", &request("system:masters")), Ok(()));
    let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    let expect = format!("certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: {why}");
    assert_eq!(asked(client, &request("system:masters")), Err(expect));
}
