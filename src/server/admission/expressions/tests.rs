//! Tables of what expressions see and say.

use serde_json::json;

use super::variables::{Computed, Variable, declared};
use super::*;
use crate::api::user::{SYSTEM_AUTHENTICATED, User};
use crate::server::objects::fake::Fake;

/// Somebody who may read pods in `x`, and nothing else.
fn authorizer() -> Arc<Authorizer> {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "r", "namespace": "x"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "b", "namespace": "x"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "alice"}, {"kind": "ServiceAccount", "name": "sa", "namespace": "x"}]});
    Arc::new(Authorizer::new(Fake::new([role, binding])))
}

fn with_input<T>(use_it: impl FnOnce(&Input<'_>) -> T) -> T {
    let (object, request) = (
        json!({"metadata": {"name": "a"}, "spec": {"replicas": 3, "names": ["b", "c"]}}),
        json!({"operation": "CREATE", "dryRun": false, "userInfo": {"username": "alice"}}),
    );
    let (params, namespace) = (json!({"data": {"max": "5"}}), json!({"metadata": {"labels": {"env": "prod"}}}));
    let user = User::new("alice", &[SYSTEM_AUTHENTICATED]);
    let (nothing, authorizer) = (Json::Null, authorizer());
    use_it(&Input {
        object: &object,
        old: &nothing,
        request: &request,
        namespace: &namespace,
        params: &params,
        authorizer: &authorizer,
        user: &user,
    })
}

/// What a policy's expression says, or why it says nothing.
fn check(source: &str, expect: Result<bool, &str>) {
    let expression = Expression::compile(source, &of_policies(None, true), &[Type::Bool]);
    let got = with_input(|input| {
        let mut budget = Budget::default();
        expression.evaluate(&input.bindings(), &mut budget).map(|v| v.as_bool().unwrap())
    });
    assert_eq!(got, expect.map_err(str::to_owned), "{source}");
}

#[test]
fn expressions_see_the_write() {
    check("object.spec.replicas > 2 && oldObject == null", Ok(true));
    check("request.operation == 'CREATE' && request.userInfo.username == 'alice'", Ok(true));
    check("object.spec.replicas <= int(params.data.max)", Ok(true));
    check("namespaceObject.metadata.labels.env == 'prod'", Ok(true));
    check("object.spec.none == 1", Err("expression 'object.spec.none == 1' resulted in error: no such key: none"));
    check("1", Err("compilation error: must evaluate to bool"));
    check(
        "nothing == 1",
        Err(
            "compilation error: compilation failed: ERROR: <input>:1:1: undeclared reference to 'nothing' (in container \
             '')\n | nothing == 1\n | ^",
        ),
    );
}

#[test]
fn the_authorizer_knows_who_may_do_what() {
    let pods = "authorizer.group('').resource('pods').namespace('x')";
    check(&format!("{pods}.check('get').allowed()"), Ok(true));
    check(&format!("{pods}.check('delete').allowed()"), Ok(false));
    check(&format!("{pods}.subresource('log').check('get').allowed()"), Ok(false));
    check("authorizer.path('/metrics').check('get').allowed()", Ok(false));
    let account = "authorizer.serviceAccount('x', 'sa').group('').resource('pods')";
    check(&format!("{account}.namespace('x').check('get').allowed()"), Ok(true));
    check(&format!("{account}.namespace('y').check('get').allowed()"), Ok(false));
    check(&format!("{pods}.check('get').errored() || {pods}.check('get').error() != ''"), Ok(false));
}

#[test]
fn conditions_are_all_true_or_one_is_false() {
    let check = |sources: &[&str], expect: Matched| {
        let given: Vec<MatchCondition> =
            sources.iter().map(|s| MatchCondition { name: "c".into(), expression: (*s).to_owned() }).collect();
        let conditions = conditions(&given, &of_webhooks());
        assert_eq!(with_input(|input| matched(&conditions, &input.bindings())), expect, "{sources:?}");
    };
    let broken = "object.none == 1";
    let why = "expression 'object.none == 1' resulted in error: no such key: none";
    check(&[], Matched::Yes);
    check(&["object.spec.replicas == 3", "true"], Matched::Yes);
    check(&["true", "false"], Matched::No);
    check(&[broken, "false"], Matched::No);
    check(&["true", broken], Matched::Failed(why.into()));
    check(&[broken, broken], Matched::Failed(format!("[{why}, {why}]")));
}

#[test]
fn variables_are_computed_when_they_are_read() {
    let mut variables: Vec<Variable> = Vec::new();
    for (name, source) in [
        ("broken", "object.none"),
        ("names", "object.spec.names"),
        ("big", "variables.names.map(n, n + '!')"),
        ("worse", "variables.broken == 1"),
    ] {
        let environment = of_policies(Some(declared(&variables)), false);
        variables.push(Variable { name: name.into(), expression: Expression::compile(source, &environment, &[]) });
    }
    let environment = of_policies(Some(declared(&variables)), false);
    let check = |source: &str, expect: Result<bool, &str>| {
        let expression = Expression::compile(source, &environment, &[Type::Bool]);
        let got = with_input(|input| {
            let computed = Computed::new(&variables, input.bindings());
            let bindings = input.bindings().with(VARIABLES, Value::Lazy(&computed));
            expression.evaluate(&bindings, &mut Budget::default()).map(|v| v.as_bool().unwrap())
        });
        assert_eq!(got, expect.map_err(str::to_owned), "{source}");
    };
    check("variables.big == ['b!', 'c!'] && size(variables.names) == 2", Ok(true));
    check(
        "variables.worse",
        Err(
            "expression 'variables.worse' resulted in error: composited variable \"worse\" fails to evaluate: expression \
             'variables.broken == 1' resulted in error: composited variable \"broken\" fails to evaluate: expression \
             'object.none' resulted in error: no such key: none",
        ),
    );
}
