//! Decides the service account of a pod and mounts its token, the cluster's CA and the namespace into every container.

use jiff::{SignedDuration, Timestamp};
use rand::seq::IndexedRandom;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::api::status::Status;
use crate::clock;
use crate::server::objects::SharedObjects;

pub const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "kubernetes.io/config.mirror";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Seconds. An hour, and 7 more that tell these tokens from others in upstream's metrics.
const EXPIRATION: i64 = 3607;
const NEW_NAMESPACE: SignedDuration = SignedDuration::from_secs(30);
/// Letters that make no words (`k8s.io/apimachinery/pkg/util/rand`).
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

pub struct ServiceAccount {
    objects: SharedObjects,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Account {
    #[serde(default)]
    automount_service_account_token: Option<bool>,
    #[serde(default)]
    image_pull_secrets: Option<Vec<Value>>,
}

impl ServiceAccount {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    fn account(&self, attributes: &Attributes<'_>, pod: &Value, name: &str) -> Result<Account, Status> {
        let namespace = attributes.namespace;
        let found = self.objects.get("serviceaccounts", namespace, name).and_then(|o| o.typed::<Account>().ok());
        let expected = || (name == "default" && self.is_new(namespace)).then(Account::default);
        found.or_else(expected).ok_or_else(|| {
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
            attributes.forbidden(Some(pod), &why)
        })
    }
}

impl ServiceAccount {
    /// The controller may not have made the account `default` yet. Upstream waits for it; we take it as it will be, and
    /// the node waits for it before it mounts the token.
    fn is_new(&self, namespace: &str) -> bool {
        let stored = self.objects.get("namespaces", "", namespace).and_then(|n| n.value().ok());
        let made = stored.and_then(|n| n["metadata"]["creationTimestamp"].as_str()?.parse::<Timestamp>().ok());
        made.is_some_and(|made| clock::now().duration_since(made) < NEW_NAMESPACE)
    }
}

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn changes(&self) -> &'static [&'static str] {
        &["pods"]
    }

    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !attributes.is("pods") || attributes.operation != Operation::Create || !pod["spec"].is_object() {
            return Ok(());
        }
        if !pod["metadata"]["annotations"][MIRROR].is_null() {
            return mirror(attributes, pod);
        }
        let name = match pod["spec"]["serviceAccountName"].as_str() {
            Some(name) if !name.is_empty() => name.to_owned(),
            // The old name of the field; upstream's conversion takes either.
            _ => match pod["spec"]["serviceAccount"].as_str() {
                Some(name) if !name.is_empty() => name.to_owned(),
                _ => "default".to_owned(),
            },
        };
        pod["spec"]["serviceAccountName"] = json!(name);
        pod["spec"]["serviceAccount"] = json!(name);
        let account = self.account(attributes, pod, &name)?;
        let automount = pod["spec"]["automountServiceAccountToken"].as_bool();
        if automount.or(account.automount_service_account_token).unwrap_or(true) {
            mount(&mut pod["spec"]);
        }
        let own = pod["spec"]["imagePullSecrets"].as_array().is_some_and(|s| !s.is_empty());
        if let Some(secrets) = account.image_pull_secrets.filter(|s| !own && !s.is_empty()) {
            pod["spec"]["imagePullSecrets"] = json!(secrets);
        }
        Ok(())
    }
}

/// A static pod, as its node shows it: nothing of it may be changed.
fn mirror(attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    let spec = &pod["spec"];
    if spec["serviceAccountName"].as_str().is_some_and(|n| !n.is_empty()) {
        return Err(attributes.forbidden(Some(pod), "a mirror pod may not reference service accounts"));
    }
    let token = |s: &Value| !s["serviceAccountToken"].is_null();
    let with_token = |v: &Value| v["projected"]["sources"].as_array().is_some_and(|s| s.iter().any(token));
    if spec["volumes"].as_array().is_some_and(|v| v.iter().any(with_token)) {
        return Err(attributes.forbidden(Some(pod), "a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

/// Adds the volume, and a mount to every container that mounts nothing at the path itself.
fn mount(spec: &mut Value) {
    let volumes = spec["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ours = |v: &&Value| v["name"].as_str().is_some_and(|n| n.starts_with(VOLUME_PREFIX));
    let existing = volumes.iter().find(is_ours).and_then(|v| v["name"].as_str()).map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", suffix()));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten().filter(|c| c.is_object()) {
            let mounts = &mut container["volumeMounts"];
            if !mounts.is_array() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().any(|m| m["mountPath"].as_str() == Some(MOUNT_PATH)) {
                continue;
            }
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            needed = true;
        }
        // Asking for a list that isn't there made it null.
        if spec[list].is_null()
            && let Some(fields) = spec.as_object_mut()
        {
            fields.remove(list);
        }
    }
    if existing.is_some() || !needed {
        return;
    }
    let volume = volume(&name);
    match &mut spec["volumes"] {
        Value::Array(volumes) => volumes.push(volume),
        volumes => *volumes = json!([volume]),
    }
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": EXPIRATION, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

fn suffix() -> String {
    let mut random = rand::rng();
    (0..5).filter_map(|_| SUFFIX_LETTERS.choose(&mut random)).map(|b| char::from(*b)).collect()
}
