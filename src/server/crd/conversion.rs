//! Effects: from one version of a custom resource to another: by the name of the version alone, or by a webhook
//! (`spec.conversion` of a definition, `apiextensions-apiserver/pkg/apiserver/conversion`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::WebhookClientConfig;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::status::Status;
use crate::server::webhook::{Client, ClientConfig};

/// How long a webhook may take for one call, as upstream.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How the versions of a definition become each other.
pub enum Conversion {
    /// `apiVersion` changes, and nothing else.
    None,
    Webhook(Hook),
}

/// `spec.conversion.webhook`
pub struct Hook {
    client: Arc<Client>,
    config: ClientConfig,
    /// Of `ConversionReview`, the first that both sides speak.
    review: String,
}

impl Conversion {
    #[must_use]
    pub fn of(conversion: &Value, client: &Arc<Client>) -> Self {
        let webhook = &conversion["webhook"];
        let versions = webhook["conversionReviewVersions"].as_array();
        let mut spoken =
            versions.into_iter().flatten().filter_map(Value::as_str).filter(|v| matches!(*v, "v1" | "v1beta1"));
        match (conversion["strategy"].as_str(), WebhookClientConfig::deserialize(&webhook["clientConfig"])) {
            (Some("Webhook"), Ok(config)) => Self::Webhook(Hook {
                client: client.clone(),
                config: ClientConfig::from(&config),
                review: spoken.next().unwrap_or("v1").to_owned(),
            }),
            _ => Self::None,
        }
    }

    /// Whether the versions differ by nothing but their names.
    #[must_use]
    pub fn is_by_name(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The objects in version `to`, in their order.
    ///
    /// # Errors
    /// What kept the webhook from it.
    pub async fn convert(&self, mut objects: Vec<Value>, to: &str) -> Result<Vec<Value>, Status> {
        match self {
            Self::None => {
                objects.iter_mut().for_each(|object| object["apiVersion"] = to.into());
                Ok(objects)
            }
            Self::Webhook(hook) => {
                let failed = |why: String| {
                    let from = objects.first().map(kind_of).unwrap_or_default();
                    Status::new(500, "", format!("conversion webhook for {from} failed: {why}"))
                };
                let converted = hook.call(&objects, to).await.map_err(&failed)?;
                if converted.len() != objects.len() {
                    let (wanted, got) = (objects.len(), converted.len());
                    return Err(failed(format!("webhook returned {got} objects, expected {wanted}")));
                }
                let invalid = |i, why| failed(format!("invalid converted object at index {i}: {why}"));
                let pairs = objects.iter().zip(converted).enumerate();
                pairs.map(|(i, (old, new))| checked(old, new, to).map_err(|why| invalid(i, why))).collect()
            }
        }
    }
}

/// `example.com/v1, Kind=CronTab`
fn kind_of(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    format!("{}, Kind={}", text("apiVersion"), text("kind"))
}

impl Hook {
    async fn call(&self, objects: &[Value], to: &str) -> Result<Vec<Value>, String> {
        let uid = uuid::Uuid::new_v4().to_string();
        let version = format!("apiextensions.k8s.io/{}", self.review);
        let review = json!({
            "apiVersion": version, "kind": "ConversionReview",
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
        });
        let mut answer = self.client.call(&self.config, &review, TIMEOUT).await.map_err(|e| e.to_string())?;
        if answer["apiVersion"] != version || answer["kind"] != "ConversionReview" {
            return Err(format!(
                "expected webhook response of {version}, Kind=ConversionReview, got {}",
                kind_of(&answer)
            ));
        }
        let mut response = answer["response"].take();
        if response.is_null() {
            return Err("no response provided".into());
        }
        if response["uid"] != uid {
            return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
        }
        match response["result"]["status"].as_str() {
            Some("Success") => {}
            Some("Failure") => {
                let message = response["result"]["message"].as_str().filter(|m| !m.is_empty());
                return Err(message.unwrap_or("response.result.status was \'Failure\', not \'Success\'").to_owned());
            }
            other => {
                let other = other.unwrap_or_default();
                return Err(format!("response.result.status was \'{other}\', not \'Success\'"));
            }
        }
        match response["convertedObjects"].take() {
            Value::Array(list) => Ok(list),
            _ => Ok(Vec::new()),
        }
    }
}

/// A webhook converts what an object says. What it is, and how it came to be, stays.
fn checked(old: &Value, mut new: Value, to: &str) -> Result<Value, String> {
    if new["apiVersion"] != to {
        return Err(format!("invalid groupVersion (expected {to:?}, received {})", new["apiVersion"]));
    }
    if new["kind"] != old["kind"] {
        return Err(format!("invalid kind (expected {}, received {})", old["kind"], new["kind"]));
    }
    let (before, after) = (&old["metadata"], &new["metadata"]);
    if !after.is_object() {
        return Err("invalid metadata of type <nil> in converted object".into());
    }
    for field in ["name", "namespace", "uid"] {
        if before[field] != after[field] {
            return Err(format!("must have the same {field}: {} != {}", before[field], after[field]));
        }
    }
    // Only labels and annotations are the webhook\'s to change.
    let mut metadata = before.clone();
    for field in ["labels", "annotations"] {
        match after.get(field) {
            Some(value) => metadata[field] = value.clone(),
            None => drop(metadata.as_object_mut().and_then(|m| m.remove(field))),
        }
    }
    new["metadata"] = metadata;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_change_labels_and_what_the_object_says() {
        let meta = json!({"name": "a", "uid": "u", "finalizers": ["x"], "labels": {"a": "b"}});
        let old = json!({"apiVersion": "e/v1", "kind": "K", "metadata": meta, "spec": 1});
        let with = |change: &dyn Fn(&mut Value)| {
            let mut new = old.clone();
            new["apiVersion"] = "e/v2".into();
            change(&mut new);
            checked(&old, new, "e/v2")
        };
        let changed = with(&|n| n["metadata"] = json!({"name": "a", "uid": "u", "annotations": {"c": "d"}})).unwrap();
        let expect = json!({"name": "a", "uid": "u", "finalizers": ["x"], "annotations": {"c": "d"}});
        assert_eq!(changed["metadata"], expect);
        for (change, expect) in [
            (
                &(|n: &mut Value| n["apiVersion"] = "e/v3".into()) as &dyn Fn(&mut Value),
                "invalid groupVersion (expected \"e/v2\", received \"e/v3\")",
            ),
            (&|n: &mut Value| n["kind"] = "L".into(), "invalid kind (expected \"K\", received \"L\")"),
            (&|n: &mut Value| n["metadata"]["name"] = "b".into(), "must have the same name: \"a\" != \"b\""),
            (&|n: &mut Value| n["metadata"] = Value::Null, "invalid metadata of type <nil> in converted object"),
        ] {
            assert_eq!(with(change).unwrap_err(), expect);
        }
    }

    #[test]
    fn strategies() {
        let webhook = json!({"strategy": "Webhook", "webhook": {
            "conversionReviewVersions": ["v3", "v1"], "clientConfig": {"url": "https://x/y"}}});
        let client = Client::new(crate::server::cache::Cache::new());
        assert!(matches!(Conversion::of(&webhook, &client), Conversion::Webhook(h) if h.review == "v1"));
        assert!(Conversion::of(&json!({"strategy": "None"}), &client).is_by_name());
        assert!(Conversion::of(&Value::Null, &client).is_by_name());
    }
}
