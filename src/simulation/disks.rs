//! Fake: the disks of the nodes: a folder for each local volume, made when a pod first uses it, removed when the server
//! asks for it. What is removed under a pod that runs is lost, and so is what a pod finds on another node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::node::Machine;
use crate::api::local_storage::ENDPOINT;

/// What a node says it keeps them below.
pub const PATH: &str = "/volumes";

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
    machines: BTreeMap<Arc<str>, Arc<Mutex<Machine>>>,
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
    pub fn add(&self, node: &str, machine: Arc<Mutex<Machine>>) {
        let mut state = self.state.lock().unwrap();
        state.machines.insert(node.into(), machine);
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
        if let Some(user) = users.iter().find(|pod| machine.as_ref().is_some_and(|m| m.lock().unwrap().runs(pod))) {
            let why = format!("{folder} is removed from {node} under {user}, which runs");
            state.wrong.get_or_insert(why);
        }
        true
    }
}
