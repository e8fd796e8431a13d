//! Decides: what `authorizer` answers in an expression: whether the user of the request, or a service account, may do
//! something.
//!
//! ```text
//! authorizer ─▶ path ─────────────────────────────────────────▶ check ─▶ decision: allowed, reason
//!            ├▶ group ─▶ resource ─▶ subresource, namespace, name… ─▶ check ─┘
//!            └▶ serviceAccount ─▶ authorizer
//! ```

use std::fmt;
use std::sync::Arc;

use crate::api::selector::FieldSelector;
use crate::api::user::{SYSTEM_AUTHENTICATED, User};
use crate::server::authn::claims::user_name;
use crate::server::authz::{Attributes, Authorizer, Decision, ResourceAttributes};
use crate::server::cel::functions::opaque::{AUTHORIZER, DECISION, GROUP_CHECK, PATH_CHECK, RESOURCE_CHECK};
use crate::server::cel::value::Host;
use crate::server::cel::{Error, Value};

/// One step of the way to a decision.
#[derive(Clone)]
pub struct Asked {
    authorizer: Arc<Authorizer>,
    user: User,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Start,
    Path(String),
    Group(String),
    Resource(Resource),
    Decided(Decision),
}

#[derive(Clone, Debug, Default)]
struct Resource {
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    fields: Option<FieldSelector>,
}

impl Asked {
    #[must_use]
    pub fn new(authorizer: Arc<Authorizer>, user: User) -> Self {
        Self { authorizer, user, step: Step::Start }
    }

    fn then(&self, step: Step) -> Value<'static> {
        Value::Host(Arc::new(Self { step, ..self.clone() }))
    }

    fn check(&self, verb: &str) -> Result<Value<'static>, Error> {
        let attributes = match &self.step {
            Step::Path(path) => Attributes::Path { verb, path },
            Step::Resource(r) => Attributes::Resource(ResourceAttributes {
                verb,
                group: &r.group,
                resource: &r.resource,
                subresource: &r.subresource,
                namespace: &r.namespace,
                name: &r.name,
                fields: r.fields.as_ref(),
            }),
            _ => return Err(Error::no_overload()),
        };
        Ok(self.then(Step::Decided(self.authorizer.authorize(&self.user, &attributes))))
    }

    fn service_account(&self, namespace: &str, name: &str) -> Value<'static> {
        let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), SYSTEM_AUTHENTICATED];
        let user = User::new(&user_name(namespace, name), &groups);
        Value::Host(Arc::new(Self { user, ..self.clone() }))
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.step, self.user.name)
    }
}

impl Host for Asked {
    fn type_name(&self) -> &'static str {
        match self.step {
            Step::Start => AUTHORIZER,
            Step::Path(_) => PATH_CHECK,
            Step::Group(_) => GROUP_CHECK,
            Step::Resource(_) => RESOURCE_CHECK,
            Step::Decided(_) => DECISION,
        }
    }

    fn call(&self, function: &str, arguments: &[Value<'_>]) -> Result<Value<'static>, Error> {
        let text =
            |i: usize| arguments.get(i).and_then(Value::as_str).map(str::to_owned).ok_or_else(Error::no_overload);
        let refined = |r: &Resource, change: &dyn Fn(&mut Resource, String)| {
            let mut refined = r.clone();
            change(&mut refined, text(0)?);
            Ok(self.then(Step::Resource(refined)))
        };
        match (&self.step, function) {
            (Step::Start, "path") => Ok(self.then(Step::Path(text(0)?))),
            (Step::Start, "group") => Ok(self.then(Step::Group(text(0)?))),
            (Step::Start, "serviceAccount") => Ok(self.service_account(&text(0)?, &text(1)?)),
            (Step::Group(group), "resource") => {
                let (group, resource) = (group.clone(), text(0)?);
                Ok(self.then(Step::Resource(Resource { group, resource, ..Resource::default() })))
            }
            (Step::Resource(r), "subresource") => refined(r, &|r, text| r.subresource = text),
            (Step::Resource(r), "namespace") => refined(r, &|r, text| r.namespace = text),
            (Step::Resource(r), "name") => refined(r, &|r, text| r.name = text),
            // A selector that is none restricts nothing, as in a request.
            (Step::Resource(r), "fieldSelector") => refined(r, &|r, text| r.fields = FieldSelector::parse(&text).ok()),
            // Nobody's rights depend on labels.
            (Step::Resource(r), "labelSelector") => refined(r, &|_, _| {}),
            (Step::Path(_) | Step::Resource(_), "check") => self.check(&text(0)?),
            (Step::Decided(decision), "allowed") => Ok(Value::Bool(*decision == Decision::Allow)),
            (Step::Decided(Decision::Deny(reason)), "reason") => Ok(Value::text(reason)),
            (Step::Decided(Decision::Allow), "reason") | (Step::Decided(_), "error") => Ok(Value::text("")),
            // Rights are looked up in memory, which does not fail.
            (Step::Decided(_), "errored") => Ok(Value::Bool(false)),
            _ => Err(Error::no_overload()),
        }
    }
}
