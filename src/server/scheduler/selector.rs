//! Decides: what a label selector selects, for pods and namespaces.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub type Labels = BTreeMap<String, String>;

/// A selector read once and asked often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// All must hold; none is everything.
    requirements: Vec<Requirement>,
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
}

impl Selector {
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// As `LabelSelectorAsSelector`: none selects nothing, an empty one everything.
    #[must_use]
    pub fn new(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self::nothing() };
        let mut made = Self::exact(selector.match_labels.iter().flatten());
        for e in selector.match_expressions.iter().flatten() {
            let (key, values) = (e.key.clone(), e.values.clone().unwrap_or_default());
            made.requirements.push(match e.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                // The API lets no other operator in.
                _ => return Self::nothing(),
            });
        }
        made
    }

    /// Every label as given.
    pub fn exact<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let one = |(k, v): (&String, &String)| Requirement::In(k.clone(), vec![v.clone()]);
        Self { requirements: labels.into_iter().map(one).collect(), nothing: false }
    }

    /// Selects what both select.
    pub fn and(&mut self, other: Self) {
        self.nothing |= other.nothing;
        self.requirements.extend(other.requirements);
    }

    /// Asks nothing of anyone, so that it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.nothing
            && self.requirements.iter().all(|r| match r {
                Requirement::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
                Requirement::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
                Requirement::Exists(key) => labels.contains_key(key),
                Requirement::DoesNotExist(key) => !labels.contains_key(key),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_selected() {
        let labels: Labels = [("app".to_owned(), "a".to_owned())].into();
        let check = |selector: Value, want: bool| {
            let selector: Option<LabelSelector> = serde_json::from_value(selector).unwrap();
            assert_eq!(Selector::new(selector.as_ref()).matches(&labels), want, "{selector:?}");
        };
        let expression = |operator: &str, key: &str, values: Value| json!({ "matchExpressions": [{ "operator": operator, "key": key, "values": values }] });
        check(Value::Null, false);
        check(json!({}), true);
        check(json!({ "matchLabels": { "app": "a" } }), true);
        check(json!({ "matchLabels": { "app": "b" } }), false);
        check(expression("In", "app", json!(["b", "a"])), true);
        check(expression("In", "x", json!(["a"])), false);
        check(expression("NotIn", "app", json!(["a"])), false);
        check(expression("NotIn", "x", json!(["a"])), true);
        check(expression("Exists", "app", json!(null)), true);
        check(expression("DoesNotExist", "app", json!(null)), false);
        check(expression("Unheard", "app", json!(null)), false);
    }
}
