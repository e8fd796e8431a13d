//! Decides by roles and bindings. Holds a compiled [`Snapshot`] and replaces it when one of the four resources changed.

use std::sync::Arc;

use k8s_openapi::api::authorization::v1::{NonResourceRule, ResourceRule, SubjectRulesReviewStatus};
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};

use super::rules::allows;
use super::snapshot::{BINDINGS, CLUSTER_BINDINGS, CLUSTER_ROLES, Grant, ROLES, Snapshot};
use super::{Attributes, Decision};
use crate::api::user::{SYSTEM_MASTERS, User};
use crate::server::objects::{Derived, SharedObjects};

pub struct Rbac(Derived<Snapshot, 4>);

impl Rbac {
    #[must_use]
    pub fn new(objects: &SharedObjects) -> Self {
        Self(Derived::new(objects, [ROLES, BINDINGS, CLUSTER_ROLES, CLUSTER_BINDINGS], Snapshot::compile))
    }

    #[must_use]
    pub fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        let namespace = match attributes {
            Attributes::Resource(a) => a.namespace,
            Attributes::Path { .. } => "",
        };
        let snapshot = self.snapshot();
        let mut missing: Vec<&str> = Vec::new();
        for grant in snapshot.grants(&user.name, &user.groups, namespace) {
            match grant {
                Ok(rules) if rules.iter().any(|r| allows(r, attributes)) => return Decision::Allow,
                Ok(_) => {}
                Err(why) => missing.push(why),
            }
        }
        missing.dedup();
        Decision::Deny(match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// Every rule that a user has in a namespace.
    #[must_use]
    pub fn rules(&self, user: &User, namespace: &str) -> Vec<PolicyRule> {
        let snapshot = self.snapshot();
        let grants = snapshot.grants(&user.name, &user.groups, namespace);
        let mut rules: Vec<PolicyRule> =
            grants.filter_map(|g| g.as_ref().ok()).flat_map(|r| r.iter().cloned()).collect();
        // Where the cluster's binding of the group isn't there yet, or is broken, the group still may do everything.
        if user.in_group(SYSTEM_MASTERS) {
            let all = || Some(vec!["*".to_owned()]);
            let verbs = vec!["*".to_owned()];
            rules.push(PolicyRule { api_groups: all(), resources: all(), verbs: verbs.clone(), ..Default::default() });
            rules.push(PolicyRule { non_resource_urls: all(), verbs, ..Default::default() });
        }
        rules
    }

    /// The rules of the role that a binding in `namespace` refers to.
    ///
    /// # Errors
    /// What upstream says when the role doesn't exist.
    pub fn role(&self, namespace: &str, reference: &RoleRef) -> Grant {
        self.snapshot().role(namespace, reference)
    }

    /// What a SelfSubjectRulesReview is answered.
    #[must_use]
    pub fn review(&self, user: &User, namespace: &str) -> SubjectRulesReviewStatus {
        let mut status = SubjectRulesReviewStatus::default();
        for rule in self.rules(user, namespace) {
            if rule.resources.as_ref().is_some_and(|r| !r.is_empty()) {
                status.resource_rules.push(ResourceRule {
                    api_groups: rule.api_groups,
                    resource_names: rule.resource_names,
                    resources: rule.resources,
                    verbs: rule.verbs.clone(),
                });
            }
            if rule.non_resource_urls.as_ref().is_some_and(|u| !u.is_empty()) {
                let urls = rule.non_resource_urls;
                status.non_resource_rules.push(NonResourceRule { non_resource_urls: urls, verbs: rule.verbs });
            }
        }
        if super::node::identity(user).is_some() {
            status.incomplete = true;
            status.evaluation_error = Some("node authorizer does not support user rule resolution".into());
        }
        status
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.0.get()
    }
}
