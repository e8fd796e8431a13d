//! Effects: create, and a create by PUT.

use serde_json::Value;

use super::managed::{self, Held, Ownership};
use super::request::{Context, Target, WriteOptions};
use super::strategy::{Part, Prepared};
use super::{Entry, Failed, Registry, attributes, meta};
use crate::api::object::ObjectRef;
use crate::api::status::{Details, Status};
use crate::server::admission::Operation;
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
            _ => return Err(Status::verb_not_supported(t.resource, "create")),
        }
        let entry = self.entry(t)?;
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
        for _ in 1..if generated { MAX_NAMES } else { 1 } {
            match self.create_once(cx, t, entry, object.clone(), writer(), o).await {
                Err((Failed::Conflict, _)) => {}
                Err((Failed::Refused(status), _)) => return Err(status),
                Ok(created) => return Ok(created),
            }
        }
        self.create_once(cx, t, entry, object, writer(), o).await.map_err(|(failed, name)| match failed {
            Failed::Refused(status) => status,
            Failed::Conflict if generated => no_unique_name(t, &name),
            Failed::Conflict => Status::already_exists(t.resource, &name),
        })
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
        let fields = self.fields_after(t, Part::Spec, writer, None, &object, &held).map_err(named)?;
        let mut to = Target { name: given, ..t.clone() };
        let admitted = attributes(cx, &to, Operation::Create, None, o.dry_run);
        self.mutate(entry, &admitted, &mut object).map_err(named)?;
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
        let admitted = attributes(cx, &to, Operation::Create, None, o.dry_run);
        self.0.admission.validate(&admitted, Some(&object)).map_err(named)?;

        managed::put(&mut object, fields);
        let draft = entry.draft(entry.key(&t.namespace, &to.name), &object);
        if o.dry_run {
            if self.0.cache.get(&entry.storage, &t.namespace, &to.name).is_some() {
                return Err((Failed::Conflict, to.name));
            }
            return entry.unwritten(&draft, None).map_err(named);
        }
        match self.commit(entry, Intent::Create(draft)).await {
            Ok(created) => {
                if let Some(reserved) = reserved {
                    reserved.keep();
                }
                entry.wire(created).map_err(named)
            }
            Err(failed) => Err((failed, to.name)),
        }
    }
}

fn no_unique_name(t: &Target, name: &str) -> Status {
    let taken = Status::already_exists(t.resource, name);
    let message = format!("{}, the server was not able to generate a unique name for the object", taken.message());
    let details = Details { retry_after_seconds: 1, ..taken.details().cloned().unwrap_or_default() };
    Status::new(409, "AlreadyExists", message).with_details(details)
}
