//! Decides: the paths of the OpenAPI documents: which operations each resource has, with what parameters and bodies.
//! `kubectl` looks at the parameters of PATCH to learn whether the server validates and can dry-run.

use serde_json::{Map, Value, json};

use super::schemas::{Dialect, meta};
use crate::api::resource::{
    CREATE, DELETE, DELETE_COLLECTION, GET, LIST, PATCH, RESOURCES, Resource, Subresource, UPDATE,
};
use crate::api::schema::{self, Type};

type Kind = (&'static str, &'static str, &'static str);

const BODIES: [&str; 2] = ["application/json", "application/yaml"];
const PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// The paths of some group versions, and the types that they speak of.
pub fn paths(groups: &[(&'static str, &'static str)], dialect: Dialect) -> (Map<String, Value>, Vec<&'static Type>) {
    let mut out = Paths { dialect, paths: Map::new(), used: Vec::new() };
    for r in RESOURCES.iter().filter(|r| groups.contains(&(r.group, r.version))) {
        out.resource(r);
    }
    (out.paths, out.used)
}

struct Paths {
    dialect: Dialect,
    paths: Map<String, Value>,
    used: Vec<&'static Type>,
}

/// One operation, before it is written in a dialect.
struct Operation<'a> {
    method: &'a str,
    /// `x-kubernetes-action`
    action: &'a str,
    verb: &'a str,
    /// Query parameters: name and type.
    query: &'a [(&'a str, &'a str)],
    body: Option<&'static Type>,
    answer: Option<&'static Type>,
}

const WRITE: [(&str, &str); 4] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("pretty", "string")];
const PATCH_QUERY: [(&str, &str); 5] = [
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
    ("pretty", "string"),
];
const LIST_QUERY: [(&str, &str); 11] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("pretty", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const DELETE_QUERY: [(&str, &str); 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("pretty", "string"),
    ("propagationPolicy", "string"),
];
const READ: [(&str, &str); 1] = [("pretty", "string")];

impl Paths {
    fn resource(&mut self, r: &'static Resource) {
        let kind: Kind = (r.group, r.version, r.kind);
        let own = schema::of(r);
        let list = schema::find(r.group, r.version, &format!("{}List", r.kind));
        let (status, options) = (meta("Status"), meta("DeleteOptions"));
        let placeholder = if r.namespaced { Some("{namespace}") } else { None };
        let collection = r.path(placeholder);
        let mut of_collection = Vec::new();
        let mut of_item = Vec::new();
        let op = |method, action, verb, query, body, answer| Operation { method, action, verb, query, body, answer };
        if r.has(LIST) {
            of_collection.push(op("get", "list", "list", &LIST_QUERY[..], None, list));
        }
        if r.has(CREATE) {
            of_collection.push(op("post", "post", "create", &WRITE, own, own));
        }
        if r.has(DELETE_COLLECTION) {
            of_collection.push(op("delete", "deletecollection", "deleteCollection", &DELETE_QUERY, options, status));
        }
        if r.has(GET) {
            of_item.push(op("get", "get", "read", &READ, None, own));
        }
        if r.has(UPDATE) {
            of_item.push(op("put", "put", "replace", &WRITE, own, own));
        }
        if r.has(PATCH) {
            of_item.push(op("patch", "patch", "patch", &PATCH_QUERY, meta("Patch"), own));
        }
        if r.has(DELETE) {
            of_item.push(op("delete", "delete", "delete", &DELETE_QUERY, options, status));
        }
        if r.namespaced && r.has(LIST) {
            let all = [op("get", "list", "list", &LIST_QUERY, None, list)];
            self.path(&r.path(None), r, "ForAllNamespaces", kind, &all);
        }
        self.path(&collection, r, "", kind, &of_collection);
        self.path(&format!("{collection}/{{name}}"), r, "", kind, &of_item);
        for s in r.subresources {
            self.subresource(r, s, &collection);
        }
    }

    /// Only subresources whose bodies are objects; streams have no schema.
    fn subresource(&mut self, r: &'static Resource, s: &'static Subresource, collection: &str) {
        let Some(own) = schema::find(s.group, s.version, s.kind) else { return };
        let mut all = Vec::new();
        let op = |method, action, verb, query, body| Operation { method, action, verb, query, body, answer: Some(own) };
        if s.verbs & GET != 0 {
            all.push(op("get", "get", "read", &READ[..], None));
        }
        if s.verbs & CREATE != 0 {
            all.push(op("post", "post", "create", &WRITE, Some(own)));
        }
        if s.verbs & UPDATE != 0 {
            all.push(op("put", "put", "replace", &WRITE, Some(own)));
        }
        if s.verbs & PATCH != 0 {
            all.push(op("patch", "patch", "patch", &PATCH_QUERY, meta("Patch")));
        }
        let suffix = camel(s.name);
        let kind = (s.group, s.version, s.kind);
        self.path(&format!("{collection}/{{name}}/{}", s.name), r, &suffix, kind, &all);
    }

    fn path(&mut self, path: &str, r: &Resource, suffix: &str, kind: Kind, operations: &[Operation<'_>]) {
        if operations.is_empty() {
            return;
        }
        let mut item = Map::new();
        let variables = ["namespace", "name"].into_iter().filter(|v| path.contains(&format!("{{{v}}}")));
        let variables: Vec<Value> = variables.map(|v| self.parameter(v, "path", "string")).collect();
        if !variables.is_empty() {
            item.insert("parameters".into(), variables.into());
        }
        for o in operations {
            item.insert(o.method.into(), self.operation(o, r, suffix, kind, path));
        }
        self.paths.insert(path.to_owned(), item.into());
    }

    fn operation(&mut self, o: &Operation<'_>, r: &Resource, suffix: &str, kind: Kind, path: &str) -> Value {
        self.used.extend(o.body);
        self.used.extend(o.answer);
        let group = group_name(r.group);
        let scope = if path.contains("{namespace}") { "Namespaced" } else { "" };
        let (verb, collection) = match o.verb {
            "deleteCollection" => ("delete", "Collection"),
            verb => (verb, ""),
        };
        let version = camel(r.version);
        let mut parameters: Vec<Value> = o.query.iter().map(|(n, t)| self.parameter(n, "query", t)).collect();
        let codes: &[&str] = match o.action {
            "post" => &["200", "201", "202"],
            "put" | "patch" => &["200", "201"],
            "delete" => &["200", "202"],
            _ => &["200"],
        };
        let mut out = json!({
            "operationId": format!("{verb}{group}{version}{collection}{scope}{}{suffix}", r.kind),
            "tags": [format!("{}_{}", group[..1].to_lowercase() + &group[1..], r.version)],
            "x-kubernetes-action": o.action,
            "x-kubernetes-group-version-kind": {"group": kind.0, "version": kind.1, "kind": kind.2},
            "responses": self.responses(codes, o.answer),
        });
        let consumes: &[&str] = if o.action == "patch" { &PATCHES } else { &BODIES };
        // A patch is any JSON.
        let body = match (o.body, o.action) {
            (Some(t), _) => Some(self.dialect.reference(t.name)),
            (None, "patch") => Some(json!({"type": "object"})),
            (None, _) => None,
        };
        match (body, self.dialect) {
            (None, _) => {}
            (Some(schema), Dialect::V3) => out["requestBody"] = json!({"content": content(consumes, &schema)}),
            (Some(schema), Dialect::V2) => {
                out["consumes"] = consumes.into();
                parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
            }
        }
        if self.dialect == Dialect::V2 {
            out["produces"] = BODIES.as_slice().into();
        }
        out["parameters"] = parameters.into();
        out
    }

    fn parameter(&self, name: &str, place: &str, kind: &str) -> Value {
        let mut out = json!({"name": name, "in": place});
        if place == "path" {
            out["required"] = true.into();
        }
        match self.dialect {
            Dialect::V3 => out["schema"] = json!({"type": kind, "uniqueItems": true}),
            Dialect::V2 => {
                out["type"] = kind.into();
                out["uniqueItems"] = true.into();
            }
        }
        out
    }

    fn responses(&self, codes: &[&str], answer: Option<&'static Type>) -> Value {
        let describe = |code: &str| match code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        let mut out: Map<String, Value> = Map::new();
        for code in codes {
            let mut response = json!({"description": describe(code)});
            if let Some(t) = answer {
                let schema = self.dialect.reference(t.name);
                match self.dialect {
                    Dialect::V3 => response["content"] = content(&BODIES, &schema),
                    Dialect::V2 => response["schema"] = schema,
                }
            }
            out.insert((*code).into(), response);
        }
        out.insert("401".into(), json!({"description": "Unauthorized"}));
        out.into()
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    let all: Map<String, Value> = types.iter().map(|t| ((*t).into(), json!({"schema": schema}))).collect();
    all.into()
}

/// `RbacAuthorization` of `rbac.authorization.k8s.io`.
fn group_name(group: &str) -> String {
    match group.trim_end_matches(".k8s.io") {
        "" => "Core".into(),
        short => short.split('.').map(camel).collect(),
    }
}

fn camel(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
