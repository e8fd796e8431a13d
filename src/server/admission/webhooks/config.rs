//! Decides: webhooks as the configurations in the cluster have them, read once for every change of one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, RuleWithOperations};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as Selector;
use serde::Deserialize;

use super::rules::Rule;
use crate::api::selector::LabelSelector;
use crate::server::admission::expressions::{self, Expression};
use crate::server::objects::{Derived, Objects, SharedObjects};
use crate::server::webhook::ClientConfig;

pub const MUTATING: &str = "admissionregistration.k8s.io/mutatingwebhookconfigurations";
pub const VALIDATING: &str = "admissionregistration.k8s.io/validatingwebhookconfigurations";
/// Seconds, unless a webhook says otherwise.
const TIMEOUT: i32 = 10;

/// One webhook.
#[derive(Debug)]
pub struct Hook {
    /// Configuration, name, and which of those that have the same name.
    pub uid: String,
    pub name: String,
    pub client: ClientConfig,
    pub rules: Vec<Rule>,
    /// Rules are about other versions of a resource, too (`matchPolicy: Equivalent`).
    pub equivalent: bool,
    pub namespaces: Result<LabelSelector, String>,
    pub objects: Result<LabelSelector, String>,
    /// A webhook that can't be asked has nothing against it (`failurePolicy: Ignore`).
    pub ignore_failures: bool,
    /// May be asked about dry runs.
    pub without_side_effects: bool,
    pub timeout: Duration,
    /// The first version of AdmissionReview that both sides know.
    pub version: Option<Version>,
    /// `reinvocationPolicy: IfNeeded`
    pub again: bool,
    /// `matchConditions`
    pub conditions: Vec<Expression>,
}

/// `admission.k8s.io/v1` and `/v1beta1` differ in what is checked of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V1Beta1,
}

/// A configuration of either kind: those of validating webhooks have a field less.
#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    webhooks: Option<Vec<MutatingWebhook>>,
}

/// All webhooks of one kind, in the order they are called.
pub type Hooks = Derived<Vec<Arc<Hook>>, 1>;

#[must_use]
pub fn hooks(objects: &SharedObjects, storage: &'static str) -> Hooks {
    Derived::new(objects, [storage], move |objects| read(objects, storage))
}

/// By the name of the configuration, which is how the cache lists them.
fn read(objects: &dyn Objects, storage: &str) -> Vec<Arc<Hook>> {
    let mut hooks = Vec::new();
    for object in objects.list(storage, None) {
        let configuration = &*object.key.name;
        match object.typed::<Configuration>() {
            Ok(read) => hooks.extend(compile(configuration, read.webhooks.unwrap_or_default())),
            Err(error) => tracing::error!(configuration, %error, "webhooks that cannot be read are not called"),
        }
    }
    hooks
}

fn compile(configuration: &str, webhooks: Vec<MutatingWebhook>) -> Vec<Arc<Hook>> {
    let mut same: HashMap<String, usize> = HashMap::new();
    let compiled = webhooks.into_iter().map(|w| {
        let nth = same.entry(w.name.clone()).and_modify(|n| *n += 1).or_insert(0);
        let uid = format!("{configuration}/{}/{nth}", w.name);
        Arc::new(hook(uid, w))
    });
    compiled.collect()
}

fn hook(uid: String, w: MutatingWebhook) -> Hook {
    let seconds = w.timeout_seconds.unwrap_or(TIMEOUT);
    Hook {
        uid,
        client: ClientConfig::from(&w.client_config),
        rules: w.rules.unwrap_or_default().into_iter().map(rule).collect(),
        equivalent: w.match_policy.as_deref() != Some("Exact"),
        namespaces: selector(w.namespace_selector),
        objects: selector(w.object_selector),
        ignore_failures: w.failure_policy.as_deref() == Some("Ignore"),
        without_side_effects: matches!(w.side_effects.as_str(), "None" | "NoneOnDryRun"),
        timeout: Duration::from_secs(seconds.max(1).unsigned_abs().into()),
        version: w.admission_review_versions.iter().find_map(|v| match v.as_str() {
            "v1" => Some(Version::V1),
            "v1beta1" => Some(Version::V1Beta1),
            _ => None,
        }),
        again: w.reinvocation_policy.as_deref() == Some("IfNeeded"),
        conditions: expressions::conditions(&w.match_conditions.unwrap_or_default(), &expressions::of_webhooks()),
        name: w.name,
    }
}

fn rule(r: RuleWithOperations) -> Rule {
    Rule {
        operations: r.operations.unwrap_or_default(),
        groups: r.api_groups.unwrap_or_default(),
        versions: r.api_versions.unwrap_or_default(),
        resources: r.resources.unwrap_or_default(),
        scope: r.scope.unwrap_or_default(),
        names: Vec::new(),
    }
}

/// None selects everything: validation has seen to it that there is one.
fn selector(selector: Option<Selector>) -> Result<LabelSelector, String> {
    selector.map_or_else(|| Ok(LabelSelector::default()), |s| LabelSelector::from_meta(&s).map_err(|e| e.to_string()))
}
