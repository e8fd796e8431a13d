//! Decides: the rows of custom resources, from the `CustomResourceDefinition` that defines them
//! (apiextensions.k8s.io/v1): one for each version that is served.
//!
//! Rows of the built-in kinds are static data, and everything that works on objects holds `&'static Resource`. Those of
//! custom resources are made once and kept for the life of the process: a row is a few hundred bytes, equal ones are
//! the same one, and only a definition that changes its names makes another.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde_json::Value;

use super::{ALL, GET, PATCH, Resource, Subresource, UPDATE, VERBS, rows};

/// Of a group, a version, a resource or a kind (RFC 1123 subdomain).
const MAX_NAME: usize = 253;

/// The rows of the versions that a definition serves, and the one that it stores, served or not. Names are those that it
/// was accepted under (`status.acceptedNames`). `None` before it has been.
#[must_use]
pub fn of(definition: &Value) -> Option<Rows> {
    let accepted = is(definition, "Established");
    let (spec, names) = (&definition["spec"], &definition["status"]["acceptedNames"]);
    let group = text(&spec["group"]);
    let plural = text(&names["plural"]);
    if !accepted || group.is_empty() || plural.is_empty() {
        return None;
    }
    let versions = spec["versions"].as_array()?;
    let row = |version: &Value| {
        let subresources = &version["subresources"];
        let name = intern(text(&version["name"]));
        let mut has = Vec::new();
        if subresources["scale"].is_object() {
            let (group, version) = ("autoscaling", "v1");
            has.push(Subresource { name: "scale", group, version, kind: "Scale", verbs: GET | PATCH | UPDATE });
        }
        if subresources["status"].is_object() {
            let (group, kind) = (intern(group), intern(text(&names["kind"])));
            has.push(Subresource { name: "status", group, version: name, kind, verbs: GET | PATCH | UPDATE });
        }
        let fields = version["selectableFields"].as_array().into_iter().flatten();
        keep(Resource {
            group: intern(group),
            version: name,
            plural: intern(plural),
            singular: intern(text(&names["singular"])),
            kind: intern(text(&names["kind"])),
            namespaced: spec["scope"] == "Namespaced",
            short_names: intern_all(&names["shortNames"]),
            categories: intern_all(&names["categories"]),
            verbs: ALL,
            subresources: keep_subresources(has),
            storage: intern(&format!("{group}/{plural}")),
            selectable: intern_list(fields.map(|f| text(&f["jsonPath"]).trim_start_matches('.'))),
            ..rows::BASE
        })
    };
    let stored = row(versions.iter().find(|v| v["storage"] == true)?);
    let served = versions.iter().filter(|v| v["served"] == true).map(row).collect();
    Some(Rows { stored, served })
}

/// The row of a resource that an extension server says it has, in an entry of an `APIResourceList`. `None` of
/// subresources, and of what has no proper names.
#[must_use]
pub fn remote(group: &str, version: &str, entry: &Value) -> Option<&'static Resource> {
    let (plural, kind) = (text(&entry["name"]), text(&entry["kind"]));
    let short = [group, version, plural, kind].iter().all(|name| name.len() <= MAX_NAME);
    if !short || plural.is_empty() || kind.is_empty() || plural.contains('/') {
        return None;
    }
    let listed = |verb: &str| entry["verbs"].as_array().into_iter().flatten().any(|v| v == verb);
    Some(keep(Resource {
        group: intern(group),
        version: intern(version),
        plural: intern(plural),
        singular: intern(plural),
        kind: intern(kind),
        namespaced: entry["namespaced"] == true,
        verbs: VERBS.iter().filter(|(_, verb)| listed(verb)).map(|(bit, _)| bit).sum(),
        storage: intern(&format!("{group}/{plural}")),
        ..rows::BASE
    }))
}

/// What a definition adds to the resource table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    pub stored: &'static Resource,
    pub served: Vec<&'static Resource>,
}

impl Rows {
    /// The row of a version that is served, as `apiVersion` and `kind` of an object name it.
    #[must_use]
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&'static Resource> {
        self.served.iter().find(|r| r.kind == kind && r.api_version() == api_version).copied()
    }
}

/// Storage name of the definitions.
pub const DEFINITIONS: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// Whether a condition of an object is `True`.
#[must_use]
pub fn is(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == condition && c["status"] == "True")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[derive(Default)]
struct Kept {
    texts: HashSet<&'static str>,
    lists: HashSet<&'static [&'static str]>,
    subresources: HashSet<&'static [Subresource]>,
    rows: HashSet<&'static Resource>,
}

static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

/// The kept value that equals this one.
fn kept<T: ?Sized + std::hash::Hash + Eq>(
    set: impl Fn(&mut Kept) -> &mut HashSet<&'static T>,
    value: &T,
    keep: impl FnOnce() -> &'static T,
) -> &'static T {
    let mut all = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let set = set(&mut all);
    if let Some(found) = set.get(value) {
        return found;
    }
    let value = keep();
    set.insert(value);
    value
}

fn intern(text: &str) -> &'static str {
    kept(|k| &mut k.texts, text, || Box::leak(text.into()))
}

fn intern_all(list: &Value) -> &'static [&'static str] {
    intern_list(list.as_array().into_iter().flatten().map(text))
}

fn intern_list<'a>(list: impl Iterator<Item = &'a str>) -> &'static [&'static str] {
    let list: Vec<&'static str> = list.map(intern).collect();
    kept(|k| &mut k.lists, &*list.clone(), || list.leak())
}

fn keep_subresources(list: Vec<Subresource>) -> &'static [Subresource] {
    kept(|k| &mut k.subresources, &*list.clone(), || list.leak())
}

fn keep(row: Resource) -> &'static Resource {
    kept(|k| &mut k.rows, &row.clone(), || Box::leak(Box::new(row)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition() -> Value {
        json!({
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "crontabs", "kind": "CronTab"},
                "versions": [
                    {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}, "scale": {}},
                     "selectableFields": [{"jsonPath": ".spec.color"}]},
                    {"name": "v1beta1", "served": true, "storage": false},
                    {"name": "v1alpha1", "served": false, "storage": false},
                ],
            },
            "status": {
                "acceptedNames": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList",
                    "shortNames": ["ct"], "categories": ["all"]},
                "conditions": [{"type": "Established", "status": "True"}],
            },
        })
    }

    #[test]
    fn one_row_for_each_version_that_is_served() {
        let rows = of(&definition()).unwrap();
        let [v1, beta] = rows.served.as_slice() else { panic!("{rows:?}") };
        assert_eq!((v1.api_version().as_str(), v1.storage), ("example.com/v1", "example.com/crontabs"));
        assert_eq!(
            (v1.kind, v1.singular, v1.short_names, v1.categories),
            ("CronTab", "crontab", &["ct"][..], &["all"][..])
        );
        assert_eq!(v1.selectable, ["spec.color"]);
        assert_eq!(v1.subresource("status").unwrap().kind, "CronTab");
        assert_eq!(v1.subresource("scale").unwrap().kind, "Scale");
        assert!(beta.subresources.is_empty() && beta.version == "v1beta1" && rows.stored == *v1);
    }

    #[test]
    fn what_extension_servers_have_are_rows_too() {
        let entry =
            |name: &str| json!({"name": name, "kind": "Thing", "namespaced": true, "verbs": ["list", "watch", "fly"]});
        let row = remote("ext.example.com", "v1", &entry("things")).unwrap();
        assert_eq!(
            (row.path(Some("x")).as_str(), row.storage, row.verbs),
            (
                "/apis/ext.example.com/v1/namespaces/x/things",
                "ext.example.com/things",
                super::super::LIST | super::super::WATCH
            )
        );
        assert_eq!(remote("ext.example.com", "v1", &entry("things/status")), None);
        assert_eq!(remote("ext.example.com", "v1", &entry(&"x".repeat(300))), None);
    }

    #[test]
    fn equal_rows_are_one() {
        let (a, b) = (of(&definition()).unwrap(), of(&definition()).unwrap());
        assert!(std::ptr::eq(a.stored, b.stored));
    }

    #[test]
    fn nothing_is_served_before_the_names_are_accepted() {
        let mut pending = definition();
        pending["status"]["conditions"][0]["status"] = "False".into();
        assert_eq!(of(&pending), None);
        assert_eq!(of(&json!({})), None);
    }
}
