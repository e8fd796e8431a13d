//! Decides: the ConfigMap by which extension servers learn whom to believe:
//! `kube-system/extension-apiserver-authentication` (`pkg/controlplane/controller/clusterauthenticationtrust`). What
//! others put there stays: authorities that have not expired, names and headers of theirs are kept beside ours.
//!
//! The store keeps only metadata of ConfigMaps, so the content is read from the server, once for each revision of it.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{Timestamp, ToSpan};
use serde_json::{Map, Value, json};
use x509_parser::pem::Pem;

use super::action::{Action, Controller, Enqueue, Moment, Name, Plan, Write};
use super::stores::{Stores, row};
use crate::client::request::{Class, Request, Verb, revision};
use crate::client::store::Kind as _;

const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "extension-apiserver-authentication";

/// Whom extension servers may believe.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    /// PEM of the authority of client certificates.
    pub client_ca: String,
    /// PEM of the authority of those who say who a request is from.
    pub request_header_ca: String,
    pub allowed_names: Vec<String>,
    /// Headers, as they are written.
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_headers_prefix: Vec<String>,
}

/// One key.
pub struct ExtensionAuthentication {
    trusted: Trusted,
    /// Revision last read, and the data that was there then.
    read: Mutex<Option<(String, Map<String, Value>)>>,
}

impl ExtensionAuthentication {
    #[must_use]
    pub fn new(trusted: Trusted) -> Self {
        Self { trusted, read: Mutex::default() }
    }
}

impl Controller for ExtensionAuthentication {
    fn name(&self) -> &'static str {
        "extension-authentication"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        enqueue.add(NAMESPACE, CONFIG_MAP);
        let queue = enqueue.clone();
        stores.namespaces.subscribe(move |change| {
            if change.each().any(|n| n.metadata.name.as_deref() == Some(NAMESPACE)) {
                queue.add(NAMESPACE, CONFIG_MAP);
            }
        });
        let queue = enqueue.clone();
        if let Some(maps) = stores.other("configmaps") {
            maps.subscribe(move |change| {
                if change.each().map(|m| m.meta()).any(|m| m.name() == CONFIG_MAP && m.namespace() == NAMESPACE) {
                    queue.add(NAMESPACE, CONFIG_MAP);
                }
            });
        }
    }

    fn plan(&self, stores: &Stores, _key: &Name, moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let namespace = stores.namespaces.get("", NAMESPACE);
        if namespace.is_none_or(|n| n.metadata.deletion_timestamp.is_some()) {
            return plan;
        }
        let Some(map) = stores.other("configmaps").and_then(|s| s.get(NAMESPACE, CONFIG_MAP)) else {
            let body = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": CONFIG_MAP, "namespace": NAMESPACE },
                "data": combined(&Map::new(), &self.trusted, moment.now),
            });
            let mut write = Write::new(Request::create(row("configmaps"), NAMESPACE, body));
            write.fine = &[Class::AlreadyExists];
            plan.push(write);
            return plan;
        };
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match &*read {
            Some((seen, data)) if map.meta().revision() == revision(seen) => {
                let wanted = combined(data, &self.trusted, moment.now);
                if wanted != *data {
                    // Keys that are not of this ConfigMap go, as upstream.
                    let mut patch = wanted;
                    for gone in data.keys() {
                        patch.entry(gone.clone()).or_insert(Value::Null);
                    }
                    let body = json!({ "metadata": { "resourceVersion": seen }, "data": patch });
                    plan.push(Request::new(Verb::MergePatch, row("configmaps"), NAMESPACE, CONFIG_MAP, body));
                }
            }
            _ => {
                let get = Request::new(Verb::Get, row("configmaps"), NAMESPACE, CONFIG_MAP, Value::Null);
                plan.push(Action::Read(get));
            }
        }
        plan
    }

    fn learn(&self, _key: &Name, _request: &Request, answer: Option<Value>) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        *read = answer.map(|map| {
            let revision = map["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
            (revision, map["data"].as_object().cloned().unwrap_or_default())
        });
    }
}

/// What the ConfigMap should hold, given what it does.
fn combined(data: &Map<String, Value>, trusted: &Trusted, now: Timestamp) -> Map<String, Value> {
    let had = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut wanted = Map::new();
    for (key, pem) in
        [("client-ca-file", &trusted.client_ca), ("requestheader-client-ca-file", &trusted.request_header_ca)]
    {
        wanted.insert(key.into(), authorities(had(key), pem, now).into());
    }
    for (key, ours) in [
        ("requestheader-username-headers", &trusted.username_headers),
        ("requestheader-uid-headers", &trusted.uid_headers),
        ("requestheader-group-headers", &trusted.group_headers),
        ("requestheader-extra-headers-prefix", &trusted.extra_headers_prefix),
        ("requestheader-allowed-names", &trusted.allowed_names),
    ] {
        // What is no list of names was written by nobody who reads it.
        let mut names: Vec<String> = serde_json::from_str(had(key)).unwrap_or_default();
        names.extend(ours.iter().cloned());
        let mut seen = Vec::new();
        names.retain(|n| {
            !seen.contains(n) && {
                seen.push(n.clone());
                true
            }
        });
        wanted.insert(key.into(), json!(names).to_string().into());
    }
    wanted
}

/// The certificates of both texts, each once. A clock may be five minutes ahead.
fn authorities(had: &str, ours: &str, now: Timestamp) -> String {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut out = String::new();
    for text in [had, ours] {
        for pem in Pem::iter_from_buffer(text.as_bytes()).map_while(Result::ok) {
            let expired = |c: x509_parser::certificate::X509Certificate<'_>| {
                c.validity().not_after.timestamp() < (now - 5.minutes()).as_second()
            };
            if kept.contains(&pem.contents) || pem.parse_x509().map_or(true, expired) {
                continue;
            }
            out.push_str(&encoded(&pem.contents));
            kept.push(pem.contents);
        }
    }
    out
}

/// As Go's `pem.Encode` writes it: 64 characters a line.
fn encoded(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(name: &str) -> String {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        params.self_signed(&key).unwrap().pem().replace("\r\n", "\n")
    }

    fn trusted() -> Trusted {
        Trusted {
            client_ca: authority("client"),
            request_header_ca: authority("front"),
            allowed_names: vec!["system:auth-proxy".into()],
            username_headers: vec!["X-Remote-User".into()],
            uid_headers: vec!["X-Remote-Uid".into()],
            group_headers: vec!["X-Remote-Group".into()],
            extra_headers_prefix: vec!["X-Remote-Extra-".into()],
        }
    }

    fn at(year: i16) -> Timestamp {
        format!("{year}-01-01T00:00:00Z").parse().unwrap()
    }

    #[test]
    fn it_is_made_with_every_key() {
        let trusted = trusted();
        let made = combined(&Map::new(), &trusted, at(2026));
        let expect = json!({
            "client-ca-file": trusted.client_ca,
            "requestheader-client-ca-file": trusted.request_header_ca,
            "requestheader-allowed-names": "[\"system:auth-proxy\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
        });
        assert_eq!(Value::Object(made.clone()), expect);
        assert_eq!(combined(&made, &trusted, at(2026)), made, "nothing new, nothing to write");
    }

    #[test]
    fn what_others_added_stays_until_it_expires() {
        let (ours, other) = (trusted(), authority("other"));
        let data = json!({"client-ca-file": other, "requestheader-allowed-names": "[\"theirs\"]", "stray": "x",
            "requestheader-group-headers": "no list"});
        let both = combined(data.as_object().unwrap(), &ours, at(2026));
        assert_eq!(both["client-ca-file"], format!("{other}{}", ours.client_ca));
        assert_eq!(both["requestheader-allowed-names"], "[\"theirs\",\"system:auth-proxy\"]");
        assert_eq!(both["requestheader-group-headers"], "[\"X-Remote-Group\"]");
        assert!(!both.contains_key("stray"));
        assert_eq!(combined(&both, &ours, at(2041))["client-ca-file"], "");
    }
}
