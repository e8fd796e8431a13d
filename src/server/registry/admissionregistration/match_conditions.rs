//! Decides: `matchConditions`: CEL that further narrows what a policy or a webhook is about.

use k8s_openapi::api::admissionregistration::v1::MatchCondition;

use super::expression::{self, Expression, Returns};
use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid};

const MAX: usize = 64;

/// `params` when the policy has parameters.
pub fn check(errors: &mut Errors, path: &Path, conditions: Option<&Vec<MatchCondition>>, params: bool) {
    let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
    if conditions.len() > MAX {
        errors.push(FieldError::too_many(path, conditions.len(), MAX));
    }
    for (i, condition) in conditions.iter().enumerate() {
        let at = path.index(i);
        let text = condition.expression.trim();
        if text.is_empty() {
            errors.push(FieldError::required(&at.child("expression"), ""));
        } else {
            let (path, variables) = (at.child("expression"), Vec::new());
            let one = Expression { text, path, returns: Returns::Bool, params, authorizer: true, variables };
            errors.extend(expression::compile(&one));
        }
        let (at, name) = (at.child("name"), &condition.name);
        if name.is_empty() {
            errors.push(FieldError::required(&at, ""));
            continue;
        }
        invalid(errors, &at, name, format::qualified_name(name));
        if conditions[..i].iter().any(|c| c.name == *name) {
            errors.push(FieldError::duplicate(&at, name));
        }
    }
}
