//! Effects: patch. Reads, applies, and goes the way of an update; again when someone was quicker.

use serde_json::Value;

use super::request::{Context, Patch, Target, WriteOptions, Written};
use super::update::part;
use super::{Entry, Failed, MAX_ATTEMPTS, Registry, meta, scale, value};
use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::api::{decode, patch, schema, strategic};

const STRATEGIC: &str = "application/strategic-merge-patch+json";

impl Registry {
    /// # Errors
    /// The refusal of any stage; 415 for a server-side apply, which this version does not have.
    pub async fn patch(&self, cx: &Context, t: &Target, patch: Patch, o: &WriteOptions) -> Result<Written, Status> {
        let entry = self.entry(t)?;
        for _ in 0..MAX_ATTEMPTS {
            let old = self.find(entry, t)?;
            let attempt = if t.subresource == "scale" {
                let new = apply(&patch, scale::document(t, &value(&old)?), &scale::RESOURCE)?;
                self.rescale(cx, t, entry, &old, &new, o).await
            } else {
                let new = patched(cx, entry, &value(&old)?, &patch, o)?;
                meta::check_name(t, &new)?;
                self.replace(cx, t, entry, part(t)?, &old, new, o).await
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
}

/// The patch is applied to the document as the client knows it, in the version of its request.
fn patched(cx: &Context, entry: &Entry, old: &Value, patch: &Patch, o: &WriteOptions) -> Result<Value, Status> {
    let resource = entry.strategy.resource();
    let document = apply(patch, entry.strategy.wire_form(old.clone()), resource)?;
    let (document, warnings) = decode::patched(document, resource, o.field_validation)?;
    warnings.into_iter().for_each(|w| cx.warn(w));
    Ok(entry.strategy.storage_form(document))
}

fn apply(patch: &Patch, mut document: Value, resource: &Resource) -> Result<Value, Status> {
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
        // Needs the owners of fields, which objects do not carry yet.
        Patch::Apply(_) => Err(not_accepted("application/apply-patch+yaml")),
    }
}

fn not_accepted(given: &str) -> Status {
    Status::unsupported_media_type(given, &["application/json-patch+json", "application/merge-patch+json", STRATEGIC])
}
