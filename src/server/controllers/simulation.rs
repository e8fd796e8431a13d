//! Simulation: Deployment and ReplicaSet controllers over a fake API, with caches that lag by any number of changes,
//! plans that are cut off half-way, pods that become ready when they like and crash. Whatever the order of things,
//! there must never be too many pods, controllers must never take away too many, and it must end where it should.
//!
//! A failure prints its seed; `SEEDS` is small enough for every run.

pub mod api;

use jiff::SignedDuration;
use serde_json::{Value, json};

use self::api::{Api, Named, World};
use super::deployment::DeploymentController;
use super::replica_set::ReplicaSetController;
use crate::client::request::{Answer, Request, Verb};

const SEEDS: u64 = 20;
const STEPS: usize = 800;

struct RollOut {
    api: Api,
    crashes: bool,
    /// Pods have crashed: how many are available is not the controllers' doing any more.
    crashed: bool,
    replicas: i64,
    surge: i64,
    unavailable: i64,
    /// Available pods were enough at some time: from then on controllers must keep it so.
    was_available: bool,
}

impl World for RollOut {
    fn api(&mut self) -> &mut Api {
        &mut self.api
    }

    fn execute(&mut self, request: &Request) -> Option<Answer> {
        let storage = request.resource.storage;
        let name = match request.verb {
            Verb::Create => self.create(request)?,
            Verb::Delete => {
                let object = self.api.get(storage, &request.name)?;
                if object["metadata"]["uid"] != request.body["preconditions"]["uid"] {
                    return None;
                }
                if storage == "pods" {
                    self.check_deletion(&object);
                    self.api.mark_deleted(storage, &request.name, 30);
                } else {
                    self.api.unset(storage, &request.name);
                }
                return Some(Answer::default());
            }
            Verb::MergePatch => {
                if self.api.patch(request)? {
                    self.check_sizes();
                }
                request.name.clone()
            }
            other => panic!("{other:?}"),
        };
        Some(self.api.answer(storage, &name))
    }
}

impl RollOut {
    fn new(seed: u64, crashes: bool) -> Self {
        let mut api = Api::new(seed);
        let replicas = i64::try_from(1 + api.rng.below(6)).unwrap();
        let surge = i64::try_from(api.rng.below(3)).unwrap();
        let unavailable = i64::try_from(api.rng.below(3)).unwrap().min(replicas);
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        let mut world = Self { api, crashes, crashed: false, replicas, surge, unavailable, was_available: false };
        world.api.set("apps/deployments", "d", json!({
            "metadata": { "name": "d", "namespace": "ns", "uid": "d", "generation": 1 },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": { "app": "a" } }, "revisionHistoryLimit": 2,
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } },
                "template": { "metadata": { "labels": { "app": "a" } },
                    "spec": { "containers": [{ "name": "c", "image": "v1" }] } },
            },
        }));
        world
    }

    fn active_pods(&self) -> Vec<Value> {
        self.api.of("pods").into_iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).collect()
    }

    fn ready_pods(&self) -> i64 {
        let ready = |p: &&Value| p["status"]["conditions"][0]["status"] == "True";
        i64::try_from(self.active_pods().iter().filter(ready).count()).unwrap()
    }

    /// Plans of the Deployment's controller, or of that of its sets.
    fn plan(&mut self, which: usize, name: &str) -> bool {
        match which {
            0 => api::plan(self, which, &DeploymentController, name),
            _ => api::plan(self, which, &ReplicaSetController::ReplicaSets, name),
        }
    }

    fn create(&mut self, request: &Request) -> Option<String> {
        let pods = request.resource.storage == "pods";
        let status = if pods { json!({ "phase": "Pending" }) } else { json!({ "replicas": 0 }) };
        let (name, object) = self.api.create(request, status)?;
        if pods {
            self.check_creation(&object);
        }
        self.check_sizes();
        Some(name)
    }

    fn check_sizes(&self) {
        let limit = self.replicas + self.surge;
        let sizes: i64 =
            self.api.of("apps/replicasets").iter().map(|s| s["spec"]["replicas"].as_i64().unwrap_or(1)).sum();
        assert!(sizes <= limit, "ReplicaSets ask for {sizes} pods, limit {limit}");
    }

    /// Never more pods than the ReplicaSet asked for when its controller looked: a cache that does not show the pods
    /// of the last plan yet must not make them twice. (Over all sets the sum may be above the surge for a moment, as
    /// upstream: a size counts as soon as it is written.)
    fn check_creation(&self, pod: &Value) {
        let owner = &pod["metadata"]["ownerReferences"][0];
        let observed = self.api.stores.replica_sets.get("ns", owner["name"].as_str().unwrap()).unwrap();
        let wanted = observed.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let of_set = |p: &&Value| p["metadata"]["ownerReferences"][0]["uid"] == owner["uid"];
        let made = self.active_pods().iter().filter(of_set).count();
        assert!(made <= usize::try_from(wanted).unwrap(), "{made} pods of a set that asked for {wanted}");
    }

    /// A controller takes a pod away: enough must stay available (crashes apart, which are nobody's plan).
    fn check_deletion(&self, pod: &Value) {
        let ready = pod["status"]["conditions"][0]["status"] == "True";
        let active = pod["metadata"]["deletionTimestamp"].is_null();
        if self.crashed || !self.was_available || !ready || !active {
            return;
        }
        let left = self.ready_pods() - 1;
        let least = self.replicas - self.unavailable;
        assert!(left >= least, "{left} available pods left, at least {least} must be");
    }

    /// The kubelet's part: pods start, crash and end.
    fn live(&mut self) {
        let pods: Vec<Value> = self.api.of("pods");
        if pods.is_empty() {
            return;
        }
        let mut pod = pods[self.api.rng.below(pods.len())].clone();
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            self.api.unset("pods", &name);
            return;
        }
        let ready = pod["status"]["conditions"][0]["status"] == "True";
        if ready && !(self.crashes && self.api.rng.chance(10)) {
            return;
        }
        self.api.now += SignedDuration::from_secs(1);
        self.crashed |= ready;
        let now = !ready;
        pod["spec"]["nodeName"] = "n".into();
        pod["status"] = json!({ "phase": "Running", "conditions": [{ "type": "Ready",
            "status": if now { "True" } else { "False" }, "lastTransitionTime": self.api.now.to_string() }] });
        self.api.set("pods", &name, pod);
        self.was_available |= self.ready_pods() >= self.replicas - self.unavailable;
    }

    fn roll(&mut self) {
        let mut d = self.api.get("apps/deployments", "d").unwrap();
        d["spec"]["template"]["spec"]["containers"][0]["image"] = format!("v{}", 1 + self.api.rng.below(4)).into();
        d["metadata"]["generation"] = (d["metadata"]["generation"].as_i64().unwrap() + 1).into();
        self.api.set("apps/deployments", "d", d);
    }

    fn step(&mut self) {
        const STORAGES: [&str; 3] = ["pods", "apps/replicasets", "apps/deployments"];
        match self.api.rng.below(100) {
            0..45 => {
                let storage = STORAGES[self.api.rng.below(3)];
                self.api.deliver(storage);
            }
            45..60 => {
                self.plan(0, "d");
            }
            60..80 => {
                let sets = self.api.of("apps/replicasets");
                if !sets.is_empty() {
                    let name = sets[self.api.rng.below(sets.len())]["metadata"]["name"].as_str().unwrap().to_owned();
                    self.plan(1, &name);
                }
            }
            80..98 => self.live(),
            _ if self.api.rng.chance(30) => self.roll(),
            _ => {}
        }
    }

    /// Everything is delivered and nothing crashes any more: it must come to rest.
    fn settle(&mut self) {
        self.crashes = false;
        for _ in 0..400 {
            self.api.deliver_all();
            let mut busy = self.plan(0, "d");
            for set in self.api.of("apps/replicasets") {
                busy |= self.plan(1, set["metadata"]["name"].as_str().unwrap());
            }
            for _ in 0..40 {
                self.live();
            }
            let at_rest = self.api.all_delivered();
            if !busy && at_rest && self.api.of("pods").len() == usize::try_from(self.replicas).unwrap() {
                return;
            }
        }
        panic!("does not come to rest: {:#?}", self.api.of("apps/replicasets"));
    }

    fn check_end(&self) {
        let d = self.api.get("apps/deployments", "d").unwrap();
        let image = &d["spec"]["template"]["spec"]["containers"][0]["image"];
        assert!(self.api.of("pods").iter().all(|p| p["spec"]["containers"][0]["image"] == *image), "old pods are left");
        let status = &d["status"];
        for count in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
            assert_eq!(status[count], self.replicas, "{count}");
        }
        assert_eq!(status["observedGeneration"], d["metadata"]["generation"]);
        assert!(self.api.of("apps/replicasets").len() <= 3, "history limit 2");
        let revisions: Vec<i64> = self
            .api
            .of("apps/replicasets")
            .iter()
            .map(|s| {
                s["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap().parse().unwrap()
            })
            .collect();
        let newest = d["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap();
        assert_eq!(revisions.iter().max().unwrap().to_string(), newest);
    }
}

fn run(crashes: bool) {
    for seed in 1..=SEEDS {
        let _named = Named(seed);
        let mut world = RollOut::new(seed, crashes);
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        world.check_end();
    }
}

#[test]
fn roll_outs_keep_their_limits_whatever_the_caches_show() {
    run(false);
}

#[test]
fn roll_outs_end_well_although_pods_crash() {
    run(true);
}
