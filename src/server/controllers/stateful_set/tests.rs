//! Golden plans of StatefulSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::client::request::{Class, Verb};
use crate::server::controllers::action::{Action, Failure, Write};

const NOW: &str = "2026-01-02T00:00:00Z";

/// A set of two members and one claim each; `more` is merged over it.
fn set(more: Value) -> Arc<StatefulSet> {
    let mut set = json!({
        "metadata": { "name": "web", "namespace": "ns", "uid": "web", "generation": 1 },
        "spec": { "replicas": 2, "serviceName": "svc", "selector": { "matchLabels": { "app": "a" } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "template": { "metadata": { "labels": { "app": "a" } },
                "spec": { "containers": [{ "name": "c", "image": "v1" }], "volumes": [{ "name": "tmp", "emptyDir": {} }] } },
            "volumeClaimTemplates": [{ "metadata": { "name": "data", "labels": { "tier": "x" } },
                "spec": { "accessModes": ["ReadWriteOnce"] } }] },
        "status": { "replicas": 0 },
    });
    json_patch::merge(&mut set, &more);
    Arc::new(serde_json::from_value(set).unwrap())
}

/// As the server would have stored it.
fn revision(set: &StatefulSet) -> Arc<ControllerRevision> {
    let Current::Write(write) = history(set, set.spec.as_ref().unwrap()).current(&[], &[]) else { panic!() };
    Arc::new(serde_json::from_value(write.request.body.clone()).unwrap())
}

/// A ready pod of `web`, of that revision; `more` is merged over it.
fn pod(ordinal: i32, revision: &str, more: Value) -> Arc<Pod> {
    let name = format!("web-{ordinal}");
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name,
            "labels": { "app": "a", "controller-revision-hash": revision },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "web",
                "controller": true }] },
        "spec": { "containers": [] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
    });
    json_patch::merge(&mut pod, &more);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn claim(name: &str, more: Value) -> Arc<PersistentVolumeClaim> {
    let mut claim = json!({ "metadata": { "name": name, "namespace": "ns", "uid": name } });
    json_patch::merge(&mut claim, &more);
    Arc::new(serde_json::from_value(claim).unwrap())
}

fn unready() -> Value {
    json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } })
}

fn ends() -> Value {
    json!({ "metadata": { "deletionTimestamp": NOW } })
}

fn writes(actions: &[Action]) -> Vec<&Write> {
    fn of(action: &Action) -> Vec<&Write> {
        match action {
            Action::Write(w) => vec![w],
            Action::SlowStart(all) => all.iter().collect(),
            Action::Event(_) => vec![],
            Action::Read(request) => panic!("{request:?}"),
        }
    }
    actions.iter().flat_map(of).collect()
}

fn show(actions: &[Action]) -> Vec<String> {
    let one = |w: &Write| {
        let request = &w.request;
        let named = |body: &Value| body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match (request.verb, request.subresource) {
            (Verb::Create, _) => format!("create {} {}", request.resource.singular, named(&request.body)),
            (Verb::Delete, _) => format!("delete {}", request.name),
            (Verb::StrategicPatch, _) => format!("adopt {}", request.name),
            (_, "status") => {
                let s = &request.body["status"];
                let counts = ["replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"];
                format!("status {}", counts.map(|c| s[c].to_string()).join("/"))
            }
            _ => {
                let owners = request.body["metadata"]["ownerReferences"].as_array().unwrap();
                let uids: Vec<&str> = owners.iter().map(|o| o["uid"].as_str().unwrap()).collect();
                format!("own {} by {uids:?}", request.name)
            }
        }
    };
    writes(actions).into_iter().map(one).collect()
}

/// With both claims there and the revision made; `pods` by ordinal, of `old` or the present revision.
fn check(what: &str, set: &Arc<StatefulSet>, pods: &[Arc<Pod>], want: &[&str]) -> Plan {
    let claims = (0..6).map(|n| claim(&format!("data-web-{n}"), json!({}))).collect();
    check_all(what, Observed { set: set.clone(), pods: pods.to_vec(), revisions: vec![revision(set)], claims }, want)
}

fn check_all(what: &str, observed: Observed, want: &[&str]) -> Plan {
    let plan = plan(&observed, Moment { now: NOW.parse().unwrap(), failure: None });
    let got: Vec<String> = show(&plan.actions).into_iter().filter(|a| !a.starts_with("status")).collect();
    assert_eq!(got, want, "{what}");
    plan
}

#[test]
fn ordinals() {
    for (pod, want) in [
        ("web-0", Some(0)),
        ("web-12", Some(12)),
        ("web-00", None),
        ("web-+1", None),
        ("web-", None),
        ("web-0-0", None),
        ("webb-0", None),
        ("web-99999999999", None),
    ] {
        assert_eq!(members::ordinal("web", pod), want, "{pod}");
    }
    assert_eq!(members::ordinal("web-1", "web-1-7"), Some(7));
}

#[test]
fn a_new_set_makes_its_revision_then_one_member_after_the_other() {
    let set = set(json!({}));
    let none = Observed { set: set.clone(), pods: vec![], revisions: vec![], claims: vec![] };
    let plan = check_all("no revision", none, &[&format!("create controllerrevision {}", name_of(&set))]);
    assert_eq!(plan.actions.len(), 1);

    let first = Observed { set: set.clone(), pods: vec![], revisions: vec![revision(&set)], claims: vec![] };
    let plan = check_all("first", first, &["create persistentvolumeclaim data-web-0", "create pod web-0"]);
    let made = writes(&plan.actions);
    let (of_claim, of_pod) = (&made[0].request.body, &made[1].request.body);
    assert_eq!(of_claim["metadata"]["labels"], json!({ "app": "a", "tier": "x" }));
    assert_eq!(of_claim["metadata"]["ownerReferences"], Value::Null);
    assert_eq!(of_pod["metadata"]["generateName"], Value::Null);
    assert_eq!(
        of_pod["metadata"]["labels"],
        json!({ "app": "a", "controller-revision-hash": name_of(&set), "apps.kubernetes.io/pod-index": "0",
            "statefulset.kubernetes.io/pod-name": "web-0" })
    );
    assert_eq!((&of_pod["spec"]["hostname"], &of_pod["spec"]["subdomain"]), (&json!("web-0"), &json!("svc")));
    assert_eq!(
        of_pod["spec"]["volumes"],
        json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data-web-0" } },
            { "name": "tmp", "emptyDir": {} }])
    );
    assert_eq!(
        made[1].report.as_ref().unwrap().ok.as_ref().unwrap().1,
        "create Pod web-0 in StatefulSet web successful"
    );

    let name = name_of(&set);
    check("waits for the first", &set, &[pod(0, &name, unready())], &[]);
    check("then the second", &set, &[pod(0, &name, json!({}))], &["create pod web-1"]);
    check("all there", &set, &[pod(0, &name, json!({})), pod(1, &name, json!({}))], &[]);
    check("one ends", &set, &[pod(0, &name, ends())], &[]);
    check("one has ended", &set, &[pod(0, &name, json!({ "status": { "phase": "Failed" } }))], &["delete web-0"]);
    let stray = json!({ "metadata": { "ownerReferences": null } });
    check("an orphan", &set, &[pod(0, &name, stray)], &["adopt web-0"]);
}

fn name_of(set: &StatefulSet) -> String {
    revision(set).metadata.name.clone().unwrap()
}

#[test]
fn parallel_sets_do_all_at_once() {
    let set = set(json!({ "spec": { "replicas": 3, "podManagementPolicy": "Parallel" } }));
    let name = name_of(&set);
    check("all missing", &set, &[pod(1, &name, unready())], &["create pod web-0", "create pod web-2"]);
    let beyond = [0, 1, 2, 3, 4].map(|n| pod(n, &name, unready()));
    check("all beyond", &set, &beyond, &["delete web-4", "delete web-3"]);
    let absurd = self::set(json!({ "spec": { "replicas": i32::MAX, "podManagementPolicy": "Parallel" } }));
    let none = Observed { set: absurd.clone(), pods: vec![], revisions: vec![revision(&absurd)], claims: vec![] };
    let plan = plan(&none, Moment { now: NOW.parse().unwrap(), failure: None });
    assert_eq!(writes(&plan.actions).len(), 1001, "500 claims, 500 pods, status");
}

#[test]
fn members_beyond_the_last_go_from_the_highest_when_the_others_are_well() {
    let set = set(json!({ "spec": { "replicas": 1 } }));
    let name = name_of(&set);
    let of = |more: [Value; 3]| {
        let mut ordinals = 0..;
        more.map(|more| pod(ordinals.next().unwrap(), &name, more))
    };
    let well = || json!({});
    check("highest first", &set, &of([well(), well(), well()]), &["delete web-2"]);
    check("one at a time", &set, &of([well(), well(), ends()]), &[]);
    check("a member is not well", &set, &of([unready(), well(), well()]), &[]);
    check("a lower one is not well", &set, &of([well(), unready(), unready()]), &[]);
    check("the highest is what is not well", &set, &of([well(), well(), unready()]), &["delete web-2"]);
    let started = self::set(json!({ "spec": { "replicas": 1, "ordinals": { "start": 2 } } }));
    let name = name_of(&started);
    let two = [pod(0, &name, well()), pod(2, &name, well())];
    check("below the first", &started, &two, &["delete web-0"]);
}

#[test]
fn outdated_members_go_from_the_highest_down_to_the_partition() {
    let rolling = |more: Value| {
        let status = json!({ "replicas": 3, "currentRevision": "old", "currentReplicas": 3 });
        let mut set = json!({ "spec": { "replicas": 3 }, "status": status });
        json_patch::merge(&mut set, &json!({ "spec": more }));
        self::set(set)
    };
    let set = rolling(json!({}));
    let new = name_of(&set);
    let of = |all: [(&str, Value); 3]| {
        let mut ordinals = 0..;
        all.map(|(revision, more)| pod(ordinals.next().unwrap(), revision, more))
    };
    let well = || json!({});
    let old = |more: Value| ("old", more);
    let fresh = |more: Value| (&*new, more);
    check("highest first", &set, &of([old(well()), old(well()), old(well())]), &["delete web-2"]);
    check("next", &set, &of([old(well()), old(well()), fresh(well())]), &["delete web-1"]);
    check("waits", &set, &of([old(well()), old(well()), fresh(unready())]), &[]);
    check("done", &set, &of([fresh(well()), fresh(well()), fresh(well())]), &[]);

    let part = rolling(json!({ "updateStrategy": { "rollingUpdate": { "partition": 2 } } }));
    check("above the partition", &part, &of([old(well()), old(well()), old(well())]), &["delete web-2"]);
    check("below it", &part, &of([old(well()), old(well()), fresh(well())]), &[]);

    let many = rolling(json!({ "podManagementPolicy": "Parallel",
        "updateStrategy": { "rollingUpdate": { "maxUnavailable": 2 } } }));
    check("two at once", &many, &of([old(well()), old(well()), old(well())]), &["delete web-2", "delete web-1"]);
    check("one is down", &many, &of([old(well()), old(well()), fresh(unready())]), &["delete web-1"]);
    let parallel = rolling(json!({ "podManagementPolicy": "Parallel" }));
    check("one that is down goes", &parallel, &of([old(well()), old(unready()), fresh(well())]), &["delete web-1"]);

    let manual = rolling(json!({ "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } }));
    check("on delete", &manual, &of([old(well()), old(well()), old(well())]), &[]);
}

#[test]
fn a_member_below_the_partition_comes_back_as_it_was() {
    let old = set(json!({}));
    let before = revision(&old);
    let status = json!({ "replicas": 2, "currentRevision": name_of(&old), "currentReplicas": 2 });
    let new = set(json!({ "status": status, "spec": {
        "updateStrategy": { "rollingUpdate": { "partition": 1 } },
        "template": { "spec": { "containers": [{ "name": "c", "image": "v2" }] } } } }));
    let mut after = (*revision(&new)).clone();
    after.revision = 2;
    let claims = vec![claim("data-web-0", json!({})), claim("data-web-1", json!({}))];
    let image = |pods: Vec<Arc<Pod>>, want: &[&str]| {
        let revisions = vec![before.clone(), Arc::new(after.clone())];
        let observed = Observed { set: new.clone(), pods, revisions, claims: claims.clone() };
        let plan = check_all("partition", observed, want);
        writes(&plan.actions)[0].request.body["spec"]["containers"][0]["image"].clone()
    };
    assert_eq!(image(vec![], &["create pod web-0"]), "v1");
    assert_eq!(image(vec![pod(0, &name_of(&old), json!({}))], &["create pod web-1"]), "v2");
}

#[test]
fn claims_follow_the_retention_policy() {
    let policy = |deleted: &str, scaled: &str| {
        set(json!({ "spec": { "replicas": 1,
            "persistentVolumeClaimRetentionPolicy": { "whenDeleted": deleted, "whenScaled": scaled } } }))
    };
    let by = |kind: &str, api: &str, name: &str, uid: &str| {
        json!({ "metadata": { "ownerReferences": [
            { "apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true }] } })
    };
    let of_set = || by("StatefulSet", "apps/v1", "web", "web");
    let of_pod = || by("Pod", "v1", "web-1", "web-1");
    let case = |what: &str, set: &Arc<StatefulSet>, first: Value, second: Value, want: &[&str]| {
        let name = name_of(set);
        let observed = Observed {
            set: set.clone(),
            pods: vec![pod(0, &name, json!({})), pod(1, &name, ends())],
            revisions: vec![revision(set)],
            claims: vec![claim("data-web-0", first), claim("data-web-1", second)],
        };
        check_all(what, observed, want);
    };
    let none = || json!({});
    case("retained", &policy("Retain", "Retain"), none(), none(), &[]);
    case(
        "no longer owned",
        &policy("Retain", "Retain"),
        of_set(),
        of_pod(),
        &["own data-web-0 by []", "own data-web-1 by []"],
    );
    let with_set = policy("Delete", "Retain");
    case("with the set", &with_set, none(), none(), &["own data-web-0 by [\"web\"]", "own data-web-1 by [\"web\"]"]);
    case("is so", &with_set, of_set(), of_set(), &[]);
    case("with the pod", &policy("Retain", "Delete"), none(), none(), &["own data-web-1 by [\"web-1\"]"]);
    case("both", &policy("Delete", "Delete"), of_set(), of_set(), &["own data-web-1 by [\"web-1\"]"]);
    let foreign = by("Other", "x/v1", "o", "o");
    case("managed otherwise", &with_set, foreign, of_set(), &[]);

    // The claim of the last pod of the name is about to go with it: the next one must not use it.
    let stale = by("Pod", "v1", "web-0", "gone");
    let set = policy("Retain", "Delete");
    let observed = Observed {
        set: set.clone(),
        pods: vec![],
        revisions: vec![revision(&set)],
        claims: vec![claim("data-web-0", stale)],
    };
    check_all("stale", observed, &[]);
    let observed = Observed {
        set: set.clone(),
        pods: vec![],
        revisions: vec![revision(&set)],
        claims: vec![claim("data-web-0", ends())],
    };
    check_all("the claim is being deleted", observed, &[]);
}

#[test]
fn the_status_counts_and_ends_a_roll_out() {
    let set = set(json!({ "spec": { "minReadySeconds": 30 }, "status": { "replicas": 2, "currentRevision": "old" } }));
    let new = name_of(&set);
    let of = |pods: Vec<Arc<Pod>>| {
        let claims = vec![claim("data-web-0", json!({})), claim("data-web-1", json!({}))];
        Observed { set: set.clone(), pods, revisions: vec![revision(&set)], claims }
    };
    let moment = |now: &str| Moment { now: now.parse::<Timestamp>().unwrap(), failure: None };
    let two = || vec![pod(0, &new, json!({})), pod(1, &new, json!({}))];
    let waits = plan(&of(two()), moment("2026-01-01T00:00:10Z"));
    assert_eq!(show(&waits.actions), ["status 2/2/0/2/2"]);
    assert_eq!(waits.again, Some(std::time::Duration::from_secs(20)));
    let done = plan(&of(two()), moment(NOW));
    let body = &writes(&done.actions)[0].request.body["status"];
    assert_eq!(show(&done.actions), ["status 2/2/2/2/2"]);
    assert_eq!((&body["currentRevision"], &body["updateRevision"]), (&json!(new), &json!(new)));

    // What was refused is tried again after the status.
    let failure = Failure { class: Class::Permanent, message: "quota".into() };
    let failed = plan(&of(vec![]), Moment { failure: Some(&failure), ..moment(NOW) });
    assert_eq!(show(&failed.actions), ["status 0/0/0/0/0", "create pod web-0"]);
    let mut ending = (*set).clone();
    ending.metadata.deletion_timestamp = Some(crate::clock::time());
    let ending = Observed { set: Arc::new(ending), ..of(vec![]) };
    assert_eq!(show(&plan(&ending, moment(NOW)).actions), ["status 0/0/0/0/0"], "a set that ends makes nothing");
}
