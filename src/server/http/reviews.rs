//! Effects: kinds that are posted, answered and never stored: who is this, may they, and tokens for service accounts.
//! Authentication and authorization decide; this file only carries their answers.

use http::{Response, StatusCode};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus, TokenRequest, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview,
    SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewStatus,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::body::{self, Body};
use super::negotiate::{self, Offer};
use super::options::{self, Write};
use super::respond;
use super::service::Call;
use super::verbs::{content_type, untyped};
use crate::api::decode::{self, Expected};
use crate::api::field::{FieldError, Path};
use crate::api::status::Status;
use crate::api::user::User;
use crate::clock;
use crate::server::authn::review;
use crate::server::authz::{self, Decision};
use crate::server::registry::request::Target;

/// `POST` of a review.
pub(super) async fn run(call: &Call<'_>, target: &Target, body: Body) -> Result<Response<Body>, Status> {
    negotiate::negotiate(call.headers, call.query, Offer::Plain)?;
    let options = options::write(call.query, call.headers, Write::Create)?;
    let bytes = body::read(body).await?;
    let (value, warnings) = decode::object(&bytes, &content_type(call), target.resource, options.field_validation)?;
    for warning in warnings {
        call.cx.warn(warning);
    }
    let backend = call.backend;
    match target.resource.kind {
        "TokenReview" => answer(call, &review::review(&backend.tokens.0, typed::<TokenReview>(value)?, clock::now())?),
        "SelfSubjectReview" => {
            let mut review: SelfSubjectReview = typed(value)?;
            let user_info = Some(review::user_info(call.cx.user.clone()));
            review.status = Some(SelfSubjectReviewStatus { user_info });
            answer(call, &review)
        }
        "SelfSubjectAccessReview" => {
            let mut review: SelfSubjectAccessReview = typed(value)?;
            let (resource, path) = (&review.spec.resource_attributes, &review.spec.non_resource_attributes);
            review.status = Some(judge(call, target, &call.cx.user, resource.as_ref(), path.as_ref())?);
            answer(call, &review)
        }
        "SubjectAccessReview" => {
            let mut review: SubjectAccessReview = typed(value)?;
            let user = subject(target, &review.spec)?;
            let (resource, path) = (&review.spec.resource_attributes, &review.spec.non_resource_attributes);
            review.status = Some(judge(call, target, &user, resource.as_ref(), path.as_ref())?);
            answer(call, &review)
        }
        "LocalSubjectAccessReview" => {
            let mut review: LocalSubjectAccessReview = typed(value)?;
            let user = subject(target, &review.spec)?;
            let named =
                review.spec.resource_attributes.as_ref().and_then(|r| r.namespace.as_deref()).unwrap_or_default();
            if named != target.namespace {
                let path = Path::new("spec").child("resourceAttributes").child("namespace");
                let error = FieldError::invalid(&path, &named, "must match metadata.namespace");
                return Err(Status::invalid(target.resource, "", &[error]));
            }
            let (resource, path) = (&review.spec.resource_attributes, &review.spec.non_resource_attributes);
            review.status = Some(judge(call, target, &user, resource.as_ref(), path.as_ref())?);
            answer(call, &review)
        }
        "SelfSubjectRulesReview" => {
            let mut review: SelfSubjectRulesReview = typed(value)?;
            let namespace = review.spec.namespace.clone().unwrap_or_default();
            if namespace.is_empty() {
                return Err(Status::bad_request("no namespace on request"));
            }
            review.status = Some(backend.authorizer.rbac().review(&call.cx.user, &namespace));
            answer(call, &review)
        }
        _ => Err(Status::no_such_resource()),
    }
}

/// `POST serviceaccounts/x/token`.
pub(super) async fn token(call: &Call<'_>, target: &Target, body: Body) -> Result<Response<Body>, Status> {
    negotiate::negotiate(call.headers, call.query, Offer::Plain)?;
    options::write(call.query, call.headers, Write::Create)?;
    let request = match untyped(call, body, Expected::at(target.resource, target.subresource)).await? {
        Some(value) => value,
        None => json!({"spec": {}}),
    };
    let kind = request.get("kind").and_then(Value::as_str).unwrap_or("TokenRequest");
    if kind != "TokenRequest" {
        return Err(Status::bad_request(format!("{kind} cannot be handled as a TokenRequest")));
    }
    let request: TokenRequest = typed(request)?;
    let mut issued =
        call.backend.tokens.issue(&call.cx.user, &target.namespace, &target.name, request, clock::now())?;
    issued.metadata.name = Some(target.name.clone());
    issued.metadata.namespace = Some(target.namespace.clone());
    issued.metadata.creation_timestamp = Some(clock::time());
    answer(call, &issued)
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Status> {
    serde_json::from_value(value).map_err(|e| Status::bad_request(format!("error decoding the request body: {e}")))
}

fn answer<T: Serialize>(call: &Call<'_>, review: &T) -> Result<Response<Body>, Status> {
    let json = serde_json::to_vec(review).map_err(Status::internal)?;
    Ok(respond::document(StatusCode::CREATED, json, call.format))
}

fn subject(
    target: &Target,
    spec: &k8s_openapi::api::authorization::v1::SubjectAccessReviewSpec,
) -> Result<User, Status> {
    let user = User {
        name: spec.user.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let path = Path::new("spec").child("user");
        let error = FieldError::required(&path, "at least one of user or group must be specified");
        return Err(Status::invalid(target.resource, "", &[error]));
    }
    Ok(user)
}

fn judge(
    call: &Call<'_>,
    target: &Target,
    user: &User,
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> Result<SubjectAccessReviewStatus, Status> {
    fn text(value: &Option<String>) -> &str {
        value.as_deref().unwrap_or_default()
    }
    let attributes = match (resource, path) {
        (Some(r), None) => authz::Attributes::Resource(authz::ResourceAttributes {
            verb: text(&r.verb),
            group: text(&r.group),
            resource: text(&r.resource),
            subresource: text(&r.subresource),
            namespace: text(&r.namespace),
            name: text(&r.name),
            fields: None,
        }),
        (None, Some(p)) => authz::Attributes::Path { verb: text(&p.verb), path: text(&p.path) },
        (given, _) => {
            let spec = Path::new("spec");
            let why = if given.is_some() {
                "cannot be specified in combination with resourceAttributes"
            } else {
                "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            };
            let name = if given.is_some() { "nonResourceAttributes" } else { "resourceAttributes" };
            let error = FieldError::invalid(&spec.child(name), &Value::Null, why);
            return Err(Status::invalid(target.resource, "", &[error]));
        }
    };
    Ok(match call.backend.authorizer.authorize(user, &attributes) {
        Decision::Allow => SubjectAccessReviewStatus { allowed: true, ..SubjectAccessReviewStatus::default() },
        Decision::Deny(reason) => SubjectAccessReviewStatus {
            allowed: false,
            reason: Some(reason).filter(|r| !r.is_empty()),
            ..SubjectAccessReviewStatus::default()
        },
    })
}
