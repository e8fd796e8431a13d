//! Types: the shape of the schema table. Everything is `const`, so that the table is static data: nothing is built
//! at start and nothing lives on the heap.

use serde_json::Value;

/// One structured type.
#[derive(Debug)]
pub struct Type {
    /// Its OpenAPI name: `io.k8s.api.core.v1.PodSpec`.
    pub name: &'static str,
    /// `(group, version, kind)` of a type that is a whole object.
    pub gvk: Option<(&'static str, &'static str, &'static str)>,
    /// `x-kubernetes-map-type: atomic`: server-side apply owns it as one.
    pub atomic: bool,
    /// Sorted by name.
    pub fields: &'static [Field],
}

/// One field of a type.
#[derive(Debug)]
pub struct Field {
    /// Its JSON name.
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
    /// How server-side apply merges a list.
    pub list: ListType,
    /// `x-kubernetes-map-type: atomic` on the field itself.
    pub atomic: bool,
    /// Patch strategy `merge`: a strategic patch merges this list instead of replacing it.
    pub merge: bool,
    /// Patch strategy `retainKeys`.
    pub retain_keys: bool,
    /// The field that identifies an element of a merged list of objects. Empty for lists of scalars.
    pub merge_key: &'static str,
    /// Its number in protobuf; 0 when it has none there (`kind` and `apiVersion` of whole objects).
    pub number: u16,
    /// The numbers of the embedded structs that hold it in protobuf, the outermost first, where JSON has the fields of
    /// all in one object.
    pub inside: &'static [u16],
    /// JSON leaves out a zero, an empty list or map (Go's `omitempty` on what is no pointer).
    pub omits_zero: bool,
    /// A Go struct has the field even when it is zero: a struct, or a field without `omitempty`.
    pub always: bool,
    /// A pointer in Go: not there is not the same as zero.
    pub pointer: bool,
    /// JSON of the default, empty for none.
    pub default: &'static str,
    /// The texts that Go's type of the field, or of its items, has constants for; empty when it is any text.
    pub values: &'static [&'static str],
}

impl Field {
    /// Whether an object has this value by not having the field.
    #[must_use]
    pub fn omits(&self, value: &Value) -> bool {
        self.omits_zero
            && match value {
                Value::Bool(b) => !b,
                Value::Number(n) => n.as_f64() == Some(0.0),
                Value::String(s) => s.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                Value::Null => false,
            }
    }
}

/// What a field holds: an item, or a list or map of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub wrap: Wrap,
    pub item: Item,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    One,
    List,
    Map,
    MapOfLists,
}

#[derive(Clone, Copy, Debug)]
pub enum Item {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 text.
    Bytes,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    Quantity,
    IntOrString,
    /// Any JSON: `FieldsV1`, `RawExtension`, which OpenAPI takes for objects.
    Any,
    /// Any JSON: `apiextensions.v1.JSON`, of which OpenAPI says nothing.
    Json,
    /// An object of the type, or something else in its place. Server-side apply sees it as [`Item::Any`], because
    /// OpenAPI has no word for it.
    Either(&'static Type, Other),
    Object(&'static Type),
}

/// What may stand where a JSON schema has another one: `apiextensions.v1.JSONSchemaPropsOr…`. In protobuf it is a
/// message with a number for each of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// `items`: several schemas.
    Array,
    /// `additionalProperties`, `additionalItems`
    Bool,
    /// `dependencies`: names.
    Strings,
}

impl Other {
    /// The number of the schema in protobuf, and that of what stands in its place.
    #[must_use]
    pub fn numbers(self) -> (u16, u16) {
        match self {
            Self::Array | Self::Strings => (1, 2),
            Self::Bool => (2, 1),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Not a list, or a list that OpenAPI says nothing of (server-side apply takes it as atomic).
    Unset,
    Atomic,
    Set,
    Map(&'static [&'static str]),
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(a), Self::Object(b)) => a.name == b.name,
            (Self::Either(a, x), Self::Either(b, y)) => a.name == b.name && x == y,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Eq for Item {}

impl Type {
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.binary_search_by(|f| f.name.cmp(name)).ok().map(|i| &self.fields[i])
    }

    /// The field of a protobuf number, in the type itself or in one of its embedded structs.
    #[must_use]
    pub fn numbered(&self, inside: &[u16], number: u16) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.number != 0 && f.number == number && f.inside == inside)
    }

    /// The embedded struct that has this number in the type itself or in one of its embedded structs.
    #[must_use]
    pub fn embedded(&self, inside: &[u16], number: u16) -> Option<&'static [u16]> {
        let depth = inside.len();
        let holds = |f: &&Field| f.inside.starts_with(inside) && f.inside.get(depth) == Some(&number);
        self.fields.iter().find(holds).map(|f| &f.inside[..=depth])
    }

    /// The last part of the name: `PodSpec`.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// As Go prints the type in an error: `v1.PodSpec`.
    #[must_use]
    pub fn go_name(&self) -> &'static str {
        let mut dots = self.name.rmatch_indices('.').map(|(i, _)| i).skip(1);
        dots.next().map_or(self.name, |i| &self.name[i + 1..])
    }
}

impl Shape {
    /// What a list or a map holds.
    #[must_use]
    pub fn element(self) -> Self {
        let wrap = if self.wrap == Wrap::MapOfLists { Wrap::List } else { Wrap::One };
        Self { wrap, item: self.item }
    }

    /// The structured type behind it, however wrapped.
    #[must_use]
    pub fn object(self) -> Option<&'static Type> {
        if let Item::Object(t) = self.item { Some(t) } else { None }
    }

    /// As Go prints the type in an error: `int32`, `[]v1.Container`, `map[string]string`.
    #[must_use]
    pub fn go_name(self) -> String {
        let item = match self.item {
            Item::String => "string",
            Item::Bool => "bool",
            Item::Int32 => "int32",
            Item::Int64 => "int64",
            Item::Double => "float64",
            Item::Bytes => "[]uint8",
            Item::Time => "v1.Time",
            Item::MicroTime => "v1.MicroTime",
            Item::Quantity => "resource.Quantity",
            Item::IntOrString => "intstr.IntOrString",
            Item::Any => "runtime.RawExtension",
            Item::Json => "v1.JSON",
            Item::Either(_, Other::Array) => "v1.JSONSchemaPropsOrArray",
            Item::Either(_, Other::Bool) => "v1.JSONSchemaPropsOrBool",
            Item::Either(_, Other::Strings) => "v1.JSONSchemaPropsOrStringArray",
            Item::Object(t) => t.go_name(),
        };
        let wrap = match self.wrap {
            Wrap::One => "",
            Wrap::List => "[]",
            Wrap::Map => "map[string]",
            Wrap::MapOfLists => "map[string][]",
        };
        format!("{wrap}{item}")
    }
}

// What the generated table is written in.

pub(super) const STRING: Shape = item(Item::String);
pub(super) const BOOL: Shape = item(Item::Bool);
pub(super) const INT32: Shape = item(Item::Int32);
pub(super) const INT64: Shape = item(Item::Int64);
pub(super) const DOUBLE: Shape = item(Item::Double);
pub(super) const BYTES: Shape = item(Item::Bytes);
pub(super) const TIME: Shape = item(Item::Time);
pub(super) const MICROTIME: Shape = item(Item::MicroTime);
pub(super) const QUANTITY: Shape = item(Item::Quantity);
pub(super) const INTORSTRING: Shape = item(Item::IntOrString);
pub(super) const ANY: Shape = item(Item::Any);
pub(super) const JSON: Shape = item(Item::Json);

const fn item(item: Item) -> Shape {
    Shape { wrap: Wrap::One, item }
}

pub(super) const fn of(t: &'static Type) -> Shape {
    item(Item::Object(t))
}

pub(super) const fn or_array(t: &'static Type) -> Shape {
    item(Item::Either(t, Other::Array))
}

pub(super) const fn or_bool(t: &'static Type) -> Shape {
    item(Item::Either(t, Other::Bool))
}

pub(super) const fn or_strings(t: &'static Type) -> Shape {
    item(Item::Either(t, Other::Strings))
}

pub(super) const fn list(of: Shape) -> Shape {
    Shape { wrap: Wrap::List, item: of.item }
}

pub(super) const fn map(of: Shape) -> Shape {
    let wrap = if matches!(of.wrap, Wrap::List) { Wrap::MapOfLists } else { Wrap::Map };
    Shape { wrap, item: of.item }
}

pub(super) const fn f(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape,
        required: false,
        list: ListType::Unset,
        atomic: false,
        merge: false,
        retain_keys: false,
        merge_key: "",
        number: 0,
        inside: &[],
        omits_zero: false,
        always: false,
        pointer: false,
        default: "",
        values: &[],
    }
}

impl Field {
    pub(super) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub(super) const fn at(self, number: u16) -> Self {
        Self { number, ..self }
    }

    pub(super) const fn inside(self, inside: &'static [u16]) -> Self {
        Self { inside, ..self }
    }

    pub(super) const fn omits_zero(self) -> Self {
        Self { omits_zero: true, ..self }
    }

    pub(super) const fn always(self) -> Self {
        Self { always: true, ..self }
    }

    pub(super) const fn pointer(self) -> Self {
        Self { pointer: true, ..self }
    }

    pub(super) const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    pub(super) const fn values(self, values: &'static [&'static str]) -> Self {
        Self { values, ..self }
    }

    pub(super) const fn merge(self, merge_key: &'static str) -> Self {
        Self { merge: true, merge_key, ..self }
    }

    pub(super) const fn retain_keys(self) -> Self {
        Self { retain_keys: true, ..self }
    }

    pub(super) const fn atomic(self) -> Self {
        Self { atomic: true, ..self }
    }

    pub(super) const fn list_atomic(self) -> Self {
        Self { list: ListType::Atomic, ..self }
    }

    pub(super) const fn list_set(self) -> Self {
        Self { list: ListType::Set, ..self }
    }

    pub(super) const fn list_map(self, keys: &'static [&'static str]) -> Self {
        Self { list: ListType::Map(keys), ..self }
    }
}
