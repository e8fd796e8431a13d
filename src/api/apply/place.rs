//! Decides: how server-side apply sees a value: as one, as fields, or as items that have names
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy>).

use std::borrow::Cow;

use serde_json::Value;

use super::set::{self, Element};
use crate::api::schema::structural::{self, Structural};
use crate::api::schema::{self, Field, Item, ListType, Shape, Type, Wrap};

/// What the schema knows of a value.
#[derive(Clone, Copy, Debug)]
pub enum Place<'s> {
    /// In the schema table.
    Table(Known),
    /// In the schema of a custom resource; `true` where an object has `apiVersion`, `kind` and `metadata`.
    Custom(&'s Structural, bool),
}

/// What the schema table knows of a value.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    shape: Shape,
    list: ListType,
    atomic: bool,
}

/// How a value is merged and owned.
#[derive(Clone, Copy, Debug)]
pub enum View<'s> {
    /// A scalar, or something that is owned as if it were one.
    Leaf,
    /// A list of scalars that are there or not.
    Set,
    /// A list of objects with names.
    Keyed(Keys<'s>),
    /// An object with the fields of its type.
    Struct(&'static Type),
    /// The same of a custom resource, as in [`Place::Custom`].
    Object(&'s Structural, bool),
    /// An object with any fields.
    Map(Place<'s>),
}

/// What names an item of a list.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'s> {
    names: Names<'s>,
    pub item: Place<'s>,
}

#[derive(Clone, Copy, Debug)]
enum Names<'s> {
    Table(&'static [&'static str]),
    Custom(&'s [String]),
}

/// What a value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Any,
    List,
    Map,
    Number,
    Bool,
    String,
    /// What writes itself in its own way.
    Scalar,
}

impl From<&'static Type> for Place<'_> {
    fn from(schema: &'static Type) -> Self {
        Self::bare(Shape { wrap: Wrap::One, item: Item::Object(schema) })
    }
}

impl From<&'static Field> for Place<'_> {
    fn from(field: &'static Field) -> Self {
        Self::Table(Known { shape: field.shape, list: field.list, atomic: field.atomic })
    }
}

impl<'s> Place<'s> {
    /// Where the schema says nothing: objects have free names, lists are owned as one.
    const ANY: Self = Self::bare(Shape { wrap: Wrap::One, item: Item::Any });

    const fn bare(shape: Shape) -> Self {
        Self::Table(Known { shape, list: ListType::Unset, atomic: false })
    }

    /// A whole object of a custom resource.
    #[must_use]
    pub fn object(schema: &'s Structural) -> Self {
        Self::Custom(schema, true)
    }

    fn custom(schema: &'s Structural) -> Self {
        Self::Custom(schema, schema.embedded)
    }

    /// What a list or a map holds.
    #[must_use]
    pub fn element(self) -> Self {
        match self {
            Self::Table(known) => Self::bare(known.shape.element()),
            Self::Custom(schema, _) => {
                let inside = schema.items.as_deref().or(schema.additional.as_deref());
                inside.map_or(Self::ANY, Self::custom)
            }
        }
    }

    /// How a value is seen here. The value matters where the schema allows any.
    #[must_use]
    pub fn view(self, value: &Value) -> View<'s> {
        match self {
            Self::Table(known) => known.view(value),
            Self::Custom(schema, whole) => match (schema.kind, &schema.list) {
                (structural::Kind::Object, _) if schema.atomic => View::Leaf,
                (structural::Kind::Object, _) => self.names().unwrap_or(View::Object(schema, whole)),
                (structural::Kind::Array, structural::ListType::Map(names)) => {
                    View::Keyed(Keys { names: Names::Custom(names), item: self.element() })
                }
                (structural::Kind::Array, structural::ListType::Set) => View::Set,
                (structural::Kind::Any, _) => Self::ANY.view(value),
                _ => View::Leaf,
            },
        }
    }

    /// An object whose names are free.
    fn names(self) -> Option<View<'s>> {
        match self {
            Self::Custom(schema, false) if schema.properties.is_empty() && schema.additional.is_some() => {
                Some(View::Map(self.element()))
            }
            _ => None,
        }
    }

    /// The fields of an object, however it is owned.
    #[must_use]
    pub fn fields(self) -> View<'s> {
        match self {
            Self::Table(Known { shape: Shape { wrap: Wrap::One, item: Item::Object(t) }, .. }) => View::Struct(t),
            Self::Custom(schema, whole) if schema.kind == structural::Kind::Object => {
                self.names().unwrap_or(View::Object(schema, whole))
            }
            _ => View::Map(self.element()),
        }
    }

    /// The place of a field of an object that is seen in this way.
    #[must_use]
    pub fn field(view: View<'s>, name: &str) -> Option<Self> {
        match view {
            View::Struct(t) => t.field(name).map(Self::from),
            View::Map(element) => Some(element),
            View::Object(schema, whole) => {
                if let (true, Some(known)) = (whole, envelope(name)) {
                    return Some(known);
                }
                let property = schema.properties.get(name).or(schema.additional.as_deref());
                property.map(Self::custom).or(schema.preserves_unknown.then_some(Self::ANY))
            }
            _ => None,
        }
    }

    /// What a value has to be here; `null` and what [`Expected::Any`] allows apart.
    #[must_use]
    pub fn expected(self) -> Expected {
        match self {
            Self::Table(known) => match (known.shape.wrap, known.shape.item) {
                (Wrap::List, _) => Expected::List,
                (Wrap::Map | Wrap::MapOfLists, _) | (Wrap::One, Item::Object(_)) => Expected::Map,
                (Wrap::One, Item::Any | Item::Json | Item::Either(..)) => Expected::Any,
                (Wrap::One, Item::Int32 | Item::Int64 | Item::Double) => Expected::Number,
                (Wrap::One, Item::Bool) => Expected::Bool,
                (Wrap::One, Item::String | Item::Bytes) => Expected::String,
                (Wrap::One, Item::Time | Item::MicroTime | Item::Quantity | Item::IntOrString) => Expected::Scalar,
            },
            Self::Custom(schema, _) => match schema.kind {
                structural::Kind::Any => Expected::Any,
                structural::Kind::Object => Expected::Map,
                structural::Kind::Array => Expected::List,
                structural::Kind::Integer | structural::Kind::Number => Expected::Number,
                structural::Kind::Boolean => Expected::Bool,
                structural::Kind::String => Expected::String,
                structural::Kind::IntOrString => Expected::Scalar,
            },
        }
    }
}

/// What every whole object has.
fn envelope(name: &str) -> Option<Place<'static>> {
    match name {
        "apiVersion" | "kind" => Some(Place::bare(Shape { wrap: Wrap::One, item: Item::String })),
        "metadata" => schema::named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").map(Place::from),
        _ => None,
    }
}

impl Known {
    fn view<'s>(self, value: &Value) -> View<'s> {
        let element = || Place::Table(self).element();
        match (self.shape.wrap, self.shape.item) {
            _ if self.atomic => View::Leaf,
            (Wrap::One, Item::Object(t)) if t.atomic => View::Leaf,
            (Wrap::One, Item::Object(t)) => View::Struct(t),
            (Wrap::One, Item::Any | Item::Json | Item::Either(..)) if value.is_object() => {
                View::Map(Place::Table(self))
            }
            (Wrap::One, _) => View::Leaf,
            (Wrap::List, _) => match self.list {
                ListType::Map(names) => View::Keyed(Keys { names: Names::Table(names), item: element() }),
                ListType::Set => View::Set,
                ListType::Atomic | ListType::Unset => View::Leaf,
            },
            (Wrap::Map | Wrap::MapOfLists, _) => View::Map(element()),
        }
    }
}

impl View<'_> {
    /// Whether a field that has a place here is one that the schema names, and not whatever the object calls it.
    #[must_use]
    pub fn names(self, field: &str) -> bool {
        match self {
            Self::Struct(_) => true,
            Self::Object(schema, whole) => {
                schema.properties.contains_key(field) || (whole && matches!(field, "apiVersion" | "kind" | "metadata"))
            }
            _ => false,
        }
    }

    /// The element of an item of a list, and the place of the item.
    ///
    /// # Errors
    /// Says what keeps the item from having a name.
    pub fn element(self, item: &Value) -> Result<Element, String> {
        match self {
            Self::Keyed(keys) => keys.element(item),
            _ => match item {
                Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
                Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                scalar => Ok(set::value(scalar)),
            },
        }
    }
}

impl<'s> Keys<'s> {
    fn element<'i>(self, item: &'i Value) -> Result<Element, String>
    where
        's: 'i,
    {
        let object = match item {
            Value::Object(object) => object,
            Value::Null => return Err("associative list with keys may not have a null element".into()),
            _ => return Err("associative list with keys may not have non-map elements".into()),
        };
        let key = |name: &'i str| match object.get(name) {
            Some(value) => Ok((name, Cow::Borrowed(value))),
            None => self.default(name).map(|value| (name, Cow::Owned(value))).ok_or_else(|| {
                format!(
                    "associative list with keys has an element that omits key field {name:?} (and doesn't have \
                     default value)"
                )
            }),
        };
        let keys: Result<Vec<_>, _> = match self.names {
            Names::Table(names) => names.iter().map(|name| key(name)).collect(),
            Names::Custom(names) => names.iter().map(|name| key(name)).collect(),
        };
        Ok(set::key(keys?.into_iter()))
    }

    fn default(self, name: &str) -> Option<Value> {
        match self.item {
            Place::Table(known) => serde_json::from_str(known.shape.object()?.field(name)?.default).ok(),
            Place::Custom(schema, _) => schema.properties.get(name)?.default.clone(),
        }
    }
}
