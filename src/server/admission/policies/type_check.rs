//! Decides: whether the expressions of a policy fit the kinds that it is about (`policy/validating/typechecking.go` of
//! upstream). Nobody is refused for that: it is told in the status.

use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, ValidatingAdmissionPolicySpec, Variable as Given,
};

use crate::api::resource::Resource;
use crate::server::admission::expressions::variables::{Variable, declared};
use crate::server::admission::expressions::{Expression, Typed, of_typed_policies};
use crate::server::cel::{Decl, Environment, Program, render};

/// Kinds of one rule that are looked at.
const MOST: usize = 10;

/// What is known of kinds.
pub trait Kinds {
    /// The row of a resource as a rule names it.
    fn row(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource>;

    /// What expressions see of the objects of a kind; `None` when nothing is known of it.
    fn declared(&self, api_version: &str, kind: &str) -> Option<Decl>;
}

/// In the order of the fields.
#[must_use]
pub fn check(spec: &ValidatingAdmissionPolicySpec, kinds: &dyn Kinds) -> Vec<ExpressionWarning> {
    let params = spec.param_kind.as_ref().and_then(|kind| {
        kinds.declared(kind.api_version.as_deref().unwrap_or_default(), kind.kind.as_deref().unwrap_or_default())
    });
    let variables = spec.variables.as_deref().unwrap_or_default();
    let environments: Vec<(String, Environment)> = rows(spec, kinds)
        .into_iter()
        .filter_map(|row| {
            let object = kinds.declared(&row.api_version(), row.kind)?;
            Some((shown(row), environment(&Typed { object, params: params.clone() }, variables)))
        })
        .collect();
    let mut warnings = Vec::new();
    let mut look = |field_ref: String, expression: &str| {
        let issues: Vec<String> = environments
            .iter()
            .filter_map(|(kind, environment)| {
                let issues = Program::compile(expression, environment).err()?;
                Some(format!("{kind}: {}\n", render(expression, &issues)))
            })
            .collect();
        if !issues.is_empty() {
            warnings.push(ExpressionWarning { field_ref, warning: issues.join("\n") });
        }
    };
    for (i, validation) in spec.validations.iter().flatten().enumerate() {
        look(format!("spec.validations[{i}].expression"), &validation.expression);
        if let Some(message) = validation.message_expression.as_deref().filter(|m| !m.is_empty()) {
            look(format!("spec.validations[{i}].messageExpression"), message);
        }
    }
    warnings
}

/// Variables have the types that they have for this kind. What is wrong with them is told where they are used.
fn environment(typed: &Typed, given: &[Given]) -> Environment {
    let mut variables: Vec<Variable> = Vec::new();
    for one in given {
        let environment = of_typed_policies(typed, declared(&variables));
        let expression = Expression::compile(&one.expression, &environment, &[]);
        variables.push(Variable { name: one.name.clone(), expression });
    }
    of_typed_policies(typed, declared(&variables))
}

/// `apps/v1, Kind=Deployment`
fn shown(row: &Resource) -> String {
    format!("{}/{}, Kind={}", row.group, row.version, row.kind)
}

/// The kinds that the rules name, by group, version and kind. A rule about any group or any version names none.
fn rows(spec: &ValidatingAdmissionPolicySpec, kinds: &dyn Kinds) -> Vec<&'static Resource> {
    let mut found: Vec<&'static Resource> = Vec::new();
    let rules = spec.match_constraints.iter().flat_map(|m| m.resource_rules.iter().flatten());
    for rule in rules {
        let sorted = |list: &Option<Vec<String>>| {
            let mut list = list.clone().unwrap_or_default();
            list.sort();
            list
        };
        let (groups, versions) = (sorted(&rule.api_groups), sorted(&rule.api_versions));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        let mut resources = sorted(&rule.resources);
        resources.retain(|name| !name.contains(['*', '/']));
        let all = groups.iter().flat_map(|group| {
            let resources = &resources;
            versions.iter().flat_map(move |version| resources.iter().map(move |plural| (group, version, plural)))
        });
        let of_rule: Vec<_> =
            all.filter_map(|(group, version, plural)| kinds.row(group, version, plural)).take(MOST).collect();
        let full = of_rule.len() == MOST;
        found.extend(of_rule);
        if full {
            break;
        }
    }
    found.sort_by_key(|row| (row.group, row.version, row.kind));
    found.dedup_by_key(|row| (row.group, row.version, row.kind));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::resource::find;
    use crate::api::schema;
    use crate::server::cel::kinds;

    struct BuiltIn;

    impl Kinds for BuiltIn {
        fn row(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
            find(group, version, plural)
        }

        fn declared(&self, api_version: &str, kind: &str) -> Option<Decl> {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            schema::find(group, version, kind).map(|of| kinds::declare(of, kind))
        }
    }

    fn rule(group: &str, versions: &[&str], resources: &[&str]) -> Value {
        json!({"apiGroups": [group], "apiVersions": versions, "operations": ["*"], "resources": resources})
    }

    fn warnings(mut spec: Value) -> Vec<(String, String)> {
        if spec["matchConstraints"].is_null() {
            spec["matchConstraints"] = json!({"resourceRules": [rule("apps", &["v1"], &["deployments"])]});
        }
        let warnings = check(&serde_json::from_value(spec).unwrap(), &BuiltIn);
        warnings.into_iter().map(|w| (w.field_ref, w.warning)).collect()
    }

    /// What is said of one expression about Deployments; empty when it fits.
    #[track_caller]
    fn says(expression: &str, want: &str) {
        let said = warnings(json!({"validations": [{"expression": expression}]}));
        let said: Vec<&str> = said.iter().map(|(_, text)| text.lines().next().unwrap()).collect();
        let want: Vec<String> =
            if want.is_empty() { Vec::new() } else { vec![format!("apps/v1, Kind=Deployment: ERROR: <input>:{want}")] };
        assert_eq!(said, want, "{expression}");
    }

    #[test]
    fn fields_are_those_of_the_kind() {
        says("object.spec.replicas > 1", "");
        says("object.replicas > 1", "1:7: undefined field 'replicas'");
        says("oldObject == null || oldObject.spec.replicas <= object.spec.replicas", "");
        says("object.spec.replicas == '1'", "1:22: found no matching overload for '_==_' applied to '(int, string)'");
        says("object.spec.template.spec.containers.all(c, c.image.startsWith('a/'))", "");
        says("object.spec.template.spec.containers.all(c, c.picture == '')", "1:46: undefined field 'picture'");
        says(
            "object.metadata.labels['a'] == 'b' && object.metadata.creationTimestamp < timestamp('2026-01-01T00:00:00Z')",
            "",
        );
        says("object.spec.template.spec.containers[0].resources.limits['cpu'] == '1'", "");
        says("object.spec.strategy.rollingUpdate.maxSurge == '25%'", "");
        says("has(object.spec.template.spec.__namespace__)", "1:4: undefined field '__namespace__'");
        says("request.userInfo.username == 'a' && namespaceObject.metadata.name == 'b'", "");
        says("authorizer.group('').resource('endpoints').check('create').allowed()", "");
        says(
            "authorizer.allowed()",
            "1:19: found no matching overload for 'allowed' applied to 'kubernetes.authorization.Authorizer.()'",
        );
    }

    #[test]
    fn a_warning_says_where_and_for_which_kinds() {
        let spec = json!({
            "matchConstraints": {"resourceRules": [rule("apps", &["v1"], &["statefulsets", "deployments"]), rule("", &["v1"], &["pods"])]},
            "validations": [
                {"expression": "object.spec.replicas > 1", "messageExpression": "object.foo"},
                {"expression": "object.metadata.name != ''"},
            ],
        });
        let found = warnings(spec);
        let refs: Vec<&str> = found.iter().map(|(at, _)| at.as_str()).collect();
        assert_eq!(refs, ["spec.validations[0].expression", "spec.validations[0].messageExpression"]);
        assert_eq!(
            found[0].1,
            "/v1, Kind=Pod: ERROR: <input>:1:12: undefined field 'replicas'\n | object.spec.replicas > 1\n | ...........^\n"
        );
        let kinds: Vec<&str> = found[1].1.split("\n\n").map(|one| one.split(": ").next().unwrap()).collect();
        assert_eq!(kinds, ["/v1, Kind=Pod", "apps/v1, Kind=Deployment", "apps/v1, Kind=StatefulSet"]);
    }

    #[test]
    fn variables_and_parameters_have_types() {
        let check = |spec: Value, want: &[&str]| {
            let found = warnings(spec);
            let messages: Vec<&str> =
                found.iter().map(|(_, t)| t.lines().next().unwrap().splitn(5, ':').last().unwrap().trim()).collect();
            let messages: Vec<&str> = messages.iter().map(|m| m.split_once(": ").map_or(*m, |(_, m)| m)).collect();
            assert_eq!(messages, want);
        };
        let variables =
            json!([{"name": "n", "expression": "object.spec.replicas"}, {"name": "bad", "expression": "object.foo"}]);
        let with = |expression: &str| json!({"variables": variables, "validations": [{"expression": expression}]});
        check(with("variables.n > 1"), &[]);
        check(with("variables.n == 'one'"), &["found no matching overload for '_==_' applied to '(int, string)'"]);
        check(with("variables.nonExisting"), &["undefined field 'nonExisting'"]);
        // What has no type fits everything.
        check(with("variables.bad == 1 || variables.bad == ''"), &[]);
        let params = |kind: &str, expression: &str| json!({"paramKind": {"apiVersion": "v1", "kind": kind}, "validations": [{"expression": expression}]});
        check(params("ConfigMap", "params == null || params.data['a'] == 'b'"), &[]);
        check(params("ConfigMap", "params.spec.a"), &["undefined field 'spec'"]);
        check(params("Unknown", "params.spec.a"), &["undeclared reference to 'params' (in container '')"]);
    }

    #[test]
    fn which_kinds_are_looked_at() {
        let check = |rules: Vec<Value>, want: &[&str]| {
            let spec = serde_json::from_value(json!({"matchConstraints": {"resourceRules": rules}})).unwrap();
            assert_eq!(rows(&spec, &BuiltIn).iter().map(|row| row.kind).collect::<Vec<_>>(), want);
        };
        check(vec![], &[]);
        check(vec![rule("apps", &["v1"], &["deployments", "deployments/scale", "*"])], &["Deployment"]);
        check(vec![rule("*", &["v1"], &["deployments"]), rule("apps", &["*"], &["deployments"])], &[]);
        check(
            vec![rule("apps", &["v1"], &["unknown"]), rule("apps", &["v1", "v2"], &["replicasets"])],
            &["ReplicaSet"],
        );
        let many = [
            "bindings",
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "nodes",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "secrets",
            "services",
        ];
        let spec = json!({"matchConstraints": {"resourceRules": [rule("", &["v1"], &many), rule("apps", &["v1"], &["deployments"])]}});
        assert_eq!(rows(&serde_json::from_value(spec).unwrap(), &BuiltIn).len(), MOST);
    }

    #[test]
    fn every_kind_can_be_declared() {
        for row in crate::api::resource::RESOURCES {
            assert!(BuiltIn.declared(&row.api_version(), row.kind).is_some(), "{}", row.kind);
        }
    }
}
