//! Decides: CertificateSigningRequest. Who asks is who sends it; after that nothing of the request changes.
//!
//! ```text
//! main resource   creates it; later only its metadata
//! approval        status.conditions
//! status          status.certificate, and conditions other than Approved and Denied
//! ```
//!
//! Whether a user may approve for a signer, or sign for it, is not decided here.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec, CertificateSigningRequestStatus,
};

use super::{conditions, pem, signer};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::clock;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, NameRule, Part};

/// A signer of the v1beta1 API.
const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// Ten minutes.
const SHORTEST_SECONDS: i32 = 600;
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub struct CertificateSigningRequestKind;

impl Kind for CertificateSigningRequestKind {
    type Object = CertificateSigningRequest;

    fn resource(&self) -> &'static Resource {
        row("certificates.k8s.io/v1", "CertificateSigningRequest")
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn defaults(&self, request: &mut CertificateSigningRequest) {
        request.status.get_or_insert_default();
    }

    fn prepare_create(&self, cx: &Context, request: &mut CertificateSigningRequest) {
        let (spec, user) = (&mut request.spec, &cx.user);
        spec.username = (!user.name.is_empty()).then(|| user.name.clone());
        spec.uid = (!user.uid.is_empty()).then(|| user.uid.clone());
        spec.groups = (!user.groups.is_empty()).then(|| user.groups.clone());
        spec.extra = (!user.extra.is_empty()).then(|| user.extra.clone());
        request.status = Some(CertificateSigningRequestStatus::default());
    }

    fn prepare_update(
        &self,
        _: &Context,
        part: Part,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        new.spec.clone_from(&old.spec);
        match part {
            Part::Status => {
                conditions::keep_decisions(new, old);
                conditions::stamp(new, old, &clock::time());
            }
            Part::Approval => {
                new.status.get_or_insert_default().certificate = certificate(old).cloned();
                conditions::stamp(new, old, &clock::time());
            }
            _ => {}
        }
    }

    /// Nobody owns what nobody can change.
    fn spec_resets(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }

    fn status_resets(&self) -> &'static [&'static [&'static str]] {
        &[&["status", "conditions"]]
    }

    fn validate(&self, request: &CertificateSigningRequest) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check(&mut errors, &Path::new("spec"), &request.spec);
        conditions::validate(&mut errors, request);
        let issued = certificate(request).filter(|c| !c.0.is_empty());
        if let Some(Err(why)) = issued.map(|c| pem::certificates(&c.0)) {
            let path = Path::new("status").child("certificate");
            errors.push(FieldError::invalid(&path, &"<certificate data>", &why));
        }
        errors
    }

    fn validate_update(
        &self,
        part: Part,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        conditions::validate_update(&mut errors, new, old, part == Part::Approval);
        let before = certificate(old).filter(|c| !c.0.is_empty());
        if before.is_some() && certificate(new) != before {
            let path = Path::new("status").child("certificate");
            errors.push(FieldError::forbidden(&path, "updates may not modify existing certificate content"));
        }
        errors
    }
}

fn certificate(request: &CertificateSigningRequest) -> Option<&ByteString> {
    request.status.as_ref()?.certificate.as_ref()
}

fn check(errors: &mut Errors, path: &Path, spec: &CertificateSigningRequestSpec) {
    if let Err(why) = pem::request(&spec.request.0) {
        errors.push(FieldError::invalid(&path.child("request"), &shown(&spec.request), &why));
    }
    let (at, usages) = (path.child("usages"), spec.usages.as_deref().unwrap_or_default());
    if usages.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    for (i, usage) in usages.iter().enumerate().filter(|(_, usage)| !USAGES.contains(&usage.as_str())) {
        errors.push(FieldError::not_supported(&at.index(i), usage, USAGES));
    }
    for (i, usage) in usages.iter().enumerate().filter(|(i, usage)| usages[..*i].contains(usage)) {
        errors.push(FieldError::duplicate(&at.index(i), usage));
    }
    let at = path.child("signerName");
    if spec.signer_name == LEGACY {
        let message = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid(&at, &spec.signer_name, message));
    } else {
        signer::name(errors, &at, &spec.signer_name);
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < SHORTEST_SECONDS) {
        let message = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(&path.child("expirationSeconds"), &seconds, message));
    }
}
