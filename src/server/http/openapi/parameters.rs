//! Decides: the parameters of operations in the OpenAPI documents. Version 2 has each once, under `parameters`, and
//! refers to it (`kube-openapi/pkg/builder/parameters.go`); version 3 has it where it is used.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Map, Value, json};

use super::schemas::Dialect;

/// Parameters of query strings, by name.
pub type Names = &'static [&'static str];

pub const PRETTY: Names = &["pretty"];
pub const WRITE: Names = &["dryRun", "fieldManager", "fieldValidation", "pretty"];
pub const PATCH: Names = &["dryRun", "fieldManager", "fieldValidation", "force", "pretty"];
pub const LIST: Names = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
pub const DELETE: Names = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
];
pub const DELETE_COLLECTION: Names = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
];
pub const LOG: Names = &[
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "pretty",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
];
pub const EXEC: Names = &["command", "container", "stderr", "stdin", "stdout", "tty"];
pub const ATTACH: Names = &["container", "stderr", "stdin", "stdout", "tty"];
pub const PORT_FORWARD: Names = &["ports"];
pub const PROXY: Names = &["path"];

/// Name, type and what it is for.
const QUERY: [(&str, &str, &str); 35] = [
    (
        "allowWatchBookmarks",
        "boolean",
        "Whether a watch may send events of type BOOKMARK, which only carry a resourceVersion.",
    ),
    ("command", "string", "A word of the command line to run; given once for each word. No shell takes part."),
    ("container", "string", "The container of the pod. May be left out when there is only one."),
    ("continue", "string", "The token of the page before, to get the next one of the list. 410 when it is too old."),
    ("dryRun", "string", "With the value All nothing is stored: the request is admitted, validated and answered."),
    (
        "fieldManager",
        "string",
        "The name under which changed fields are recorded: 128 printable characters. Needed by server-side apply.",
    ),
    ("fieldSelector", "string", "Restricts the list to objects with these values of fields."),
    (
        "fieldValidation",
        "string",
        "What to do about fields that are unknown or given twice: Ignore, Warn or Strict. The default is Warn.",
    ),
    ("follow", "boolean", "Go on sending lines as they are written."),
    ("force", "boolean", "Take over fields that others own. Only for server-side apply."),
    (
        "gracePeriodSeconds",
        "integer",
        "How long the object may take to end, in seconds. Zero deletes at once; the default is that of its kind.",
    ),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Delete an object that cannot be read from the store, without finalizers and preconditions.",
    ),
    ("insecureSkipTLSVerifyBackend", "boolean", "Do not check the certificate of the node that the log comes from."),
    ("labelSelector", "string", "Restricts the list to objects with these labels."),
    ("limit", "integer", "The most objects of one page. The answer has a continue token when there are more."),
    ("limitBytes", "integer", "The most bytes of the log to send."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy. Whether dependents stay."),
    ("path", "string", "The path of the proxied request."),
    ("ports", "integer", "The ports to forward."),
    (
        "pretty",
        "string",
        "Whether the answer is indented. The default is true for browsers, curl and wget, else false.",
    ),
    ("previous", "boolean", "The log of the container that ran before this one."),
    ("propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground."),
    ("resourceVersion", "string", "How new the answer must be, or where a watch begins."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant by a list: Exact or NotOlderThan."),
    (
        "sendInitialEvents",
        "boolean",
        "A watch begins with an event for each object there is, and a bookmark after the last of them.",
    ),
    ("sinceSeconds", "integer", "Only lines that are not older than this, in seconds."),
    ("stderr", "boolean", "Whether the standard error of the process is sent."),
    ("stdin", "boolean", "Whether the standard input of the process is taken."),
    ("stdout", "boolean", "Whether the standard output of the process is sent."),
    ("stream", "string", "Which stream of the log: All, Stdout or Stderr."),
    ("tailLines", "integer", "Only so many of the last lines."),
    ("timeoutSeconds", "integer", "When a list or a watch ends, in seconds."),
    ("timestamps", "boolean", "Each line begins with its time (RFC 3339)."),
    ("tty", "boolean", "Whether the process has a terminal."),
    ("watch", "boolean", "Watch instead of listing."),
];

/// Renders parameters, and keeps those that version 2 shares.
pub struct Parameters {
    dialect: Dialect,
    pub shared: Map<String, Value>,
}

impl Parameters {
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, shared: Map::new() }
    }

    /// One of a query string.
    pub fn query(&mut self, name: &str) -> Value {
        let known = QUERY.iter().find(|(known, ..)| *known == name);
        let (name, kind, text) = known.copied().unwrap_or((name, "string", ""));
        let parameter = self.simple(name, "query", kind, text);
        // Old versions of kubectl look for these two where they are used.
        if matches!(name, "dryRun" | "fieldValidation") { parameter } else { self.share(name, parameter) }
    }

    /// One of a path.
    pub fn path(&mut self, name: &str, kind: &str) -> Value {
        let text = match name {
            "name" => format!("name of the {kind}"),
            "namespace" => "the namespace of the object".into(),
            _ => "the rest of the path, for what is behind the proxy".into(),
        };
        let mut parameter = self.simple(name, "path", "string", &text);
        parameter["required"] = true.into();
        // It says the kind.
        if name == "name" { parameter } else { self.share(name, parameter) }
    }

    /// What is sent, for version 2, where it is a parameter.
    pub fn body(&mut self, schema: &Value, required: bool, generic: bool) -> Value {
        let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
        if required {
            parameter["required"] = true.into();
        }
        if generic { self.share("body", parameter) } else { parameter }
    }

    fn simple(&self, name: &str, place: &str, kind: &str, text: &str) -> Value {
        let own = json!({"description": text, "in": place, "name": name});
        let of_value = json!({"type": kind, "uniqueItems": true});
        let (Value::Object(mut own), Value::Object(of_value)) = (own, of_value) else { return Value::Null };
        match self.dialect {
            Dialect::V2 => own.extend(of_value),
            Dialect::V3 => drop(own.insert("schema".into(), of_value.into())),
        }
        own.into()
    }

    fn share(&mut self, name: &str, parameter: Value) -> Value {
        if self.dialect == Dialect::V3 {
            return parameter;
        }
        let name = format!("{name}-{}", short_hash(&parameter.to_string()));
        let reference = json!({"$ref": format!("#/parameters/{name}")});
        self.shared.insert(name, parameter);
        reference
    }
}

/// FNV-1 of 64 bits, of which six bytes are eight letters.
fn short_hash(text: &str) -> String {
    let step = |hash: u64, byte| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    URL_SAFE.encode(&hash.to_be_bytes()[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known() {
        let sets = [PRETTY, WRITE, PATCH, LIST, DELETE, DELETE_COLLECTION, LOG, EXEC, ATTACH, PORT_FORWARD, PROXY];
        for name in sets.concat() {
            assert!(QUERY.iter().any(|(known, ..)| *known == name), "{name}");
        }
        assert!(QUERY.is_sorted_by_key(|(name, ..)| *name));
    }

    #[test]
    fn version_2_has_each_once() {
        let mut all = Parameters::new(Dialect::V2);
        let (first, again) = (all.query("limit"), all.query("limit"));
        assert_eq!(first, again);
        let name = first["$ref"].as_str().unwrap().strip_prefix("#/parameters/").unwrap().to_owned();
        assert_eq!((name.len(), all.shared[&name]["type"].as_str()), ("limit-12345678".len(), Some("integer")));
        assert_eq!(all.query("dryRun")["name"], "dryRun");
        assert_eq!(Parameters::new(Dialect::V3).query("limit")["schema"]["type"], "integer");
        // Of the algorithm's authors.
        assert_eq!(URL_SAFE.decode(short_hash("a")).unwrap(), 0xaf63_bd4c_8601_b7be_u64.to_be_bytes()[..6]);
    }
}
