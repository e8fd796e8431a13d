//! Decides: which Jobs a CronJob may start: never one beside another when its policy forbids that, each minute's once,
//! and not many at once because a clock was set.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio::time::Instant;

use super::{State, is_ending, is_finished, name, owner, text};
use crate::clock;

/// Seconds between two times of every schedule here.
const PERIOD: u64 = 60;

#[derive(Default)]
pub(super) struct Started {
    names: BTreeSet<String>,
    /// By CronJob: since when, and how many since.
    counts: BTreeMap<String, (Instant, u64)>,
    /// How often the clock was set.
    pub jumps: u64,
}

impl State {
    pub(super) fn cron_job(&mut self, old: Option<&Value>, new: &Value) {
        if old.is_none() {
            self.started.counts.insert(name(new).to_owned(), (clock::instant(), 0));
        }
    }

    pub(super) fn job(&mut self, old: Option<&Value>, new: &Value) {
        let Some(of) = owner(new, "CronJob").filter(|_| old.is_none()) else { return };
        if !self.started.names.insert(name(new).to_owned()) {
            return self.fail(format!("{} was started again", name(new)));
        }
        let jumps = self.started.jumps;
        if let Some((since, count)) = self.started.counts.get_mut(of) {
            *count += 1;
            let most = 1 + since.elapsed().as_secs() / PERIOD + jumps;
            if *count > most {
                let why = format!("{count} Jobs of {of} in {:?}, the clock was set {jumps} times", since.elapsed());
                return self.fail(why);
            }
        }
        if let Some((policy, other)) = self.beside(of, new) {
            self.fail(format!("{} is started beside {other}: {policy}", name(new)));
        }
    }

    /// A Job that keeps another from being started, and the policy that says so.
    fn beside(&self, of: &str, new: &Value) -> Option<(String, String)> {
        let cron_job = self.objects.get(&("batch/cronjobs".into(), of.into()))?;
        let policy = text(cron_job, "/spec/concurrencyPolicy");
        let mut beside = self.of("batch/jobs").filter(|j| owner(j, "CronJob") == Some(of) && name(j) != name(new));
        let other = match policy {
            "Forbid" => beside.find(|j| !is_finished(j)),
            "Replace" => beside.find(|j| !is_finished(j) && !is_ending(j)),
            _ => None,
        };
        other.map(|other| (policy.to_owned(), name(other).to_owned()))
    }
}
