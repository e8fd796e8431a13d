//! Fake: the disks of the nodes: a folder for each local volume, made when a pod first uses it, removed when the server
//! asks for it. What is removed under a pod that runs is lost, and so is what a pod finds on another node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::api::local_storage::ENDPOINT;

/// What a node says it keeps them below.
pub const PATH: &str = "/volumes";

/// Whether something of a pod, by uid, runs on a machine.
type Runs = Arc<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Default)]
pub struct Disks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By node and folder: uids of the pods that it was given to.
    folders: BTreeMap<(Arc<str>, String), BTreeSet<String>>,
    /// Where each folder was first used.
    homes: BTreeMap<String, Arc<str>>,
    machines: BTreeMap<Arc<str>, Runs>,
    wrong: Option<String>,
}

impl Disks {
    pub fn wrong(&self) -> Option<String> {
        self.state.lock().unwrap().wrong.clone()
    }

    pub fn folders(&self) -> Vec<(Arc<str>, String)> {
        self.state.lock().unwrap().folders.keys().cloned().collect()
    }

    /// A machine of that name, perhaps another than before: its disk is empty.
    pub fn add(&self, node: &str, runs: impl Fn(&str) -> bool + Send + Sync + 'static) {
        let mut state = self.state.lock().unwrap();
        state.machines.insert(node.into(), Arc::new(runs));
        state.folders.retain(|(on, _), _| **on != *node);
        state.homes.retain(|_, home| **home != *node);
    }

    /// A pod starts with the folder at `path`.
    pub fn mount(&self, node: &Arc<str>, pod: &str, path: &str) {
        let Some(folder) = path.strip_prefix(PATH).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned) else {
            return;
        };
        let mut state = self.state.lock().unwrap();
        let known = state.folders.contains_key(&(node.clone(), folder.clone()));
        let why = match state.homes.get(&folder) {
            Some(home) if home != node => Some(format!("{pod} uses {folder} on {node}, its data is on {home}")),
            Some(_) if !known => Some(format!("{pod} finds {folder} empty")),
            _ => None,
        };
        if let Some(why) = why {
            state.wrong.get_or_insert(why);
        }
        state.homes.insert(folder.clone(), node.clone());
        state.folders.entry((node.clone(), folder)).or_default().insert(pod.to_owned());
    }

    /// What the server has the node remove: a request's method and path.
    pub fn asked(&self, method: &http::Method, path: &str) -> bool {
        let Some((node, folder)) = path
            .strip_prefix("/api/v1/nodes/")
            .and_then(|rest| rest.split_once("/proxy"))
            .and_then(|(node, rest)| Some((node, rest.strip_prefix(ENDPOINT)?.strip_prefix('/')?)))
            .filter(|_| *method == http::Method::DELETE)
        else {
            return false;
        };
        let mut state = self.state.lock().unwrap();
        let users = state.folders.remove(&(node.into(), folder.to_owned())).unwrap_or_default();
        let machine = state.machines.get(node).cloned();
        if let Some(user) = users.iter().find(|pod| machine.as_ref().is_some_and(|runs| runs(pod))) {
            let why = format!("{folder} is removed from {node} under {user}, which runs");
            state.wrong.get_or_insert(why);
        }
        true
    }
}

fn check<T>(what: impl Fn(&Disks) -> T, expect: Option<&str>) {
    let disks = Disks::default();
    disks.add("n1", |pod| pod == "runs");
    disks.add("n2", |_| false);
    what(&disks);
    assert_eq!(disks.wrong().as_deref(), expect);
}

#[test]
fn what_is_lost_is_told() {
    let mount = |disks: &Disks, node: &str, pod: &str| disks.mount(&node.into(), pod, "/volumes/f");
    let remove = |disks: &Disks| {
        assert!(disks.asked(&http::Method::DELETE, &format!("/api/v1/nodes/n1/proxy{ENDPOINT}/f")));
    };
    check(
        |disks| (mount(disks, "n1", "runs"), mount(disks, "n1", "other"), disks.mount(&"n2".into(), "p", "/data")),
        None,
    );
    check(|disks| (mount(disks, "n1", "p"), mount(disks, "n2", "q")), Some("q uses f on n2, its data is on n1"));
    check(|disks| (mount(disks, "n1", "p"), remove(disks)), None);
    check(|disks| (mount(disks, "n1", "p"), remove(disks), mount(disks, "n1", "q")), Some("q finds f empty"));
    check(|disks| (mount(disks, "n1", "runs"), remove(disks)), Some("f is removed from n1 under runs, which runs"));
    // Another machine has another disk.
    check(|disks| (mount(disks, "n1", "p"), disks.add("n1", |_| false), mount(disks, "n2", "q")), None);
}
