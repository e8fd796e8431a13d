//! Decides: `metadata.managedFields` of what is written. The rules are in [`crate::api::apply`]; here is what they need
//! of a request and its kind.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::request::Target;
use super::strategy::Part;
use super::{Catalog, Entry, Registry, meta};
use crate::api::apply::owners::{Owners, same_but_for_times};
use crate::api::apply::place::Place;
use crate::api::apply::set::Set;
use crate::api::apply::{Refusal, Versions, Writer, last_applied};
use crate::api::schema;
use crate::api::status::Status;

/// Who owns the fields after a write.
pub(super) enum Ownership<'a> {
    /// What changes goes to this manager.
    Changed { manager: &'a str },
    /// The write was an apply, which has settled it.
    Applied(Option<Value>),
    /// The server's own doing, which nobody owns.
    Kept,
}

/// What an apply makes of an object.
pub(super) struct Merged {
    pub object: Value,
    /// `managedFields`
    pub fields: Option<Value>,
    /// It says nothing that was not so.
    pub unchanged: bool,
}

/// `managedFields` as they are, and as a request has them.
pub(super) struct Held {
    live: Value,
    given: Value,
}

impl Held {
    /// Takes them out of both documents: they say nothing of the fields.
    pub fn take(live: &mut Value, new: &mut Value) -> Self {
        Self { live: take(live), given: take(new) }
    }

    /// Those of the object that is there.
    pub fn live(&self) -> &Value {
        &self.live
    }

    /// Whether these say the same as those that are there; their times follow from what else changed.
    pub fn same(&self, fields: Option<&Value>) -> bool {
        same_but_for_times(fields.unwrap_or(&Value::Null), &self.live)
    }

    /// The owners that a write starts from: a client may set them, and one that knows nothing of them sets none.
    fn owners(&self, part: Part) -> Owners {
        let given = self.given.as_array().filter(|_| part == Part::Spec);
        if let Some([Value::Object(only)]) = given.map(Vec::as_slice)
            && only.is_empty()
        {
            return Owners::default();
        }
        given.and_then(|_| Owners::read(&self.given)).or_else(|| Owners::read(&self.live)).unwrap_or_default()
    }
}

pub(super) fn take(object: &mut Value) -> Value {
    metadata(object).and_then(|m| m.remove("managedFields")).unwrap_or_default()
}

pub(super) fn put(object: &mut Value, fields: Option<Value>) {
    if let (Some(fields), Some(metadata)) = (fields, metadata(object)) {
        metadata.insert("managedFields".into(), fields);
    }
}

fn metadata(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata")?.as_object_mut()
}

impl Registry {
    /// The `managedFields` after a write. Both documents are in the stored version, without theirs; `live` is `None` when
    /// `new` is created.
    pub(super) fn fields_after(
        &self,
        t: &Target,
        part: Part,
        writer: Ownership<'_>,
        live: Option<&Value>,
        new: &Value,
        held: &Held,
    ) -> Result<Option<Value>, Status> {
        let manager = match writer {
            Ownership::Changed { manager } => manager,
            Ownership::Applied(fields) => return Ok(fields),
            Ownership::Kept => return Ok((!held.live.is_null()).then(|| held.live.clone())),
        };
        let entry = &*self.entry(t)?;
        let owners = held.owners(part);
        // Owners of an object that never had any begin with the first apply.
        if live == Some(new) || (live.is_some() && owners.0.is_empty()) {
            return Ok(owners.to_json());
        }
        let live = live.map_or_else(|| Cow::Owned(empty()), |live| wire(entry, live));
        let new = wire(entry, new);
        let (limits, now) = (Limits::of(entry, part), meta::now());
        let versions = Forms { catalog: self.catalog(), entry };
        let version = t.resource.api_version();
        Ok(request(t, manager, &limits, &now, &versions, &version).updated(&live, &new, owners)?.to_json())
    }

    /// What an applied document makes of an object in the version of the request, and its `managedFields` then. `live` is
    /// `None` when it creates one; `held` are the `managedFields` that were taken out of it.
    pub(super) fn applied_fields(
        &self,
        t: &Target,
        (part, manager): (Part, &str),
        (live, held): (Option<&Value>, &Value),
        document: &Value,
        force: bool,
    ) -> Result<Merged, Status> {
        let entry = &*self.entry(t)?;
        let version = t.resource.api_version();
        let given = document["apiVersion"].as_str().unwrap_or_default();
        if given != version {
            return Err(Status::bad_request(format!(
                "Incorrect version specified in apply patch. Specified patch version: {given}, expected: {version}"
            )));
        }
        if !document["metadata"]["managedFields"].is_null() {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        let live = live.map_or_else(|| Cow::Owned(empty()), |live| wire(entry, live));
        let owners = Owners::read(held).unwrap_or_default();
        let (limits, now) = (Limits::of(entry, part), meta::now());
        let versions = Forms { catalog: self.catalog(), entry };
        let writer = request(t, manager, &limits, &now, &versions, &version);
        let applied = match writer.applied(&live, document, owners, force) {
            // What client-side apply set is no conflict for the same tool.
            Err(Refusal::Conflicts(conflicts)) if manager == last_applied::MANAGER => {
                let known =
                    versions.place(&version).map(|place| last_applied::fields(place, &live)).unwrap_or_default();
                match conflicts.without(&known) {
                    Some(conflicts) => Err(Refusal::Conflicts(conflicts)),
                    None => writer.applied(&live, document, Owners::read(held).unwrap_or_default(), true),
                }
            }
            other => other,
        };
        let mut applied = applied.map_err(|refusal| match refusal {
            Refusal::Conflicts(conflicts) => conflicts.status(),
            Refusal::Status(status) => status,
        })?;
        if manager == last_applied::MANAGER {
            last_applied::refresh(&mut applied.object, document);
        }
        let fields = applied.owners.to_json();
        let unchanged = applied.object == *live && same_but_for_times(fields.as_ref().unwrap_or(&Value::Null), held);
        Ok(Merged { object: applied.object, fields, unchanged })
    }
}

/// A stored document in the version of the request, which is the same one for most.
fn wire<'a>(entry: &Entry, value: &'a Value) -> Cow<'a, Value> {
    if entry.strategy.resource() == entry.stored {
        return Cow::Borrowed(value);
    }
    Cow::Owned(entry.strategy.wire_form(value.clone()))
}

fn empty() -> Value {
    Value::Object(Map::new())
}

/// What a write cannot make its writer own.
struct Limits {
    resets: Set,
    only: &'static [&'static [&'static str]],
}

impl Limits {
    fn of(entry: &Entry, part: Part) -> Self {
        Self { resets: entry.strategy.resets(part), only: entry.strategy.only(part) }
    }
}

fn request<'a>(
    t: &'a Target,
    manager: &'a str,
    limits: &'a Limits,
    now: &'a Value,
    versions: &'a Forms<'a>,
    api_version: &'a str,
) -> Writer<'a> {
    let now = now.as_str().unwrap_or_default();
    let Limits { resets, only } = limits;
    Writer { manager, api_version, subresource: t.subresource, now, resets, only, versions }
}

/// The versions of one stored resource.
struct Forms<'a> {
    catalog: Arc<Catalog>,
    entry: &'a Entry,
}

impl Forms<'_> {
    fn entry(&self, api_version: &str) -> Option<&Entry> {
        // Mostly that of the request.
        if self.entry.strategy.resource().api_version() == api_version {
            return Some(self.entry);
        }
        self.catalog.version(&self.entry.storage, api_version)
    }
}

impl Versions for Forms<'_> {
    fn place(&self, api_version: &str) -> Option<Place<'_>> {
        let entry = self.entry(api_version)?;
        match &entry.custom {
            Some(custom) => Some(Place::object(custom.version.schema())),
            None => schema::of(entry.strategy.resource()).map(Place::from),
        }
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Value {
        let object = object.clone();
        match (self.entry(from), self.entry(to)) {
            (Some(a), Some(b)) if from != to => b.strategy.wire_form(a.strategy.storage_form(object)),
            _ => object,
        }
    }
}
