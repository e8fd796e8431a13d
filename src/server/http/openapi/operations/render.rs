//! Decides: how one path is written in a dialect: what its operations have in common stands beside them.

use serde_json::{Map, Value, json};

use super::{Body, Media, Operation, Place, Writer};
use crate::server::http::openapi::schemas::{Dialect, META, PATCH};

const OBJECTS: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const LISTS: [&str; 5] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const LOGS: [&str; 4] = ["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const CUSTOM: [&str; 2] = ["application/json", "application/yaml"];
const ANY: [&str; 1] = ["*/*"];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
/// By this kubectl knows that a custom resource takes no strategic patches.
const PATCHES_OF_CUSTOM: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

impl Writer {
    pub(super) fn path(&mut self, place: &Place<'_>, operations: Vec<Operation>) {
        let Some(first) = operations.first() else { return };
        let everywhere = |name: &&&str| operations.iter().all(|o| o.query.contains(name));
        let common: Vec<&str> = first.query.iter().filter(everywhere).copied().collect();
        let variables = ["name", "namespace", "path"].into_iter().filter(|v| place.path.contains(&format!("{{{v}}}")));
        let mut parameters: Vec<(&str, Value)> = Vec::new();
        for variable in variables {
            parameters.push((variable, self.parameters.path(variable, place.named)));
        }
        for name in &common {
            parameters.push((name, self.parameters.query(name)));
        }
        // By name; of two with one name that of the path is first.
        parameters.sort_by_key(|(name, _)| *name);
        let parameters: Vec<Value> = parameters.into_iter().map(|(_, p)| p).collect();
        let mut item = Map::new();
        if !parameters.is_empty() {
            item.insert("parameters".into(), parameters.into());
        }
        for o in operations {
            item.insert(o.method.into(), self.operation(&o, place, &common));
        }
        self.out.paths.insert(place.path.clone(), Value::Object(item).to_string());
    }

    fn operation(&mut self, o: &Operation, place: &Place<'_>, common: &[&str]) -> Value {
        for body in o.body.iter().chain([&o.answer]) {
            let name = match body {
                Body::Type(t) => t.name,
                Body::Patch => PATCH,
                Body::Custom(_) | Body::Text => continue,
            };
            self.out.used.insert(name);
        }
        let mut out = json!({
            "description": o.about, "operationId": o.id, "tags": [place.tag],
            "responses": self.responses(o),
        });
        if !o.action.is_empty() {
            out["x-kubernetes-action"] = o.action.into();
        }
        if let Some((group, version, kind)) = place.kind {
            out["x-kubernetes-group-version-kind"] = json!({"group": group, "version": version, "kind": kind});
        }
        let mut parameters = Vec::new();
        // A body is the first by name.
        if let Some(body) = &o.body {
            let schema = self.schema(body);
            let required = !matches!(o.action, "delete" | "deletecollection");
            match self.dialect {
                Dialect::V2 => {
                    let generic = match body {
                        Body::Type(t) => t.name.starts_with(META),
                        Body::Patch => true,
                        Body::Custom(_) | Body::Text => false,
                    };
                    parameters.push(self.parameters.body(&schema, required, generic));
                }
                Dialect::V3 => {
                    out["requestBody"] = json!({"content": content(consumed(o), &schema)});
                    if required {
                        out["requestBody"]["required"] = true.into();
                    }
                }
            }
        }
        for name in o.query.iter().filter(|name| !common.contains(name)) {
            parameters.push(self.parameters.query(name));
        }
        if !parameters.is_empty() {
            out["parameters"] = parameters.into();
        }
        if self.dialect == Dialect::V2 {
            out["schemes"] = json!(["https"]);
            out["consumes"] = consumed(o).into();
            out["produces"] = produced(o).into();
        }
        out
    }

    fn responses(&self, o: &Operation) -> Value {
        let codes: &[(&str, &str)] = match (o.action, o.media) {
            ("post", _) => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            ("patch", Media::Custom) => &[("200", "OK")],
            ("put" | "patch", _) => &[("200", "OK"), ("201", "Created")],
            ("delete", _) => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        };
        let schema = self.schema(&o.answer);
        let mut out: Map<String, Value> = Map::new();
        for (code, text) in codes {
            let response = match self.dialect {
                Dialect::V3 => json!({"description": text, "content": content(produced(o), &schema)}),
                Dialect::V2 => json!({"description": text, "schema": schema}),
            };
            out.insert((*code).into(), response);
        }
        out.insert("401".into(), json!({"description": "Unauthorized"}));
        out.into()
    }

    fn schema(&self, body: &Body) -> Value {
        match body {
            Body::Type(t) => self.dialect.reference(t.name),
            Body::Custom(name) => self.dialect.reference(name),
            Body::Patch => self.dialect.reference(PATCH),
            Body::Text => json!({"type": "string"}),
        }
    }
}

fn consumed(o: &Operation) -> &'static [&'static str] {
    match (o.action, o.media) {
        ("patch", Media::Custom) => &PATCHES_OF_CUSTOM,
        ("patch", Media::Object) => &PATCHES,
        (_, Media::Custom) => &CUSTOM,
        (_, Media::Discovery) => &OBJECTS,
        _ => &ANY,
    }
}

fn produced(o: &Operation) -> &'static [&'static str] {
    match o.media {
        Media::Object | Media::Discovery => &OBJECTS,
        Media::List => &LISTS,
        Media::Log => &LOGS,
        Media::Stream => &ANY,
        Media::Custom => &CUSTOM,
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    let all: Map<String, Value> = types.iter().map(|t| ((*t).into(), json!({"schema": schema}))).collect();
    all.into()
}

/// `RbacAuthorization` of `rbac.authorization.k8s.io`.
pub(super) fn group_name(group: &str) -> String {
    match group.trim_end_matches(".k8s.io") {
        "" => "Core".into(),
        short => short.split('.').map(camel).collect(),
    }
}

/// `rbacAuthorization`
pub(super) fn tag(group: &str) -> String {
    let name = group_name(group);
    name[..1].to_lowercase() + &name[1..]
}

pub(super) fn camel(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
