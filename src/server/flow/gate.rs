//! Effects: where requests wait for their turn. Owns the levels, and lends their seats anew when somebody waits, at
//! most every ten seconds: nothing here wakes up while nobody waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::config::{Config, LEVELS, LevelSpec, SCHEMAS, Schema, Stored};
use super::demand::PERIOD;
use super::level::{Admission, Details, Level, Place, Turn, admit};
use super::metrics::{ByFlow, Metrics};
use super::queues::Limits;
use super::share::{Claim, split};
use super::watches::Watches;
use super::work::Work;
use crate::api::user::User;
use crate::clock;
use crate::server::authz::Attributes;
use crate::server::objects::{Derived, Objects, SharedObjects};

/// No request waits longer, however long it may take (upstream's hard limit).
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// A request as the gate sees it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub user: &'a User,
    pub attributes: Attributes<'a>,
    /// For those who ask what waits.
    pub version: &'a str,
    pub path: &'a str,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Fairness(Arc<Inner>);

struct Inner {
    config: Derived<Config, 2>,
    sharing: Arc<Sharing>,
    watches: Arc<Watches>,
}

/// What a new configuration finds of the one before.
struct Sharing {
    /// `--max-requests-inflight` and `--max-mutating-requests-inflight` together.
    seats: u32,
    metrics: Metrics,
    state: Mutex<State>,
}

struct State {
    levels: BTreeMap<String, (Arc<Level>, LevelSpec)>,
    /// Those that are no longer there, until nothing waits or runs in them.
    draining: Vec<Arc<Level>>,
    series: Vec<ByFlow>,
    /// When seats may be lent anew.
    due: Instant,
}

impl Fairness {
    /// `seats` are split among the priority levels.
    #[must_use]
    pub fn new(objects: &SharedObjects, seats: u32, metrics: Metrics) -> Self {
        let now = clock::instant();
        let state = State { levels: BTreeMap::new(), draining: Vec::new(), series: Vec::new(), due: now };
        let sharing = Arc::new(Sharing { seats, metrics, state: Mutex::new(state) });
        let maker = sharing.clone();
        let config = Derived::new(objects, [LEVELS, SCHEMAS], move |objects| maker.compile(objects));
        Self(Arc::new(Inner { config, sharing, watches: Arc::default() }))
    }

    /// The FlowSchema that is for a request.
    #[must_use]
    pub fn classify(&self, asked: &Asked<'_>) -> Arc<Schema> {
        self.0.config.get().classify(asked.user, &asked.attributes).clone()
    }

    /// Waits for a turn for at most a quarter of the time that the request has from `arrived` on. `None` when it has to
    /// go away. `work` is told how many seats one request may take; it is not asked for the exempt.
    pub async fn turn(
        &self,
        schema: &Arc<Schema>,
        asked: &Asked<'_>,
        arrived: Instant,
        allowed: Duration,
        work: impl Fn(u32) -> Work,
    ) -> Option<Turn> {
        let distinguisher = schema.distinguisher(asked.user, &asked.attributes);
        let flow = schema.flow(distinguisher);
        let attempt =
            || admit(schema, clock::instant(), || work(schema.seats_max), flow, || details(asked, distinguisher));
        let mut admission = attempt();
        if !matches!(admission, Admission::Turn(_)) && self.0.sharing.lend(clock::instant()) {
            // More seats may be there now.
            if matches!(admission, Admission::Refused) {
                admission = attempt();
            }
        }
        match admission {
            Admission::Turn(turn) => Some(turn),
            Admission::Refused => None,
            // Apart, so that those who need not wait do not carry what waiting needs.
            Admission::Place(place) => Box::pin(self.wait(place, arrived + (allowed / 4).min(PATIENCE_MAX))).await,
        }
    }

    async fn wait(&self, mut place: Place, until: Instant) -> Option<Turn> {
        loop {
            let look = until.min(self.0.sharing.lock().due);
            tokio::select! {
                biased;
                turn = &mut place.told => return turn.ok(),
                () = tokio::time::sleep_until(look) => {}
            }
            if clock::instant() >= until {
                return place.leave();
            }
            self.0.sharing.lend(clock::instant());
        }
    }

    /// How many watch what.
    #[must_use]
    pub fn watches(&self) -> &Arc<Watches> {
        &self.0.watches
    }

    /// All levels as they are, by name, and whether they only drain.
    #[must_use]
    pub fn levels(&self) -> Vec<(Arc<Level>, bool)> {
        // A configuration that nobody has asked for yet.
        let _ = self.0.config.get();
        let mut state = self.0.sharing.lock();
        state.draining.retain(|l| !l.is_idle());
        let mut levels: Vec<_> = state.levels.values().map(|(level, _)| (level.clone(), false)).collect();
        levels.extend(state.draining.iter().map(|level| (level.clone(), true)));
        drop(state);
        levels.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        levels
    }
}

impl Sharing {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the levels that were there before, with all that waits and runs in them.
    fn compile(&self, objects: &dyn Objects) -> Config {
        let now = clock::instant();
        let stored = Stored::read(objects, self.seats);
        let mut state = self.lock();
        let mut before = std::mem::take(&mut state.levels);
        for (name, spec) in &stored.levels {
            let known = before.remove(name).map(|(level, _)| level);
            let drained = || {
                let at = state.draining.iter().position(|l| *l.name == **name)?;
                Some(state.draining.swap_remove(at))
            };
            let level = known.or_else(drained).unwrap_or_else(|| Arc::new(Level::new(name, now)));
            state.levels.insert(name.clone(), (level, spec.clone()));
        }
        state.draining.extend(before.into_values().map(|(level, _)| level));
        state.draining.retain(|l| !l.is_idle());
        self.metrics.nominal(state.levels.iter().map(|(name, (_, spec))| (name.as_str(), spec.bounds.nominal)));
        let levels = state.levels.iter().map(|(name, (level, _))| (name.clone(), level.clone())).collect();
        let series = |level: &str, schema: &str| ByFlow { priority_level: level.into(), flow_schema: schema.into() };
        let config = stored.compile(&levels, |level, schema| self.metrics.series(&series(level, schema)));
        let kept: Vec<ByFlow> = config.schemas().iter().map(|s| series(&s.level.name, &s.name)).collect();
        for gone in state.series.iter().filter(|s| !kept.contains(s)) {
            self.metrics.forget(gone);
        }
        state.series = kept;
        let changed = limits(&state, now);
        drop(state);
        apply(changed, now);
        config
    }

    /// Lends what is not used to those who ask for more, when it is time for it. Whether it was.
    fn lend(&self, now: Instant) -> bool {
        let mut state = self.lock();
        if now < state.due {
            return false;
        }
        state.due = now + PERIOD;
        let changed = limits(&state, now);
        drop(state);
        apply(changed, now);
        true
    }
}

/// What each level allows from now on.
fn limits(state: &State, now: Instant) -> Vec<(Arc<Level>, Limits)> {
    let claim = |(level, spec): &(Arc<Level>, LevelSpec)| Claim {
        bounds: spec.bounds,
        exempt: level.is_exempt(),
        asked: level.asked(now),
    };
    let claims: Vec<Claim> = state.levels.values().map(claim).collect();
    let levels = state.levels.values().zip(split(&claims));
    levels.map(|((level, spec), seats)| (level.clone(), Limits { seats, queuing: spec.queuing })).collect()
}

fn apply(changed: Vec<(Arc<Level>, Limits)>, now: Instant) {
    for (level, limits) in changed {
        level.limit(now, limits);
    }
}

fn details(asked: &Asked<'_>, flow: &str) -> Details {
    let (path, user, flow) = (asked.path.to_owned(), asked.user.name.clone(), flow.to_owned());
    match asked.attributes {
        Attributes::Path { verb, .. } => Details { flow, user, path, verb: verb.to_owned(), ..Details::default() },
        Attributes::Resource(a) => Details {
            flow,
            user,
            path,
            verb: a.verb.to_owned(),
            namespace: a.namespace.to_owned(),
            name: a.name.to_owned(),
            api_version: if a.group.is_empty() {
                asked.version.to_owned()
            } else {
                format!("{}/{}", a.group, asked.version)
            },
            resource: a.resource.to_owned(),
            subresource: a.subresource.to_owned(),
        },
    }
}
