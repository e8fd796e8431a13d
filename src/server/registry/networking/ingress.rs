//! Decides: Ingress.

use k8s_openapi::api::core::v1::TypedLocalObjectReference;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressLoadBalancerStatus, IngressServiceBackend, IngressSpec,
    IngressStatus, IngressTLS,
};

use super::{address, group, required_segment};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format::{self, Problems};
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

/// What named the class before `ingressClassName` did.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const NOT_IN_PATHS: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
const NOT_ENDS_OF_PATHS: &[&str] = &["/..", "/."];
const IP_AS_HOST: &str = "must be a DNS name, not an IP address";
const MAX_HOST: usize = 253;

pub struct IngressKind;

impl Kind for IngressKind {
    type Object = Ingress;

    fn resource(&self) -> &'static Resource {
        row("networking.k8s.io/v1", "Ingress")
    }

    /// Nothing but the empty structures that the API always shows.
    fn defaults(&self, ingress: &mut Ingress) {
        let spec = ingress.spec.get_or_insert_default();
        let rules = spec.rules.iter_mut().flatten().filter_map(|rule| rule.http.as_mut());
        let backends = rules.flat_map(|http| http.paths.iter_mut().map(|path| &mut path.backend));
        for backend in backends.chain(spec.default_backend.as_mut()) {
            if let Some(service) = &mut backend.service {
                service.port.get_or_insert_default();
            }
        }
        ingress.status.get_or_insert_default().load_balancer.get_or_insert_default();
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, ingress: &mut Ingress) {
        ingress.status = Some(IngressStatus { load_balancer: Some(IngressLoadBalancerStatus::default()) });
    }

    fn validate(&self, ingress: &Ingress) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check(&mut errors, &Path::new("spec"), &ingress.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_create(&self, ingress: &Ingress) -> Vec<FieldError> {
        let mut errors = self.validate(ingress);
        let class = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_ref());
        if let (Some(annotation), Some(class)) = (class_annotation(ingress), class)
            && annotation != class
        {
            let path = Path::new("annotations").child(CLASS_ANNOTATION);
            let message = "must match `ingressClassName` when both are specified";
            errors.push(FieldError::invalid(&path, annotation, message));
        }
        errors
    }

    fn validate_update(&self, part: Part, new: &Ingress, _: &Ingress) -> Vec<FieldError> {
        if part == Part::Status { status(new) } else { self.validate(new) }
    }

    fn warnings(&self, ingress: &Ingress) -> Vec<String> {
        let named = ingress.spec.as_ref().is_some_and(|s| s.ingress_class_name.is_some());
        if named || class_annotation(ingress).is_none() {
            return Vec::new();
        }
        vec![format!("annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead")]
    }
}

fn class_annotation(ingress: &Ingress) -> Option<&String> {
    ingress.metadata.annotations.as_ref()?.get(CLASS_ANNOTATION)
}

fn check(errors: &mut Errors, path: &Path, spec: &IngressSpec) {
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        let message = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(path, &shown(&spec.rules), message));
    }
    if let Some(default) = &spec.default_backend {
        backend(errors, &path.child("defaultBackend"), default);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = path.child("rules").index(i);
        if let Some(name) = rule.host.as_deref().filter(|h| !h.is_empty()) {
            let host_at = at.child("host");
            if address::parse(name).is_some() {
                errors.push(FieldError::invalid(&host_at, &name, IP_AS_HOST));
            }
            invalid(errors, &host_at, &name, host(name));
        }
        let Some(http) = &rule.http else { continue };
        let at = at.child("http").child("paths");
        if http.paths.is_empty() {
            errors.push(FieldError::required(&at, ""));
        }
        for (j, path) in http.paths.iter().enumerate() {
            http_path(errors, &at.index(j), path);
        }
    }
    for (i, tls) in spec.tls.iter().flatten().enumerate() {
        check_tls(errors, &path.child("tls").index(i), tls);
    }
    if let Some(class) = &spec.ingress_class_name {
        invalid(errors, &path.child("ingressClassName"), class, format::dns_subdomain(class));
    }
}

fn check_tls(errors: &mut Errors, path: &Path, tls: &IngressTLS) {
    for (i, name) in tls.hosts.iter().flatten().enumerate() {
        invalid(errors, &path.child("hosts").index(i), name, host(name));
    }
    if let Some(secret) = tls.secret_name.as_deref().filter(|s| !s.is_empty()) {
        invalid(errors, &path.child("secretName"), &secret, format::dns_subdomain(secret));
    }
}

/// A DNS name, whose first label may be a wildcard.
fn host(text: &str) -> Problems {
    if text.contains('*') { wildcard(text) } else { format::dns_subdomain(text) }
}

/// `*.example.com` (RFC 1034, section 4.3.3)
fn wildcard(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > MAX_HOST {
        problems.push(format!("must be no more than {MAX_HOST} bytes"));
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |label: &str| {
        let (first, last) = (label.bytes().next(), label.bytes().next_back());
        first.is_some_and(inner) && last.is_some_and(inner) && label.bytes().all(|b| inner(b) || b == b'-')
    };
    if !text.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(label)) {
        problems.push(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
             consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
             '*.example.com', regex used for validation is \
             '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .into(),
        );
    }
    problems
}

fn http_path(errors: &mut Errors, at: &Path, path: &HTTPIngressPath) {
    if path.path_type.is_empty() {
        errors.push(FieldError::required(&at.child("pathType"), "pathType must be specified"));
        return;
    }
    let text = path.path.as_deref().unwrap_or_default();
    let mut refuse = |message: &str| errors.push(FieldError::invalid(&at.child("path"), &text, message));
    let relative = !text.starts_with('/');
    match path.path_type.as_str() {
        "Exact" | "Prefix" => {
            if relative {
                refuse("must be an absolute path");
            }
            for part in NOT_IN_PATHS.iter().filter(|part| text.contains(**part)) {
                refuse(&format!("must not contain '{part}'"));
            }
            for end in NOT_ENDS_OF_PATHS.iter().filter(|end| text.ends_with(**end)) {
                refuse(&format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && relative {
                refuse("must be an absolute path");
            }
        }
        other => errors.push(FieldError::not_supported(&at.child("pathType"), &other, PATH_TYPES)),
    }
    backend(errors, &at.child("backend"), &path.backend);
}

fn backend(errors: &mut Errors, path: &Path, backend: &IngressBackend) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, &"", "cannot set both resource and service backends"));
        }
        (Some(reference), None) => resource(errors, &path.child("resource"), reference),
        (None, Some(one)) => service(errors, path, one),
        (None, None) => errors.push(FieldError::invalid(path, &"", "resource or service backend is required")),
    }
}

fn resource(errors: &mut Errors, path: &Path, reference: &TypedLocalObjectReference) {
    group(errors, &path.child("apiGroup"), reference.api_group.as_deref());
    required_segment(errors, &path.child("kind"), &reference.kind);
    required_segment(errors, &path.child("name"), &reference.name);
}

fn service(errors: &mut Errors, path: &Path, service: &IngressServiceBackend) {
    let at = path.child("service");
    if service.name.is_empty() {
        errors.push(FieldError::required(&at.child("name"), ""));
    } else {
        // Since v1.36 a Service's name may begin with a digit.
        invalid(errors, &at.child("name"), &service.name, format::dns_label(&service.name));
    }
    let port = service.port.clone().unwrap_or_default();
    let (name, number) = (port.name.unwrap_or_default(), port.number.unwrap_or_default());
    let at = at.child("port");
    match (name.as_str(), number) {
        ("", 0) => errors.push(FieldError::required(path, "port name or number is required")),
        ("", number) => invalid(errors, &at.child("number"), &number, format::port_number(number)),
        (name, 0) => invalid(errors, &at.child("name"), &name, format::port_name(name)),
        _ => errors.push(FieldError::invalid(path, &"", "cannot set both port name & port number")),
    }
}

fn status(ingress: &Ingress) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let status = ingress.status.clone().unwrap_or_default().load_balancer.unwrap_or_default();
    for (i, point) in status.ingress.iter().flatten().enumerate() {
        let at = path.index(i);
        if let Some(ip) = point.ip.as_deref().filter(|ip| !ip.is_empty()) {
            invalid(&mut errors, &at.child("ip"), &ip, format::ip(ip));
        }
        if let Some(name) = point.hostname.as_deref().filter(|h| !h.is_empty()) {
            let at = at.child("hostname");
            invalid(&mut errors, &at, &name, format::dns_subdomain(name));
            if address::parse(name).is_some() {
                errors.push(FieldError::invalid(&at, &name, IP_AS_HOST));
            }
        }
    }
    errors
}
