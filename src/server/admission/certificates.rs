//! Decides who may approve a CertificateSigningRequest, who may sign it, and that nobody asks for the rights of
//! `system:masters`: CertificateApproval, CertificateSigning and CertificateSubjectRestriction.

use std::sync::Arc;

use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

use super::{Attributes, Operation, Plugin};
use crate::api::status::Status;
use crate::api::user::{SYSTEM_MASTERS, User};
use crate::server::authz::{Attributes as Request, Authorizer, Decision, ResourceAttributes};

const GROUP: &str = "certificates.k8s.io";
const STORAGE: &str = "certificates.k8s.io/certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub struct CertificateApproval(pub Arc<Authorizer>);
pub struct CertificateSigning(pub Arc<Authorizer>);
pub struct CertificateSubjectRestriction;

/// Updates of this part of a request.
fn about(a: &Attributes<'_>, part: &str) -> bool {
    a.resource.storage == STORAGE && a.subresource == part && a.operation == Operation::Update
}

/// What stands in the old request counts: the new one can't change it.
fn signer<'a>(a: &Attributes<'a>) -> &'a str {
    a.old.and_then(|old| old["spec"]["signerName"].as_str()).unwrap_or_default()
}

/// Rights are to one signer, or to all of a domain (`example.com/*`).
fn may(authorizer: &Authorizer, user: &User, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &domain].into_iter().any(|name| {
        let request = ResourceAttributes { verb, group: GROUP, resource: "signers", name, ..Default::default() };
        authorizer.authorize(user, &Request::Resource(request)) == Decision::Allow
    })
}

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let signer = signer(attributes);
        if !about(attributes, "approval") || may(&self.0, &attributes.cx.user, "approve", signer) {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {signer:?}");
        Err(attributes.forbidden(object, &why))
    }
}

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let (Some(old), Some(new)) = (attributes.old, object) else { return Ok(()) };
        let signer = signer(attributes);
        let same = |field: &str| old["status"][field] == new["status"][field];
        if !about(attributes, "status")
            || (same("certificate") && same("conditions"))
            || may(&self.0, &attributes.cx.user, "sign", signer)
        {
            return Ok(());
        }
        Err(attributes.forbidden(object, &format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(object) = object.filter(|_| attributes.is(STORAGE) && attributes.operation == Operation::Create)
        else {
            return Ok(());
        };
        if object["spec"]["signerName"] != CLIENT_SIGNER {
            return Ok(());
        }
        let groups = groups(object).map_err(|why| attributes.forbidden(Some(object), &why))?;
        if groups.iter().any(|g| g == SYSTEM_MASTERS) {
            let why = format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
            return Err(attributes.forbidden(Some(object), &why));
        }
        Ok(())
    }
}

/// The organizations of the subject, which are a client's groups.
fn groups(request: &Value) -> Result<Vec<String>, String> {
    use base64::Engine as _;
    let text = request["spec"]["request"].as_str().unwrap_or_default();
    let text = base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| failed(&e))?;
    let block = Pem::iter_from_buffer(&text).find_map(Result::ok).filter(|b| b.label == "CERTIFICATE REQUEST");
    let block = block.ok_or_else(|| failed(&"PEM block type must be CERTIFICATE REQUEST"))?;
    let (_, parsed) = X509CertificationRequest::from_der(&block.contents).map_err(|e| failed(&e))?;
    let subject = &parsed.certification_request_info.subject;
    Ok(subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect())
}

fn failed(why: &dyn std::fmt::Display) -> String {
    format!("failed to parse CSR: {why}")
}
