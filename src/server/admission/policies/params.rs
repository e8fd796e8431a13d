//! Decides: the objects that a binding gives to its policy as `params` (`CollectParams` of upstream's `policy/generic`): a
//! policy is asked once with each.

use serde_json::Value;

use super::config::{Binding, Policy};
use crate::api::object::ObjectRef;
use crate::api::selector::LabelSelector;
use crate::server::objects::Objects;

/// One null when there are no parameters; nothing at all when none were found, and that is no reason to deny.
///
/// # Errors
/// What is wrong with the reference; that nothing was found, where the binding says that this is an error.
pub fn of(policy: &Policy, binding: &Binding, namespace: &str, objects: &dyn Objects) -> Result<Vec<Value>, String> {
    let (Some(Ok(row)), Some(reference)) = (&policy.params, &binding.params) else { return Ok(vec![Value::Null]) };
    let named = reference.namespace.as_deref().unwrap_or_default();
    let namespace = match (row.namespaced, named.is_empty(), namespace.is_empty()) {
        (false, true, _) => "",
        (false, false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
        }
        (true, false, _) => named,
        (true, true, false) => namespace,
        (true, true, true) => {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.into());
        }
    };
    let found: Vec<ObjectRef> = match (reference.name.as_deref().filter(|n| !n.is_empty()), &reference.selector) {
        (Some(_), Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".into()),
        (Some(name), None) => objects.get(row.storage, namespace, name).into_iter().collect(),
        (None, Some(selector)) => {
            let selector = LabelSelector::from_meta(selector).map_err(|e| e.to_string())?;
            let within = Some(namespace).filter(|_| row.namespaced);
            let all = objects.list(row.storage, within).into_iter();
            all.filter(|o| selector.matches(|key| o.label(key))).collect()
        }
        (None, None) => return Err("one of name or selector must be provided".into()),
    };
    if found.is_empty() && reference.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found.iter().filter_map(|o| o.value().ok()).collect())
}
