//! Golden plans of CertificateSigningRequests.

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::*;

const CREATED: &str = "2026-01-01T00:00:00Z";

/// A request for a common name, an organization and names ("10.0.0.1", "x@y", "s://u" or a DNS name).
fn pem(common_name: &str, organization: &str, names: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if name.contains('@') => SanType::Rfc822Name((*name).try_into().unwrap()),
            Err(_) if name.contains(':') => SanType::URI((*name).try_into().unwrap()),
            Err(_) => SanType::DnsName((*name).try_into().unwrap()),
        })
        .collect();
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn object(signer: &str, pem: &str, usages: &[&str], conditions: &Value) -> Value {
    json!({
        "metadata": { "name": "r", "uid": "r", "resourceVersion": "1", "creationTimestamp": CREATED },
        "spec": { "signerName": format!("kubernetes.io/{signer}"), "username": "system:node:n", "groups": ["g"],
            "request": k8s_openapi::ByteString(pem.as_bytes().to_vec()), "usages": usages, "expirationSeconds": 3600 },
        "status": { "conditions": conditions },
    })
}

fn condition(kind: &str) -> Value {
    json!({ "type": kind, "status": "True", "lastUpdateTime": CREATED })
}

/// Says what it was asked for.
fn signer() -> Sign {
    Sign::new(|order| match order.signer {
        "kubernetes.io/kubelet-serving" => Err("the signer has expired".into()),
        signer => Ok(format!("{signer} {:?} {:?}", order.usages, order.life)),
    })
}

fn after(seconds: i64) -> Timestamp {
    CREATED.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

struct World {
    controller: Certificates,
    stores: Stores,
}

impl World {
    fn of(object: &Value) -> Self {
        let stores = Stores::new();
        stores.certificate_requests.put(serde_json::from_value(object.clone()).unwrap());
        Self { controller: Certificates::new(signer()), stores }
    }

    fn plan(&self, seconds: i64) -> Plan {
        let moment = Moment { now: after(seconds), failure: None };
        self.controller.plan(&self.stores, &Name::new("", "r"), moment)
    }

    /// Answers the reviews with yes for the rights given; then what was written, and how often was asked.
    fn settle(&self, rights: &[&str]) -> (Option<Request>, usize) {
        for asked in 0.. {
            match self.plan(1).actions.into_iter().next() {
                None => return (None, asked),
                Some(Action::Write(write)) => return (Some(write.request), asked),
                Some(Action::Read(request)) => {
                    let right = request.body["spec"]["resourceAttributes"]["subresource"].as_str().unwrap();
                    let answer = json!({ "status": { "allowed": rights.contains(&right) } });
                    assert_eq!(request.body["spec"]["user"], "system:node:n");
                    self.controller.learn(&Name::new("", "r"), &request, Some(answer));
                }
                Some(other) => panic!("{other:?}"),
            }
        }
        unreachable!()
    }
}

#[test]
fn client_certificates_of_kubelets_are_approved() {
    const USAGES: &[&str] = &["digital signature", "client auth"];
    let check = |common_name: &str, usages: &[&str], rights: &[&str], asks: usize, want: Option<&str>| {
        let object =
            object("kube-apiserver-client-kubelet", &pem(common_name, "system:nodes", &[]), usages, &json!([]));
        let (written, asked) = World::of(&object).settle(rights);
        assert_eq!(asked, asks, "{common_name} {rights:?}");
        let message = written.as_ref().map(|request| {
            let condition = &request.body["status"]["conditions"][0];
            assert_eq!((request.subresource, &condition["type"]), ("approval", &json!("Approved")));
            assert_eq!((&condition["reason"], &condition["status"]), (&json!("AutoApproved"), &json!("True")));
            condition["message"].as_str().unwrap()
        });
        assert_eq!(message, want, "{common_name} {rights:?}");
    };
    let [own, any] = RIGHTS.map(|(_, message)| message);
    check("system:node:n", USAGES, &["selfnodeclient"], 1, Some(own));
    check("system:node:n", USAGES, &["nodeclient"], 2, Some(any));
    check("system:node:n", USAGES, &[], 2, None);
    check("system:node:m", USAGES, &["selfnodeclient"], 1, None);
    check("system:node:m", USAGES, &["nodeclient"], 1, Some(any));
    check("alice", USAGES, &["nodeclient"], 0, None);
    check("system:node:n", &["client auth"], &["nodeclient"], 0, None);
}

#[test]
fn who_was_refused_is_asked_for_again_when_rights_change() {
    let usages = ["digital signature", "client auth"];
    let pem = pem("system:node:n", "system:nodes", &[]);
    let world = World::of(&object("kube-apiserver-client-kubelet", &pem, &usages, &json!([])));
    let stores = Arc::new(Stores::new());
    let queue = Arc::new(super::super::driver::queue::Queue::new([].into()));
    world.controller.wire(&stores, &Enqueue { queue, controller: 0 });
    assert_eq!(world.settle(&[]), (None, 2));
    assert_eq!(world.settle(&["nodeclient"]), (None, 0), "the answers are known");
    stores.cluster_roles.put(serde_json::from_value(json!({ "metadata": { "name": "x" } })).unwrap());
    let (written, asked) = world.settle(&["nodeclient"]);
    assert!(written.is_some() && asked == 2);
}

#[test]
fn approved_requests_are_signed_or_fail() {
    let check = |signer: &str, pem: &str, usages: &[&str], want: &str| {
        let world = World::of(&object(signer, pem, usages, &json!([condition("Approved")])));
        let plan = world.plan(1);
        let written = plan.actions.first().map_or_else(String::new, |action| {
            let Action::Write(write) = action else { panic!("{action:?}") };
            assert_eq!(write.request.subresource, "status");
            let status = &write.request.body["status"];
            if let Some(failed) = status["conditions"].get(1) {
                assert_eq!(status["conditions"][0]["type"], "Approved");
                assert_eq!((&failed["type"], &failed["reason"]), (&json!("Failed"), &json!("SignerValidationFailure")));
                return failed["message"].as_str().unwrap().to_owned();
            }
            let pem: k8s_openapi::ByteString = serde_json::from_value(status["certificate"].clone()).unwrap();
            String::from_utf8(pem.0).unwrap()
        });
        assert_eq!(written, want, "{signer} {usages:?}");
        plan.again
    };
    let (alice, node) = (pem("alice", "team", &["x.y"]), pem("system:node:n", "system:nodes", &[]));
    let served = pem("system:node:n", "system:nodes", &["n.x", "10.0.0.1"]);
    let client = "kube-apiserver-client";
    let signed = "kubernetes.io/kube-apiserver-client [\"client auth\"] Some(3600s)";
    check(client, &alice, &["client auth"], signed);
    check(client, &alice, &["client auth", "server auth"], "invalid usage for client certificate: server auth");
    check(client, &alice, &["digital signature"], "missing required usage for client certificate: client auth");
    let kubelet = "kube-apiserver-client-kubelet";
    let usages = ["key encipherment", "digital signature", "client auth"];
    let signed = "kubernetes.io/kube-apiserver-client-kubelet [\"key encipherment\", \"digital signature\", \"client auth\"] Some(3600s)";
    check(kubelet, &node, &usages, signed);
    check(kubelet, &alice, &usages, "subject organization is not system:nodes");
    check(kubelet, &served, &usages, "DNS subjectAltNames are not allowed");
    for (name, why) in [("10.0.0.1", "IP"), ("a@b", "Email"), ("s://u", "URI")] {
        let named = pem("system:node:n", "system:nodes", &[name]);
        check(kubelet, &named, &usages, &format!("{why} subjectAltNames are not allowed"));
    }
    let nobody = pem("n", "system:nodes", &[]);
    check(kubelet, &nobody, &usages, "subject common name does not begin with system:node:");
    let why = "usages did not match [client auth digital signature key encipherment]";
    check(kubelet, &node, &["client auth"], why);
    let serving = "kubelet-serving";
    let usages = ["digital signature", "server auth"];
    check(serving, &node, &usages, "DNS or IP subjectAltName is required");
    let mail = pem("system:node:n", "system:nodes", &["n.x", "a@b"]);
    check(serving, &mail, &usages, "Email subjectAltNames are not allowed");
    let why = "usages did not match [digital signature key encipherment server auth]";
    check(serving, &served, &["client auth"], why);
    // The signer itself fails: it is tried again.
    assert_eq!(check(serving, &served, &usages, ""), Some(SIGN_AGAIN));
    // Somebody else's.
    check("other", &alice, &["client auth"], "");
    check(client, "nonsense", &["client auth"], "PEM block type must be CERTIFICATE REQUEST");
}

#[test]
fn what_is_decided_stays_decided() {
    let alice = pem("alice", "team", &[]);
    let both = json!([condition("Approved"), condition("Failed")]);
    for conditions in [json!([condition("Denied")]), both] {
        let world = World::of(&object("kube-apiserver-client", &alice, &["client auth"], &conditions));
        assert_eq!(world.plan(1).actions, []);
    }
    let mut issued = object("kube-apiserver-client", &alice, &["client auth"], &json!([condition("Approved")]));
    issued["status"]["certificate"] = json!(k8s_openapi::ByteString(b"x".to_vec()));
    assert_eq!(World::of(&issued).plan(1).actions, []);
}

#[test]
fn old_requests_are_deleted_in_time() {
    let (hour, day) = (3600, 24 * 3600);
    let check = |conditions: &Value, certificate: Option<&str>, stays: i64| {
        let mut object = object("other", &pem("alice", "team", &[]), &["client auth"], conditions);
        if let Some(pem) = certificate {
            object["status"]["certificate"] = json!(k8s_openapi::ByteString(pem.as_bytes().to_vec()));
        }
        let world = World::of(&object);
        let before = world.plan(stays - 1);
        assert_eq!((before.actions, before.again), (vec![], Some(Duration::from_secs(1))), "{conditions}");
        let plan = world.plan(stays);
        let [Action::Write(write)] = &plan.actions[..] else { panic!("{conditions} {plan:?}") };
        assert_eq!(write.request.verb, Verb::Delete);
    };
    check(&json!([]), None, day);
    check(&json!([condition("Denied")]), None, hour);
    check(&json!([condition("Approved"), condition("Failed")]), None, hour);
    check(&json!([condition("Approved")]), None, day);
    check(&json!([condition("Approved")]), Some("x"), hour);
    let mut params = CertificateParams::default();
    params.not_after = rcgen::date_time_ymd(2026, 1, 1) + Duration::from_secs(900);
    let short = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    check(&json!([condition("Approved")]), Some(&short), 900);
}
