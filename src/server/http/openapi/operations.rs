//! Decides: the paths of the OpenAPI documents: which operations each resource has, with what parameters and bodies.
//! `kubectl` looks at the parameters of PATCH to learn whether the server validates and can dry-run.

mod render;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use self::render::{camel, group_name};
use super::custom;
use super::parameters::{self, Names, Parameters};
use super::schemas::{Dialect, meta};
use crate::api::resource::{CREATE, DELETE, DELETE_COLLECTION, GET, LIST, PATCH, Resource, Subresource, UPDATE, WATCH};
use crate::api::schema::{self, Type};
use crate::server::http::discovery::{self, Rows};

type Kind = (&'static str, &'static str, &'static str);

/// Kinds whose deletion is answered with the object (`ReturnDeletedObject` of their stores).
const ANSWERED_WITH_OBJECT: [(&str, &[&str]); 3] = [
    (
        "",
        &[
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "ResourceQuota",
            "Service",
            "ServiceAccount",
        ],
    ),
    ("resource.k8s.io", &["DeviceClass", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice"]),
    ("storage.k8s.io", &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"]),
];

/// What the operations of some rows are written with.
pub struct Operations {
    /// JSON by path.
    pub paths: BTreeMap<String, String>,
    /// Version 2 has the parameters once.
    pub parameters: Map<String, Value>,
    /// The types that they speak of, by name.
    pub used: BTreeSet<&'static str>,
}

/// One operation, before it is written in a dialect.
struct Operation {
    method: &'static str,
    /// `x-kubernetes-action`; empty for what is no operation on objects.
    action: &'static str,
    id: String,
    about: String,
    query: Names,
    body: Option<Body>,
    answer: Body,
    media: Media,
}

/// What is sent: a type of the schema table, the schema of a custom resource, by name, or any text.
#[derive(Clone)]
enum Body {
    Type(&'static Type),
    Custom(String),
    Patch,
    Text,
}

/// What an operation takes and gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    Object,
    List,
    Log,
    Stream,
    Discovery,
    Custom,
}

/// The paths of some group versions.
pub fn of(rows: Rows<'_>, dialect: Dialect) -> Operations {
    let out = Operations { paths: BTreeMap::new(), parameters: Map::new(), used: BTreeSet::new() };
    let mut all = Writer { dialect, parameters: Parameters::new(dialect), out };
    for r in rows {
        all.resource(r);
    }
    all.discovery(rows);
    all.out.parameters = all.parameters.shared;
    all.out
}

struct Writer {
    dialect: Dialect,
    parameters: Parameters,
    out: Operations,
}

/// What is the same for the operations of one path.
struct Place<'a> {
    path: String,
    /// The tag of its operations.
    tag: String,
    /// What is named by `{name}`.
    named: &'a str,
    kind: Option<Kind>,
}

impl Writer {
    fn resource(&mut self, r: &'static Resource) {
        let custom = schema::of(r).is_none();
        let own = match schema::of(r) {
            Some(own) => Body::Type(own),
            None => {
                self.out.used.extend(custom::TYPES.iter().filter_map(|t| meta(t)).map(|t| t.name));
                Body::Custom(custom::name(r))
            }
        };
        let list = match schema::find(r.group, r.version, &format!("{}List", r.kind)) {
            Some(list) => Body::Type(list),
            None => Body::Custom(custom::list_name(r)),
        };
        let (object, of_list) = if custom { (Media::Custom, Media::Custom) } else { (Media::Object, Media::List) };
        let collection = r.path(r.namespaced.then_some("{namespace}"));
        let scope = if r.namespaced { "Namespaced" } else { "" };
        let kind = r.kind;
        let id = |verb: &str, suffix: &str| {
            format!("{verb}{}{}{scope}{kind}{suffix}", group_name(r.group), camel(r.version))
        };
        let op = |method, action, verb: &str, about, query, body, answer| {
            let media = if action == "list" { of_list } else { object };
            Operation { method, action, id: id(verb, ""), about, query, body, answer, media }
        };
        let status = || typed("Status");
        let deleted = || {
            let object = ANSWERED_WITH_OBJECT.iter().any(|(g, kinds)| *g == r.group && kinds.contains(&kind));
            if object { own.clone() } else { status() }
        };
        let watched = r.has(WATCH) && !custom;
        let listed = if watched {
            format!("list or watch objects of kind {kind}")
        } else {
            format!("list objects of kind {kind}")
        };
        let mut of_collection = Vec::new();
        let mut of_item = Vec::new();
        if r.has(LIST) {
            of_collection.push(op("get", "list", "list", listed.clone(), parameters::LIST, None, list.clone()));
        }
        if r.has(CREATE) {
            let about = format!("create {}", noun(kind));
            of_collection.push(op("post", "post", "create", about, parameters::WRITE, Some(own.clone()), own.clone()));
        }
        if r.has(DELETE_COLLECTION) {
            let about = format!("delete collection of {kind}");
            let query = parameters::DELETE_COLLECTION;
            let mut all =
                op("delete", "deletecollection", "delete", about, query, Some(typed("DeleteOptions")), status());
            all.id = format!("delete{}{}Collection{scope}{kind}", group_name(r.group), camel(r.version));
            of_collection.push(all);
        }
        if r.has(GET) {
            of_item.push(op(
                "get",
                "get",
                "read",
                format!("read the specified {kind}"),
                parameters::PRETTY,
                None,
                own.clone(),
            ));
        }
        if r.has(UPDATE) {
            let about = format!("replace the specified {kind}");
            of_item.push(op("put", "put", "replace", about, parameters::WRITE, Some(own.clone()), own.clone()));
        }
        if r.has(PATCH) {
            let about = format!("partially update the specified {kind}");
            of_item.push(op("patch", "patch", "patch", about, parameters::PATCH, Some(Body::Patch), own.clone()));
        }
        if r.has(DELETE) {
            let about = format!("delete {}", noun(kind));
            let options = Some(typed("DeleteOptions"));
            of_item.push(op("delete", "delete", "delete", about, parameters::DELETE, options, deleted()));
        }
        if r.namespaced && r.has(LIST) {
            let mut all = op("get", "list", "list", listed, parameters::LIST, None, list);
            all.id = format!("list{}{}{kind}ForAllNamespaces", group_name(r.group), camel(r.version));
            self.path(&place(r, r.path(None)), vec![all]);
        }
        self.path(&place(r, collection.clone()), of_collection);
        self.path(&place(r, format!("{collection}/{{name}}")), of_item);
        if watched {
            self.watches(r);
        }
        for s in r.subresources {
            self.subresource(r, s, &collection);
        }
    }

    /// The older paths of watches.
    fn watches(&mut self, r: &'static Resource) {
        let older = |path: String| {
            let at = path.find(r.version).map_or(0, |at| at + r.version.len());
            format!("{}/watch{}", &path[..at], &path[at..])
        };
        let (group, version, kind) = (group_name(r.group), camel(r.version), r.kind);
        let scope = if r.namespaced { "Namespaced" } else { "" };
        let mut watch = |path, action, id, what: &str| {
            let about = format!("watch {what} of kind {kind}. Deprecated: list with the parameter watch.");
            let (answer, query) = (typed("WatchEvent"), parameters::LIST);
            let all = Operation { method: "get", action, id, about, query, body: None, answer, media: Media::List };
            self.path(&place(r, path), vec![all]);
        };
        let collection = r.path(r.namespaced.then_some("{namespace}"));
        if r.namespaced {
            let id = format!("watch{group}{version}{kind}ListForAllNamespaces");
            watch(older(r.path(None)), "watchlist", id, "objects");
        }
        watch(older(collection.clone()), "watchlist", format!("watch{group}{version}{scope}{kind}List"), "objects");
        if r.has(GET) {
            let path = older(format!("{collection}/{{name}}"));
            watch(path, "watch", format!("watch{group}{version}{scope}{kind}"), "one object");
        }
    }

    fn subresource(&mut self, r: &'static Resource, s: &'static Subresource, collection: &str) {
        let path = format!("{collection}/{{name}}/{}", s.name);
        let query = match s.name {
            "exec" => parameters::EXEC,
            "attach" => parameters::ATTACH,
            "portforward" => parameters::PORT_FORWARD,
            "proxy" => parameters::PROXY,
            _ => return self.subobject(r, s, path),
        };
        self.connections(r, s, &path, "", query);
        if s.name == "proxy" {
            self.connections(r, s, &format!("{path}/{{path}}"), "WithPath", query);
        }
    }

    /// A subresource whose bodies are objects, or the log.
    fn subobject(&mut self, r: &'static Resource, s: &'static Subresource, path: String) {
        let (own, mut media) = match schema::find(s.group, s.version, s.kind) {
            Some(own) => (Body::Type(own), if schema::of(r).is_some() { Media::Object } else { Media::Custom }),
            None => (Body::Custom(custom::name(r)), Media::Custom),
        };
        let (mut answer, mut reads) = (own.clone(), parameters::PRETTY);
        if s.name == "log" {
            (answer, reads, media) = (Body::Text, parameters::LOG, Media::Log);
        }
        let scope = if r.namespaced { "Namespaced" } else { "" };
        let (kind, name) = (r.kind, s.name);
        let op = |method, action, verb: &str, about: String, query, body| {
            let id = format!("{verb}{}{}{scope}{kind}{}", group_name(r.group), camel(r.version), camel(name));
            Operation { method, action, id, about, query, body, answer: answer.clone(), media }
        };
        let mut all = Vec::new();
        if s.verbs & GET != 0 {
            all.push(op("get", "get", "read", format!("read {name} of the specified {kind}"), reads, None));
        }
        if s.verbs & CREATE != 0 {
            let about = format!("create {name} of {}", noun(kind));
            all.push(op("post", "post", "create", about, parameters::WRITE, Some(own.clone())));
        }
        if s.verbs & UPDATE != 0 {
            let about = format!("replace {name} of the specified {kind}");
            all.push(op("put", "put", "replace", about, parameters::WRITE, Some(own.clone())));
        }
        if s.verbs & PATCH != 0 {
            let about = format!("partially update {name} of the specified {kind}");
            all.push(op("patch", "patch", "patch", about, parameters::PATCH, Some(Body::Patch)));
        }
        let named = if s.group.is_empty() && s.kind == r.kind { kind } else { s.kind };
        let kind = (s.group, s.version, s.kind);
        self.path(&Place { named, kind: Some(kind), ..place(r, path) }, all);
    }

    /// Streams and proxies: any method, any body.
    fn connections(&mut self, r: &'static Resource, s: &'static Subresource, path: &str, suffix: &str, query: Names) {
        let methods: &[&'static str] = if s.name == "proxy" {
            &["delete", "get", "head", "options", "patch", "post", "put"]
        } else {
            &["get", "post"]
        };
        let scope = if r.namespaced { "Namespaced" } else { "" };
        let op = |method: &&'static str| Operation {
            method,
            action: "connect",
            id: format!(
                "connect{}{}{}{scope}{}{}{suffix}",
                group_name(r.group),
                camel(r.version),
                camel(method),
                r.kind,
                camel(s.name)
            ),
            about: format!("connect {} requests to {} of {}", method.to_uppercase(), s.name, r.kind),
            query,
            body: None,
            answer: Body::Text,
            media: Media::Stream,
        };
        let kind = (s.group, s.version, s.kind);
        let place = Place { named: s.kind, kind: Some(kind), ..place(r, path.to_owned()) };
        self.path(&place, methods.iter().map(op).collect());
    }

    /// What the built-in groups and versions have. Version 3 has it of the version: there is no document of a group.
    fn discovery(&mut self, rows: Rows<'_>) {
        let built_in: Vec<&'static Resource> = rows.iter().copied().filter(|r| schema::of(r).is_some()).collect();
        let mut document = |path: String, tag: &str, id: String, about: &str, answer| {
            let (media, about) = (Media::Discovery, about.to_owned());
            let all = Operation {
                method: "get",
                action: "",
                id,
                about,
                query: &[],
                body: None,
                answer: typed(answer),
                media,
            };
            self.path(&Place { path, tag: tag.to_owned(), named: "", kind: None }, vec![all]);
        };
        let mut groups = discovery::groups(&built_in);
        if built_in.iter().any(|r| r.group.is_empty()) {
            groups.insert(0, "");
        }
        let whole = rows.iter().any(|r| r.group != rows[0].group);
        for group in groups {
            let (root, name) = if group.is_empty() {
                ("/api/".into(), "core".into())
            } else {
                (format!("/apis/{group}/"), render::tag(group))
            };
            match (whole, group) {
                (false, _) => {}
                (true, "") => document(
                    root.clone(),
                    "core",
                    "getCoreAPIVersions".into(),
                    "get available API versions",
                    "APIVersions",
                ),
                (true, group) => {
                    let id = format!("get{}APIGroup", group_name(group));
                    document(root.clone(), &name, id, "get information of a group", "APIGroup");
                }
            }
            for version in discovery::versions(&built_in, group) {
                let id = format!("get{}{}APIResources", group_name(group), camel(version));
                let tag = format!("{name}_{version}");
                document(format!("{root}{version}/"), &tag, id, "get available resources", "APIResourceList");
            }
        }
        if whole {
            document("/apis/".into(), "apis", "getAPIVersions".into(), "get available API versions", "APIGroupList");
        }
    }
}

fn typed(name: &str) -> Body {
    meta(name).map_or(Body::Text, Body::Type)
}

fn place(r: &'static Resource, path: String) -> Place<'static> {
    let tag = format!("{}_{}", render::tag(r.group), r.version);
    Place { path, tag, named: r.kind, kind: Some((r.group, r.version, r.kind)) }
}

/// `a Pod`, `an Ingress`, `Endpoints`
fn noun(kind: &str) -> String {
    let plural = kind.ends_with('s') && !kind.ends_with("ss");
    let vowel = kind.starts_with(['A', 'E', 'I', 'O', 'U']);
    match (plural, vowel) {
        (true, _) => kind.to_owned(),
        (false, true) => format!("an {kind}"),
        (false, false) => format!("a {kind}"),
    }
}
