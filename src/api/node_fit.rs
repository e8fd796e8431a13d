//! Decides: whether one node suits a pod by its name, labels and taints. Pure functions of API types, for controllers
//! that place pods themselves too.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

/// Whether one of the tolerations covers the taint (`v1.Toleration.ToleratesTaint`).
#[must_use]
pub fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|t| {
        let effect = t.effect.as_deref().unwrap_or_default();
        let key = t.key.as_deref().unwrap_or_default();
        if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
            return false;
        }
        let (mine, theirs) = (t.value.as_deref().unwrap_or_default(), taint.value.as_deref().unwrap_or_default());
        match t.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => mine == theirs,
            "Exists" => true,
            _ => false,
        }
    })
}

/// Whether every taint that keeps new pods away is tolerated.
#[must_use]
pub fn tolerates_all(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    let hard = |t: &&Taint| t.effect == "NoSchedule" || t.effect == "NoExecute";
    taints.iter().filter(hard).all(|t| tolerated(t, tolerations))
}

/// Whether the pod's `nodeSelector` and required node affinity allow a node of that name with these labels.
#[must_use]
pub fn node_allowed(spec: &PodSpec, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
        .map(|required| required.node_selector_terms.as_slice());
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    selected && required.is_none_or(|terms| terms.iter().any(|t| term_allows(t, name, labels)))
}

/// An empty term matches nothing.
#[must_use]
pub fn term_allows(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let field = |key: &str| (key == "metadata.name").then_some(name);
    expressions.iter().all(|r| holds(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| holds(r, field(&r.key)))
}

fn holds(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    let among = |v: &str| values.iter().any(|w| w == v);
    let compare = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match r.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => value.is_none_or(|v| !among(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare().is_some_and(|(a, b)| a > b),
        "Lt" => compare().is_some_and(|(a, b)| a < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn nodes_that_a_pod_allows() {
        let labels = [("disk".to_owned(), "ssd".to_owned()), ("cores".to_owned(), "8".to_owned())].into();
        let check = |spec: Value, want: bool| {
            let mut full = json!({ "containers": [] });
            full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let spec: PodSpec = serde_json::from_value(full).unwrap();
            assert_eq!(node_allowed(&spec, "a", &labels), want, "{spec:?}");
        };
        let terms = |terms: Value| {
            json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution":
                { "nodeSelectorTerms": terms } } } })
        };
        let one = |key: &str, operator: &str, values: Value| {
            terms(json!([{ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }]))
        };
        let named = |operator: &str, name: &str| {
            terms(json!([{ "matchFields": [{ "key": "metadata.name", "operator": operator, "values": [name] }] }]))
        };
        check(json!({}), true);
        check(json!({ "nodeSelector": { "disk": "ssd" } }), true);
        check(json!({ "nodeSelector": { "disk": "hdd" } }), false);
        check(terms(json!([])), false);
        check(terms(json!([{}])), false);
        check(one("disk", "In", json!(["hdd", "ssd"])), true);
        check(one("disk", "NotIn", json!(["ssd"])), false);
        check(one("gpu", "NotIn", json!(["ssd"])), true);
        check(one("gpu", "DoesNotExist", json!(null)), true);
        check(one("cores", "Gt", json!(["7"])), true);
        check(one("cores", "Lt", json!(["8"])), false);
        check(one("disk", "Gt", json!(["1"])), false);
        check(named("In", "a"), true);
        check(named("NotIn", "a"), false);
        check(named("In", "b"), false);
        let either = json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["b"] }] },
            { "matchExpressions": [{ "key": "disk", "operator": "Exists" }] }]);
        check(terms(either), true);
    }
}
