//! Decides: whether an extension server can be reached: the condition `Available` of its `APIService`, with upstream's
//! reasons and messages (`kube-aggregator/pkg/controllers/status/remote`). `ServiceAccessError` and `EndpointsAccessError`
//! cannot happen: what they are about is in memory.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::table::Remote;
use crate::api::object::ObjectRef;
use crate::server::objects::Objects;

pub const SLICES: &str = "discovery.k8s.io/endpointslices";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// How often one that answers is asked again: upstream's resync. Only asking shows that a node has lost its network
/// while its pods are still called ready.
const AGAIN: Duration = Duration::from_secs(30);
/// After the first failure; doubled with each, up to [`AGAIN`]. Upstream begins with 5 ms, which helps nobody.
const RETRY: Duration = Duration::from_secs(1);

/// What is said of an extension server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    /// Of one that has answered, or not.
    #[must_use]
    pub fn answered(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self { status: "True", reason: "Passed", message: "all checks passed".into() },
            Err(message) => Self { status: "False", reason: "FailedDiscoveryCheck", message },
        }
    }

    #[must_use]
    pub fn holds(&self) -> bool {
        self.status == "True"
    }

    /// When to ask again if nothing changes. One that cannot be asked at all waits for a change.
    #[must_use]
    pub fn again(&self, failures: u32) -> Option<Duration> {
        match self.reason {
            "Passed" => Some(AGAIN),
            "FailedDiscoveryCheck" => Some(RETRY.saturating_mul(1 << failures.saturating_sub(1).min(5)).min(AGAIN)),
            _ => None,
        }
    }
}

/// What keeps an extension server from being asked, if anything does.
#[must_use]
pub fn unreachable(objects: &dyn Objects, remote: &Remote) -> Option<Condition> {
    let (namespace, name, port) = (&remote.target.namespace, &remote.target.name, remote.target.port);
    let no = |reason, message| Some(Condition { status: "False", reason, message });
    let at = format!("service/{name} in {namespace:?}");
    let Some(service) = objects.get("services", namespace, name).and_then(|s| s.typed::<Service>().ok()) else {
        return no("ServiceNotFound", format!("{at} is not present"));
    };
    let spec = service.spec.unwrap_or_default();
    if spec.type_.as_deref().is_some_and(|t| t != "ClusterIP") {
        return None;
    }
    let ports = spec.ports.unwrap_or_default();
    let Some(found) = ports.iter().find(|p| p.port == i32::from(port)) else {
        return no("ServicePortError", format!("{at} is not listening on port {port}"));
    };
    let port_name = found.name.as_deref().unwrap_or_default();
    let slices = slices(objects, remote);
    if slices.is_empty() {
        return no("EndpointsNotFound", format!("cannot find endpointslices for {at}"));
    }
    if !slices.iter().any(|s| s.typed().is_ok_and(|s| has_endpoint(&s, port_name))) {
        let message = format!("endpointslices for {at} have no addresses with port name {port_name:?}");
        return no("MissingEndpoints", message);
    }
    None
}

/// The revisions of what a decision depends on: while they stay, so does the decision.
#[must_use]
pub fn concerned(objects: &dyn Objects, remote: &Remote) -> Vec<u64> {
    let service = objects.get("services", &remote.target.namespace, &remote.target.name);
    service.iter().chain(&slices(objects, remote)).map(|o| o.revision.0).collect()
}

fn slices(objects: &dyn Objects, remote: &Remote) -> Vec<ObjectRef> {
    let mut all = objects.list(SLICES, Some(&remote.target.namespace));
    all.retain(|s| s.label(SERVICE_NAME) == Some(&remote.target.name));
    all
}

fn has_endpoint(slice: &EndpointSlice, port: &str) -> bool {
    let ready =
        |e: &k8s_openapi::api::discovery::v1::Endpoint| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    slice.endpoints.iter().flatten().any(ready)
        && slice.ports.iter().flatten().any(|p| p.name.as_deref().unwrap_or_default() == port && p.port.is_some())
}

/// The conditions of an `APIService` with this one among them; `None` when it is there already.
#[must_use]
pub fn conditions(service: &Value, condition: &Condition, now: Timestamp) -> Option<Value> {
    let mut all = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut new = json!({"type": "Available", "status": condition.status, "reason": condition.reason,
        "message": condition.message, "lastTransitionTime": format!("{:.0}", now.strftime("%Y-%m-%dT%H:%M:%SZ"))});
    match all.iter_mut().find(|c| c["type"] == "Available") {
        Some(old) => {
            if old["status"] == new["status"] {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            if *old == new {
                return None;
            }
            *old = new;
        }
        None => all.push(new),
    }
    Some(all.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource::priority::CUSTOM;
    use crate::server::aggregation::table::Trust;
    use crate::server::objects::fake::Fake;
    use crate::server::webhook::ServiceTarget;

    fn remote() -> Remote {
        let target = ServiceTarget { namespace: "n".into(), name: "s".into(), path: String::new(), port: 443 };
        let trust = Trust::Anyone;
        Remote { name: "v1.a.io".into(), group: "a.io".into(), version: "v1".into(), target, trust, priority: CUSTOM }
    }

    fn check(objects: &[Value], expect: Option<(&str, &str)>) {
        let found = unreachable(&*Fake::new(objects.iter().cloned()), &remote());
        assert_eq!(found.as_ref().map(|c| (c.reason, c.message.as_str())), expect);
        assert!(found.is_none_or(|c| !c.holds() && c.again(3).is_none()));
    }

    #[test]
    fn reasons_and_messages_are_upstreams() {
        let service = |spec: Value| {
            let metadata = json!({"name": "s", "namespace": "n"});
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        };
        let slice = |ready: bool, port: &str| {
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "s-1", "namespace": "n", "labels": {SERVICE_NAME: "s"}},
                "endpoints": [{"addresses": ["10.42.0.1"], "conditions": {"ready": ready}}],
                "ports": [{"name": port, "port": 8443}]})
        };
        let good = service(json!({"type": "ClusterIP", "ports": [{"name": "https", "port": 443}]}));
        check(&[], Some(("ServiceNotFound", "service/s in \"n\" is not present")));
        check(
            &[service(json!({"type": "ClusterIP", "ports": [{"port": 80}]}))],
            Some(("ServicePortError", "service/s in \"n\" is not listening on port 443")),
        );
        check(
            std::slice::from_ref(&good),
            Some(("EndpointsNotFound", "cannot find endpointslices for service/s in \"n\"")),
        );
        let missing = "endpointslices for service/s in \"n\" have no addresses with port name \"https\"";
        check(&[good.clone(), slice(false, "https")], Some(("MissingEndpoints", missing)));
        check(&[good.clone(), slice(true, "other")], Some(("MissingEndpoints", missing)));
        check(&[good, slice(true, "https")], None);
        check(&[service(json!({"type": "ExternalName", "externalName": "x.example"}))], None);
    }

    #[test]
    fn one_that_fails_is_asked_more_often_than_one_that_answers() {
        let passed = Condition::answered(Ok(()));
        let failed = Condition::answered(Err("no".into()));
        assert_eq!((passed.reason, failed.reason), ("Passed", "FailedDiscoveryCheck"));
        let seconds = |c: &Condition, failures| c.again(failures).unwrap().as_secs();
        assert_eq!([1, 2, 3, 5, 6, 99].map(|n| seconds(&failed, n)), [1, 2, 4, 16, 30, 30]);
        assert_eq!(seconds(&passed, 0), 30);
    }

    #[test]
    fn a_condition_is_written_only_when_it_changes() {
        let at = |s: &str| s.parse::<Timestamp>().unwrap();
        let (early, late) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        let passed = Condition::answered(Ok(()));
        let first = conditions(&json!({}), &passed, early).unwrap();
        let service = json!({"status": {"conditions": first}});
        assert_eq!(conditions(&service, &passed, late), None);
        let failed = |why: &str| Condition::answered(Err(why.into()));
        let second = conditions(&service, &failed("a"), late).unwrap();
        assert_eq!(second[0]["lastTransitionTime"], "2026-01-02T00:00:00Z");
        let service = json!({"status": {"conditions": second}});
        let third = conditions(&service, &failed("b"), at("2026-01-03T00:00:00Z")).unwrap();
        assert_eq!(
            (&third[0]["message"], &third[0]["lastTransitionTime"]),
            (&json!("b"), &json!("2026-01-02T00:00:00Z"))
        );
    }
}
