//! Decides: which nodes a DaemonSet runs on, and how its pods are made for one node.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSetSpec;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PodTemplateSpec, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::HASH;
use crate::server::scheduler::filter::{node_allowed, tolerated};

/// Counted by the server with each new template; older clients know pods by it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const TEMPLATE_GENERATION_LABEL: &str = "pod-template-generation";
/// What the pods of every DaemonSet tolerate: they are part of the node, whatever state that is in.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a DaemonSet asks of nodes.
pub struct Fit<'a> {
    spec: Option<&'a PodSpec>,
    tolerations: Vec<Toleration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// A pod is to be made if there is none.
    pub runs: bool,
    /// A pod that is there stays.
    pub stays: bool,
}

impl<'a> Fit<'a> {
    pub fn of(spec: &'a DaemonSetSpec) -> Self {
        let spec = spec.template.spec.as_ref();
        Self { spec, tolerations: spec.map(tolerations).unwrap_or_default() }
    }

    pub fn on(&self, node: &Node) -> Verdict {
        if !self.selects(node) {
            return Verdict::default();
        }
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
        let repels = |effects: &[&str]| {
            let mut hard = taints.iter().filter(|t: &&Taint| effects.contains(&t.effect.as_str()));
            hard.any(|t| !tolerated(t, &self.tolerations))
        };
        Verdict { runs: !repels(&["NoExecute", "NoSchedule"]), stays: !repels(&["NoExecute"]) }
    }

    fn selects(&self, node: &Node) -> bool {
        let Some(spec) = self.spec else { return false };
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if spec.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != name) {
            return false;
        }
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        node_allowed(spec, name, node.metadata.labels.as_ref().unwrap_or(&NONE))
    }
}

/// Those of the template, with those that every DaemonSet has: a weaker one of the same form gives way to them.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let of_host = (spec.host_network == Some(true)).then_some(&NETWORK_UNAVAILABLE);
    for (key, effect) in TOLERATED.iter().chain(of_host) {
        let wanted = Toleration {
            key: Some((*key).into()),
            operator: Some("Exists".into()),
            effect: Some((*effect).into()),
            ..Toleration::default()
        };
        let bare = |t: &Toleration| Toleration {
            toleration_seconds: None,
            value: t.value.clone().filter(|v| !v.is_empty()),
            ..t.clone()
        };
        match all.iter_mut().find(|t| bare(t) == wanted) {
            Some(there) => *there = wanted,
            None => all.push(wanted),
        }
    }
    all
}

/// The template of its pods on any node.
pub fn template(template: &PodTemplateSpec, owner: &ObjectMeta, hash: &str) -> PodTemplateSpec {
    let mut template = template.clone();
    let generation = owner.annotations.as_ref().and_then(|a| a.get(TEMPLATE_GENERATION)?.parse::<i64>().ok());
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    if let Some(generation) = generation {
        labels.insert(TEMPLATE_GENERATION_LABEL.into(), generation.to_string());
    }
    labels.insert(HASH.into(), hash.into());
    let spec = template.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    template
}

/// For one node. What else the affinity required has been found true of that node.
pub fn pinned(mut template: PodTemplateSpec, node: &str) -> PodTemplateSpec {
    let field = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
    let spec = template.spec.get_or_insert_default();
    spec.affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default()
        .required_during_scheduling_ignored_during_execution = Some(NodeSelector { node_selector_terms: vec![term] });
    template
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The verdict on a node with one label, of the zone, and the taints given.
    fn check(pod: Value, taints: &Value, want: (bool, bool)) {
        let spec: DaemonSetSpec =
            serde_json::from_value(json!({ "selector": {}, "template": { "spec": pod.clone() } })).unwrap();
        let node = json!({ "metadata": { "name": "n", "labels": { "zone": "a" } }, "spec": { "taints": taints } });
        let got = Fit::of(&spec).on(&serde_json::from_value(node).unwrap());
        assert_eq!((got.runs, got.stays), want, "{pod} {taints}");
    }

    fn affinity(terms: &Value) -> Value {
        let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
        json!({ "containers": [], "affinity": { "nodeAffinity": required } })
    }

    #[test]
    fn nodes_are_chosen_by_name_selector_affinity_and_taints() {
        let (both, none, stays) = ((true, true), (false, false), (false, true));
        let free = json!([]);
        check(json!({ "containers": [] }), &free, both);
        check(json!({ "containers": [], "nodeName": "n" }), &free, both);
        check(json!({ "containers": [], "nodeName": "m" }), &free, none);
        check(json!({ "containers": [], "nodeSelector": { "zone": "a" } }), &free, both);
        check(json!({ "containers": [], "nodeSelector": { "zone": "b" } }), &free, none);
        let named =
            |name: &str| json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] });
        let zoned = |zone: &str| json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": [zone] }] });
        check(affinity(&json!([zoned("b"), zoned("a")])), &free, both);
        check(affinity(&json!([zoned("b")])), &free, none);
        check(affinity(&json!([named("n")])), &free, both);
        check(affinity(&json!([named("m")])), &free, none);
        check(affinity(&json!([{}])), &free, none);
        let taint = |key: &str, effect: &str| json!([{ "key": key, "effect": effect }]);
        check(json!({ "containers": [] }), &taint("k", "NoSchedule"), stays);
        check(json!({ "containers": [] }), &taint("k", "NoExecute"), none);
        check(json!({ "containers": [] }), &taint("k", "PreferNoSchedule"), both);
        let tolerating = json!({ "containers": [], "tolerations": [{ "key": "k", "operator": "Exists" }] });
        check(tolerating, &taint("k", "NoExecute"), both);
        for (key, effect) in TOLERATED {
            check(json!({ "containers": [] }), &taint(key, effect), both);
        }
        let (key, effect) = NETWORK_UNAVAILABLE;
        check(json!({ "containers": [] }), &taint(key, effect), stays);
        check(json!({ "containers": [], "hostNetwork": true }), &taint(key, effect), both);
    }

    #[test]
    fn a_pod_is_made_for_one_node_and_bears_its_states() {
        let given = affinity(&json!([{ "matchExpressions": [{ "key": "zone", "operator": "Exists" }] }]));
        let mut spec = given;
        spec["tolerations"] = json!([{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 5 }]);
        let owner = ObjectMeta {
            annotations: Some([(TEMPLATE_GENERATION.to_owned(), "3".to_owned())].into()),
            ..ObjectMeta::default()
        };
        let of = serde_json::from_value(json!({ "metadata": { "labels": { "app": "a" } }, "spec": spec })).unwrap();
        let made = serde_json::to_value(pinned(template(&of, &owner, "hash"), "n")).unwrap();
        let labels = json!({ "app": "a", "controller-revision-hash": "hash", "pod-template-generation": "3" });
        assert_eq!(made["metadata"]["labels"], labels);
        let field = json!({ "key": "metadata.name", "operator": "In", "values": ["n"] });
        let required = json!({ "nodeSelectorTerms": [{ "matchFields": [field] }] });
        let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } });
        assert_eq!(made["spec"]["affinity"], affinity);
        let tolerations = made["spec"]["tolerations"].as_array().unwrap();
        assert_eq!(tolerations.len(), TOLERATED.len(), "{tolerations:?}");
        assert!(tolerations.iter().all(|t| t["tolerationSeconds"].is_null() && t["operator"] == "Exists"));
    }
}
