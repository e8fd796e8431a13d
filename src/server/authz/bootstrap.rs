//! Effects: writes the default roles and bindings at start: makes what is missing, adds what was taken away unless the
//! object says not to, and never takes away what someone added.

use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use kube::api::{Api, DynamicObject, GroupVersionKind, PostParams};
use kube::discovery::ApiResource;
use serde_json::Value;

use super::policy::{API_GROUP, AUTOUPDATE, objects};
use super::rules::uncovered;

/// Tries against someone who writes the same object.
const MAX_CONFLICTS: usize = 5;

/// Requests at once.
const CONCURRENCY: usize = 16;
/// For the system's namespaces: half a minute.
const NAMESPACE_ATTEMPTS: u32 = 150;
const NAMESPACE_DELAY: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {step} the default {kind} {name:?}")]
    Request {
        step: &'static str,
        kind: String,
        name: String,
        #[source]
        source: kube::Error,
    },
    #[error("the default {kind} {name:?} is malformed")]
    Malformed {
        kind: String,
        name: String,
        #[source]
        source: serde_json::Error,
    },
}

/// Harmless to repeat. Waits a while for the namespaces `kube-system` and `kube-public`, which a controller makes.
///
/// # Errors
/// When the API refuses a request.
pub async fn reconcile(client: Client) -> Result<(), Error> {
    let mut wanted = objects();
    for attempt in 1.. {
        let results = stream::iter(wanted).map(|object| async {
            let result = reconcile_one(&client, &object).await;
            (object, result)
        });
        // Together, so that the store makes them durable together.
        let results: Vec<_> = results.buffer_unordered(CONCURRENCY).collect().await;
        let mut again = Vec::new();
        for (object, result) in results {
            match result {
                Err(Error::Request { source: kube::Error::Api(status), .. })
                    if status.code == 404 && attempt < NAMESPACE_ATTEMPTS =>
                {
                    again.push(object);
                }
                other => other?,
            }
        }
        if again.is_empty() {
            break;
        }
        wanted = again;
        tokio::time::sleep(NAMESPACE_DELAY).await;
    }
    Ok(())
}

async fn reconcile_one(client: &Client, wanted: &Value) -> Result<(), Error> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&wanted["kind"]), text(&wanted["metadata"]["name"]));
    let fail = |step| {
        let (kind, name) = (kind.clone(), name.clone());
        move |source| Error::Request { step, kind, name, source }
    };
    let malformed = |source| Error::Malformed { kind: kind.clone(), name: name.clone(), source };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(API_GROUP, "v1", &kind));
    let api: Api<DynamicObject> = match wanted["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    for _ in 0..MAX_CONFLICTS {
        let Some(stored) = api.get_opt(&name).await.map_err(fail("read"))? else {
            let object: DynamicObject = serde_json::from_value(wanted.clone()).map_err(malformed)?;
            match api.create(&PostParams::default(), &object).await {
                Err(kube::Error::Api(status)) if status.code == 409 => continue,
                other => return other.map(|_| ()).map_err(fail("create")),
            }
        };
        let stored = serde_json::to_value(&stored).map_err(malformed)?;
        let Some(merged) = plan(&stored, wanted) else { return Ok(()) };
        let object: DynamicObject = serde_json::from_value(merged).map_err(malformed)?;
        match api.replace(&name, &PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => return other.map(|_| ()).map_err(fail("update")),
        }
    }
    Ok(())
}

/// What the stored object must become; `None` when it's fine, or its owner said to leave it.
fn plan(stored: &Value, wanted: &Value) -> Option<Value> {
    if stored["metadata"]["annotations"][AUTOUPDATE].as_str() == Some("false") {
        return None;
    }
    let mut merged = stored.clone();
    for map in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][map].as_object().into_iter().flatten() {
            if stored["metadata"][map][key].is_null() {
                merged["metadata"][map][key] = value.clone();
            }
        }
    }
    if !wanted["aggregationRule"].is_null() && stored["aggregationRule"].is_null() {
        merged["aggregationRule"] = wanted["aggregationRule"].clone();
    }
    let rules = |o: &Value| serde_json::from_value::<Vec<PolicyRule>>(o["rules"].clone()).unwrap_or_default();
    let missing = uncovered(&rules(stored), &rules(wanted));
    append(&mut merged["rules"], missing.iter().map(|rule| serde_json::json!(rule)));
    let have = stored["subjects"].as_array().cloned().unwrap_or_default();
    let want = wanted["subjects"].as_array().cloned().unwrap_or_default();
    append(&mut merged["subjects"], want.into_iter().filter(|s| !have.contains(s)));
    // Indexing a missing field for writing left a null behind.
    if let Some(fields) = merged.as_object_mut() {
        fields.retain(|_, v| !v.is_null());
    }
    (merged != *stored).then_some(merged)
}

fn append(list: &mut Value, items: impl Iterator<Item = Value>) {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return;
    }
    match list {
        Value::Array(list) => list.extend(items),
        _ => *list = items.collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(rules: Value, autoupdate: &str) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
               "metadata": {"name": "x", "annotations": {AUTOUPDATE: autoupdate}, "labels": {"a": "b"}}, "rules": rules})
    }

    fn rule(verbs: &[&str]) -> Value {
        json!({"apiGroups": [""], "resources": ["pods"], "verbs": verbs})
    }

    #[test]
    fn adds_what_is_missing_and_keeps_what_was_added() {
        let wanted = role(json!([rule(&["get", "list"])]), "true");
        let stored = role(json!([rule(&["get", "delete"])]), "true");
        assert_eq!(plan(&stored, &wanted).unwrap()["rules"], json!([rule(&["get", "delete"]), rule(&["list"])]));
        assert_eq!(plan(&wanted, &wanted), None);
        assert_eq!(plan(&role(json!([rule(&["*"])]), "true"), &wanted), None);
        assert_eq!(plan(&role(json!([]), "false"), &wanted), None);
        assert_eq!(
            plan(&role(Value::Null, "true"), &wanted).unwrap()["rules"],
            json!([rule(&["get"]), rule(&["list"])])
        );
    }

    #[test]
    fn every_default_object_is_stable() {
        for object in objects() {
            assert_eq!(plan(&object, &object), None);
        }
    }
}
