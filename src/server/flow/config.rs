//! Decides, once per change, what the stored objects mean: FlowSchemas in the order in which they are asked, each with
//! its priority level. What is mandatory and not stored is imagined; what refers to nothing is passed over.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use http::HeaderValue;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, PolicyRulesWithSubjects, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
};
use serde::de::DeserializeOwned;

use super::level::{EXEMPT, Level};
use super::metrics::Series;
use super::queues::Queuing;
use super::share::Bounds;
use super::{rules, work};
use crate::api::flowcontrol;
use crate::api::user::User;
use crate::server::authz::Attributes;
use crate::server::objects::Objects;

pub const SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
pub const LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";
/// The schema for whatever no other is for.
const CATCH_ALL: &str = "catch-all";

/// What tells the flows of a schema from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    User,
    Namespace,
}

/// A FlowSchema and its level, ready to be asked.
#[derive(Debug)]
pub struct Schema {
    pub name: String,
    pub level: Arc<Level>,
    /// For the headers of responses; empty for what is not stored.
    pub uid: HeaderValue,
    pub level_uid: HeaderValue,
    /// Seats that one request may take.
    pub seats_max: u32,
    pub series: Series,
    precedence: i32,
    rules: Vec<PolicyRulesWithSubjects>,
    by: Option<By>,
    /// More than one queue: flows are told apart.
    queued: bool,
}

/// All FlowSchemas at one moment, in their order.
#[derive(Debug)]
pub struct Config {
    schemas: Vec<Arc<Schema>>,
    catch_all: Arc<Schema>,
}

/// A priority level as its object describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelSpec {
    pub uid: String,
    pub bounds: Bounds,
    pub queuing: Option<Queuing>,
}

/// What the objects say, before levels and counters are attached.
pub struct Stored {
    pub levels: BTreeMap<String, LevelSpec>,
    schemas: Vec<FlowSchema>,
}

impl Stored {
    /// `seats` are split among the levels.
    #[must_use]
    pub fn read(objects: &dyn Objects, seats: u32) -> Self {
        let mut levels = parsed::<PriorityLevelConfiguration>(objects, LEVELS);
        levels.retain(is_whole);
        for mandatory in flowcontrol::mandatory_priority_levels() {
            if !levels.iter().any(|l| l.metadata.name == mandatory.metadata.name) {
                levels.push(mandatory);
            }
        }
        let all_shares = levels.iter().map(|l| u64::from(shares(spec(l)).0)).sum();
        let levels: BTreeMap<String, LevelSpec> = levels
            .iter()
            .map(|level| {
                let (shares, lendable, borrowing) = shares(spec(level));
                let spec = LevelSpec {
                    uid: level.metadata.uid.clone().unwrap_or_default(),
                    bounds: Bounds::new(seats, shares, all_shares, lendable, borrowing),
                    queuing: queuing(spec(level)),
                };
                (level.metadata.name.clone().unwrap_or_default(), spec)
            })
            .collect();
        let mut schemas = parsed::<FlowSchema>(objects, SCHEMAS);
        schemas.retain(|s| levels.contains_key(level_of(s)));
        for mandatory in flowcontrol::mandatory_flow_schemas() {
            if !schemas.iter().any(|s| s.metadata.name == mandatory.metadata.name) {
                schemas.push(mandatory);
            }
        }
        schemas.sort_by_cached_key(|s| (precedence(s), s.metadata.name.clone()));
        Self { levels, schemas }
    }

    /// The schemas over `levels`, which has one for each of [`Stored::levels`].
    ///
    /// # Panics
    /// When a mandatory object is missing, which [`Stored::read`] adds.
    #[must_use]
    pub fn compile(self, levels: &BTreeMap<String, Arc<Level>>, series: impl Fn(&str, &str) -> Series) -> Config {
        let header = |uid: &str| HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""));
        let compile = |schema: FlowSchema| {
            let level = level_of(&schema).to_owned();
            let (level, of) = (levels.get(&level)?, self.levels.get(&level)?);
            let precedence = precedence(&schema);
            let name = schema.metadata.name.unwrap_or_default();
            let spec = schema.spec.unwrap_or_default();
            Some(Arc::new(Schema {
                uid: header(schema.metadata.uid.as_deref().unwrap_or_default()),
                level_uid: header(&of.uid),
                seats_max: work::seats_max(of.bounds.nominal, of.queuing.map(|q| q.hand_size)),
                series: series(&level.name, &name),
                precedence,
                rules: spec.rules.unwrap_or_default(),
                by: spec.distinguisher_method.and_then(|m| match m.type_.as_str() {
                    "ByUser" => Some(By::User),
                    "ByNamespace" => Some(By::Namespace),
                    _ => None,
                }),
                queued: of.queuing.is_some_and(|q| q.queues > 1),
                level: level.clone(),
                name,
            }))
        };
        let schemas: Vec<Arc<Schema>> = self.schemas.into_iter().filter_map(compile).collect();
        let catch_all = schemas.iter().find(|s| s.name == CATCH_ALL).cloned();
        Config { catch_all: catch_all.expect("the mandatory schemas were added, and their levels"), schemas }
    }
}

impl Config {
    /// The first schema that is for the request.
    #[must_use]
    pub fn classify(&self, user: &User, asked: &Attributes<'_>) -> &Arc<Schema> {
        self.schemas.iter().find(|s| rules::matches(&s.rules, user, asked)).unwrap_or(&self.catch_all)
    }

    /// In the order in which they are asked.
    #[must_use]
    pub fn schemas(&self) -> &[Arc<Schema>] {
        &self.schemas
    }
}

impl Schema {
    #[must_use]
    pub fn precedence(&self) -> i32 {
        self.precedence
    }

    /// What tells the flow of a request from others of the same schema.
    #[must_use]
    pub fn distinguisher<'a>(&self, user: &'a User, asked: &Attributes<'a>) -> &'a str {
        match (self.by.filter(|_| self.queued), asked) {
            (Some(By::User), _) => &user.name,
            (Some(By::Namespace), Attributes::Resource(asked)) => asked.namespace,
            _ => "",
        }
    }

    /// The flow as a number, by which it is dealt its queues.
    #[must_use]
    pub fn flow(&self, distinguisher: &str) -> u64 {
        if !self.queued {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        (&self.name, distinguisher).hash(&mut hasher);
        hasher.finish()
    }
}

fn parsed<T: DeserializeOwned>(objects: &dyn Objects, storage: &str) -> Vec<T> {
    objects.list(storage, None).iter().filter_map(|o| serde_json::from_slice(&o.json).ok()).collect()
}

fn spec(level: &PriorityLevelConfiguration) -> &PriorityLevelConfigurationSpec {
    static NONE: PriorityLevelConfigurationSpec =
        PriorityLevelConfigurationSpec { exempt: None, limited: None, type_: String::new() };
    level.spec.as_ref().unwrap_or(&NONE)
}

/// What validation lets through always is.
fn is_whole(level: &PriorityLevelConfiguration) -> bool {
    let (spec, exempt) = (spec(level), level.metadata.name.as_deref() == Some(EXEMPT));
    let response = spec.limited.as_ref().and_then(|l| l.limit_response.as_ref());
    match spec.type_.as_str() {
        "Exempt" => exempt && spec.limited.is_none() && spec.exempt.is_some(),
        "Limited" => {
            !exempt
                && spec.exempt.is_none()
                && response
                    .is_some_and(|r| matches!((r.type_.as_str(), &r.queuing), ("Queue", Some(_)) | ("Reject", None)))
        }
        _ => false,
    }
}

/// Shares, and what may be lent and borrowed, in percent.
fn shares(spec: &PriorityLevelConfigurationSpec) -> (u32, u32, Option<u32>) {
    let number = |n: Option<i32>, default: u32| n.map_or(default, |n| u32::try_from(n).unwrap_or(0));
    match (&spec.exempt, &spec.limited) {
        (Some(e), _) => (number(e.nominal_concurrency_shares, 0), number(e.lendable_percent, 0), None),
        (_, Some(l)) => {
            let borrowing = l.borrowing_limit_percent.map(|p| number(Some(p), 0));
            (number(l.nominal_concurrency_shares, 30), number(l.lendable_percent, 0), borrowing)
        }
        _ => (0, 0, None),
    }
}

fn queuing(spec: &PriorityLevelConfigurationSpec) -> Option<Queuing> {
    let queuing = spec.limited.as_ref()?.limit_response.as_ref()?.queuing.as_ref()?;
    let number =
        |n: Option<i32>, default: u32| n.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default);
    Some(Queuing {
        queues: number(queuing.queues, 64),
        hand_size: number(queuing.hand_size, 8),
        queue_length_limit: number(queuing.queue_length_limit, 50),
    })
}

fn level_of(schema: &FlowSchema) -> &str {
    schema.spec.as_ref().map_or("", |s| &s.priority_level_configuration.name)
}

fn precedence(schema: &FlowSchema) -> i32 {
    schema.spec.as_ref().and_then(|s| s.matching_precedence).unwrap_or(1000)
}
