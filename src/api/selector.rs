//! Decides: label and field selectors, as `labelSelector=` and `fieldSelector=` write them.

mod parse;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

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
    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`.
    ///
    /// # Errors
    /// What upstream says about the same text.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::selector(text)
    }

    /// From the selector in an object. An empty one selects everything; what an absent one means is up to the field.
    ///
    /// # Errors
    /// When an expression has an unknown operator or the wrong number of values.
    pub fn from_meta(selector: &meta::LabelSelector) -> Result<Self, ParseError> {
        let mut all = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            all.push(parse::requirement(key, "=", vec![value.clone()])?);
        }
        for e in selector.match_expressions.iter().flatten() {
            let operator = match e.operator.as_str() {
                "In" => "in",
                "NotIn" => "notin",
                "Exists" => "exists",
                "DoesNotExist" => "!",
                other => return Err(ParseError(format!("{other:?} is not a valid label selector operator"))),
            };
            all.push(parse::requirement(&e.key, operator, e.values.clone().unwrap_or_default())?);
        }
        all.sort_by(|a, b| a.key().cmp(b.key()));
        Ok(Self(all))
    }

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

impl Requirement {
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::In(key, _) | Self::NotIn(key, _) | Self::Exists(key) | Self::DoesNotExist(key) => key,
            Self::GreaterThan(key, _) | Self::LessThan(key, _) => key,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(key, values) if values.len() == 1 => write!(f, "{key}={}", values[0]),
            Self::In(key, values) => write!(f, "{key} in ({})", values.join(",")),
            Self::NotIn(key, values) if values.len() == 1 => write!(f, "{key}!={}", values[0]),
            Self::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(",")),
            Self::Exists(key) => f.write_str(key),
            Self::DoesNotExist(key) => write!(f, "!{key}"),
            Self::GreaterThan(key, n) => write!(f, "{key}>{n}"),
            Self::LessThan(key, n) => write!(f, "{key}<{n}"),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.iter().enumerate() {
            write!(f, "{}{requirement}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[Requirement]) {
        assert_eq!(LabelSelector::parse(text).expect(text).0, expect, "{text}");
    }

    #[test]
    fn label_selectors_read_as_upstream() {
        let one = |v: &str| vec![v.to_owned()];
        check("", &[]);
        check("a=b, c!=d", &[Requirement::In("a".into(), one("b")), Requirement::NotIn("c".into(), one("d"))]);
        check(
            "a==b,!c,x.io/d",
            &[
                Requirement::In("a".into(), one("b")),
                Requirement::DoesNotExist("c".into()),
                Requirement::Exists("x.io/d".into()),
            ],
        );
        check(
            "e in (f, g),h notin(i)",
            &[Requirement::In("e".into(), vec!["f".into(), "g".into()]), Requirement::NotIn("h".into(), one("i"))],
        );
        check(
            "a=,n>3,n<5",
            &[
                Requirement::In("a".into(), one("")),
                Requirement::GreaterThan("n".into(), 3),
                Requirement::LessThan("n".into(), 5),
            ],
        );
        for bad in ["a=b,", "=b", "a in b", "a in (b", "a=b c", "-a", "a=b/c", "n>x"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }
}
