//! Types: quotas of namespaces, as they were measured.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::quantity::Quantity;

/// Amounts by the name of the resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// A quota as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The limits of its spec.
    pub hard: Amounts,
    /// What is used of those that anything can use.
    pub used: Amounts,
    /// When less will be used although nothing changes.
    pub until: Option<Timestamp>,
}

type Ask = dyn Fn(&str, &str) -> Option<Measured> + Send + Sync;

/// Measures the quota of a namespace and name.
#[derive(Clone)]
pub struct Measure(Arc<Ask>);

impl Measure {
    pub fn new(ask: impl Fn(&str, &str) -> Option<Measured> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// `None` when there is no such quota.
    #[must_use]
    pub fn quota(&self, namespace: &str, name: &str) -> Option<Measured> {
        (self.0)(namespace, name)
    }
}

impl fmt::Debug for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Measure")
    }
}
