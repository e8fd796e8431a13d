//! Decides: the query parameters of each verb, checked and worded as upstream's `ParameterCodec` and option validation.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::Value;

use crate::api::field::{FieldError, Path};
use crate::api::query::Query;
use crate::api::resource::Resource;
use crate::api::revision::Revision;
use crate::api::selector::{FieldSelector, LabelSelector};
use crate::api::status::Status;
use crate::server::registry::request::{
    DeleteOptions, FieldValidation, ListOptions, Preconditions, RevisionMatch, WriteOptions,
};

/// Longest `fieldManager`, in bytes.
const FIELD_MANAGER_MAX: usize = 128;
const NOT_OLDER_THAN: &str = "NotOlderThan";

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
    let selector = FieldSelector::parse(query.first("fieldSelector").unwrap_or_default())
        .map_err(|e| Status::bad_request(e.to_string()))?;
    let limit = query.integer("limit").map_err(Status::bad_request)?;
    let mut options = ListOptions {
        labels,
        fields: FieldSelector::default(),
        revision: None,
        revision_match: None,
        limit: limit.map_or(0, |n| u64::try_from(n).unwrap_or(0)),
        continue_token: query.first("continue").unwrap_or_default().to_owned(),
        bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
        lasts: None,
        send_initial_events: query.flag("sendInitialEvents"),
    };
    let revision = query.first("resourceVersion").unwrap_or_default();
    let mut matching = query.first("resourceVersionMatch").unwrap_or_default();
    // As when there were no other ways to begin: with what is there (`SetListOptionsDefaults`).
    if watch && options.send_initial_events.is_none() && matching.is_empty() && matches!(revision, "" | "0") {
        options.send_initial_events = Some(true);
        matching = NOT_OLDER_THAN;
    }
    let errors = if watch { watch_errors(&options, matching) } else { list_errors(&options, revision, matching) };
    if !errors.is_empty() {
        return Err(Status::invalid_options("ListOptions", &errors));
    }
    options.revision_match = match matching {
        "Exact" => Some(RevisionMatch::Exact),
        NOT_OLDER_THAN => Some(RevisionMatch::NotOlderThan),
        _ => None,
    };
    options.fields = fields(selector, resource)?;
    options.revision = match revision {
        "" => None,
        // Refused, whatever it is, once the token has been read.
        _ if !watch && !options.continue_token.is_empty() && revision != "0" => Some(Revision(1)),
        text => Some(self::revision(text).map_err(|why| {
            let message = format!("resourceVersion: Invalid value: {text:?}: {why}");
            if watch {
                // Nobody classifies this one upstream.
                Status::new(500, "", message)
            } else {
                Status::bad_request(format!("invalid resource version: {message}"))
            }
        })?),
    };
    Ok(options)
}

/// Lists and watches of a collection name objects by fields; only some fields can be named.
fn fields(mut selector: FieldSelector, resource: &Resource) -> Result<FieldSelector, Status> {
    for term in &mut selector.0 {
        let stored = resource.selected(&term.field).map(Cow::into_owned);
        term.field = stored.ok_or_else(|| Status::bad_request(resource.not_selected(&term.field)))?;
    }
    Ok(selector)
}

/// In Go's words when it is no revision.
fn revision(text: &str) -> Result<Revision, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let why = if digits { "value out of range" } else { "invalid syntax" };
    if digits { Revision::parse(text).ok() } else { None }
        .ok_or_else(|| format!("strconv.ParseUint: parsing {text:?}: {why}"))
}

/// The `resourceVersion` of a GET: the answer must not be older.
///
/// # Errors
/// When it is none.
pub fn get(query: &Query) -> Result<Option<Revision>, Status> {
    let Some(text) = query.first("resourceVersion").filter(|t| !t.is_empty()) else { return Ok(None) };
    let wrong = |why| Status::new(500, "", format!("resourceVersion: Invalid value: {text:?}: {why}"));
    revision(text).map(Some).map_err(wrong)
}

/// `ValidateListOptions`, of a list.
fn list_errors(options: &ListOptions, revision: &str, matching: &str) -> Vec<FieldError> {
    let path = Path::new("resourceVersionMatch");
    let mut errors = Vec::new();
    let mut forbid = |path: &Path, why: &str| errors.push(FieldError::forbidden(path, why));
    if !matching.is_empty() {
        if revision.is_empty() {
            forbid(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !options.continue_token.is_empty() {
            forbid(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
        if !matches!(matching, "Exact" | NOT_OLDER_THAN) {
            errors.push(FieldError::not_supported(&path, &matching, &["Exact", NOT_OLDER_THAN, ""]));
        }
        if matching == "Exact" && revision == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    if options.send_initial_events.is_some() {
        let why = "sendInitialEvents is forbidden for list";
        errors.push(FieldError::forbidden(&Path::new("sendInitialEvents"), why));
    }
    errors
}

/// `validateWatchOptions`
fn watch_errors(options: &ListOptions, matching: &str) -> Vec<FieldError> {
    let path = Path::new("resourceVersionMatch");
    let mut errors = Vec::new();
    if options.send_initial_events.is_some() && matching != NOT_OLDER_THAN {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(&path, why));
    }
    if !matching.is_empty() {
        if options.send_initial_events.is_none() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
        if matching != NOT_OLDER_THAN {
            errors.push(FieldError::not_supported(&path, &matching, &[NOT_OLDER_THAN]));
        }
        if !options.continue_token.is_empty() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    errors
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
        return Err(Status::invalid_options(verb.kind(), &errors));
    }
    Ok(WriteOptions {
        dry_run: query.first("dryRun").is_some(),
        field_manager: if manager.is_empty() { agent_name(headers) } else { manager.into() },
        names_manager: !manager.is_empty(),
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
            ignore_store_read_error: query.flag("ignoreStoreReadErrorWithClusterBreakingPotential"),
        },
    };
    options.check()?;
    Ok(options)
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
        let refused = |query: &str| delete(&Query::parse(query), None).unwrap_err().message().to_owned();
        assert_eq!(
            refused("propagationPolicy=No"),
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"No\": supported values: \
             \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
        );
        assert_eq!(
            refused("ignoreStoreReadErrorWithClusterBreakingPotential=true&gracePeriodSeconds=0"),
            "DeleteOptions.meta.k8s.io \"\" is invalid: ignoreStoreReadErrorWithClusterBreakingPotential: Invalid value: \
             true: cannot be set together with .gracePeriodSeconds",
        );
        assert_eq!(delete(&query, Some(serde_json::json!({"kind": "Pod"}))).unwrap_err().code(), 400);
    }
}
