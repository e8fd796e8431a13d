//! Effects: admission of one write: the plugins, which decide at once, and the webhooks that have rules about it, which
//! are waited for. Without any, nothing is copied and nothing waits.

use std::sync::Arc;

use serde_json::Value;

use super::request::{Context, Target};
use super::strategy::Strategy;
use super::{Catalog, Entry, Registry, attributes, managed, meta, scale};
use crate::api::apply::owners::Owners;
use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::server::admission::policies::mutating::About;
use crate::server::admission::resource_quota::Reservation;
use crate::server::admission::webhooks::{Call, Forms, Options, Rounds, Seen};
use crate::server::admission::{Attributes, Operation};

/// One write on its way through admission. The documents in it are without their `managedFields`, which say nothing of
/// the fields; webhooks see them nevertheless.
pub(super) struct Admitted<'a> {
    pub attributes: Attributes<'a>,
    pub options: Options<'a>,
    pub target: &'a Target,
    /// `managedFields` of the object that is there.
    pub held: &'a Value,
}

impl Registry {
    /// Lets admission change an object, and fills in defaults again when it did. Who owns the fields is decided before:
    /// what admission changes belongs to nobody until someone writes it, as upstream.
    pub(super) async fn mutate(
        &self,
        entry: &Entry,
        admitted: &Admitted<'_>,
        object: &mut Value,
        fields: &mut Option<Value>,
    ) -> Result<(), Status> {
        self.mutate_at_once(entry, &admitted.attributes, object)?;
        let forms = Versions { catalog: self.catalog(), entry, target: admitted.target };
        let asked = self.asked_to_mutate(&admitted.attributes, &forms);
        if asked.0.is_empty() && asked.1.is_empty() {
            return Ok(());
        }
        // Boxed: few writes come here, and every write would have to be as large as this.
        Box::pin(self.mutate_by_asking(&asked, &forms, admitted, object, fields)).await
    }

    /// The policies and the webhooks that have rules about a write.
    fn asked_to_mutate(&self, attributes: &Attributes<'_>, forms: &Versions<'_>) -> (Vec<About>, Vec<Call>) {
        let chain = &self.0.admission;
        let policies = chain.mutating_policies.as_ref().map(|p| p.about(attributes, forms)).unwrap_or_default();
        let calls = chain.webhooks.as_ref().map(|w| w.mutating(attributes, forms)).unwrap_or_default();
        (policies, calls)
    }

    fn mutate_at_once(&self, entry: &Entry, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if self.0.admission.plugins.is_empty() {
            return Ok(());
        }
        // What no plugin changes is looked at without a copy to compare with.
        let may_change = self.0.admission.may_change(attributes);
        let before = (may_change || cfg!(debug_assertions)).then(|| object.clone());
        self.0.admission.mutate(attributes, object)?;
        debug_assert!(may_change || before.as_ref() == Some(&*object), "a plugin changes what it does not name");
        if may_change && before.is_some_and(|before| before != *object) {
            entry.strategy.defaults(object)
        } else {
            Ok(())
        }
    }

    /// Policies, then webhooks; and all of it once more when one of them changed something, for those that have to see it.
    async fn mutate_by_asking(
        &self,
        (policies, calls): &(Vec<About>, Vec<Call>),
        forms: &Versions<'_>,
        admitted: &Admitted<'_>,
        object: &mut Value,
        fields: &mut Option<Value>,
    ) -> Result<(), Status> {
        let (chain, options) = (&self.0.admission, admitted.options);
        let old = admitted.whole_old();
        let attributes = Attributes { old: old.as_ref(), ..admitted.attributes };
        managed::put(object, fields.clone());
        let mut whole = std::mem::take(object);
        let (mut by_policy, mut by_call) = (Rounds::default(), Rounds::default());
        let (mut after_policies, mut after_calls) = (Value::Null, Value::Null);
        let entry = forms.entry;
        for is_second in [false, true] {
            if is_second {
                if !by_policy.changed && !by_call.changed {
                    break;
                }
                if forms.holds_object() {
                    self.mutate_at_once(entry, &attributes, &mut whole)?;
                }
                by_policy.second(whole != after_policies);
            }
            if let Some(plugin) = &chain.mutating_policies {
                plugin.mutate(policies, &attributes, options, forms, &mut whole, &mut by_policy)?;
            }
            if is_second {
                by_call.second(whole != after_calls);
            }
            let mut held = Some(whole.clone());
            if let Some(webhooks) = &chain.webhooks {
                webhooks.mutate(calls, &attributes, options, forms, &mut held, &mut by_call).await?;
            }
            after_policies = std::mem::replace(&mut whole, held.unwrap_or_default());
            after_calls.clone_from(&whole);
        }
        *object = whole;
        if let Some(custom) = entry.custom.as_ref().filter(|_| by_policy.changed || by_call.changed) {
            // Each of them saw what the others added; what the schema does not have is not stored.
            custom.version.prune(object);
        }
        let given = managed::take(object);
        // Whoever makes nonsense of them is not heard.
        if !given.is_null() && Owners::read(&given).is_some() {
            *fields = Some(given);
        }
        Ok(())
    }

    /// Lets admission refuse what is about to be written; `None` is what is about to be deleted.
    pub(super) async fn admit(
        &self,
        entry: &Entry,
        admitted: &Admitted<'_>,
        object: Option<&Value>,
        fields: Option<&Value>,
    ) -> Result<(), Status> {
        let chain = &self.0.admission;
        if admitted.attributes.operation != Operation::Connect {
            chain.validate(&admitted.attributes, object)?;
        }
        let forms = Versions { catalog: self.catalog(), entry, target: admitted.target };
        let policies = chain.policies.as_ref().map(|p| p.about(&admitted.attributes, &forms)).unwrap_or_default();
        let calls = chain.webhooks.as_ref().map(|w| w.validating(&admitted.attributes, &forms)).unwrap_or_default();
        if policies.is_empty() && calls.is_empty() {
            return Ok(());
        }
        let old = admitted.whole_old();
        let attributes = Attributes { old: old.as_ref(), ..admitted.attributes };
        let whole = object.map(|object| {
            let mut whole = object.clone();
            managed::put(&mut whole, fields.cloned());
            whole
        });
        let seen = Seen { attributes: &attributes, options: admitted.options, forms: &forms, object: whole.as_ref() };
        if let Some(plugin) = &chain.policies {
            plugin.validate(&policies, &seen)?;
        }
        match &chain.webhooks {
            Some(webhooks) if !calls.is_empty() => Box::pin(webhooks.validate(&calls, &seen)).await,
            _ => Ok(()),
        }
    }

    /// Room in the quotas of the namespace, held until the write is done.
    pub(super) fn reserve(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Option<Reservation>, Status> {
        self.0.admission.quotas.as_ref().map_or(Ok(None), |quotas| quotas.reserve(attributes, object))
    }

    /// A delete goes through both halves: mutating webhooks hear of it, though there is nothing to change.
    pub(super) async fn admit_delete(&self, entry: &Entry, admitted: &Admitted<'_>) -> Result<(), Status> {
        if let Some(webhooks) = &self.0.admission.webhooks {
            let forms = Versions { catalog: self.catalog(), entry, target: admitted.target };
            let calls = webhooks.mutating(&admitted.attributes, &forms);
            if !calls.is_empty() {
                let old = admitted.whole_old();
                let attributes = Attributes { old: old.as_ref(), ..admitted.attributes };
                let (mut nothing, mut rounds) = (None, Rounds::default());
                let call = webhooks.mutate(&calls, &attributes, admitted.options, &forms, &mut nothing, &mut rounds);
                Box::pin(call).await?;
            }
        }
        self.admit(entry, admitted, None, None).await
    }

    /// Admission of a connection (`exec`, `attach`…) with the options that were asked for. What admission changes of them
    /// has no effect.
    ///
    /// # Errors
    /// The refusal.
    pub async fn admit_connection(&self, cx: &Context, t: &Target, document: Value) -> Result<(), Status> {
        let attributes = attributes(cx, t, Operation::Connect, None, false);
        self.admit_document(t, attributes, Options::None, document).await.map(drop)
    }

    /// Admission of what is asked of an object and never stored itself.
    pub(super) async fn admit_document(
        &self,
        t: &Target,
        attributes: Attributes<'_>,
        options: Options<'_>,
        mut document: Value,
    ) -> Result<Value, Status> {
        let entry = &*self.entry(t)?;
        let admitted = Admitted { attributes, options, target: t, held: &Value::Null };
        // The document of a subresource has no defaults of the resource. Connections are for webhooks only.
        if admitted.attributes.operation != Operation::Connect {
            self.0.admission.mutate(&admitted.attributes, &mut document)?;
        }
        let forms = Versions { catalog: self.catalog(), entry, target: t };
        let asked = self.asked_to_mutate(&admitted.attributes, &forms);
        if !asked.0.is_empty() || !asked.1.is_empty() {
            Box::pin(self.mutate_by_asking(&asked, &forms, &admitted, &mut document, &mut None)).await?;
        }
        self.admit(entry, &admitted, Some(&document), None).await?;
        Ok(document)
    }
}

impl Admitted<'_> {
    fn whole_old(&self) -> Option<Value> {
        let mut old = self.attributes.old?.clone();
        managed::put(&mut old, Some(self.held.clone()).filter(|h| !h.is_null()));
        Some(old)
    }
}

/// The versions of the object of a request. What is written to a subresource of its own kind has one: a Scale is a view of
/// its object, a Binding or the options of a connection are what they are.
struct Versions<'a> {
    catalog: Arc<Catalog>,
    entry: &'a Entry,
    target: &'a Target,
}

impl Versions<'_> {
    /// The object in another version. Those of a custom resource differ by name.
    fn in_version(&self, row: &Resource, mut object: Value, form: impl Fn(&dyn Strategy, Value) -> Value) -> Value {
        if self.entry.custom.is_some() {
            object["apiVersion"] = row.api_version().into();
            return object;
        }
        match self.catalog.entry(row) {
            Some(entry) => form(&*entry.strategy, object),
            None => object,
        }
    }

    /// What is written is the object, as a whole or a part of it.
    fn is_plain(&self) -> bool {
        let (resource, name) = (self.target.resource, self.target.subresource);
        resource.subresource(name).is_none_or(|s| s.kind.is_empty() || s.kind == resource.kind)
    }

    /// The documents on their way through admission are those of the object, whatever is shown.
    fn holds_object(&self) -> bool {
        self.is_plain() || self.target.subresource == "scale"
    }
}

impl Forms for Versions<'_> {
    fn versions(&self) -> Vec<&'static Resource> {
        // What a webhook converts is shown to others as it was sent: one call may not wait for another.
        if self.entry.custom.as_ref().is_some_and(|c| !c.definition.conversion.is_by_name()) {
            return vec![self.target.resource];
        }
        let mut rows = self.catalog.versions(&self.entry.storage);
        rows.sort_by_key(|r| (r.group, r.version));
        rows
    }

    fn show(&self, row: &Resource, stored: &Value) -> Value {
        if self.target.subresource == "scale" {
            return scale::document(self.target, self.entry.custom.as_ref(), stored);
        }
        if !self.is_plain() {
            return stored.clone();
        }
        self.in_version(row, stored.clone(), |strategy, object| strategy.wire_form(object))
    }

    fn take(&self, row: &Resource, shown: Value, stored: &mut Value) -> Result<(), Status> {
        if self.target.subresource == "scale" {
            let replicas = shown["spec"]["replicas"].as_i64().unwrap_or_default();
            scale::put_replicas(self.entry.custom.as_ref(), stored, replicas.into());
            return self.entry.strategy.defaults(stored);
        }
        if !self.is_plain() {
            *stored = shown;
            return Ok(());
        }
        let back = if self.entry.custom.is_some() { self.target.resource } else { row };
        let mut taken = self.in_version(back, shown, |strategy, object| strategy.storage_form(object));
        let fields = managed::take(&mut taken);
        self.entry.strategy.defaults(&mut taken)?;
        meta::metadata(&mut taken)?;
        managed::put(&mut taken, Some(fields).filter(|f| !f.is_null()));
        *stored = taken;
        Ok(())
    }
}
