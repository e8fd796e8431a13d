//! Decides: the query parameters of each verb, checked and worded as upstream's `ParameterCodec` and option validation.

use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::Value;

use crate::api::field::{FieldError, Path};
use crate::api::query::Query;
use crate::api::resource::Resource;
use crate::api::revision::Revision;
use crate::api::selector::{FieldSelector, LabelSelector};
use crate::api::status::{Cause, Details, Status};
use crate::server::registry::request::{
    DeleteOptions, FieldValidation, ListOptions, Preconditions, RevisionMatch, WriteOptions,
};

/// Longest `fieldManager`, in bytes.
const FIELD_MANAGER_MAX: usize = 128;

/// The verbs whose options have a name of their own in error messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Create,
    Update,
    Patch { apply: bool },
}

impl Write {
    fn kind(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Patch { .. } => "PatchOptions",
        }
    }
}

/// # Errors
/// 400 for values that do not parse, 422 for combinations that make no sense.
pub fn list(query: &Query, resource: &Resource, watch: bool) -> Result<ListOptions, Status> {
    let labels = LabelSelector::parse(query.first("labelSelector").unwrap_or_default())
        .map_err(|e| Status::bad_request(e.to_string()))?;
    let options = ListOptions {
        labels,
        fields: fields(query, resource)?,
        revision: revision(query)?,
        revision_match: None,
        limit: query.integer("limit").map_err(Status::bad_request)?.map_or(0, |n| u64::try_from(n).unwrap_or(0)),
        continue_token: query.first("continue").unwrap_or_default().to_owned(),
        bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
        send_initial_events: query.flag("sendInitialEvents"),
    };
    check_list(query, options, watch)
}

/// Lists and watches of a collection name objects by fields; only some fields can be named.
fn fields(query: &Query, resource: &Resource) -> Result<FieldSelector, Status> {
    let selector = FieldSelector::parse(query.first("fieldSelector").unwrap_or_default())
        .map_err(|e| Status::bad_request(e.to_string()))?;
    for term in &selector.0 {
        let common = term.field == "metadata.name" || (resource.namespaced && term.field == "metadata.namespace");
        if common || resource.selectable.contains(&term.field.as_str()) {
            continue;
        }
        return Err(Status::bad_request(if resource.selectable.is_empty() {
            let known = r#""metadata.name", "metadata.namespace""#;
            format!("{:?} is not a known field selector: only {known}", term.field)
        } else {
            format!("field label not supported: {}", term.field)
        }));
    }
    Ok(selector)
}

fn revision(query: &Query) -> Result<Option<Revision>, Status> {
    let Some(text) = query.first("resourceVersion").filter(|t| !t.is_empty()) else { return Ok(None) };
    Revision::parse(text).map(Some).map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        Status::bad_request(FieldError::invalid(&Path::new("resourceVersion"), &text, &why).to_string())
    })
}

/// `ValidateListOptions`.
fn check_list(query: &Query, mut options: ListOptions, watch: bool) -> Result<ListOptions, Status> {
    let path = Path::new("resourceVersionMatch");
    let text = query.first("resourceVersionMatch").unwrap_or_default();
    options.revision_match = match text {
        "" => None,
        "Exact" => Some(RevisionMatch::Exact),
        "NotOlderThan" => Some(RevisionMatch::NotOlderThan),
        other => {
            let error = FieldError::not_supported(&path, &other, &["Exact", "NotOlderThan", ""]);
            return Err(invalid("ListOptions", &[error]));
        }
    };
    let mut errors = Vec::new();
    let forbid = |errors: &mut Vec<FieldError>, path: &Path, why: &str| errors.push(FieldError::forbidden(path, why));
    if let Some(initial) = options.send_initial_events {
        if text.is_empty() {
            forbid(&mut errors, &path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if options.revision_match == Some(RevisionMatch::Exact) {
            let error = FieldError::not_supported(&path, &"Exact", &["NotOlderThan"]);
            errors.push(error);
        }
        if !watch {
            forbid(&mut errors, &Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
        } else if initial && !options.bookmarks {
            let path = Path::new("allowWatchBookmarks");
            forbid(&mut errors, &path, "sendInitialEvents requires setting allowWatchBookmarks to true");
        }
    } else if options.revision_match.is_some() {
        if watch {
            forbid(
                &mut errors,
                &path,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        } else if options.revision.is_none() {
            forbid(&mut errors, &path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !options.continue_token.is_empty() {
            forbid(&mut errors, &path, "resourceVersionMatch is forbidden when continue is provided");
        }
        if options.revision_match == Some(RevisionMatch::Exact) && options.revision == Some(Revision(0)) {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            forbid(&mut errors, &path, why);
        }
    }
    if errors.is_empty() { Ok(options) } else { Err(invalid("ListOptions", &errors)) }
}

/// # Errors
/// 422 as `ValidateCreateOptions` and its siblings.
pub fn write(query: &Query, headers: &HeaderMap, verb: Write) -> Result<WriteOptions, Status> {
    let mut errors = dry_run_errors(query.all("dryRun"));
    let manager = query.first("fieldManager").unwrap_or_default();
    let path = Path::new("fieldManager");
    if manager.len() > FIELD_MANAGER_MAX {
        errors.push(FieldError::too_long(&path, FIELD_MANAGER_MAX));
    }
    if manager.chars().any(char::is_control) {
        errors.push(FieldError::invalid(&path, &manager, "should only contain printable characters"));
    }
    let force = query.flag("force");
    match verb {
        Write::Patch { apply: true } if manager.is_empty() => {
            errors.push(FieldError::required(&path, "is required for apply patch"));
        }
        Write::Patch { apply: false } if force.is_some() => {
            errors.push(FieldError::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
        }
        _ => {}
    }
    let field_validation = match query.first("fieldValidation").unwrap_or_default() {
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => {
            let known = ["", "Ignore", "Strict", "Warn"];
            errors.push(FieldError::not_supported(&Path::new("fieldValidation"), &other, &known));
            FieldValidation::Warn
        }
    };
    if !errors.is_empty() {
        return Err(invalid(verb.kind(), &errors));
    }
    Ok(WriteOptions {
        dry_run: query.first("dryRun").is_some(),
        field_manager: if manager.is_empty() { agent_name(headers) } else { manager.into() },
        field_validation,
        force: force.unwrap_or(false),
        may_create: false,
    })
}

/// Who writes, when the client does not say: its user agent up to the first slash, printable, cut to the limit.
fn agent_name(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).take(FIELD_MANAGER_MAX).collect()
}

/// A delete's options come in the body; without a body, in the query. `body` is the decoded document.
///
/// # Errors
/// 400 for a document that is none, 422 for values that make no sense.
pub fn delete(query: &Query, body: Option<Value>) -> Result<DeleteOptions, Status> {
    let options = match body {
        Some(body) => from_body(body)?,
        None => DeleteOptions {
            grace_period_seconds: query.integer("gracePeriodSeconds").map_err(Status::bad_request)?,
            preconditions: None,
            orphan_dependents: query.flag("orphanDependents"),
            propagation_policy: query.first("propagationPolicy").map(str::to_owned),
            dry_run: query.all("dryRun").map(str::to_owned).collect(),
        },
    };
    let mut errors = dry_run_errors(options.dry_run.iter().map(String::as_str));
    if let Some(policy) = &options.propagation_policy {
        let path = Path::new("propagationPolicy");
        if options.orphan_dependents.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, policy, why));
        } else if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported(&path, policy, &known));
        }
    }
    if errors.is_empty() { Ok(options) } else { Err(invalid("DeleteOptions", &errors)) }
}

fn from_body(body: Value) -> Result<DeleteOptions, Status> {
    // Clients of every group send DeleteOptions in `v1` or in the group's own version.
    let kind = body.get("kind").and_then(Value::as_str).unwrap_or("DeleteOptions");
    if kind != "DeleteOptions" {
        let given = body.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        return Err(Status::bad_request(format!(
            "decoded object cannot be converted to DeleteOptions: {given}, Kind={kind}"
        )));
    }
    if let Some(text) = body.pointer("/preconditions/resourceVersion").and_then(Value::as_str)
        && Revision::parse(text).is_err()
    {
        return Err(Status::bad_request(format!("invalid precondition resourceVersion {text:?}")));
    }
    serde_json::from_value(body).map_err(|e| Status::bad_request(format!("unable to decode DeleteOptions: {e}")))
}

impl DeleteOptions {
    /// `uid` and `resourceVersion` that the object must still have.
    #[must_use]
    pub fn expects(&self) -> Option<&Preconditions> {
        self.preconditions.as_ref()
    }
}

fn dry_run_errors<'a>(values: impl Iterator<Item = &'a str>) -> Vec<FieldError> {
    let path = Path::new("dryRun");
    values.filter(|v| *v != "All").map(|v| FieldError::not_supported(&path, &v, &["All"])).collect()
}

/// 422 about options, which are a kind of `meta.k8s.io`.
fn invalid(kind: &str, errors: &[FieldError]) -> Status {
    let all: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    let list = if let [one] = all.as_slice() { one.clone() } else { format!("[{}]", all.join(", ")) };
    let causes = errors
        .iter()
        .map(|e| Cause { reason: e.reason.cause().into(), message: e.message.clone(), field: e.path.to_string() })
        .collect();
    let details = Details { group: "meta.k8s.io".into(), kind: kind.into(), causes, ..Details::default() };
    Status::new(422, "Invalid", format!("{kind}.meta.k8s.io \"\" is invalid: {list}")).with_details(details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource;

    fn listed(query: &str, watch: bool) -> Result<ListOptions, String> {
        let pods = resource::find("", "v1", "pods").expect("a row");
        list(&Query::parse(query), pods, watch).map_err(|s| format!("{} {}", s.code(), s.message()))
    }

    #[test]
    fn list_options_are_refused_in_upstreams_words() {
        let check = |query, watch, expect: &str| assert_eq!(listed(query, watch).unwrap_err(), expect, "{query}");
        check("limit=x", false, "400 strconv.ParseInt: parsing \"x\": invalid syntax");
        check("fieldSelector=spec.x%3D1", false, "400 field label not supported: spec.x");
        check(
            "resourceVersionMatch=Exact",
            false,
            "422 ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden \
             unless resourceVersion is provided",
        );
        check(
            "sendInitialEvents=true&allowWatchBookmarks=true",
            true,
            "422 ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
             resourceVersionMatch to NotOlderThan",
        );
        let streaming = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(listed(streaming, true).expect("valid").send_initial_events, Some(true));
    }

    #[test]
    fn write_options_are_refused_in_upstreams_words() {
        let check = |query, verb, expect: &str| {
            let refused = write(&Query::parse(query), &HeaderMap::new(), verb).unwrap_err();
            assert_eq!(refused.message(), expect, "{query}");
        };
        check(
            "dryRun=Some",
            Write::Create,
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"Some\": supported values: \"All\"",
        );
        check(
            "force=true",
            Write::Patch { apply: false },
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        );
        check(
            "",
            Write::Patch { apply: true },
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        );
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, "kubectl/v1.36.0 (linux/amd64)".parse().expect("a header"));
        assert_eq!(write(&Query::default(), &headers, Write::Update).expect("valid").field_manager, "kubectl");
    }

    #[test]
    fn delete_options_come_from_body_or_query() {
        let query = Query::parse("gracePeriodSeconds=0&propagationPolicy=Orphan");
        let options = delete(&query, None).expect("valid");
        assert_eq!((options.grace_period_seconds, options.propagation_policy.as_deref()), (Some(0), Some("Orphan")));
        let body = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "u"}});
        let options = delete(&query, Some(body)).expect("valid");
        assert_eq!(options.grace_period_seconds, None, "the query is ignored when there is a body");
        assert_eq!(options.expects().and_then(|p| p.uid.as_deref()), Some("u"));
        assert_eq!(delete(&Query::parse("propagationPolicy=No"), None).unwrap_err().code(), 422);
        assert_eq!(delete(&query, Some(serde_json::json!({"kind": "Pod"}))).unwrap_err().code(), 400);
    }
}
