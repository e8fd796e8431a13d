//! Loop: a node: a kubelet that decides with the agent's own plan and tells what the agent's own status says, over a
//! runtime in memory that takes its time. What runs survives the kubelet; a machine without power loses it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::json;
use tokio::time::Instant;

use super::checks::Checks;
use super::disks::{self, Disks};
use super::random::Dice;
use crate::agent::pod::observed::Observed;
use crate::agent::pod::plan::{self, Action};
use crate::agent::pod::restart::Backoff;
use crate::agent::pod::tell::Telling;
use crate::agent::pod::{containers, ended, name, namespace, pod_spec, resize, spec, status, stop, uid};
use crate::agent::probes::{Kind, Verdicts};
use crate::api::local_storage::PATH_ANNOTATION;
use crate::client::reflector::{self, Event, Source};
use crate::client::request::{Class, Error, Request, Verb};
use crate::clock;
use crate::cri::{Container, Sandbox, State};
use crate::server::controllers::stores::row;

const RENEW: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);
/// Between two tries of a write.
const AGAIN: Duration = Duration::from_secs(1);

/// What is on the machine whether the kubelet runs or not.
#[derive(Default)]
pub struct Machine {
    serial: u64,
    /// By uid: what runs, and the name of the pod.
    pods: BTreeMap<String, (String, Observed)>,
}

impl Machine {
    /// Whether something of the pod with this uid runs.
    pub fn runs(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|(_, observed)| observed.running().next().is_some())
    }
}

/// Cheap to clone: the machine is shared.
#[derive(Clone)]
pub struct Node {
    pub name: Arc<str>,
    pub client: kube::Client,
    pub dice: Dice,
    pub machine: Arc<Mutex<Machine>>,
    /// Containers crash now and then.
    pub crashes: Arc<AtomicBool>,
    /// Which folders its pods use.
    pub checks: Arc<Checks>,
    pub disks: Arc<Disks>,
}

/// One pod as the kubelet knows it.
struct Life {
    pod: Pod,
    /// The API has it no more.
    gone: bool,
    status: Arc<PodStatus>,
    telling: Telling,
    backoff: Backoff,
    /// What is under way, and when it is done.
    doing: Option<(Instant, Doing)>,
    /// When each container is ready, or ends by itself.
    ready: BTreeMap<String, Instant>,
    exits: BTreeMap<String, (Instant, i32)>,
    terminal: bool,
    not_before: Option<Instant>,
}

#[derive(Clone)]
enum Doing {
    Step(Action),
    Stop,
}

impl Node {
    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap()
    }

    /// Everything that runs ends with the power.
    pub fn power_off(&self) {
        for (_, observed) in self.machine().pods.values_mut() {
            observed.sandboxes.iter_mut().for_each(|s| s.ready = false);
            for container in observed.containers.iter_mut().filter(|c| c.state == State::Running) {
                end(container, 255);
            }
        }
    }

    /// Names of pods, and uids, of which something runs here.
    pub fn running(&self) -> Vec<(String, String)> {
        let machine = self.machine();
        let alive = machine.pods.iter().filter(|(_, (_, o))| o.running().next().is_some());
        alive.map(|(uid, (name, _))| (name.clone(), uid.clone())).collect()
    }

    /// The kubelet, until it is dropped.
    pub async fn run(self) {
        tokio::join!(self.beat(), self.live());
    }

    async fn beat(&self) {
        let mut reported: Option<Instant> = None;
        loop {
            if reported.is_none_or(|at| at.elapsed() >= REPORT) && self.report().await.is_ok() {
                reported = Some(clock::instant());
            }
            if self.renew().await.is_err() {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            tokio::time::sleep(RENEW).await;
        }
    }

    async fn report(&self) -> Result<(), Error> {
        let resources = json!({"cpu": "5", "memory": "8Gi", "pods": "110", "ephemeral-storage": "100Gi"});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": *self.name,
            "labels": {"kubernetes.io/hostname": *self.name}, "annotations": {PATH_ANNOTATION: disks::PATH}}});
        match Request::create(row("nodes"), "", node).write(&self.client).await {
            Err(error) if error.class() != Class::AlreadyExists => return Err(error),
            _ => {}
        }
        let now = clock::time();
        let condition = |kind: &str| {
            let status = if kind == "Ready" { "True" } else { "False" };
            json!({"type": kind, "status": status, "reason": "Simulated", "message": "",
                "lastHeartbeatTime": now, "lastTransitionTime": now})
        };
        let conditions = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].map(condition);
        let body = json!({"status": {"capacity": resources, "allocatable": resources, "conditions": conditions}});
        Request::new(Verb::StrategicPatch, row("nodes"), "", &self.name, body)
            .on("status")
            .write(&self.client)
            .await
            .map(drop)
    }

    async fn renew(&self) -> Result<(), Error> {
        let leases = row("coordination.k8s.io/leases");
        let spec = json!({"holderIdentity": *self.name, "leaseDurationSeconds": 40, "renewTime": clock::micro_time()});
        let patch = json!({ "spec": spec });
        let renewed = Request::new(Verb::MergePatch, leases, "kube-node-lease", &self.name, patch);
        match renewed.write(&self.client).await {
            Err(error) if error.class() == Class::NotFound => {
                let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": *self.name}, "spec": spec});
                Request::create(leases, "kube-node-lease", lease).write(&self.client).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn live(&self) {
        let source = Source::of("pods").fields(format!("spec.nodeName={}", self.name));
        let mut events = std::pin::pin!(reflector::typed::<Pod>(self.client.clone(), source));
        let mut lives: BTreeMap<String, Life> = BTreeMap::new();
        loop {
            let mut wake: Option<Instant> = None;
            for id in lives.keys().cloned().collect::<Vec<_>>() {
                let Some(life) = lives.get_mut(&id) else { continue };
                match self.step(life).await {
                    Some(at) => wake = Some(wake.map_or(at, |w| w.min(at))),
                    None if life.gone && !self.machine().pods.contains_key(&id) => drop(lives.remove(&id)),
                    None => {}
                }
            }
            let due = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(event) => self.observe(event, &mut lives),
                    None => return,
                },
                () = due => {}
            }
        }
    }

    fn observe(&self, event: Event<Pod>, lives: &mut BTreeMap<String, Life>) {
        match event {
            Event::Replace(all, _) => {
                let listed: BTreeSet<String> = all.iter().map(|p| uid(p).to_owned()).collect();
                lives.iter_mut().filter(|(id, _)| !listed.contains(*id)).for_each(|(_, life)| life.gone = true);
                let orphans: Vec<(String, String)> = {
                    let machine = self.machine();
                    let left = machine.pods.iter().filter(|(id, _)| !listed.contains(*id) && !lives.contains_key(*id));
                    left.map(|(id, (name, _))| (id.clone(), name.clone())).collect()
                };
                for (id, name) in orphans {
                    let mut pod = Pod::default();
                    (pod.metadata.uid, pod.metadata.name) = (Some(id.clone()), Some(name));
                    lives.insert(id, Life { gone: true, ..Life::of(pod) });
                }
                all.into_iter().for_each(|pod| put(lives, pod));
            }
            Event::Set(pod) => put(lives, pod),
            Event::Gone(pod) => {
                if let Some(life) = lives.get_mut(uid(&pod)) {
                    life.gone = true;
                }
            }
            Event::Bookmark(_) => {}
        }
    }

    /// Does what is due for one pod; when to come back.
    async fn step(&self, life: &mut Life) -> Option<Instant> {
        let now = clock::instant();
        let id = uid(&life.pod).to_owned();
        let named = name(&life.pod).to_owned();
        let mut observed =
            self.machine().pods.entry(id.clone()).or_insert_with(|| (named, Observed::default())).1.clone();
        if let Some((at, doing)) = life.doing.take() {
            if at > now {
                life.doing = Some((at, doing));
            } else {
                self.done(life, &mut observed, doing);
            }
        }
        for container in observed.running().map(|c| c.id.clone()) {
            self.foresee(life, container, now);
        }
        for container in observed.containers.iter_mut().filter(|c| c.state == State::Running) {
            if let Some((_, code)) = life.exits.get(&container.id).filter(|(at, _)| *at <= now) {
                end(container, *code);
            }
        }
        let going = life.gone || life.pod.metadata.deletion_timestamp.is_some();
        let mut wake = None;
        if going && life.doing.is_none() && observed.running().next().is_some() {
            let grace = if life.gone { Duration::from_secs(1) } else { stop::grace(&life.pod) };
            let most = usize::try_from(grace.as_millis()).unwrap();
            let takes = if self.dice.chance(900) { most.min(2000) } else { most };
            life.doing = Some((now + self.dice.millis(0, takes), Doing::Stop));
        } else if !going && life.doing.is_none() && !ended(&life.pod) {
            wake = self.plan(life, &observed, now);
        }
        let over = going && life.doing.is_none() && observed.running().next().is_none();
        if let Some((_, kept)) = self.machine().pods.get_mut(&id) {
            kept.clone_from(&observed);
        }
        if life.gone {
            if over {
                self.machine().pods.remove(&id);
            }
        } else if !ended(&life.pod) || going {
            wake = min(wake, self.tell(life, &observed, over).await);
            if over && wake.is_none() {
                wake = min(wake, self.finish(life, &id).await);
            }
        }
        let soon = life.ready.values().copied().chain(life.exits.values().map(|(at, _)| *at)).filter(|at| *at > now);
        soon.chain(life.doing.as_ref().map(|(at, _)| *at)).chain(wake).min()
    }

    fn plan(&self, life: &mut Life, observed: &Observed, now: Instant) -> Option<Instant> {
        let verdicts = life.verdicts(now);
        let input = plan::Input {
            pod: &life.pod,
            observed,
            verdicts: &verdicts,
            backoff: &life.backoff,
            retry_at: &BTreeMap::new(),
            sandbox_retry_at: None,
            stopped_to_restart: &BTreeSet::new(),
            now: clock::now(),
        };
        let plan = plan::plan(&input);
        life.terminal = plan.finished;
        if let Some(action) = plan.actions.into_iter().next() {
            let slow = if self.dice.chance(50) { 20_000 } else { 1500 };
            life.doing = Some((now + self.dice.millis(1, slow), Doing::Step(action)));
        }
        // The wall clock may jump while this is waited for.
        plan.wake_at.map(|at| {
            let left = Duration::try_from(at.duration_since(clock::now())).unwrap_or_default();
            now + left.max(Duration::from_millis(1))
        })
    }

    fn done(&self, life: &mut Life, observed: &mut Observed, doing: Doing) {
        let serial = {
            let mut machine = self.machine();
            machine.serial += 1;
            machine.serial
        };
        let id = format!("{}-{serial}", self.name);
        match doing {
            Doing::Stop => {
                observed.sandboxes.iter_mut().for_each(|s| s.ready = false);
                observed.containers.iter_mut().filter(|c| c.state == State::Running).for_each(|c| end(c, 143));
            }
            Doing::Step(Action::CreateSandbox { attempt }) => {
                let folders = self.checks.folders_of(name(&life.pod));
                folders.iter().for_each(|path| self.disks.mount(&self.name, uid(&life.pod), path));
                observed.put_sandbox(Sandbox {
                    id,
                    pod_uid: uid(&life.pod).into(),
                    namespace: namespace(&life.pod).into(),
                    name: name(&life.pod).into(),
                    attempt,
                    ready: true,
                    created_at: clock::now(),
                    ips: vec![format!("10.42.{}.{}", serial / 250 % 250, serial % 250 + 2)],
                });
            }
            Doing::Step(Action::StopSandbox { id }) => {
                observed.sandboxes.iter_mut().filter(|s| s.id == id).for_each(|s| s.ready = false);
                let inside = |c: &&mut Container| c.sandbox_id == id && c.state == State::Running;
                observed.containers.iter_mut().filter(inside).for_each(|c| end(c, 137));
            }
            // Nobody resizes here.
            Doing::Step(Action::Resize { .. }) => {}
            Doing::Step(Action::Remove { id } | Action::RemoveSandbox { id }) => observed.forget(&id),
            Doing::Step(Action::Stop { id, .. } | Action::End { id, .. }) => {
                observed.containers.iter_mut().filter(|c| c.id == id).for_each(|c| end(c, 143));
            }
            Doing::Step(Action::Start { name, attempt, restart_of }) => {
                if let Some(ended) = restart_of {
                    life.backoff.advance(&name, ended, clock::now());
                }
                self.started(life, observed, id, &name, attempt);
            }
        }
    }

    fn started(&self, life: &mut Life, observed: &mut Observed, id: String, name: &str, attempt: u32) {
        let Some(sandbox) = observed.ready_sandbox().map(|s| s.id.clone()) else { return };
        let Some((_, container)) = containers(&life.pod).find(|(_, c)| c.name == name) else { return };
        let image = container.image.clone().unwrap_or_default();
        observed.put_container(Container {
            id,
            sandbox_id: sandbox,
            pod_uid: uid(&life.pod).into(),
            name: name.into(),
            attempt,
            state: State::Running,
            image_ref: format!("sha256:{image}"),
            image,
            created_at: clock::now(),
            annotations: vec![(spec::CONTAINER_HASH.into(), spec::container_hash(container))],
            started_at: Some(clock::now()),
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            log_path: String::new(),
            image_mounts: Vec::new(),
        });
    }

    /// When the container will be ready, and when it ends by itself.
    fn foresee(&self, life: &mut Life, id: String, now: Instant) {
        if life.ready.contains_key(&id) {
            return;
        }
        // A kubelet that was restarted remembers what it has told.
        let told = life.status.container_statuses.iter().flatten();
        let was_ready =
            told.filter(|c| c.ready).filter_map(|c| c.container_id.as_ref()).any(|told| told.ends_with(&id));
        let ready = if was_ready { now } else { now + self.dice.millis(0, 3000) };
        life.ready.insert(id.clone(), ready);
        let crashes = self.crashes.load(Relaxed);
        if pod_spec(&life.pod).restart_policy.as_deref() != Some("Always") {
            let fails = crashes && self.dice.chance(200);
            life.exits.insert(id, (now + self.dice.millis(100, 20_000), i32::from(fails)));
        } else if crashes && self.dice.chance(50) {
            life.exits.insert(id, (now + self.dice.millis(100, 60_000), 1));
        }
    }

    /// Tells the API what has changed; when to try again.
    async fn tell(&self, life: &mut Life, observed: &Observed, over: bool) -> Option<Instant> {
        let now = clock::instant();
        let input = status::Input {
            pod: &life.pod,
            previous: &life.status,
            observed,
            verdicts: &life.verdicts(now),
            waiting: &BTreeMap::new(),
            messages: &BTreeMap::new(),
            terminal: (life.terminal || over) && observed.running().next().is_none(),
            failure: None,
            disruption: None,
            host_ips: &["192.0.2.1".to_owned()],
            resizing: (&resize::Actual::default(), &resize::Progress::default()),
            now: clock::now(),
        };
        life.status = Arc::new(status::render(&input));
        life.telling.start(&self.client, &life.pod, &life.status);
        if life.telling.is_on_the_way() {
            let result = life.telling.answer().await;
            life.telling.answered(&life.pod, result);
        }
        life.telling.at
    }

    /// All has stopped and been told: the object may go.
    async fn finish(&self, life: &mut Life, id: &str) -> Option<Instant> {
        if let Some(at) = life.not_before.filter(|at| *at > clock::instant()) {
            return Some(at);
        }
        let delete = Request::delete(row("pods"), namespace(&life.pod), name(&life.pod), id).at_once();
        match delete.write(&self.client).await {
            Err(error) if !matches!(error.class(), Class::NotFound | Class::Conflict) => {
                life.not_before = Some(clock::instant() + AGAIN);
            }
            // The watch says when it is gone; a finalizer may hold it.
            _ => life.not_before = Some(clock::instant() + Duration::from_secs(3600)),
        }
        life.not_before
    }
}

impl Life {
    fn of(pod: Pod) -> Self {
        Self {
            status: Arc::new(pod.status.clone().unwrap_or_default()),
            telling: Telling::new(pod.status.clone().unwrap_or_default()),
            terminal: ended(&pod),
            pod,
            gone: false,
            backoff: Backoff::default(),
            doing: None,
            ready: BTreeMap::new(),
            exits: BTreeMap::new(),
            not_before: None,
        }
    }

    fn verdicts(&self, now: Instant) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for (id, at) in &self.ready {
            verdicts.set(id, Kind::Readiness, *at <= now);
        }
        verdicts
    }
}

fn put(lives: &mut BTreeMap<String, Life>, pod: Pod) {
    match lives.get_mut(uid(&pod)) {
        Some(life) => {
            life.telling.seen(&pod);
            life.pod = pod;
        }
        None => drop(lives.insert(uid(&pod).to_owned(), Life::of(pod))),
    }
}

fn min(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

fn end(container: &mut Container, code: i32) {
    container.state = State::Exited;
    container.exit_code = code;
    container.finished_at = Some(clock::now());
    container.reason = if code == 0 { "Completed" } else { "Error" }.into();
}
