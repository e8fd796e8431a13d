//! Decides: discovery documents from the resource table: what groups, versions and resources this server has. The old form
//! (one document per group and version) and the aggregated one (`apidiscovery.k8s.io`), which kubectl asks for first.

pub mod merge;

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::net::SocketAddr;

use base64::Engine as _;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::api::resource::{Resource, Subresource, VERBS, find_storage, priority};

/// The rows that are served: [`crate::server::registry::Catalog::rows`].
pub type Rows<'a> = &'a [&'static Resource];

/// Version of the aggregated form. kubectl up to 1.29 only knows the beta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregated {
    V2,
    V2Beta1,
}

impl Aggregated {
    /// Which one an `Accept` header prefers, if it asks for the aggregated form before plain JSON.
    #[must_use]
    pub fn accepted(accept: &str) -> Option<Self> {
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let parameters: Vec<&str> = parts.filter(|p| !p.starts_with("q=")).collect();
            if !matches!(media, "application/json" | "application/*" | "*/*") {
                continue;
            }
            if parameters.is_empty() {
                return None;
            }
            let has = |p: &str| parameters.contains(&p);
            if has("g=apidiscovery.k8s.io") && has("as=APIGroupDiscoveryList") {
                if has("v=v2") {
                    return Some(Self::V2);
                }
                if has("v=v2beta1") {
                    return Some(Self::V2Beta1);
                }
            }
        }
        None
    }

    fn version(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    /// The response's content type. The response also needs `Vary: Accept`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// `ETag` of a document, quotes included.
#[must_use]
pub fn etag(body: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in Sha512::digest(body) {
        let _ = write!(out, "{byte:02X}");
    }
    out + "\""
}

/// `/api`. `address` is where the client reached us: `host:port`.
#[must_use]
pub fn api(rows: Rows<'_>, address: SocketAddr) -> Value {
    json!({
        "kind": "APIVersions", "versions": versions(rows, ""),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`
#[must_use]
pub fn apis(rows: Rows<'_>) -> Value {
    let groups: Vec<Value> = groups(rows).into_iter().map(|g| group_body(rows, g)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`. `None` when there is no such group.
#[must_use]
pub fn group(rows: Rows<'_>, name: &str) -> Option<Value> {
    let name = groups(rows).into_iter().find(|g| *g == name)?;
    let mut body = group_body(rows, name);
    body["kind"] = "APIGroup".into();
    body["apiVersion"] = "v1".into();
    Some(body)
}

/// `/api/v1` (with an empty group) and `/apis/<group>/<version>`. `None` when there is no such version.
#[must_use]
pub fn resources(rows: Rows<'_>, group: &str, version: &str) -> Option<Value> {
    let found = members(rows, group, version);
    if found.is_empty() {
        return None;
    }
    let mut list = Vec::new();
    for r in found {
        list.push(entry(r));
        list.extend(sorted(r.subresources).into_iter().map(|s| sub_entry(r, s)));
    }
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": list}))
}

/// The aggregated form of `/api` (`core`) or `/apis`.
#[must_use]
pub fn aggregated(rows: Rows<'_>, core: bool, form: Aggregated) -> Value {
    let groups = if core { vec![""] } else { groups(rows) };
    let items: Vec<Value> = groups.into_iter().map(|g| aggregated_group(rows, g)).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", form.version()),
        "metadata": {},
        "items": items,
    })
}

/// Every group but the core one, in order of priority.
#[must_use]
pub fn groups(rows: Rows<'_>) -> Vec<&'static str> {
    let named = rows.iter().filter(|r| !r.group.is_empty());
    let mut all: Vec<_> = named.map(|r| (Reverse(priority::of(r.group, r.version).group), r.group)).collect();
    all.sort_unstable();
    let mut groups = Vec::new();
    for (_, group) in all {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

/// The versions of a group, the preferred one first.
#[must_use]
pub fn versions(rows: Rows<'_>, group: &str) -> Vec<&'static str> {
    let mut all = Vec::new();
    for r in rows.iter().filter(|r| r.group == group) {
        if !all.contains(&r.version) {
            all.push(r.version);
        }
    }
    all.sort_by_key(|v| Reverse((priority::of(group, v).version, priority::rank(v))));
    all
}

fn members(rows: Rows<'_>, group: &str, version: &str) -> Vec<&'static Resource> {
    let mut found: Vec<_> = rows.iter().copied().filter(|r| r.group == group && r.version == version).collect();
    found.sort_by_key(|r| r.plural);
    found
}

fn sorted(subresources: &'static [Subresource]) -> Vec<&'static Subresource> {
    let mut all: Vec<_> = subresources.iter().collect();
    all.sort_by_key(|s| s.name);
    all
}

fn verbs(bits: u16) -> Vec<&'static str> {
    VERBS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, verb)| *verb).collect()
}

fn group_body(rows: Rows<'_>, name: &'static str) -> Value {
    let versions: Vec<Value> =
        versions(rows, name).iter().map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v})).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

fn entry(r: &Resource) -> Value {
    let mut out = json!({
        "name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind, "verbs": verbs(r.verbs),
    });
    add_names(&mut out, r);
    if !r.storage.is_empty() {
        out["storageVersionHash"] = storage_version_hash(r).into();
    }
    out
}

/// Tells clients when objects have to be written again in a newer version. Only ever compared.
fn storage_version_hash(r: &Resource) -> String {
    let stored = find_storage(r.storage).unwrap_or(r);
    let name = format!("{}/{}/{}", stored.group, stored.version, stored.kind);
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(name)[..8])
}

fn sub_entry(r: &Resource, s: &Subresource) -> Value {
    let mut out = json!({
        "name": format!("{}/{}", r.plural, s.name), "singularName": "", "namespaced": r.namespaced, "kind": s.kind,
        "verbs": verbs(s.verbs),
    });
    if (s.group, s.version) != (r.group, r.version) {
        out["group"] = s.group.into();
        out["version"] = s.version.into();
    }
    out
}

fn add_names(out: &mut Value, r: &Resource) {
    if !r.short_names.is_empty() {
        out["shortNames"] = r.short_names.into();
    }
    if !r.categories.is_empty() {
        out["categories"] = r.categories.into();
    }
}

fn aggregated_group(rows: Rows<'_>, group: &'static str) -> Value {
    let version = |version: &&'static str| {
        let resources: Vec<Value> = members(rows, group, version).into_iter().map(aggregated_resource).collect();
        json!({"version": version, "freshness": "Current", "resources": resources})
    };
    let versions: Vec<Value> = versions(rows, group).iter().map(version).collect();
    let mut metadata = Map::new();
    if !group.is_empty() {
        metadata.insert("name".into(), group.into());
    }
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(r: &'static Resource) -> Value {
    let mut out = json!({
        "resource": r.plural, "singularResource": r.singular, "verbs": verbs(r.verbs),
        "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        // Empty: the group and version that the entry stands in.
        "responseKind": {"group": "", "version": "", "kind": r.kind},
    });
    add_names(&mut out, r);
    let subresource = |s: &'static Subresource| {
        let own = (s.group, s.version) != (r.group, r.version);
        let (group, version) = if own { (s.group, s.version) } else { ("", "") };
        let kind = json!({"group": group, "version": version, "kind": s.kind});
        json!({"subresource": s.name, "responseKind": kind, "verbs": verbs(s.verbs)})
    };
    let subresources: Vec<Value> = sorted(r.subresources).into_iter().map(subresource).collect();
    if !subresources.is_empty() {
        out["subresources"] = subresources.into();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource::RESOURCES;

    #[test]
    fn old_documents() {
        let rows: Vec<&Resource> = RESOURCES.iter().collect();
        let rows = rows.as_slice();
        let list = resources(rows, "apps", "v1").unwrap();
        assert_eq!(list["groupVersion"], "apps/v1");
        let names: Vec<&str> =
            list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"deployments") && names.contains(&"deployments/scale"), "{names:?}");
        assert!(names.is_sorted(), "{names:?}");
        let pods = resources(rows, "", "v1").unwrap()["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["name"] == "pods")
            .cloned();
        assert_eq!(
            pods.unwrap(),
            json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "shortNames": ["po"], "categories": ["all"],
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                "storageVersionHash": "xPOwRZ+Yhw8="})
        );
        assert_eq!(group(rows, "apps").unwrap()["preferredVersion"]["groupVersion"], "apps/v1");
        assert_eq!(apis(rows)["groups"][1]["name"], "apps");
        assert_eq!(api(rows, ([1, 2, 3, 4], 6443).into())["versions"], json!(["v1"]));
        assert!(resources(rows, "nope", "v1").is_none() && resources(rows, "apps", "v2").is_none());
        assert!(group(rows, "").is_none());
    }

    #[test]
    fn the_form_follows_the_accept_header() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        for (accept, expect) in [
            (kubectl, Some(Aggregated::V2)),
            (
                "application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io,application/json",
                Some(Aggregated::V2Beta1),
            ),
            ("application/json", None),
            ("", None),
            ("*/*", None),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", None),
        ] {
            assert_eq!(Aggregated::accepted(accept), expect, "{accept}");
        }
    }

    /// What we have is what upstream's document says of it; the order of the groups too. (The core group is not in it.)
    #[test]
    fn the_aggregated_document_is_upstreams() {
        let Some(folder) = crate::api::reference::folder() else { return };
        let reference = std::fs::read(folder.join("aggregated-discovery.json")).unwrap();
        let reference: Value = serde_json::from_slice(&reference).unwrap();
        let rows: Vec<&Resource> = RESOURCES.iter().collect();
        let ours = aggregated(&rows, false, Aggregated::V2);
        let find =
            |list: &Value, key: &str, name: &Value| list.as_array().unwrap().iter().find(|i| i[key] == *name).cloned();
        let mut order = Vec::new();
        for group in ours["items"].as_array().unwrap() {
            let items = reference["items"].as_array().unwrap();
            let at = items
                .iter()
                .position(|i| i["metadata"] == group["metadata"])
                .unwrap_or_else(|| panic!("{}", group["metadata"]));
            order.push(at);
            for version in group["versions"].as_array().unwrap() {
                let theirs =
                    find(&items[at]["versions"], "version", &version["version"]).expect("a version of upstream's");
                for resource in version["resources"].as_array().unwrap() {
                    let theirs = find(&theirs["resources"], "resource", &resource["resource"])
                        .expect("a resource of upstream's");
                    assert_eq!(*resource, theirs);
                }
            }
        }
        assert!(order.is_sorted(), "{order:?}");
    }

    /// The core group is not in that document; what its subresources are is in the paths of OpenAPI.
    #[test]
    fn subresources_of_the_core_group_are_upstreams() {
        let Some(folder) = crate::api::reference::folder() else { return };
        let reference = std::fs::read(folder.join("openapi-v2.json")).unwrap();
        let reference: Value = serde_json::from_slice(&reference).unwrap();
        let paths = reference["paths"].as_object().unwrap();
        let verb = |method: &str| match method {
            "get" => Some("get"),
            "post" => Some("create"),
            "put" => Some("update"),
            "patch" => Some("patch"),
            "delete" => Some("delete"),
            _ => None,
        };
        for r in RESOURCES.iter().filter(|r| r.group.is_empty()) {
            let root = format!("{}/{{name}}/", r.path(Some("{namespace}")));
            let named = paths.iter().filter_map(|(path, item)| Some((path.strip_prefix(&root)?, item)));
            let mut theirs: Vec<String> = Vec::new();
            for (name, item) in named.filter(|(name, _)| !name.contains('/')) {
                let operations = item.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters");
                let (mut verbs, mut kind) = (Vec::new(), Value::Null);
                for (method, operation) in operations {
                    verbs.extend(verb(method));
                    kind = operation["x-kubernetes-group-version-kind"].clone();
                }
                verbs.sort_unstable();
                theirs.push(format!("{name} {} {} {} {verbs:?}", kind["group"], kind["version"], kind["kind"]));
            }
            let ours = sorted(r.subresources)
                .into_iter()
                .map(|s| format!("{} {:?} {:?} {:?} {:?}", s.name, s.group, s.version, s.kind, verbs(s.verbs)));
            theirs.sort();
            assert_eq!(ours.collect::<Vec<_>>(), theirs, "{}", r.plural);
        }
    }
}
