//! Types: a structural schema, as a version of a custom resource has it: `openAPIV3Schema` of a
//! `CustomResourceDefinition` (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>),
//! taken apart once. What prunes, fills in defaults, validates, merges and evaluates rules walks this tree beside
//! the value.

use std::collections::BTreeMap;

use serde_json::Value;

use super::format::Format;
use super::pattern::Pattern;

/// The schema of one value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Structural {
    pub kind: Kind,
    pub nullable: bool,
    /// `default`, for an object that does not have the field.
    pub default: Option<Value>,
    /// `properties`, by name.
    pub properties: BTreeMap<String, Structural>,
    /// `additionalProperties` of a map; `true` and `false` are [`Structural::anything`].
    pub additional: Option<Box<Structural>>,
    /// `items` of a list.
    pub items: Option<Box<Structural>>,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserves_unknown: bool,
    /// `x-kubernetes-embedded-resource`: has `apiVersion`, `kind` and `metadata` of its own.
    pub embedded: bool,
    /// `x-kubernetes-list-type` and `-list-map-keys`
    pub list: ListType,
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
    /// `x-kubernetes-validations`, in order.
    pub rules: Vec<Rule>,
    /// What a value must be beyond its type; `None` when the schema says nothing of that.
    pub limits: Option<Box<Limits>>,
}

impl Structural {
    /// `additionalProperties: true`. A schema of the user's is never of [`Kind::Any`] without preserving unknown fields.
    #[must_use]
    pub fn anything() -> Self {
        Self { nullable: true, ..Self::default() }
    }

    /// Whether this is [`Self::anything`], which upstream knows as the absence of a schema.
    #[must_use]
    pub fn is_anything(&self) -> bool {
        self.kind == Kind::Any && !self.preserves_unknown
    }
}

/// `type`, or `x-kubernetes-int-or-string`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// No type: only with `x-kubernetes-preserve-unknown-fields`, or under `additionalProperties: true`.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// With the fields that name an item.
    Map(Vec<String>),
}

/// The validation keywords of OpenAPI. Those of `allOf`, `anyOf`, `oneOf` and `not` have no shape of their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// As it is written, known or not.
    pub format: String,
    /// `format`, when values of the type are held to it.
    pub checked: Option<Format>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<u64>,
    pub min_length: Option<u64>,
    pub pattern: String,
    /// `pattern`, ready to match.
    pub regex: Option<Pattern>,
    pub max_items: Option<u64>,
    pub min_items: Option<u64>,
    pub unique_items: bool,
    /// `additionalProperties: false`: no fields but `properties`.
    pub closed: bool,
    pub max_properties: Option<u64>,
    pub min_properties: Option<u64>,
    pub required: Vec<String>,
    pub enumeration: Vec<Value>,
    pub all_of: Vec<Structural>,
    pub any_of: Vec<Structural>,
    pub one_of: Vec<Structural>,
    pub not: Option<Box<Structural>>,
}

/// One of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// CEL.
    pub rule: String,
    pub message: String,
    /// CEL that makes the message.
    pub message_expression: String,
    /// A cause: `FieldValueInvalid`, `FieldValueForbidden`, `FieldValueRequired` or `FieldValueDuplicate`; empty for the first.
    pub reason: String,
    /// Where the error is, from where the rule stands: `.spec.replicas`, `['a.b']`.
    pub field_path: String,
    /// Also evaluated where there is no old value, which is then `optional.none()`.
    pub optional_old_self: bool,
}
