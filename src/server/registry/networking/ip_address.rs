//! Decides: IPAddress. Its name is the address, in canonical form; what it belongs to never changes.

use k8s_openapi::api::networking::v1::{IPAddress, ParentReference};

use super::{address, group, required_segment};
use crate::api::field::{BadValue, FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{IMMUTABLE, invalid};
use crate::server::registry::strategy::{Kind, NameRule, Part};

pub struct IpAddressKind;

impl Kind for IpAddressKind {
    type Object = IPAddress;

    fn resource(&self) -> &'static Resource {
        row("networking.k8s.io/v1", "IPAddress")
    }

    /// The stricter rule is in [`Kind::validate`]: only this kind has it.
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, ip: &IPAddress) -> Vec<FieldError> {
        let mut errors = Vec::new();
        // A missing name was reported with the metadata.
        if let Some(name) = ip.metadata.name.as_deref().filter(|n| !n.is_empty()) {
            let at = Path::new("metadata").child("name");
            invalid(&mut errors, &at, &name, address::canonical_ip(name));
        }
        let (path, parent) = (Path::new("spec").child("parentRef"), &ip.spec.parent_ref);
        // An empty reference cannot be told from a missing one here; missing is what happens.
        if *parent == ParentReference::default() {
            errors.push(FieldError::required(&path, ""));
            return errors;
        }
        group(&mut errors, &path.child("group"), parent.group.as_deref().filter(|g| !g.is_empty()));
        required_segment(&mut errors, &path.child("resource"), &parent.resource);
        required_segment(&mut errors, &path.child("name"), &parent.name);
        let namespace = parent.namespace.as_deref().unwrap_or_default();
        invalid(&mut errors, &path.child("namespace"), &namespace, format::path_segment(namespace, false));
        errors
    }

    fn validate_update(&self, _: Part, new: &IPAddress, old: &IPAddress) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        if new.spec.parent_ref != old.spec.parent_ref {
            let path = Path::new("spec").child("parentRef");
            errors.push(FieldError::invalid(&path, &Parent(&new.spec.parent_ref), IMMUTABLE));
        }
        errors
    }
}

/// Upstream shows the reference of its internal type.
struct Parent<'a>(&'a ParentReference);

impl BadValue for Parent<'_> {
    fn shown(&self) -> String {
        let (group, namespace) = (self.0.group.clone(), self.0.namespace.clone());
        format!(
            "{{\"Group\":{:?},\"Resource\":{:?},\"Namespace\":{:?},\"Name\":{:?}}}",
            group.unwrap_or_default(),
            self.0.resource,
            namespace.unwrap_or_default(),
            self.0.name
        )
    }
}
