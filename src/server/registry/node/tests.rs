//! Table: RuntimeClass.

use serde_json::{Value, json};

use super::RuntimeClassKind;
use crate::api::user::User;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Part, Strategy, Typed};

fn check(change: &Value, expect: &[&str]) -> Value {
    let (strategy, cx) = (Typed(RuntimeClassKind), Context::new(User::default()));
    let mut object = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "a"}, "handler": "crun",
    });
    json_patch::merge(&mut object, change);
    strategy.defaults(&mut object).unwrap();
    let errors = strategy.prepare_create(&cx, &mut object).unwrap().errors;
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    object
}

#[test]
fn validation() {
    let made = check(&json!({"overhead": {"podFixed": {"cpu": "1000m"}}}), &[]);
    assert_eq!(made["overhead"]["podFixed"]["cpu"], "1");
    check(&json!({"handler": "a.b"}), &["handler: Invalid value: \"a.b\": must not contain dots"]);
    check(
        &json!({"overhead": {"podFixed": {"cpu": "-1"}}}),
        &["overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
    );
    let toleration =
        |seconds: Value| json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    check(
        &json!({"scheduling": {"nodeSelector": {"a": "-"}, "tolerations": [toleration(json!(1)), toleration(json!(2))]}}),
        &[
            "scheduling.nodeSelector: Invalid value: \"-\": a valid label must be an empty string or consist of \
             alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
             'MyValue',  or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            "scheduling.tolerations[1]: Duplicate value: {\"Key\":\"a\",\"Operator\":\"Exists\",\"Value\":\"\",\
             \"Effect\":\"NoExecute\",\"TolerationSeconds\":2}",
        ],
    );
    check(
        &json!({"scheduling": {"tolerations": [{"key": "a", "effect": "No"}]}}),
        &["scheduling.tolerations[0].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \
           \"PreferNoSchedule\", \"NoExecute\""],
    );
}

#[test]
fn updates_and_warnings() {
    let (strategy, cx) = (Typed(RuntimeClassKind), Context::new(User::default()));
    let old = check(&json!({"scheduling": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}), &[]);
    let warning = "scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/os\" instead";
    assert_eq!(strategy.prepare_create(&cx, &mut old.clone()).unwrap().warnings, [warning]);
    let mut new = old.clone();
    new["handler"] = "runc".into();
    let errors = strategy.prepare_update(&cx, Part::Spec, &mut new, &old).unwrap().errors;
    let message = "handler: Invalid value: \"runc\": field is immutable";
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [message]);
    assert!(strategy.create_on_update() && !strategy.unconditional_update());
}
