//! The life of an object of each kind that has a requirement of its own: found in discovery, then every verb.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::discovery::check_listed;
use super::{MERGE, Watching, name};
use crate::Server;

/// A kind of a group, and an object of it without a name.
pub struct Kind {
    pub group: &'static str,
    /// The resource, then its subresources.
    pub resources: &'static [&'static str],
    pub object: Value,
    /// What a patch and an update change in the spec: a pointer, and two values that follow one another.
    pub field: (&'static str, Value, Value),
}

/// Groups whose kinds are in namespaces, and those of other groups that are.
const NAMESPACED: [&str; 4] = ["apps", "batch", "coordination.k8s.io", "policy"];
const IN_NAMESPACES: [&str; 6] =
    ["configmaps", "csistoragecapacities", "podtemplates", "resourceclaims", "resourceclaimtemplates", "secrets"];
/// Groups whose conditions are of the general form, which need a message and a time.
const GENERAL: [&str; 2] = [ADMISSION, "policy"];

impl Kind {
    pub fn path(&self) -> String {
        let is_in_one = NAMESPACED.contains(&self.group) || IN_NAMESPACES.contains(&self.resources[0]);
        let namespace = if is_in_one { "namespaces/default/" } else { "" };
        let group = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        format!("{group}/v1/{namespace}{}", self.resources[0])
    }

    /// Three objects with one label, of which the last is read, watched and changed.
    pub async fn live(&self, server: &Server) -> String {
        if !self.group.is_empty() {
            check_listed(server, self.group, "v1", self.resources).await;
        }
        let (path, mine) = (self.path(), "labelSelector=of%3Dconformance");
        let mut object = self.object.clone();
        object["metadata"] = json!({"generateName": "of-", "labels": {"of": "conformance"}});
        let mut made = Value::Null;
        for _ in 0..3 {
            made = server.made(&path, &object).await;
        }
        let at = format!("{path}/{}", name(&made));
        assert_eq!(server.get(&at).await.json()["metadata"]["uid"], made["metadata"]["uid"]);
        assert_eq!(server.items(&path).await.iter().filter(|i| name(i).starts_with("of-")).count(), 3);
        let list = server.get(&format!("{path}?{mine}")).await.json();
        assert_eq!(list["items"].as_array().unwrap().len(), 3);

        let from = list["metadata"]["resourceVersion"].as_str().unwrap();
        let mut watch = Watching::new(server, &format!("{path}?watch=1&{mine}&resourceVersion={from}")).await;
        let (field, first, second) = &self.field;
        let mut patch = json!({"metadata": {"annotations": {"patched": "true"}}});
        set(&mut patch, field, first);
        let patched = server.patched(&at, MERGE, &patch).await;
        assert_eq!(
            (&patched["metadata"]["annotations"]["patched"], &patched.pointer(field)),
            (&json!("true"), &Some(first))
        );
        let mut update = server.get(&at).await.json();
        update["metadata"]["annotations"]["updated"] = "true".into();
        set(&mut update, field, second);
        let updated = server.replaced(&at, &update).await;
        assert_eq!(
            (&updated["metadata"]["annotations"]["updated"], &updated.pointer(field)),
            (&json!("true"), &Some(second))
        );
        let (kind, seen) = watch.next().await;
        assert_eq!((kind.as_str(), &seen), ("MODIFIED", &patched));
        assert_eq!(watch.next().await, ("MODIFIED".to_owned(), updated));
        at
    }

    /// The object goes, then the others together.
    pub async fn end(&self, server: &Server, at: &str) {
        let mine = format!("{}?labelSelector=of%3Dconformance", self.path());
        // Nobody is here to release dependents, which Jobs leave behind when they are not told what to do.
        let options = json!({"propagationPolicy": "Background"});
        server.deleted(at, &options).await;
        assert_eq!(server.get(at).await.code, 404);
        assert_eq!(server.items(&mine).await.len(), 2);
        server.deleted(&mine, &options).await;
        assert_eq!(server.items(&mine).await, Vec::<Value>::new());
    }

    /// Reads, patches and replaces the status; returns what was made of it.
    pub async fn status(&self, server: &Server, at: &str) -> Value {
        let at = format!("{at}/status");
        let read = server.get(&at).await.json();
        assert_eq!(read["kind"], self.object["kind"]);
        let condition = |kind: &str| {
            let mut condition = json!({"type": kind, "status": "False", "reason": "ByATest"});
            if GENERAL.contains(&self.group) {
                condition["message"] = "said".into();
                condition["lastTransitionTime"] = "2026-01-01T00:00:00Z".into();
            }
            condition
        };
        let patch = json!({"status": {"conditions": [condition("Patched")]}});
        let mut patched = server.patched(&at, MERGE, &patch).await;
        let found = patched["status"]["conditions"].as_array().unwrap().last().unwrap();
        assert_eq!((&found["type"], &found["reason"]), (&json!("Patched"), &json!("ByATest")));
        patched["status"]["conditions"].as_array_mut().unwrap().push(condition("Updated"));
        let updated = server.replaced(&at, &patched).await;
        assert_eq!(updated["status"]["conditions"].as_array().unwrap().last().unwrap()["type"], "Updated");
        assert_eq!(updated["spec"], read["spec"]);
        updated
    }
}

/// Sets the value at a pointer, with the objects that lead there.
fn set(object: &mut Value, pointer: &str, value: &Value) {
    let mut place = object;
    for part in pointer.split('/').skip(1) {
        place = &mut place[part];
    }
    *place = value.clone();
}

#[tokio::test]
async fn flow_schemas() {
    let server = Server::new().await;
    let rule = json!({
        "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    });
    let kind = Kind {
        group: "flowcontrol.apiserver.k8s.io",
        resources: &["flowschemas", "flowschemas/status"],
        object: json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "spec": {
            "matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
            "distinguisherMethod": {"type": "ByUser"}, "rules": [rule]}}),
        field: ("/spec/matchingPrecedence", json!(9999), json!(9998)),
    };
    let at = kind.live(&server).await;
    kind.status(&server, &at).await;
    kind.end(&server, &at).await;
}

#[tokio::test]
async fn priority_level_configurations() {
    let server = Server::new().await;
    let kind = Kind {
        group: "flowcontrol.apiserver.k8s.io",
        resources: &["prioritylevelconfigurations", "prioritylevelconfigurations/status"],
        object: json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
            "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}}),
        field: ("/spec/limited/nominalConcurrencyShares", json!(4), json!(0)),
    };
    let at = kind.live(&server).await;
    kind.status(&server, &at).await;
    kind.end(&server, &at).await;
}

const ADMISSION: &str = "admissionregistration.k8s.io";

fn deployments() -> Value {
    json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["deployments"]}]})
}

#[tokio::test]
async fn validating_admission_policies() {
    let server = Server::new().await;
    let kind = Kind {
        group: ADMISSION,
        resources: &["validatingadmissionpolicies", "validatingadmissionpolicies/status"],
        object: json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "spec": {"validations": [{"expression": "object.spec.replicas <= 100"}], "matchConstraints": deployments()}}),
        field: ("/spec/failurePolicy", json!("Ignore"), json!("Fail")),
    };
    let at = kind.live(&server).await;
    kind.status(&server, &at).await;
    kind.end(&server, &at).await;
}

#[tokio::test]
async fn validating_admission_policy_bindings() {
    let server = Server::new().await;
    let kind = Kind {
        group: ADMISSION,
        resources: &["validatingadmissionpolicybindings"],
        object: json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "spec": {"policyName": "none", "validationActions": ["Deny"]}}),
        field: ("/spec/validationActions", json!(["Warn"]), json!(["Deny"])),
    };
    let at = kind.live(&server).await;
    kind.end(&server, &at).await;
}

#[tokio::test]
async fn mutating_admission_policies() {
    let server = Server::new().await;
    let expression = "Object{metadata: Object.metadata{annotations: {'my-foo-annotation': 'myAnnotationValue'}}}";
    let kind = Kind {
        group: ADMISSION,
        resources: &["mutatingadmissionpolicies"],
        object: json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "spec": {
            "reinvocationPolicy": "Never", "matchConstraints": deployments(),
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]}}),
        field: ("/spec/failurePolicy", json!("Ignore"), json!("Fail")),
    };
    let at = kind.live(&server).await;
    kind.end(&server, &at).await;
}

#[tokio::test]
async fn mutating_admission_policy_bindings() {
    let server = Server::new().await;
    let kind = Kind {
        group: ADMISSION,
        resources: &["mutatingadmissionpolicybindings"],
        object: json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
            "spec": {"policyName": "none"}}),
        field: (
            "/spec/matchResources",
            json!({"namespaceSelector": {"matchLabels": {"a": "b"}}, "objectSelector": {},
            "matchPolicy": "Equivalent"}),
            json!({"namespaceSelector": {"matchLabels": {"c": "d"}}, "objectSelector": {},
            "matchPolicy": "Equivalent"}),
        ),
    };
    let at = kind.live(&server).await;
    kind.end(&server, &at).await;
}

#[tokio::test]
async fn certificate_signing_requests() {
    let server = Server::new().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "e2e.example.com");
    let request = parameters.serialize_request(&key).unwrap().pem().unwrap();
    let kind = Kind {
        group: "certificates.k8s.io",
        resources: &[
            "certificatesigningrequests",
            "certificatesigningrequests/approval",
            "certificatesigningrequests/status",
        ],
        object: json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "spec": {
            "request": STANDARD.encode(request), "signerName": "example.com/e2e", "expirationSeconds": 3600,
            "usages": ["digital signature", "key encipherment", "server auth"]}}),
        // The spec of a request cannot change; the labels can.
        field: ("/metadata/labels/more", json!("1"), json!("2")),
    };
    let at = kind.live(&server).await;
    assert_eq!(
        server.items(&format!("{}?fieldSelector=spec.signerName%3Dexample.com/e2e", kind.path())).await.len(),
        3
    );

    let approval = format!("{at}/approval");
    let read = server.get(&approval).await.json();
    assert_eq!(
        (&read["kind"], &read["metadata"]["name"]),
        (&json!("CertificateSigningRequest"), &json!(at.rsplit('/').next()))
    );
    let patch = json!({"metadata": {"annotations": {"patchedapproval": "true"}},
        "status": {"conditions": [{"type": "ApprovalPatch", "status": "True", "reason": "e2e"}]}});
    let mut patched = server.patched(&approval, MERGE, &patch).await;
    assert_eq!(patched["metadata"]["annotations"]["patchedapproval"], "true");
    let conditions = patched["status"]["conditions"].as_array_mut().unwrap();
    assert_eq!((conditions.len(), &conditions[0]["type"]), (1, &json!("ApprovalPatch")));
    conditions.push(json!({"type": "Approved", "status": "True", "reason": "E2E", "message": "Set from an e2e test"}));
    let approved = server.replaced(&approval, &patched).await;
    let conditions = approved["status"]["conditions"].as_array().unwrap();
    assert_eq!((conditions.len(), &conditions[1]["type"]), (2, &json!("Approved")));

    let certificate = rcgen::generate_simple_self_signed(vec!["e2e.example.com".to_owned()]).unwrap().cert.pem();
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"certificate": STANDARD.encode(&certificate)}});
    let status = format!("{at}/status");
    assert_eq!(server.get(&status).await.json()["metadata"]["uid"], read["metadata"]["uid"]);
    let mut patched = server.patched(&status, MERGE, &patch).await;
    assert_eq!(patched["status"]["certificate"], STANDARD.encode(&certificate));
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    let more = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from an e2e test"});
    patched["status"]["conditions"].as_array_mut().unwrap().push(more);
    let updated = server.replaced(&status, &patched).await;
    let conditions = updated["status"]["conditions"].as_array().unwrap();
    assert_eq!((conditions.len(), &conditions[2]["type"]), (3, &json!("StatusUpdate")));
    kind.end(&server, &at).await;
}

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

fn quota(name: &str, cpu: &str, memory: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name, "labels": {"of": name}},
        "spec": {"hard": {"cpu": cpu, "memory": memory}}})
}

#[tokio::test]
async fn a_quota_is_updated_and_deleted() {
    let server = Server::new().await;
    let mut made = server.made(QUOTAS, &quota("q", "1", "500Mi")).await;
    made["spec"]["hard"] = json!({"cpu": "2", "memory": "1Gi"});
    let at = format!("{QUOTAS}/q");
    assert_eq!(server.replaced(&at, &made).await["spec"]["hard"], json!({"cpu": "2", "memory": "1Gi"}));
    assert_eq!(server.get(&at).await.json()["spec"]["hard"], json!({"cpu": "2", "memory": "1Gi"}));
    server.deleted(&at, &json!({})).await;
    assert_eq!(server.get(&at).await.code, 404);
}

#[tokio::test]
async fn quotas_are_found_in_all_namespaces_and_deleted_together() {
    let server = Server::new().await;
    server.made(QUOTAS, &quota("q", "500m", "500Mi")).await;
    server.made(QUOTAS, &quota("other", "500m", "500Mi")).await;
    assert_eq!(server.items("/api/v1/resourcequotas?labelSelector=of%3Dq").await.len(), 1);
    let patch = json!({"metadata": {"labels": {"q": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}});
    let patched = server.patched(&format!("{QUOTAS}/q"), super::STRATEGIC, &patch).await;
    assert_eq!(patched["metadata"]["labels"], json!({"of": "q", "q": "patched"}));
    assert_eq!(patched["spec"]["hard"], json!({"cpu": "500m", "memory": "750Mi"}));
    server.deleted(&format!("{QUOTAS}?labelSelector=q%3Dpatched"), &json!({})).await;
    assert_eq!(super::names(&server.items("/api/v1/resourcequotas").await), ["other"]);
}

/// What clients do to a status; that it follows the spec by itself is its controller's.
#[tokio::test]
async fn the_status_of_a_quota_is_written_apart() {
    let server = Server::new().await;
    let mut made = server.made(QUOTAS, &quota("q", "500m", "500Mi")).await;
    let (at, status) = (format!("{QUOTAS}/q"), format!("{QUOTAS}/q/status"));
    made["status"]["hard"] = json!({"cpu": "500m", "memory": "500Mi"});
    assert_eq!(server.replaced(&status, &made).await["status"]["hard"], made["spec"]["hard"]);
    let hard = json!({"cpu": "1", "memory": "1Gi"});
    let patched = server.patched(&at, MERGE, &json!({"spec": {"hard": hard}})).await;
    assert_eq!((&patched["spec"]["hard"], &patched["status"]["hard"]["cpu"]), (&hard, &json!("500m")));
    let patched = server.patched(&status, MERGE, &json!({"status": {"hard": hard}})).await;
    assert_eq!(patched["status"]["hard"], hard);
    assert_eq!(server.get(&status).await.json()["status"]["hard"], hard);
    let again = json!({"spec": {"hard": {"cpu": "9"}}, "status": {"hard": {"cpu": "2", "memory": "2Gi"}}});
    let patched = server.patched(&status, MERGE, &again).await;
    assert_eq!((&patched["spec"]["hard"], &patched["status"]["hard"]["cpu"]), (&hard, &json!("2")));
}
