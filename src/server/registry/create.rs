//! Effects: create, and a create by PUT.

use serde_json::Value;

use super::admit::Admitted;
use super::managed::{self, Held, Ownership};
use super::request::{Context, Target, WriteOptions};
use super::strategy::{Part, Prepared};
use super::{Entry, Failed, Registry, attributes, meta};
use crate::api::object::ObjectRef;
use crate::api::status::{Details, Status};
use crate::server::admission::Operation;
use crate::server::admission::webhooks::Options;
use crate::server::store::Intent;

/// How many random names are tried for one `generateName`.
const MAX_NAMES: usize = 8;

impl Registry {
    /// # Errors
    /// The refusal of any stage; 409 when the name is taken.
    pub async fn create(&self, cx: &Context, t: &Target, body: Value, o: &WriteOptions) -> Result<ObjectRef, Status> {
        match t.subresource {
            "" => {}
            "binding" => return self.bind(cx, t, &body, o).await,
            "eviction" => return self.evict(cx, t, body, o).await,
            _ => return Err(Status::verb_not_supported(t.resource, "create")),
        }
        let entry = &*self.entry(t)?;
        let mut object = entry.strategy.storage_form(body);
        if !matches!(meta::text(&object, "resourceVersion"), "" | "0") {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(Status::new(500, "", message));
        }
        meta::enter_namespace(t, &mut object)?;
        entry.strategy.defaults(&mut object)?;
        let base = meta::text(&object, "generateName").to_owned();
        let writer = || Ownership::Changed { manager: &o.field_manager };
        let generated = meta::text(&object, "name").is_empty() && !base.is_empty();
        let tries = if generated { MAX_NAMES } else { 1 };
        let mut tried = 0;
        // One place that waits: the state of a create is as large as all that it may wait for, and is moved around.
        loop {
            tried += 1;
            let last = tried == tries;
            let object = if last { std::mem::take(&mut object) } else { object.clone() };
            return match self.create_once(cx, t, entry, object, writer(), o).await {
                Ok(created) => Ok(created),
                Err((Failed::Refused(status), _)) => Err(status),
                Err((Failed::Conflict, _)) if !last => continue,
                Err((Failed::Conflict, name)) if generated => Err(no_unique_name(t, &name)),
                Err((Failed::Conflict, name)) => Err(Status::already_exists(t.resource, &name)),
            };
        }
    }

    /// The error comes with the name that was tried.
    pub(super) async fn create_once(
        &self,
        cx: &Context,
        t: &Target,
        entry: &Entry,
        mut object: Value,
        writer: Ownership<'_>,
        o: &WriteOptions,
    ) -> Result<ObjectRef, (Failed, String)> {
        let named = |failed: Status| (Failed::Refused(failed), String::new());
        let strategy = &entry.strategy;
        let given = meta::text(&object, "name").to_owned();
        let held = Held::take(&mut Value::Null, &mut object);
        let mut fields = self.fields_after(t, Part::Spec, writer, None, &object, &held).map_err(named)?;
        let mut to = Target { name: given, ..t.clone() };
        self.mutate(entry, &admitted(cx, &to, o), &mut object, &mut fields).await.map_err(named)?;
        meta::begin(&mut object).map_err(named)?;
        let base = meta::text(&object, "generateName").to_owned();
        if meta::text(&object, "name").is_empty() && !base.is_empty() {
            to.name = meta::generate_name(&base);
            meta::metadata(&mut object).map_err(named)?.insert("name".into(), to.name.as_str().into());
        }
        let Prepared { errors, warnings, reserved } = strategy.prepare_create(cx, &mut object).map_err(named)?;
        if !errors.is_empty() {
            return Err(named(Status::invalid(t.resource, &to.name, &errors)));
        }
        warnings.into_iter().for_each(|w| cx.warn(w));
        let admitted = admitted(cx, &to, o);
        self.admit(entry, &admitted, Some(&object), fields.as_ref()).await.map_err(named)?;
        let _room = self.reserve(&admitted.attributes, &object).map_err(named)?;

        managed::put(&mut object, fields);
        // One text for all the keys in it.
        let namespace = self.0.cache.get("namespaces", "", &t.namespace).map(|o| o.key.name.clone());
        let key = entry.key(namespace.unwrap_or_else(|| t.namespace.as_str().into()), &to.name);
        let draft = entry.draft(key, &object).await.map_err(named)?;
        if o.dry_run {
            if self.0.cache.get(&entry.storage, &t.namespace, &to.name).is_some() {
                return Err((Failed::Conflict, to.name));
            }
            return entry.unwritten(&draft, None).await.map_err(named);
        }
        match self.commit(entry, Intent::Create(draft)).await {
            Ok(created) => {
                if let Some(reserved) = reserved {
                    reserved.keep();
                }
                entry.wire(created).await.map_err(named)
            }
            Err(failed) => Err((failed, to.name)),
        }
    }
}

fn admitted<'a>(cx: &'a Context, to: &'a Target, o: &'a WriteOptions) -> Admitted<'a> {
    let attributes = attributes(cx, to, Operation::Create, None, o.dry_run);
    Admitted { attributes, options: Options::Write(o), target: to, held: &Value::Null }
}

fn no_unique_name(t: &Target, name: &str) -> Status {
    let taken = Status::already_exists(t.resource, name);
    let message = format!("{}, the server was not able to generate a unique name for the object", taken.message());
    let details = Details { retry_after_seconds: 1, ..taken.details().cloned().unwrap_or_default() };
    Status::new(409, "AlreadyExists", message).with_details(details)
}
