//! Effects: admission of connections: webhooks and policies may refuse that someone runs something in a pod. What they
//! see is what the client asked for, as the API would write it.

use serde_json::{Value, json};

use super::service::Call;
use crate::api::query::Query;
use crate::api::resource;
use crate::api::status::Status;
use crate::server::registry::request::Target;

/// # Errors
/// The refusal.
pub(super) async fn connection(call: &Call<'_>) -> Result<(), Status> {
    let info = call.info;
    let resource = resource::find(&info.group, &info.version, &info.resource).ok_or_else(Status::no_such_resource)?;
    let row = resource.subresource(&info.subresource).ok_or_else(Status::no_such_resource)?;
    let target = Target { resource, namespace: info.namespace.clone(), name: info.name.clone(), subresource: row.name };
    call.backend.registry.admit_connection(call.cx, &target, options(row.kind, call.query)).await
}

/// `PodExecOptions` and its siblings. Fields that are not asked for are left out.
fn options(kind: &str, query: &Query) -> Value {
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if query.flag(flag).unwrap_or(false) {
            options[flag] = true.into();
        }
    }
    for text in ["container", "path"] {
        if let Some(given) = query.first(text).filter(|t| !t.is_empty()) {
            options[text] = given.into();
        }
    }
    let command: Vec<&str> = query.all("command").collect();
    if !command.is_empty() {
        options["command"] = command.into();
    }
    let ports: Vec<i64> = query.all("ports").filter_map(|p| p.parse().ok()).collect();
    if !ports.is_empty() {
        options["ports"] = ports.into();
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_that_were_asked_for() {
        for (kind, query, expect) in [
            (
                "PodExecOptions",
                "command=sh&command=-c&stdin=true&stdout=1&tty=false&container=c",
                json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["sh", "-c"], "stdin": true,
                       "stdout": true, "container": "c"}),
            ),
            (
                "PodPortForwardOptions",
                "ports=80&ports=443",
                json!({"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": [80, 443]}),
            ),
        ] {
            assert_eq!(options(kind, &Query::parse(query)), expect);
        }
    }
}
