//! Decides: what a request asks for, and whether a signer of the cluster signs such requests
//! (`pkg/apis/certificates/helpers.go`).

use std::collections::BTreeSet;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

const NODES: &str = "system:nodes";
const NODE: &str = "system:node:";

/// What a request says of who will hold the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub common_name: String,
    organizations: Vec<String>,
    names: usize,
    addresses: usize,
    mail: usize,
    uris: usize,
}

impl Asked {
    /// # Errors
    /// When it is no request in PEM.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let block = Pem::iter_from_buffer(pem).find_map(Result::ok).filter(|b| b.label == "CERTIFICATE REQUEST");
        let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
        let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(|e| e.to_string())?;
        let subject = &request.certification_request_info.subject;
        let mut asked = Self {
            common_name: subject.iter_common_name().filter_map(|n| n.as_str().ok()).last().unwrap_or_default().into(),
            organizations: subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect(),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(_) => asked.names += 1,
                    GeneralName::IPAddress(_) => asked.addresses += 1,
                    GeneralName::RFC822Name(_) => asked.mail += 1,
                    GeneralName::URI(_) => asked.uris += 1,
                    _ => {}
                }
            }
        }
        Ok(asked)
    }
}

/// Whether the cluster is the signer of a request. `kubernetes.io/legacy-unknown` is none: this API cannot name it.
///
/// # Errors
/// Why the signer refuses it.
pub fn check(signer: &str, asked: &Asked, usages: &[String]) -> Result<bool, String> {
    match signer {
        "kubernetes.io/kube-apiserver-client" => client(usages)?,
        "kubernetes.io/kube-apiserver-client-kubelet" => kubelet_client(asked, usages)?,
        "kubernetes.io/kubelet-serving" => kubelet_serving(asked, usages)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn client(usages: &[String]) -> Result<(), String> {
    const OPTIONAL: [&str; 2] = ["digital signature", "key encipherment"];
    const REQUIRED: &str = "client auth";
    if let Some(other) = usages.iter().find(|u| *u != REQUIRED && !OPTIONAL.contains(&u.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|u| u == REQUIRED) {
        return Err(format!("missing required usage for client certificate: {REQUIRED}"));
    }
    Ok(())
}

/// # Errors
/// Why it is not the request of a kubelet, as a client.
pub fn kubelet_client(asked: &Asked, usages: &[String]) -> Result<(), String> {
    of_nodes(asked)?;
    for (count, kind) in [(asked.names, "DNS"), (asked.mail, "Email"), (asked.addresses, "IP"), (asked.uris, "URI")] {
        if count > 0 {
            return Err(format!("{kind} subjectAltNames are not allowed"));
        }
    }
    of_a_node(asked)?;
    exactly(usages, "client auth")
}

fn kubelet_serving(asked: &Asked, usages: &[String]) -> Result<(), String> {
    of_nodes(asked)?;
    if asked.names == 0 && asked.addresses == 0 {
        return Err("DNS or IP subjectAltName is required".into());
    }
    for (count, kind) in [(asked.mail, "Email"), (asked.uris, "URI")] {
        if count > 0 {
            return Err(format!("{kind} subjectAltNames are not allowed"));
        }
    }
    exactly(usages, "server auth")?;
    of_a_node(asked)
}

fn of_nodes(asked: &Asked) -> Result<(), String> {
    if asked.organizations == [NODES] { Ok(()) } else { Err("subject organization is not system:nodes".into()) }
}

fn of_a_node(asked: &Asked) -> Result<(), String> {
    if asked.common_name.starts_with(NODE) {
        return Ok(());
    }
    Err("subject common name does not begin with system:node:".into())
}

/// To sign, to be `role`, and for RSA keys to encipher keys; nothing else.
fn exactly(usages: &[String], role: &str) -> Result<(), String> {
    let given: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let without: BTreeSet<&str> = ["digital signature", role].into();
    let all: BTreeSet<&str> = ["digital signature", "key encipherment", role].into();
    if given == without || given == all {
        return Ok(());
    }
    let all: Vec<&str> = all.into_iter().collect();
    Err(format!("usages did not match [{}]", all.join(" ")))
}
