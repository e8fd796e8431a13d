//! Effects: delete and deletecollection.
//!
//! ```text
//!            ┌─ finalizers, or a grace period ─▶ marked (deletionTimestamp) ─▶ last finalizer gone ─┐
//! object ────┤                                       └─ deleted again with 0 ───────────────────────┼─▶ gone
//!            └─ neither ─────────────────────────────────────────────────────────────────────────── ┘
//! ```

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value};

use super::admit::Admitted;
use super::request::{Context, DeleteOptions, Deleted, List, ListOptions, Target};
use super::strategy::Removal;
use super::{Entry, Failed, MAX_ATTEMPTS, Registry, attributes, meta};
use crate::api::field::{FieldError, Path};
use crate::api::object::ObjectRef;
use crate::api::resource::Resource;
use crate::api::status::{Details, Status};
use crate::clock;
use crate::server::admission::Operation;
use crate::server::admission::webhooks::Options;
use crate::server::store::Intent;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a delete makes of the object.
enum Plan {
    /// Nothing to write: it is on its way already.
    Pending,
    Mark(Value),
    Remove(Value),
}

impl Registry {
    /// # Errors
    /// The refusal of any stage; 404; 409 when a precondition does not hold.
    pub async fn delete(&self, cx: &Context, t: &Target, o: DeleteOptions) -> Result<Deleted, Status> {
        self.remove(cx, t, o, true).await
    }

    /// The same; without `admits` when admission has seen what the delete is a part of.
    pub(super) async fn remove(
        &self,
        cx: &Context,
        t: &Target,
        mut o: DeleteOptions,
        admits: bool,
    ) -> Result<Deleted, Status> {
        let entry = &*self.entry(t)?;
        o.check()?;
        if o.ignore_store_read_error == Some(true) {
            return self.remove_unreadable(entry, t).await;
        }
        // As upstream: no negative grace, and the least that is graceful in its place.
        o.grace_period_seconds = o.grace_period_seconds.map(|n| if n < 0 { 1 } else { n });
        for _ in 0..MAX_ATTEMPTS {
            let old = self.find(entry, t)?;
            match self.delete_once(cx, t, entry, &old, (&o, admits)).await {
                Err(Failed::Conflict) => {}
                Err(Failed::Refused(status)) => return Err(status),
                Ok(deleted) => return Ok(deleted),
            }
        }
        Err(Status::modified(t.resource, &t.name))
    }

    /// Deletes what cannot be read: no admission, no finalizers (KEP-3926).
    async fn remove_unreadable(&self, entry: &Entry, t: &Target) -> Result<Deleted, Status> {
        let Some(damaged) = self.damaged(entry, t) else {
            self.find(entry, t)?;
            let path = Path::new("ignoreStoreReadErrorWithClusterBreakingPotential");
            let why = "is exclusively used to delete corrupt object(s), try again by removing this option";
            return Err(Status::invalid_options("DeleteOptions", &[FieldError::invalid(&path, &true, why)]));
        };
        match self.commit(entry, Intent::Delete(damaged.remains(entry.stored), damaged.revision)).await {
            Ok(gone) => Ok(Deleted::Gone(gone)),
            Err(Failed::Conflict) => Err(Status::not_found(t.resource, &t.name)),
            Err(Failed::Refused(status)) => Err(status),
        }
    }

    /// Deletes what the selectors select, and answers with what was there.
    ///
    /// # Errors
    /// The first refusal. Objects that someone else deleted in between are no error.
    pub async fn delete_collection(
        &self,
        cx: &Context,
        t: &Target,
        l: &ListOptions,
        o: DeleteOptions,
    ) -> Result<List, Status> {
        let entry = &*self.entry(t)?;
        let selected = self.select(entry, t, l).await?;
        for item in &selected.items {
            let namespace = item.key.namespace.to_string();
            let one = Target { namespace, name: item.key.name.to_string(), ..t.clone() };
            match self.delete(cx, &one, o.clone()).await {
                Ok(_) => {}
                Err(status) if status.code() == 404 => {}
                Err(status) => return Err(status),
            }
        }
        let items = entry.wire_all(selected.items).await?;
        Ok(List { items, ..selected })
    }

    async fn delete_once(
        &self,
        cx: &Context,
        t: &Target,
        entry: &Entry,
        old: &ObjectRef,
        (o, admits): (&DeleteOptions, bool),
    ) -> Result<Deleted, Failed> {
        let before = entry.live(old).await?;
        check_preconditions(t, o, old)?;
        let dry_run = !o.dry_run.is_empty();
        if admits {
            let attributes = attributes(cx, t, Operation::Delete, Some(&before), dry_run);
            // What is there is whole: nobody took its managedFields.
            let admitted = Admitted { attributes, options: Options::Delete(o), target: t, held: &Value::Null };
            self.admit_delete(entry, &admitted).await?;
        }
        let plan = plan(entry, &before, o, clock::now())?;
        let (object, remove) = match plan {
            Plan::Pending => return Ok(Deleted::Marked(entry.wire(old.clone()).await?)),
            Plan::Mark(object) => (object, false),
            Plan::Remove(object) => (object, true),
        };
        let draft = entry.draft(old.key.clone(), &object).await?;
        let done = if dry_run {
            entry.unwritten(&draft, Some(old.revision)).await?
        } else if remove {
            let gone = self.commit(entry, Intent::Delete(draft, old.revision)).await?;
            entry.strategy.released(&object);
            entry.wire(gone).await?
        } else {
            let marked = self.commit(entry, Intent::Update(draft, old.revision)).await?;
            entry.wire(marked).await?
        };
        Ok(if remove { Deleted::Gone(done) } else { Deleted::Marked(done) })
    }
}

/// Decides (`rest.BeforeDelete` and `Store.updateForGracefulDeletionAndFinalizers`).
fn plan(entry: &Entry, old: &Value, o: &DeleteOptions, now: jiff::Timestamp) -> Result<Plan, Status> {
    let deleting = old["metadata"]["deletionTimestamp"].is_string();
    let pending_grace = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let mut object = old.clone();

    if deleting && let Some(pending) = pending_grace.filter(|n| *n > 0) {
        // A grace period runs. It can only become shorter, and finalizers can no longer be asked for.
        return match o.grace_period_seconds {
            Some(seconds) if seconds < pending => {
                let at = deletion_time(old).unwrap_or(now) - jiff::SignedDuration::from_secs(pending - seconds);
                mark(&mut object, at, seconds)?;
                let remove = seconds == 0 && !meta::held(entry.stored, &object);
                Ok(if remove { Plan::Remove(object) } else { Plan::Mark(object) })
            }
            _ => Ok(Plan::Pending),
        };
    }
    let removal = if deleting { Removal::Now } else { entry.strategy.removal(&mut object, o) };
    set_finalizers(entry, &mut object, o)?;
    match removal {
        Removal::Graceful { seconds } => {
            mark(&mut object, now + jiff::SignedDuration::from_secs(seconds), seconds)?;
            bump_generation(&mut object)?;
            let remove = seconds == 0 && !meta::held(entry.stored, &object);
            return Ok(if remove { Plan::Remove(object) } else { Plan::Mark(object) });
        }
        Removal::Finalize => {
            // No grace period: whoever empties the finalizers removes the object.
            meta::metadata(&mut object)?.insert("deletionTimestamp".into(), time(now));
        }
        Removal::Now => {}
    }
    if !meta::held(entry.stored, &object) {
        return Ok(Plan::Remove(object));
    }
    if removal == Removal::Now && !(deleting && entry.stored.storage == "namespaces") {
        if !deleting {
            bump_generation(&mut object)?;
        }
        let at = deletion_time(old).filter(|at| *at <= now).unwrap_or(now);
        mark(&mut object, at, 0)?;
    }
    Ok(if object == *old { Plan::Pending } else { Plan::Mark(object) })
}

/// Turns the propagation policy into finalizers, which the garbage collector acts upon
/// (`deletionFinalizersForGarbageCollection`). Events take no part in garbage collection, and what is in a Namespace
/// goes before it anyway.
fn set_finalizers(entry: &Entry, object: &mut Value, o: &DeleteOptions) -> Result<(), Status> {
    if entry.stored.storage == "events" {
        return Ok(());
    }
    let old: Vec<String> = meta::finalizers(object).into_iter().map(ToOwned::to_owned).collect();
    let has = |name: &str| old.iter().any(|f| f == name);
    let policy = o.propagation_policy.as_deref();
    // Who says nothing gets what the object says already, else what its kind is known for.
    let by_default = || has(ORPHAN) || (entry.strategy.orphans() && !has(FOREGROUND));
    let orphan = o.orphan_dependents.unwrap_or_else(|| policy.map_or_else(by_default, |p| p == "Orphan"));
    let foreground = o.orphan_dependents.is_none() && policy.map_or_else(|| has(FOREGROUND), |p| p == "Foreground");
    let mut new: Vec<String> = old.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    new.extend(orphan.then(|| ORPHAN.to_owned()));
    new.extend(foreground.then(|| FOREGROUND.to_owned()));
    let same = new.len() == old.len() && new.iter().all(|f| has(f));
    if same {
        return Ok(());
    }
    let metadata: &mut Map<String, Value> = meta::metadata(object)?;
    if new.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), new.into());
    }
    Ok(())
}

fn mark(object: &mut Value, at: jiff::Timestamp, seconds: i64) -> Result<(), Status> {
    let metadata = meta::metadata(object)?;
    metadata.insert("deletionTimestamp".into(), time(at));
    metadata.insert("deletionGracePeriodSeconds".into(), seconds.into());
    Ok(())
}

/// Being deleted is a change of what is wanted; kinds without a generation stay without.
fn bump_generation(object: &mut Value) -> Result<(), Status> {
    let metadata = meta::metadata(object)?;
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|n| *n > 0) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
    Ok(())
}

fn deletion_time(object: &Value) -> Option<jiff::Timestamp> {
    meta::text(object, "deletionTimestamp").parse().ok()
}

fn time(at: jiff::Timestamp) -> Value {
    let whole = jiff::Timestamp::from_second(at.as_second()).unwrap_or(at);
    serde_json::to_value(Time(whole)).unwrap_or_default()
}

pub(super) fn check_preconditions(t: &Target, o: &DeleteOptions, old: &ObjectRef) -> Result<(), Status> {
    let Some(expected) = &o.preconditions else { return Ok(()) };
    let why = if let Some(uid) = expected.uid.as_deref().filter(|uid| **uid != *old.head.uid) {
        format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            old.head.uid
        )
    } else if let Some(revision) = expected.resource_version.as_deref().filter(|r| *r != old.revision.to_string()) {
        format!(
            "the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record ({}). \
             The object might have been modified",
            old.revision
        )
    } else {
        return Ok(());
    };
    // Upstream words this one about the kind, not the resource.
    let Resource { group, kind, .. } = t.resource;
    let dot = if group.is_empty() { "" } else { "." };
    let message = format!("Operation cannot be fulfilled on {kind}{dot}{group} {:?}: {why}", t.name);
    Err(Status::new(409, "Conflict", message).with_details(Details {
        name: t.name.clone(),
        group: (*group).into(),
        kind: (*kind).into(),
        ..Details::default()
    }))
}
