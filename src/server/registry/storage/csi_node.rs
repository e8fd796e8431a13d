//! Decides: CSINode: which drivers a node has. A driver comes and goes; how many volumes it takes may change.

use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::core::persistent_volume::{drivers, same};
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, IMMUTABLE, invalid, not_negative, shown};
use crate::server::registry::strategy::{Kind, Part};

/// Bytes of what a driver calls the node.
const MAX_NODE_ID: usize = 256;

pub struct CSINodeKind;

impl Kind for CSINodeKind {
    type Object = CSINode;

    fn resource(&self) -> &'static Resource {
        row("storage.k8s.io/v1", "CSINode")
    }

    fn validate(&self, node: &CSINode) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("spec").child("drivers");
        let drivers = &node.spec.drivers;
        for (i, driver) in drivers.iter().enumerate() {
            let at = path.index(i);
            check(&mut errors, &at, driver);
            if drivers[..i].iter().any(|d| d.name == driver.name) {
                errors.push(FieldError::duplicate(&at.child("name"), &driver.name));
            }
            topology(&mut errors, &at, driver.topology_keys.as_deref().unwrap_or_default());
        }
        errors
    }

    fn validate_update(&self, _: Part, new: &CSINode, old: &CSINode) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        let path = Path::new("spec").child("drivers");
        for before in &old.spec.drivers {
            for after in new.spec.drivers.iter().filter(|d| d.name == before.name) {
                let rest = |driver: &CSINodeDriver| shown(&CSINodeDriver { allocatable: None, ..driver.clone() });
                if !same::alike(&rest(after), &rest(before), same::is_empty) {
                    errors.push(FieldError::invalid(&path, &rest(after), IMMUTABLE));
                }
            }
        }
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

fn check(errors: &mut Errors, path: &Path, driver: &CSINodeDriver) {
    drivers::driver_name(errors, &path.child("name"), &driver.name);
    let at = path.child("nodeID");
    if driver.node_id.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    if driver.node_id.len() > MAX_NODE_ID {
        let message = format!("must be {MAX_NODE_ID} characters or less");
        errors.push(FieldError::invalid(&at, &driver.node_id, &message));
    }
    if let Some(count) = driver.allocatable.as_ref().and_then(|a| a.count) {
        not_negative(errors, &path.child("allocatable").child("count"), i64::from(count));
    }
}

/// Upstream names the driver, not its list of keys.
fn topology(errors: &mut Errors, path: &Path, keys: &[String]) {
    for (i, key) in keys.iter().enumerate() {
        if key.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
        if keys[..i].contains(key) {
            errors.push(FieldError::duplicate(path, key));
        }
        invalid(errors, path, key, format::qualified_name(key));
    }
}
