//! Types: what is kept of definitions and API services, and ReplicationControllers as what they amount to.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerCondition};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinitionNames, CustomResourceDefinitionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::resource::custom::{self, Rows};
use crate::client::store::{Kind, Meta};

/// A `CustomResourceDefinition` without its schemas.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Definition {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: DefinitionSpec,
    #[serde(default)]
    pub status: CustomResourceDefinitionStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DefinitionSpec {
    pub group: String,
    pub scope: String,
    pub names: CustomResourceDefinitionNames,
    pub versions: Vec<DefinitionVersion>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DefinitionVersion {
    pub name: String,
    pub served: bool,
    pub storage: bool,
    /// A scale among them is what autoscalers and budgets go by.
    pub subresources: Value,
}

impl Definition {
    /// What it adds to the resource table; `None` before its names are accepted.
    #[must_use]
    pub fn rows(&self) -> Option<Rows> {
        let version = |v: &DefinitionVersion| json!({"name": v.name, "served": v.served, "storage": v.storage, "subresources": v.subresources});
        let versions: Vec<Value> = self.spec.versions.iter().map(version).collect();
        custom::of(&json!({
            "spec": {"group": self.spec.group, "scope": self.spec.scope, "versions": versions}, "status": self.status,
        }))
    }
}

/// An `APIService` without the certificates of its bundle.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiService {
    pub metadata: ObjectMeta,
    pub spec: ApiServiceSpec,
    pub status: ApiServiceStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiServiceSpec {
    pub group: String,
    pub version: String,
    pub group_priority_minimum: i32,
    pub version_priority: i32,
    pub service: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiServiceStatus {
    pub conditions: Vec<Value>,
}

impl ApiService {
    /// An extension server that can be reached.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        let available = |c: &Value| c["type"] == "Available" && c["status"] == "True";
        self.spec.service.is_some() && self.status.conditions.iter().any(available)
    }
}

/// A ReplicationController as the ReplicaSet that says the same: one controller serves both, as upstream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "ReplicationController")]
pub struct Controller(pub Arc<ReplicaSet>);

impl From<ReplicationController> for Controller {
    fn from(from: ReplicationController) -> Self {
        let ReplicationController { metadata, spec, status } = from;
        let spec = spec.map(|s| ReplicaSetSpec {
            min_ready_seconds: s.min_ready_seconds,
            replicas: s.replicas,
            selector: LabelSelector { match_labels: s.selector, match_expressions: None },
            template: s.template,
        });
        let condition = |c: ReplicationControllerCondition| ReplicaSetCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        let status = status.map(|s| ReplicaSetStatus {
            available_replicas: s.available_replicas,
            conditions: s.conditions.map(|all| all.into_iter().map(condition).collect()),
            fully_labeled_replicas: s.fully_labeled_replicas,
            observed_generation: s.observed_generation,
            ready_replicas: s.ready_replicas,
            replicas: s.replicas,
            terminating_replicas: None,
        });
        Self(Arc::new(ReplicaSet { metadata, spec, status }))
    }
}

impl Kind for Controller {
    fn meta(&self) -> &dyn Meta {
        &self.0.metadata
    }
}
