//! Tests: which containers have CPUs for themselves, and what is refused; cases as in upstream's `policy_static_test.go`.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::policy::{State, Static, of_pod, stays_exclusive, wants};
use super::take::tests::{four_nodes, one_socket, set, two_sockets};
use crate::agent::pod::admit::Refusal;
use crate::agent::pod::{Role, containers, uid};
use crate::agent::topology::hint::Mask;
use crate::agent::topology::machine::Topology;
use crate::agent::topology::machine::tests::machine;
use crate::config::cpu_set::CpuSet;
use crate::config::placement::CpuOptions;

const PLAIN: CpuOptions = CpuOptions { full_cores: false, distribute: false, strict: false, by_cache: false };
const FULL: CpuOptions = CpuOptions { full_cores: true, ..PLAIN };
const STRICT: CpuOptions = CpuOptions { strict: true, ..PLAIN };

fn container(name: &str, cpu: &str) -> Value {
    let both = json!({"cpu": cpu, "memory": "1Mi"});
    json!({"name": name, "resources": {"requests": both, "limits": both}})
}

/// `i` are init containers, `s` sidecars, others containers: `i0=4 s1=1 web=2`.
fn pod(uid: &str, containers: &str) -> Pod {
    let (mut init, mut apps) = (Vec::new(), Vec::new());
    for word in containers.split_whitespace() {
        let (name, cpu) = word.split_once('=').expect("name=cpu");
        let mut one = container(name, cpu);
        match name.as_bytes()[0] {
            b'i' => init.push(one),
            b's' => {
                one["restartPolicy"] = json!("Always");
                init.push(one);
            }
            _ => apps.push(one),
        }
    }
    let spec = json!({"initContainers": init, "containers": apps});
    serde_json::from_value(json!({"metadata": {"name": uid, "uid": uid}, "spec": spec})).expect("a pod")
}

fn policy(topology: Topology, milli: i64, options: CpuOptions) -> Static {
    Static::new(topology, milli, &CpuSet::default(), options).expect("it suits")
}

/// What each container is given, or why the pod is refused.
fn admit(policy: &Static, state: &mut State, pod: &Pod, affinity: Option<Mask>) -> Result<String, Refusal> {
    let mut reusable = CpuSet::default();
    let mut found = Vec::new();
    for (role, container) in containers(pod) {
        let asks = (role, container.name.as_str(), wants(pod, container));
        policy.allocate(state, uid(pod), asks, affinity, &mut reusable)?;
        let own = state.of(uid(pod), &container.name).map_or_else(String::new, ToString::to_string);
        found.push(format!("{}={own}", container.name));
    }
    Ok(found.join(" "))
}

fn check(policy: &Static, state: &mut State, pod: &Pod, expect: &str, shared: &str) {
    let found = match admit(policy, state, pod, None) {
        Ok(found) => found,
        Err(why) => format!("{}: {}", why.reason, why.message),
    };
    assert_eq!((found.as_str(), state.shared.to_string().as_str()), (expect, shared));
}

#[test]
fn whole_cpus_of_guaranteed_pods() {
    let wanted = |pod: Value| {
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        wants(&pod, &pod.spec.as_ref().expect("a spec").containers[0])
    };
    let of = |requests: Value, limits: Value| {
        let resources = json!({"requests": requests, "limits": limits});
        wanted(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}))
    };
    let both = |cpu: &str| json!({"cpu": cpu, "memory": "1Mi"});
    assert_eq!(of(both("2"), both("2")), 2);
    assert_eq!(of(both("2000m"), both("2")), 2);
    assert_eq!(of(Value::Null, both("3")), 3);
    assert_eq!(of(both("1500m"), both("1500m")), 0, "not whole");
    assert_eq!(of(both("1"), both("2")), 0, "burstable");
    assert_eq!(of(json!({"cpu": "1"}), json!({"cpu": "1"})), 0, "nothing said of memory");
    assert_eq!(wanted(json!({"spec": {"containers": [{"name": "c"}]}})), 0);
    // What a whole pod asks for is nobody's alone.
    let containers = json!([container("c", "2")]);
    assert_eq!(wanted(json!({"spec": {"containers": containers, "resources": {"limits": both("2")}}})), 0);

    let most = |text: &str| of_pod(&pod("u", text), |container| wants(&pod("u", text), container));
    assert_eq!(["i=4 web=2", "i=1 web=2 b=2", "s=1 i=4 web=2", "s=1 i=1 web=2"].map(most), [4, 4, 5, 3]);
    assert!(stays_exclusive(&pod("u", "web=2")) && stays_exclusive(&pod("u", "s=1 web=500m")));
    assert!(!stays_exclusive(&pod("u", "i=1 web=500m")));
}

#[test]
fn pods_have_them_until_they_are_over() {
    let policy = policy(one_socket(), 1000, PLAIN);
    let mut state = policy.initial();
    assert_eq!((policy.reserved().to_string(), state.shared.to_string()), ("0".into(), "0-7".into()));
    check(&policy, &mut state, &pod("a", "web=1"), "web=4", "0-3,5-7");
    check(&policy, &mut state, &pod("b", "web=2 log=500m"), "web=1,5 log=", "0,2-3,6-7");
    // As it was: the agent starts again, or a container does.
    check(&policy, &mut state, &pod("b", "web=2 log=500m"), "web=1,5 log=", "0,2-3,6-7");
    let refused = "UnexpectedAdmissionError: Allocate failed due to not enough cpus available to satisfy request: \
                   requested=5, available=4, which is unexpected";
    check(&policy, &mut state, &pod("c", "web=5"), refused, "0,2-3,6-7");
    assert!(policy.release(&mut state, "b"));
    assert!(!policy.release(&mut state, "b"));
    check(&policy, &mut state, &pod("c", "web=5"), "web=1-3,5-6", "0,7");
    assert_eq!(policy.available(&state), set("7"));
    assert_eq!(policy.allocatable(), set("1-7"));
    policy.check(&state).expect("as it should be");
    policy.release(&mut state, "a");
    policy.release(&mut state, "c");
    assert_eq!(state, policy.initial());
}

#[test]
fn init_containers_leave_theirs_to_others() {
    let policy = policy(one_socket(), 1000, PLAIN);
    for (containers, expect, shared) in [
        ("i0=4 web=4", "i0=1-2,5-6 web=1-2,5-6", "0,3-4,7"),
        ("i0=4 i1=2 web=6", "i0=1-2,5-6 i1=1,5 web=1-3,5-7", "0,4"),
        ("i0=2 web=4", "i0=1,5 web=1-2,5-6", "0,3-4,7"),
        ("i0=4 a=2 b=4", "i0=1-2,5-6 a=1,5 b=2-3,6-7", "0,4"),
        // A sidecar keeps what it has.
        ("s0=2 web=2", "s0=1,5 web=2,6", "0,3-4,7"),
        ("i0=4 s0=2 web=2", "i0=1-2,5-6 s0=1,5 web=2,6", "0,3-4,7"),
    ] {
        let mut state = policy.initial();
        check(&policy, &mut state, &pod("u", containers), expect, shared);
        policy.release(&mut state, "u");
        assert_eq!(state, policy.initial(), "{containers}");
    }
}

#[test]
fn threads_of_a_core_are_of_one_container() {
    let policy = policy(one_socket(), 1000, FULL);
    let mut state = policy.initial();
    let refused = "SMTAlignmentError: SMT Alignment Error: requested 1 cpus not multiple cpus per core = 2";
    check(&policy, &mut state, &pod("a", "web=1"), refused, "0-7");
    check(&policy, &mut state, &pod("b", "web=4"), "web=1-2,5-6", "0,3-4,7");
    // CPU 4 is free, but its core is that of the reserved one.
    let refused = "SMTAlignmentError: SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 2, \
                   requested CPUs = 4, CPUs per core = 2";
    check(&policy, &mut state, &pod("c", "web=4"), refused, "0,3-4,7");
    check(&policy, &mut state, &pod("d", "i0=2 web=2"), "i0=3,7 web=3,7", "0,4");
    check(&policy, &mut state, &pod("b", "web=4"), "web=1-2,5-6", "0,4");
}

#[test]
fn near_what_else_it_gets() {
    let policy = policy(two_sockets(), 2000, PLAIN);
    assert_eq!(policy.reserved(), &set("0,6"));
    for (nodes, containers, expect) in [
        (&[0][..], "web=2", "web=2,8"),
        (&[1], "web=2", "web=1,7"),
        (&[0], "web=4", "web=2,4,8,10"),
        // More than there are near.
        (&[0], "web=5", "web=1-2,4,8,10"),
        (&[0, 1], "web=10", "web=1-5,7-11"),
    ] {
        let mask = Mask::of(nodes.iter().copied());
        let found = admit(&policy, &mut policy.initial(), &pod("u", containers), Some(mask));
        assert_eq!(found.as_deref(), Ok(expect), "{containers} at {nodes:?}");
    }
}

#[test]
fn hints_of_nodes() {
    let policy = policy(two_sockets(), 2000, PLAIN);
    let show = |hints: Option<Vec<crate::agent::topology::hint::Hint>>| {
        let mut words = Vec::new();
        for hint in hints.into_iter().flatten() {
            let has = |node| hint.affinity.is_some_and(|mask| mask.contains(node));
            let nodes = if has(0) && has(1) { "0+1" } else { ["1", "0"][usize::from(has(0))] };
            words.push(format!("{nodes}{}", if hint.preferred { "" } else { "-" }));
        }
        words.join(" ")
    };
    let mut state = policy.initial();
    let none = CpuSet::default();
    let hints = |state: &State, count| show(policy.hints(state, "u", ("c", count), &none));
    assert_eq!(policy.hints(&state, "u", ("c", 0), &none), None);
    assert_eq!([2, 5, 7, 11].map(|count| hints(&state, count)), ["0 1 0+1-", "1 0+1-", "0+1", ""]);
    assert_eq!(show(policy.hints(&state, "u", ("c", 2), &set("1"))), "1 0+1-", "where its others are");
    admit(&policy, &mut state, &pod("u", "c=4"), Some(Mask::of([1]))).expect("room");
    assert_eq!(hints(&state, 4), "1 0+1-", "it has them");
    assert_eq!(policy.hints(&state, "u", ("c", 3), &none), Some(vec![]), "it has others");
    assert_eq!(show(policy.hints(&state, "v", ("c", 3), &none)), "0 0+1-");

    let both = |pod: &Pod, state: &State| show(policy.pod_hints(state, uid(pod), pod));
    assert_eq!(both(&pod("v", "a=2 b=2"), &state), "0 0+1-");
    assert_eq!(both(&pod("v", "a=2 b=3"), &state), "0+1-");
    assert_eq!(both(&pod("u", "c=4"), &state), "1 0+1-");
    assert_eq!(both(&pod("v", "a=500m"), &state), "");
}

#[test]
fn what_is_reserved() {
    for (topology, milli, options, expect) in [
        (one_socket(), 1, PLAIN, "0"),
        (one_socket(), 1001, PLAIN, "0,4"),
        (two_sockets(), 3000, PLAIN, "0,2,6"),
        (four_nodes(), 4000, CpuOptions { distribute: true, ..FULL }, "0-1,40-41"),
        (machine(1, 1, 4, 1, false, 4), 500, PLAIN, "0"),
    ] {
        assert_eq!(policy(topology, milli, options).reserved(), &set(expect));
    }
    let named = Static::new(one_socket(), 2000, &set("0,3"), STRICT).expect("there are");
    assert_eq!((named.initial().shared, named.allocatable()), (set("1-2,4-7"), set("1-2,4-7")));
    let missing = Static::new(one_socket(), 2000, &set("0,8-9"), PLAIN).expect_err("there are not");
    assert_eq!(missing, "reserved-cpus=0,8-9: CPUs 8-9 are not there or not online; there are 0-7");
    let all = Static::new(one_socket(), 9000, &CpuSet::default(), PLAIN).expect_err("there are not");
    assert!(all.contains("unable to reserve the required amount of CPUs (9 of 0-7)"), "{all}");
}

#[test]
fn a_state_of_another_machine_is_refused() {
    let (plain, strict) = (policy(one_socket(), 1000, PLAIN), policy(one_socket(), 1000, STRICT));
    let state = |shared: &str, of_web: &str| {
        let mut state = State { shared: set(shared), ..State::default() };
        state.pods.entry("u".into()).or_default().insert("web".into(), set(of_web));
        state
    };
    for (policy, state, expect) in [
        (&plain, state("0-3,5-7", "4"), ""),
        (&plain, state("1-3,5-7", "0,4"), "not all reserved cpus: \"0\" are present in defaultCpuSet: \"1-3,5-7\""),
        (&plain, state("0-7", "4"), "pod: u, container: web cpuset: \"4\" overlaps with default cpuset \"0-7\""),
        (&plain, state("0-2", "3"), "current set of available CPUs \"0-7\" doesn't match with CPUs in state \"0-3\""),
        (&strict, state("1-3,5-7", "4"), ""),
        (
            &strict,
            state("0-3,5-7", "4"),
            "some of strictly reserved cpus: \"0\" are present in defaultCpuSet: \"0-3,5-7\"",
        ),
    ] {
        assert_eq!(policy.check(&state).err().unwrap_or_default(), expect);
    }
}

#[test]
fn a_role_does_not_matter_for_what_is_there() {
    let policy = policy(one_socket(), 1000, PLAIN);
    let (mut state, mut reusable) = (policy.initial(), CpuSet::default());
    policy.allocate(&mut state, "u", (Role::App, "c", 0), None, &mut reusable).expect("nothing asked for");
    assert_eq!(state, policy.initial());
}
