//! Effects: the API verbs over a `kube::Client`. Untyped on purpose: one instantiation serves all kinds.

use std::fmt::Write as _;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::api::resource::Resource;
use crate::api::status::NAMESPACE_TERMINATING;

/// What one request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    Update,
    /// RFC 7386.
    MergePatch,
    StrategicPatch,
    Delete,
    DeleteCollection,
    Get,
    List,
}

/// One request, as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub verb: Verb,
    pub resource: &'static Resource,
    /// Empty for cluster-scoped resources.
    pub namespace: String,
    /// Empty for Create, List and DeleteCollection.
    pub name: String,
    /// Empty for the main resource.
    pub subresource: &'static str,
    /// `Value::Null` for none.
    pub body: Value,
    /// What follows the question mark, escaped.
    pub query: &'static str,
    /// The whole path of a read of what no table knows, escaped. Empty: what the fields above say.
    pub at: String,
}

/// What is read at a path.
static DOCUMENT: Resource = Resource::unstored("", "", "", "");

/// The part of an answer that writers look at.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Answer {
    #[serde(default)]
    pub metadata: AnswerMeta,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnswerMeta {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a `Status`.
    #[error("{}", .0.message)]
    Status(Box<kube::core::Status>),
    #[error("request was not answered: {0}")]
    Transport(String),
}

/// What a loop does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The object is gone.
    NotFound,
    /// Stale knowledge: observe again.
    Conflict,
    AlreadyExists,
    /// The namespace is being deleted: nothing new can be made in it, and nothing need be.
    Ending,
    /// The same request will fail again.
    Permanent,
    /// Worth trying again later.
    Retry,
}

impl Error {
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Transport(_) => Class::Retry,
            Self::Status(s) => match (s.code, s.reason.as_str()) {
                (404, _) => Class::NotFound,
                (409, "AlreadyExists") => Class::AlreadyExists,
                (409, _) => Class::Conflict,
                (403, _) if s.details.iter().flat_map(|d| &d.causes).any(|c| c.reason == NAMESPACE_TERMINATING) => {
                    Class::Ending
                }
                (400 | 401 | 403 | 405 | 413 | 415 | 422, _) => Class::Permanent,
                _ => Class::Retry,
            },
        }
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Status(status),
            other => Self::Transport(other.to_string()),
        }
    }
}

impl Request {
    #[must_use]
    pub fn new(verb: Verb, resource: &'static Resource, namespace: &str, name: &str, body: Value) -> Self {
        let (namespace, name) = (namespace.into(), name.into());
        Self { verb, resource, namespace, name, subresource: "", body, query: "", at: String::new() }
    }

    /// A read of what is at a path: discovery, metrics of extension servers, lists that select.
    #[must_use]
    pub fn at(path: String) -> Self {
        Self { at: path, ..Self::new(Verb::Get, &DOCUMENT, "", "", Value::Null) }
    }

    #[must_use]
    pub fn create(resource: &'static Resource, namespace: &str, body: Value) -> Self {
        Self::new(Verb::Create, resource, namespace, "", body)
    }

    /// Deletes exactly the object that was observed: `uid` is a precondition.
    #[must_use]
    pub fn delete(resource: &'static Resource, namespace: &str, name: &str, uid: &str) -> Self {
        Self::new(Verb::Delete, resource, namespace, name, serde_json::json!({ "preconditions": { "uid": uid } }))
    }

    /// The same on a subresource.
    #[must_use]
    pub fn on(mut self, subresource: &'static str) -> Self {
        self.subresource = subresource;
        self
    }

    /// The same deletion without waiting for anything to end gracefully.
    #[must_use]
    pub fn at_once(mut self) -> Self {
        self.body["gracePeriodSeconds"] = 0.into();
        self
    }

    fn path(&self) -> String {
        if !self.at.is_empty() {
            return self.at.clone();
        }
        let mut path = self.resource.path(Some(&self.namespace));
        for part in [self.name.as_str(), self.subresource] {
            if !part.is_empty() {
                let _ = write!(path, "/{part}");
            }
        }
        if !self.query.is_empty() {
            let _ = write!(path, "?{}", self.query);
        }
        path
    }

    fn http(&self) -> Result<http::Request<Vec<u8>>, Error> {
        let (method, content_type) = match self.verb {
            Verb::Create => (Method::POST, "application/json"),
            Verb::Update => (Method::PUT, "application/json"),
            Verb::MergePatch => (Method::PATCH, "application/merge-patch+json"),
            Verb::StrategicPatch => (Method::PATCH, "application/strategic-merge-patch+json"),
            Verb::Delete | Verb::DeleteCollection => (Method::DELETE, "application/json"),
            Verb::Get | Verb::List => (Method::GET, "application/json"),
        };
        let body = if self.body.is_null() { Vec::new() } else { self.body.to_string().into_bytes() };
        http::Request::builder()
            .method(method)
            .uri(self.path())
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, content_type)
            .body(body)
            .map_err(|e| Error::Transport(e.to_string()))
    }

    /// Sends a write and returns the head of what the server stored.
    ///
    /// # Errors
    /// What the server answered, or that it did not.
    pub async fn write(&self, client: &kube::Client) -> Result<Answer, Error> {
        Ok(client.request::<Answer>(self.http()?).await?)
    }

    /// Sends a read and returns the whole answer.
    ///
    /// # Errors
    /// What the server answered, or that it did not.
    pub async fn read(&self, client: &kube::Client) -> Result<Value, Error> {
        Ok(client.request::<Value>(self.http()?).await?)
    }
}

/// Numeric form of a resource version: Skiff's are decimal and rise over all resources. 0 when it is not a number.
#[must_use]
pub fn revision(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}
