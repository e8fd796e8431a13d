//! Effects: a cluster in one thread: the real server over the memory store, the real controllers and scheduler, and nodes.
//! Any of them can be killed between any two awaits, and started anew.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::checks::{CONTROLLERS, Checks, SCHEDULER};
use super::disks::Disks;
use super::node::{Machine, Node};
use super::random::Dice;
use super::weather::Weather;
use crate::api::signing::Sign;
use crate::client::request::{Answer, Error, Request, Verb};
use crate::config::scheduler::Scheduler;
use crate::config::{Cidr, Cluster};
use crate::pki::service_account::Keys;
use crate::server::admission;
use crate::server::aggregation::Aggregator;
use crate::server::authn::Authenticator;
use crate::server::authn::issue::TokenIssuer;
use crate::server::authn::verify::Verifier;
use crate::server::authz::Authorizer;
use crate::server::cache::Cache;
use crate::server::controllers::extension_authentication::Trusted;
use crate::server::controllers::stores::row;
use crate::server::controllers::{self, ControllersConfig};
use crate::server::flow::Fairness;
use crate::server::http::metrics::Metrics;
use crate::server::http::nodes::Nodes;
use crate::server::http::{Address, Backend, Service};
use crate::server::objects::SharedObjects;
use crate::server::registry::{Registry, kinds};
use crate::server::scheduler;
use crate::server::store::Store as _;
use crate::server::store::memory::Memory;
use crate::server::webhook;

pub const NAMESPACE: &str = "default";
const USER: &str = "user";

pub struct World {
    pub dice: Dice,
    pub weather: Arc<Weather>,
    pub checks: Arc<Checks>,
    pub disks: Arc<Disks>,
    /// Nodes, and their kubelets where these run.
    pub nodes: BTreeMap<Arc<str>, (Node, Option<AbortHandle>)>,
    pub crashes: Arc<AtomicBool>,
    service: Service,
    tasks: JoinSet<()>,
    running: BTreeMap<&'static str, AbortHandle>,
    user: kube::Client,
    _keys: tempfile::TempDir,
}

fn cluster() -> Cluster {
    Cluster {
        cluster_cidr: Cidr { address: [10, 42, 0, 0].into(), prefix: 16 },
        service_cidr: Cidr { address: [10, 43, 0, 0].into(), prefix: 16 },
        cluster_dns: [10, 43, 0, 10].into(),
        cluster_domain: "cluster.local".into(),
        node_ports: (30000, 32767),
    }
}

impl World {
    pub fn new(dice: Dice) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let (cache, store, disks) = (Cache::new(), Arc::new(Memory::default()), Arc::<Disks>::default());
        let weather = Weather::new(dice.clone(), disks.clone());
        let checks = Checks::new(cache.clone(), weather.clone());
        store.start(checks.clone()).unwrap();
        let objects: SharedObjects = cache.clone();
        let authorizer = Arc::new(Authorizer::new(objects.clone()));
        let verifier = Arc::new(Verifier::new(objects.clone(), Arc::new(Keys::open(keys.path()).unwrap())));
        let chain = Arc::new(admission::default_chain(&objects, &authorizer, &webhook::Client::new(objects.clone())));
        let metrics = Metrics::default();
        let service = Service::new(Backend {
            registry: Registry::new(store, cache.clone(), kinds::strategies(&cluster(), &cache), chain),
            authenticator: Arc::new(Authenticator::new(verifier.clone(), "secret".into())),
            authorizer,
            tokens: TokenIssuer(verifier),
            address: Address { ip: watch::channel([192, 0, 2, 1].into()).1, port: 6443 },
            nodes: Nodes::new(crate::pki::tls::unverified().unwrap()),
            aggregator: Aggregator::new(objects.clone(), None),
            join: OnceLock::new(),
            checks: Vec::new(),
            fairness: Fairness::new(&objects, 600, metrics.flow()),
            metrics,
            stop: CancellationToken::new(),
        });
        let user = weather.client(&service, USER);
        Self {
            dice,
            weather,
            checks,
            disks,
            nodes: BTreeMap::new(),
            crashes: Arc::default(),
            service,
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            user,
            _keys: keys,
        }
    }

    pub fn client(&self, who: &str) -> kube::Client {
        self.weather.client(&self.service, who)
    }

    /// Starts the controllers or the scheduler, or starts them anew.
    pub fn start(&mut self, who: &'static str) {
        self.kill(who);
        let (client, stop) = (self.client(who), CancellationToken::new());
        let handle = match who {
            CONTROLLERS => {
                let config = ControllersConfig {
                    cluster: cluster(),
                    advertised: watch::channel([192, 0, 2, 1].into()).1,
                    port: 6443,
                    root_ca_pem: "the certificate of the cluster".into(),
                    trusted: Trusted::default(),
                    control_plane_node: None,
                    local_storage: true,
                    measure: self.service.backend().registry.measure(),
                    type_check: self.service.backend().registry.type_check(),
                    sign: Sign::new(|_| Err("there are no keys here".into())),
                };
                self.tasks.spawn(async { controllers::run(client, config, stop).await.unwrap() })
            }
            SCHEDULER => self.tasks.spawn(async { scheduler::run(client, Scheduler::default(), stop).await.unwrap() }),
            other => panic!("{other}"),
        };
        self.running.insert(who, handle);
    }

    /// Kills it now; [`World::start`] brings it back.
    pub fn kill(&mut self, who: &'static str) {
        self.weather.spare(who);
        if let Some(handle) = self.running.remove(who) {
            handle.abort();
        }
    }

    /// Kills it in the middle of one of its next requests.
    pub fn doom(&mut self, who: &'static str) {
        let Some(handle) = self.running.get(who).cloned() else { return };
        let bell = Arc::new(Notify::new());
        self.weather.doom(who, bell.clone());
        self.tasks.spawn(async move {
            bell.notified().await;
            handle.abort();
        });
    }

    pub fn is_dead(&self, who: &'static str) -> bool {
        self.running.get(who).is_none_or(AbortHandle::is_finished)
    }

    pub fn add_node(&mut self, name: &str) {
        let node = Node {
            name: name.into(),
            client: self.client(&format!("system:node:{name}")),
            dice: self.dice.clone(),
            machine: Arc::new(std::sync::Mutex::new(Machine::default())),
            crashes: self.crashes.clone(),
            checks: self.checks.clone(),
            disks: self.disks.clone(),
        };
        let machine = node.machine.clone();
        self.disks.add(name, move |pod| machine.lock().unwrap().runs(pod));
        self.nodes.insert(name.into(), (node, None));
        self.start_kubelet(name);
    }

    pub fn start_kubelet(&mut self, name: &str) {
        let Some((node, running)) = self.nodes.get_mut(name) else { return };
        if running.as_ref().is_none_or(AbortHandle::is_finished) {
            *running = Some(self.tasks.spawn(node.clone().run()));
        }
    }

    pub fn kill_kubelet(&mut self, name: &str) {
        if let Some(handle) = self.nodes.get_mut(name).and_then(|(_, running)| running.take()) {
            handle.abort();
        }
    }

    pub fn power_off(&mut self, name: &str) {
        self.kill_kubelet(name);
        if let Some((node, _)) = self.nodes.get(name) {
            node.power_off();
        }
    }

    /// A request of the user; tried again while it does not arrive.
    pub async fn ask(&self, request: Request) -> Result<Answer, Error> {
        loop {
            match request.write(&self.user).await {
                Err(Error::Transport(_)) => {}
                answer => return answer,
            }
        }
    }

    pub async fn create(&self, storage: &str, object: Value) {
        let namespace = if row(storage).namespaced { NAMESPACE } else { "" };
        match self.ask(Request::create(row(storage), namespace, object)).await {
            Err(Error::Status(s)) if s.code != 409 => panic!("{storage}: {}", s.message),
            _ => {}
        }
    }

    /// Changes what is there; nothing when it is not.
    pub async fn patch(&self, storage: &str, name: &str, body: Value) {
        let namespace = if row(storage).namespaced { NAMESPACE } else { "" };
        let patch = Request::new(Verb::StrategicPatch, row(storage), namespace, name, body);
        match self.ask(patch).await {
            Err(Error::Status(s)) if s.code != 404 => panic!("{storage}: {}", s.message),
            _ => {}
        }
    }

    pub async fn delete(&self, storage: &str, name: &str) {
        let namespace = if row(storage).namespaced { NAMESPACE } else { "" };
        let _ = self.ask(Request::new(Verb::Delete, row(storage), namespace, name, json!({}))).await;
    }
}
