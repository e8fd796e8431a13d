//! Pods of several profiles: where they go, why they do not, who preempts.

use super::*;
use crate::config::scheduler::parse;
use crate::server::scheduler::plugins::PLUGINS;
use crate::server::scheduler::profile::Profile;
use crate::server::scheduler::selector::Selector;
use crate::server::scheduler::workloads::OwnerKind;

fn world(profiles: &Value, nodes: &[Node], pods: &[Pod]) -> World {
    let document = json!({ "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "podInitialBackoffSeconds": 2, "profiles": profiles });
    let config = parse(&document).unwrap();
    let mut world = World { state: State::new(&config), now: clock::instant() };
    nodes.iter().for_each(|n| world.node(n.clone()));
    pods.iter().for_each(|p| world.pod(p.clone()));
    world
}

fn with(name: &str, args: Value) -> Value {
    json!([{ "pluginConfig": [{ "name": name, "args": args }] }])
}

fn of(scheduler: &str) -> Value {
    json!({ "spec": { "schedulerName": scheduler } })
}

/// Two nodes of four cores, of which one has a pod.
fn half_empty() -> (Vec<Node>, Vec<Pod>) {
    let nodes = ["empty", "used"].map(|name| node(name, "", "4", json!({})));
    (nodes.to_vec(), vec![pod("there", on("used", cpu("1")))])
}

fn placed(profiles: &Value, change: Value) -> String {
    let (nodes, pods) = half_empty();
    let mut world = world(profiles, &nodes, &pods);
    world.pod(pod("p", change));
    world.outcome().unwrap().unwrap()
}

#[test]
fn the_table_has_every_plugin_of_the_default_profile() {
    let profile = Profile::default_one();
    let rows: Vec<usize> = profile.filters.iter().map(|(row, _)| *row).collect();
    let with_filters: Vec<usize> = (0..PLUGINS.len()).filter(|i| PLUGINS[*i].filter.is_some()).collect();
    assert_eq!(rows, with_filters, "in its order");
    assert_eq!(profile.scores.len(), PLUGINS.iter().filter(|p| p.score.is_some()).count());
    let weights: Vec<i64> = profile.scores.iter().map(|(weight, _)| *weight).collect();
    assert_eq!(weights, [3, 2, 1, 2, 2, 1, 1, 1]);
}

#[test]
fn each_pod_has_the_profile_of_its_scheduler() {
    let (nodes, pods) = half_empty();
    let packs = json!([{ "name": "NodeResourcesFit", "args": { "scoringStrategy": { "type": "MostAllocated" } } }]);
    let profiles = json!([{ "schedulerName": "default-scheduler" }, { "schedulerName": "packs", "pluginConfig": packs,
        "plugins": { "score": { "disabled": [{ "name": "NodeResourcesBalancedAllocation" }] } } }]);
    let mut world = world(&profiles, &nodes, &pods);
    world.pod(pod("spreads", cpu("100m")));
    assert_eq!(world.outcome().unwrap().unwrap(), "empty");
    world.pod(pod("packed", both(cpu("100m"), &of("packs"))));
    assert_eq!(world.outcome().unwrap().unwrap(), "used");
    world.pod(pod("others", both(cpu("100m"), &of("somebody"))));
    assert!(world.outcome().is_none(), "somebody else's");
}

#[test]
fn nodes_are_scored_by_the_strategy() {
    let fit = |strategy: Value| {
        let mut profile = with("NodeResourcesFit", json!({ "scoringStrategy": strategy }));
        profile[0]["plugins"] =
            json!({ "score": { "disabled": [{ "name": "*" }], "enabled": [{ "name": "NodeResourcesFit" }] } });
        placed(&profile, cpu("1"))
    };
    assert_eq!(fit(json!({ "type": "LeastAllocated" })), "empty");
    assert_eq!(fit(json!({ "type": "MostAllocated" })), "used");
    let ratio = |low: i32, high: i32| {
        let shape = json!([{ "utilization": 0, "score": low }, { "utilization": 100, "score": high }]);
        json!({ "type": "RequestedToCapacityRatio", "resources": [{ "name": "cpu", "weight": 2 }],
            "requestedToCapacityRatio": { "shape": shape } })
    };
    assert_eq!(fit(ratio(0, 10)), "used");
    assert_eq!(fit(ratio(10, 0)), "empty");
}

#[test]
fn plugins_that_are_off_refuse_nothing() {
    let cordoned = node("n", "", "4", json!({ "spec": { "unschedulable": true } }));
    let off = json!([{ "plugins": { "filter": { "disabled": [{ "name": "NodeUnschedulable" }] } } }]);
    let mut world = world(&off, &[cordoned], &[pod("p", json!({}))]);
    assert_eq!(world.outcome().unwrap().unwrap(), "n");
    let gated = json!({ "spec": { "schedulingGates": [{ "name": "x" }] } });
    assert!(
        self::world(&json!([{}]), &[node("n", "", "4", json!({}))], &[pod("p", gated.clone())]).outcome().is_none()
    );
    let open = json!([{ "plugins": { "preEnqueue": { "disabled": [{ "name": "SchedulingGates" }] } } }]);
    let mut world = self::world(&open, &[node("n", "", "4", json!({}))], &[pod("p", gated)]);
    assert_eq!(world.outcome().unwrap().unwrap(), "n");
}

#[test]
fn without_preemption_nobody_has_to_go_and_nothing_is_said_of_it() {
    let important = json!({ "spec": { "priority": 10 } });
    let refused = |plugins: Value| {
        let there = pod("there", on("n", cpu("3")));
        let profile = json!([{ "plugins": plugins }]);
        let mut world = world(&profile, &[node("n", "", "4", json!({}))], &[there]);
        world.pod(pod("p", both(cpu("2"), &important)));
        let refused = world.refused();
        (refused.message, refused.victims.len())
    };
    let said = "0/1 nodes are available: 1 Insufficient cpu.".to_owned();
    assert_eq!(refused(json!({})), (said.clone(), 1));
    let off = json!({ "postFilter": { "disabled": [{ "name": "DefaultPreemption" }] } });
    assert_eq!(refused(off), (format!("{said} no new claims to deallocate"), 0));
    assert_eq!(refused(json!({ "postFilter": { "disabled": [{ "name": "*" }] } })), (said, 0));
}

#[test]
fn added_affinity_holds_for_all_pods_of_a_profile() {
    let terms =
        |name: &str| json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] }]);
    let required = |name: &str| {
        let added = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms(name) } });
        with("NodeAffinity", json!({ "addedAffinity": added }))
    };
    assert_eq!(placed(&required("used"), cpu("1")), "used");
    let (nodes, pods) = half_empty();
    let mut world = world(&required("none"), &nodes, &pods);
    world.pod(pod("p", cpu("1")));
    let message = world.refused().message;
    assert!(
        message.starts_with("0/2 nodes are available: 2 node(s) didn't match scheduler-enforced node affinity. "),
        "{message}"
    );
    let added = json!({ "preferredDuringSchedulingIgnoredDuringExecution":
        [{ "weight": 100, "preference": terms("used")[0] }] });
    assert_eq!(placed(&with("NodeAffinity", json!({ "addedAffinity": added })), cpu("1")), "used");
}

#[test]
fn ignored_resources_are_somebody_elses_and_wake_nobody_in_vain() {
    let asks = json!({ "spec": { "containers": [{ "name": "c", "resources":
        { "requests": { "cpu": "1", "example.com/gpu": "1" } } }] } });
    let (nodes, pods) = half_empty();
    let mut usual = world(&json!([{}]), &nodes, &pods);
    usual.pod(pod("p", asks.clone()));
    assert!(usual.refused().message.contains("Insufficient example.com/gpu"));
    for args in
        [json!({ "ignoredResources": ["example.com/gpu"] }), json!({ "ignoredResourceGroups": ["example.com"] })]
    {
        assert_eq!(placed(&with("NodeResourcesFit", args.clone()), asks.clone()), "empty");
        // One that waits for CPU alone hears of it although the node has no such resource.
        let full = pod("full", on("n", cpu("4")));
        let mut world = world(&with("NodeResourcesFit", args), &[node("n", "", "4", json!({}))], &[full]);
        world.pod(pod("p", asks.clone()));
        assert!(world.outcome().unwrap().is_err());
        world.later(Duration::from_secs(3));
        world.state.forget_pod("full", world.now);
        assert_eq!(world.outcome().unwrap().unwrap(), "n");
    }
}

#[test]
fn default_constraints_spread_pods_of_a_workload() {
    let list = |when: &str| {
        let constraint = json!({ "maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": when });
        with("PodTopologySpread", json!({ "defaultingType": "List", "defaultConstraints": [constraint] }))
    };
    let nodes = [node("a", "a", "4", json!({})), node("b", "b", "4", json!({ "spec": { "unschedulable": true } }))];
    let owned = both(
        json!({ "metadata": { "ownerReferences":
        [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true }] } }),
        &app("web"),
    );
    for (when, want) in [("DoNotSchedule", false), ("ScheduleAnyway", true)] {
        let mut world = world(&list(when), &nodes, &[pod("there", on("a", owned.clone()))]);
        let labels: std::collections::BTreeMap<String, String> = [("app".to_owned(), "web".to_owned())].into();
        world.state.snapshot.workloads.set_owner(OwnerKind::ReplicaSet, "ns", "rs", Some(Selector::exact(&labels)));
        world.pod(pod("p", owned.clone()));
        assert_eq!(world.outcome().unwrap().is_ok(), want, "{when}");
        world.pod(pod("alone", json!({})));
        assert!(world.outcome().unwrap().is_ok(), "it belongs to nothing");
        if !want {
            // The other one goes: the pod hears of it.
            world.later(Duration::from_secs(3));
            world.state.forget_pod("there", world.now);
            assert_eq!(world.outcome().unwrap().unwrap(), "a");
        }
    }
}

#[test]
fn back_off_is_as_configured() {
    let mut world = world(&json!([{}]), &[], &[pod("p", json!({}))]);
    assert!(world.outcome().unwrap().is_err());
    world.node(node("n", "", "4", json!({})));
    world.later(Duration::from_millis(1900));
    assert!(world.outcome().is_none());
    world.later(Duration::from_millis(200));
    assert_eq!(world.outcome().unwrap().unwrap(), "n");
}
