//! Types: which group and version is which extension server's, from the stored `APIService`s.

use std::sync::Arc;

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use crate::api::object::ObjectRef;
use crate::api::resource::priority::{Priority, REGISTRATION_GROUP};
use crate::server::webhook::{ServiceTarget, service_port};

/// Whose certificate an extension server may show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// `insecureSkipTLSVerify`
    Anyone,
    /// `caBundle`, PEM; when empty, the system's authorities.
    Bundle(Vec<u8>),
}

/// One group and version of an extension server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Of the `APIService`: `v1beta1.metrics.k8s.io`.
    pub name: Box<str>,
    pub group: String,
    pub version: String,
    pub target: ServiceTarget,
    pub trust: Trust,
    pub priority: Priority,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub remote: Arc<Remote>,
    /// The condition `Available` is `True`.
    pub available: bool,
}

/// Every extension server, by the names of their `APIService`s.
#[derive(Debug, Default)]
pub struct Table(Vec<Entry>);

impl Remote {
    /// `/apis/metrics.k8s.io/v1beta1`
    #[must_use]
    pub fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}

impl Table {
    #[must_use]
    pub fn of(services: &[ObjectRef]) -> Self {
        Self(services.iter().filter_map(|s| entry(&s.key.name, s.typed().ok()?)).collect())
    }

    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    #[must_use]
    pub fn find(&self, group: &str, version: &str) -> Option<&Entry> {
        self.0.iter().find(|e| e.remote.group == group && e.remote.version == version)
    }
}

/// `None` of one that is served here. The core group stays here whatever is said of it, for nothing would work without
/// it, and so does the group of the `APIService`s themselves, as upstream.
fn entry(name: &str, service: APIService) -> Option<Entry> {
    let spec = service.spec?;
    let to = spec.service?;
    let (group, version) = (spec.group.unwrap_or_default(), spec.version.unwrap_or_default());
    if group.is_empty() || group == REGISTRATION_GROUP {
        return None;
    }
    let conditions = service.status.and_then(|s| s.conditions).unwrap_or_default();
    let available = conditions.iter().any(|c| c.type_ == "Available" && c.status == "True");
    let insecure = spec.insecure_skip_tls_verify == Some(true);
    let bundle = spec.ca_bundle.map(|b| b.0).unwrap_or_default();
    let remote = Remote {
        name: name.into(),
        group,
        version,
        target: ServiceTarget {
            namespace: to.namespace.unwrap_or_default(),
            name: to.name.unwrap_or_default(),
            path: String::new(),
            port: service_port(to.port),
        },
        trust: if insecure { Trust::Anyone } else { Trust::Bundle(bundle) },
        priority: Priority { group: spec.group_priority_minimum, version: spec.version_priority },
    };
    Some(Entry { remote: Arc::new(remote), available })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(group: &str, spec: Value, status: &str) -> Option<Entry> {
        let mut service = json!({"spec": {"group": group, "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10},
            "status": {"conditions": [{"type": "Available", "status": status}]}});
        service["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        entry(&format!("v1.{group}"), serde_json::from_value(service).unwrap())
    }

    #[test]
    fn only_what_names_a_service_is_another_servers() {
        let to = json!({"service": {"namespace": "n", "name": "s"}});
        assert!(of("a.io", json!({}), "True").is_none());
        assert!(of("", to.clone(), "True").is_none() && of(REGISTRATION_GROUP, to.clone(), "True").is_none());
        let entry = of("a.io", to.clone(), "True").unwrap();
        let remote = &entry.remote;
        assert!(entry.available && remote.trust == Trust::Bundle(Vec::new()));
        assert_eq!((remote.target.port, remote.path().as_str()), (443, "/apis/a.io/v1"));
        assert_eq!(remote.target.host(), "s.n.svc");
        assert!(!of("a.io", to.clone(), "False").unwrap().available);
        let mut insecure = to;
        insecure["insecureSkipTLSVerify"] = true.into();
        assert_eq!(of("a.io", insecure, "Unknown").unwrap().remote.trust, Trust::Anyone);
    }
}
