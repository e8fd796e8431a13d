//! Decides: what expressions see of the kinds that are served: of built-in ones from the schema table, of custom resources
//! from their definitions.

use std::sync::Arc;

use super::{Catalog, Registry};
use crate::api::resource::Resource;
use crate::api::schema;
use crate::api::type_check::TypeCheck;
use crate::server::admission::policies::type_check::{Kinds, check};
use crate::server::cel::types::ObjectType;
use crate::server::cel::{Decl, Type, kinds, schema as custom};

impl Registry {
    /// Checks the types of the expressions of policies.
    #[must_use]
    pub fn type_check(&self) -> TypeCheck {
        let registry = self.clone();
        TypeCheck::new(move |policy| check(policy, &Served(registry.catalog())))
    }
}

struct Served(Arc<Catalog>);

impl Kinds for Served {
    fn row(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        self.0.row(group, version, plural)
    }

    fn declared(&self, api_version: &str, kind: &str) -> Option<Decl> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if let Some(of) = schema::find(group, version, kind) {
            return Some(kinds::declare(of, kind));
        }
        let versions = self.0.definitions().iter().flat_map(|d| d.served());
        let version = versions.into_iter().find(|v| v.api_version == api_version && v.row.kind == kind)?;
        let mut decl = custom::declare(version.schema(), true, kind)?;
        // The published schema has all of the metadata, whatever the definition says of it.
        if let Type::Object(object) = &decl.ty {
            let mut fields = object.fields.clone();
            if let Some(metadata) = fields.iter_mut().find(|f| &*f.name == "metadata") {
                metadata.decl = kinds::metadata(&format!("{kind}.metadata"));
            }
            decl.ty = Type::Object(Arc::new(ObjectType::new(kind, fields)));
        }
        Some(decl)
    }
}
