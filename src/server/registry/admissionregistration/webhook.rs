//! Decides: one webhook, of either kind.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, RuleWithOperations, ValidatingWebhook, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES, known, match_conditions, rules};
use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, selector};
use crate::server::registry::webhook::{self, Service};

/// A webhook that is asked on a dry run too must not do anything.
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
const SECONDS: std::ops::RangeInclusive<i32> = 1..=30;
pub const DEFAULT_SECONDS: i32 = 10;

/// What is checked of a webhook.
pub struct Webhook<'a> {
    name: &'a str,
    rules: Option<&'a Vec<RuleWithOperations>>,
    failure_policy: Option<&'a str>,
    match_policy: Option<&'a str>,
    side_effects: &'a str,
    timeout_seconds: Option<i32>,
    namespace_selector: Option<&'a LabelSelector>,
    object_selector: Option<&'a LabelSelector>,
    reinvocation_policy: Option<&'a str>,
    client: &'a WebhookClientConfig,
    conditions: Option<&'a Vec<MatchCondition>>,
    versions: &'a [String],
}

macro_rules! webhook {
    ($kind:ty, $hook:ident => $reinvocation:expr) => {
        impl<'a> From<&'a $kind> for Webhook<'a> {
            fn from($hook: &'a $kind) -> Self {
                Self {
                    name: &$hook.name,
                    rules: $hook.rules.as_ref(),
                    failure_policy: $hook.failure_policy.as_deref(),
                    match_policy: $hook.match_policy.as_deref(),
                    side_effects: &$hook.side_effects,
                    timeout_seconds: $hook.timeout_seconds,
                    namespace_selector: $hook.namespace_selector.as_ref(),
                    object_selector: $hook.object_selector.as_ref(),
                    reinvocation_policy: $reinvocation,
                    client: &$hook.client_config,
                    conditions: $hook.match_conditions.as_ref(),
                    versions: &$hook.admission_review_versions,
                }
            }
        }
    };
}
webhook!(MutatingWebhook, hook => hook.reinvocation_policy.as_deref());
webhook!(ValidatingWebhook, hook => None);

/// The defaults of what is below a webhook.
pub fn defaults(client: &mut WebhookClientConfig, rules: Option<&mut Vec<RuleWithOperations>>) {
    if let Some(service) = &mut client.service {
        service.port.get_or_insert(443);
    }
    for rule in rules.into_iter().flatten() {
        rule.scope.get_or_insert_with(|| "*".into());
    }
}

/// All webhooks of a configuration.
pub fn check<'a, W: Into<Webhook<'a>>>(webhooks: impl IntoIterator<Item = W>) -> Vec<FieldError> {
    let (mut errors, mut names) = (Vec::new(), Vec::new());
    for (i, hook) in webhooks.into_iter().enumerate() {
        let (hook, at) = (hook.into(), Path::new("webhooks").index(i));
        check_one(&mut errors, &at, &hook);
        let missing = "must specify one of v1, v1beta1";
        webhook::review_versions(&mut errors, &at.child("admissionReviewVersions"), hook.versions, missing, true);
        if !hook.name.is_empty() && names.contains(&hook.name) {
            errors.push(FieldError::duplicate(&at.child("name"), &hook.name));
        }
        names.push(hook.name);
    }
    errors
}

fn check_one(errors: &mut Errors, path: &Path, hook: &Webhook) {
    qualified(errors, &path.child("name"), hook.name);
    for (i, rule) in hook.rules.into_iter().flatten().enumerate() {
        rules::check(errors, &path.child("rules").index(i), rule);
    }
    let word = |errors: &mut Errors, field: &str, word: Option<&str>, words: &[&str]| {
        if let Some(word) = word {
            known(errors, &path.child(field), word, words);
        }
    };
    word(errors, "failurePolicy", hook.failure_policy, FAILURE_POLICIES);
    word(errors, "matchPolicy", hook.match_policy, MATCH_POLICIES);
    let at = path.child("sideEffects");
    if hook.side_effects.is_empty() {
        errors.push(FieldError::required(&at, &format!("must specify one of {}", SIDE_EFFECTS.join(", "))));
    } else {
        known(errors, &at, hook.side_effects, SIDE_EFFECTS);
    }
    if let Some(seconds) = hook.timeout_seconds.filter(|s| !SECONDS.contains(s)) {
        let message = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(&path.child("timeoutSeconds"), &seconds, message));
    }
    selector(errors, &path.child("namespaceSelector"), hook.namespace_selector);
    selector(errors, &path.child("objectSelector"), hook.object_selector);
    word(errors, "reinvocationPolicy", hook.reinvocation_policy, REINVOCATION_POLICIES);
    let service = hook.client.service.as_ref().map(|s| Service {
        namespace: &s.namespace,
        name: &s.name,
        path: s.path.as_deref(),
        port: s.port.unwrap_or_default(),
    });
    webhook::client(errors, &path.child("clientConfig"), hook.client.url.as_deref(), service);
    match_conditions::check(errors, &path.child("matchConditions"), hook.conditions, false);
}

/// `IsFullyQualifiedName`
fn qualified(errors: &mut Errors, path: &Path, name: &str) {
    let problems = format::dns_subdomain(name);
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !problems.is_empty() {
        errors.push(FieldError::invalid(path, &name, &problems.join(",")));
    } else if name.split('.').count() < 3 {
        let message = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, &name, message));
    }
}
