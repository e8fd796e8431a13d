//! Golden tables: what is planned for a pod in each situation.

use serde_json::{Value, json};

use super::*;
use crate::agent::probes::Kind;
use crate::cri::Sandbox;

const NOW: i64 = 1000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("small number")
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}))
        .expect("valid")
}

fn sandbox(attempt: u32, ready: bool) -> Sandbox {
    Sandbox {
        id: format!("s{attempt}"),
        pod_uid: "u".into(),
        namespace: "ns".into(),
        name: "p".into(),
        attempt,
        ready,
        created_at: at(1),
        ips: vec!["10.42.0.2".into()],
    }
}

/// `name attempt [later] state [exit code]` in sandbox `s0` unless `@s1`.
pub fn record(text: &str) -> cri::Container {
    let (text, sandbox_id) = text.split_once('@').unwrap_or((text, "s0"));
    // Of a round that came after another ended.
    let (is_later, text) = (text.contains(" later"), text.replace(" later", ""));
    let words: Vec<&str> = text.split(' ').collect();
    let state = match words[2] {
        "created" => State::Created,
        "running" => State::Running,
        "exited" => State::Exited,
        _ => State::Unknown,
    };
    cri::Container {
        id: format!("{}{}", words[0], words[1]),
        sandbox_id: sandbox_id.into(),
        pod_uid: "u".into(),
        name: words[0].into(),
        attempt: words[1].parse().expect("a number"),
        state,
        image: String::new(),
        image_ref: String::new(),
        created_at: at(if is_later { NOW } else { 2 }),
        annotations: Vec::new(),
        started_at: Some(at(3)),
        finished_at: (state == State::Exited).then(|| at(NOW - 1)),
        exit_code: words.get(3).map_or(0, |code| code.parse().expect("a number")),
        reason: String::new(),
        message: String::new(),
        log_path: String::new(),
        image_mounts: Vec::new(),
    }
}

#[derive(Default)]
struct Case {
    spec: Value,
    sandboxes: Vec<Sandbox>,
    records: &'static [&'static str],
    verdicts: Verdicts,
    backoff: Backoff,
    asked: &'static [&'static str],
}

impl Case {
    fn plan(self) -> (String, Plan) {
        let pod = pod(self.spec);
        let containers = self.records.iter().map(|text| record(text)).collect();
        let observed = Observed { sandboxes: self.sandboxes, containers };
        let asked = self.asked.iter().map(|id| (*id).to_owned()).collect();
        let input = Input {
            pod: &pod,
            observed: &observed,
            verdicts: &self.verdicts,
            backoff: &self.backoff,
            retry_at: &BTreeMap::new(),
            sandbox_retry_at: None,
            stopped_to_restart: &asked,
            now: at(NOW),
        };
        let plan = plan(&input);
        let mut words: Vec<String> = plan.actions.iter().map(show).collect();
        words.extend(plan.finished.then(|| "finished".to_owned()));
        (words.join(", "), plan)
    }

    fn check(self, expect: &str) {
        assert_eq!(self.plan().0, expect);
    }
}

fn show(action: &Action) -> String {
    match action {
        Action::StopSandbox { id } => format!("stop {id}"),
        Action::RemoveSandbox { id } => format!("remove {id}"),
        Action::CreateSandbox { attempt } => format!("sandbox {attempt}"),
        Action::Remove { id } => format!("remove {id}"),
        Action::Start { name, attempt, .. } => format!("start {name} {attempt}"),
        Action::Stop { id, message, .. } => format!("stop {id} ({message})"),
        Action::End { id, .. } => format!("end {id}"),
        Action::Resize { updates } => format!("resize {}", updates.len()),
    }
}

fn simple(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]})
}

fn with_init(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a"}],
        "initContainers": [{"name": "i"}, {"name": "j"}]})
}

fn with_sidecar() -> Value {
    json!({"restartPolicy": "Never", "containers": [{"name": "a"}],
        "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]})
}

#[test]
fn a_new_pod() {
    Case { spec: simple("Always"), ..Case::default() }.check("sandbox 0, start a 0, start b 0");
    Case { spec: with_init("Always"), ..Case::default() }.check("sandbox 0, start i 0");
    Case { spec: with_sidecar(), ..Case::default() }.check("sandbox 0, start s 0");
}

#[test]
fn what_runs_is_left_alone() {
    let records = &["a 0 running", "b 3 running"];
    Case { spec: simple("Always"), sandboxes: vec![sandbox(0, true)], records, ..Case::default() }.check("");
}

#[test]
fn restart_policies() {
    for (policy, record, expect) in [
        ("Always", "a 0 exited 0", "start a 1"),
        ("OnFailure", "a 0 exited 0", ""),
        ("OnFailure", "a 0 exited 1", "start a 1"),
        ("Never", "a 0 exited 1", ""),
    ] {
        let records: &'static [&'static str] = match record {
            "a 0 exited 0" => &["a 0 exited 0", "b 0 running"],
            _ => &["a 0 exited 1", "b 0 running"],
        };
        Case { spec: simple(policy), sandboxes: vec![sandbox(0, true)], records, ..Case::default() }.check(expect);
    }
    let records = &["a 0 exited 0", "b 0 exited 1"];
    let never = || Case { spec: simple("Never"), records, ..Case::default() };
    Case { sandboxes: vec![sandbox(0, true)], ..never() }.check("stop s0, finished");
    Case { sandboxes: vec![sandbox(0, false)], ..never() }.check("finished");
}

#[test]
fn init_containers_go_one_by_one() {
    let spec = || with_init("Always");
    let case = |records| Case { spec: spec(), sandboxes: vec![sandbox(0, true)], records, ..Case::default() };
    case(&["i 0 running"]).check("");
    case(&["i 0 exited 0"]).check("start j 0");
    case(&["i 0 exited 1"]).check("start i 1");
    case(&["i 0 exited 0", "j 0 exited 0"]).check("start a 0");
    case(&["i 0 exited 0", "j 0 exited 0", "a 0 running"]).check("");
    // The record of one was collected: its turn is over all the same.
    case(&["a 0 running"]).check("");
    let records = &["i 0 exited 1"];
    let never = Case { spec: with_init("Never"), sandboxes: vec![sandbox(0, true)], records, ..Case::default() };
    never.check("stop s0, finished");
}

#[test]
fn sidecars_start_in_order_and_do_not_hold_up_the_end() {
    let case = |records| Case { spec: with_sidecar(), sandboxes: vec![sandbox(0, true)], records, ..Case::default() };
    case(&["s 0 running"]).check("start i 0");
    case(&["s 0 running", "i 0 exited 0"]).check("start a 0");
    case(&["s 0 exited 1", "i 0 exited 0", "a 0 running"]).check("start s 1");
    case(&["s 0 running", "i 0 exited 0", "a 0 exited 0"]).check("stop s0, finished");
}

#[test]
fn one_exit_restarts_all() {
    let rule = json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}});
    let spec = || {
        let mut spec = with_init("Never");
        spec["containers"] =
            json!([{"name": "a", "restartPolicy": "Never", "restartPolicyRules": [rule]}, {"name": "b"}]);
        spec
    };
    let case = |records| Case { spec: spec(), sandboxes: vec![sandbox(0, true)], records, ..Case::default() };
    // All that was made before that exit ends, then begins anew, in order.
    case(&["i 0 exited 0", "j 0 exited 0", "a 0 exited 42", "b 0 running"]).check("end b0");
    case(&["i 0 exited 0", "j 0 exited 0", "a 0 exited 42", "b 0 exited 137"]).check("start i 1");
    let round = &["i 0 exited 0", "j 0 exited 0", "a 0 exited 42", "b 0 exited 137", "i 1 later exited 0"];
    case(round).check("start j 1");
    let round = &[
        "i 0 exited 0",
        "j 0 exited 0",
        "a 0 exited 42",
        "b 0 exited 137",
        "i 1 later exited 0",
        "j 1 later exited 0",
    ];
    case(round).check("start a 1, start b 1");
    case(&["i 1 later exited 0", "j 1 later exited 0", "a 0 exited 42", "a 1 later running", "b 1 later running"])
        .check("");
    // Another exit is the policy's.
    case(&["i 0 exited 0", "j 0 exited 0", "a 0 exited 1", "b 0 running"]).check("");
}

#[test]
fn ephemeral_containers_start_once_whatever_the_others_do() {
    let spec = || {
        let mut spec = with_init("Always");
        spec["ephemeralContainers"] = json!([{"name": "debug"}]);
        spec
    };
    let case = |records| Case { spec: spec(), sandboxes: vec![sandbox(0, true)], records, ..Case::default() };
    case(&["i 0 running"]).check("start debug 0");
    case(&["i 0 exited 0", "j 0 exited 0", "a 0 running", "debug 0 running"]).check("");
    case(&["i 0 exited 0", "j 0 exited 0", "a 0 running", "debug 0 exited 1"]).check("");
    case(&["i 0 exited 0", "j 0 exited 0", "a 0 running", "debug 0 created"]).check("");
    // Not in a sandbox that is still to be made.
    Case { spec: spec(), ..Case::default() }.check("sandbox 0, start i 0");
    let mut spec = simple("Never");
    spec["ephemeralContainers"] = json!([{"name": "debug"}]);
    let records = &["a 0 exited 0", "b 0 exited 0", "debug 0 running"];
    Case { spec, sandboxes: vec![sandbox(0, true)], records, ..Case::default() }.check("stop s0, finished");
}

#[test]
fn a_sandbox_that_could_not_be_set_up_goes_and_its_number_with_it() {
    let failed = || vec![sandbox(1, false)];
    Case { spec: simple("Always"), sandboxes: failed(), ..Case::default() }
        .check("remove s1, sandbox 2, start a 0, start b 0");
    // One that containers ran in stays, for their logs.
    let records = &["a 0 exited 0"];
    let sandboxes = vec![sandbox(0, false), sandbox(1, false)];
    Case { spec: simple("Always"), sandboxes, records, ..Case::default() }
        .check("remove s1, sandbox 2, start a 1, start b 0");
}

#[test]
fn a_lost_sandbox_is_made_again() {
    let records = &["a 0 exited 255", "b 1 running"];
    Case { spec: simple("Always"), sandboxes: vec![sandbox(0, false)], records, ..Case::default() }
        .check("stop s0, sandbox 1, start a 1, start b 2");
    // Init containers run again in the new one.
    let records = &["i 0 exited 0", "j 0 exited 0", "a 0 exited 255"];
    Case { spec: with_init("Always"), sandboxes: vec![sandbox(0, false)], records, ..Case::default() }
        .check("sandbox 1, start i 1");
    Case {
        spec: with_init("Always"),
        sandboxes: vec![sandbox(0, false), sandbox(1, true)],
        records: &["i 0 exited 0", "j 0 exited 0", "a 0 exited 255", "i 1 exited 0@s1"],
        ..Case::default()
    }
    .check("start j 1");
}

#[test]
fn a_created_container_that_never_ran_is_replaced() {
    let records = &["a 2 created", "b 0 running"];
    Case { spec: simple("Always"), sandboxes: vec![sandbox(0, true)], records, ..Case::default() }
        .check("remove a2, start a 2");
}

#[test]
fn failed_probes() {
    let case = |policy, kind| {
        let mut verdicts = Verdicts::default();
        verdicts.set("a0", kind, false);
        let records = &["a 0 running", "b 0 running"];
        Case { spec: simple(policy), sandboxes: vec![sandbox(0, true)], records, verdicts, ..Case::default() }
    };
    case("Always", Kind::Liveness).check("stop a0 (Container a failed liveness probe, will be restarted)");
    case("Never", Kind::Liveness).check("stop a0 (Container a failed liveness probe)");
    case("Always", Kind::Startup).check("stop a0 (Container a failed startup probe, will be restarted)");
    case("Always", Kind::Readiness).check("");
    // Exit code 0 after the stop: it runs again although the policy alone would not have it.
    let records = &["a 0 exited 0", "b 0 running"];
    let sandboxes = vec![sandbox(0, true)];
    Case { spec: simple("OnFailure"), sandboxes, records, asked: &["a0"], ..Case::default() }.check("start a 1");
}

#[test]
fn crash_loops_wait() {
    let mut backoff = Backoff::default();
    backoff.advance("a", at(NOW - 20), at(NOW - 20));
    let records = &["a 1 exited 1", "b 0 running"];
    let case = Case { spec: simple("Always"), sandboxes: vec![sandbox(0, true)], records, backoff, ..Case::default() };
    let (actions, plan) = case.plan();
    assert_eq!(actions, "");
    assert_eq!(plan.wake_at, Some(at(NOW + 9)));
    let held = plan.held.get("a").expect("held back");
    assert_eq!(held.reason, "CrashLoopBackOff");
    assert_eq!(held.message, "back-off 10s restarting failed container=a pod=p_ns(u)");
}
