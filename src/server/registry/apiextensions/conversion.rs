//! Decides: `spec.conversion` of a CustomResourceDefinition. Errors name the fields of upstream's internal form, which has
//! no `webhook` between.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, WebhookClientConfig,
};

use super::types::Spec;
use super::validate::{Options, one_of};
use crate::api::field::{FieldError, Path};
use crate::server::registry::metadata::{Errors, shown};
use crate::server::registry::webhook::{self, Service};

const STRATEGIES: &[&str] = &["None", "Webhook"];
const NO_WEBHOOK: &str = "should not be set when strategy is not set to Webhook";

fn config(conversion: &CustomResourceConversion) -> Option<&WebhookClientConfig> {
    conversion.webhook.as_ref()?.client_config.as_ref()
}

fn versions(conversion: &CustomResourceConversion) -> &[String] {
    conversion.webhook.as_ref().map(|w| w.conversion_review_versions.as_slice()).unwrap_or_default()
}

/// Whether a new form of it must name a version of the review that is known: not when the old one did not.
pub fn knows_review(old: &Spec) -> bool {
    let versions = old.conversion.as_ref().map(versions).unwrap_or_default();
    versions.is_empty() || webhook::knows_review(versions)
}

/// Whether a new form of it must have a bundle that can be read: not when the old one had not.
pub fn has_valid_ca_bundle(old: &Spec) -> bool {
    let bundle = old.conversion.as_ref().and_then(config).and_then(|c| c.ca_bundle.as_ref());
    bundle.is_none_or(|b| b.0.is_empty() || webhook::ca_bundle_problem(&b.0).is_none())
}

pub fn check(errors: &mut Errors, path: &Path, conversion: &CustomResourceConversion, options: Options) {
    one_of(errors, &path.child("strategy"), &conversion.strategy, STRATEGIES);
    let (client_at, versions_at) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    let (client, versions) = (config(conversion), versions(conversion));
    if conversion.strategy != "Webhook" {
        if client.is_some() {
            errors.push(FieldError::forbidden(&client_at, NO_WEBHOOK));
        }
        if !versions.is_empty() {
            errors.push(FieldError::forbidden(&versions_at, NO_WEBHOOK));
        }
        return;
    }
    if let Some(client) = client {
        let service = client.service.as_ref().map(|s| Service {
            namespace: &s.namespace,
            name: &s.name,
            path: s.path.as_deref(),
            port: s.port.unwrap_or_default(),
        });
        webhook::client(errors, &client_at, client.url.as_deref(), service);
        let bundle = client.ca_bundle.as_ref().filter(|b| !b.0.is_empty() && options.valid_ca_bundle);
        if let Some((bundle, why)) = bundle.and_then(|b| Some((b, webhook::ca_bundle_problem(&b.0)?))) {
            errors.push(FieldError::invalid(&client_at.child("caBundle"), &shown(bundle), &why));
        }
    } else {
        errors.push(FieldError::required(&client_at, "required when strategy is set to Webhook"));
    }
    webhook::review_versions(errors, &versions_at, versions, "", options.recognized_review);
}
