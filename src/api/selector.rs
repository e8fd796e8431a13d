//! Decides: label and field selectors, as `labelSelector=` and `fieldSelector=` write them.

use std::fmt;

/// One requirement on one label key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
    /// `key>n`, `key<n`: both sides integers.
    GreaterThan(String, i64),
    LessThan(String, i64),
}

/// All requirements must hold. No requirement selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(pub Vec<Requirement>);

/// `field=value` and `field!=value` terms; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<FieldTerm>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

impl LabelSelector {
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// `get` returns the value of a label, if the object has it.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => get(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::DoesNotExist(key) => get(key).is_none(),
            Requirement::GreaterThan(key, n) => get(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
            Requirement::LessThan(key, n) => get(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
        })
    }
}

impl FieldSelector {
    /// # Errors
    /// When a term has no operator.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut terms = Vec::new();
        for term in text.split(',').filter(|t| !t.is_empty()) {
            let parsed = if let Some((field, value)) = term.split_once("!=") {
                FieldTerm { field: field.into(), equal: false, value: value.into() }
            } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                FieldTerm { field: field.into(), equal: true, value: value.into() }
            } else {
                return Err(ParseError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            terms.push(parsed);
        }
        Ok(Self(terms))
    }

    /// `get` returns the value of a field, empty when the object has none.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|t| (get(&t.field).unwrap_or_default() == t.value) == t.equal)
    }

    /// The value that `field` must equal, if a term says so: lets a list go straight to one object.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, t) in self.0.iter().enumerate() {
            let (comma, op) = (if i == 0 { "" } else { "," }, if t.equal { "=" } else { "!=" });
            write!(f, "{comma}{}{op}{}", t.field, t.value)?;
        }
        Ok(())
    }
}
