//! Decides: what becomes of a CertificateSigningRequest (`pkg/controller/certificates`).
//!
//! ```text
//!            a kubelet's, that its sender has a right to        ours to sign        an hour
//! pending ─────────────────────────────────────────▶ Approved ──────────────▶ issued ──────▶ deleted
//!    │                          by hand: Approved, Denied │ not as it must be: Failed ─▶ an hour ─▶ deleted
//!    └─ a day ─▶ deleted                                  └─ nobody signs it ─▶ a day ─▶ deleted
//! ```
//!
//! - [`request`]: what a request asks for, and whether its signer signs such requests
//! - [`end`]: when it is deleted

mod end;
mod request;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use serde_json::{Value, json};

use self::request::Asked;
use super::action::{Action, Controller, Enqueue, Moment, Name, Plan, Write};
use super::owners;
use super::stores::{Stores, row};
use crate::api::resource::find_kind;
use crate::api::signing::{Order, Sign};
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;

pub const REQUESTS: &str = "certificates.k8s.io/certificatesigningrequests";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// After a signer failed: its authority has expired, or the request has a key that it does not know.
const SIGN_AGAIN: Duration = Duration::from_secs(10 * 60);

/// Rights that let the client certificate of a kubelet be approved at once, and what is said of it then.
const RIGHTS: [(&str, &str); 2] = [
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
    ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
];

/// Keys are requests.
pub struct Certificates {
    sign: Sign,
    reviews: Arc<Mutex<HashMap<Name, Reviews>>>,
}

/// What the server said of the rights of who sent a request.
#[derive(Default)]
struct Reviews {
    uid: String,
    allowed: BTreeMap<String, bool>,
}

impl Certificates {
    #[must_use]
    pub fn new(sign: Sign) -> Self {
        Self { sign, reviews: Arc::default() }
    }
}

impl Controller for Certificates {
    fn name(&self) -> &'static str {
        "certificatesigningrequest"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let (queue, reviews) = (enqueue.clone(), Arc::clone(&self.reviews));
        stores.certificate_requests.subscribe(move |change| {
            for request in change.each() {
                queue.add("", request.metadata.name());
            }
            if let (Some(gone), None) = (change.old, change.new) {
                let name = Name::new("", gone.metadata.name());
                reviews.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            }
        });
        // Who was refused may have the right now.
        let (queue, reviews) = (enqueue.clone(), Arc::clone(&self.reviews));
        let ask_again = move || {
            for (name, _) in reviews.lock().unwrap_or_else(PoisonError::into_inner).drain() {
                queue.add("", &name.name);
            }
        };
        if let Some(bindings) = stores.other("rbac.authorization.k8s.io/clusterrolebindings") {
            let ask_again = ask_again.clone();
            bindings.subscribe(move |_| ask_again());
        }
        stores.cluster_roles.subscribe(move |_| ask_again());
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(request) = stores.certificate_requests.get("", &key.name) else { return plan };
        if request.metadata.deleting() {
            return plan;
        }
        match end::left(&request, moment.now) {
            Some(left) if left.is_zero() => {
                let meta = &request.metadata;
                plan.push(Write::delete(Request::delete(row(REQUESTS), "", meta.name(), meta.uid())));
                return plan;
            }
            Some(left) => plan.look_after(left),
            None => {}
        }
        match State::of(&request) {
            State::Pending => {
                let mut reviews = self.reviews.lock().unwrap_or_else(PoisonError::into_inner);
                approve(&request, key, &mut reviews, &mut plan);
            }
            State::Approved => sign(&request, &self.sign, moment, &mut plan),
            State::Done => {
                self.reviews.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            }
        }
        plan
    }

    fn learn(&self, key: &Name, request: &Request, answer: Option<Value>) {
        let right = request.body.pointer("/spec/resourceAttributes/subresource").and_then(Value::as_str);
        let allowed = answer.is_some_and(|review| review.pointer("/status/allowed") == Some(&Value::Bool(true)));
        let mut reviews = self.reviews.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(right), Some(known)) = (right, reviews.get_mut(key)) {
            known.allowed.insert(right.to_owned(), allowed);
        }
    }
}

enum State {
    Pending,
    /// And neither issued nor failed.
    Approved,
    Done,
}

impl State {
    fn of(request: &CertificateSigningRequest) -> Self {
        let has = |kind: &str| conditions(request).iter().any(|c| c.type_ == kind && c.status == "True");
        if is_issued(request) || has("Denied") || has("Failed") {
            Self::Done
        } else if has("Approved") {
            Self::Approved
        } else {
            Self::Pending
        }
    }
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty())
}

/// The first right that its sender has decides; without any it waits for somebody.
fn approve(request: &CertificateSigningRequest, key: &Name, reviews: &mut HashMap<Name, Reviews>, plan: &mut Plan) {
    let spec = &request.spec;
    if spec.signer_name != KUBELET_CLIENT {
        return;
    }
    let Ok(asked) = Asked::parse(&spec.request.0) else { return };
    if request::kubelet_client(&asked, spec.usages.as_deref().unwrap_or_default()).is_err() {
        return;
    }
    let own = spec.username.as_deref() == Some(&asked.common_name);
    let known = reviews.entry(key.clone()).or_default();
    if known.uid != request.metadata.uid() {
        *known = Reviews { uid: request.metadata.uid().to_owned(), ..Reviews::default() };
    }
    for (right, message) in RIGHTS.iter().filter(|(right, _)| own || *right != "selfnodeclient") {
        match known.allowed.get(*right) {
            None => {
                plan.actions.extend(review(spec, right).map(Action::Read));
                return;
            }
            Some(false) => {}
            Some(true) => {
                let condition = json!({ "type": "Approved", "status": "True", "reason": "AutoApproved",
                    "message": message });
                plan.push(write(request, "approval", with(request, condition)));
                return;
            }
        }
    }
}

fn review(spec: &CertificateSigningRequestSpec, right: &str) -> Option<Request> {
    let attributes = json!({ "group": "certificates.k8s.io", "resource": "certificatesigningrequests",
        "subresource": right, "verb": "create" });
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": { "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
            "resourceAttributes": attributes },
    });
    Some(Request::create(find_kind("authorization.k8s.io/v1", "SubjectAccessReview")?, "", body))
}

fn sign(request: &CertificateSigningRequest, sign: &Sign, moment: Moment<'_>, plan: &mut Plan) {
    let spec = &request.spec;
    let usages = spec.usages.as_deref().unwrap_or_default();
    let checked = Asked::parse(&spec.request.0).and_then(|asked| request::check(&spec.signer_name, &asked, usages));
    match checked {
        // Somebody else's signer.
        Ok(false) => {}
        Ok(true) => {
            let life = spec.expiration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
            let (signer, request_pem) = (spec.signer_name.as_str(), spec.request.0.as_slice());
            match sign.sign(&Order { signer, request: request_pem, usages, life, now: moment.now }) {
                Ok(pem) => {
                    let certificate = json!(k8s_openapi::ByteString(pem.into_bytes()));
                    plan.push(write(request, "status", json!({ "certificate": certificate })));
                }
                Err(error) => {
                    tracing::warn!(name = request.metadata.name(), error, "cannot sign a certificate");
                    plan.look_after(SIGN_AGAIN);
                }
            }
        }
        Err(why) => {
            let now = owners::whole_second(moment.now);
            let condition = json!({ "type": "Failed", "status": "True", "reason": "SignerValidationFailure",
                "message": why, "lastUpdateTime": now });
            plan.push(write(request, "status", with(request, condition)));
        }
    }
}

/// A status with one more condition.
fn with(request: &CertificateSigningRequest, condition: Value) -> Value {
    let mut all: Vec<Value> = conditions(request).iter().map(|c| json!(c)).collect();
    all.push(condition);
    json!({ "conditions": all })
}

/// Of just the state that was observed.
fn write(request: &CertificateSigningRequest, part: &'static str, status: Value) -> Request {
    let meta = &request.metadata;
    let body = json!({
        "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version },
        "status": status,
    });
    Request::new(Verb::MergePatch, row(REQUESTS), "", meta.name(), body).on(part)
}

#[cfg(test)]
mod tests;
