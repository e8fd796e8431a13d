//! Decides: the environment of a container. What it refers to was fetched before, so that this stays pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::pod_spec;
use crate::agent::objects::{Data, Kind};
use crate::agent::volumes::fields;
use crate::net::services::{Key, Service, View};

/// What a container's variables may refer to.
pub struct Sources<'a> {
    pub pod: &'a Pod,
    pub services: &'a View,
    /// ConfigMaps and Secrets; `None` for one that does not exist.
    pub objects: &'a HashMap<(Kind, String), Option<Arc<Data>>>,
    pub node_name: &'a str,
    pub host_ips: &'a [String],
    pub pod_ips: &'a [String],
    pub allocatable: &'a fields::Allocatable,
}

/// Messages are those of `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{} \"{name}\" not found", kind.lower())]
    NoObject { kind: Kind, name: String },
    #[error("couldn't find key {key} in {} {namespace}/{name}", kind.camel())]
    NoKey { kind: Kind, key: String, namespace: String, name: String },
    #[error(transparent)]
    Field(#[from] fields::Error),
}

/// ConfigMaps and Secrets that the container's environment names.
#[must_use]
pub fn references(container: &Container) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    for source in container.env_from.iter().flatten() {
        found.extend(source.config_map_ref.as_ref().map(|r| (Kind::ConfigMap, r.name.clone())));
        found.extend(source.secret_ref.as_ref().map(|r| (Kind::Secret, r.name.clone())));
    }
    for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
        found.extend(source.config_map_key_ref.as_ref().map(|r| (Kind::ConfigMap, r.name.clone())));
        found.extend(source.secret_key_ref.as_ref().map(|r| (Kind::Secret, r.name.clone())));
    }
    found.sort();
    found.dedup();
    found
}

/// Name and value pairs in the order they are given to the container.
pub fn environment(container: &Container, sources: &Sources) -> Result<Vec<(String, String)>, Error> {
    let services = service_variables(sources);
    let mut result = Ordered::default();
    for (name, value) in from_objects(container, sources)? {
        result.set(name, value);
    }
    // References see what envFrom and earlier entries set, and the Services.
    let mut scope: HashMap<String, String> = services.iter().cloned().collect();
    scope.extend(result.values.iter().map(|(name, value)| (name.clone(), value.clone())));
    for env in container.env.iter().flatten() {
        let value = match (&env.value, &env.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, &scope)),
            (_, Some(source)) => value_from(source, container, sources)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            scope.insert(env.name.clone(), value.clone());
            result.set(env.name.clone(), value);
        }
    }
    // The pod's own variables win over those of Services.
    for (name, value) in services {
        if !result.values.contains_key(&name) {
            result.set(name, value);
        }
    }
    Ok(result.into_pairs())
}

/// Keeps the order of first appearance, and the last value.
#[derive(Default)]
struct Ordered {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Ordered {
    fn set(&mut self, name: String, value: String) {
        if self.values.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }

    fn into_pairs(mut self) -> Vec<(String, String)> {
        let values = &mut self.values;
        self.order.into_iter().filter_map(|name| values.remove(&name).map(|value| (name, value))).collect()
    }
}

fn from_objects(container: &Container, sources: &Sources) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    for source in container.env_from.iter().flatten() {
        let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(r), _) => (Kind::ConfigMap, &r.name, r.optional),
            (_, Some(r)) => (Kind::Secret, &r.name, r.optional),
            _ => continue,
        };
        let Some(data) = object(sources, kind, name, optional)? else { continue };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in &data.values {
            let name = format!("{prefix}{key}");
            if valid_name(&name) {
                found.push((name, String::from_utf8_lossy(value).into_owned()));
            }
        }
    }
    Ok(found)
}

/// Any printable ASCII but `=`, as relaxed environment variable validation has it.
fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=')
}

fn object(sources: &Sources, kind: Kind, name: &str, optional: Option<bool>) -> Result<Option<Arc<Data>>, Error> {
    match sources.objects.get(&(kind, name.to_owned())).cloned().flatten() {
        Some(data) => Ok(Some(data)),
        None if optional == Some(true) => Ok(None),
        None => Err(Error::NoObject { kind, name: name.to_owned() }),
    }
}

/// `None` for an optional key that does not exist: the variable is left out.
fn value_from(source: &EnvVarSource, container: &Container, sources: &Sources) -> Result<Option<String>, Error> {
    if let Some(field) = &source.field_ref {
        return Ok(Some(pod_field(&field.field_path, sources)?));
    }
    if let Some(resource) = &source.resource_field_ref {
        let target = resource.container_name.as_deref().filter(|name| !name.is_empty());
        let named = target.and_then(|name| super::container(sources.pod, name)).map(|(_, c)| c);
        return Ok(Some(fields::resource(named.as_deref().unwrap_or(container), resource, sources.allocatable)?));
    }
    let (kind, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(r), _) => (Kind::ConfigMap, &r.name, &r.key, r.optional),
        (_, Some(r)) => (Kind::Secret, &r.name, &r.key, r.optional),
        _ => return Ok(Some(String::new())),
    };
    let Some(data) = object(sources, kind, name, optional)? else { return Ok(None) };
    match data.values.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => Err(Error::NoKey {
            kind,
            key: key.clone(),
            namespace: super::namespace(sources.pod).to_owned(),
            name: name.clone(),
        }),
    }
}

fn pod_field(path: &str, sources: &Sources) -> Result<String, Error> {
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    match path {
        "spec.nodeName" => Ok(sources.node_name.to_owned()),
        "spec.serviceAccountName" => Ok(pod_spec(sources.pod).service_account_name.clone().unwrap_or_default()),
        "status.hostIP" => Ok(first(sources.host_ips)),
        "status.hostIPs" => Ok(sources.host_ips.join(",")),
        "status.podIP" => Ok(first(sources.pod_ips)),
        "status.podIPs" => Ok(sources.pod_ips.join(",")),
        _ => Ok(fields::metadata(sources.pod, path)?),
    }
}

/// `{NAME}_SERVICE_HOST` and the rest that Docker links had. Without service links only the API server's.
fn service_variables(sources: &Sources) -> Vec<(String, String)> {
    let links = pod_spec(sources.pod).enable_service_links.unwrap_or(true);
    let namespace = sources.pod.metadata.namespace.as_deref().unwrap_or_default();
    let master = |key: &Key| key.namespace == "default" && key.name == "kubernetes";
    let mut found = Vec::new();
    for (key, service) in &sources.services.services {
        if master(key) || (links && key.namespace == namespace) {
            one_service(&key.name, service, &mut found);
        }
    }
    found
}

fn one_service(name: &str, service: &Service, found: &mut Vec<(String, String)>) {
    let upper = |name: &str| name.to_uppercase().replace('-', "_");
    let prefix = upper(name);
    let (Some(ip), Some(first)) = (service.cluster_ip, service.ports.first()) else { return };
    found.push((format!("{prefix}_SERVICE_HOST"), ip.to_string()));
    found.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
    for port in service.ports.iter().filter(|port| !port.name.is_empty()) {
        found.push((format!("{prefix}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string()));
    }
    for (index, port) in service.ports.iter().enumerate() {
        let protocol = port.protocol.name();
        let url = format!("{protocol}://{ip}:{}", port.port);
        if index == 0 {
            found.push((format!("{prefix}_PORT"), url.clone()));
        }
        let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        found.push((link.clone(), url));
        found.push((format!("{link}_PROTO"), protocol.to_owned()));
        found.push((format!("{link}_PORT"), port.port.to_string()));
        found.push((format!("{link}_ADDR"), ip.to_string()));
    }
}

/// Replaces `$(NAME)`; an unknown name stays as it is, `$$` is one `$`.
#[must_use]
pub fn expand(text: &str, scope: &HashMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match scope.get(name) {
                Some(value) => result.push_str(value),
                None => result.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
#[path = "env_tests.rs"]
mod tests;
