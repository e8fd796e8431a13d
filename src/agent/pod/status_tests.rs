//! Tables of pod statuses.

use serde_json::{Value, json};

use super::*;
use crate::agent::probes::Kind;
use crate::cri::Sandbox;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("small number")
}

fn record(name: &str, attempt: u32, state: State, exit_code: i32) -> cri::Container {
    cri::Container {
        id: format!("{name}{attempt}"),
        sandbox_id: "s0".into(),
        pod_uid: "u".into(),
        name: name.into(),
        attempt,
        state,
        image: "docker.io/library/busybox:1".into(),
        image_ref: "sha256:abc".into(),
        created_at: at(10),
        annotations: Vec::new(),
        started_at: Some(at(11)),
        finished_at: (state == State::Exited).then(|| at(12)),
        exit_code,
        reason: String::new(),
        message: String::new(),
        log_path: String::new(),
        image_mounts: Vec::new(),
    }
}

struct Case {
    spec: Value,
    records: Vec<cri::Container>,
    waiting: BTreeMap<String, Waiting>,
    verdicts: Verdicts,
    terminal: bool,
    sandbox: bool,
}

impl Case {
    fn new(spec: Value, records: Vec<cri::Container>) -> Case {
        let (waiting, verdicts) = (BTreeMap::new(), Verdicts::default());
        Case { spec, records, waiting, verdicts, terminal: false, sandbox: true }
    }

    fn render(self) -> Value {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1}, "spec": self.spec}))
        .expect("valid");
        let sandbox = Sandbox {
            id: "s0".into(),
            pod_uid: "u".into(),
            namespace: "ns".into(),
            name: "p".into(),
            attempt: 0,
            ready: true,
            created_at: at(9),
            ips: vec!["10.42.0.2".into()],
        };
        let sandboxes = if self.sandbox { vec![sandbox] } else { Vec::new() };
        let status = render(&Input {
            pod: &pod,
            previous: &PodStatus::default(),
            observed: &Observed { sandboxes, containers: self.records },
            verdicts: &self.verdicts,
            waiting: &self.waiting,
            messages: &BTreeMap::new(),
            terminal: self.terminal,
            failure: None,
            disruption: None,
            host_ips: &["192.0.2.1".to_owned()],
            resizing: (&resize::Actual::default(), &resize::Progress::default()),
            now: at(100),
        });
        serde_json::to_value(status).expect("serializes")
    }

    /// `Phase | Type=Status[ Reason: message]…`
    fn check(self, expect: &str) {
        let status = self.render();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut found = text(&status["phase"]);
        for condition in status["conditions"].as_array().expect("a list") {
            let short = match text(&condition["type"]).as_str() {
                "PodReadyToStartContainers" => "Net",
                "Initialized" => "Init",
                "Ready" => "Ready",
                "ContainersReady" => "Containers",
                _ => continue,
            };
            found.push_str(&format!(" {short}={}", &text(&condition["status"])[..1]));
            if short == "Containers" || short == "Init" {
                let (reason, message) = (text(&condition["reason"]), text(&condition["message"]));
                found.push_str(
                    &[reason, message].iter().filter(|t| !t.is_empty()).fold(String::new(), |a, t| a + " " + t),
                );
            }
        }
        assert_eq!(found, expect);
    }
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "busybox"}]})
}

fn with_init() -> Value {
    json!({"restartPolicy": "Always", "containers": [{"name": "a"}], "initContainers": [{"name": "i"}]})
}

#[test]
fn phases_and_conditions() {
    use State::{Exited, Running};
    let not_ready = "Containers=F ContainersNotReady containers with unready status: [a]";
    let pending = format!("Pending Net=F Init=T Ready=F {not_ready}");
    let mut case = Case::new(one("Always"), vec![]);
    case.sandbox = false;
    case.check(&pending);
    Case::new(one("Always"), vec![record("a", 0, Running, 0)]).check("Running Net=T Init=T Ready=T Containers=T");
    // Between exit and restart an Always pod is Running.
    Case::new(one("Always"), vec![record("a", 0, Exited, 1)])
        .check(&format!("Running Net=T Init=T Ready=F {not_ready}"));
    for (policy, code, expect) in [
        ("Never", 0, "Succeeded Net=F Init=T PodCompleted Ready=F Containers=F PodCompleted"),
        ("OnFailure", 0, "Succeeded Net=F Init=T PodCompleted Ready=F Containers=F PodCompleted"),
        ("Never", 3, "Failed Net=F Init=T Ready=F Containers=F PodFailed"),
        ("Always", 137, "Failed Net=F Init=T Ready=F Containers=F PodFailed"),
    ] {
        let mut case = Case::new(one(policy), vec![record("a", 0, Exited, code)]);
        (case.terminal, case.sandbox) = (true, false);
        case.check(expect);
    }
}

#[test]
fn init_containers_hold_the_pod_pending() {
    use State::{Exited, Running};
    let not_ready = "Ready=F Containers=F ContainersNotReady containers with unready status: [a]";
    let incomplete = "Init=F ContainersNotInitialized containers with incomplete status: [i]";
    Case::new(with_init(), vec![record("i", 0, Running, 0)]).check(&format!("Pending Net=T {incomplete} {not_ready}"));
    Case::new(with_init(), vec![record("i", 0, Exited, 0)]).check(&format!("Pending Net=T Init=T {not_ready}"));
    Case::new(with_init(), vec![record("i", 0, Exited, 0), record("a", 0, Running, 0)])
        .check("Running Net=T Init=T Ready=T Containers=T");
    let status = Case::new(with_init(), vec![]).render();
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
}

#[test]
fn crash_loop_shows_the_last_end() {
    let mut case = Case::new(one("Always"), vec![record("a", 2, State::Exited, 1)]);
    let waiting = Waiting { reason: "CrashLoopBackOff".into(), message: "back-off".into() };
    case.waiting.insert("a".into(), waiting);
    let status = case.render();
    let container = &status["containerStatuses"][0];
    assert_eq!(container["state"], json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}));
    assert_eq!(
        container["lastState"]["terminated"],
        json!({"containerID": "containerd://a2", "exitCode": 1, "reason": "Error",
            "startedAt": "1970-01-01T00:00:11Z", "finishedAt": "1970-01-01T00:00:12Z"})
    );
    assert_eq!((&container["restartCount"], &container["ready"]), (&json!(2), &json!(false)));
    assert_eq!(status["phase"], "Running");
}

#[test]
fn a_running_container() {
    let spec = json!({"restartPolicy": "Always", "containers": [{"name": "a", "readinessProbe": {}}]});
    let records = vec![record("a", 0, State::Exited, 0), record("a", 1, State::Running, 0)];
    let mut case = Case::new(spec.clone(), records.clone());
    case.verdicts.set("a1", Kind::Readiness, true);
    let status = case.render();
    assert_eq!(
        status["containerStatuses"][0],
        json!({"name": "a", "image": "docker.io/library/busybox:1", "imageID": "sha256:abc",
            "containerID": "containerd://a1", "restartCount": 1, "ready": true, "started": true, "resources": {},
            "state": {"running": {"startedAt": "1970-01-01T00:00:11Z"}},
            "lastState": {"terminated": {"containerID": "containerd://a0", "exitCode": 0, "reason": "Completed",
                "startedAt": "1970-01-01T00:00:11Z", "finishedAt": "1970-01-01T00:00:12Z"}}})
    );
    assert_eq!((&status["podIP"], &status["hostIP"]), (&json!("10.42.0.2"), &json!("192.0.2.1")));
    assert_eq!((&status["observedGeneration"], &status["qosClass"]), (&json!(1), &json!("BestEffort")));
    Case::new(spec, records)
        .check("Running Net=T Init=T Ready=F Containers=F ContainersNotReady containers with unready status: [a]");
}

#[test]
fn the_patch_clears_what_no_longer_holds_and_leaves_others_conditions() {
    let gate = PodCondition { type_: "example.com/gate".into(), status: "True".into(), ..PodCondition::default() };
    let ready = verdict("Ready", true, "", "");
    let status = PodStatus { conditions: Some(vec![ready, gate]), ..PodStatus::default() };
    let mut pod = Pod::default();
    pod.metadata.uid = Some("u".into());
    assert_eq!(
        patch(&pod, &status),
        json!({"metadata": {"uid": "u"}, "status": {"reason": null, "message": null, "conditions": [
            {"type": "Ready", "status": "True", "reason": null, "message": null}]}})
    );
}

#[test]
fn an_address_of_before_goes() {
    let status = |ip: &str| PodStatus {
        pod_ip: Some(ip.into()),
        pod_ips: Some(vec![PodIP { ip: ip.into() }]),
        host_ips: Some(vec![HostIP { ip: ip.into() }]),
        ..PodStatus::default()
    };
    let before = json!({"metadata": {"uid": "u"}, "status": status("10.42.0.2")});
    let mut pod = Pod::default();
    pod.metadata.uid = Some("u".into());
    let schema = crate::api::schema::find("", "v1", "Pod").expect("the table has pods");
    let now = crate::api::strategic::merge(&before, &patch(&pod, &status("10.42.0.3")), schema).expect("a patch");
    let ips = [&now["status"]["podIP"], &now["status"]["podIPs"], &now["status"]["hostIPs"]];
    assert_eq!(ips, [&json!("10.42.0.3"), &json!([{"ip": "10.42.0.3"}]), &json!([{"ip": "10.42.0.3"}])]);
}
