//! Decides: how server-side apply sees a value: as one, as fields, or as items that have names
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy>).

use serde_json::{Map, Value};

use super::set::{self, Element};
use crate::api::schema::{Field, Item, ListType, Shape, Type, Wrap};

/// What the schema knows of a value.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub shape: Shape,
    list: ListType,
    atomic: bool,
}

/// How a value is merged and owned.
#[derive(Clone, Copy, Debug)]
pub enum View {
    /// A scalar, or something that is owned as if it were one.
    Leaf,
    /// A list of scalars that are there or not.
    Set,
    /// A list of objects with names.
    Keyed(Keys),
    /// An object with the fields of its type.
    Struct(&'static Type),
    /// An object with any fields.
    Map(Place),
}

/// What names an item of a list.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    pub names: &'static [&'static str],
    pub item: Place,
}

impl From<&'static Type> for Place {
    fn from(schema: &'static Type) -> Self {
        Self::bare(Shape { wrap: Wrap::One, item: Item::Object(schema) })
    }
}

impl From<&'static Field> for Place {
    fn from(field: &'static Field) -> Self {
        Self { shape: field.shape, list: field.list, atomic: field.atomic }
    }
}

impl Place {
    fn bare(shape: Shape) -> Self {
        Self { shape, list: ListType::Unset, atomic: false }
    }

    /// What a list or a map holds.
    #[must_use]
    pub fn element(self) -> Self {
        Self::bare(self.shape.element())
    }

    /// How a value is seen here. The value matters where the schema allows any.
    #[must_use]
    pub fn view(self, value: &Value) -> View {
        match (self.shape.wrap, self.shape.item) {
            _ if self.atomic => View::Leaf,
            (Wrap::One, Item::Object(t)) if t.atomic => View::Leaf,
            (Wrap::One, Item::Object(t)) => View::Struct(t),
            (Wrap::One, Item::Any) if value.is_object() => View::Map(self),
            (Wrap::One, _) => View::Leaf,
            (Wrap::List, _) => match self.list {
                ListType::Map(names) => View::Keyed(Keys { names, item: self.element() }),
                ListType::Set => View::Set,
                ListType::Atomic | ListType::Unset => View::Leaf,
            },
            (Wrap::Map | Wrap::MapOfLists, _) => View::Map(self.element()),
        }
    }

    /// The place of a field of an object that is seen in this way.
    #[must_use]
    pub fn field(view: View, name: &str) -> Option<Self> {
        match view {
            View::Struct(t) => t.field(name).map(Self::from),
            View::Map(element) => Some(element),
            _ => None,
        }
    }
}

impl View {
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

impl Keys {
    fn element(self, item: &Value) -> Result<Element, String> {
        let object = match item {
            Value::Object(object) => object,
            Value::Null => return Err("associative list with keys may not have a null element".into()),
            _ => return Err("associative list with keys may not have non-map elements".into()),
        };
        let mut keys = Map::new();
        for name in self.names {
            let value = match object.get(*name) {
                Some(value) => value.clone(),
                None => self.default(name).ok_or_else(|| {
                    format!(
                        "associative list with keys has an element that omits key field {name:?} (and doesn't have \
                         default value)"
                    )
                })?,
            };
            keys.insert((*name).to_owned(), value);
        }
        Ok(set::key(keys))
    }

    fn default(self, name: &str) -> Option<Value> {
        let field = self.item.shape.object()?.field(name)?;
        serde_json::from_str(field.default).ok()
    }
}
