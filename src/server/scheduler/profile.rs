//! Types: a profile as it is used: which rows of the table of plugins are asked, in which order, with what weight and what
//! was said to them. Pods carry theirs; most carry none, which is the default one.

use std::sync::{Arc, LazyLock};

use super::plugins::{Filter, PLUGINS, Plugin, Refusers, Scores, resources};
use crate::config::scheduler as config;
use crate::config::scheduler::args::{Args, Strategy};
use crate::config::scheduler::plugins::{DEFAULT_PREEMPTION, DYNAMIC_RESOURCES, Point, SCHEDULING_GATES};

#[derive(Debug)]
pub struct Profile {
    /// Of the scheduler: the `schedulerName` of its pods, and who reports.
    pub name: &'static str,
    /// Rows of the table, with their filters.
    pub filters: Vec<(usize, Filter)>,
    pub scores: Vec<(i64, Scores)>,
    /// The plugins that refuse nodes, or pods.
    filtering: Refusers,
    /// Pods with scheduling gates wait.
    pub gates: bool,
    /// A claim may give up its devices for a pod that fits nowhere; then, less important pods may have to go.
    pub releases: bool,
    pub preempts: bool,
    /// 0 for as upstream finds right.
    pub percentage_of_nodes_to_score: usize,
    pub args: Args,
}

/// Two of one name are one.
impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

static DEFAULT: LazyLock<Profile> = LazyLock::new(|| Profile::new(&config::Profile::default()));

impl Profile {
    /// The profile of pods that carry none.
    #[must_use]
    pub fn default_one() -> &'static Self {
        &DEFAULT
    }

    #[must_use]
    pub fn new(from: &config::Profile) -> Self {
        let points = &from.points;
        let row = |name: &str| PLUGINS.iter().enumerate().find(|(_, row)| row.name == name);
        let at = |point: Point| points.at(point).iter().filter(move |name| points.has(name, point));
        let mut filtering = Refusers::default();
        let mut filters = Vec::new();
        for (i, row) in at(Point::Filter).filter_map(|name| row(name)) {
            filtering.add(i);
            filters.extend(row.filter.map(|filter| (i, filter)));
        }
        let score = |name: &&'static str| Some((points.weight(name), scorer(row(name)?.1, &from.args)?));
        Self {
            // As long as the process: there are as many as the configuration has.
            name: match from.scheduler_name.as_str() {
                config::DEFAULT => config::DEFAULT,
                other => Box::leak(other.into()),
            },
            filters,
            scores: at(Point::Score).filter_map(score).collect(),
            filtering,
            gates: points.has(SCHEDULING_GATES, Point::PreEnqueue),
            releases: points.has(DYNAMIC_RESOURCES, Point::PostFilter),
            preempts: points.has(DEFAULT_PREEMPTION, Point::PostFilter),
            percentage_of_nodes_to_score: usize::try_from(from.percentage_of_nodes_to_score).unwrap_or(0),
            args: from.args.clone(),
        }
    }

    /// All of a configuration; none for the default one alone.
    #[must_use]
    pub fn all(from: &config::Scheduler) -> Vec<Arc<Self>> {
        from.profiles.iter().map(|profile| Arc::new(Self::new(profile))).collect()
    }

    /// Whether a plugin of the table may refuse.
    #[must_use]
    pub fn filters_by(&self, plugin: &str) -> bool {
        self.filtering.any_of(Refusers::named(plugin))
    }
}

/// What is said to a plugin may ask for another way to score.
fn scorer(row: &Plugin, args: &Args) -> Option<Scores> {
    let usual = Args::default();
    match row.name {
        "NodeResourcesFit"
            if args.fit.strategy == Strategy::LeastAllocated && args.fit.resources == usual.fit.resources =>
        {
            row.score
        }
        "NodeResourcesFit" => Some(resources::by_strategy),
        "NodeResourcesBalancedAllocation" if args.balanced != usual.balanced => Some(resources::balanced_over),
        _ => row.score,
    }
}
