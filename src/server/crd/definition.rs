//! Decides: a `CustomResourceDefinition` that is served, taken apart once: the rows that it adds to the resource table,
//! and for each version its schema, its rules and its columns.
//!
//! Schemas are large, and most definitions of a cluster are never written to after the start: the schema of a version is
//! taken apart when the first of its objects is.

use std::sync::{Arc, OnceLock};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::conversion::Conversion;
use super::rules::{self, Rules};
use super::{compile, default, embedded, prune};
use crate::api::field::Path;
use crate::api::object::ObjectRef;
use crate::api::resource::Resource;
use crate::api::resource::custom::{self, Rows};
use crate::api::revision::Revision;
use crate::api::schema::structural::Structural;
use crate::api::table::custom::Printer;
use crate::server::webhook::Client;

/// See the module.
pub struct Definition {
    pub name: Box<str>,
    /// When it came to be what it is. Objects that were written before may lack defaults and have fields that it no
    /// longer knows.
    pub since: Revision,
    pub rows: Rows,
    /// All versions, served or not: objects may still be stored in any of them.
    pub versions: Vec<Arc<Version>>,
    pub conversion: Conversion,
    /// The definition as it is stored.
    pub object: ObjectRef,
    /// Of the part of it that all this was made of.
    digest: [u8; 32],
}

/// One version of a definition.
pub struct Version {
    /// Of one that is not served, the row of the one that is stored.
    pub row: &'static Resource,
    pub name: String,
    pub api_version: String,
    pub served: bool,
    object: ObjectRef,
    compiled: OnceLock<Compiled>,
    pub printer: Arc<Printer>,
    pub scale: Option<ScalePaths>,
    /// `CronTabList`, or what the definition says instead.
    pub list_kind: String,
    /// Tells clients of a deprecated version.
    pub warning: Option<String>,
}

struct Compiled {
    schema: Structural,
    rules: Rules,
}

/// Where an object has what its Scale shows, as field names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub replicas: Vec<String>,
    pub status_replicas: Vec<String>,
    /// Text, or a label selector.
    pub selector: Vec<String>,
}

impl Default for ScalePaths {
    fn default() -> Self {
        let path = |names: [&str; 2]| names.map(ToOwned::to_owned).to_vec();
        Self {
            replicas: path(["spec", "replicas"]),
            status_replicas: path(["status", "replicas"]),
            selector: path(["spec", "selector"]),
        }
    }
}

impl Definition {
    /// What a stored definition defines; `before` is what it did until now. `None` while its names are not accepted.
    #[must_use]
    pub fn of(object: &ObjectRef, before: Option<&Arc<Self>>, webhooks: &Arc<Client>) -> Option<Arc<Self>> {
        if let Some(same) = before.filter(|b| b.object.revision == object.revision) {
            return Some(same.clone());
        }
        // Our own text: what cannot be read was refused at the start.
        let definition = object.value().ok()?;
        let rows = custom::of(&definition)?;
        let made_of = [&definition["metadata"]["uid"], &definition["spec"], &definition["status"]["acceptedNames"]];
        let digest = Sha256::digest(made_of.map(ToString::to_string).concat()).into();
        if let Some(same) = before.filter(|b| b.digest == digest && b.rows == rows) {
            return Some(same.clone());
        }
        let versions = definition["spec"]["versions"].as_array()?;
        let version = |v: &Value| Arc::new(Version::of(object, &definition, v, &rows));
        Some(Arc::new(Self {
            name: object.key.name.as_ref().into(),
            since: object.revision,
            versions: versions.iter().map(version).collect(),
            conversion: Conversion::of(&definition["spec"]["conversion"], webhooks),
            object: object.clone(),
            digest,
            rows,
        }))
    }

    /// Changes whenever what it defines does.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The versions that clients may ask for.
    pub fn served(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.versions.iter().filter(|v| v.served)
    }

    /// A version by `apiVersion`.
    #[must_use]
    pub fn version(&self, api_version: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|v| v.api_version == api_version)
    }

    /// The version that is stored.
    #[must_use]
    pub fn stored(&self) -> Option<&Arc<Version>> {
        self.versions.iter().find(|v| v.name == self.rows.stored.version)
    }
}

impl Version {
    fn of(object: &ObjectRef, definition: &Value, version: &Value, rows: &Rows) -> Self {
        let name = version["name"].as_str().unwrap_or_default();
        let row = rows.served.iter().find(|r| r.version == name).copied().unwrap_or(rows.stored);
        let api_version = format!("{}/{name}", rows.stored.group);
        let kind = rows.stored.kind;
        let list_kind = definition["status"]["acceptedNames"]["listKind"].as_str();
        let warning = version["deprecationWarning"].as_str().map(ToOwned::to_owned);
        Self {
            row,
            name: name.to_owned(),
            served: version["served"] == true,
            object: object.clone(),
            compiled: OnceLock::new(),
            printer: Arc::new(Printer::of(&version["additionalPrinterColumns"])),
            scale: scale_paths(&version["subresources"]["scale"]),
            list_kind: list_kind.map_or_else(|| format!("{kind}List"), ToOwned::to_owned),
            warning: (version["deprecated"] == true)
                .then(|| warning.unwrap_or_else(|| format!("{api_version} {kind} is deprecated"))),
            api_version,
        }
    }

    /// `openAPIV3Schema`, as it was written.
    #[must_use]
    pub fn open_api(&self) -> Value {
        let mut definition = self.object.value().unwrap_or_default();
        let mut versions = definition["spec"]["versions"].as_array_mut().into_iter().flatten();
        let version = versions.find(|v| v["name"] == self.name);
        version.map(|v| v["schema"]["openAPIV3Schema"].take()).unwrap_or_default()
    }

    #[must_use]
    pub fn schema(&self) -> &Structural {
        &self.compiled().schema
    }

    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.compiled().rules
    }

    /// The schema was checked when the definition was written. One that an older server accepted and this one does not
    /// keeps what it has: nothing is dropped for the lack of a schema.
    fn compiled(&self) -> &Compiled {
        self.compiled.get_or_init(|| {
            let (definition, version) = (&*self.object.key.name, self.name.as_str());
            let schema = compile::compile(&self.open_api()).unwrap_or_else(|errors| {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                tracing::error!(definition, version, ?errors, "schema cannot be used: objects are not checked");
                Structural::anything()
            });
            let (rules, errors) = rules::compile(&schema, &Path::default());
            for error in errors {
                tracing::error!(definition, version, %error, "rule cannot be used");
            }
            Compiled { schema, rules }
        })
    }

    /// Puts what a client sent into the form of the schema, and names the fields that it dropped.
    ///
    /// # Errors
    /// When metadata is none.
    pub fn form(&self, object: &mut Value) -> Result<Vec<String>, String> {
        let mut unknown = embedded::coerce(object, self.schema(), true).map_err(|e| e.to_string())?;
        unknown.extend(self.prune(object));
        Ok(unknown)
    }

    /// Drops the fields that the schema does not have, and names them.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(object, self.schema(), true)
    }

    /// Fills in what the schema has defaults for.
    pub fn complete(&self, object: &mut Value) {
        default::prune_nulls(object, self.schema());
        default::default(object, self.schema());
    }
}

fn scale_paths(scale: &Value) -> Option<ScalePaths> {
    let path = |field: &str| {
        let names = scale[field].as_str()?.split('.').filter(|n| !n.is_empty());
        Some(names.map(ToOwned::to_owned).collect::<Vec<_>>())
    };
    scale.is_object().then(|| ScalePaths {
        replicas: path("specReplicasPath").unwrap_or_default(),
        status_replicas: path("statusReplicasPath").unwrap_or_default(),
        selector: path("labelSelectorPath").unwrap_or_else(|| vec!["".into()]),
    })
}
