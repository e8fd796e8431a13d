//! Decides that nobody hands out more rights than they have. Upstream does this in the storage of roles and bindings
//! (`pkg/registry/rbac/*/policybased`); the effect and the messages are the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::api::status::{Details, Status};
use crate::api::user::SYSTEM_MASTERS;
use crate::server::authz::policy::API_GROUP;
use crate::server::authz::rules::{compact, uncovered};
use crate::server::authz::{Attributes as Request, Authorizer, Decision, ResourceAttributes};

pub struct RbacEscalation {
    authorizer: Arc<Authorizer>,
}

impl RbacEscalation {
    #[must_use]
    pub fn new(authorizer: Arc<Authorizer>) -> Self {
        Self { authorizer }
    }

    fn role(&self, a: &Attributes<'_>, role: &Value) -> Result<(), Status> {
        let unchanged =
            a.old.is_some_and(|old| old["rules"] == role["rules"] && old["aggregationRule"] == role["aggregationRule"]);
        if unchanged || self.may(a, "escalate", a.resource.plural, name(a, role)) {
            return Ok(());
        }
        if !role["aggregationRule"].is_null() && !self.missing(a, &everything()).is_empty() {
            return Err(a.forbidden(Some(role), "must have cluster-admin privileges to use the aggregationRule"));
        }
        let rules: Vec<PolicyRule> = serde_json::from_value(role["rules"].clone()).unwrap_or_default();
        self.confirm(a, role, &rules)
    }

    fn binding(&self, a: &Attributes<'_>, binding: &Value) -> Result<(), Status> {
        let unchanged =
            a.old.is_some_and(|old| old["roleRef"] == binding["roleRef"] && old["subjects"] == binding["subjects"]);
        // A malformed reference is validation's to report.
        let Ok(reference) = serde_json::from_value::<RoleRef>(binding["roleRef"].clone()) else { return Ok(()) };
        let resource = if reference.kind == "Role" { "roles" } else { "clusterroles" };
        if unchanged || self.may(a, "bind", resource, &reference.name) {
            return Ok(());
        }
        let rules = self.authorizer.rbac().role(a.namespace, &reference).map_err(|why| {
            Status::new(404, "NotFound", &*why).with_details(Details {
                name: reference.name.clone(),
                group: API_GROUP.into(),
                kind: resource.trim_end_matches('s').into(),
                ..Details::default()
            })
        })?;
        self.confirm(a, binding, &rules)
    }

    fn may(&self, a: &Attributes<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let namespace = a.namespace;
        let request = ResourceAttributes { verb, group: API_GROUP, resource, namespace, name, ..Default::default() };
        self.authorizer.authorize(&a.cx.user, &Request::Resource(request)) == Decision::Allow
    }

    fn missing(&self, a: &Attributes<'_>, rules: &[PolicyRule]) -> Vec<PolicyRule> {
        uncovered(&self.authorizer.rbac().rules(&a.cx.user, a.namespace), rules)
    }

    fn confirm(&self, a: &Attributes<'_>, object: &Value, rules: &[PolicyRule]) -> Result<(), Status> {
        let missing = self.missing(a, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let lines: BTreeSet<String> = merge(missing).iter().map(compact).collect();
        let lines: Vec<String> = lines.into_iter().collect();
        let groups: Vec<String> = a.cx.user.groups.iter().map(|g| format!("{g:?}")).collect();
        let why = format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            a.cx.user.name,
            groups.join(" "),
            lines.join("\n")
        );
        Err(a.forbidden(Some(object), &why))
    }
}

impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(object) = object.filter(|_| attributes.operation != Operation::Delete) else { return Ok(()) };
        if attributes.resource.group != API_GROUP || attributes.cx.user.in_group(SYSTEM_MASTERS) {
            return Ok(());
        }
        match attributes.resource.plural {
            "roles" | "clusterroles" => self.role(attributes, object),
            "rolebindings" | "clusterrolebindings" => self.binding(attributes, object),
            _ => Ok(()),
        }
    }
}

fn name<'a>(a: &Attributes<'a>, object: &'a Value) -> &'a str {
    if a.name.is_empty() { object["metadata"]["name"].as_str().unwrap_or_default() } else { a.name }
}

/// What cluster-admin has.
fn everything() -> [PolicyRule; 2] {
    let all = || Some(vec!["*".to_owned()]);
    let verbs = || vec!["*".to_owned()];
    [
        PolicyRule { api_groups: all(), resources: all(), verbs: verbs(), ..PolicyRule::default() },
        PolicyRule { non_resource_urls: all(), verbs: verbs(), ..PolicyRule::default() },
    ]
}

/// One rule for each thing, with all its verbs (`CompactRules`).
fn merge(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut merged: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let same = |m: &&mut PolicyRule| {
            m.api_groups == rule.api_groups
                && m.resources == rule.resources
                && m.resource_names == rule.resource_names
                && rule.non_resource_urls.is_none()
                && m.non_resource_urls.is_none()
        };
        match merged.iter_mut().find(same) {
            Some(known) => known.verbs.extend(rule.verbs),
            None => merged.push(rule),
        }
    }
    merged
}
