//! Decides: what a request is about, from its method, path and query alone, as upstream's `RequestInfoFactory` does.
//! Authorization judges exactly this, so it is decided before anything is looked up.

use std::borrow::Cow;

use http::Method;

use crate::api::query::{self, Query};
use crate::api::selector::FieldSelector;

/// Upstream's `RequestInfo`. Everything after `verb` is empty for a path that names no resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Decoded path.
    pub path: String,
    /// `get`, `list`, `watch`, `create`…; the method in lower case for other paths.
    pub verb: Cow<'static, str>,
    pub is_resource: bool,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    /// Also filled on a list whose field selector names one object, so that authorization can be that narrow.
    pub name: String,
    /// The selector of a list, watch or deletecollection, when it can be read.
    pub fields: Option<FieldSelector>,
    /// The name came from the path.
    pub named: bool,
    /// Path segments beyond the subresource (`nodes/x/proxy/…`).
    pub rest: Vec<String>,
}

impl RequestInfo {
    #[must_use]
    pub fn parse(method: &Method, raw_path: &str, query: &Query) -> Self {
        let path = query::decode(raw_path, false).unwrap_or_else(|| raw_path.to_owned());
        let mut info = Self { verb: method.as_str().to_ascii_lowercase().into(), ..Self::default() };
        info.read_path(method, &path, query);
        info.path = path;
        info
    }

    fn read_path(&mut self, method: &Method, path: &str, query: &Query) {
        let trimmed = path.trim_matches('/');
        let all: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        let parts = match all.as_slice() {
            ["api", rest @ ..] if rest.len() >= 2 => rest,
            ["apis", group, rest @ ..] if rest.len() >= 2 => {
                self.group = (*group).into();
                rest
            }
            _ => return,
        };
        self.is_resource = true;
        self.version = parts[0].into();
        self.verb = Cow::Borrowed(match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        });
        // The older way to ask for a watch, of a collection or of one object.
        if let ["watch", rest @ ..] = &parts[1..]
            && !rest.is_empty()
        {
            self.verb = Cow::Borrowed("watch");
            self.read_resource(rest);
            return;
        }
        self.read_resource(&parts[1..]);
        if self.name.is_empty() {
            self.collection_verb(query);
        }
    }

    /// `namespaces/x/pods/y/log`; but `namespaces/x`, `namespaces/x/status` and `namespaces/x/finalize` are about
    /// the namespace, whose requests carry its own name as their namespace.
    fn read_resource(&mut self, mut parts: &[&str]) {
        if let ["namespaces", namespace, rest @ ..] = parts {
            self.namespace = (*namespace).into();
            if rest.first().is_some_and(|r| !matches!(*r, "status" | "finalize")) {
                parts = rest;
            }
        }
        let segment = |i: usize| parts.get(i).copied().unwrap_or_default().to_owned();
        (self.resource, self.name, self.subresource) = (segment(0), segment(1), segment(2));
        self.named = !self.name.is_empty();
        self.rest = parts.iter().skip(3).map(|p| (*p).to_owned()).collect();
    }

    fn collection_verb(&mut self, query: &Query) {
        if self.verb == "get" || self.verb == "delete" {
            self.fields = query.first("fieldSelector").and_then(|text| FieldSelector::parse(text).ok());
        }
        match &*self.verb {
            "get" => {
                let watch = query.flag("watch").unwrap_or(false);
                self.verb = Cow::Borrowed(if watch { "watch" } else { "list" });
                let name = self.fields.as_ref().and_then(|s| s.exact("metadata.name"));
                if let Some(name) = name.filter(|n| !n.is_empty() && !n.contains(['/', '%']) && *n != "." && *n != "..")
                {
                    self.name = name.to_owned();
                }
            }
            "delete" => self.verb = Cow::Borrowed("deletecollection"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verb group/version namespace resource name subresource`, or `verb path` for other paths.
    fn check(method: Method, uri: &str, expect: &str) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let i = RequestInfo::parse(&method, path, &Query::parse(query));
        let found = if i.is_resource {
            format!(
                "{} {}/{} {:?} {} {:?} {:?}",
                i.verb, i.group, i.version, i.namespace, i.resource, i.name, i.subresource
            )
        } else {
            format!("{} {}", i.verb, i.path)
        };
        assert_eq!(found, expect, "{uri}");
    }

    #[test]
    fn as_upstream_reads_paths() {
        use Method as M;
        check(M::GET, "/api/v1/namespaces", r#"list /v1 "" namespaces "" """#);
        check(M::GET, "/api/v1/namespaces/other", r#"get /v1 "other" namespaces "other" """#);
        check(M::PUT, "/api/v1/namespaces/other/finalize", r#"update /v1 "other" namespaces "other" "finalize""#);
        check(M::PUT, "/api/v1/namespaces/other/status", r#"update /v1 "other" namespaces "other" "status""#);
        check(M::GET, "/api/v1/namespaces/other/pods", r#"list /v1 "other" pods "" """#);
        check(M::HEAD, "/api/v1/namespaces/other/pods/foo", r#"get /v1 "other" pods "foo" """#);
        check(M::GET, "/api/v1/pods?watch", r#"watch /v1 "" pods "" """#);
        check(M::GET, "/api/v1/pods?watch=0", r#"list /v1 "" pods "" """#);
        check(
            M::GET,
            "/api/v1/namespaces/a/pods?watch=1&fieldSelector=metadata.name%3Db",
            r#"watch /v1 "a" pods "b" """#,
        );
        check(M::GET, "/api/v1/namespaces/a/pods/b?watch=1", r#"get /v1 "a" pods "b" """#);
        check(M::DELETE, "/apis/apps/v1/namespaces/a/deployments", r#"deletecollection apps/v1 "a" deployments "" """#);
        check(M::DELETE, "/apis/apps/v1/namespaces/a/deployments/b", r#"delete apps/v1 "a" deployments "b" """#);
        check(M::POST, "/api/v1/namespaces/a/pods/b/exec?command=ls", r#"create /v1 "a" pods "b" "exec""#);
        check(
            M::PATCH,
            "/apis/apps/v1/namespaces/a/deployments/b/scale",
            r#"patch apps/v1 "a" deployments "b" "scale""#,
        );
        check(M::GET, "/api/v1/nodes/n/proxy/metrics", r#"get /v1 "" nodes "n" "proxy""#);
        check(M::GET, "/api/v1/watch/nodes", r#"watch /v1 "" nodes "" """#);
        check(M::GET, "/api/v1/watch/namespaces/a/pods/b", r#"watch /v1 "a" pods "b" """#);
        check(M::GET, "/apis/apps/v1/watch/namespaces/a/deployments", r#"watch apps/v1 "a" deployments "" """#);
        check(M::GET, "/api/v1/nodes/n/proxy", r#"get /v1 "" nodes "n" "proxy""#);
        check(M::POST, "/api/v1/namespaces/a/pods/b:80/proxy/x", r#"create /v1 "a" pods "b:80" "proxy""#);
        check(M::OPTIONS, "/api/v1/nodes", r#" /v1 "" nodes "" """#);
        check(M::GET, "/apis/apps/v1", "get /apis/apps/v1");
        check(M::GET, "/api/v1", "get /api/v1");
        check(M::GET, "/", "get /");
        check(M::POST, "/healthz", "post /healthz");
        check(M::GET, "/openapi/v3/apis/apps/v1", "get /openapi/v3/apis/apps/v1");
    }
}
