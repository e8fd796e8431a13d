//! Types: what the runtime has of one pod, as last seen.

use std::collections::BTreeSet;

use crate::cri::{Container, Sandbox, State};

#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    /// With the fields that only a container's status has.
    pub containers: Vec<Container>,
}

impl Observed {
    /// The newest sandbox.
    #[must_use]
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().max_by_key(|sandbox| (sandbox.attempt, sandbox.created_at))
    }

    #[must_use]
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandbox().filter(|sandbox| sandbox.ready)
    }

    /// The newest container of that name.
    #[must_use]
    pub fn current(&self, name: &str) -> Option<&Container> {
        self.of(name).into_iter().max_by_key(|container| (container.attempt, container.created_at))
    }

    /// The one before the newest.
    #[must_use]
    pub fn previous(&self, name: &str) -> Option<&Container> {
        let newest = self.current(name)?;
        self.of(name)
            .into_iter()
            .filter(|container| container.id != newest.id)
            .max_by_key(|container| (container.attempt, container.created_at))
    }

    fn of(&self, name: &str) -> Vec<&Container> {
        self.containers.iter().filter(|container| container.name == name).collect()
    }

    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.state == State::Running)
    }

    /// Without the containers of these names that run.
    #[must_use]
    pub fn not_yet(&self, names: &BTreeSet<String>) -> Observed {
        let hidden = |c: &&Container| c.state == State::Running && names.contains(&c.name);
        let containers = self.containers.iter().filter(|c| !hidden(c)).cloned().collect();
        Observed { sandboxes: self.sandboxes.clone(), containers }
    }

    pub fn put_container(&mut self, container: Container) {
        self.containers.retain(|known| known.id != container.id);
        self.containers.push(container);
    }

    pub fn put_sandbox(&mut self, sandbox: Sandbox) {
        self.sandboxes.retain(|known| known.id != sandbox.id);
        self.sandboxes.push(sandbox);
    }

    pub fn forget(&mut self, id: &str) {
        self.containers.retain(|container| container.id != id);
        self.sandboxes.retain(|sandbox| sandbox.id != id);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// Every id that runtime events may name.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let sandboxes = self.sandboxes.iter().map(|sandbox| sandbox.id.as_str());
        sandboxes.chain(self.containers.iter().map(|container| container.id.as_str()))
    }
}
