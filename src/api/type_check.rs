//! Types: what is wrong with the expressions of a policy for the kinds that it is about, asked of the server, which knows
//! the schemas.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{ExpressionWarning, ValidatingAdmissionPolicySpec};

type Ask = dyn Fn(&ValidatingAdmissionPolicySpec) -> Vec<ExpressionWarning> + Send + Sync;

/// Checks the types of expressions.
#[derive(Clone)]
pub struct TypeCheck(Arc<Ask>);

impl TypeCheck {
    pub fn new(ask: impl Fn(&ValidatingAdmissionPolicySpec) -> Vec<ExpressionWarning> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// One warning for each expression that does not fit at least one of the kinds.
    #[must_use]
    pub fn warnings(&self, policy: &ValidatingAdmissionPolicySpec) -> Vec<ExpressionWarning> {
        (self.0)(policy)
    }
}

impl fmt::Debug for TypeCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypeCheck")
    }
}
