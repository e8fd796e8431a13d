//! Decides: discovery documents that list the versions of extension servers among the server's own, in the order of all
//! their priorities (`endpoints/discovery/aggregated`, `apiregistration/v1/helper`).

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::resource::priority::{self, Priority};
use crate::server::aggregation::documents::Discovered;
use crate::server::aggregation::table::Remote;

/// One version of an extension server.
pub struct Listed {
    pub remote: Arc<Remote>,
    /// `None` when its server cannot be asked now: the version is listed as stale, and clients know that something is
    /// missing.
    pub found: Option<Arc<Discovered>>,
}

/// Adds to `/apis`.
pub fn groups(list: &mut Value, listed: &[Listed]) {
    let merged = merged(list["groups"].take(), "/name", listed, |l| match l {
        None => json!({"name": "", "versions": []}),
        Some(l) => json!({"groupVersion": format!("{}/{}", l.remote.group, l.remote.version)}),
    });
    list["groups"] = merged.into_iter().map(preferred).collect();
}

/// Adds to `/apis/<group>`, or makes it. `None` when there is no such group.
#[must_use]
pub fn group(own: Option<Value>, name: &str, listed: &[Listed]) -> Option<Value> {
    let mut list = json!({"groups": own.into_iter().collect::<Vec<_>>()});
    groups(&mut list, listed);
    let mut found = list["groups"].as_array_mut()?.iter_mut().find(|g| g["name"] == name)?.take();
    found["kind"] = "APIGroup".into();
    found["apiVersion"] = "v1".into();
    Some(found)
}

/// Adds to the aggregated form of `/apis`.
pub fn aggregated(list: &mut Value, listed: &[Listed]) {
    let merged = merged(list["items"].take(), "/metadata/name", listed, |l| match l {
        None => json!({"metadata": {"name": ""}, "versions": []}),
        Some(l) => match &l.found {
            Some(found) => json!({"freshness": "Current", "resources": found.resources}),
            None => json!({"freshness": "Stale"}),
        },
    });
    list["items"] = merged.into();
}

/// The first version is the preferred one.
fn preferred(mut group: Value) -> Value {
    group["preferredVersion"] = group["versions"][0].clone();
    group
}

/// `make` makes a group, and a version of one. The version of an extension server takes the place of our own.
fn merged(items: Value, name: &str, listed: &[Listed], make: impl Fn(Option<&Listed>) -> Value) -> Vec<Value> {
    let mut items = match items {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    for one in listed {
        let group = one.remote.group.as_str();
        let at = items.iter().position(|i| i.pointer(name) == Some(&group.into())).unwrap_or_else(|| {
            let mut item = make(None);
            if let Some(at) = item.pointer_mut(name) {
                *at = group.into();
            }
            items.push(item);
            items.len() - 1
        });
        let mut version = make(Some(one));
        version["version"] = one.remote.version.as_str().into();
        let Some(versions) = items[at]["versions"].as_array_mut() else { continue };
        match versions.iter_mut().find(|v| v["version"] == version["version"]) {
            Some(own) => *own = version,
            None => versions.push(version),
        }
    }
    let of = |item: &Value| item.pointer(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    for item in &mut items {
        let group = of(item);
        if let Some(versions) = item["versions"].as_array_mut() {
            versions.sort_by_cached_key(|v| {
                let version = v["version"].as_str().unwrap_or_default();
                let (stage, major, minor, name) = priority::rank(version);
                let rank = (stage, major, minor, Reverse(name.0.to_owned()));
                Reverse((priority_of(&group, version, listed).version, rank))
            });
        }
    }
    items.sort_by_cached_key(|item| {
        let group = of(item);
        let versions = item["versions"].as_array().into_iter().flatten();
        let all = versions.map(|v| priority_of(&group, v["version"].as_str().unwrap_or_default(), listed).group);
        (Reverse(all.max()), group)
    });
    items
}

fn priority_of(group: &str, version: &str, listed: &[Listed]) -> Priority {
    let theirs = listed.iter().find(|l| l.remote.group == group && l.remote.version == version);
    theirs.map_or_else(|| priority::of(group, version), |l| l.remote.priority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource::{RESOURCES, Resource};
    use crate::server::aggregation::table::Trust;
    use crate::server::http::discovery::{self, Aggregated};
    use crate::server::webhook::ServiceTarget;

    fn listed(group: &str, version: &str, priority: (i32, i32), found: Option<&[Value]>) -> Listed {
        let target = ServiceTarget { namespace: "n".into(), name: "s".into(), path: String::new(), port: 443 };
        let priority = Priority { group: priority.0, version: priority.1 };
        let (name, group, version) = (format!("{version}.{group}").into(), group.into(), version.into());
        let remote = Arc::new(Remote { name, group, version, target, trust: Trust::Anyone, priority });
        let found = found.map(|r| Arc::new(Discovered { resources: r.to_vec(), etag: String::new() }));
        Listed { remote, found }
    }

    fn names(list: &Value, name: &str) -> Vec<String> {
        let items = list.as_array().unwrap().iter();
        items.map(|i| i.pointer(name).unwrap().as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn groups_and_versions_stand_where_their_priorities_put_them() {
        let rows: Vec<&Resource> = RESOURCES.iter().collect();
        let all = [
            listed("z.io", "v1", (17_900, 5), None),
            listed("a.io", "v1", (100, 10), Some(&[])),
            listed("a.io", "v2", (200, 10), Some(&[])),
            listed("a.io", "v1beta1", (100, 99), Some(&[])),
            listed("apps", "v9", (100, 1), Some(&[])),
            // In the place of our own.
            listed("batch", "v1", (17_400, 15), Some(&[json!({"resource": "things"})])),
        ];
        let mut list = discovery::apis(&rows);
        groups(&mut list, &all);
        let order = names(&list["groups"], "/name");
        assert_eq!(order[..3], ["apiregistration.k8s.io", "z.io", "apps"]);
        assert_eq!(order.last().unwrap(), "a.io");
        let of = |name: &str| group(discovery::group(&rows, name), name, &all).unwrap();
        assert_eq!(names(&of("a.io")["versions"], "/version"), ["v1beta1", "v2", "v1"]);
        assert_eq!(of("a.io")["preferredVersion"], json!({"groupVersion": "a.io/v1beta1", "version": "v1beta1"}));
        assert_eq!((&of("a.io")["kind"], &of("a.io")["apiVersion"]), (&json!("APIGroup"), &json!("v1")));
        assert_eq!(names(&of("apps")["versions"], "/groupVersion"), ["apps/v1", "apps/v9"]);
        assert!(group(None, "none.io", &all).is_none());

        let mut list = discovery::aggregated(&rows, false, Aggregated::V2);
        aggregated(&mut list, &all);
        assert_eq!(names(&list["items"], "/metadata/name"), order);
        let find = |name: &str| list["items"].as_array().unwrap().iter().find(|i| i["metadata"]["name"] == name);
        assert_eq!(find("z.io").unwrap()["versions"], json!([{"version": "v1", "freshness": "Stale"}]));
        let batch = &find("batch").unwrap()["versions"];
        assert_eq!(*batch, json!([{"version": "v1", "freshness": "Current", "resources": [{"resource": "things"}]}]));
    }

    #[test]
    fn without_any_the_document_is_the_same() {
        let rows: Vec<&Resource> = RESOURCES.iter().collect();
        let own = discovery::aggregated(&rows, false, Aggregated::V2);
        let mut list = own.clone();
        aggregated(&mut list, &[]);
        assert_eq!(list, own);
        let own = discovery::apis(&rows);
        let mut list = own.clone();
        groups(&mut list, &[]);
        assert_eq!(list, own);
    }
}
