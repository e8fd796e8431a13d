//! Simulation: a StatefulSet over a fake API, with stores that lag, processes that are killed between any two writes,
//! and pods that start, fail and are deleted when they like, while the set is scaled and rolled. Whatever the order of
//! things: no two pods of an ordinal at a time, no member before those below it are well, no update below the partition,
//! and in the end every member is there, of the right revision.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{StatefulSetController, members};
use crate::client::request::{Answer, Request, Verb};
use crate::server::controllers::simulation::api::{self, Api, Named, World};

const SEEDS: u64 = 60;
const STEPS: usize = 500;
const STORAGES: [&str; 3] = ["pods", "apps/statefulsets", "apps/controllerrevisions"];

struct Set {
    api: Api,
    ordered: bool,
    partition: i32,
    /// Nothing fails any more.
    calm: bool,
}

impl World for Set {
    fn api(&mut self) -> &mut Api {
        &mut self.api
    }

    fn execute(&mut self, request: &Request) -> Option<Answer> {
        let storage = request.resource.storage;
        let mut name = request.name.clone();
        match request.verb {
            Verb::Create if storage == "pods" => {
                self.check_creation(request.body["metadata"]["name"].as_str().unwrap());
                name = self.api.create(request, json!({ "phase": "Pending" }))?.0;
            }
            Verb::Create => name = self.api.create(request, Value::Null)?.0,
            Verb::Delete => {
                let object = self.api.get(storage, &name)?;
                if object["metadata"]["uid"] != request.body["preconditions"]["uid"] {
                    return None;
                }
                if storage != "pods" {
                    self.api.unset(storage, &name);
                } else if object["metadata"]["deletionTimestamp"].is_null() {
                    self.check_deletion(&object);
                    self.api.mark_deleted(storage, &name, 30);
                }
            }
            Verb::MergePatch => {
                self.api.patch(request)?;
            }
            other => panic!("{other:?}"),
        }
        Some(self.api.answer(storage, &name))
    }
}

fn ordinal(pod: &Value) -> i32 {
    members::ordinal("web", pod["metadata"]["name"].as_str().unwrap()).unwrap()
}

fn is_well(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
        && pod["status"]["conditions"][0]["status"] == "True"
        && pod["metadata"]["deletionTimestamp"].is_null()
}

impl Set {
    fn new(seed: u64) -> Self {
        let mut api = Api::new(seed);
        let ordered = api.rng.chance(60);
        let partition = if api.rng.chance(40) { 1 } else { 0 };
        let policy = if ordered { "OrderedReady" } else { "Parallel" };
        let rolling = json!({ "partition": partition, "maxUnavailable": 1 + api.rng.below(2) });
        let replicas = api.rng.below(6);
        let spec = json!({
            "replicas": replicas, "serviceName": "web", "podManagementPolicy": policy, "revisionHistoryLimit": 2,
            "selector": { "matchLabels": { "app": "a" } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling },
            "template": { "metadata": { "labels": { "app": "a" } },
                "spec": { "containers": [{ "name": "c", "image": "v1" }] } },
        });
        let meta = json!({ "name": "web", "namespace": "ns", "uid": "web", "generation": 1 });
        api.set("apps/statefulsets", "web", json!({ "metadata": meta, "spec": spec, "status": { "replicas": 0 } }));
        Self { api, ordered, partition, calm: false }
    }

    /// What the controller had seen when it planned: pods may have changed since.
    fn seen(&self) -> Vec<Value> {
        self.api.stores.pods.list("ns").iter().map(|p| serde_json::to_value(&**p).unwrap()).collect()
    }

    fn check_creation(&self, name: &str) {
        let created = members::ordinal("web", name).unwrap();
        let seen = self.seen();
        assert!(!seen.iter().any(|p| ordinal(p) == created), "{name} was there when it was made");
        if self.ordered {
            for below in 0..created {
                let well = seen.iter().any(|p| ordinal(p) == below && is_well(p));
                assert!(well, "{name} is made before web-{below} is well");
            }
        }
    }

    /// An outdated member goes only when it is above the partition, and one at a time where order is kept.
    fn check_deletion(&self, pod: &Value) {
        let set = self.api.stores.stateful_sets.get("ns", "web").unwrap();
        let wanted = set.spec.as_ref().unwrap().replicas.unwrap();
        let beyond = ordinal(pod) >= wanted;
        let failed = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
        if !beyond && !failed {
            assert!(ordinal(pod) >= self.partition, "{} is below the partition", pod["metadata"]["name"]);
        }
        if self.ordered && beyond {
            let higher = self.seen().iter().any(|p| ordinal(p) > ordinal(pod));
            assert!(!higher, "{} goes before a higher one", pod["metadata"]["name"]);
        }
    }

    /// The kubelet's part, and that of those who delete pods.
    fn live(&mut self) {
        let pods = self.api.of("pods");
        if pods.is_empty() {
            return;
        }
        let mut pod = pods[self.api.rng.below(pods.len())].clone();
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.api.now += SignedDuration::from_secs(1);
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            return self.api.unset("pods", &name);
        }
        let trouble = !self.calm && self.api.rng.chance(15);
        if trouble && self.api.rng.chance(50) {
            return self.api.mark_deleted("pods", &name, 30);
        }
        let (phase, ready) = if trouble { ("Failed", "False") } else { ("Running", "True") };
        if pod["status"]["phase"] != "Failed" && pod["status"]["phase"] != phase {
            pod["status"] = json!({ "phase": phase, "conditions": [{ "type": "Ready", "status": ready,
                "lastTransitionTime": self.api.now.to_string() }] });
            self.api.set("pods", &name, pod);
        }
    }

    fn change(&mut self) {
        let mut set = self.api.get("apps/statefulsets", "web").unwrap();
        if self.api.rng.chance(50) {
            set["spec"]["replicas"] = self.api.rng.below(6).into();
        } else {
            let image = format!("v{}", 1 + self.api.rng.below(3));
            set["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
        }
        set["metadata"]["generation"] = (set["metadata"]["generation"].as_i64().unwrap() + 1).into();
        self.api.set("apps/statefulsets", "web", set);
    }

    fn plan(&mut self) -> bool {
        if self.api.rng.chance(5) {
            self.api.restart();
        }
        api::plan(self, 0, &StatefulSetController, "web")
    }

    fn step(&mut self) {
        match self.api.rng.below(100) {
            0..45 => {
                let storage = STORAGES[self.api.rng.below(STORAGES.len())];
                self.api.deliver(storage);
            }
            45..75 => {
                self.plan();
            }
            75..97 => self.live(),
            _ => self.change(),
        }
    }

    /// Nothing fails any more: it must come to rest.
    fn settle(&mut self) {
        self.calm = true;
        for _ in 0..600 {
            self.api.deliver_all();
            let busy = self.plan();
            for _ in 0..10 {
                self.live();
            }
            let well = self.api.of("pods").iter().all(is_well);
            if !busy && well && self.api.all_delivered() {
                return;
            }
        }
        panic!("does not come to rest: {:#?}", self.api.get("apps/statefulsets", "web"));
    }

    fn check_end(&self) {
        let set = self.api.get("apps/statefulsets", "web").unwrap();
        let wanted = i32::try_from(set["spec"]["replicas"].as_i64().unwrap()).unwrap();
        let mut there: Vec<i32> = self.api.of("pods").iter().map(ordinal).collect();
        there.sort_unstable();
        assert_eq!(there, (0..wanted).collect::<Vec<_>>());
        let image = |of: &Value| of["spec"]["containers"][0]["image"].clone();
        let new = image(&set["spec"]["template"]);
        for pod in self.api.of("pods").iter().filter(|p| ordinal(p) >= self.partition) {
            assert_eq!(image(pod), new, "{}", pod["metadata"]["name"]);
        }
        let status = &set["status"];
        for count in ["replicas", "readyReplicas", "availableReplicas"] {
            assert_eq!(status[count], wanted, "{count}: {status}");
        }
        assert_eq!(status["observedGeneration"], set["metadata"]["generation"]);
        if self.partition == 0 {
            assert_eq!(status["currentRevision"], status["updateRevision"], "{status}");
        }
        assert!(self.api.of("apps/controllerrevisions").len() <= 4, "history limit 2, and two in use");
    }
}

#[test]
fn members_keep_their_order_whatever_is_lost_in_between() {
    for seed in 1..=SEEDS {
        let _named = Named(seed);
        let mut world = Set::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        world.check_end();
    }
}
