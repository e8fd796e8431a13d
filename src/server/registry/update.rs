//! Effects: update, and the second half of every patch and subresource write.

use serde_json::Value;

use super::admit::Admitted;
use super::managed::{self, Held, Ownership};
use super::request::{Context, Target, WriteOptions, Written};
use super::strategy::{Part, Prepared};
use super::{Entry, Failed, MAX_ATTEMPTS, Registry, attributes, meta};
use crate::api::object::ObjectRef;
use crate::api::status::Status;
use crate::server::admission::Operation;
use crate::server::admission::webhooks::Options;
use crate::server::store::Intent;

impl Registry {
    /// # Errors
    /// The refusal of any stage; 404, or 409 when the object is not what the client saw.
    pub async fn update(&self, cx: &Context, t: &Target, body: Value, o: &WriteOptions) -> Result<Written, Status> {
        let entry = &*self.entry(t)?;
        if t.subresource == "scale" {
            return self.update_scale(cx, t, body, o).await;
        }
        let part = part(t)?;
        let mut body = entry.strategy.storage_form(body);
        meta::check_name(t, &body)?;
        meta::enter_namespace(t, &mut body)?;
        for _ in 0..MAX_ATTEMPTS {
            let Some(old) = self.look(entry, t)? else {
                let writer = Ownership::Changed { manager: &o.field_manager };
                match self.create_by_update(cx, t, entry, body.clone(), writer, o).await {
                    Err(Failed::Conflict) => continue,
                    Err(Failed::Refused(status)) => return Err(status),
                    Ok(object) => return Ok(Written { object, created: true }),
                }
            };
            let writer = Ownership::Changed { manager: &o.field_manager };
            let before = entry.live(&old).await?;
            match self.replace(cx, t, entry, (part, writer), (&old, before), body.clone(), o).await {
                // A client that named a revision is told by the next attempt that it is not the one.
                Err(Failed::Conflict) => {}
                Err(Failed::Refused(status)) => return Err(status),
                Ok(object) => return Ok(Written { object, created: false }),
            }
        }
        Err(Status::modified(t.resource, &t.name))
    }

    pub(super) async fn create_by_update(
        &self,
        cx: &Context,
        t: &Target,
        entry: &Entry,
        mut body: Value,
        writer: Ownership<'_>,
        o: &WriteOptions,
    ) -> Result<ObjectRef, Failed> {
        if !o.may_create {
            return Err(Status::not_found(t.resource, &t.name).into());
        }
        // Who names a revision or a uid means an object that was there.
        if !matches!(meta::text(&body, "resourceVersion"), "" | "0") {
            return Err(Status::modified(t.resource, &t.name).into());
        }
        meta::check_uid(t, meta::text(&body, "uid"), &Value::Null)?;
        entry.strategy.defaults(&mut body)?;
        self.create_once(cx, t, entry, body, writer, o).await.map_err(|(failed, _)| failed)
    }

    /// Whether a write to this name would create the object, which its client must then be allowed to do.
    #[must_use]
    pub fn would_create(&self, t: &Target, applies: bool) -> bool {
        let Ok(entry) = self.entry(t) else { return false };
        t.subresource.is_empty()
            && (applies || entry.strategy.create_on_update())
            && self.0.cache.get(&entry.storage, &t.namespace, &t.name).is_none()
    }

    /// One attempt to put `new` in the place of what is there: `old`, as [`Entry::live`] has it.
    #[allow(clippy::too_many_arguments, reason = "a request and what it is about")]
    pub(super) async fn replace(
        &self,
        cx: &Context,
        t: &Target,
        entry: &Entry,
        (part, writer): (Part, Ownership<'_>),
        (old, mut before): (&ObjectRef, Value),
        mut new: Value,
        o: &WriteOptions,
    ) -> Result<ObjectRef, Failed> {
        let strategy = &entry.strategy;
        // Admission has seen what the server was asked for; what it does of itself for that is not shown again.
        let admits = !matches!(writer, Ownership::Kept);
        let held = Held::take(&mut before, &mut new);
        meta::check_preconditions(t, &new, &before, old.revision, strategy.unconditional_update())?;
        // The server starts from what is stored, which has its defaults.
        if admits {
            strategy.defaults(&mut new)?;
        }
        meta::carry_over(&mut new, &before)?;
        let mut fields = self.fields_after(t, part, writer, Some(&before), &new, &held)?;
        let attributes = attributes(cx, t, Operation::Update, Some(&before), o.dry_run);
        let admitted = Admitted { attributes, options: Options::Write(o), target: t, held: held.live() };
        if admits {
            self.mutate(entry, &admitted, &mut new, &mut fields).await?;
        }
        let Prepared { errors, warnings, reserved } = strategy.prepare_update(cx, part, &mut new, &before)?;
        if !errors.is_empty() {
            return Err(Status::invalid(t.resource, &t.name, &errors).into());
        }
        warnings.into_iter().for_each(|w| cx.warn(w));
        if admits {
            self.admit(entry, &admitted, Some(&new), fields.as_ref()).await?;
        }

        let gone = goes_with_update(entry, &new, &before);
        if !gone && new == before && held.same(fields.as_ref()) {
            return Ok(entry.wire(old.clone()).await?);
        }
        let _room = if admits { self.reserve(&admitted.attributes, &new)? } else { None };
        managed::put(&mut new, fields);
        let draft = entry.draft(old.key.clone(), &new).await?;
        if o.dry_run {
            return Ok(entry.unwritten(&draft, Some(old.revision)).await?);
        }
        let intent = if gone { Intent::Delete(draft, old.revision) } else { Intent::Update(draft, old.revision) };
        let written = self.commit(entry, intent).await?;
        if gone {
            strategy.released(&new);
        } else if let Some(reserved) = reserved {
            reserved.keep();
        }
        Ok(entry.wire(written).await?)
    }
}

/// Taking the last finalizer off an object that is being deleted removes it
/// (`registry.ShouldDeleteDuringUpdate`). One in its grace period waits for whoever runs it.
fn goes_with_update(entry: &Entry, new: &Value, old: &Value) -> bool {
    let old = &old["metadata"];
    let grace = old["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
    old["deletionTimestamp"].is_string() && grace == 0 && !meta::held(entry.stored, new)
}

pub(super) fn part(t: &Target) -> Result<Part, Status> {
    match t.subresource {
        "" => Ok(Part::Spec),
        "status" => Ok(Part::Status),
        "finalize" => Ok(Part::Finalize),
        "approval" => Ok(Part::Approval),
        "ephemeralcontainers" => Ok(Part::EphemeralContainers),
        "resize" => Ok(Part::Resize),
        _ => Err(Status::verb_not_supported(t.resource, "update")),
    }
}
