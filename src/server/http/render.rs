//! Decides: documents made of stored objects: lists, tables, metadata-only objects and watch events. Stored bytes are
//! copied, never encoded again; tables are the one form that has to look into an object.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::negotiate::Shape;
use crate::api::object::Object;
use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::api::table::{self, Include, Row};
use crate::server::crd::definition::Version;
use crate::server::registry::request::{Event, List};

/// How the objects of one response are written.
#[derive(Clone)]
pub struct Renderer {
    pub resource: &'static Resource,
    /// Of a custom resource, what its definition says.
    pub custom: Option<Arc<Version>>,
    pub shape: Shape,
    pub include: Include,
    pub now: jiff::Timestamp,
}

impl Renderer {
    /// One object.
    ///
    /// # Errors
    /// 500 when stored bytes are not what we wrote.
    pub fn object(&self, object: &Object) -> Result<Bytes, Status> {
        self.one(object, true)
    }

    /// A page of a collection, in pieces that share the stored bytes.
    ///
    /// # Errors
    /// 500 when stored bytes are not what we wrote.
    pub fn list(&self, list: &List) -> Result<VecDeque<Bytes>, Status> {
        let mut meta = serde_json::Map::new();
        meta.insert("resourceVersion".into(), list.revision.to_string().into());
        if !list.continue_token.is_empty() {
            meta.insert("continue".into(), list.continue_token.clone().into());
        }
        if let Some(remaining) = list.remaining {
            meta.insert("remainingItemCount".into(), remaining.into());
        }
        let meta = Value::Object(meta);
        if let Shape::Table(version) = self.shape {
            return Ok([self.table(version, list.items.iter().map(|o| &**o), &meta, true)?].into());
        }
        let (kind, version) = match self.shape {
            Shape::Partial(version) => ("PartialObjectMetadataList".into(), format!("meta.k8s.io/{version}")),
            _ => (self.list_kind(), self.resource.api_version()),
        };
        let head = format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{meta},"items":["#);
        let mut parts = VecDeque::with_capacity(list.items.len() * 2 + 2);
        parts.push_back(Bytes::from(head));
        for (i, object) in list.items.iter().enumerate() {
            if i > 0 {
                parts.push_back(Bytes::from_static(b","));
            }
            parts.push_back(self.one(object, true)?);
        }
        parts.push_back(Bytes::from_static(b"]}\n"));
        Ok(parts)
    }

    /// The type and the object of an event. `headers` says whether a table names its columns: only the first event does.
    ///
    /// # Errors
    /// 500 when stored bytes are not what we wrote.
    pub fn event(&self, event: &Event, headers: bool) -> Result<(&'static str, Bytes), Status> {
        Ok(match event {
            Event::Added(object) => ("ADDED", self.one(object, headers)?),
            Event::Modified(object) => ("MODIFIED", self.one(object, headers)?),
            Event::Deleted(object) => ("DELETED", self.one(object, headers)?),
            Event::Bookmark { revision, initial_end } => {
                let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
                if *initial_end {
                    metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                }
                ("BOOKMARK", Bytes::from(self.bookmark(&metadata).to_string()))
            }
        })
    }

    fn bookmark(&self, metadata: &Value) -> Value {
        match self.shape {
            Shape::Object => {
                json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata})
            }
            Shape::Partial(version) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
            }
            Shape::Table(version) => {
                let version = format!("meta.k8s.io/{version}");
                let object = json!({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": metadata});
                json!({"kind": "Table", "apiVersion": version, "metadata": {"resourceVersion": metadata["resourceVersion"]},
                    "columnDefinitions": null, "rows": [{"cells": [], "object": object}]})
            }
        }
    }

    fn one(&self, object: &Object, headers: bool) -> Result<Bytes, Status> {
        match self.shape {
            Shape::Object => Ok(object.json.clone()),
            Shape::Partial(version) => partial(object, version),
            Shape::Table(version) => {
                let meta = json!({"resourceVersion": object.revision.to_string()});
                self.table(version, std::iter::once(object), &meta, headers)
            }
        }
    }

    fn list_kind(&self) -> String {
        self.custom.as_ref().map_or_else(|| format!("{}List", self.resource.kind), |c| c.list_kind.clone())
    }

    fn columns(&self) -> Value {
        self.custom.as_ref().map_or_else(|| table::columns_json(self.resource), |c| c.printer.columns())
    }

    fn row(&self, object: &Value) -> Row {
        match &self.custom {
            Some(custom) => Row { cells: custom.printer.cells(object, self.now), conditions: Vec::new() },
            None => table::row(self.resource, object, self.now),
        }
    }

    fn table<'a>(
        &self,
        version: &str,
        objects: impl Iterator<Item = &'a Object>,
        meta: &Value,
        headers: bool,
    ) -> Result<Bytes, Status> {
        let columns = if headers { self.columns() } else { Value::Null };
        let mut out = format!(
            r#"{{"kind":"Table","apiVersion":"meta.k8s.io/{version}","metadata":{meta},"columnDefinitions":{columns},"rows":["#
        )
        .into_bytes();
        let mut first = true;
        for object in objects {
            let value = object.value().map_err(Status::internal)?;
            let carried = match self.include {
                Include::None => Bytes::from_static(b"null"),
                Include::Metadata => partial(object, version)?,
                Include::Object => object.json.clone(),
            };
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            let row = self.row(&value);
            out.extend_from_slice(br#"{"cells":"#);
            out.extend_from_slice(Value::from(row.cells).to_string().as_bytes());
            if !row.conditions.is_empty() {
                out.extend_from_slice(br#","conditions":"#);
                out.extend_from_slice(Value::from(row.conditions).to_string().as_bytes());
            }
            out.extend_from_slice(br#","object":"#);
            out.extend_from_slice(&carried);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}\n");
        Ok(out.into())
    }
}

fn partial(object: &Object, version: &str) -> Result<Bytes, Status> {
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let parsed: Metadata<'_> = serde_json::from_slice(&object.json).map_err(Status::internal)?;
    let metadata = parsed.metadata.get();
    let text =
        format!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/{version}","metadata":{metadata}}}"#);
    Ok(text.into())
}
