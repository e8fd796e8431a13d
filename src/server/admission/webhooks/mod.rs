//! Effects: MutatingAdmissionWebhook and ValidatingAdmissionWebhook: asks those webhooks about a write whose rules and
//! selectors are about it.
//!
//! ```text
//! mutating    one after the other, by the name of their configuration; each sees what those before it made.
//!             After a change the plugins run again, then once more those that asked for it (IfNeeded)
//! validating  all at once
//! ```
//!
//! - [`config`]: the webhooks that there are
//! - [`rules`]: what they are about
//! - [`review`]: what they are asked, and what they say
//! - [`patch`]: what they change

pub mod config;
pub mod patch;
pub mod review;
pub mod rules;

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::join_all;
use serde_json::{Value, json};

use self::config::{Hook, Hooks};
use self::review::Verdict;
use super::expressions::{self, Input, Matched};
use super::{Attributes, Operation};
use crate::api::resource::Resource;
use crate::api::status::Status;
use crate::server::authz::Authorizer;
use crate::server::objects::SharedObjects;
use crate::server::registry::request::{DeleteOptions, FieldValidation, WriteOptions};
use crate::server::webhook::{CallError, Client};

/// The object of a write in the versions that serve it. Objects are kept in the version that is stored.
pub trait Forms: Send + Sync {
    /// Every version of the resource of the request.
    fn versions(&self) -> Vec<&'static Resource>;

    /// A stored document as a client of this version knows it.
    fn show(&self, row: &Resource, stored: &Value) -> Value;

    /// Puts what a client of this version knows in the place of a stored document, with its defaults.
    ///
    /// # Errors
    /// When it is no object of its kind.
    fn take(&self, row: &Resource, shown: Value, stored: &mut Value) -> Result<(), Status>;
}

/// What the client asked for beside the object.
#[derive(Clone, Copy, Debug)]
pub enum Options<'a> {
    Write(&'a WriteOptions),
    Delete(&'a DeleteOptions),
    /// A connection has none.
    None,
}

/// A write as a webhook gets to see it.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub attributes: &'a Attributes<'a>,
    pub options: Options<'a>,
    pub forms: &'a dyn Forms,
    /// In the version that is stored; `None` on delete.
    pub object: Option<&'a Value>,
}

/// One webhook that has rules about a write, and the version in which it wants to see the object.
pub struct Call {
    hook: Arc<Hook>,
    row: &'static Resource,
}

/// The two plugins.
pub struct Webhooks {
    objects: SharedObjects,
    authorizer: Arc<Authorizer>,
    client: Arc<Client>,
    mutating: Hooks,
    validating: Hooks,
}

/// What mutating webhooks, or policies, did, for what is left to do.
#[derive(Default)]
pub struct Rounds {
    /// Asked before the last change, and willing to be asked again.
    before: HashSet<String>,
    again: HashSet<String>,
    is_second: bool,
    pub changed: bool,
}

/// Why a webhook's word is not a yes.
enum Failed {
    /// It could not be asked: what comes of that is for its failure policy to say.
    Call(String),
    /// It said no, or did what no policy excuses.
    Refused(Status),
}

impl Webhooks {
    #[must_use]
    pub fn new(objects: SharedObjects, authorizer: Arc<Authorizer>, client: Arc<Client>) -> Self {
        let (mutating, validating) =
            (config::hooks(&objects, config::MUTATING), config::hooks(&objects, config::VALIDATING));
        Self { objects, authorizer, client, mutating, validating }
    }

    /// The mutating webhooks with rules about this write.
    #[must_use]
    pub fn mutating(&self, attributes: &Attributes<'_>, forms: &dyn Forms) -> Vec<Call> {
        self.about(&self.mutating, attributes, forms)
    }

    /// The validating ones.
    #[must_use]
    pub fn validating(&self, attributes: &Attributes<'_>, forms: &dyn Forms) -> Vec<Call> {
        self.about(&self.validating, attributes, forms)
    }

    fn about(&self, hooks: &Hooks, attributes: &Attributes<'_>, forms: &dyn Forms) -> Vec<Call> {
        let hooks = hooks.get();
        if hooks.is_empty() || rules::exempt(attributes) {
            return Vec::new();
        }
        let matched = |hook: &Arc<Hook>| {
            let row = rules::matched(&hook.rules, hook.equivalent, attributes, forms)?;
            Some(Call { hook: hook.clone(), row })
        };
        hooks.iter().filter_map(matched).collect()
    }

    /// One round of mutating webhooks; of the second, only those that have to see what changed.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn mutate(
        &self,
        calls: &[Call],
        attributes: &Attributes<'_>,
        options: Options<'_>,
        forms: &dyn Forms,
        object: &mut Option<Value>,
        rounds: &mut Rounds,
    ) -> Result<(), Status> {
        for call in calls {
            let (hook, row) = (&*call.hook, call.row);
            let seen = Seen { attributes, options, forms, object: object.as_ref() };
            if !self.wants(hook, &seen, row)? || (rounds.is_second && !rounds.again.contains(&hook.uid)) {
                continue;
            }
            let changed = match self.ask(hook, &seen, row, true).await.and_then(|v| patched(hook, &seen, row, &v)) {
                Ok(None) => false,
                Ok(Some(shown)) => {
                    let stored = object.as_mut().ok_or_else(|| Status::internal("a patch of nothing"))?;
                    let before = stored.clone();
                    // What the client sent was good: what is wrong now is the webhook's.
                    forms.take(row, shown, stored).map_err(Status::internal)?;
                    *stored != before
                }
                Err(failed) => {
                    failed.excused(hook)?;
                    false
                }
            };
            if changed {
                rounds.require();
            }
            rounds.asked(hook.uid.clone(), hook.again);
        }
        Ok(())
    }

    /// Asks all validating webhooks.
    ///
    /// # Errors
    /// The refusal of the first that has one.
    pub async fn validate(&self, calls: &[Call], seen: &Seen<'_>) -> Result<(), Status> {
        let mut asked = Vec::new();
        for Call { hook, row } in calls {
            if self.wants(hook, seen, row)? {
                asked.push(async move {
                    match self.ask(hook, seen, row, false).await {
                        Ok(_) => Ok(()),
                        Err(failed) => failed.excused(hook),
                    }
                });
            }
        }
        join_all(asked).await.into_iter().collect()
    }

    /// Whether the selectors and the conditions of a webhook, beside its rules, are about this write.
    fn wants(&self, hook: &Hook, seen: &Seen<'_>, row: &Resource) -> Result<bool, Status> {
        if !rules::selected(&hook.namespaces, &hook.objects, seen, &*self.objects)? {
            return Ok(false);
        }
        if hook.conditions.is_empty() {
            return Ok(true);
        }
        let (a, nothing) = (seen.attributes, Value::Null);
        let show = |v: Option<&Value>| v.map(|v| seen.forms.show(row, v)).unwrap_or_default();
        let (object, old, request) = (show(seen.object), show(a.old), review::without_objects(seen, row));
        let input = Input {
            object: &object,
            old: &old,
            request: &request,
            namespace: &nothing,
            params: &nothing,
            authorizer: &self.authorizer,
            user: &a.cx.user,
        };
        match expressions::matched(&hook.conditions, &input.bindings()) {
            Matched::Yes => Ok(true),
            Matched::No => Ok(false),
            Matched::Failed(_) if hook.ignore_failures => Ok(false),
            Matched::Failed(why) => Err(Status::forbidden(a.resource, a.name, &why)),
        }
    }

    /// Sends the review, and reads the answer. Warnings go to the client whatever the verdict.
    async fn ask(&self, hook: &Hook, seen: &Seen<'_>, row: &Resource, mutating: bool) -> Result<Verdict, Failed> {
        let a = seen.attributes;
        if a.dry_run && !hook.without_side_effects {
            return Err(Failed::Refused(review::no_dry_run(&hook.name)));
        }
        let version = hook.version.ok_or_else(|| {
            let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            Failed::Call(format!("could not create admission objects: {why}"))
        })?;
        let uid = uuid::Uuid::new_v4().to_string();
        let show = |v: &Value| seen.forms.show(row, v);
        let review = review::request(&uid, version, seen, row, seen.object.map(show), a.old.map(show));
        let answer = self.client.call(&hook.client, &review, hook.timeout).await.map_err(|e| {
            Failed::Call(match e {
                CallError::Unusable(why) => format!("could not get REST client: {why}"),
                other => format!("failed to call webhook: {other}"),
            })
        })?;
        let verdict = review::response(&hook.name, &uid, version, mutating, answer)
            .map_err(|why| Failed::Call(format!("received invalid webhook response: {why}")))?;
        verdict.warnings.iter().for_each(|w| a.cx.warn(w.as_str()));
        verdict.allowed.clone().map_err(Failed::Refused)?;
        Ok(verdict)
    }
}

/// What a patch makes of the object that the webhook saw; `None` when it changes nothing.
fn patched(hook: &Hook, seen: &Seen<'_>, row: &Resource, verdict: &Verdict) -> Result<Option<Value>, Failed> {
    if verdict.patch.is_empty() {
        return Ok(None);
    }
    let patch: json_patch::Patch = serde_json::from_slice(&verdict.patch)
        .map_err(|e| Failed::Call(format!("received undecodable patch in webhook response: {e}")))?;
    if patch.0.is_empty() {
        return Ok(None);
    }
    let Some(object) = seen.object else {
        let name = &hook.name;
        return Err(Failed::Refused(Status::internal(format!(
            "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
        ))));
    };
    verdict.check_patch_type().map_err(Failed::Call)?;
    let mut shown = seen.forms.show(row, object);
    patch::apply(&mut shown, &patch).map_err(|why| Failed::Refused(Status::internal(why)))?;
    Ok(Some(shown))
}

impl Rounds {
    /// There is a second round when something changed in the first.
    pub fn second(&mut self, changed_since: bool) {
        self.is_second = true;
        if changed_since {
            self.require();
        }
    }

    /// Who has seen everything that changed is not asked again.
    #[must_use]
    pub fn skips(&self, who: &str) -> bool {
        self.is_second && !self.again.contains(who)
    }

    /// `again`: may be asked again, should something change after this.
    pub fn asked(&mut self, who: String, again: bool) {
        if again {
            self.before.insert(who);
        }
    }

    /// Everyone who was asked before has to see the change.
    pub fn require(&mut self) {
        self.changed = true;
        self.again.extend(self.before.drain());
    }
}

impl Failed {
    fn excused(self, hook: &Hook) -> Result<(), Status> {
        let error = match self {
            Self::Refused(status) => return Err(status),
            Self::Call(why) => format!("failed calling webhook {:?}: {why}", hook.name),
        };
        if hook.ignore_failures {
            tracing::warn!(webhook = hook.name, error, "a webhook that cannot be asked is passed over");
            return Ok(());
        }
        Err(Status::internal(error))
    }
}

impl Options<'_> {
    /// `CreateOptions`, `UpdateOptions` or `DeleteOptions`. A patch has those of the update, or create, that comes of it.
    fn document(&self, operation: Operation, dry_run: bool) -> Value {
        let mut document = match self {
            Self::None => return Value::Null,
            Self::Delete(options) => serde_json::to_value(options).unwrap_or_default(),
            Self::Write(options) => {
                let mut document = json!({});
                if options.names_manager {
                    document["fieldManager"] = options.field_manager.as_str().into();
                }
                match options.field_validation {
                    FieldValidation::Strict => document["fieldValidation"] = "Strict".into(),
                    FieldValidation::Ignore => document["fieldValidation"] = "Ignore".into(),
                    FieldValidation::Warn => {}
                }
                document
            }
        };
        if dry_run {
            document["dryRun"] = json!(["All"]);
        }
        document["kind"] = match operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return Value::Null,
        }
        .into();
        document["apiVersion"] = "meta.k8s.io/v1".into();
        document
    }
}

#[cfg(test)]
mod tests;
