//! Effects: patch. Reads, applies, and goes the way of an update; again when someone was quicker.

use serde_json::Value;

use super::managed::Ownership;
use super::request::{Context, Patch, Target, WriteOptions, Written};
use super::strategy::Part;
use super::update::part;
use super::{Entry, Failed, MAX_ATTEMPTS, Registry, meta, scale, value};
use crate::api::object::ObjectRef;
use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::api::{decode, patch, schema, strategic};

const STRATEGIC: &str = "application/strategic-merge-patch+json";

impl Registry {
    /// # Errors
    /// The refusal of any stage; of a server-side apply 409 with the conflicts.
    pub async fn patch(&self, cx: &Context, t: &Target, patch: Patch, o: &WriteOptions) -> Result<Written, Status> {
        let entry = self.entry(t)?;
        if let Patch::Apply(document) = &patch {
            return self.apply(cx, t, entry, document, o).await;
        }
        let writer = || Ownership::Changed { manager: &o.field_manager };
        for _ in 0..MAX_ATTEMPTS {
            let old = self.find(entry, t)?;
            let attempt = if t.subresource == "scale" {
                let new = changed(&patch, scale::document(t, &value(&old)?), &scale::RESOURCE)?;
                self.rescale(cx, t, entry, &old, &new, o).await
            } else {
                let document = changed(&patch, entry.strategy.wire_form(value(&old)?), entry.strategy.resource())?;
                let new = stored(cx, entry, document, o)?;
                meta::check_name(t, &new)?;
                self.replace(cx, t, entry, (part(t)?, writer()), &old, new, o).await
            };
            match attempt {
                // Where the patch names a revision, the next attempt finds that it is not the one.
                Err(Failed::Conflict) => {}
                Err(Failed::Refused(status)) => return Err(status),
                Ok(object) => return Ok(Written { object, created: false }),
            }
        }
        Err(Status::modified(t.resource, &t.name))
    }

    /// Server-side apply, which creates what is not there.
    async fn apply(
        &self,
        cx: &Context,
        t: &Target,
        entry: &Entry,
        document: &Value,
        o: &WriteOptions,
    ) -> Result<Written, Status> {
        let scaled;
        let (part, document) = if t.subresource == "scale" {
            scaled = scale::as_parent(t, document)?;
            (Part::Spec, &scaled)
        } else {
            (part(t)?, document)
        };
        for _ in 0..MAX_ATTEMPTS {
            let old = self.0.cache.get(&entry.storage, &t.namespace, &t.name);
            let live = old.as_ref().map(value).transpose()?;
            let merged = self.applied_fields(t, part, &o.field_manager, live, document, o.force)?;
            if let (Some(old), true) = (&old, merged.unchanged) {
                // As most applies: whoever applies says again and again what is so.
                return answer(t, entry.wire(old.clone())?, false);
            }
            let mut new = stored(cx, entry, merged.object, o)?;
            meta::check_name(t, &new)?;
            let writer = Ownership::Applied(merged.fields);
            let attempt = match &old {
                Some(old) => self.replace(cx, t, entry, (part, writer), old, new, o).await,
                None => {
                    let uid = meta::text(&new, "uid");
                    if !uid.is_empty() {
                        let why = format!(
                            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                        );
                        return Err(Status::conflict(t.resource, &t.name, &why));
                    }
                    meta::enter_namespace(t, &mut new)?;
                    self.create_by_update(cx, t, entry, new, writer, o).await
                }
            };
            match attempt {
                Err(Failed::Conflict) => {}
                Err(Failed::Refused(status)) => return Err(status),
                Ok(object) => return answer(t, object, old.is_none()),
            }
        }
        Err(Status::modified(t.resource, &t.name))
    }
}

/// What an apply answers with: of a scale, the Scale.
fn answer(t: &Target, object: ObjectRef, created: bool) -> Result<Written, Status> {
    let object = if t.subresource == "scale" { scale::of(t, &object)? } else { object };
    Ok(Written { object, created })
}

/// What a patch made, checked against the schema, in the version that is stored.
fn stored(cx: &Context, entry: &Entry, document: Value, o: &WriteOptions) -> Result<Value, Status> {
    let (document, warnings) = decode::patched(document, entry.strategy.resource(), o.field_validation)?;
    warnings.into_iter().for_each(|w| cx.warn(w));
    Ok(entry.strategy.storage_form(document))
}

/// Applies the patch to the document as the client knows it, in the version of its request.
fn changed(patch: &Patch, mut document: Value, resource: &Resource) -> Result<Value, Status> {
    match patch {
        Patch::Json(operations) => patch::json(&document, operations),
        Patch::Merge(patch) => {
            patch::merge(&mut document, patch);
            Ok(document)
        }
        Patch::Strategic(patch) => {
            let schema = schema::of(resource).ok_or_else(|| not_accepted(STRATEGIC))?;
            strategic::merge(&document, patch, schema)
        }
        Patch::Apply(_) => Err(not_accepted("application/apply-patch+yaml")),
    }
}

fn not_accepted(given: &str) -> Status {
    Status::unsupported_media_type(given, &["application/json-patch+json", "application/merge-patch+json", STRATEGIC])
}
