//! Types: what the checker knows of an expression, and what a schema declares of a value.

use std::fmt;
use std::sync::Arc;

/// The type of an expression.
#[derive(Clone, Debug)]
pub enum Type {
    /// Of an expression that has been reported already: goes with everything.
    Error,
    /// Known at run time only.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<ListType>),
    Map(Arc<MapType>),
    Object(Arc<ObjectType>),
    Optional(Arc<Type>),
    /// The type of a type.
    Type,
    /// A type with functions only, such as `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A variable of the checker.
    Param(u32),
}

/// A type with what a schema says of the size of its values.
#[derive(Clone, Debug)]
pub struct Decl {
    pub ty: Type,
    /// The most characters, bytes, items or entries; 0 for what has no size, the largest number for what has no limit.
    pub max: u64,
    /// Null is a value of it.
    pub nullable: bool,
}

#[derive(Clone, Debug)]
pub struct ListType {
    pub element: Decl,
    pub kind: ListKind,
}

/// What `==` and `+` mean for a list (`x-kubernetes-list-type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    #[default]
    Atomic,
    /// Order does not count; `+` is the union.
    Set,
    /// Items are found by these fields; `+` replaces and appends.
    Map(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct MapType {
    pub key: Type,
    pub value: Decl,
}

/// An object with known fields.
#[derive(Clone, Debug, Default)]
pub struct ObjectType {
    /// As messages show it.
    pub name: String,
    /// In the order of their names.
    pub fields: Vec<Field>,
    /// Any other field is there too, and dynamic: `Object` of mutating policies.
    pub open: bool,
}

#[derive(Clone, Debug)]
pub struct Field {
    /// As expressions say it: [`escape`](super::schema::escape)d.
    pub name: Box<str>,
    /// As JSON has it.
    pub json: Box<str>,
    pub decl: Decl,
}

impl Decl {
    /// A declaration that says nothing of sizes.
    #[must_use]
    pub fn of(ty: Type) -> Self {
        let sized = matches!(ty, Type::Dyn | Type::String | Type::Bytes | Type::List(_) | Type::Map(_));
        Self { ty, max: if sized { u64::MAX } else { 0 }, nullable: false }
    }
}

impl ObjectType {
    /// An object of the given fields, in any order.
    #[must_use]
    pub fn new(name: &str, mut fields: Vec<Field>) -> Self {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Self { name: name.to_owned(), fields, open: false }
    }

    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|index| &self.fields[index])
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.fields.binary_search_by(|f| (*f.name).cmp(name)).ok()
    }

    /// The field of that JSON name. Names that need no escape are found at once.
    pub(super) fn by_json(&self, json: &str) -> Option<&Field> {
        match self.field(json) {
            Some(field) if *field.json == *json => Some(field),
            _ => self.fields.iter().find(|f| *f.json == *json),
        }
    }
}

impl Field {
    #[must_use]
    pub fn new(name: &str, ty: Type) -> Self {
        Self { name: name.into(), json: name.into(), decl: Decl::of(ty) }
    }
}

impl Type {
    #[must_use]
    pub fn list(element: Self) -> Self {
        Self::List(Arc::new(ListType { element: Decl::of(element), kind: ListKind::Atomic }))
    }

    #[must_use]
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new(MapType { key, value: Decl::of(value) }))
    }

    #[must_use]
    pub fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    #[must_use]
    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// The very same type; lists and maps by what they hold.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b)) => a.element.ty.same(&b.element.ty),
            (Self::Map(a), Self::Map(b)) => a.key.same(&b.key) && a.value.ty.same(&b.value.ty),
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b) || a.name == b.name,
            (Self::Optional(a), Self::Optional(b)) => a.same(b),
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Param(a), Self::Param(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other) && !self.has_parts(),
        }
    }

    fn has_parts(&self) -> bool {
        matches!(
            self,
            Self::List(_) | Self::Map(_) | Self::Object(_) | Self::Optional(_) | Self::Opaque(_) | Self::Param(_)
        )
    }

    /// What `type(x)` says of a value of this type.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Error => "*error*",
            Self::Dyn | Self::Param(_) => "dyn",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Object(object) => &object.name,
            Self::Optional(_) => "optional_type",
            Self::Type => "type",
            Self::Opaque(name) => name,
        }
    }
}

/// As the checker's messages show types (`FormatCELType` of cel-go).
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(list) => write!(f, "list({})", list.element.ty),
            Self::Map(map) => write!(f, "map({}, {})", map.key, map.value.ty),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            other => f.write_str(other.name()),
        }
    }
}
