//! Decides: whether a value changed (KEP-4008, `CorrelatedObject` in `apiserver/pkg/cel/common/equality.go`).

use serde_json::Value;

use crate::server::crd::map_list::MapList;
use crate::server::crd::prune::inside;
use crate::server::crd::structural::{ListType, Structural};

/// Whether a value is the one that it was. Items of lists that are maps may have moved; fields that the schema does not
/// have (but preserves) count as changed.
pub(super) fn unchanged(new: &Value, old: &Value, schema: &Structural) -> bool {
    match (new, old) {
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                return false;
            }
            match (&schema.list, &schema.items) {
                (ListType::Map(_), Some(items)) => {
                    let olds = MapList::of(Some(old), &schema.list);
                    a.iter().all(|new| olds.get(new).is_some_and(|old| unchanged(new, old, items)))
                }
                _ => a == b,
            }
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, new)| {
                    let known =
                        inside(schema, key).filter(|(s, _)| !s.is_anything() || schema.properties.contains_key(key));
                    known.zip(b.get(key)).is_some_and(|((schema, _), old)| unchanged(new, old, schema))
                })
        }
        _ => new == old,
    }
}
