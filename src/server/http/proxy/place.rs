//! Decides: where a proxied request goes, from the name in its path: `name`, `name:port` or `scheme:name:port`
//! (`ResourceLocation` of upstream's pods, services and nodes). Nothing leads to the server's own machine or to its
//! link: what listens there trusts whoever reaches it.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rand::RngExt;

use super::links::cleaned;
use crate::api::resource;
use crate::api::selector::{LabelSelector, Requirement};
use crate::api::status::Status;
use crate::server::http::dial::{Endpoint, Security};
use crate::server::http::nodes::join;
use crate::server::http::service::Call;
use crate::server::registry::request::{ListOptions, Target};

const NOT_ALLOWED: &str = "address not allowed";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The other side of a proxied request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub endpoint: Endpoint,
    /// As a URL names it: `10.42.0.5:8080`.
    pub host: String,
}

/// The name of a path, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named<'a> {
    https: bool,
    name: &'a str,
    /// Empty when none is named.
    port: &'a str,
}

impl<'a> Named<'a> {
    fn parse(id: &'a str, kind: &str) -> Result<Self, Status> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => ("none", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(Status::bad_request(format!("invalid {kind} request {id:?}")));
        }
        Ok(Self { https: scheme == "https", name, port })
    }

    fn at(&self, host: &str, port: &str) -> Place {
        let security = if self.https { Security::Unverified } else { Security::Plain };
        let default = if self.https { "443" } else { "80" };
        let address = join(host, if port.is_empty() { default } else { port });
        let brackets = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let host = if port.is_empty() { brackets } else { join(host, port) };
        Place { endpoint: Endpoint { address, security }, host }
    }
}

/// What follows `proxy` in the path, without `..` and doubled slashes; empty when nothing does.
pub fn rest(segments: &[String], slash: bool) -> String {
    if segments.is_empty() {
        return if slash { "/".into() } else { String::new() };
    }
    let mut path = cleaned(&format!("/{}", segments.join("/")));
    if slash && !path.ends_with('/') {
        path.push('/');
    }
    path
}

pub(super) async fn find(call: &Call<'_>, target: &Target) -> Result<Place, Status> {
    match target.resource.plural {
        "pods" => pod(call, target).await,
        "services" => service(call, target).await,
        _ => node(call, target).await,
    }
}

async fn pod(call: &Call<'_>, target: &Target) -> Result<Place, Status> {
    let named = Named::parse(&target.name, "pod")?;
    let pod: Pod = call.stored(target.resource, &target.namespace, named.name).await?;
    let containers = pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
    let first = containers.iter().find_map(|c| c.ports.as_ref()?.first()).map(|p| p.container_port.to_string());
    let port = if named.port.is_empty() { first.unwrap_or_default() } else { named.port.to_owned() };
    let address = addresses(&pod).next().unwrap_or_default();
    if !proxyable(address) {
        return Err(Status::bad_request(NOT_ALLOWED));
    }
    Ok(named.at(address, &port))
}

fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    status.and_then(|s| s.pod_ips.as_deref()).unwrap_or_default().iter().map(|ip| ip.ip.as_str())
}

/// Global unicast (Go's `IP.IsGlobalUnicast`), which addresses of private networks are too.
fn proxyable(address: &str) -> bool {
    match address.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_link_local() || ip.is_broadcast())
        }
        Ok(IpAddr::V6(ip)) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local())
        }
        Err(_) => false,
    }
}

async fn service(call: &Call<'_>, target: &Target) -> Result<Place, Status> {
    let named = Named::parse(&target.name, "service")?;
    let service: Service = call.stored(target.resource, &target.namespace, named.name).await?;
    let wanted = port_name(&service, named)?;
    let mut found = candidates(&slices(call, &target.namespace, named.name).await?, &wanted);
    let none = || {
        let why = format!("no endpoints available for service {:?}", target.name);
        Status::new(503, "ServiceUnavailable", why)
    };
    if found.is_empty() {
        return Err(none());
    }
    let first = rand::rng().random_range(0..found.len());
    found.rotate_left(first);
    for (address, port, of) in &found {
        if is_of_its_pod(call, target, address, of).await && proxyable(address) {
            return Ok(named.at(address, &port.to_string()));
        }
    }
    Err(none())
}

/// A port is named by its name or its number; without either it is the one without a name.
fn port_name(service: &Service, named: Named<'_>) -> Result<String, Status> {
    let Ok(number) = named.port.parse::<i64>() else { return Ok(named.port.to_owned()) };
    let mut ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let port = ports.find(|p| i64::from(p.port) == number).ok_or_else(|| {
        let why = format!("no service port {number} found for service {:?}", named.name);
        Status::new(503, "ServiceUnavailable", why)
    })?;
    Ok(port.name.clone().unwrap_or_default())
}

async fn slices(call: &Call<'_>, namespace: &str, service: &str) -> Result<Vec<EndpointSlice>, Status> {
    let resource = resource::find("discovery.k8s.io", "v1", "endpointslices").ok_or_else(Status::no_such_resource)?;
    let target = Target { resource, namespace: namespace.into(), name: String::new(), subresource: "" };
    let labels = LabelSelector(vec![Requirement::In(SERVICE_NAME.into(), vec![service.to_owned()])]);
    let options = ListOptions { labels, ..ListOptions::default() };
    let list = call.backend.registry.list(call.cx, &target, &options).await?;
    list.items.iter().map(|slice| slice.typed().map_err(Status::internal)).collect()
}

/// Address, port, and the pod that it should be of.
type Candidate = (String, i32, ObjectReference);

/// Every ready address that has the port.
fn candidates(slices: &[EndpointSlice], port: &str) -> Vec<Candidate> {
    let mut found = Vec::new();
    for slice in slices {
        let mut ports = slice.ports.iter().flatten().filter(|p| p.name.as_deref().unwrap_or_default() == port);
        let Some(number) = ports.find_map(|p| p.port) else { continue };
        let ready = |c: &k8s_openapi::api::discovery::v1::EndpointConditions| c.ready != Some(false);
        for endpoint in slice.endpoints.iter().flatten().filter(|e| e.conditions.as_ref().is_none_or(ready)) {
            let Some(of) = &endpoint.target_ref else { continue };
            found.extend(endpoint.addresses.iter().map(|address| (address.clone(), number, of.clone())));
        }
    }
    found
}

/// Whoever may write EndpointSlices may not lead the server to addresses that are no pod's.
async fn is_of_its_pod(call: &Call<'_>, target: &Target, address: &str, of: &ObjectReference) -> bool {
    let (Ok(pods), Some(name)) = (call.pods(), of.name.as_deref()) else { return false };
    if of.namespace.as_deref() != Some(&target.namespace) {
        return false;
    }
    let pod: Result<Pod, Status> = call.stored(pods, &target.namespace, name).await;
    pod.is_ok_and(|pod| addresses(&pod).any(|ip| ip == address))
}

async fn node(call: &Call<'_>, target: &Target) -> Result<Place, Status> {
    let named = Named::parse(&target.name, "node")?;
    let kubelet = call.kubelet_of(named.name).await?;
    if named.port.is_empty() || named.port == kubelet.port.to_string() {
        let endpoint = kubelet.endpoint();
        return Ok(Place { host: endpoint.address.clone(), endpoint });
    }
    if kubelet.host.parse::<IpAddr>().is_ok() {
        if !proxyable(&kubelet.host) {
            return Err(Status::bad_request(NOT_ALLOWED));
        }
    } else {
        let found = tokio::net::lookup_host((kubelet.host.as_str(), 0)).await;
        let mut found = found.map_err(|e| Status::bad_request(format!("lookup {}: {e}", kubelet.host)))?;
        if found.any(|address| !proxyable(&address.ip().to_string())) {
            return Err(Status::bad_request(NOT_ALLOWED));
        }
    }
    Ok(named.at(&kubelet.host, named.port))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn names_have_up_to_three_parts() {
        let check = |id: &str, expect: Result<(bool, &str, &str), &str>| {
            let found = Named::parse(id, "pod");
            let found = found.as_ref().map(|n| (n.https, n.name, n.port)).map_err(|s| s.message().to_owned());
            assert_eq!(found, expect.map_err(str::to_owned), "{id}");
        };
        check("web", Ok((false, "web", "")));
        check("web:80", Ok((false, "web", "80")));
        check("http:web:", Ok((false, "web", "")));
        check("https:web:main", Ok((true, "web", "main")));
        check("ftp:web:80", Err("invalid pod request \"ftp:web:80\""));
        check(":80", Err("invalid pod request \":80\""));
        check("a:b:c:d", Err("invalid pod request \"a:b:c:d\""));
    }

    #[test]
    fn a_place_is_named_as_a_url_would() {
        let named = |https| Named { https, name: "web", port: "" };
        let place = named(false).at("10.42.0.5", "8080");
        assert_eq!((place.host.as_str(), place.endpoint.address.as_str()), ("10.42.0.5:8080", "10.42.0.5:8080"));
        let place = named(true).at("fd00::5", "");
        assert_eq!((place.host.as_str(), place.endpoint.address.as_str()), ("[fd00::5]", "[fd00::5]:443"));
        assert_eq!(place.endpoint.security, Security::Unverified);
    }

    #[test]
    fn nothing_leads_to_this_machine_or_its_link() {
        for fine in ["10.42.0.5", "192.168.1.1", "8.8.8.8", "fd00::5"] {
            assert!(proxyable(fine), "{fine}");
        }
        for refused in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "ff02::1",
            "::",
            "::ffff:127.0.0.1",
            "",
            "localhost",
        ] {
            assert!(!proxyable(refused), "{refused}");
        }
    }

    #[test]
    fn the_rest_of_a_path_stays_below_its_root() {
        let check = |path: &str, slash: bool, expect: &str| {
            let segments: Vec<String> = path.split('/').filter(|_| !path.is_empty()).map(str::to_owned).collect();
            assert_eq!(rest(&segments, slash), expect, "{path}");
        };
        check("", false, "");
        check("", true, "/");
        check("a/b", false, "/a/b");
        check("a/b", true, "/a/b/");
        check("a//b/../../../c", false, "/c");
        check("..", false, "/");
    }

    #[test]
    fn endpoints_are_those_that_are_ready_and_have_the_port() {
        let slice = |ports: Value, endpoints: Value| -> EndpointSlice {
            let slice = json!({"addressType": "IPv4", "metadata": {}, "ports": ports, "endpoints": endpoints});
            serde_json::from_value(slice).unwrap()
        };
        let of = json!({"kind": "Pod", "name": "p"});
        let slices = [
            slice(
                json!([{"name": "web", "port": 80}, {"name": "", "port": 81}]),
                json!([
                    {"addresses": ["10.0.0.1"], "targetRef": of, "conditions": {"ready": true}},
                    {"addresses": ["10.0.0.2"], "targetRef": of, "conditions": {"ready": false}},
                    {"addresses": ["10.0.0.3"], "targetRef": of},
                    {"addresses": ["10.0.0.4"]},
                ]),
            ),
            slice(json!([{"name": "other", "port": 9}]), json!([{"addresses": ["10.0.0.5"], "targetRef": of}])),
        ];
        let check = |port: &str, expect: &[(&str, i32)]| {
            let found = candidates(&slices, port);
            let found: Vec<(&str, i32)> = found.iter().map(|(address, port, _)| (address.as_str(), *port)).collect();
            assert_eq!(found, expect, "{port}");
        };
        check("web", &[("10.0.0.1", 80), ("10.0.0.3", 80)]);
        check("", &[("10.0.0.1", 81), ("10.0.0.3", 81)]);
        check("other", &[("10.0.0.5", 9)]);
        check("none", &[]);
    }
}
