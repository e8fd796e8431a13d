//! Effects: patch. Reads, applies, and goes the way of an update; again when someone was quicker.

use serde_json::Value;

use super::request::{Context, Patch, Target, WriteOptions, Written};
use super::update::part;
use super::{Entry, Failed, MAX_ATTEMPTS, Registry, meta, scale, value};
use crate::api::resource::Resource;
use crate::api::status::{Details, Status};

impl Registry {
    /// # Errors
    /// The refusal of any stage; 415 for a server-side apply, which this version does not have.
    pub async fn patch(&self, cx: &Context, t: &Target, patch: Patch, o: &WriteOptions) -> Result<Written, Status> {
        let entry = self.entry(t)?;
        for _ in 0..MAX_ATTEMPTS {
            let old = self.find(entry, t)?;
            let attempt = if t.subresource == "scale" {
                let mut new = scale::document(t, &value(&old)?);
                apply(&patch, &mut new, &scale::RESOURCE)?;
                self.rescale(cx, t, entry, &old, &new, o).await
            } else {
                let new = patched(entry, &value(&old)?, &patch)?;
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
fn patched(entry: &Entry, old: &Value, patch: &Patch) -> Result<Value, Status> {
    let mut document = entry.strategy.wire_form(old.clone());
    apply(patch, &mut document, entry.strategy.resource())?;
    Ok(entry.strategy.storage_form(document))
}

fn apply(patch: &Patch, document: &mut Value, resource: &Resource) -> Result<(), Status> {
    match patch {
        Patch::Json(operations) => json_patch::patch(document, operations).map_err(|_| unprocessable()),
        Patch::Merge(patch) => {
            json_patch::merge(document, patch);
            Ok(())
        }
        Patch::Strategic(patch) => strategic(document, patch, resource),
        Patch::Apply(_) => Err(Status::unsupported_media_type(
            "application/apply-patch+yaml",
            &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"],
        )),
    }
}

/// What upstream answers when a patch does not fit the document.
fn unprocessable() -> Status {
    Status::new(422, "Invalid", "the server rejected our request due to an error in our request")
        .with_details(Details::default())
}

fn strategic(document: &mut Value, patch: &Value, resource: &Resource) -> Result<(), Status> {
    // The merge by schema is the API part's; until it is there this takes the simplest of its rules.
    let _ = resource;
    json_patch::merge(document, patch);
    Ok(())
}
