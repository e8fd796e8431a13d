//! Decides: which endpoint of a Service is asked: a ready one, any of them (`ResolveEndpoint` of upstream's
//! `util/proxy`). The server is no node of the cluster network's services, so it goes to the pod itself.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rand::seq::IndexedRandom;

use super::ServiceTarget;
use crate::server::objects::Objects;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const SLICES: &str = "discovery.k8s.io/endpointslices";

/// Host, an address for most, and port.
pub fn endpoint(objects: &dyn Objects, to: &ServiceTarget) -> Result<(String, u16), String> {
    endpoints(objects, to)?.choose(&mut rand::rng()).cloned().ok_or_else(|| none(&to.name))
}

/// Everything that may be asked.
fn endpoints(objects: &dyn Objects, to: &ServiceTarget) -> Result<Vec<(String, u16)>, String> {
    let name = &to.name;
    let stored = objects.get("services", &to.namespace, name).ok_or_else(|| format!("service {name:?} not found"))?;
    let service: Service = stored.typed().map_err(|e| e.to_string())?;
    let spec = service.spec.unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(vec![(spec.external_name.unwrap_or_default(), to.port)]);
    }
    let ports = spec.ports.unwrap_or_default();
    let port = ports
        .iter()
        .find(|p| p.port == i32::from(to.port))
        .ok_or_else(|| format!("no service port {} found for service {name:?}", to.port))?;
    let mut found = Vec::new();
    for object in objects.list(SLICES, Some(&to.namespace)) {
        if object.label(SERVICE_NAME) == Some(name)
            && let Ok(slice) = object.typed::<EndpointSlice>()
        {
            found.extend(ready(&slice, port));
        }
    }
    if found.is_empty() { Err(none(name)) } else { Ok(found) }
}

fn ready(slice: &EndpointSlice, port: &ServicePort) -> Vec<(String, u16)> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let named = slice.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or_default() == wanted);
    let Some(number) = named.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else { return Vec::new() };
    let is_ready = |c: &k8s_openapi::api::discovery::v1::EndpointConditions| c.ready.unwrap_or(true);
    let endpoints = slice.endpoints.iter().flatten().filter(|e| e.conditions.as_ref().is_none_or(is_ready));
    endpoints.flat_map(|e| e.addresses.iter().map(|a| (a.clone(), number))).collect()
}

fn none(service: &str) -> String {
    format!("no endpoints available for service {service:?}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::encode::Draft;
    use crate::api::key::Key;
    use crate::api::object::ObjectRef;
    use crate::api::revision::Revision;
    use crate::server::objects::Changed;

    /// Services by name, and the slices of the one named `hook`.
    struct Cluster {
        service: Option<Value>,
        slices: Vec<Value>,
    }

    fn object(storage: &str, value: &Value) -> ObjectRef {
        Draft::new(Key::new(storage, "x", "hook"), value, &[]).at(Revision(1)).into()
    }

    impl Objects for Cluster {
        fn get(&self, storage: &str, _: &str, _: &str) -> Option<ObjectRef> {
            self.service.as_ref().map(|s| object(storage, s))
        }

        fn list(&self, storage: &str, _: Option<&str>) -> Vec<ObjectRef> {
            self.slices.iter().map(|s| object(storage, s)).collect()
        }

        fn changed(&self, _: &str) -> Changed {
            Changed::default()
        }
    }

    fn service(spec: Value) -> Option<Value> {
        Some(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"}, "spec": spec}))
    }

    fn slice(of: &str, ports: Value, endpoints: Value) -> Value {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "hook-a", "labels": {SERVICE_NAME: of}}, "ports": ports, "endpoints": endpoints})
    }

    fn check(cluster: &Cluster, port: u16, expect: Result<&[(&str, u16)], &str>) {
        let to = ServiceTarget { namespace: "x".into(), name: "hook".into(), path: String::new(), port };
        let expect = expect.map(|e| e.iter().map(|(h, p)| ((*h).to_owned(), *p)).collect()).map_err(str::to_owned);
        assert_eq!(endpoints(cluster, &to), expect);
    }

    #[test]
    fn a_service_is_its_ready_endpoints_at_the_target_port() {
        let ports = json!([{"name": "web", "port": 80}, {"name": "tls", "port": 443, "targetPort": 9443}]);
        let all = json!([
            {"addresses": ["10.42.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.42.0.2"], "conditions": {"ready": false}},
            {"addresses": ["10.42.0.3"]},
        ]);
        let slices = vec![
            slice("hook", json!([{"name": "web", "port": 8080}, {"name": "tls", "port": 9443}]), all.clone()),
            slice("other", json!([{"name": "tls", "port": 1}]), all),
        ];
        let cluster = Cluster { service: service(json!({"type": "ClusterIP", "ports": ports})), slices };
        check(&cluster, 443, Ok(&[("10.42.0.1", 9443), ("10.42.0.3", 9443)]));
        check(&cluster, 8443, Err("no service port 8443 found for service \"hook\""));
    }

    #[test]
    fn a_service_without_endpoints_is_an_error_in_upstreams_words() {
        check(&Cluster { service: None, slices: vec![] }, 443, Err("service \"hook\" not found"));
        let ports = json!([{"port": 443}]);
        let cluster = Cluster { service: service(json!({"ports": ports})), slices: vec![] };
        check(&cluster, 443, Err("no endpoints available for service \"hook\""));
        let external = service(json!({"type": "ExternalName", "externalName": "hooks.example.com"}));
        check(&Cluster { service: external, slices: vec![] }, 8443, Ok(&[("hooks.example.com", 8443)]));
    }
}
