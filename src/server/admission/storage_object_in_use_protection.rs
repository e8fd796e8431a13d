//! Decides that no volume, and no claim, goes while it is in use: whoever finds that it is not takes the finalizer off.

use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::api::status::Status;

const PROTECTED: [(&str, &str); 3] = [
    ("persistentvolumes", "kubernetes.io/pv-protection"),
    ("persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("storage.k8s.io/volumeattributesclasses", "kubernetes.io/vac-protection"),
];

pub struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn changes(&self) -> &'static [&'static str] {
        const { &[PROTECTED[0].0, PROTECTED[1].0, PROTECTED[2].0] }
    }

    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let finalizer = PROTECTED.iter().find(|(storage, _)| attributes.is(storage)).map(|(_, finalizer)| *finalizer);
        let Some(finalizer) = finalizer.filter(|_| attributes.operation == Operation::Create) else { return Ok(()) };
        match &mut object["metadata"]["finalizers"] {
            Value::Array(held) if held.iter().any(|f| f == finalizer) => {}
            Value::Array(held) => held.push(finalizer.into()),
            held => *held = json!([finalizer]),
        }
        Ok(())
    }
}
