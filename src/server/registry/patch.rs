//! Effects: patch. Reads, applies, and goes the way of an update; again when someone was quicker.

use serde_json::Value;

use super::managed::{self, Ownership};
use super::request::{
    APPLY_PATCH, Context, JSON_PATCH, MERGE_PATCH, Patch, STRATEGIC_PATCH, Target, WriteOptions, Written,
};
use super::strategy::Part;
use super::update::part;
use super::{Entry, Failed, MAX_ATTEMPTS, Registry, meta, scale};
use crate::api::object::ObjectRef;
use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::api::{decode, patch, schema, strategic};
use crate::server::crd::strategy::Custom;

impl Registry {
    /// # Errors
    /// The refusal of any stage; of a server-side apply 409 with the conflicts.
    pub async fn patch(&self, cx: &Context, t: &Target, patch: Patch, o: &WriteOptions) -> Result<Written, Status> {
        let entry = &*self.entry(t)?;
        if let Patch::Apply(document) = &patch {
            return self.apply(cx, t, entry, document, o).await;
        }
        let writer = || Ownership::Changed { manager: &o.field_manager };
        for _ in 0..MAX_ATTEMPTS {
            let old = self.find(entry, t)?;
            let before = entry.live(&old).await?;
            let attempt = if t.subresource == "scale" {
                let document = scale::document(t, entry.custom.as_ref(), &before);
                let new = changed(&patch, document, None, &scale::RESOURCE)?;
                self.rescale(cx, t, entry, (&old, before), &new, o).await
            } else {
                let live = || entry.strategy.wire_form(before.clone());
                let make = || changed(&patch, live(), entry.custom.as_ref(), entry.strategy.resource());
                let new = stored(cx, entry, make()?, make, o)?;
                meta::check_name(t, &new)?;
                self.replace(cx, t, entry, (part(t)?, writer()), (&old, before), new, o).await
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
            scaled = scale::as_parent(t, entry.custom.as_ref(), document)?;
            (Part::Spec, &scaled)
        } else {
            (part(t)?, document)
        };
        for _ in 0..MAX_ATTEMPTS {
            let old = match self.look(entry, t)? {
                Some(old) => {
                    let before = entry.live(&old).await?;
                    Some((old, before))
                }
                None => None,
            };
            let (old, mut before) = old.unzip();
            // They say nothing of the fields, and are larger than many an object: neither merged nor compared.
            let held = before.as_mut().map(managed::take).unwrap_or_default();
            let live = (before.as_ref(), &held);
            let merge = || self.applied_fields(t, (part, &o.field_manager), live, document, o.force);
            let merged = merge()?;
            if let (Some(old), true) = (&old, merged.unchanged) {
                // As most applies: whoever applies says again and again what is so.
                return answer(t, entry, entry.wire(old.clone()).await?, false).await;
            }
            let mut new = stored(cx, entry, merged.object, || merge().map(|merged| merged.object), o)?;
            meta::check_name(t, &new)?;
            let writer = Ownership::Applied(merged.fields);
            let creates = old.is_none();
            let attempt = match old.zip(before) {
                Some((old, mut before)) => {
                    managed::put(&mut before, Some(held).filter(|h| !h.is_null()));
                    self.replace(cx, t, entry, (part, writer), (&old, before), new, o).await
                }
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
                Ok(object) => return answer(t, entry, object, creates).await,
            }
        }
        Err(Status::modified(t.resource, &t.name))
    }
}

/// What an apply answers with: of a scale, the Scale.
async fn answer(t: &Target, entry: &Entry, object: ObjectRef, created: bool) -> Result<Written, Status> {
    let object = if t.subresource == "scale" { scale::of(t, entry, &object).await? } else { object };
    Ok(Written { object, created })
}

/// What a patch made, checked against the schema, in the version that is stored. `again` makes it once more.
fn stored(
    cx: &Context,
    entry: &Entry,
    document: Value,
    again: impl FnOnce() -> Result<Value, Status>,
    o: &WriteOptions,
) -> Result<Value, Status> {
    let row = entry.strategy.resource();
    let (document, warnings) = match &entry.custom {
        Some(custom) => decode::custom::patched(document, again, row, o.field_validation, |v| custom.version.form(v))?,
        None => decode::patched(document, again, row, o.field_validation)?,
    };
    warnings.into_iter().for_each(|w| cx.warn(w));
    Ok(entry.strategy.storage_form(document))
}

/// Applies the patch to the document as the client knows it, in the version of its request.
fn changed(patch: &Patch, mut document: Value, custom: Option<&Custom>, resource: &Resource) -> Result<Value, Status> {
    match patch {
        Patch::Json(operations) => patch::json(&document, operations),
        Patch::Merge(patch) => {
            patch::merge(&mut document, patch);
            Ok(document)
        }
        Patch::Strategic(patch) => {
            // What a definition defines has no strategies of patches.
            if custom.is_some() {
                return Err(Status::unsupported_media_type(STRATEGIC_PATCH, &[JSON_PATCH, MERGE_PATCH, APPLY_PATCH]));
            }
            let schema = schema::of(resource).ok_or_else(|| not_accepted(STRATEGIC_PATCH))?;
            strategic::merge(&document, patch, schema)
        }
        Patch::Apply(_) => Err(not_accepted(APPLY_PATCH)),
    }
}

fn not_accepted(given: &str) -> Status {
    Status::unsupported_media_type(given, &[JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH])
}
