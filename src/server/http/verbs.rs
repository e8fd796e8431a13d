//! Effects: the verbs on objects: takes a request apart, calls the registry, writes the answer.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::Value;

use super::body::{self, Body, Parts};
use super::negotiate::{Encoding, Offer, negotiate};
use super::options::{self, Write};
use super::render::Renderer;
use super::service::Call;
use super::{nodes, proxy, respond, reviews, turn, usage, watch};
use crate::api::decode::{self, Expected};
use crate::api::object::Object;
use crate::api::patch;
use crate::api::resource::{self, Subresource, VERBS};
use crate::api::status::Status;
use crate::api::table::Include;
use crate::clock;
use crate::server::authz;
use crate::server::flow::Turn;
use crate::server::registry::request::{
    APPLY_PATCH, Deleted, FieldValidation, JSON_PATCH, List, MERGE_PATCH, Patch, STRATEGIC_PATCH, Target, Written,
};

/// Kinds whose delete answers with the object instead of a Status, as upstream's storage of them says.
const RETURN_DELETED: [&str; 7] = [
    "pods",
    "services",
    "serviceaccounts",
    "persistentvolumes",
    "persistentvolumeclaims",
    "podtemplates",
    "resourcequotas",
];

/// Everything that ends by itself.
pub(super) async fn run(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let target = target(call)?;
    let row = target.resource.subresource(target.subresource);
    check_verb(call, &target, row)?;
    if target.resource.group == resource::MEASURED_GROUP {
        return usage::run(call, &target).await;
    }
    if target.resource.storage.is_empty() {
        return reviews::run(call, &target, body).await;
    }
    if target.subresource == "token" {
        return reviews::token(call, &target, body).await;
    }
    match &*call.info.verb {
        "get" => {
            let renderer = renderer(call, &target, row, Offer::Objects)?;
            options::get(call.query)?.map_or(Ok(()), |at| call.backend.registry.check_fresh(at))?;
            let object = call.backend.registry.get(call.cx, &target).await?;
            one(StatusCode::OK, &renderer, &object)
        }
        "list" => list(call, &target).await,
        "create" => create(call, &target, row, body).await,
        "update" => update(call, &target, row, body).await,
        "patch" => apply(call, &target, row, body).await,
        "delete" => delete(call, &target, body).await,
        "deletecollection" => delete_collection(call, &target, body).await,
        _ => Err(not_allowed()),
    }
}

/// Watches, logs and streams. `turn` is that of a watch, which it has until it is under way.
pub(super) async fn stream(
    call: &Call<'_>,
    request: Request<Body>,
    turn: Option<Turn>,
) -> Result<Response<Body>, Status> {
    if !call.info.is_resource {
        return Err(Status::no_such_resource());
    }
    let target = target(call)?;
    check_verb(call, &target, target.resource.subresource(target.subresource))?;
    match target.subresource {
        "" => {
            let (renderer, format) = renderer(call, &target, None, Offer::Stream)?;
            let mut options = options::list(call.query, target.resource, true)?;
            let lasts = watch::duration(call.query)?;
            options.lasts = Some(lasts);
            let events = call.backend.registry.watch(call.cx, &target, &options)?;
            let held = (call.backend.metrics.watching(target.resource), turn::watching(call, target.resource));
            let events = watch::Started { events, turn };
            let protobuf = format.encoding == Encoding::Protobuf;
            let writer = watch::Writer { renderer, protobuf };
            let mut response = Response::new(watch::body(events, writer, lasts, call.backend.stop.clone(), held));
            let content_type =
                if protobuf { "application/vnd.kubernetes.protobuf;stream=watch" } else { "application/json" };
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            Ok(response)
        }
        "log" => nodes::log(call).await,
        "exec" | "attach" | "portforward" => nodes::connect(call, request).await,
        "proxy" => proxy::run(call, &target, request).await,
        _ => Err(Status::no_such_resource()),
    }
}

/// The row that a path names, in the scope that the row has.
fn target(call: &Call<'_>) -> Result<Target, Status> {
    let info = call.info;
    let found = call.backend.registry.row(&info.group, &info.version, &info.resource);
    let resource = found.ok_or_else(Status::no_such_resource)?;
    let subresource = match info.subresource.as_str() {
        "" => "",
        name => resource.subresource(name).ok_or_else(Status::no_such_resource)?.name,
    };
    if !info.rest.is_empty() && subresource != "proxy" {
        return Err(Status::no_such_resource());
    }
    // A request about a namespace carries the namespace's own name.
    let namespace = if resource.plural == "namespaces" { "" } else { info.namespace.as_str() };
    let named = info.named || info.resource != resource.plural;
    match (resource.namespaced, namespace.is_empty()) {
        (false, false) => return Err(Status::no_such_resource()),
        (true, true) if named => return Err(Status::no_such_resource()),
        (true, true) if !matches!(&*info.verb, "list" | "watch") => return Err(not_allowed()),
        _ => {}
    }
    Ok(Target {
        resource,
        namespace: namespace.into(),
        name: if info.named { info.name.clone() } else { String::new() },
        subresource,
    })
}

fn check_verb(call: &Call<'_>, target: &Target, row: Option<&Subresource>) -> Result<(), Status> {
    let bit = match &*call.info.verb {
        // What it means is for the other side to say.
        "" if target.subresource == "proxy" && *call.method == Method::OPTIONS => resource::GET,
        asked => VERBS.iter().find(|(_, verb)| *verb == asked).ok_or_else(not_allowed)?.0,
    };
    let verbs = row.map_or(target.resource.verbs, |s| s.verbs);
    let on_collection = target.name.is_empty();
    let fits = match bit {
        resource::CREATE => on_collection == target.subresource.is_empty(),
        resource::LIST | resource::DELETE_COLLECTION => on_collection,
        // Of one object by the older path, which is for reading whatever it is asked with.
        resource::WATCH => target.subresource.is_empty() && *call.method == Method::GET,
        _ => !on_collection,
    };
    if verbs & bit != 0 && fits { Ok(()) } else { Err(not_allowed()) }
}

fn not_allowed() -> Status {
    Status::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        .with_details(crate::api::status::Details::default())
}

/// How objects are written, and whether the text is for a person or in YAML.
type Rendering = (Renderer, super::negotiate::Format);

fn renderer(
    call: &Call<'_>,
    target: &Target,
    subresource: Option<&'static Subresource>,
    offer: Offer,
) -> Result<Rendering, Status> {
    // The kind of a subresource that isn't its parent's (Scale) has no columns of its own.
    let offer = if subresource.is_some_and(|s| s.kind != target.resource.kind) { Offer::Plain } else { offer };
    let format = negotiate(call.headers, call.query, offer)?;
    let asked = call.query.first("includeObject").unwrap_or_default();
    let include = Include::parse(asked)
        .ok_or_else(|| Status::bad_request(format!("unrecognized includeObject value: {asked:?}")))?;
    let custom = call.backend.registry.custom(target);
    if let Some(warning) = custom.as_ref().and_then(|c| c.warning.as_ref()) {
        call.cx.warn(warning);
    }
    Ok((Renderer { resource: target.resource, custom, shape: format.shape, include, now: clock::now() }, format))
}

fn one(code: StatusCode, (renderer, format): &Rendering, object: &Object) -> Result<Response<Body>, Status> {
    Ok(respond::document(code, renderer.object(object)?, *format))
}

async fn list(call: &Call<'_>, target: &Target) -> Result<Response<Body>, Status> {
    let rendering = renderer(call, target, None, Offer::Objects)?;
    let options = options::list(call.query, target.resource, false)?;
    let page = call.backend.registry.list(call.cx, target, &options).await?;
    collection(&rendering, &page)
}

fn collection((renderer, format): &Rendering, page: &List) -> Result<Response<Body>, Status> {
    let parts = renderer.list(page)?;
    if format.pretty || format.encoding != Encoding::Json {
        let joined: Vec<u8> = parts.iter().flatten().copied().collect();
        return Ok(respond::document(StatusCode::OK, joined, *format));
    }
    let mut response = Response::new(Parts::body(parts));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

async fn create(
    call: &Call<'_>,
    target: &Target,
    row: Option<&'static Subresource>,
    body: Body,
) -> Result<Response<Body>, Status> {
    let rendering = renderer(call, target, row, Offer::Objects)?;
    let options = options::write(call.query, call.headers, Write::Create)?;
    let object = decoded(call, target, body, options.field_validation).await?;
    let created = call.backend.registry.create(call.cx, target, object, &options).await?;
    if matches!(target.subresource, "binding" | "eviction") {
        let done =
            serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        return Ok(respond::document(StatusCode::CREATED, done.to_string(), rendering.1));
    }
    one(StatusCode::CREATED, &rendering, &created)
}

async fn update(
    call: &Call<'_>,
    target: &Target,
    row: Option<&'static Subresource>,
    body: Body,
) -> Result<Response<Body>, Status> {
    let rendering = renderer(call, target, row, Offer::Objects)?;
    let mut options = options::write(call.query, call.headers, Write::Update)?;
    options.may_create = may_create(call, target, false)?;
    let object = decoded(call, target, body, options.field_validation).await?;
    written(&rendering, &call.backend.registry.update(call.cx, target, object, &options).await?)
}

async fn apply(
    call: &Call<'_>,
    target: &Target,
    row: Option<&'static Subresource>,
    body: Body,
) -> Result<Response<Body>, Status> {
    let rendering = renderer(call, target, row, Offer::Objects)?;
    let kind = content_type(call);
    let applies = kind == APPLY_PATCH;
    let mut options = options::write(call.query, call.headers, Write::Patch { apply: applies })?;
    let known = [JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH];
    if !known.contains(&kind.as_str()) {
        return Err(Status::unsupported_media_type(&kind, &known));
    }
    let bytes = body::read(body).await?;
    let patch = match kind.as_str() {
        JSON_PATCH => Patch::Json(patch::parse_json(&bytes)?),
        MERGE_PATCH => Patch::Merge(json(&bytes)?),
        STRATEGIC_PATCH => Patch::Strategic(json(&bytes)?),
        _ => Patch::Apply(applied(call, &bytes, options.field_validation)?),
    };
    options.may_create = applies && may_create(call, target, true)?;
    written(&rendering, &call.backend.registry.patch(call.cx, target, patch, &options).await?)
}

/// Whether the client may create what it names, should the write have to.
fn may_create(call: &Call<'_>, target: &Target, applies: bool) -> Result<bool, Status> {
    if !call.backend.registry.would_create(target, applies) {
        return Ok(false);
    }
    let attributes = authz::ResourceAttributes { verb: "create", ..call.resource_attributes() };
    call.backend.authorizer.check(&call.cx.user, &authz::Attributes::Resource(attributes))?;
    Ok(true)
}

/// The document of a server-side apply. Its fields are checked when it is merged.
fn applied(call: &Call<'_>, bytes: &[u8], validation: FieldValidation) -> Result<Value, Status> {
    let (document, twice) =
        decode::document(bytes).map_err(|why| Status::bad_request(format!("error decoding YAML: {why}")))?;
    if !document.is_object() {
        return Err(Status::bad_request("error decoding YAML: the document is no object"));
    }
    match (validation, twice) {
        (FieldValidation::Strict, Some(why)) => Err(Status::bad_request(format!("error strict decoding YAML: {why}"))),
        (FieldValidation::Warn, Some(why)) => {
            call.cx.warn(why);
            Ok(document)
        }
        _ => Ok(document),
    }
}

fn written(rendering: &Rendering, written: &Written) -> Result<Response<Body>, Status> {
    one(if written.created { StatusCode::CREATED } else { StatusCode::OK }, rendering, &written.object)
}

async fn delete(call: &Call<'_>, target: &Target, body: Body) -> Result<Response<Body>, Status> {
    let rendering = renderer(call, target, None, Offer::Objects)?;
    let options = options::delete(call.query, untyped(call, body, Expected::DELETE_OPTIONS).await?)?;
    if options.ignore_store_read_error == Some(true) {
        let verb = "unsafe-delete-ignore-read-errors";
        let attributes = authz::ResourceAttributes { verb, ..call.resource_attributes() };
        call.backend.authorizer.check(&call.cx.user, &authz::Attributes::Resource(attributes))?;
    }
    // Upstream says 202 when the caller asked to wait for dependents and the object is still there.
    let waits = options.orphan_dependents == Some(false) || options.propagation_policy.as_deref() == Some("Foreground");
    match call.backend.registry.delete(call.cx, target, options).await? {
        Deleted::Gone(object) if RETURN_DELETED.contains(&target.resource.plural) => {
            one(StatusCode::OK, &rendering, &object)
        }
        Deleted::Gone(object) => {
            let status = respond::deleted(target.resource, &object).to_string();
            Ok(respond::document(StatusCode::OK, status, rendering.1))
        }
        Deleted::Marked(object) => one(if waits { StatusCode::ACCEPTED } else { StatusCode::OK }, &rendering, &object),
    }
}

async fn delete_collection(call: &Call<'_>, target: &Target, body: Body) -> Result<Response<Body>, Status> {
    let rendering = renderer(call, target, None, Offer::Objects)?;
    let selected = options::list(call.query, target.resource, false)?;
    let options = options::delete(call.query, untyped(call, body, Expected::DELETE_OPTIONS).await?)?;
    collection(&rendering, &call.backend.registry.delete_collection(call.cx, target, &selected, options).await?)
}

/// The media type of the request body, without its parameters; JSON when none is named.
pub(super) fn content_type(call: &Call<'_>) -> String {
    let given = call.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase() {
        kind if kind.is_empty() => "application/json".into(),
        kind => kind,
    }
}

/// The object of a write, in the kind that the path asks for.
async fn decoded(call: &Call<'_>, target: &Target, body: Body, validation: FieldValidation) -> Result<Value, Status> {
    let bytes = body::read(body).await?;
    let media = content_type(call);
    let custom = call.backend.registry.custom(target).filter(|_| target.subresource != "scale");
    let (object, warnings) = match custom {
        Some(custom) => decode::custom::object(&bytes, &media, target.resource, validation, |v| custom.form(v))?,
        None => decode::kind(&bytes, &media, Expected::at(target.resource, target.subresource), validation)?,
    };
    for warning in warnings {
        call.cx.warn(warning);
    }
    Ok(object)
}

/// A JSON or YAML document of any kind, or a protobuf message of the expected one; `None` when there is no body.
pub(super) async fn untyped(call: &Call<'_>, body: Body, expected: Expected) -> Result<Option<Value>, Status> {
    let bytes: Bytes = body::read(body).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    match content_type(call).as_str() {
        "application/json" => json(&bytes).map(Some),
        "application/yaml" => yaml(&bytes).map(Some),
        // Without field names there is nothing in it that could be unknown.
        other => Ok(Some(decode::kind(&bytes, other, expected, FieldValidation::Ignore)?.0)),
    }
}

fn json(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes).map_err(|e| Status::bad_request(format!("error decoding the request body: {e}")))
}

fn yaml(bytes: &[u8]) -> Result<Value, Status> {
    serde_saphyr::from_slice(bytes).map_err(|e| Status::bad_request(format!("error decoding the request body: {e}")))
}
