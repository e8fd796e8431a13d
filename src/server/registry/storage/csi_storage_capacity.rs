//! Decides: CSIStorageCapacity: how much room a class has where. What was asked stays, the answer changes.

use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::core::node_labels;
use crate::server::registry::core::persistent_volume::same;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{IMMUTABLE, immutable, invalid, selector, shown};
use crate::server::registry::quantity;
use crate::server::registry::strategy::{Kind, Part};

pub struct CSIStorageCapacityKind;

impl Kind for CSIStorageCapacityKind {
    type Object = CSIStorageCapacity;

    fn resource(&self) -> &'static Resource {
        row("storage.k8s.io/v1", "CSIStorageCapacity")
    }

    fn defaults(&self, capacity: &mut CSIStorageCapacity) {
        quantity::canonical([&mut capacity.capacity, &mut capacity.maximum_volume_size].into_iter().flatten());
    }

    fn validate(&self, capacity: &CSIStorageCapacity) -> Vec<FieldError> {
        let mut errors = Vec::new();
        selector(&mut errors, &Path::new("nodeTopology"), capacity.node_topology.as_ref());
        let class = &capacity.storage_class_name;
        invalid(&mut errors, &Path::new("storageClassName"), class, format::dns_subdomain(class));
        if let Some(size) = &capacity.capacity {
            quantity::validate(&mut errors, &Path::new("capacity"), "storage", size);
        }
        // Upstream decodes the size, and looks no further.
        if let Some(size) = &capacity.maximum_volume_size
            && let Err(error) = quantity::parse(size)
        {
            errors.push(FieldError::invalid(&Path::new("maximumVolumeSize"), &size.0, &error.to_string()));
        }
        errors
    }

    fn validate_update(&self, _: Part, new: &CSIStorageCapacity, old: &CSIStorageCapacity) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        let (after, before) = (shown(&new.node_topology), shown(&old.node_topology));
        if !same::alike(&after, &before, same::is_empty) {
            errors.push(FieldError::invalid(&Path::new("nodeTopology"), &after, IMMUTABLE));
        }
        let path = Path::new("storageClassName");
        immutable(&mut errors, &path, &new.storage_class_name, &old.storage_class_name);
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn warnings(&self, capacity: &CSIStorageCapacity) -> Vec<String> {
        let mut warnings = Vec::new();
        let Some(topology) = &capacity.node_topology else { return warnings };
        let path = Path::new("nodeTopology");
        for (i, requirement) in topology.match_expressions.iter().flatten().enumerate() {
            if let Some(why) = node_labels::deprecation(&requirement.key) {
                let at = path.child("matchExpressions").index(i).child("key");
                warnings.push(format!("{at}: {} is {why}", requirement.key));
            }
        }
        for label in topology.match_labels.iter().flatten().map(|(label, _)| label) {
            if let Some(why) = node_labels::deprecation(label) {
                warnings.push(format!("{}: {why}", path.child("matchLabels").child(label)));
            }
        }
        warnings
    }
}
