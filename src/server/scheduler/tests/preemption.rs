//! Who has to go for whom, on which node, and what is told.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::*;

/// A pod on a node with a CPU, a priority and an hour since which it runs.
fn running(name: &str, node: &str, priority: i32, hour: u32) -> Pod {
    let start = format!("2026-01-01T{hour:02}:00:00Z");
    let change = json!({ "metadata": { "labels": { "pod": name } },
        "spec": { "priority": priority, "nodeName": node }, "status": { "startTime": start } });
    pod(name, both(cpu("1"), &change))
}

fn important(change: &Value) -> Value {
    both(json!({ "spec": { "priority": 1000 } }), change)
}

fn budget(pod: &str, allowed: i32) -> PodDisruptionBudget {
    serde_json::from_value(json!({
        "metadata": { "name": pod, "namespace": "ns" },
        "spec": { "selector": { "matchLabels": { "pod": pod } } },
        "status": { "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 },
    }))
    .unwrap()
}

fn uids(pods: &[std::sync::Arc<super::super::pod::PodInfo>]) -> Vec<&str> {
    pods.iter().map(|p| p.uid.as_str()).collect()
}

/// The node that is nominated, and its victims, the most important first.
fn check(nodes: &[Node], before: &[Pod], budgets: &[PodDisruptionBudget], change: &Value, want: (&str, &[&str])) {
    let mut world = World::new(nodes, before);
    budgets.iter().for_each(|b| world.state.observe_budget(b.clone()));
    world.pod(pod("new", important(change)));
    let refused = world.refused();
    assert_eq!((refused.nominate.as_deref().unwrap_or("-"), uids(&refused.victims).as_slice()), want, "{change}");
}

fn two_nodes() -> [Node; 2] {
    [node("a", "z1", "2", json!({})), node("b", "z2", "2", json!({}))]
}

#[test]
fn as_few_and_as_unimportant_as_will_do() {
    let a = node("a", "z1", "3", json!({}));
    let one = std::slice::from_ref(&a);
    let three = [running("low", "a", 1, 1), running("mid", "a", 5, 1), running("young", "a", 5, 2)];
    check(one, &three, &[], &cpu("1"), ("a", &["low"]));
    check(one, &three, &[], &cpu("2"), ("a", &["young", "low"]));
    check(one, &three, &[], &cpu("3"), ("a", &["mid", "young", "low"]));
    // Budgets are kept when others will do, and not when none will.
    check(one, &three, &[budget("low", 0)], &cpu("1"), ("a", &["young"]));
    check(one, &three, &[budget("low", 1)], &cpu("1"), ("a", &["low"]));
    check(one, &three, &[budget("low", 0)], &cpu("3"), ("a", &["mid", "young", "low"]));
}

#[test]
fn the_node_where_it_costs_least() {
    let nodes = two_nodes();
    // Violations of budgets first.
    let alike = [running("1", "a", 1, 1), running("2", "a", 1, 1), running("3", "b", 5, 1), running("4", "b", 5, 1)];
    check(&nodes, &alike, &[budget("1", 0)], &cpu("2"), ("b", &["3", "4"]));
    // Then the priority of the most important.
    check(&nodes, &alike, &[], &cpu("2"), ("a", &["1", "2"]));
    // Then the sum of priorities.
    let sums = [running("1", "a", 5, 1), running("2", "a", 5, 1), running("3", "b", 5, 1), running("4", "b", 1, 1)];
    check(&nodes, &sums, &[], &cpu("2"), ("b", &["3", "4"]));
    // Fewer cost less whatever their priority.
    let fewer = [running("1", "a", -5, 1), running("2", "a", -5, 1), running("3", "b", -5, 1)];
    check(&nodes, &fewer, &[], &cpu("2"), ("b", &["3"]));
    // Then those that have run the shorter.
    let ages = [running("1", "a", 5, 1), running("2", "a", 5, 3), running("3", "b", 5, 2), running("4", "b", 5, 2)];
    check(&nodes, &ages, &[], &cpu("2"), ("b", &["3", "4"]));
}

#[test]
fn constraints_about_other_pods_are_tried_too() {
    let nodes = two_nodes();
    let web = |name: &str, node: &str, priority: i32| {
        let labels = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "priority": priority } });
        pod(name, both(on(node, cpu("1")), &labels))
    };
    // Only who is in the way goes.
    let before = [web("1", "a", 1), running("x", "a", 0, 1), web("2", "b", 2000)];
    check(&nodes, &before, &[], &apart("web", HOSTNAME), ("a", &["1"]));
    let shy = both(apart("web", HOSTNAME), &json!({ "metadata": { "labels": { "app": "shy" } } }));
    let shy = pod("shy", both(on("a", cpu("1")), &shy));
    let cordon = node("b", "z2", "2", json!({ "spec": { "unschedulable": true } }));
    let nodes = [nodes[0].clone(), cordon];
    check(&nodes, &[shy, running("x", "a", 0, 1)], &[], &app("web"), ("a", &["shy"]));
    let skewed = both(app("web"), &spread("web", ZONE, json!({})));
    check(&nodes, &[web("1", "a", 1), running("x", "a", 0, 1)], &[], &skewed, ("a", &["1"]));
}

#[test]
fn why_nobody_has_to_go() {
    let check = |before: &[Pod], change: &Value, want: &str| {
        let full = node("b", "z2", "2", json!({ "spec": { "unschedulable": true } }));
        let mut world = World::new(&[node("a", "z1", "2", json!({})), full], before);
        world.pod(pod("new", important(change)));
        let refused = world.refused();
        assert!(refused.victims.is_empty() && refused.nominate.is_none(), "{change}");
        let (_, preemption) = refused.message.split_once("preemption: ").unwrap_or_else(|| panic!("{change}"));
        assert_eq!(preemption, want, "{change}");
    };
    let equal = [running("1", "a", 1000, 1), running("2", "a", 1000, 1)];
    let none = "0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful \
        for scheduling.";
    check(&equal, &cpu("1"), none);
    let never = both(cpu("1"), &json!({ "spec": { "preemptionPolicy": "Never" } }));
    check(&[running("1", "a", 1, 1), running("2", "a", 1, 1)], &never, "not eligible due to preemptionPolicy=Never.");
    let mixed = [running("1", "a", 1, 1), running("2", "a", 1000, 1)];
    check(
        &mixed,
        &cpu("2"),
        "0/2 nodes are available: 1 Insufficient cpu, 1 Preemption is not helpful for scheduling.",
    );
    check(&mixed, &cpu("3"), "0/2 nodes are available: 2 Preemption is not helpful for scheduling.");
}

#[test]
fn victims_that_are_ending_are_waited_for() {
    let mut world = World::new(&[node("a", "z1", "1", json!({}))], &[running("old", "a", 1, 1)]);
    world.pod(pod("new", important(&cpu("1"))));
    let refused = world.refused();
    assert_eq!(refused.message, "0/1 nodes are available: 1 Insufficient cpu.", "what will help is not told of");
    assert_eq!((refused.nominate.as_deref(), uids(&refused.victims)), (Some("a"), vec!["old"]));
    // While they are being deleted it is not tried again, however it is woken.
    world.later(Duration::from_mins(6));
    assert!(world.attempt().is_none());
    world.state.preempted("new", true);
    let ending = json!({ "metadata": { "deletionTimestamp": "2026-01-01T05:00:00Z" }, "status": { "conditions":
        [{ "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" }] } });
    let mut old = serde_json::to_value(running("old", "a", 1, 1)).unwrap();
    merge(&mut old, &ending);
    world.pod(serde_json::from_value(old).unwrap());
    let refused = world.refused();
    assert!(refused.victims.is_empty() && refused.nominate.is_none());
    let why = "preemption: not eligible due to a terminating pod on the nominated node.";
    assert!(refused.message.ends_with(why), "{}", refused.message);
    // Less important pods do not take the room that comes free.
    world.state.forget_pod("old", world.now);
    world.pod(pod("lesser", cpu("1")));
    world.later(Duration::from_mins(1));
    assert_eq!(world.outcome(), Some(Ok("a".into())), "the more important first");
    assert!(world.outcome().unwrap().is_err());
}

#[test]
fn nominated_pods_count_for_those_that_are_not_more_important() {
    let check = |priority: i32, want: Result<&str, &str>| {
        let mut world = World::new(&[node("a", "z1", "1", json!({}))], &[running("old", "a", 1, 1)]);
        world.pod(pod("nominee", important(&cpu("1"))));
        assert_eq!(world.refused().nominate.as_deref(), Some("a"));
        world.state.preempted("nominee", true);
        world.state.forget_pod("old", world.now);
        // The nominee backs off still; the API has not told of its nomination yet.
        world.pod(pod("nominee", important(&cpu("1"))));
        world.pod(pod("other", both(cpu("1"), &json!({ "spec": { "priority": priority } }))));
        let got = world.outcome().unwrap();
        let got = got.as_deref().map_err(|why| why.split_once(". no new").map_or("", |(why, _)| why));
        assert_eq!(got, want, "{priority}");
    };
    let refused = Err("0/1 nodes are available: 1 Insufficient cpu");
    check(1, refused);
    check(1000, refused);
    check(1001, Ok("a"));
}

#[test]
fn less_important_nominees_of_the_same_node_look_elsewhere() {
    let low = |name: &str| running(name, "a", 1, 1);
    let mut world = World::new(&[node("a", "z1", "2", json!({}))], &[low("1"), low("2")]);
    world.pod(pod("mid", both(cpu("1"), &json!({ "spec": { "priority": 10 } }))));
    let first = world.refused();
    assert_eq!((first.nominate.as_deref(), first.victims.len()), (Some("a"), 1));
    world.state.preempted("mid", true);
    world.pod(pod("new", important(&cpu("2"))));
    let second = world.refused();
    assert_eq!((second.nominate.as_deref(), second.victims.len()), (Some("a"), 2));
    assert_eq!(uids(&second.displaced), ["mid"]);
    // It is tried again at once; what the more important one will take is not there for it.
    let again = world.refused();
    assert_eq!(again.pod.uid, "mid");
}

#[test]
fn a_nomination_that_helps_no_more_is_cleared() {
    let mut world = World::new(&[node("a", "z1", "1", json!({}))], &[running("old", "a", 1, 1)]);
    world.pod(pod("new", important(&cpu("1"))));
    assert_eq!(world.refused().nominate.as_deref(), Some("a"));
    world.state.preempted("new", true);
    world.node(node("a", "z1", "500m", json!({})));
    world.later(Duration::from_mins(6));
    assert_eq!(world.refused().nominate.as_deref(), Some(""));
}

#[test]
fn victims_that_could_not_be_deleted_are_tried_again() {
    let mut world = World::new(&[node("a", "z1", "1", json!({}))], &[running("old", "a", 1, 1)]);
    world.pod(pod("new", important(&cpu("1"))));
    assert_eq!(uids(&world.refused().victims), ["old"]);
    world.state.preempted("new", false);
    assert_eq!(uids(&world.refused().victims), ["old"]);
}

#[test]
fn one_of_many_nodes_is_found() {
    let nodes: Vec<Node> = (0..300).map(|i| node(&format!("n{i:03}"), "z", "1", json!({}))).collect();
    let mut before: Vec<Pod> = (0..300).map(|i| running(&format!("p{i:03}"), &format!("n{i:03}"), 5000, 1)).collect();
    before[277] = running("p277", "n277", 1, 1);
    check(&nodes, &before, &[], &cpu("1"), ("n277", &["p277"]));
}
