//! Decides: the rules of a ClusterRole with an `aggregationRule` are those of the ClusterRoles that it selects.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde_json::{Value, json};

use super::action::{Controller, Enqueue, Moment, Name, Plan};
use super::owners;
use super::stores::{Stores, row};
use crate::client::request::{Request, Verb};
use crate::client::store::{Kind, Meta};

pub const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";

/// What is kept of a ClusterRole. There are a hundred in any cluster: the rules are kept as text.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "ClusterRole")]
pub struct Role {
    metadata: ObjectMeta,
    /// `None` for one that has rules of its own.
    selectors: Option<Vec<LabelSelector>>,
    /// Each as JSON.
    rules: Vec<Box<str>>,
}

impl From<ClusterRole> for Role {
    fn from(role: ClusterRole) -> Self {
        let metadata = ObjectMeta { annotations: None, ..role.metadata };
        let selectors = role.aggregation_rule.map(|rule| rule.cluster_role_selectors.unwrap_or_default());
        Self { metadata, selectors, rules: role.rules.into_iter().flatten().map(text).collect() }
    }
}

impl Kind for Role {
    fn meta(&self) -> &dyn Meta {
        &self.metadata
    }
}

/// An empty list and none are the same.
fn text(rule: PolicyRule) -> Box<str> {
    let some = |list: Option<Vec<String>>| list.filter(|l| !l.is_empty());
    let rule = PolicyRule {
        verbs: rule.verbs,
        api_groups: some(rule.api_groups),
        resources: some(rule.resources),
        resource_names: some(rule.resource_names),
        non_resource_urls: some(rule.non_resource_urls),
    };
    serde_json::to_string(&rule).unwrap_or_default().into()
}

/// Keys are ClusterRoles.
pub struct ClusterRoleAggregation;

impl Controller for ClusterRoleAggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let (queue, roles) = (enqueue.clone(), Arc::clone(&stores.cluster_roles));
        stores.cluster_roles.subscribe(move |change| {
            let read = |role: &Role| (role.metadata.labels.clone(), role.selectors.clone(), role.rules.clone());
            if change.old.map(|r| read(r)) == change.new.map(|r| read(r)) {
                return;
            }
            // Aggregates may be parts of others: whoever selects one of these is not known without looking.
            for role in roles.all().iter().filter(|r| r.selectors.is_some()) {
                queue.add("", role.metadata.name());
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _: Moment<'_>) -> Plan {
        plan(&stores.cluster_roles.list(""), &key.name)
    }
}

/// `roles`: all of them, by name.
fn plan(roles: &[Arc<Role>], name: &str) -> Plan {
    let mut plan = Plan::default();
    let Some(role) = roles.iter().find(|r| r.metadata.name() == name) else { return plan };
    let Some(selectors) = &role.selectors else { return plan };
    let mut wanted: Vec<&str> = Vec::new();
    for selector in selectors {
        let selected = |r: &&Arc<Role>| {
            let labels = r.metadata.labels.as_ref();
            r.metadata.name() != name && (owners::is_empty(selector) || owners::selects(selector, labels))
        };
        for rule in roles.iter().filter(selected).flat_map(|r| &r.rules) {
            if !wanted.contains(&&**rule) {
                wanted.push(rule);
            }
        }
    }
    if wanted.iter().copied().eq(role.rules.iter().map(|r| &**r)) {
        return plan;
    }
    let rules: Vec<Value> = wanted.iter().filter_map(|rule| serde_json::from_str(rule).ok()).collect();
    let meta = &role.metadata;
    let body = json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version }, "rules": rules });
    plan.push(Request::new(Verb::MergePatch, row(CLUSTER_ROLES), "", name, body));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::controllers::action::Action;

    fn rule(resource: &str) -> Value {
        json!({ "apiGroups": [""], "resources": [resource], "verbs": ["get"] })
    }

    fn role(name: &str, label: &str, rules: &[Value]) -> Value {
        json!({ "metadata": { "name": name, "uid": name, "resourceVersion": "1", "labels": { label: "true" } },
            "rules": rules })
    }

    fn aggregate(name: &str, of: &[Value], rules: &[Value]) -> Value {
        json!({ "metadata": { "name": name, "uid": name, "resourceVersion": "1", "labels": { "own": "true" } },
            "aggregationRule": { "clusterRoleSelectors": of }, "rules": rules })
    }

    fn labelled(label: &str) -> Value {
        json!({ "matchLabels": { label: "true" } })
    }

    /// The resources of the rules that the aggregate `x` gets; `None` when nothing is written.
    fn check(roles: &[Value], want: Option<&[&str]>) {
        let roles: Vec<Arc<Role>> =
            roles.iter().map(|r| Arc::new(serde_json::from_value(r.clone()).unwrap())).collect();
        let plan = plan(&roles, "x");
        let got = plan.actions.first().map(|action| {
            let Action::Write(write) = action else { panic!("{action:?}") };
            let rules = write.request.body["rules"].as_array().unwrap();
            rules.iter().map(|r| r["resources"][0].as_str().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(got.as_deref(), want);
    }

    #[test]
    fn rules_are_those_of_the_selected_roles() {
        let (a, b) = (role("a", "l", &[rule("pods"), rule("nodes")]), role("b", "l", &[rule("secrets"), rule("pods")]));
        let other = role("c", "m", &[rule("events")]);
        let all = |x: Value| vec![a.clone(), b.clone(), other.clone(), x];
        let of_l = [labelled("l")];
        // By name of the role, each once.
        check(&all(aggregate("x", &of_l, &[])), Some(&["pods", "nodes", "secrets"]));
        check(&all(aggregate("x", &of_l, &[rule("pods"), rule("nodes"), rule("secrets")])), None);
        // What was added by hand goes; so does what has lost its role.
        check(
            &all(aggregate("x", &of_l, &[rule("pods"), rule("nodes"), rule("secrets"), rule("z")])),
            Some(&["pods", "nodes", "secrets"]),
        );
        check(&all(aggregate("x", &[labelled("none")], &[rule("pods")])), Some(&[]));
        // Selector by selector, never itself; an empty one selects everything.
        check(
            &all(aggregate("x", &[labelled("m"), labelled("l")], &[])),
            Some(&["events", "pods", "nodes", "secrets"]),
        );
        check(&all(aggregate("x", &[labelled("own")], &[rule("pods")])), Some(&[]));
        check(&all(aggregate("x", &[json!({})], &[])), Some(&["pods", "nodes", "secrets", "events"]));
        check(&all(role("x", "l", &[rule("z")])), None);
        check(&all(json!({ "metadata": { "name": "x" }, "aggregationRule": {} })), None);
    }

    #[test]
    fn aggregates_may_be_parts_of_others() {
        let stores = Stores::new();
        let put = |role: &Value| stores.cluster_roles.put(serde_json::from_value(role.clone()).unwrap());
        let mut edit = aggregate("edit", &[labelled("to-edit")], &[]);
        edit["metadata"]["labels"] = json!({ "to-admin": "true" });
        put(&aggregate("admin", &[labelled("to-admin")], &[]));
        put(&edit);
        put(&role("part", "to-edit", &[rule("pods")]));
        let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, failure: None };
        let plan = |name: &str| ClusterRoleAggregation.plan(&stores, &Name::new("", name), moment).actions;
        assert_eq!(plan("admin"), []);
        let [Action::Write(write)] = &plan("edit")[..] else { panic!("it has a part") };
        let request = &write.request;
        assert_eq!(
            (request.verb, request.name.as_str(), &request.body["metadata"]["resourceVersion"]),
            (Verb::MergePatch, "edit", &json!("1"))
        );
        edit["rules"] = request.body["rules"].clone();
        put(&edit);
        let [Action::Write(write)] = &plan("admin")[..] else { panic!("its part has rules now") };
        assert_eq!(write.request.body["rules"], json!([rule("pods")]));
        assert_eq!(plan("edit"), []);
        assert_eq!(plan("part"), []);
    }
}
