//! Simulation: the Job controllers over a fake API, with stores that lag, processes that are killed between any two
//! writes, and pods that start, fail, succeed and are deleted when they like. Whatever the order of things, every end is
//! counted once, nothing but an end is, and no pod keeps the finalizer.

use std::collections::{HashMap, HashSet};

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::orphans::TrackedOrphans;
use super::{JobController, indexes::Indexes, view};
use crate::client::request::{Answer, Request, Verb};
use crate::server::controllers::simulation::api::{self, Api, Named, World};

const SEEDS: u64 = 40;
const STEPS: usize = 500;
const STORAGES: [&str; 2] = ["pods", "batch/jobs"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Indexed,
    /// Indexed, with one more try for each index.
    Limited,
}

struct Jobs {
    api: Api,
    controller: JobController,
    kind: Kind,
    completions: i32,
    /// Pods that were written down as having ended, by uid.
    written: HashSet<String>,
    /// How each pod ended, by uid.
    ends: HashMap<String, &'static str>,
    /// The index of each pod that has succeeded.
    succeeded: HashSet<i32>,
    /// Nothing fails any more.
    calm: bool,
}

impl World for Jobs {
    fn api(&mut self) -> &mut Api {
        &mut self.api
    }

    fn execute(&mut self, request: &Request) -> Option<Answer> {
        let storage = request.resource.storage;
        match request.verb {
            Verb::Create => {
                let (name, _) = self.api.create(request, json!({ "phase": "Pending" }))?;
                return Some(self.api.answer(storage, &name));
            }
            Verb::Delete => {
                let pod = self.api.get(storage, &request.name)?;
                if pod["metadata"]["uid"] != request.body["preconditions"]["uid"] {
                    return None;
                }
                if pod["metadata"]["deletionTimestamp"].is_null() {
                    self.api.mark_deleted(storage, &request.name, 30);
                }
            }
            Verb::MergePatch => {
                let before = self.api.get(storage, &request.name)?;
                self.api.patch(request)?;
                let after = self.api.get(storage, &request.name).unwrap();
                self.check_status(&before["status"], &after["status"]);
            }
            Verb::StrategicPatch => self.untrack(request)?,
            other => panic!("{other:?}"),
        }
        Some(self.api.answer(storage, &request.name))
    }
}

impl Jobs {
    fn new(seed: u64, kind: Kind) -> Self {
        let mut api = Api::new(seed);
        let completions = i32::try_from(1 + api.rng.below(8)).unwrap();
        let parallelism = 1 + api.rng.below(5);
        let policy = if api.rng.chance(50) { "Failed" } else { "TerminatingOrFailed" };
        let mut spec = json!({
            "completions": completions, "parallelism": parallelism, "backoffLimit": 1_000_000, "suspend": false,
            "completionMode": if kind == Kind::Plain { "NonIndexed" } else { "Indexed" },
            "podReplacementPolicy": policy, "selector": { "matchLabels": { "of": "j" } },
            "template": { "metadata": { "labels": { "of": "j" } }, "spec": { "containers": [{ "name": "c" }] } },
        });
        if kind == Kind::Limited {
            spec["backoffLimitPerIndex"] = 1.into();
        }
        api.set(
            "batch/jobs",
            "j",
            json!({ "metadata": { "name": "j", "namespace": "ns", "uid": "j", "generation": 1 }, "spec": spec }),
        );
        Self {
            api,
            controller: JobController::default(),
            kind,
            completions,
            written: HashSet::new(),
            ends: HashMap::new(),
            succeeded: HashSet::new(),
            calm: false,
        }
    }

    fn untrack(&mut self, request: &Request) -> Option<()> {
        let (name, wanted) = (&request.name, &request.body["metadata"]);
        let mut pod = self.api.get("pods", name)?;
        let same = |field: &str| wanted[field].is_null() || wanted[field] == pod["metadata"][field];
        if !same("uid") || !same("resourceVersion") {
            return None;
        }
        assert!(wanted["$deleteFromPrimitiveList/finalizers"].is_array(), "{wanted}");
        if pod["metadata"]["finalizers"].is_null() {
            return Some(());
        }
        pod["metadata"]["finalizers"] = Value::Null;
        let ended = pod["metadata"]["deletionGracePeriodSeconds"] == 0;
        self.api.set("pods", name, pod);
        if ended {
            self.api.unset("pods", name);
        }
        Some(())
    }

    /// Each pod is written down once, and those that are said to have succeeded have.
    fn check_status(&mut self, before: &Value, after: &Value) {
        for list in ["succeeded", "failed"] {
            let uids = |status: &Value| -> HashSet<String> {
                let list = status["uncountedTerminatedPods"][list].as_array();
                list.into_iter().flatten().map(|u| u.as_str().unwrap().to_owned()).collect()
            };
            for uid in uids(after).difference(&uids(before)) {
                assert!(self.written.insert(uid.clone()), "{uid} is written down twice");
                if list == "succeeded" {
                    assert_eq!(self.ends.get(uid), Some(&"Succeeded"), "{uid} has not succeeded");
                }
            }
        }
        let completed = after["completedIndexes"].as_str().unwrap_or_default();
        let completed = Indexes::parse(completed, self.completions);
        for index in (0..self.completions).filter(|i| completed.has(*i)) {
            assert!(self.succeeded.contains(&index), "index {index} has not succeeded");
        }
        let failed = after["failedIndexes"].as_str().unwrap_or_default();
        assert_eq!(completed.shared(&Indexes::parse(failed, self.completions)), 0, "the server refuses it: {after}");
        let waiting = |status: &Value| status["uncountedTerminatedPods"]["failed"].as_array().map_or(0, Vec::len);
        let failed = |status: &Value| status["failed"].as_u64().unwrap_or(0) + u64::try_from(waiting(status)).unwrap();
        assert!(failed(after) >= failed(before), "failures are lost: {before} {after}");
    }

    /// The kubelet's part, and that of those who delete pods.
    fn live(&mut self) {
        let pods = self.api.of("pods");
        if pods.is_empty() {
            return;
        }
        let mut pod = pods[self.api.rng.below(pods.len())].clone();
        let meta = &pod["metadata"];
        let (name, uid) = (meta["name"].as_str().unwrap().to_owned(), meta["uid"].as_str().unwrap().to_owned());
        let going = !meta["deletionTimestamp"].is_null();
        let tracked = !meta["finalizers"].is_null();
        let phase = pod["status"]["phase"].as_str().unwrap().to_owned();
        self.api.now += SignedDuration::from_secs(1);
        if matches!(phase.as_str(), "Succeeded" | "Failed") {
            if going && tracked {
                pod["metadata"]["deletionGracePeriodSeconds"] = 0.into();
                self.api.set("pods", &name, pod);
            } else if going {
                self.api.unset("pods", &name);
            } else if !tracked && self.api.rng.chance(20) {
                // Somebody tidies up.
                self.api.unset("pods", &name);
            }
            return;
        }
        if !going && !self.calm && self.api.rng.chance(10) {
            self.api.mark_deleted("pods", &name, 30);
            return;
        }
        if phase == "Pending" && !going {
            pod["status"] = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
            self.api.set("pods", &name, pod);
            return;
        }
        let fails = (going || !self.calm) && self.api.rng.chance(40);
        let end = if fails { "Failed" } else { "Succeeded" };
        pod["status"] = json!({ "phase": end, "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": self.api.now.to_string() }] });
        if !fails {
            let index: Option<i32> = pod["metadata"]["annotations"][view::INDEX].as_str().and_then(|i| i.parse().ok());
            self.succeeded.extend(index);
        }
        self.ends.insert(uid, end);
        self.api.set("pods", &name, pod);
    }

    fn suspend(&mut self, suspend: bool) {
        let Some(mut job) = self.api.get("batch/jobs", "j").filter(|j| j["spec"]["suspend"] != suspend) else { return };
        job["spec"]["suspend"] = suspend.into();
        self.api.set("batch/jobs", "j", job);
    }

    fn plan(&mut self) -> bool {
        // Another process takes over from the one that was killed.
        if self.api.rng.chance(5) {
            self.api.restart();
            self.controller = JobController::default();
        }
        let controller = std::mem::take(&mut self.controller);
        let did = api::plan(self, 0, &controller, "j");
        self.controller = controller;
        did
    }

    fn tidy(&mut self) -> bool {
        let pods = self.api.of("pods");
        let names: Vec<&str> = pods.iter().map(|p| p["metadata"]["name"].as_str().unwrap()).collect();
        names.iter().filter(|name| api::plan(self, 1, &TrackedOrphans, name)).count() > 0
    }

    fn step(&mut self) {
        match self.api.rng.below(100) {
            0..45 => {
                let storage = STORAGES[self.api.rng.below(2)];
                self.api.deliver(storage);
            }
            45..70 => {
                self.plan();
            }
            70..92 => self.live(),
            92..95 => {
                self.tidy();
            }
            95..97 => {
                let suspend = self.api.rng.chance(30);
                self.suspend(suspend);
            }
            _ => self.api.now += SignedDuration::from_secs(30),
        }
    }

    /// Nothing fails any more: it must come to rest.
    fn settle(&mut self) {
        self.calm = true;
        self.suspend(false);
        for _ in 0..600 {
            self.api.deliver_all();
            let busy = self.plan() | self.tidy();
            for _ in 0..10 {
                self.live();
            }
            self.api.now += SignedDuration::from_secs(60);
            let held = self.api.of("pods").iter().any(|p| !p["metadata"]["finalizers"].is_null());
            let job = self.api.get("batch/jobs", "j");
            let ended = job.is_none_or(|j| !j["status"]["conditions"].is_null() && is(&j, &["Complete", "Failed"]));
            if !busy && ended && !held && self.api.all_delivered() {
                return;
            }
        }
        panic!("does not come to rest: {:#?}", self.api.get("batch/jobs", "j"));
    }

    fn check_end(&self) {
        let job = self.api.get("batch/jobs", "j").unwrap();
        let status = &job["status"];
        let number = |field: &str| status[field].as_i64().unwrap_or(0);
        assert!(status["uncountedTerminatedPods"]["succeeded"].is_null(), "{status}");
        assert!(status["uncountedTerminatedPods"]["failed"].is_null(), "{status}");
        assert_eq!((number("active"), number("terminating")), (0, 0));
        let indexes = |field: &str| Indexes::parse(status[field].as_str().unwrap_or_default(), self.completions);
        match self.kind {
            Kind::Plain => {
                let succeeded = self.written.iter().filter(|uid| self.ends.get(*uid) == Some(&"Succeeded"));
                assert_eq!(number("succeeded"), i64::from(self.completions), "{status}");
                assert!(succeeded.count() >= usize::try_from(self.completions).unwrap());
                assert_eq!(number("succeeded") + number("failed"), i64::try_from(self.written.len()).unwrap());
            }
            Kind::Indexed => assert_eq!(indexes("completedIndexes").total(), self.completions),
            Kind::Limited => {
                let (done, failed) = (indexes("completedIndexes"), indexes("failedIndexes"));
                assert_eq!(done.total() + failed.total(), self.completions);
                assert_eq!(done.shared(&failed), 0);
                assert_eq!(is(&job, &["Failed"]), failed.total() > 0);
            }
        }
    }
}

fn is(job: &Value, kinds: &[&str]) -> bool {
    let conditions = job["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| kinds.iter().any(|k| c["type"] == *k) && c["status"] == "True")
}

fn run(kind: Kind) {
    for seed in 1..=SEEDS {
        let _named = Named(seed);
        let mut world = Jobs::new(seed, kind);
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        world.check_end();
    }
}

#[test]
fn every_end_counts_once_whatever_is_lost_in_between() {
    run(Kind::Plain);
}

#[test]
fn every_index_is_done_whatever_is_lost_in_between() {
    run(Kind::Indexed);
}

#[test]
fn every_index_is_done_or_given_up_whatever_is_lost_in_between() {
    run(Kind::Limited);
}

#[test]
fn no_pod_is_held_when_its_job_is_gone() {
    for seed in 1..=SEEDS {
        let _named = Named(seed);
        let mut world = Jobs::new(seed, Kind::Plain);
        for _ in 0..60 {
            world.step();
        }
        world.api.unset("batch/jobs", "j");
        world.settle();
    }
}
