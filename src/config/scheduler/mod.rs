//! Decides: how pods are scheduled, as `--kube-scheduler-arg=config=<file>` says: a `KubeSchedulerConfiguration` of
//! `kubescheduler.config.k8s.io/v1`, with upstream's defaults and its words for what is wrong.
//!
//! - [`fields`]: a document field by field, unknown ones named
//! - [`plugins`]: which plugins there are, and at which extension points a profile has them
//! - [`args`]: what can be said to plugins
//!
//! What has no meaning here is read and left alone: this scheduler is a part of the server, elects no leader, makes no
//! connection, and looks at one pod after the other (`parallelism`).

pub mod args;
mod fields;
pub mod plugins;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::Value;

use self::args::Args;
use self::fields::{Fields, Found};
use self::plugins::Points;
use crate::api::field::{FieldError, Path};

const VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
/// The profile of pods that name no scheduler.
pub const DEFAULT: &str = "default-scheduler";

/// What of it is used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scheduler {
    /// None for the one that everybody has.
    pub profiles: Vec<Profile>,
    /// How long a pod that fits nowhere is left alone at first, and at most.
    pub first_backoff: Option<Duration>,
    pub last_backoff: Option<Duration>,
}

/// One way to schedule pods, for those whose `schedulerName` it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub scheduler_name: String,
    /// How many feasible nodes are enough to choose from, in percent; 0 for as many as upstream finds right.
    pub percentage_of_nodes_to_score: i64,
    pub points: Points,
    pub args: Args,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            scheduler_name: DEFAULT.to_owned(),
            percentage_of_nodes_to_score: 0,
            points: Points::default(),
            args: Args::default(),
        }
    }
}

/// # Errors
/// Everything that is wrong with the document.
pub fn parse(document: &Value) -> Result<Scheduler, Vec<String>> {
    let found = Found::default();
    let scheduler = scheduler(document, &found);
    let problems = found.all();
    if problems.is_empty() { Ok(scheduler) } else { Err(problems) }
}

fn scheduler(document: &Value, found: &Found) -> Scheduler {
    let root = Path::default();
    let mut fields = Fields::new(&root, document, found);
    let (version, kind) = (fields.text("apiVersion").unwrap_or_default(), fields.text("kind").unwrap_or_default());
    if version != VERSION || kind != KIND {
        found.say(format!("no kind {kind:?} is registered for version {version:?}: use {KIND:?} of {VERSION:?}"));
        return Scheduler::default();
    }
    for unused in
        ["leaderElection", "clientConnection", "enableProfiling", "enableContentionProfiling", "delayCacheUntilActive"]
    {
        fields.get(unused);
    }
    if let Some(parallelism) = fields.number("parallelism").filter(|n| *n <= 0) {
        let detail = "should be an integer value greater than zero";
        found.add(FieldError::invalid(&root.child("parallelism"), &parallelism, detail));
    }
    if !fields.list("extenders").is_empty() {
        found.add(FieldError::forbidden(&root.child("extenders"), "extenders are not supported"));
    }
    let percentage = percentage(&mut fields, &root, found);
    let (first, last) = backoff(&mut fields, &root, found);
    let listed = fields.list("profiles");
    let mut profiles: Vec<Profile> = Vec::new();
    for (path, value) in &listed {
        let mut profile = profile(path, value, listed.len() == 1, found);
        if profile.percentage_of_nodes_to_score < 0 {
            profile.percentage_of_nodes_to_score = percentage.unwrap_or(0);
        }
        if let Some(at) = profiles.iter().position(|p| p.scheduler_name == profile.scheduler_name) {
            let other = root.child("profiles").index(at).child("schedulerName").to_string();
            found.add(FieldError::duplicate(&path.child("schedulerName"), &other));
        }
        profiles.push(profile);
    }
    if listed.is_empty() {
        profiles.push(Profile { percentage_of_nodes_to_score: percentage.unwrap_or(0), ..Profile::default() });
    }
    fields.end();
    Scheduler { profiles, first_backoff: first, last_backoff: last }
}

fn percentage(fields: &mut Fields, path: &Path, found: &Found) -> Option<i64> {
    let name = "percentageOfNodesToScore";
    let given = fields.number(name)?;
    if !(0..=100).contains(&given) {
        found.add(FieldError::invalid(&path.child(name), &given, "not in valid range [0-100]"));
    }
    Some(given)
}

fn backoff(fields: &mut Fields, path: &Path, found: &Found) -> (Option<Duration>, Option<Duration>) {
    let (first, last) = ("podInitialBackoffSeconds", "podMaxBackoffSeconds");
    let (initial, max) = (fields.number(first), fields.number(last));
    if let Some(seconds) = initial.filter(|n| *n <= 0) {
        found.add(FieldError::invalid(&path.child(first), &seconds, "must be greater than 0"));
    }
    // 1 and 10 seconds are upstream's defaults.
    if max.unwrap_or(10) < initial.unwrap_or(1) {
        let detail = "must be greater than or equal to PodInitialBackoffSeconds";
        found.add(FieldError::invalid(&path.child(last), &max.unwrap_or(10), detail));
    }
    let time = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    (initial.map(time), max.map(time))
}

fn profile(path: &Path, value: &Value, only: bool, found: &Found) -> Profile {
    let mut fields = Fields::new(path, value, found);
    let name = fields.text("schedulerName");
    let scheduler_name = name.or_else(|| only.then(|| DEFAULT.to_owned())).unwrap_or_default();
    if scheduler_name.is_empty() {
        found.add(FieldError::required(&path.child("schedulerName"), ""));
    }
    let percentage = percentage(&mut fields, path, found);
    let points = plugins::read(path, fields.get("plugins"), found);
    let args = args::read(&fields.list("pluginConfig"), found);
    for (what, why) in points.incomplete() {
        found.say(format!("{path}: {what} for profile with scheduler name {scheduler_name:?}{why}"));
    }
    fields.end();
    Profile { scheduler_name, percentage_of_nodes_to_score: percentage.unwrap_or(-1), points, args }
}
